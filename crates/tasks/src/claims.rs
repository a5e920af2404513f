//! Tasks that are handed out.

use std::time::Duration;

use forebay_domain::command::{Answer, Claim, ClaimOrder, Command};
use forebay_domain::ids::{Timestamp, WorkflowId};
use forebay_domain::job::{JobRow, Payload};
use forebay_domain::lane::LabelSet;
use forebay_engine::Error;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::Door;
use crate::activation::Activation;
use crate::connection::Connection;
use crate::grants::Attempt;
use crate::ident;

/// Whose tasks somebody takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub application: Option<String>,
    pub namespace: Option<String>,
}

/// A task as the engine hands it out.
pub(crate) type Taken = (JobRow, Payload);

/// Tasks that one request has dropped at most.
const DROPS_MAX: usize = 100;

/// Applications that one request asks in their turns, before it asks all.
const TURNS_MAX: usize = 16;

/// How much longer than its hold a request may take: for the commit of what it takes.
const SLACK: Duration = Duration::from_secs(2);

impl Door {
    /// The next task; none if there is none until then.
    pub(crate) async fn wait(&self, wanted: Wanted) -> Result<Option<Taken>, Error> {
        let until = self.until();
        let hold = self.options().hold;
        let waited = tokio::time::timeout(hold + SLACK, async {
            let Wanted { application, namespace } = wanted;
            match (application, namespace) {
                (Some(application), namespace) => {
                    let appears = self.applications().appears(&application);
                    let Ok(workflow) = tokio::time::timeout(hold, appears).await else { return Ok(None) };
                    self.claim(workflow, namespace.as_deref(), until).await
                }
                (None, None) => self.any(until).await,
                // As taskbroker: a namespace is one of an application.
                (None, Some(_)) => Ok(None),
            }
        });
        // Nothing of what was asked for is held back: who is not waited for gives it back.
        waited.await.unwrap_or(Ok(None))
    }

    /// The next task, if there is one now.
    pub(crate) async fn take(&self, wanted: &Wanted) -> Result<Option<Taken>, Error> {
        match (&wanted.application, &wanted.namespace) {
            (Some(application), namespace) => match self.applications().find(application) {
                Some(workflow) => self.claim(workflow, namespace.as_deref(), None).await,
                None => Ok(None),
            },
            (None, None) => self.any(None).await,
            (None, Some(_)) => Ok(None),
        }
    }

    async fn claim(
        &self,
        workflow: WorkflowId,
        namespace: Option<&str>,
        wait_until: Option<Timestamp>,
    ) -> Result<Option<Taken>, Error> {
        let claim = claim_of(workflow, namespace, wait_until);
        // Of those that the rules drop the next one may be, too.
        for _ in 0..DROPS_MAX {
            let Answer::Claimed(claimed) = self.engine().call(Command::Claim(claim.clone())).await? else {
                unreachable!("a claim is answered as one")
            };
            if claimed.jobs.is_empty() {
                return Ok(None);
            }
            if let Some(taken) = self.sift(claimed.jobs).await?.pop() {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// From the application whose turn it is; if none is known to have one, from whichever has one first.
    async fn any(&self, wait_until: Option<Timestamp>) -> Result<Option<Taken>, Error> {
        for _ in 0..TURNS_MAX {
            let known = self.applications().all();
            let pulled = known.iter().filter(|(name, _)| self.is_pulled(Some(name))).map(|(_, workflow)| *workflow);
            let Some(workflow) = self.turns().next(pulled) else { break };
            match self.claim(workflow, None, None).await? {
                Some(taken) => {
                    self.turns().has_some(workflow);
                    return Ok(Some(taken));
                }
                None => self.turns().has_none(workflow),
            }
        }
        loop {
            let known = self.applications().all();
            let pulled = known.iter().filter(|(name, _)| self.is_pulled(Some(name))).map(|(_, workflow)| *workflow);
            let pulled: Vec<WorkflowId> = pulled.collect();
            if pulled.is_empty() {
                let one_more = self.applications().changed(&known);
                if wait_until.is_none() || tokio::time::timeout(self.options().hold, one_more).await.is_err() {
                    return Ok(None);
                }
                continue;
            }
            let mut claims: FuturesUnordered<_> =
                pulled.iter().map(|workflow| self.claim(*workflow, None, wait_until)).collect();
            let first = async {
                while let Some(taken) = claims.next().await {
                    if let Some(taken) = taken? {
                        self.turns().has_some(taken.0.workflow);
                        return Ok(Some(taken));
                    }
                }
                Ok(None)
            };
            // Claims that are dropped give back what they got meanwhile.
            tokio::select! {
                biased;
                taken = first => return taken,
                () = self.applications().changed(&known) => {}
            }
        }
    }

    /// As it goes out on a connection, which has it from now on.
    pub(crate) fn hand_out(&self, connection: &Connection, (row, payload): Taken) -> Option<Activation> {
        let (id, activation) = rendered(&row, &payload)?;
        self.grants().granted(connection.number(), &id, Attempt::of(&row));
        Some(activation)
    }
}

/// A task as it goes out, and how the attempt is called.
pub(crate) fn rendered(row: &JobRow, payload: &Payload) -> Option<(String, Activation)> {
    let stored = Activation::from_bytes(&**payload);
    let rendered = stored.id().and_then(|name| {
        let id = ident::of_attempt(row, name);
        let rendered = if id == name { None } else { Some(stored.attempt(&id, row.tries.failures.into())?) };
        Ok((id, rendered))
    });
    match rendered {
        Ok((id, rendered)) => Some((id, rendered.unwrap_or(stored))),
        Err(error) => {
            // It was looked at when it came. Its deadline sees to it.
            tracing::error!(job = row.id.0, %error, "a stored task cannot be read");
            None
        }
    }
}

/// One task of these, at once or until then.
pub(crate) fn claim_of(workflow: WorkflowId, namespace: Option<&str>, wait_until: Option<Timestamp>) -> Claim {
    let labels = LabelSet::new(namespace.map(Into::into));
    Claim { workflow, limit: 1, labels, by: ClaimOrder::Lanes, start_on: None, leased: false, wait_until }
}
