//! The queue for Python: JSON goes in and out as text, and no call holds the interpreter's lock
//! while it works or waits.

use std::time::{Duration, Instant};

use forebay_jobq::{CreateOptions, Durability, Error, Job, JobQueue, Json, Leased, Options, Query};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;

create_exception!(_native, JobQueueError, PyException, "A call that did nothing.");
create_exception!(_native, NoSuchJob, JobQueueError, "There is no job of this id.");
create_exception!(_native, NoSuchQueue, JobQueueError, "There is no queue of this name.");
create_exception!(_native, LeaseEnded, JobQueueError, "The job went on without this worker.");
create_exception!(_native, BadQuery, JobQueueError, "The query is outside the grammar.");
create_exception!(_native, Busy, JobQueueError, "Nothing was written; try again.");
create_exception!(_native, Closed, JobQueueError, "The queue was closed.");

fn raised(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::NoJob(_) => NoSuchJob::new_err(text),
        Error::NoQueue(_) => NoSuchQueue::new_err(text),
        Error::LeaseEnded(_) => LeaseEnded::new_err(text),
        Error::Query(_) => BadQuery::new_err(text),
        Error::NotJson(_) | Error::Name(_) => PyValueError::new_err(text),
        Error::Busy(_) | Error::Overloaded => Busy::new_err(text),
        Error::Closed => Closed::new_err(text),
        Error::Format(_) | Error::Broken(_) | Error::Refused(_) => JobQueueError::new_err(text),
    }
}

/// (id, payload, events, state, modified), the three in the middle as JSON text.
type Row = (i64, String, String, String, i64);
/// A row, its attempt, and when its lease ends in milliseconds since 1970.
type LeasedRow = (Row, i64, i64);

fn row(job: Job) -> Row {
    let Job { id, payload, events, state, modified } = job;
    (id, payload.into_string(), events.into_string(), state.into_string(), modified)
}

fn json(text: &str) -> PyResult<Json> {
    Json::parse(text).map_err(raised)
}

