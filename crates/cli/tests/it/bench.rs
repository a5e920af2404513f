//! How fast jobs that do nothing are run. `cargo test --release -p forebay -- --ignored --nocapture rate`

use std::process::Command;
use std::time::Instant;

use crate::scratch::Scratch;

#[test]
#[ignore = "a measurement: it means something only in a release build on a quiet machine"]
fn rate_of_two_thousand_jobs_beside_xargs() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", "name: w\njobs:\n  - {name: 'j{i}', command: 'true', parameters: {i: '1:2000'}}\n");
    let begin = Instant::now();
    scratch.forebay(&["run", "w.yaml", "--quiet", "--max-parallel-jobs", "8"]).exits(0);
    let ours = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let xargs = Command::new("sh").args(["-c", "seq 2000 | xargs -P 8 -I{} bash -c true"]).status();
    assert!(xargs.is_ok_and(|status| status.success()));
    let theirs = begin.elapsed().as_secs_f64();
    println!("forebay {:.0}/s, xargs {:.0}/s, ratio {:.2}", 2000.0 / ours, 2000.0 / theirs, theirs / ours);
}
