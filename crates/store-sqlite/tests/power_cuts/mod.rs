//! Power cuts: a history of clients, an engine and a store goes on tape, write by write and sync by
//! sync; then the power is cut at recorded syncs, what the disk had not synced is dropped, reordered
//! or torn, and what is left is opened and held against what the clients had been told by then.

mod audit;
pub mod faults;
mod history;
mod random;
mod tape;
mod vfs;

use std::time::Duration;

pub use history::Modes;
use history::Said;
use random::Random;
pub use tape::Call;
use tape::{Disk, Entry, Event, LOSSES, Loss};

use forebay_store_sqlite::Durability;

/// What some power cuts showed.
#[derive(Debug, Default)]
pub struct Found {
    pub cuts: usize,
    pub syncs: usize,
    /// Answers that had been given before the cuts, all together.
    pub answers: usize,
    /// In `process`: the longest time before a cut of which something may be lost.
    pub unsynced: Duration,
    /// What was wrong, each with its cut.
    pub faults: Vec<String>,
}

impl Found {
    pub fn add(&mut self, other: Found) {
        self.cuts += other.cuts;
        self.syncs += other.syncs;
        self.answers += other.answers;
        self.unsynced = self.unsynced.max(other.unsynced);
        self.faults.extend(other.faults);
    }
}

/// Plays a history, and cuts its power so many times.
pub fn cut_power(modes: Modes, seed: u64, rounds: usize, cuts: usize) -> Found {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let tape = history::play(folder.path(), modes, seed, rounds);
    let syncs: Vec<usize> = places(&tape, |event| matches!(event, Event::Sync { .. }));
    let mut random = Random(seed);
    let mut moments: Vec<(usize, Loss)> = (0..cuts)
        .map(|cut| {
            let sync = syncs[random.below(syncs.len())];
            // Before it ended, when it had, and when somebody may have heard of it.
            let upto = (sync + [0, 1, 1 + random.below(40)][random.below(3)]).min(tape.len());
            (upto, LOSSES[cut % LOSSES.len()])
        })
        .collect();
    moments.sort_by_key(|(upto, _)| *upto);

    let mut found = Found { cuts, syncs: syncs.len(), ..Found::default() };
    let (mut disk, mut played) = (Disk::default(), 0);
    for (upto, loss) in moments {
        for (place, entry) in tape.iter().enumerate().take(upto).skip(played) {
            disk.play(place, &entry.event);
        }
        played = upto;
        let lasting = match modes.engine {
            Durability::Power => upto,
            Durability::Process => last_synced(&tape[..upto]),
        };
        let said: Vec<Said> = tape[..lasting].iter().filter_map(Entry::said).collect();
        found.answers += said.len();
        found.unsynced = found.unsynced.max(unsynced(&tape[..upto], lasting));
        let left = tempfile::tempdir().expect("a folder can be made");
        let faults = audit::audit(left.path(), &disk.cut(loss, &mut random), said.into_iter());
        found.faults.extend(faults.iter().map(|fault| format!("seed {seed}, cut at entry {upto}, {loss:?}: {fault}")));
    }
    found
}

impl Entry {
    fn said(&self) -> Option<Said> {
        match &self.event {
            Event::Said(said) => Some(*said),
            Event::Change { .. } | Event::Sync { .. } | Event::SyncFailed { .. } | Event::Unsaid => None,
        }
    }

    /// What was said here may be lost.
    fn unsay(&mut self) {
        if let Event::Said(_) = self.event {
            self.event = Event::Unsaid;
        }
    }
}

fn places(tape: &[Entry], is_wanted: impl Fn(&Event) -> bool) -> Vec<usize> {
    tape.iter().enumerate().filter(|(_, entry)| is_wanted(&entry.event)).map(|(place, _)| place).collect()
}

/// What was said before this place was committed, and in the log, when the last sync of it began
/// that has ended.
fn last_synced(tape: &[Entry]) -> usize {
    let of_log = |entry: &Entry| match &entry.event {
        Event::Sync { file, from } if file.ends_with("-wal") => Some(*from),
        Event::Sync { .. } | Event::SyncFailed { .. } | Event::Change { .. } | Event::Said(_) | Event::Unsaid => None,
    };
    tape.iter().rev().find_map(of_log).unwrap_or(0)
}

/// How long before the end the first answer was given that may be lost.
fn unsynced(tape: &[Entry], lasting: usize) -> Duration {
    let first = tape[lasting..].iter().find(|entry| entry.said().is_some());
    first.zip(tape.last()).map_or(Duration::ZERO, |(first, last)| last.at - first.at)
}
