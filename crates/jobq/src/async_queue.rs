//! The queue for async callers: the same calls on the same file, sharing commits with the blocking
//! ones. It needs no runtime: the futures are woken by whoever commits.

use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::op::{Answer, Ask};
use crate::queue::{done, jobs, maybe_job, millis, one_job, polled};
use crate::{CreateOptions, Error, Job, JobQueue, Json, Leased, Query};

/// A [`JobQueue`] whose calls are awaited. A call is carried out even if its future is dropped.
#[derive(Debug, Clone)]
pub struct AsyncJobQueue {
    queue: JobQueue,
}

impl JobQueue {
    /// The same queue for async callers.
    #[must_use]
    pub fn in_async(&self) -> AsyncJobQueue {
        AsyncJobQueue { queue: self.clone() }
    }
}

impl AsyncJobQueue {
    /// The same queue for blocking callers.
    #[must_use]
    pub fn blocking(&self) -> &JobQueue {
        &self.queue
    }

    /// As [`JobQueue::create`].
    ///
    /// # Errors
    /// As there.
    pub async fn create(&self, payload: impl Into<Json>, state: impl Into<Json>) -> Result<Job, Error> {
        self.create_with(payload, state, CreateOptions::default()).await
    }

    /// As [`JobQueue::create_with`].
    ///
    /// # Errors
    /// As there.
    pub async fn create_with(
        &self,
        payload: impl Into<Json>,
        state: impl Into<Json>,
        options: CreateOptions,
    ) -> Result<Job, Error> {
        let (payload, state) = (payload.into(), state.into());
        one_job(self.ask(Ask::Create { payload, state, options }).await)
    }

    /// As [`JobQueue::get`].
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, id: i64) -> Result<Job, Error> {
        one_job(self.ask(Ask::Get { id }).await)
    }

    /// As [`JobQueue::query`]. A query that finds much holds the commits up; ask it with a limit.
    ///
    /// # Errors
    /// As there.
    pub async fn query(&self, query: impl Into<Query>, limit: Option<u64>) -> Result<Vec<Job>, Error> {
        let query = self.queue.compile(query.into())?;
        jobs(self.ask(Ask::Query { query, limit }).await)
    }

    /// As [`JobQueue::poll`].
    ///
    /// # Errors
    /// As there.
    pub async fn poll(&self, query: impl Into<Query>, state: impl Into<Json>) -> Result<Option<Job>, Error> {
        Ok(self.poll_many(query, state, 1).await?.pop())
    }

    /// As [`JobQueue::poll_many`].
    ///
    /// # Errors
    /// As there.
    pub async fn poll_many(
        &self,
        query: impl Into<Query>,
        state: impl Into<Json>,
        limit: u32,
    ) -> Result<Vec<Job>, Error> {
        let (query, state) = (self.queue.compile(query.into())?, state.into());
        let polled = polled(self.ask(Ask::Poll { query, state, limit, lease_ms: None }).await)?;
        Ok(polled.jobs.into_iter().map(|leased| leased.job).collect())
    }

    /// As [`JobQueue::poll_wait`]. Each call that has to wait has a thread while it waits.
    ///
    /// # Errors
    /// As there.
    pub async fn poll_wait(
        &self,
        query: impl Into<Query>,
        state: impl Into<Json>,
        timeout: Duration,
    ) -> Result<Option<Job>, Error> {
        let (query, state) = (query.into(), state.into());
        if let Some(job) = self.poll(&query, &state).await? {
            return Ok(Some(job));
        }
        let queue = self.queue.clone();
        on_a_thread(move || queue.poll_wait(query, state, timeout)).await
    }

    /// As [`JobQueue::lease`]. Each call that has to wait has a thread while it waits.
    ///
    /// # Errors
    /// As there.
    pub async fn lease(
        &self,
        query: impl Into<Query>,
        state: impl Into<Json>,
        limit: u32,
        lease: Duration,
        timeout: Duration,
    ) -> Result<Vec<Leased>, Error> {
        let (query, state): (Query, Json) = (query.into(), state.into());
        let compiled = self.queue.compile(query.clone())?;
        let lease_ms = Some(millis(lease));
        let ask = Ask::Poll { query: compiled, state: state.clone(), limit, lease_ms };
        let leased = polled(self.ask(ask).await)?.jobs;
        if !leased.is_empty() || timeout.is_zero() {
            return Ok(leased);
        }
        let queue = self.queue.clone();
        on_a_thread(move || queue.lease(query, state, limit, lease, timeout)).await
    }

    /// As [`JobQueue::renew`].
    ///
    /// # Errors
    /// As there.
    pub async fn renew(&self, leased: &Leased, lease: Duration) -> Result<(), Error> {
        let (id, attempt) = (leased.job.id, leased.attempt);
        self.ask(Ask::Renew { id, attempt, lease_ms: millis(lease) }).await.map(drop)
    }

    /// As [`JobQueue::finish`].
    ///
    /// # Errors
    /// As there.
    pub async fn finish(&self, leased: &Leased, state: impl Into<Json>) -> Result<Job, Error> {
        let (id, attempt) = (leased.job.id, leased.attempt);
        one_job(self.ask(Ask::Finish { id, attempt, state: state.into() }).await)
    }

    /// As [`JobQueue::cas_state`].
    ///
    /// # Errors
    /// As there.
    pub async fn cas_state(&self, id: i64, old: impl Into<Json>, new: impl Into<Json>) -> Result<Option<Job>, Error> {
        maybe_job(self.ask(Ask::Cas { id, old: old.into(), new: new.into() }).await)
    }

    /// As [`JobQueue::append_event`].
    ///
    /// # Errors
    /// As there.
    pub async fn append_event(&self, id: i64, event: impl Into<Json>) -> Result<Job, Error> {
        one_job(self.ask(Ask::Append { id, event: event.into(), wants_job: true }).await)
    }

    /// As [`JobQueue::log_event`].
    ///
    /// # Errors
    /// As there.
    pub async fn log_event(&self, id: i64, event: impl Into<Json>) -> Result<(), Error> {
        self.ask(Ask::Append { id, event: event.into(), wants_job: false }).await.map(drop)
    }

    /// As [`JobQueue::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, id: i64) -> Result<bool, Error> {
        done(self.ask(Ask::Delete { id }).await)
    }

    async fn ask(&self, ask: Ask) -> Answer {
        self.queue.submit(ask)?.await?
    }
}

/// Runs `work` on a thread of its own.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let shared = Arc::new(Mutex::new(Shared { value: None, waker: None }));
    let theirs = Arc::clone(&shared);
    thread::Builder::new()
        .name("forebay-jobq-wait".to_owned())
        .spawn(move || {
            let value = panic::catch_unwind(AssertUnwindSafe(work));
            let mut shared = theirs.lock().unwrap_or_else(PoisonError::into_inner);
            shared.value = Some(value);
            if let Some(waker) = shared.waker.take() {
                waker.wake();
            }
        })
        .expect("a process that cannot start a thread cannot go on");
    match (Awaited { shared }).await {
        Ok(value) => value,
        Err(panic) => panic::resume_unwind(panic),
    }
}

/// What another thread will give.
struct Awaited<T> {
    shared: Arc<Mutex<Shared<T>>>,
}

struct Shared<T> {
    value: Option<thread::Result<T>>,
    waker: Option<Waker>,
}

impl<T> Future for Awaited<T> {
    type Output = thread::Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                shared.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
