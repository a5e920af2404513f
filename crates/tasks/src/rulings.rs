//! The rules that hold now, and what they do: shares are told to the engine; tasks that are to be dropped
//! are not taken, not handed out, and removed where they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use forebay_domain::command::{Answer, Claim, Command, LaneShare, Report};
use forebay_domain::ids::WorkflowId;
use forebay_domain::job::{JobRow, Payload};
use forebay_domain::lane::LabelSet;
use forebay_domain::state::JobState;
use forebay_engine::{EngineHandle, Error};
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::Door;
use crate::activation::{Activation, Known as Said};
use crate::applications::Known;
use crate::claims::{Taken, claim_of};
use crate::grants::Attempt;
use crate::reports::ended;
use crate::rules::Rules;

/// How many tasks rules have dropped since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// As they came.
    pub at_enqueue: u64,
    /// When it was their turn, or where they waited.
    pub waiting: u64,
}

#[derive(Default)]
pub(crate) struct Rulings {
    rules: watch::Sender<Arc<Rules>>,
    /// Held while the engine is told of shares, so that what was said last holds.
    telling: Mutex<()>,
    purges: AtomicBool,
    at_enqueue: AtomicU64,
    waiting: AtomicU64,
}

/// Tasks that are removed at a time.
const PART: u32 = 500;

/// How often it is looked for tasks that came back, or whose delay is over.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);

impl Rulings {
    pub fn now(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.borrow())
    }

    pub fn dropped(&self) -> Dropped {
        Dropped { at_enqueue: self.at_enqueue.load(Relaxed), waiting: self.waiting.load(Relaxed) }
    }

    pub fn note_at_enqueue(&self, tasks: u64) {
        self.at_enqueue.fetch_add(tasks, Relaxed);
    }

    /// While it is held nobody else tells the engine anything of shares.
    pub async fn hold(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().await
    }

    /// Tells the engine the shares of these applications.
    pub async fn tell(&self, engine: &EngineHandle, rules: &Rules, known: &Known) -> Result<(), Error> {
        let shares = known.iter().flat_map(|(name, workflow)| {
            rules.shares(name).map(|(namespace, share)| LaneShare {
                workflow: *workflow,
                labels: LabelSet::new([namespace.into()]),
                share,
            })
        });
        engine.call(Command::SetShares(shares.collect())).await?;
        Ok(())
    }
}

impl Door {
    /// From now on these rules hold, in the place of those before.
    ///
    /// # Errors
    /// If the engine does not take them.
    pub async fn set_rules(&self, rules: Rules) -> Result<(), Error> {
        {
            let _telling = self.rulings().hold().await;
            self.rulings().tell(self.engine(), &rules, &self.applications().all()).await?;
            for (name, workflow) in self.applications().all().iter() {
                self.turns().weigh(*workflow, rules.weight(name));
            }
            self.rulings().rules.send_replace(Arc::new(rules));
        }
        if self.rulings().now().drop_any() && !self.rulings().purges.swap(true, Relaxed) {
            tokio::spawn(self.clone().purge());
        }
        Ok(())
    }

