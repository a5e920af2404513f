//! `GET /metrics`: what operators watch, in Prometheus' text format (version 0.0.4).

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use forebay_engine::{Counters, Distribution, EngineHandle, Stats};
use forebay_tasks::push::Standing;
use forebay_tasks::{Door as Tasks, Dropped};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Response, StatusCode};

/// Where they are.
pub(crate) const PATH: &str = "/metrics";

/// Who answers requests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Door {
    Workflows,
    Tasks,
    Queues,
}

const DOORS: [(Door, &str); 3] = [(Door::Workflows, "workflows"), (Door::Tasks, "tasks"), (Door::Queues, "queues")];
/// Kinds of status: `1xx` to `5xx`.
const CLASSES: usize = 5;

/// Requests since the start. Counting one is two additions to numbers of its own.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    answered: [[AtomicU64; CLASSES]; DOORS.len()],
    begun: AtomicU64,
    over: AtomicU64,
}

/// A request that is being answered; dropped, it is over, answered or not.
pub(crate) struct Begun<'a>(&'a Requests);

impl Requests {
    pub fn begin(&self) -> Begun<'_> {
        self.begun.fetch_add(1, Relaxed);
        Begun(self)
    }
}

impl Begun<'_> {
    pub fn answered(self, door: Door, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        self.0.answered[door as usize][class].fetch_add(1, Relaxed);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Relaxed);
    }
}

/// The answer to a request for [`PATH`].
pub(crate) async fn answer(
    method: &Method,
    engine: &EngineHandle,
    tasks: &Tasks,
    requests: &Requests,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
        return refused;
    }
    let mut response = Response::new(Full::from(render(engine, tasks, requests).await));
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

async fn render(engine: &EngineHandle, tasks: &Tasks, requests: &Requests) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    page.family("forebay_build_info", "gauge", "This program; always 1.");
    page.sample("forebay_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.requests(requests);
    page.dropped(tasks.dropped());
    page.engine(&engine.counters());
    if let Some(standing) = tasks.pushed() {
        page.pushes(&standing);
    }
    // Of an engine that has ended, or that has no reader free, the rest is told all the same.
    if let Ok(stats) = engine.stats().await {
        page.machine(&stats);
    }
    if let Ok(totals) = engine.totals().await {
        page.family("forebay_jobs", "gauge", "Jobs of all workflows, by state, as they are stored.");
        for (state, jobs) in totals {
            page.sample("forebay_jobs", &[("state", state)], jobs);
        }
    }
    let seen = engine.distributions();
    page.seconds("forebay_commit_seconds", "Committing a batch: the try that did it.", &seen.commit);
    page.seconds("forebay_page_seconds", "Reading a page of ready jobs, from asking for it.", &seen.page);
    page.seconds("forebay_claim_seconds", "A claim, from asking to its answer; it may wait for jobs.", &seen.claim);
    page.changes("forebay_batch_changes", "Changes of a committed batch.", &seen.batch);
    page.0
}

struct Page(String);

impl Page {
    fn requests(&mut self, requests: &Requests) {
        let name = "forebay_http_requests_total";
        self.family(name, "counter", "Requests that were answered, by door and kind of status.");
        for (door, label) in DOORS {
            for (class, answered) in requests.answered[door as usize].iter().enumerate() {
                let code = format!("{}xx", class + 1);
                self.sample(name, &[("door", label), ("code", &code)], answered.load(Relaxed));
            }
        }
        // What is over first: it is never more than what has begun.
        let over = requests.over.load(Relaxed);
        let in_flight = requests.begun.load(Relaxed).saturating_sub(over);
        self.gauge("forebay_http_requests_in_flight", "Requests that are being answered.", in_flight);
    }

    fn dropped(&mut self, dropped: Dropped) {
        let name = "forebay_tasks_dropped_total";
        self.family(name, "counter", "Tasks that the rules dropped: as they came, or where they waited.");
        self.sample(name, &[("at", "enqueue")], dropped.at_enqueue);
        self.sample(name, &[("at", "waiting")], dropped.waiting);
    }

    fn engine(&mut self, counters: &Counters) {
        let Counters {
            commands, answers, overloaded, given_back, turns, batches, changes, busy, machine_reads, ..
        } = *counters;
        self.counter("forebay_commands_total", "Commands that were applied.", commands);
        self.counter("forebay_answers_total", "Answers that reached their callers.", answers);
        self.counter("forebay_overloaded_total", "Commands that were refused for want of room.", overloaded);
        self.counter("forebay_given_back_total", "Claims that reached nobody and were taken back.", given_back);
        self.counter("forebay_engine_turns_total", "Turns of the engine's loop.", turns);
        self.counter("forebay_transactions_total", "Committed batches.", batches);
        self.counter("forebay_changes_total", "Committed changes.", changes);
        self.counter("forebay_store_busy_total", "Tries of a commit that found the store busy.", busy);
        self.counter("forebay_machine_reads_total", "Reads that the machine asked for.", machine_reads);
        let Counters { mailbox, held, backlog, callers, machine_reads_in_flight, door_reads_in_flight, .. } = *counters;
        self.gauge("forebay_mailbox_commands", "Commands that wait to be applied, held ones among them.", mailbox);
        self.gauge("forebay_held_commands", "Commands that wait for room in the backlog.", held);
        self.gauge("forebay_backlog_changes", "Changes of the batch that gathers.", backlog);
        self.gauge("forebay_callers", "Callers without an answer, waiting claims among them.", callers);
        let name = "forebay_reads_in_flight";
        self.family(name, "gauge", "Reads that wait or run.");
        self.sample(name, &[("for", "machine")], machine_reads_in_flight);
        self.sample(name, &[("for", "doors")], door_reads_in_flight);
    }

