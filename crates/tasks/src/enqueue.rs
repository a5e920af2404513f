//! Tasks that come: each once by its id, as long as a task of that id is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_domain::ids::{JobId, Timestamp, WorkflowId};
use forebay_domain::job::NewJob;
use forebay_domain::lane::LabelSet;
use forebay_domain::policy::{Backoff, OnEnd, Policy};
use forebay_domain::port::TaskName;
use tokio::sync::Notify;

use crate::activation::{Activation, Known, Moment};
use crate::fault::Fault;
use crate::proto::taskbroker::{OnAttemptsExceeded, RetryState};
use crate::reports::failures_max;
use crate::waiting::Waiting;
use crate::{Door, Options, ident};

/// Tasks of one request.
pub(crate) const TASKS_MAX: usize = 1_000;

/// What the tasks of a request may depend on, all together.
const DEPENDENCIES_MAX: usize = 1_000;

/// Names of applications and namespaces, and ids, in bytes.
const NAME_MAX: usize = 255;

#[derive(Debug, Clone, Default)]
pub(crate) struct NewTask {
    pub activation: Activation,
    pub priority: u32,
    /// From now on, in the place of what the activation says.
    pub delay_ms: Option<u64>,
    /// The same.
    pub expires_ms: Option<u64>,
    /// It waits until tasks of its application with these ids are completed.
    pub depends_on: Vec<String>,
    /// Of these, one that is not there counts as completed.
    pub met_if_gone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Enqueued {
    pub id: String,
    /// A task of its application has this id already: nothing was done.
    pub was_there: bool,
    /// The rules drop it: nothing was done.
    pub dropped: bool,
}

/// Ids that are being enqueued: who comes with the same one waits until that is done.
#[derive(Default)]
pub(crate) struct Names {
    taken: Mutex<HashSet<Name>>,
    given_back: Notify,
}

type Name = (WorkflowId, Box<str>);

/// Names that are taken until this is dropped.
struct Hold<'a> {
    names: &'a Names,
    held: Vec<Name>,
}

impl Names {
    /// Takes all of these, once nobody else has any.
    async fn take(&self, wanted: Vec<Name>) -> Hold<'_> {
        loop {
            let mut given_back = std::pin::pin!(self.given_back.notified());
            // From here on nothing is missed.
            given_back.as_mut().enable();
            {
                let mut taken = self.lock();
                if wanted.iter().all(|name| !taken.contains(name)) {
                    taken.extend(wanted.iter().cloned());
                    return Hold { names: self, held: wanted };
                }
            }
            given_back.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Name>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut taken = self.names.lock();
        for name in &self.held {
            taken.remove(name);
        }
        drop(taken);
        self.names.given_back.notify_waiters();
    }
}

/// A task on its way, and where it stands in its request.
struct Arrival {
    place: usize,
    /// Its id, empty if it has none.
    name: String,
    job: NewJob,
    depends_on: Vec<String>,
    met_if_gone: bool,
}

impl Door {
    /// Takes tasks; those of an application all or none. Answered in their order, once they are as durable
    /// as the server was told.
    pub(crate) async fn enqueue_all(&self, tasks: Vec<NewTask>) -> Result<Vec<Enqueued>, Fault> {
        if tasks.is_empty() || tasks.len() > TASKS_MAX {
            return Err(Fault::Invalid(format!("a request enqueues 1 to {TASKS_MAX} tasks, not {}", tasks.len())));
        }
        if tasks.iter().map(|task| task.depends_on.len()).sum::<usize>() > DEPENDENCIES_MAX {
            return Err(Fault::Invalid(format!("the tasks of a request depend on {DEPENDENCIES_MAX} others at most")));
        }
        let now = self.engine().now();
        let (rules, mut dropped) = (self.rulings().now(), Vec::new());
        // By what their applications and ids were.
        let mut gone: HashSet<(String, String)> = HashSet::new();
        let mut of: BTreeMap<String, Vec<Arrival>> = BTreeMap::new();
        for (place, mut task) in tasks.into_iter().enumerate() {
            let (depends_on, met_if_gone) = (std::mem::take(&mut task.depends_on), task.met_if_gone);
            let said =
                task.activation.checked().map_err(|error| Fault::Invalid(format!("it is no activation: {error}")))?;
            let is_dropped = rules.drop_any() && self.is_dropped(&rules, &said);
            let (application, name, job) = arrival(task, said, now, self.options())?;
            // What waits for one that ends without success ends with it.
            let mut waits_for = depends_on.iter().filter(|_| !met_if_gone && !gone.is_empty());
            if is_dropped || waits_for.any(|id| gone.contains(&(application.clone(), id.clone()))) {
                if !name.is_empty() {
                    gone.insert((application, name.clone()));
                }
                dropped.push((place, Enqueued { id: name, was_there: false, dropped: true }));
            } else {
                of.entry(application).or_default().push(Arrival { place, name, job, depends_on, met_if_gone });
            }
        }
        self.rulings().note_at_enqueue(dropped.len() as u64);
        let door = self.clone();
        // It goes on when its caller leaves: ids are taken until it is known what became of them.
        let enqueued = tokio::spawn(async move {
            let mut all = dropped;
            for (application, arrivals) in of {
                let workflow = door.applications().get(door.engine(), door.rulings(), &application).await?;
                door.turns().weigh(workflow, rules.weight(&application));
                all.extend(door.enqueue(workflow, arrivals).await?);
                if door.is_pulled(Some(&application)) {
                    door.turns().has_some(workflow);
                }
            }
            all.sort_unstable_by_key(|(place, _)| *place);
            Ok(all.into_iter().map(|(_, enqueued)| enqueued).collect())
        });
        enqueued.await.expect("it neither panics nor is aborted")
    }

