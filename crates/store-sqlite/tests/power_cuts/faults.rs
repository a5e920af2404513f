//! Disks that fail: each write, or each sync, of a short history fails once, or some by chance, in one life
//! after the other. What was said before and after must be found: when the process is gone and the computer
//! runs on, and when its power is cut.

use std::ffi::c_int;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_domain::command::{Answer, Claimed, Command};
use forebay_domain::ids::{JobId, NodeId, WorkflowId};
use forebay_engine::{Ended, EngineHandle, Error};
use forebay_sim::commands;
use forebay_store_sqlite::Durability;
use rusqlite::ffi;

use super::audit;
use super::history::{self, Modes, Said};
use super::random::Random;
use super::tape::{Call, Disk, Entry, Event, Fault, LOSSES, Loss, Tape};
use super::vfs;

/// Lives of an engine on one disk.
#[derive(Clone, Debug)]
struct Lives {
    modes: Modes,
    /// One in each but the last, in which nothing fails.
    faults: Vec<Fault>,
    /// How many each creation of the first life makes, and of the later ones.
    jobs: [usize; 2],
    /// At most so many are claimed at once.
    claimed: u32,
    /// What the cuts leave. The power is cut at the end of the first life, and in each other one behind so
    /// many answers.
    loss: Loss,
    cut_behind: usize,
}

/// What became of histories on a disk that fails.
#[derive(Debug, Default)]
pub struct Found {
    /// Whether the history was long enough for the call to come.
    pub failed: bool,
    /// What the engine, or its start, ended with, if not well.
    pub broken: Option<String>,
    /// Answers that were given.
    pub answers: usize,
    pub faults: Vec<String>,
}

impl Lives {
    fn failing_once(mode: Durability, fault: Fault) -> Lives {
        Lives {
            modes: Modes::both(mode),
            faults: vec![fault],
            // In the second life so few that the log is not folded in soon.
            jobs: [30, 2],
            claimed: 3,
            loss: LOSSES[fault.after % LOSSES.len()],
            cut_behind: 1 + fault.after % 8,
        }
    }

    fn by_chance(modes: Modes, seed: u64) -> Lives {
        let mut random = Random(seed);
        let lives = 1 + random.below(3);
        let faults = (0..lives).map(|life| {
            let (of, code) = FAILURES[random.below(FAILURES.len())];
            let calls = match (of, life) {
                (Call::Sync, 0) => 60,
                (Call::Write, 0) => 600,
                (Call::Sync, _) => 25,
                (Call::Write, _) => 120,
            };
            Fault { of, after: random.below(calls), code, forgets: random.below(2) == 0 }
        });
        let faults = faults.collect();
        Lives {
            modes,
            faults,
            jobs: [1 + random.below(40), 1 + random.below(10)],
            claimed: 1 + random.below(5) as u32,
            loss: LOSSES[random.below(LOSSES.len())],
            cut_behind: 1 + random.below(20),
        }
    }

    fn play(&self) -> Found {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let tape = vfs::record(folder.path(), true);
        let path = folder.path().canonicalize().expect("the folder is there").join("a.db");
        let mut found = Found::default();
        let mut heard = 0;
        for (life, fault) in self.faults.iter().copied().map(Some).chain([None]).enumerate() {
            tape.break_disk(fault);
            let ended = self.live(&path, &tape, life);
            let failed = fault.filter(|_| tape.has_failed());
            tape.break_disk(None);
            found.failed |= failed.is_some();
            let when = format!("{:?}", &self.faults[..self.faults.len().min(life + 1)]);
            match ended {
                Ok(()) => {}
                Err(error) if failed.is_some() => found.broken = Some(error),
                Err(error) => {
                    found.faults.push(format!("{when}: life {life}, in which nothing failed, fails: {error}"))
                }
            }
            // The process is gone; what the computer has of its files is what was written.
            let mut entries = tape.entries();
            if self.modes.engine == Durability::Process && failed.is_some_and(|fault| fault.forgets) {
                // As after a power cut.
                let lasting = super::last_synced(&entries);
                entries[lasting..].iter_mut().for_each(Entry::unsay);
            }
            found.look(&format!("{when}, life {life}, killed"), &as_they_are(folder.path()), &entries);
            let answers = entries.iter().filter(|entry| entry.said().is_some()).count();
            let cut_behind = if life == 0 { answers } else { answers.min(heard + self.cut_behind) };
            found.cut_power(&format!("{when}, life {life}"), self.modes.engine, &entries, cut_behind, self.loss);
            heard = answers;
        }
        found
    }

