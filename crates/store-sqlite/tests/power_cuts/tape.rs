//! What a disk was told, in order; and what may be on it when its power is cut.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::power_cuts::history::Said;
use crate::power_cuts::random::Random;

/// The smallest part of a write that a disk keeps or loses whole, in bytes.
const SECTOR: usize = 512;

/// Everything that happened to the files of one folder, and what was said meanwhile.
#[derive(Debug)]
pub struct Tape {
    folder: PathBuf,
    /// Whether SQLite's syncs are carried out; else it is only told so.
    pub honest: bool,
    entries: Mutex<Vec<Entry>>,
    fault: Mutex<Faulty>,
}

/// How the disk fails.
#[derive(Debug, Default)]
struct Faulty {
    next: Option<Fault>,
    /// Files of which a sync failed, and by which handles that was heard: each is told once.
    told: BTreeMap<Box<str>, (c_int, Vec<usize>)>,
}

/// A call to the disk that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub of: Call,
    /// After so many that go well.
    pub after: usize,
    /// SQLite's number for why.
    pub code: c_int,
    /// Of a sync: what it was to make durable cannot be read any more either.
    pub forgets: bool,
}

impl Faulty {
    fn fails(&mut self, call: Call) -> Option<Fault> {
        let next = self.next.as_mut().filter(|fault| fault.of == call)?;
        if next.after > 0 {
            next.after -= 1;
            return None;
        }
        self.next.take()
    }
}

/// What a disk is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Write,
    Sync,
}

#[derive(Debug)]
pub struct Entry {
    pub at: Instant,
    pub event: Event,
}

#[derive(Debug)]
pub enum Event {
    /// The disk was given something that it may keep in its cache.
    Change { file: Box<str>, change: Change },
    /// A sync has ended: what this file was given before the entry `from` is durable.
    Sync { file: Box<str>, from: usize },
    /// A sync has failed: what this file was given before the entry `from` can still be read as long as the
    /// computer runs, but no later sync makes it durable.
    SyncFailed { file: Box<str>, from: usize },
    /// Somebody was told something.
    Said(Said),
    /// Somebody was told something, which need not be so any more.
    Unsaid,
}

#[derive(Debug)]
pub enum Change {
    Write { at: usize, bytes: Box<[u8]> },
    Truncate { to: usize },
    Delete,
}

impl Tape {
    pub fn new(folder: &Path, honest: bool) -> Tape {
        Tape { folder: folder.to_owned(), honest, entries: Mutex::default(), fault: Mutex::default() }
    }

    /// Has a call fail; `None`: none any more.
    pub fn break_disk(&self, next: Option<Fault>) {
        *self.faulty() = Faulty { next, told: BTreeMap::new() };
    }

    /// Whether there is a call that has failed.
    pub fn has_failed(&self) -> bool {
        self.faulty().next.is_none()
    }

    /// Why this write fails, if it does.
    pub fn fails_to_write(&self) -> Option<c_int> {
        self.faulty().fails(Call::Write).map(|fault| fault.code)
    }

    /// A sync of this file by this handle, which covers what stands before `from`; or why it fails.
    pub fn sync(&self, file: &str, handle: usize, from: usize) -> Result<(), c_int> {
        let mut faulty = self.faulty();
        if let Some((code, handles)) = faulty.told.get_mut(file)
            && !handles.contains(&handle)
        {
            handles.push(handle);
            return Err(*code);
        }
        let Some(fault) = faulty.fails(Call::Sync) else {
            self.push(Event::Sync { file: file.into(), from });
            return Ok(());
        };
        faulty.told.insert(file.into(), (fault.code, vec![handle]));
        let mut entries = self.entries();
        if fault.forgets {
            let mut disk = Disk::default();
            entries.iter().enumerate().for_each(|(place, entry)| disk.play(place, &entry.event));
            let durable = disk.files.remove(file).and_then(|file| file.durable).unwrap_or_default();
            std::fs::write(self.folder.join(file), durable).expect("the real disk does not fail");
        }
        let from = if fault.forgets { entries.len() } else { from };
        entries.push(Entry { at: Instant::now(), event: Event::SyncFailed { file: file.into(), from } });
        Err(fault.code)
    }

    fn faulty(&self) -> MutexGuard<'_, Faulty> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name under which a file is recorded, if it lies in the tape's folder.
    pub fn name_of(&self, path: &Path) -> Option<Box<str>> {
        let name = path.strip_prefix(&self.folder).ok()?.to_str()?;
        Some(name.into())
    }