    async fn enqueue(&self, workflow: WorkflowId, arrivals: Vec<Arrival>) -> Result<Vec<(usize, Enqueued)>, Fault> {
        let names: HashSet<&str> =
            arrivals.iter().map(|one| one.name.as_str()).filter(|name| !name.is_empty()).collect();
        let names: Vec<Name> = names.into_iter().map(|name| (workflow, name.into())).collect();
        let hold = self.names().take(names).await;
        let mut there = self.find(&hold.held).await?;
        let (mut enqueued, mut places, mut jobs) = (Vec::with_capacity(arrivals.len()), Vec::new(), Vec::new());
        let mut waiting = Waiting::default();
        for Arrival { place, name, job, depends_on, met_if_gone } in arrivals {
            if let Some(id) = there.get(&name) {
                enqueued.push((place, Enqueued { id: id.clone(), was_there: true, dropped: false }));
                continue;
            }
            if !name.is_empty() {
                // The second one of an id in the same request, too.
                there.insert(name.clone(), name.clone());
            }
            waiting.comes(&name, depends_on, met_if_gone);
            places.push((place, name));
            jobs.push(job);
        }
        if !jobs.is_empty() {
            let first = self.make(workflow, jobs, waiting).await?;
            for ((place, name), job) in places.into_iter().zip(first..) {
                let id = if name.is_empty() { ident::own(JobId(job), 0) } else { name };
                enqueued.push((place, Enqueued { id, was_there: false, dropped: false }));
            }
        }
        Ok(enqueued)
    }

    /// Of these names those that tasks have, each with the id of its attempt.
    async fn find(&self, names: &[Name]) -> Result<HashMap<String, String>, Fault> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let named = |(workflow, name): &Name| TaskName::Named { workflow: *workflow, name: name.clone() };
        let names: Vec<TaskName> = names.iter().map(named).collect();
        let found = self.engine().read(move |reader| reader.tasks(&names)).await?;
        Ok(found
            .into_iter()
            .flatten()
            .map(|view| (view.name.to_string(), ident::of_attempt(&view.row, &view.name)))
            .collect())
    }
}

/// The application of a new task, its name, and the job that it becomes.
fn arrival(task: NewTask, known: Known, now: Timestamp, options: &Options) -> Result<(String, String, NewJob), Fault> {
    let NewTask { activation, priority, delay_ms, expires_ms, .. } = task;
    let Known { id, namespace, taskname, received_at, retry_state, processing_deadline_duration, .. } = known;
    let application = known.application.filter(|name| !name.is_empty());
    let application = application.unwrap_or_else(|| options.default_application.clone());
    for (what, name) in [("id", &id), ("application", &application), ("namespace", &namespace), ("taskname", &taskname)]
    {
        if name.len() > NAME_MAX {
            return Err(Fault::Invalid(format!("the {what} has {} bytes, and may have {NAME_MAX}", name.len())));
        }
    }
    let since = received_at.map_or(now, |at| Timestamp(Moment::ms(at)));
    let from_activation = |seconds: Option<u64>| seconds.map(|seconds| since.after(ms(seconds)));
    let from_now = |ms: Option<u64>| ms.map(|ms| now.after(i64::try_from(ms).unwrap_or(i64::MAX)));
    let job = NewJob {
        name: id.as_str().into(),
        payload: Arc::from(activation.into_bytes()),
        requirement: None,
        labels: LabelSet::new([namespace.into()]),
        scheduler: None,
        priority: priority.into(),
        cancel_on_failure: false,
        not_before: from_now(delay_ms).or(from_activation(known.delay)),
        policy: Some(policy(&retry_state.unwrap_or_default(), processing_deadline_duration, options)),
        expires_at: from_now(expires_ms).or(from_activation(known.expires)),
        depends_on: Box::new([]),
        relations: Box::new([]),
    };
    Ok((application, id, job))
}