/// A query as its JSON text.
fn query(text: &str) -> PyResult<Query> {
    let value = json(text)?.to().map_err(raised)?;
    Query::from_value(&value).map_err(|error| raised(error.into()))
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    // An hour-long century is as good as for ever.
    Duration::try_from_secs_f64(seconds.clamp(0.0, 3.2e9))
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

/// While a call waits, how often it looks for a signal such as Ctrl-C.
const SIGNALS_INTERVAL: Duration = Duration::from_millis(100);

/// A queue of jobs; clones made by `queue` share the file.
#[pyclass(frozen)]
struct Queue(JobQueue);

#[pymethods]
impl Queue {
    #[new]
    fn open(
        py: Python<'_>,
        path: std::path::PathBuf,
        process: bool,
        events_table: bool,
    ) -> PyResult<Self> {
        let durability = if process { Durability::Process } else { Durability::Power };
        let options = Options { durability, events_table, ..Options::default() };
        py.detach(|| JobQueue::open_with(path, options)).map(Queue).map_err(raised)
    }

    fn create(
        &self,
        py: Python<'_>,
        payload: String,
        state: &str,
        priority: i64,
        delay: f64,
        retries: Option<u32>,
    ) -> PyResult<Row> {
        let delay_ms = i64::try_from(seconds(delay)?.as_millis()).unwrap_or(i64::MAX);
        let options = CreateOptions { priority, delay_ms, retries };
        // As the original, which stores the payload unseen.
        let payload = Json::from_trusted(payload);
        let state = json(state)?;
        py.detach(|| self.0.create_with(payload, state, options)).map(row).map_err(raised)
    }

    fn get(&self, py: Python<'_>, id: i64) -> PyResult<Row> {
        py.detach(|| self.0.get(id)).map(row).map_err(raised)
    }

    fn query(&self, py: Python<'_>, terms: &str, limit: Option<u64>) -> PyResult<Vec<Row>> {
        let query = query(terms)?;
        let jobs = py.detach(|| self.0.query(query, limit)).map_err(raised)?;
        Ok(jobs.into_iter().map(row).collect())
    }

    fn poll(
        &self,
        py: Python<'_>,
        terms: &str,
        state: &str,
        limit: u32,
        timeout: f64,
    ) -> PyResult<Vec<Row>> {
        let (query, state) = (query(terms)?, json(state)?);
        let mut jobs = py
            .detach(|| self.0.poll_many(&query, &state, limit))
            .map_err(raised)?;
        if jobs.is_empty() && timeout > 0.0 {
            let polled = waiting(py, timeout, |slice| self.0.poll_wait(&query, &state, slice))?;
            jobs.extend(polled);
        }
        Ok(jobs.into_iter().map(row).collect())
    }

    fn lease(
        &self,
        py: Python<'_>,
        terms: &str,
        state: &str,
        lease: f64,
        limit: u32,
        timeout: f64,
    ) -> PyResult<Vec<LeasedRow>> {
        let (query, state, lease) = (query(terms)?, json(state)?, seconds(lease)?);
        let leased = waiting(py, timeout, |slice| {
            let leased = self.0.lease(&query, &state, limit, lease, slice)?;
            Ok((!leased.is_empty()).then_some(leased))
        })?;
        let rows = leased.into_iter().flatten();
        Ok(rows.map(|leased| (row(leased.job), leased.attempt, leased.until_ms)).collect())
    }

    fn renew(&self, py: Python<'_>, id: i64, attempt: i64, lease: f64) -> PyResult<()> {
        let lease = seconds(lease)?;
        py.detach(|| self.0.renew(&leased(id, attempt), lease)).map_err(raised)
    }

    fn finish(&self, py: Python<'_>, id: i64, attempt: i64, state: &str) -> PyResult<Row> {
        let state = json(state)?;
        py.detach(|| self.0.finish(&leased(id, attempt), state)).map(row).map_err(raised)
    }

    fn cas_state(&self, py: Python<'_>, id: i64, old: &str, new: &str) -> PyResult<Option<Row>> {
        let (old, new) = (json(old)?, json(new)?);
        let job = py.detach(|| self.0.cas_state(id, old, new)).map_err(raised)?;
        Ok(job.map(row))
    }

    fn append_event(&self, py: Python<'_>, id: i64, event: &str) -> PyResult<Row> {
        let event = json(event)?;
        py.detach(|| self.0.append_event(id, event)).map(row).map_err(raised)
    }

    fn log_event(&self, py: Python<'_>, id: i64, event: &str) -> PyResult<()> {
        let event = json(event)?;
        py.detach(|| self.0.log_event(id, event)).map_err(raised)
    }

    fn delete(&self, py: Python<'_>, id: i64) -> PyResult<bool> {
        py.detach(|| self.0.delete(id)).map_err(raised)
    }

    fn queue(&self, py: Python<'_>, name: &str) -> PyResult<Queue> {
        py.detach(|| self.0.queue(name)).map(Queue).map_err(raised)
    }

    fn queues(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| self.0.queues()).map_err(raised)
    }

    fn drop_queue(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        py.detach(|| self.0.drop_queue(name)).map_err(raised)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

/// What a lease is known by.
fn leased(id: i64, attempt: i64) -> Leased {
    let (payload, events, state) = (Json::null(), Json::null(), Json::null());
    Leased { job: Job { id, payload, events, state, modified: 0 }, attempt, until_ms: 0 }
}

/// Waits in slices, so that signals are heard.
fn waiting<T: Send>(
    py: Python<'_>,
    timeout: f64,
    wait: impl Fn(Duration) -> Result<Option<T>, Error> + Sync,
) -> PyResult<Option<T>> {
    let timeout = seconds(timeout)?;
    let start = Instant::now();
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        let found = py.detach(|| wait(left.min(SIGNALS_INTERVAL))).map_err(raised)?;
        if found.is_some() || left.is_zero() {
            return Ok(found);
        }
        py.check_signals()?;
    }
}

#[pymodule]
fn _native(py: Python<'_>, module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Queue>()?;
    module.add("JobQueueError", py.get_type::<JobQueueError>())?;
    module.add("NoSuchJob", py.get_type::<NoSuchJob>())?;
    module.add("NoSuchQueue", py.get_type::<NoSuchQueue>())?;
    module.add("LeaseEnded", py.get_type::<LeaseEnded>())?;
    module.add("BadQuery", py.get_type::<BadQuery>())?;
    module.add("Busy", py.get_type::<Busy>())?;
    module.add("Closed", py.get_type::<Closed>())
}