    pub fn push(&self, event: Event) {
        let mut entries = self.entries();
        entries.push(Entry { at: Instant::now(), event });
    }

    /// The place of the next entry: a sync that begins now covers what stands before it.
    pub fn position(&self) -> usize {
        self.entries().len()
    }

    /// What was recorded. Who writes waits meanwhile.
    pub fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was recorded; from here on it is recorded anew.
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.entries())
    }
}

/// What becomes of what the disk had not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// All of it is gone.
    Dropped,
    /// All of it is there, as after a kill.
    Kept,
    /// Some of it is there, an older write over a newer one.
    Reordered,
    /// Some sectors of some of it are there.
    Torn,
}

pub const LOSSES: [Loss; 4] = [Loss::Dropped, Loss::Kept, Loss::Reordered, Loss::Torn];

/// A disk while a tape is played to it.
#[derive(Debug, Default)]
pub struct Disk<'a> {
    files: BTreeMap<&'a str, File<'a>>,
}

#[derive(Debug, Default)]
struct File<'a> {
    /// None while not even its name is.
    durable: Option<Vec<u8>>,
    /// In its cache, by the entry's place.
    pending: Vec<(usize, &'a Change)>,
}

impl<'a> Disk<'a> {
    pub fn play(&mut self, place: usize, event: &'a Event) {
        match event {
            Event::Change { file, change } => self.files.entry(file).or_default().pending.push((place, change)),
            Event::Sync { file, from } => {
                let file = self.files.entry(file).or_default();
                let is_new = file.durable.is_none();
                let (before, after) = file.pending.drain(..).partition(|(place, _)| place < from);
                file.pending = after;
                file.durable.get_or_insert_default();
                apply(&mut file.durable, before.into_iter().map(|(_, change)| change));
                if is_new {
                    // SQLite then syncs the folder too, and with that the end of files.
                    self.files.values_mut().for_each(File::end);
                }
            }
            Event::SyncFailed { file, from } => {
                self.files.entry(file).or_default().pending.retain(|(place, _)| place >= from);
            }
            Event::Said(_) | Event::Unsaid => {}
        }
    }

    /// Each file as it may be found after a cut now.
    pub fn cut(&self, loss: Loss, random: &mut Random) -> Vec<(&'a str, Vec<u8>)> {
        let found = |(name, file): (&&'a str, &File)| Some((*name, file.found(loss, random)?));
        self.files.iter().filter_map(found).collect()
    }
}

impl File<'_> {
    /// If it was deleted, it does not come back.
    fn end(&mut self) {
        if let Some(last) = self.pending.iter().rposition(|(_, change)| matches!(change, Change::Delete)) {
            self.pending.drain(..=last);
            self.durable = None;
        }
    }

    fn found(&self, loss: Loss, random: &mut Random) -> Option<Vec<u8>> {
        let mut file = self.durable.clone();
        let all = self.pending.iter().map(|(_, change)| *change);
        match loss {
            Loss::Dropped => {}
            Loss::Kept => apply(&mut file, all),
            Loss::Reordered => {
                let mut kept: Vec<&Change> = all.filter(|_| random.below(2) == 0).collect();
                for last in (1..kept.len()).rev() {
                    kept.swap(last, random.below(last + 1));
                }
                apply(&mut file, kept.into_iter());
            }
            Loss::Torn => {
                for change in all {
                    match change {
                        Change::Write { at, bytes } => tear(file.get_or_insert_default(), *at, bytes, random),
                        Change::Truncate { .. } | Change::Delete if random.below(2) == 0 => {}
                        Change::Truncate { .. } | Change::Delete => apply(&mut file, [change].into_iter()),
                    }
                }
            }
        }
        file
    }
}

fn apply<'a>(file: &mut Option<Vec<u8>>, changes: impl Iterator<Item = &'a Change>) {
    for change in changes {
        match change {
            Change::Write { at, bytes } => put(file.get_or_insert_default(), *at, bytes),
            Change::Truncate { to } => file.get_or_insert_default().truncate(*to),
            Change::Delete => *file = None,
        }
    }
}

/// Some sectors of a write.
fn tear(file: &mut Vec<u8>, at: usize, written: &[u8], random: &mut Random) {
    let mut from = 0;
    while from < written.len() {
        let to = written.len().min((at + from) / SECTOR * SECTOR + SECTOR - at);
        if random.below(2) == 0 {
            put(file, at + from, &written[from..to]);
        }
        from = to;
    }
}

/// What lies between the end of a file and a write behind it reads as zeros.
fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}
