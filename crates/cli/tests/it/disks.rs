//! Disks that do not do their part: a clear message each, nothing harmed, and back to work where that
//! is possible.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scratch::{Scratch, Served, finish};

const ONE: &str = "name: one\njobs:\n  - {name: a, command: 'true'}\n";

/// A workflow of some hundred kilobytes.
fn large() -> String {
    let mut text = "name: large\njobs:\n".to_owned();
    for n in 0..200 {
        text += &format!("  - {{name: j{n}, command: 'echo {}'}}\n", "x".repeat(2_000));
    }
    text
}

/// A disk of a test's own; unmounted when dropped.
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// None, and why on stderr, if this user cannot mount.
    pub fn mount(scratch: &Scratch, mebibytes: u32) -> Option<Disk> {
        let at = scratch.at("disk");
        fs::create_dir(&at).unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Disk { at }),
            Ok(output) => {
                eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: mount cannot be started: {error}");
                None
            }
        }
    }

    /// Takes all room that is left; given back by the removal of the file.
    pub fn fill(&self) -> PathBuf {
        let path = self.at.join("ballast");
        let mut ballast = File::create(&path).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        path
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.at).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: who still has a file open keeps it until he ends.
        drop(Command::new("umount").arg("-l").arg(&self.at).status());
    }
}

#[test]
fn a_full_disk_makes_callers_wait_until_there_is_room() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::mount(&scratch, 8) else { return };
    scratch.write("one.yaml", ONE);
    scratch.write("large.yaml", &large());
    let mut server = Served::start(&scratch, &["--db", "disk/jobs.db"]);
    scratch.forebay(&["create", "one.yaml", "--url", &server.url]).exits(0);
    let ballast = disk.fill();
    let caller = scratch.start(&["create", "large.yaml", "--url", &server.url]);
    server.hear("the store is busy");
    // Who only looks is answered, by the server and beside it.
    for place in [["--url", &server.url], ["--db", "disk/jobs.db"]] {
        let status = scratch.forebay(&["status", "--json", place[0], place[1]]).exits(0).json();
        assert_eq!(status[0]["total_jobs"], 1, "{status}");
    }
    fs::remove_file(ballast).unwrap();
    finish(caller).exits(0);
    assert_eq!(server.end("TERM").code, 0);
    scratch.forebay(&["db", "check", "--db", "disk/jobs.db"]).exits(0);
    let status = scratch.forebay(&["status", "--db", "disk/jobs.db", "--json"]).exits(0).json();
    assert_eq!(status[1]["total_jobs"], 200, "{status}");
}

#[test]
fn a_server_that_is_stopped_with_its_disk_full_says_what_it_did_not_write() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::mount(&scratch, 8) else { return };
    scratch.write("one.yaml", ONE);
    scratch.write("large.yaml", &large());
    let mut server = Served::start(&scratch, &["--db", "disk/jobs.db", "--stop-timeout", "300ms"]);
    scratch.forebay(&["create", "one.yaml", "--url", &server.url]).exits(0);
    let ballast = disk.fill();
    let caller = scratch.start(&["create", "large.yaml", "--url", &server.url]);
    server.hear("the store is busy");
    let said = server.end("TERM");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("changes were not written"), "{said:?}");
    finish(caller).exits(1);

    // On the full disk: nothing can be begun.
    let again = scratch.forebay(&["serve", "--db", "disk/jobs.db", "--http", "127.0.0.1:0"]).exits(1);
    assert!(again.err.contains("full") || again.err.contains("No space"), "{again:?}");
    fs::remove_file(ballast).unwrap();
    let server = Served::start(&scratch, &["--db", "disk/jobs.db"]);
    assert_eq!(server.end("TERM").code, 0);
    scratch.forebay(&["db", "check", "--db", "disk/jobs.db"]).exits(0);
    // What was acknowledged is there.
    let status = scratch.forebay(&["status", "--db", "disk/jobs.db", "--json"]).exits(0).json();
    assert_eq!(status[0]["total_jobs"], 1, "{status}");
}

