//! A control group for each job, where the kernel counts the memory of all its processes.
//!
//! Only in a folder of cgroup v2 that is delegated to us with the memory controller and holds nobody
//! else: a group that hands a controller to its children may hold no process itself, so the launcher
//! and its worker move into a leaf of it first. Nobody else is ever moved. Whatever fails means that
//! there are no groups, and memory is sampled.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::sys;

const MEMBERS: &str = "cgroup.procs";
const HANDED_DOWN: &str = "cgroup.subtree_control";
/// Since Linux 5.19, in groups that have the memory controller.
const PEAK: &str = "memory.peak";

/// The folder in which jobs have their groups. Dropped, it is as it was found.
#[derive(Debug)]
pub struct Groups {
    base: PathBuf,
    /// Where launcher and worker are meanwhile.
    leaf: PathBuf,
    launcher: u32,
    worker: u32,
    /// Groups of ended jobs in which something still ran.
    left: Vec<PathBuf>,
}

/// A job's group.
#[derive(Debug)]
pub struct Group(PathBuf);

/// What a process writes itself into to join a group.
pub struct Entrance(File);

impl Groups {
    /// For the launcher that calls, whose parent is the worker.
    pub fn open() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let (launcher, worker) = (std::process::id(), std::os::unix::process::parent_id());
        Self::within(own_folder(&groups, &mounts)?, launcher, worker)
    }

    fn within(base: PathBuf, launcher: u32, worker: u32) -> Option<Self> {
        let members = fs::read_to_string(base.join(MEMBERS)).ok()?;
        let is_ours = |pid: &str| pid.parse().is_ok_and(|pid: u32| pid == launcher || pid == worker);
        let has_children = fs::read_dir(&base).ok()?.flatten().any(|entry| entry.path().is_dir());
        if has_children || !members.lines().all(is_ours) || !base.join(PEAK).exists() {
            return None;
        }
        let leaf = base.join(format!("forebay-{launcher}"));
        fs::create_dir(&leaf).ok()?;
        // If it fails from here on, the drop undoes it.
        let groups = Self { base, leaf, launcher, worker, left: Vec::new() };
        let moved = [launcher, worker].iter().try_for_each(|pid| write(&groups.leaf.join(MEMBERS), &pid.to_string()));
        moved.and_then(|()| write(&groups.base.join(HANDED_DOWN), "+memory")).ok()?;
        Some(groups)
    }

    /// A new group for what the worker calls `key`.
    pub fn make(&self, key: u64) -> Option<(Group, Entrance)> {
        let folder = self.base.join(format!("job-{key}"));
        fs::create_dir(&folder).ok()?;
        let Ok(members) = open(&folder.join(MEMBERS)) else {
            // It is empty: at worst it stays so.
            drop(fs::remove_dir(&folder));
            return None;
        };
        Some((Group(folder), Entrance(members)))
    }

    /// The most memory that the processes of a group had together, if any ever joined. The group
    /// goes, once nothing runs in it.
    pub fn close(&mut self, Group(folder): Group) -> Option<u64> {
        let peak = fs::read_to_string(folder.join(PEAK)).ok().and_then(|text| text.trim().parse().ok());
        self.left.push(folder);
        self.left.retain(|folder| fs::remove_dir(folder).is_err());
        peak.filter(|peak| *peak > 0)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.left.retain(|folder| fs::remove_dir(folder).is_err());
        let worker = (std::os::unix::process::parent_id() == self.worker).then_some(self.worker);
        let home = self.base.join(MEMBERS);
        // What cannot be undone is an empty folder more, which goes with the one that it is in.
        drop((
            write(&self.base.join(HANDED_DOWN), "-memory"),
            write(&home, &self.launcher.to_string()),
            worker.map(|pid| write(&home, &pid.to_string())),
            fs::remove_dir(&self.leaf),
        ));
    }
}

