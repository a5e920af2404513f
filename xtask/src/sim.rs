//! Simulated histories, in an optimized build.

use crate::ci::sh;

pub fn run(seeds: &str) -> anyhow::Result<()> {
    sh(
        "cargo",
        &["run", "--profile", "sim", "--locked", "-p", "forebay-sim", "--example", "sim", "--", "--seeds", seeds],
    )
}
