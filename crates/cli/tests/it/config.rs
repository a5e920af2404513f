//! What `forebay serve` reads besides its flags.

use std::process::Stdio;

use crate::scratch::{Scratch, Served};

#[test]
fn a_server_is_told_by_its_file_its_environment_and_its_flags() {
    let scratch = Scratch::new();
    scratch.write("etc/forebay.toml", "db = \"file.db\"\nhttp = \"256.0.0.1:1\"\nlog_level = \"error\"\n");
    let mut command = scratch.command(&["serve", "--config", "etc/forebay.toml", "--http", "127.0.0.1:0"]);
    command.env("FOREBAY_HTTP", "also.invalid:1").stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = Served::listening(command.spawn().expect("the binary can be started"));
    scratch.forebay(&["status", "--url", &server.url]).exits(0);
    assert!(scratch.at("etc/file.db").exists(), "beside the file that names it");
    assert_eq!(server.end("TERM").err, "", "only errors are logged");
}

#[test]
fn a_file_that_means_nothing_is_said_with_its_line() {
    let scratch = Scratch::new();
    scratch.write("bad.toml", "db = \"a.db\"\nstop_timeot = \"1s\"\n");
    let said = scratch.forebay(&["serve", "--config", "bad.toml"]).exits(1);
    for wanted in ["bad.toml", "line 2", "stop_timeot", "`stop_timeout`"] {
        assert!(said.err.contains(wanted), "{wanted}: {said:?}");
    }
    scratch.write("bad.toml", "stop_timeout = \"10\"\n");
    let said = scratch.forebay(&["serve", "--config", "bad.toml"]).exits(1);
    assert!(said.err.contains("10s"), "{said:?}");
    let none = scratch.forebay(&["serve", "--config", "none.toml"]).exits(1);
    assert!(none.err.contains("none.toml cannot be read"), "{none:?}");
}