impl Entrance {
    /// Puts the calling process in, between fork and exec; does not allocate. One that cannot join
    /// runs all the same: its group has seen no memory then, and what was sampled holds.
    pub fn join(&self) {
        drop(sys::append(self.0.as_raw_fd(), b"0\n"));
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn write(path: &Path, word: &str) -> io::Result<()> {
    open(path)?.write_all(format!("{word}\n").as_bytes())
}

/// The folder of the group that we are in, by what `/proc/self` says.
fn own_folder(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // Of a container's mount the root may be any group, ours or one above it.
        let below = Path::new(group).strip_prefix(root).ok()?;
        source.starts_with("cgroup2 ").then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group as the kernel shows it, but of plain files: what is written stands behind what was
    /// there, and a folder with files is not removed.
    fn fake(members: &str) -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        for (file, text) in [(MEMBERS, members), (HANDED_DOWN, ""), (PEAK, "1\n")] {
            fs::write(base.path().join(file), text).unwrap();
        }
        base
    }

    fn within(base: &tempfile::TempDir) -> Option<Groups> {
        Groups::within(base.path().to_owned(), 70, std::os::unix::process::parent_id())
    }

    #[test]
    fn a_job_has_a_group_and_its_peak_is_read_at_the_end() {
        let base = fake("70\n");
        let read = |path: &str| fs::read_to_string(base.path().join(path)).unwrap();
        let worker = std::os::unix::process::parent_id();
        let mut groups = within(&base).unwrap();
        assert_eq!(read("forebay-70/cgroup.procs"), format!("70\n{worker}\n"));
        assert_eq!(read(HANDED_DOWN), "+memory\n");

        let (group, entrance) = groups.make(7).unwrap();
        entrance.join();
        assert_eq!(read("job-7/cgroup.procs"), "0\n");
        fs::write(base.path().join("job-7/memory.peak"), "5242880\n").unwrap();
        assert_eq!(groups.close(group), Some(5 << 20));
        assert!(base.path().join("job-7").exists(), "something runs in it");

        // Its processes end: the kernel lets the folder go, and the next end of a job sees it.
        fs::remove_file(base.path().join("job-7/memory.peak")).unwrap();
        fs::remove_file(base.path().join("job-7/cgroup.procs")).unwrap();
        let (group, _) = groups.make(8).unwrap();
        fs::write(base.path().join("job-8/memory.peak"), "0\n").unwrap();
        assert_eq!(groups.close(group), None, "nothing ever joined");
        assert!(!base.path().join("job-7").exists());

        drop(groups);
        assert_eq!(read(HANDED_DOWN), "+memory\n-memory\n");
        assert_eq!(read(MEMBERS), format!("70\n70\n{worker}\n"));
    }

    #[test]
    fn a_group_with_somebody_else_in_it_is_left_alone() {
        let base = fake("70\n71\n");
        assert!(within(&base).is_none());
        assert_eq!(fs::read_to_string(base.path().join(MEMBERS)).unwrap(), "70\n71\n");
        assert!(!base.path().join("forebay-70").exists());
    }

    #[test]
    fn a_group_without_the_memory_controller_or_with_children_is_left_alone() {
        let without = fake("70\n");
        fs::remove_file(without.path().join(PEAK)).unwrap();
        assert!(within(&without).is_none());
        let with = fake("70\n");
        fs::create_dir(with.path().join("child")).unwrap();
        assert!(within(&with).is_none());
    }

    #[test]
    fn what_was_begun_is_undone_where_memory_cannot_be_handed_down() {
        let base = fake("70\n");
        let control = base.path().join(HANDED_DOWN);
        // Opened, and then no write succeeds, as with a controller that is busy.
        fs::remove_file(&control).unwrap();
        std::os::unix::fs::symlink("/dev/full", &control).unwrap();
        assert!(within(&base).is_none());
        let worker = std::os::unix::process::parent_id();
        let members = fs::read_to_string(base.path().join(MEMBERS)).unwrap();
        assert_eq!(members, format!("70\n70\n{worker}\n"));
    }

    #[test]
    fn our_group_is_found_below_its_mount() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";
        let found = own_folder("4:memory:/x\n0::/user.slice/a.scope\n", mounts);
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified/user.slice/a.scope")));
        let inside = "41 31 0:38 /pods/a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own_folder("0::/pods/a\n", inside), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(own_folder("0::/pods/b\n", inside), None);
        assert_eq!(own_folder("4:memory:/x\n", mounts), None);
    }
}
