//! Disks that fail: each write, or each sync, of a short history fails once. What was said before and
//! after must be found: when the process is gone and the computer runs on, and when its power is cut.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_domain::command::{Answer, Claimed, Command};
use forebay_domain::ids::{JobId, NodeId, WorkflowId};
use forebay_engine::{Ended, EngineHandle, Error};
use forebay_sim::commands;
use forebay_store_sqlite::Durability;

use super::audit;
use super::history::{self, Modes, Said};
use super::random::Random;
use super::tape::{Call, Disk, Entry, Event, Fault, LOSSES, Loss, Tape};
use super::vfs;

/// What became of a history on a disk that fails once.
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

/// Plays a history in which a call fails, then another one on what is left.
pub fn fail(mode: Durability, fault: Fault) -> Found {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let tape = vfs::record(folder.path(), true);
    tape.break_disk(Some(fault));
    let path = folder.path().canonicalize().expect("the folder is there").join("a.db");
    let mut found = Found { broken: live(&path, mode, &tape, true).err(), ..Found::default() };
    found.failed = tape.has_failed();
    tape.break_disk(None);
    // The process is gone; what the computer has of its files is what was written.
    let mut entries = tape.take();
    if mode == Durability::Process && fault.forgets {
        // As after a power cut.
        let lasting = super::last_synced(&entries);
        let mut place = 0..;
        entries.retain(|entry| place.next() < Some(lasting) || entry.said().is_none());
    }
    found.look(&format!("{fault:?}, killed"), &as_they_are(folder.path()), &entries);
    let loss = LOSSES[fault.after % LOSSES.len()];
    let answers = entries.iter().filter(|entry| entry.said().is_some()).count();
    found.cut_power(&format!("{fault:?}"), mode, &entries, answers, loss);
    if let Err(error) = live(&path, mode, &tape, false) {
        found.faults.push(format!("{fault:?}: the next start fails: {error}"));
    }
    // The places of syncs go on from where they were.
    let before = entries.len();
    entries.extend(tape.take().into_iter().map(|entry| entry.behind(before)));
    found.look(&format!("{fault:?}, started again"), &as_they_are(folder.path()), &entries);
    // Soon after that, before the log has begun anew.
    let answers = answers + 1 + fault.after % 8;
    found.cut_power(&format!("{fault:?}, started again"), mode, &entries, answers, loss);
    found
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

/// One life of an engine, until it breaks or has done its work.
fn live(path: &Path, mode: Durability, tape: &Arc<Tape>, is_first: bool) -> Result<(), String> {
    let engine = history::start(path, Modes::both(mode), tape).map_err(|error| error.to_string())?;
    let worked = work(&engine, tape, is_first);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    match (runtime.block_on(engine.stop(Duration::from_secs(60))), worked) {
        (Ended::Stopped, Ok(())) => Ok(()),
        (Ended::Stopped, Err(error)) => Err(format!("{error:?}, and it stopped well")),
        (ended @ (Ended::Unwritten { .. } | Ended::Broken { .. }), _) => Err(ended.to_string()),
    }
}

/// One caller, one call after the other: it goes on where the last one ended.
fn work(engine: &EngineHandle, tape: &Tape, is_first: bool) -> Result<(), Error> {
    let hear = |said| tape.push(Event::Said(said));
    let workflow = WorkflowId(1);
    if is_first {
        engine.call_blocking(commands::create_workflow())?;
        hear(Said::WorkflowCreated(workflow));
    }
    // In the second life so few that the log is not folded in soon.
    let count = if is_first { 30 } else { 2 };
    for _ in 0..3 {
        let first = match engine.call_blocking(history::create_jobs(workflow, count)) {
            // It was never told that its creation was done.
            Err(Error::Rejected(_)) => return Ok(()),
            other => JobId(history::created(other?)),
        };
        hear(Said::Created { first, count });
        engine.call_blocking(Command::Initialize { workflow, only_drafts: true })?;
        let Answer::Claimed(Claimed { jobs, .. }) = engine.call_blocking(history::claim(workflow, 3))? else {
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

impl Entry {
    /// As it is on a tape that has so many entries before it.
    fn behind(mut self, before: usize) -> Entry {
        match &mut self.event {
            Event::Sync { from, .. } | Event::SyncFailed { from, .. } => *from += before,
            Event::Change { .. } | Event::Said(_) => {}
        }
        self
    }
}

/// Fails each call of a kind in turn, until a history has not so many.
pub fn fail_each(mode: Durability, of: Call, code: i32, every: usize) -> Vec<Found> {
    let fault = |after| Fault { of, after, code, forgets: after / LOSSES.len() % 2 == 1 };
    let runs = (0..).step_by(every).map(|after| fail(mode, fault(after)));
    runs.take_while(|found| found.failed || !found.faults.is_empty()).collect()
}
