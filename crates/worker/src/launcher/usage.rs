//! What the processes of a job use, sampled from `/proc`.

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

/// When the first sample of a process is taken. The next ones follow at doubling distances, up
/// to the interval that was asked for: short jobs are seen too, long ones cost little.
const FIRST_SAMPLE: Duration = Duration::from_millis(50);

/// The samples of one job.
#[derive(Debug)]
pub struct Meter {
    pub due: Instant,
    step: Duration,
    interval: Duration,
    peak_bytes: u64,
    sum_bytes: u128,
    samples: u32,
    peak_cpu_percent: f64,
    last: (Instant, Duration),
}

impl Meter {
    /// A meter of a process that starts `now`.
    pub fn new(now: Instant, interval: Duration) -> Self {
        let step = FIRST_SAMPLE.min(interval);
        Self {
            due: now + step,
            step,
            interval,
            peak_bytes: 0,
            sum_bytes: 0,
            samples: 0,
            peak_cpu_percent: 0.0,
            last: (now, Duration::ZERO),
        }
    }

    /// Takes in a sample and says when the next is due.
    pub fn add(&mut self, now: Instant, used: Used) {
        self.peak_bytes = self.peak_bytes.max(used.rss_bytes);
        self.sum_bytes += u128::from(used.rss_bytes);
        self.samples += 1;
        let (then, cpu) = self.last;
        let wall = now.saturating_duration_since(then).as_secs_f64();
        // The sum falls when a process of the group ends: then there is nothing to learn.
        if let Some(spent) = used.cpu.checked_sub(cpu).filter(|_| wall > 0.0) {
            self.peak_cpu_percent = self.peak_cpu_percent.max(100.0 * spent.as_secs_f64() / wall);
        }
        self.last = (now, used.cpu);
        self.step = (self.step * 2).min(self.interval);
        self.due = now + self.step;
    }

    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    pub fn mean_bytes(&self) -> Option<u64> {
        let mean = self.sum_bytes.checked_div(self.samples.into())?;
        Some(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    pub fn peak_cpu_percent(&self) -> f64 {
        self.peak_cpu_percent
    }
}

/// What a process and its descendants use at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub rss_bytes: u64,
    /// Processor time since they started.
    pub cpu: Duration,
}

/// Reads `/proc`, with buffers that are used again.
#[derive(Debug)]
pub struct Sampler {
    page_bytes: u64,
    ticks_per_second: u64,
    text: String,
}

impl Sampler {
    pub fn new() -> Self {
        Self {
            page_bytes: crate::sys::page_bytes(),
            ticks_per_second: crate::sys::ticks_per_second(),
            text: String::new(),
        }
    }

    /// What `pid` and its descendants use now. Processes that end meanwhile count nothing.
    pub fn sample(&mut self, pid: i32) -> Used {
        let mut used = Used::default();
        let mut open = vec![pid];
        while let Some(pid) = open.pop() {
            let Some(own) = self.read(&format!("/proc/{pid}/stat")).and_then(Stat::parse) else { continue };
            used.rss_bytes += own.rss_pages * self.page_bytes;
            used.cpu += Duration::from_millis(own.cpu_ticks * 1000 / self.ticks_per_second);
            self.children(pid, own.threads, &mut open);
        }
        used
    }

    /// Adds the children of `pid`. Each of its threads has its own list.
    fn children(&mut self, pid: i32, threads: u64, found: &mut Vec<i32>) {
        if threads == 1 {
            return self.children_of_thread(&format!("/proc/{pid}/task/{pid}/children"), found);
        }
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let path = task.path().join("children");
            if let Some(path) = path.to_str() {
                self.children_of_thread(path, found);
            }
        }
    }

    fn children_of_thread(&mut self, path: &str, found: &mut Vec<i32>) {
        let Some(text) = self.read(path) else { return };
        found.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<i32>().ok()));
    }

    fn read(&mut self, path: &str) -> Option<&str> {
        self.text.clear();
        fs::File::open(path).ok()?.read_to_string(&mut self.text).ok()?;
        Some(&self.text)
    }
}

/// The fields of `/proc/PID/stat` that we use.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat {
    pub cpu_ticks: u64,
    pub threads: u64,
    /// When the process started, in ticks since boot.
    pub start_ticks: u64,
    pub rss_pages: u64,
}

impl Stat {
    /// Reads the line. The program's name, in parentheses, may hold anything.
    pub fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and `rest` starts with field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            rss_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 200 0 0 7 5 1 1 20 0 3 0 12345 9000000 250 1844 1 1";
        let expected = Stat { cpu_ticks: 12, threads: 3, start_ticks: 12345, rss_pages: 250 };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("garbage"), None);
    }

    #[test]
    fn samples_get_rarer_up_to_the_interval() {
        let start = Instant::now();
        let mut meter = Meter::new(start, Duration::from_millis(300));
        let mut distances = vec![meter.due - start];
        for _ in 0..4 {
            let now = meter.due;
            meter.add(now, Used::default());
            distances.push(meter.due - now);
        }
        assert_eq!(distances, [50, 100, 200, 300, 300].map(Duration::from_millis));
    }

    #[test]
    fn a_meter_keeps_peaks_and_the_mean() {
        let start = Instant::now();
        let mut meter = Meter::new(start, Duration::from_secs(1));
        let second = Duration::from_secs(1);
        meter.add(start + second, Used { rss_bytes: 100, cpu: second / 2 });
        meter.add(start + 2 * second, Used { rss_bytes: 300, cpu: second * 2 });
        meter.add(start + 3 * second, Used { rss_bytes: 200, cpu: second });
        assert_eq!((meter.peak_bytes(), meter.mean_bytes()), (300, Some(200)));
        assert!((meter.peak_cpu_percent() - 150.0).abs() < 1e-9);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_memory_of_this_process_is_seen() {
        let used = Sampler::new().sample(i32::try_from(std::process::id()).unwrap());
        assert!(used.rss_bytes > 100_000, "{used:?}");
    }
}