    /// One life of an engine, until it breaks or has done its work.
    fn live(&self, path: &Path, tape: &Arc<Tape>, life: usize) -> Result<(), String> {
        let engine = history::start(path, self.modes, tape).map_err(|error| error.to_string())?;
        let worked = self.work(&engine, tape, life);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        match (runtime.block_on(engine.stop(Duration::from_secs(60))), worked) {
            (Ended::Stopped, Ok(())) => Ok(()),
            (Ended::Stopped, Err(error)) => Err(format!("{error:?}, and it stopped well")),
            (ended @ (Ended::Unwritten { .. } | Ended::Broken { .. }), _) => Err(ended.to_string()),
        }
    }

    /// One caller, one call after the other: it goes on where the last one ended.
    fn work(&self, engine: &EngineHandle, tape: &Tape, life: usize) -> Result<(), Error> {
        let hear = |said| tape.push(Event::Said(said));
        let workflow = WorkflowId(1);
        if life == 0 {
            engine.call_blocking(commands::create_workflow())?;
            hear(Said::WorkflowCreated(workflow));
        }
        let count = self.jobs[life.min(1)];
        for _ in 0..3 {
            let first = match engine.call_blocking(history::create_jobs(workflow, count)) {
                // It was never told that its creation was done.
                Err(Error::Rejected(_)) => return Ok(()),
                other => JobId(history::created(other?)),
            };
            hear(Said::Created { first, count });
            engine.call_blocking(Command::Initialize { workflow, only_drafts: true })?;
            let claim = history::claim(workflow, self.claimed);
            let Answer::Claimed(Claimed { jobs, .. }) = engine.call_blocking(claim)? else {
                panic!("a claim is answered with jobs");
            };
            for (row, _) in jobs {
                hear(Said::Claimed { job: row.id, attempt: row.attempt, grant: row.grant });
                engine.call_blocking(Command::Start { job: row.id, run: 0, node: NodeId(1) })?;
                hear(Said::Started(row.id));
                engine.call_blocking(commands::completed(workflow, &row))?;
                hear(Said::Ended(row.id));
            }
        }
        Ok(())
    }
}

impl Found {
    fn look(&mut self, when: &str, files: &[(&str, Vec<u8>)], said: &[Entry]) {
        let left = tempfile::tempdir().expect("a folder can be made");
        let said: Vec<Said> = said.iter().filter_map(Entry::said).collect();
        self.answers = self.answers.max(said.len());
        let faults = audit::audit(left.path(), files, said.into_iter());
        self.faults.extend(faults.iter().map(|fault| format!("{when}: {fault}")));
    }

    /// Behind so many answers, if there are so many.
    fn cut_power(&mut self, when: &str, mode: Durability, tape: &[Entry], answers: usize, loss: Loss) {
        let said = super::places(tape, |event| matches!(event, Event::Said(_)));
        let last = said.iter().take(answers).next_back().map_or(0, |place| place + 1);
        let mut disk = Disk::default();
        for (place, entry) in tape[..last].iter().enumerate() {
            disk.play(place, &entry.event);
        }
        let lasting = match mode {
            Durability::Power => last,
            Durability::Process => super::last_synced(&tape[..last]),
        };
        self.look(&format!("{when}, power cut, {loss:?}"), &disk.cut(loss, &mut Random(7)), &tape[..lasting]);
    }
}

fn as_they_are(folder: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let read = |name| fs::read(folder.join(name)).ok().map(|bytes| (name, bytes));
    ["a.db", "a.db-wal"].into_iter().filter_map(read).collect()
}

/// What is asked of a disk that fails, and SQLite's number for it.
pub const FAILURES: [(Call, c_int); 3] =
    [(Call::Sync, ffi::SQLITE_IOERR_FSYNC), (Call::Write, ffi::SQLITE_IOERR_WRITE), (Call::Write, ffi::SQLITE_FULL)];

/// Fails each call of a kind in turn, until a history has not so many.
pub fn fail_each(mode: Durability, of: Call, code: i32, every: usize) -> Vec<Found> {
    let fault = |after| Fault { of, after, code, forgets: after / LOSSES.len() % 2 == 1 };
    let runs = (0..).step_by(every).map(|after| Lives::failing_once(mode, fault(after)).play());
    runs.take_while(|found| found.failed || !found.faults.is_empty()).collect()
}

/// Fails a sync, and then a write of the next life.
pub fn fail_in_turn(mode: Durability, sync: usize, write: usize) -> Found {
    let sync = Fault { of: Call::Sync, after: sync, code: ffi::SQLITE_IOERR_FSYNC, forgets: false };
    let write = Fault { of: Call::Write, after: write, code: ffi::SQLITE_FULL, forgets: false };
    Lives { faults: vec![sync, write], ..Lives::failing_once(mode, sync) }.play()
}

/// Fails calls of all kinds by chance, in up to three lives of an engine.
pub fn fail_by_chance(modes: Modes, seeds: Range<u64>) -> Vec<Found> {
    seeds.map(|seed| Lives::by_chance(modes, seed).play()).collect()
}
