//! Schemathesis on the server's own OpenAPI document: no 5xx, and no answer but those it says.

use std::process::Command;

use anyhow::{Context, ensure};

use crate::ci::{python_environment, sh};
use crate::server::{Profile, Server, build};

const SCHEMATHESIS: &str = "schemathesis==4.32.5";

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// Claims do not wait: each would take its time.
const CONFIG: &str = "[parameters]\nwait_ms = 1\n";

/// Jobs that wait for others, files and user data: what requests may find.
const WORKFLOW: &str = "\
name: seed
jobs:
  - {name: a, command: 'true'}
  - {name: b, command: 'true', depends_on: [a]}
  - {name: c, command: 'cat ${files.input.f} ${user_data.input.u}'}
files:
  - {name: f, path: f.txt}
user_data:
  - {name: u, data: {x: 1}}
";

/// `cases`: how many are made for each operation, besides those at the edges of its schema.
pub fn run(cases: u32, seed: u64, profile: Profile) -> anyhow::Result<()> {
    let binary = build(profile)?;
    let python = python_environment("schemathesis")?;
    sh(&python, &["-m", "pip", "install", "--quiet", SCHEMATHESIS])?;

    let folder = tempfile::tempdir()?;
    for (name, text) in [("w.yaml", WORKFLOW), ("f.txt", ""), ("schemathesis.toml", CONFIG)] {
        std::fs::write(folder.path().join(name), text)?;
    }
    let queues = folder.path().join("queues");
    let queues = ["--queues", queues.to_str().context("a path of text")?];
    let server = Server::start_with(&binary, &folder.path().join("schema.db"), "process", &queues)?;
    let url = format!("http://{}", server.address);
    for _ in 0..3 {
        let mut create = Command::new(&binary);
        let created = create.args(["create", "w.yaml", "--url", &url]).current_dir(folder.path()).output()?;
        ensure!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    }
    let config = folder.path().join("schemathesis.toml");
    let config = config.to_str().context("a path of text")?;
    let (document, cases, seed) = (format!("{url}/openapi.json"), cases.to_string(), seed.to_string());
    let args = ["-m", "schemathesis.cli", "--config-file", config, "run", &document];
    // What never ends has no answer to look at; and one path has a method that answers 501, not 405.
    let whole = ["--exclude-path-regex", "/(stream|remote_workers)$"];
    let bounds = ["-n", &cases, "--seed", &seed, "--request-timeout", "30", "--checks", CHECKS];
    let shown = ["--phases", "coverage,fuzzing", "--continue-on-failure", "--warnings", "off", "--no-color"];
    let mut schemathesis = Command::new(std::path::absolute(python)?);
    // It leaves a cache where it runs.
    schemathesis.args([&args[..], &whole, &bounds, &shown].concat()).current_dir(folder.path());
    println!("── schemathesis: {cases} cases an operation, seed {seed}");
    let status = schemathesis.status().context("schemathesis cannot be started")?;
    ensure!(status.success(), "schemathesis found what the document does not say: {status}");
    server.kill()
}
