mod creation;
mod equality;
mod examples;
mod mistakes;
mod torc_crate;

use std::collections::HashSet;
use std::path::Path;

use forebay_spec::{Format, Workflow, parse};

/// Reads YAML that is well.
fn yaml(text: &str) -> Workflow {
    parse("w.yaml", text, Format::Yaml, Path::new(".")).unwrap_or_else(|error| panic!("{error}"))
}

/// Pairs of jobs of which the second waits for the first: by `depends_on`, or because it reads
/// what the first writes. A server comes to the same when it initializes the workflow.
fn dependency_pairs(workflow: &Workflow) -> HashSet<(usize, usize)> {
    let jobs = || workflow.jobs.iter().enumerate();
    let mut pairs = HashSet::new();
    for (after, reader) in jobs() {
        pairs.extend(reader.depends_on.iter().map(|before| (*before as usize, after)));
        for (before, writer) in jobs() {
            let shares = |read: &[u32], written: &[u32]| read.iter().any(|index| written.contains(index));
            if shares(&reader.input_files, &writer.output_files)
                || shares(&reader.input_user_data, &writer.output_user_data)
            {
                pairs.insert((before, after));
            }
        }
    }
    pairs
}