    fn pushes(&mut self, standing: &Standing) {
        let &Standing { in_flight, taken, busy, refused, failed, ready, full, away, unmapped } = standing;
        self.gauge("forebay_push_in_flight", "Tasks that are being pushed.", in_flight);
        let name = "forebay_pushes_total";
        self.family(name, "counter", "Pushes, by what became of them.");
        for (result, pushes) in [("taken", taken), ("busy", busy), ("refused", refused), ("failed", failed)] {
            self.sample(name, &[("result", result)], pushes);
        }
        let name = "forebay_push_endpoints";
        self.family(name, "gauge", "Workers that are pushed to, by how it stands with them.");
        for (state, endpoints) in [("ready", ready), ("full", full), ("away", away)] {
            self.sample(name, &[("state", state)], endpoints);
        }
        let help = "Applications without an endpoint, though others have one.";
        self.gauge("forebay_push_unmapped_applications", help, unmapped);
    }

    fn machine(&mut self, stats: &Stats) {
        self.gauge("forebay_window_jobs", "Ready jobs in windows.", stats.windowed);
        self.gauge("forebay_window_longest_jobs", "Ready jobs in the fullest window.", stats.window_longest);
        self.gauge("forebay_lanes", "Lanes in memory.", stats.lanes);
        self.gauge("forebay_lanes_behind", "Lanes with ready jobs that are not in memory.", stats.lanes_behind);
        self.gauge("forebay_workflows_in_memory", "Workflows in memory.", stats.workflows);
        self.gauge("forebay_slots", "Jobs in memory, ready, held or changed of late.", stats.slots);
        self.gauge("forebay_recent_jobs", "Changes that a read in flight may be too old to show.", stats.recent);
        self.gauge("forebay_waiting_claims", "Claims that wait for jobs.", stats.waiting);
        self.gauge("forebay_parked_commands", "Commands that wait for a read.", stats.parked);
        self.gauge("forebay_leases", "Compute nodes that say again and again that they live.", stats.leases);
        self.gauge("forebay_timers", "Jobs that wait for a moment.", stats.timers);
        self.gauge("forebay_graph_bytes", "Dependencies in memory.", stats.graph_bytes);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// Microseconds, told as seconds; bounds from 64 µs to a minute.
    fn seconds(&mut self, name: &str, help: &str, times: &Distribution) {
        let second = |us: u64| us as f64 / 1e6;
        let told = times.below.iter().filter(|(bound, _)| (1 << 6..=1 << 26).contains(bound));
        let told = told.map(|(bound, below)| (second(*bound), *below));
        self.histogram(name, help, told, second(times.sum), times.count);
    }

    /// Whole numbers: what is below a bound is at most the number before it.
    fn changes(&mut self, name: &str, help: &str, numbers: &Distribution) {
        let told = numbers.below.iter().filter(|(bound, _)| *bound <= 1 << 20);
        self.histogram(name, help, told.map(|(bound, below)| (bound - 1, *below)), numbers.sum, numbers.count);
    }

    fn histogram<B: Display>(
        &mut self,
        name: &str,
        help: &str,
        below: impl Iterator<Item = (B, u64)>,
        sum: impl Display,
        count: u64,
    ) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, below) in below {
            self.sample(&bucket, &[("le", &bound.to_string())], below);
        }
        self.sample(&bucket, &[("le", "+Inf")], count);
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], count);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// Label values are our own words: none needs an escape.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, text: std::fmt::Arguments) {
        writeln!(self.0, "{text}").expect("a String takes all text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_told_with_bounds_that_hold() {
        let below = vec![(2, 1), (4, 3), (1 << 21, 4)];
        let numbers = Distribution { count: 4, sum: 99, below };
        let mut page = Page(String::new());
        page.changes("n", "Numbers.", &numbers);
        let expected = "# HELP n Numbers.\n# TYPE n histogram\nn_bucket{le=\"1\"} 1\nn_bucket{le=\"3\"} 3\n\
                        n_bucket{le=\"+Inf\"} 4\nn_sum 99\nn_count 4\n";
        assert_eq!(page.0, expected);
    }

    #[test]
    fn times_are_told_in_seconds() {
        let below = vec![(32, 1), (64, 2), (1 << 20, 3), (1 << 27, 3)];
        let times = Distribution { count: 3, sum: 1_500_000, below };
        let mut page = Page(String::new());
        page.seconds("t", "Times.", &times);
        let expected = "# HELP t Times.\n# TYPE t histogram\nt_bucket{le=\"0.000064\"} 2\n\
                        t_bucket{le=\"1.048576\"} 3\nt_bucket{le=\"+Inf\"} 3\nt_sum 1.5\nt_count 3\n";
        assert_eq!(page.0, expected);
    }
}
