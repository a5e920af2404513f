//! What workers say of their attempts.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use forebay_domain::batch::ENDLESS_RUN;
use forebay_domain::command::{Again, Answer, Claim, Command, Completion, Report, Scope};
use forebay_domain::ids::WorkflowId;
use forebay_domain::job::Outcome;
use forebay_domain::port::{JobView, TaskName};
use forebay_domain::state::JobState;

use crate::Door;
use crate::claims::{Taken, Wanted, claim_of};
use crate::connection::Connection;
use crate::fault::Fault;
use crate::grants::Attempt;
use crate::ident::Ident;
use crate::proto::taskbroker::TaskActivationStatus;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    Failure,
    Retry(Again),
}

impl End {
    /// What a status on the wire says; `again` of a retry.
    pub(crate) fn read(status: i32, again: impl FnOnce() -> Again) -> Result<End, Fault> {
        use TaskActivationStatus::{Complete, Failure, Pending, Processing, Retry, Unspecified};
        let status = TaskActivationStatus::try_from(status)
            .map_err(|unknown| Fault::Invalid(format!("Unable to deserialize status: {unknown}")))?;
        match status {
            Complete => Ok(End::Complete),
            Failure => Ok(End::Failure),
            Retry => Ok(End::Retry(again())),
            Unspecified | Pending | Processing => Err(Fault::Invalid(format!(
                "Invalid status, expects 3 (Failure), 4 (Retry), or 5 (Complete), but got: {status:?}"
            ))),
        }
    }
}

/// A report of an attempt, by its id on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub id: String,
    pub end: End,
}

impl Door {
    /// Takes a report, and then a task, if one is wanted and there. What is reported of a task that is not
    /// there, or of an attempt that is not its current one any more, is passed over.
    pub(crate) async fn report(
        &self,
        connection: &Connection,
        update: &Update,
        next: Option<Wanted>,
    ) -> Result<Option<Taken>, Fault> {
        let Some(attempt) = self.attempt(connection, &update.id).await? else {
            return match next {
                Some(wanted) => Ok(Box::pin(self.take(&wanted)).await?),
                None => Ok(None),
            };
        };
        // Mostly the next one is of the same application: one commit for both.
        let application = next.as_ref().and_then(|wanted| wanted.application.as_deref());
        let same = application.is_some_and(|name| self.applications().find(name) == Some(attempt.workflow));
        let claim = next.as_ref().filter(|_| same);
        let claim = claim.map(|wanted| claim_of(attempt.workflow, wanted.namespace.as_deref(), None));
        let taken = self.send(attempt.workflow, vec![completion(&attempt, update.end)], claim).await?;
        self.settled(connection, &update.id, &attempt);
        match next {
            Some(wanted) if !same => Ok(Box::pin(self.take(&wanted)).await?),
            Some(_) | None => Ok(taken),
        }
    }

    /// Takes reports; those of one application all or none.
    pub(crate) async fn report_all(&self, connection: &Connection, updates: &[Update]) -> Result<(), Fault> {
        let mut of: BTreeMap<WorkflowId, Vec<Completion>> = BTreeMap::new();
        let mut attempts = Vec::with_capacity(updates.len());
        for update in updates {
            if let Some(attempt) = self.attempt(connection, &update.id).await? {
                of.entry(attempt.workflow).or_default().push(completion(&attempt, update.end));
                attempts.push((&update.id, attempt));
            }
        }
        for (workflow, completions) in of {
            self.send(workflow, completions, None).await?;
        }
        for (id, attempt) in attempts {
            self.settled(connection, id, &attempt);
        }
        Ok(())
    }

    /// What was said of an attempt is taken.
    fn settled(&self, connection: &Connection, id: &str, attempt: &Attempt) {
        self.grants().reported(connection.number(), id);
        self.push_settled(id, attempt);
    }

    async fn send(
        &self,
        workflow: WorkflowId,
        completions: Vec<Completion>,
        claim: Option<Claim>,
    ) -> Result<Option<Taken>, Fault> {
        let report = Report { workflow, completions, claim: claim.map(Box::new) };
        let Answer::Reported { outcomes, claimed, .. } = self.engine().call(Command::Report(report)).await? else {
            unreachable!("a report is answered as one")
        };
        for (job, refused) in outcomes.iter().filter_map(|(job, outcome)| Some((job, outcome.as_ref().err()?))) {
            tracing::debug!(job = job.0, ?refused, "what was reported of an attempt that is over is passed over");
        }
        let taken = claimed.map(|claimed| claimed.jobs).unwrap_or_default();
        Ok(self.sift(taken).await?.pop())
    }

    /// Which attempt is meant: the one that this connection, or the endpoint behind it, got by this id; if
    /// it got none, the current one of that id. `None`: there is none.
    async fn attempt(&self, connection: &Connection, id: &str) -> Result<Option<Attempt>, Fault> {
        if let Some(attempt) = self.grants().find(connection.number(), id) {
            return Ok(Some(attempt));
        }
        if let Some(attempt) = self.pushed_to(connection, id) {
            return Ok(Some(attempt));
        }
        // It is rare, and as a part of each report it would be most of it.
        let found = Box::pin(self.look_up(id)).await?;
        // An attempt of this id may have failed, and another one be there.
        let current = found.filter(|(view, failures)| view.row.tries.failures == *failures);
        Ok(current.map(|(view, _)| Attempt::of(&view.row)))
    }

    /// The task of this id, and after how many failures its attempt is called so.
    pub(crate) async fn look_up(&self, id: &str) -> Result<Option<(JobView, u16)>, Fault> {
        let (names, failures): (Vec<TaskName>, u16) = match Ident::read(id) {
            Ident::Ours { job, failures } => (vec![TaskName::Job(job)], failures),
            Ident::Given(name) if name.is_empty() => return Ok(None),
            Ident::Given(name) => {
                let known = self.applications().all();
                let named = |workflow: &WorkflowId| TaskName::Named { workflow: *workflow, name: name.as_str().into() };
                (known.values().map(named).collect(), 0)
            }
        };
        let found = self.engine().read_of(Scope::Everything, move |reader| {
            let first = reader.tasks(&names)?.into_iter().flatten().next();
            Ok(first.map(|view| (view, failures)))
        });
        Ok(found.await?)
    }
}

pub(crate) fn completion(attempt: &Attempt, end: End) -> Completion {
    let (state, again) = match end {
        End::Complete => (JobState::Completed, None),
        End::Failure => (JobState::Failed, None),
        End::Retry(again) => (JobState::Failed, Some(again)),
    };
    ended(attempt, state, again)
}

/// An attempt that ended so, of which nothing else is known.
pub(crate) fn ended(attempt: &Attempt, state: JobState, again: Option<Again>) -> Completion {
    Completion {
        job: attempt.job,
        run: ENDLESS_RUN,
        attempt: Some(attempt.attempt),
        node: None,
        grant: attempt.grant,
        outcome: Outcome {
            state,
            return_code: i64::from(state == JobState::Failed),
            exec_time_minutes: 0.0,
            completion_time: "".into(),
            peak_memory_bytes: None,
            avg_memory_bytes: None,
            peak_cpu_percent: None,
            avg_cpu_percent: None,
        },
        again,
    }
}

/// How often an attempt may fail, as the wire says it: 0 is any number of times.
pub(crate) fn failures_max(attempts: u32) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(attempts).unwrap_or(u16::MAX))
}
