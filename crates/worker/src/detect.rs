//! What this machine has for jobs, within what our process may use of it.

use std::fs;
use std::path::{Path, PathBuf};

use forebay_wire::units::GIB;

/// What there is, or what of it is free or needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub gpus: i64,
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.cpus += other.cpus;
        self.memory_bytes += other.memory_bytes;
        self.gpus += other.gpus;
    }
}

impl std::ops::SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.cpus -= other.cpus;
        self.memory_bytes -= other.memory_bytes;
        self.gpus -= other.gpus;
    }
}

/// What this machine has: processors within affinity and quota, memory within the limits of the
/// control groups, GPUs.
pub fn machine() -> Amount {
    let cpus = std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(i64::MAX));
    let gpus = i64::try_from(gpu_devices(None).len()).unwrap_or(0);
    Amount { cpus, memory_bytes: memory_bytes(Path::new("/")), gpus }
}

/// The names of the GPUs that jobs may be given: those of the allocation that we run in, else
/// `0` to `count - 1`, where `count` is detected if it is not given.
pub fn gpu_devices(count: Option<i64>) -> Vec<String> {
    let listed = ["CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"];
    let listed = listed.into_iter().filter_map(|name| std::env::var(name).ok()).map(|list| device_list(&list));
    let count = || count.unwrap_or_else(|| nvidia_devices(Path::new("/dev")));
    let mut devices = listed
        .into_iter()
        .find(|devices| !devices.is_empty())
        .unwrap_or_else(|| (0..count()).map(|n| n.to_string()).collect());
    devices.dedup();
    devices
}

fn device_list(list: &str) -> Vec<String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.trim_start_matches("gpu:").trim_start_matches("GPU:").to_owned()).collect()
}

/// Counts `nvidia0`, `nvidia1` and so on, not `nvidiactl` and its like.
fn nvidia_devices(dev: &Path) -> i64 {
    let names = fs::read_dir(dev).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let numbered = |name: &std::ffi::OsString| {
        let number = name.to_str().and_then(|name| name.strip_prefix("nvidia"));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    };
    i64::try_from(names.filter(numbered).count()).unwrap_or(0)
}

/// Bytes of memory of the machine, or of the tightest control group that we are in.
fn memory_bytes(root: &Path) -> i64 {
    let total = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| mem_total(&text)).unwrap_or(GIB);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = memory_limit_files(&groups).into_iter().filter_map(|path| {
        let text = fs::read_to_string(root.join(path)).ok()?;
        text.trim().parse::<i64>().ok()
    });
    limits.filter(|limit| *limit > 0).fold(total, i64::min)
}

fn mem_total(meminfo: &str) -> Option<i64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()? * 1024)
}

/// The files that may limit our memory: of our groups and of all above them, in both versions.
/// In a container the root of the mount is our own group, whatever the path says.
fn memory_limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (folders, file): (&[&str], _) = match controllers {
            "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for folder in folders {
            let group = Path::new(folder).join(path.trim_start_matches('/'));
            let up = group.ancestors().take_while(|above| above.starts_with(folder));
            files.extend(up.map(|above| above.join(file)));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_control_group_limits_memory() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemFree: 1 kB\nMemTotal:       8388608 kB\n");
        assert_eq!(memory_bytes(root.path()), 8 * GIB);
        write("proc/self/cgroup", "4:memory:/a/b\n0::/user/me\n");
        write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(memory_bytes(root.path()), 8 * GIB);
        write("sys/fs/cgroup/user/memory.max", "max\n");
        write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "4294967296\n");
        assert_eq!(memory_bytes(root.path()), 4 * GIB);
        write("sys/fs/cgroup/memory.max", "1073741824\n");
        assert_eq!(memory_bytes(root.path()), GIB);
    }

    #[test]
    fn only_numbered_devices_are_gpus() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"] {
            fs::write(dev.path().join(name), "").unwrap();
        }
        assert_eq!(nvidia_devices(dev.path()), 2);
    }

    #[test]
    fn device_lists_are_read_in_each_form() {
        assert_eq!(device_list("0, 3,"), ["0", "3"]);
        assert_eq!(device_list("gpu:1,GPU:2"), ["1", "2"]);
        assert!(device_list("").is_empty());
    }

    #[test]
    fn this_machine_has_something() {
        let machine = machine();
        assert!(machine.cpus >= 1 && machine.memory_bytes > 0, "{machine:?}");
    }
}
