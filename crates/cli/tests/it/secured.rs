//! A server with TLS that lets only those in whom it knows.

use crate::scratch::{Said, Scratch, Served, finish};

/// Of `localhost`, signed by itself, made for tests alone.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/tests/fixtures");

/// `ada` with the password `secret`.
const USERS: &str = "ada:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

/// `ci` with the token `0123456789abcdef`.
const TOKENS: &str = "ci:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f\n";

fn serve(scratch: &Scratch) -> Served {
    scratch.write("users", USERS);
    scratch.write("tokens", TOKENS);
    let (cert, key) = (format!("{FIXTURES}/localhost.pem"), format!("{FIXTURES}/localhost.key"));
    let auth = ["--auth-file", "users", "--auth-tokens", "tokens", "--require-auth"];
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let mut args = vec!["serve", "--http", "127.0.0.1:0", "--db", "jobs.db"];
    args.extend(auth.iter().chain(&tls));
    Served::listening_secured(scratch.start(&args))
}

/// With these credentials in the environment.
fn forebay(scratch: &Scratch, credentials: &str, args: &[&str]) -> Said {
    let mut command = scratch.command(args);
    command.env("FOREBAY_CREDENTIALS", credentials).env("FOREBAY_CA", format!("{FIXTURES}/localhost.pem"));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    finish(command.spawn().expect("the binary can be started"))
}

#[test]
fn a_workflow_is_created_run_and_looked_at_on_a_server_with_tls_and_credentials() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", "name: one\njobs:\n  - {name: a, command: echo a >> ran}\n");
    let server = serve(&scratch);
    forebay(&scratch, "ada:secret", &["create", "w.yaml", "--url", &server.url]).exits(0);

    scratch.write("token", "0123456789abcdef\n");
    let ca = format!("{FIXTURES}/localhost.pem");
    let access = ["--credentials", "token", "--ca", &ca];
    let worker = [&["worker", "--url", &server.url, "--workflow", "1", "--quiet"], &access[..]].concat();
    scratch.forebay(&worker).exits(0);
    assert_eq!(scratch.read("ran"), "a\n");
    for listed in ["status", "jobs", "results"] {
        let said = forebay(&scratch, "0123456789abcdef", &[listed, "--url", &server.url]).exits(0);
        assert!(said.out.contains("completed"), "{said:?}");
    }
    let owner = forebay(&scratch, "ada:secret", &["status", "--url", &server.url, "--json"]).json();
    assert_eq!(owner[0]["user"], "ada");
    assert_eq!(server.end("TERM").code, 0);
}

#[test]
fn tasks_are_enqueued_and_looked_after_on_a_server_with_tls_and_credentials() {
    let scratch = Scratch::new();
    let server = serve(&scratch);
    let enqueue = ["tasks", "enqueue", "--application", "shop", "--namespace", "mail", "--task", "send"];
    let url = ["--url", &server.url];
    forebay(&scratch, "ada:secret", &[&enqueue[..], &["--id", "one"], &url].concat()).exits(0);
    scratch.write("token", "0123456789abcdef\n");
    let ca = format!("{FIXTURES}/localhost.pem");
    let access = ["--credentials", "token", "--ca", &ca];
    let before = [&["tasks"], &url[..], &access, &["status", "one", "--json"]].concat();
    assert_eq!(scratch.forebay(&before).exits(0).json()["state"], "pending");
    let behind = [&["tasks", "cancel", "one"], &url[..], &access].concat();
    scratch.forebay(&behind).exits(0);
    let strange = scratch.forebay(&[&["tasks", "applications"], &url[..]].concat()).exits(1);
    assert!(strange.err.contains("certificate"), "{strange:?}");
    let wrong = forebay(&scratch, "ada:wrong", &[&["tasks", "applications"], &url[..]].concat()).exits(1);
    assert!(wrong.err.contains("Unauthorized"), "{wrong:?}");
    assert_eq!(server.end("TERM").code, 0);
}

#[test]
fn who_is_not_known_or_does_not_know_the_server_is_told_so() {
    let scratch = Scratch::new();
    let server = serve(&scratch);
    let status = ["status", "--url", &server.url];
    for credentials in ["ada:wrong", "fedcba", ""] {
        let said = forebay(&scratch, credentials, &status).exits(1);
        assert!(said.err.contains("Unauthorized"), "{said:?}");
        assert!(credentials.is_empty() || !said.err.contains(credentials), "{said:?}");
    }
    let strange = scratch.forebay(&status).exits(1);
    assert!(strange.err.contains("certificate"), "{strange:?}");
    let missing = scratch.forebay(&[&status[..], &["--credentials", "none"]].concat()).exits(1);
    assert!(missing.err.contains("the credentials none cannot be read"), "{missing:?}");
    let bad = scratch.forebay(&[&status[..], &["--ca", "users"]].concat()).exits(1);
    assert!(bad.err.contains("users has no certificate"), "{bad:?}");
}
