//! Jobs of `true`: what `forebay run` adds to starting the same shell commands by `xargs -P`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::server::{Profile, build};

pub fn run(jobs: usize, parallel: usize, rounds: usize) -> anyhow::Result<()> {
    let binary = build(Profile::Release)?;
    let scratch = tempfile::tempdir_in(".")?;
    let many = scratch.path().join("many.yaml");
    let mut text = String::from("name: many\njobs:\n");
    for n in 0..jobs {
        writeln!(text, "  - name: job_{n}\n    command: \"true\"")?;
    }
    std::fs::write(&many, text)?;
    let chain = scratch.path().join("chain.yaml");
    let mut text = String::from("name: chain\njobs:\n");
    for n in 0..100 {
        writeln!(text, "  - name: job_{n}\n    command: \"true\"")?;
        if n > 0 {
            writeln!(text, "    depends_on: [job_{}]", n - 1)?;
        }
    }
    std::fs::write(&chain, text)?;

    for durability in ["power", "process"] {
        let mut ratios = Vec::new();
        for round in 0..rounds {
            let ours = forebay(&binary, scratch.path(), &many, parallel, durability, round)?;
            let theirs = xargs(jobs, parallel)?;
            println!(
                "{durability}: {jobs} jobs of `true`, {parallel} at a time: forebay {:.0}/s, xargs {:.0}/s, ratio {:.2}",
                jobs as f64 / ours,
                jobs as f64 / theirs,
                theirs / ours
            );
            ratios.push(theirs / ours);
        }
        ratios.sort_by(f64::total_cmp);
        println!("{durability}: median ratio {:.2}", ratios[ratios.len() / 2]);
        let ours = forebay(&binary, scratch.path(), &chain, parallel, durability, rounds)?;
        let theirs = xargs(100, 1)?;
        println!(
            "{durability}: a chain of 100 jobs of `true`: {ours:.2} s; its processes alone, one after the other: {theirs:.2} s"
        );
    }
    Ok(())
}

/// Seconds of a whole `forebay run`.
fn forebay(
    binary: &Path,
    scratch: &Path,
    file: &Path,
    parallel: usize,
    durability: &str,
    round: usize,
) -> anyhow::Result<f64> {
    let name = file.file_stem().context("a file has a name")?.to_string_lossy();
    let db = scratch.join(format!("{name}-{durability}-{round}.db"));
    let start = Instant::now();
    let status = Command::new(binary)
        .args(["run", "--quiet", "--durability", durability, "--max-parallel-jobs", &parallel.to_string(), "--db"])
        .arg(&db)
        .arg("--output")
        .arg(scratch.join(format!("output-{name}-{durability}-{round}")))
        .arg(file)
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "forebay run: {status}");
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds of the same shell commands under xargs.
fn xargs(jobs: usize, parallel: usize) -> anyhow::Result<f64> {
    let start = Instant::now();
    let line = format!("seq {jobs} | xargs -P {parallel} -I{{}} bash -c true");
    let status = Command::new("sh").args(["-c", &line]).status()?;
    ensure!(status.success(), "{line}: {status}");
    Ok(start.elapsed().as_secs_f64())
}