#[test]
fn a_database_that_cannot_be_written_is_not_served_but_read() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::mount(&scratch, 8) else { return };
    scratch.write("one.yaml", ONE);
    scratch.forebay(&["run", "one.yaml", "--db", "disk/jobs.db", "--quiet"]).exits(0);
    let before = fs::read(scratch.at("disk/jobs.db")).unwrap();
    disk.remount("ro");
    for args in [&["serve", "--http", "127.0.0.1:0"][..], &["run", "one.yaml"], &["db", "vacuum"]] {
        let said = scratch.forebay(&[args, &["--db", "disk/jobs.db"]].concat()).exits(1);
        assert!(said.err.contains("disk/jobs.db") && said.err.contains("Read-only"), "{args:?}: {said:?}");
    }
    for args in [&["status"][..], &["jobs"], &["db", "check"]] {
        scratch.forebay(&[args, &["--db", "disk/jobs.db"]].concat()).exits(0);
    }
    assert_eq!(fs::read(scratch.at("disk/jobs.db")).unwrap(), before);
    disk.remount("rw");
    let server = Served::start(&scratch, &["--db", "disk/jobs.db"]);
    assert_eq!(server.end("TERM").code, 0);
}

/// Fills pages of a file with what no database has, the first one left alone.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[4096..].fill(0xa5);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_database_stops_the_server_and_comes_back_from_its_backup() {
    let scratch = Scratch::new();
    scratch.write("one.yaml", ONE);
    scratch.forebay(&["run", "one.yaml", "--db", "jobs.db", "--quiet"]).exits(0);
    scratch.forebay(&["db", "backup", "backup.db", "--db", "jobs.db"]).exits(0);
    damage(&scratch.at("jobs.db"));
    let damaged = fs::read(scratch.at("jobs.db")).unwrap();
    let said = scratch.forebay(&["serve", "--db", "jobs.db", "--http", "127.0.0.1:0"]).exits(1);
    assert!(said.err.contains("jobs.db is damaged: `forebay db check` says where"), "{said:?}");
    let checked = scratch.forebay(&["db", "check", "--db", "jobs.db"]).exits(1);
    assert!(checked.out.contains("damaged: "), "{checked:?}");
    assert!(fs::read(scratch.at("jobs.db")).unwrap() == damaged, "it is left as it is, for who knows how to save more");
    fs::rename(scratch.at("backup.db"), scratch.at("jobs.db")).unwrap();
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    assert_eq!(server.end("TERM").code, 0);
    assert_eq!(scratch.states("jobs.db"), [("a".to_owned(), "completed".to_owned())]);
}

#[test]
fn a_database_of_a_newer_forebay_is_left_alone() {
    let scratch = Scratch::new();
    scratch.write("one.yaml", ONE);
    scratch.forebay(&["run", "one.yaml", "--db", "jobs.db", "--quiet"]).exits(0);
    // The version of the schema stands in the header, at 60.
    let mut bytes = fs::read(scratch.at("jobs.db")).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(scratch.at("jobs.db"), &bytes).unwrap();
    for args in [&["serve", "--http", "127.0.0.1:0"][..], &["run", "one.yaml"], &["status"], &["db", "migrate"]] {
        let said = scratch.forebay(&[args, &["--db", "jobs.db"]].concat()).exits(1);
        assert!(said.err.contains("was written by a newer forebay (its schema has version 99,"), "{args:?}: {said:?}");
    }
    assert!(fs::read(scratch.at("jobs.db")).unwrap() == bytes);
}

#[test]
fn a_database_in_use_is_named_with_who_uses_it() {
    let scratch = Scratch::new();
    scratch.write("one.yaml", ONE);
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    for args in [&["serve", "--http", "127.0.0.1:0"][..], &["run", "one.yaml"]] {
        let said = scratch.forebay(&[args, &["--db", "jobs.db"]].concat()).exits(1);
        assert!(said.err.contains("jobs.db is in use by another process ("), "{args:?}: {said:?}");
    }
    // The first goes on as if nothing had been.
    scratch.forebay(&["create", "one.yaml", "--url", &server.url]).exits(0);
    assert_eq!(server.end("TERM").code, 0);
}