    /// What rules have dropped.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.rulings().dropped()
    }

    /// Those tasks that may be handed out. The others have ended when this is done, whether or not somebody
    /// waits for it.
    pub(crate) async fn sift(&self, taken: Vec<Taken>) -> Result<Vec<Taken>, Error> {
        let rules = self.rulings().now();
        if !rules.drop_any() {
            return Ok(taken);
        }
        let (doomed, left): (Vec<Taken>, Vec<Taken>) =
            taken.into_iter().partition(|(row, payload)| self.is_doomed(&rules, row, payload));
        self.end_all(doomed.into_iter().map(|(row, _)| row).collect()).await?;
        Ok(left)
    }

    /// Whether rules drop a task that waited.
    pub(crate) fn is_doomed(&self, rules: &Rules, row: &JobRow, payload: &Payload) -> bool {
        if !rules.drop_any() {
            return false;
        }
        // What cannot be read is not known to be meant.
        let said = Activation::from_bytes(&**payload).known().unwrap_or_default();
        let is_doomed = self.is_dropped(rules, &said);
        if is_doomed {
            tracing::debug!(job = row.id.0, task = said.taskname, "the rules drop a task that waited");
        }
        is_doomed
    }

    /// Ends tasks of one application that are handed to nobody. Nobody waits for it; if it does not succeed,
    /// they are looked at again when their time is over.
    pub(crate) fn end_behind(&self, doomed: Vec<JobRow>) {
        if doomed.is_empty() {
            return;
        }
        let door = self.clone();
        tokio::spawn(async move {
            if let Err(error) = door.end_all(doomed).await {
                tracing::warn!(%error, "tasks that the rules drop are not ended");
            }
        });
    }

    /// Ends tasks of one application that are handed to nobody, also if its caller leaves.
    async fn end_all(&self, doomed: Vec<JobRow>) -> Result<(), Error> {
        let Some(workflow) = doomed.first().map(|row| row.workflow) else { return Ok(()) };
        let door = self.clone();
        let ending = tokio::spawn(async move { door.end(workflow, doomed, None).await });
        ending.await.expect("it neither panics nor is aborted").map(drop)
    }

    pub(crate) fn is_dropped(&self, rules: &Rules, said: &Said) -> bool {
        let application = said.application.as_deref().filter(|name| !name.is_empty());
        let application = application.unwrap_or(&self.options().default_application);
        rules.drop(application, &said.namespace, &said.taskname)
    }

    /// Ends tasks that were handed to nobody, and takes others if that is asked for.
    async fn end(&self, workflow: WorkflowId, tasks: Vec<JobRow>, claim: Option<Claim>) -> Result<Vec<JobRow>, Error> {
        self.rulings().waiting.fetch_add(tasks.len() as u64, Relaxed);
        let completions = tasks.iter().map(|row| ended(&Attempt::of(row), JobState::Canceled, None));
        let report = Report { workflow, completions: completions.collect(), claim: claim.map(Box::new) };
        let Answer::Reported { claimed, .. } = self.engine().call(Command::Report(report)).await? else {
            unreachable!("a report is answered as one")
        };
        Ok(claimed.into_iter().flat_map(|claimed| claimed.jobs).map(|(row, _)| row).collect())
    }

    /// Removes what waits of applications and namespaces of which all is dropped, as long as the engine
    /// runs.
    async fn purge(self) {
        let mut watching = self.rulings().rules.subscribe();
        loop {
            let rules = Arc::clone(&watching.borrow_and_update());
            for (name, workflow) in self.applications().all().iter() {
                for namespace in rules.dropped_whole(name) {
                    let removed = self.purge_lane(&watching, *workflow, namespace).await;
                    match removed {
                        Ok(0) => {}
                        Ok(tasks) => tracing::info!(application = name, namespace, tasks, "the rules dropped tasks"),
                        Err(Error::Stopping) => return,
                        Err(error) => tracing::warn!(%error, application = name, "tasks cannot be dropped yet"),
                    }
                }
            }
            tokio::select! {
                // Its sender is in self.
                changed = watching.changed() => changed.expect("its sender is in self"),
                () = tokio::time::sleep(PURGE_INTERVAL) => {}
                _ended = self.engine().stopped() => return,
            }
        }
    }

    /// Removes what waits there, part by part, unless the rules change; how many these were.
    async fn purge_lane(
        &self,
        watching: &watch::Receiver<Arc<Rules>>,
        workflow: WorkflowId,
        namespace: Option<&str>,
    ) -> Result<usize, Error> {
        let claim = Claim { limit: PART, ..claim_of(workflow, namespace, None) };
        let mut removed = 0;
        let mut doomed = self.end(workflow, Vec::new(), Some(claim.clone())).await?;
        while !doomed.is_empty() {
            removed += doomed.len();
            let next = (!watching.has_changed().unwrap_or(true)).then(|| claim.clone());
            doomed = self.end(workflow, doomed, next).await?;
        }
        Ok(removed)
    }
}