fn policy(state: &RetryState, deadline_s: u64, options: &Options) -> Policy {
    let deadline = ms(deadline_s).saturating_add(i64::try_from(options.grace.as_millis()).unwrap_or(i64::MAX));
    let delay = clamped(ms(state.delay_on_retry.unwrap_or(0)));
    let is_kept = state.on_attempts_exceeded == OnAttemptsExceeded::Deadletter as i32;
    Policy {
        // 0 would be: any time.
        deadline_ms: clamped(deadline).max(1),
        failures_max: failures_max(state.max_attempts),
        losses_max: std::num::NonZeroU16::new(options.losses_max),
        backoff: Backoff { base_ms: delay, cap_ms: delay, factor: 1, jitter_percent: 0 },
        at_most_once: state.at_most_once(),
        on_end: if is_kept { OnEnd::DeadLetter } else { OnEnd::Discard },
    }
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000)
}

fn clamped(ms: i64) -> u32 {
    u32::try_from(ms.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn arrive(known: Known) -> Result<(String, String, NewJob), Fault> {
        let activation = Activation::from_bytes(known.encode_to_vec());
        let task = NewTask { activation, priority: 3, ..NewTask::default() };
        arrival(task, known, Timestamp(100_000), &Options::default())
    }

    #[test]
    fn what_a_task_says_becomes_the_jobs_policy() {
        let retry_state = RetryState {
            attempts: 0,
            max_attempts: 4,
            on_attempts_exceeded: OnAttemptsExceeded::Deadletter as i32,
            at_most_once: Some(true),
            delay_on_retry: Some(7),
        };
        let known = Known {
            id: "i".into(),
            namespace: "n".into(),
            received_at: Some(Moment::from_ms(90_500)),
            retry_state: Some(retry_state),
            processing_deadline_duration: 20,
            delay: Some(5),
            expires: Some(60),
            application: Some("a".into()),
            ..Known::default()
        };
        let (application, name, job) = arrive(known).unwrap();
        assert_eq!((application.as_str(), name.as_str(), &*job.name), ("a", "i", "i"));
        assert_eq!((job.not_before, job.expires_at), (Some(Timestamp(95_500)), Some(Timestamp(150_500))));
        let policy = job.policy.unwrap();
        assert_eq!((policy.deadline_ms, policy.backoff.base_ms), (23_000, 7_000));
        assert_eq!((policy.failures_max, policy.losses_max.map(|max| max.get())), (failures_max(4), Some(5)));
        assert_eq!((policy.at_most_once, policy.on_end, job.priority), (true, OnEnd::DeadLetter, 3));
    }

    #[test]
    fn a_task_that_says_nothing_is_the_default_applications() {
        let (application, name, job) = arrive(Known::default()).unwrap();
        assert_eq!((application.as_str(), name.as_str()), ("default", ""));
        let policy = job.policy.unwrap();
        assert_eq!((policy.deadline_ms, policy.failures_max, policy.on_end), (3_000, None, OnEnd::Discard));
        let huge = Known { delay: Some(u64::MAX), processing_deadline_duration: u64::MAX, ..Known::default() };
        let (.., job) = arrive(huge).unwrap();
        assert_eq!((job.not_before, job.policy.unwrap().deadline_ms), (Some(Timestamp(i64::MAX)), u32::MAX));
        assert!(matches!(arrive(Known { id: "x".repeat(256), ..Known::default() }), Err(Fault::Invalid(_))));
    }

    #[tokio::test]
    async fn who_comes_with_an_id_that_is_being_enqueued_waits() {
        let names = Names::default();
        let name = |name: &str| (WorkflowId(1), Box::from(name));
        let first = names.take(vec![name("a"), name("b")]).await;
        drop(names.take(vec![name("c")]).await);
        let mut second = std::pin::pin!(names.take(vec![name("b"), name("d")]));
        assert!(futures_util::FutureExt::now_or_never(second.as_mut()).is_none());
        drop(first);
        let second = second.await;
        assert_eq!(second.held.len(), 2);
        assert_eq!(names.lock().len(), 2);
    }
}
