//! Where a stream's attempts come from.

use std::sync::Arc;

use forebay_domain::command::{Answer, Claim, Command};
use forebay_domain::ids::{Timestamp, WorkflowId};
use forebay_engine::{Error, Undelivered};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};

use crate::Door;
use crate::applications::Known;
use crate::claims::{Wanted, claim_of};
use crate::fault::Fault;
use crate::proto::ours::Hello;
use crate::stream::said::PAUSE;

const SOURCES_MAX: usize = 64;

/// Attempts of one claim.
const CLAIM_MAX: u32 = 1_000;

/// Whose tasks a worker takes.
#[derive(Clone)]
pub(super) struct Sources {
    door: Door,
    wanted: Arc<[Wanted]>,
}

/// One that is there.
type Source<'a> = (WorkflowId, Option<&'a str>);

impl Sources {
    pub fn new(door: &Door, hello: Hello) -> Result<Sources, Fault> {
        let many = hello.sources.len();
        if many > SOURCES_MAX {
            return Err(Fault::Invalid(format!("a worker takes from {SOURCES_MAX} sources at most, not {many}")));
        }
        let wanted = hello
            .sources
            .into_iter()
            .map(|source| Wanted { application: source.application, namespace: source.namespace });
        let mut wanted: Vec<Wanted> = wanted.collect();
        if wanted.iter().any(|wanted| wanted.application.is_none() && wanted.namespace.is_some()) {
            return Err(Fault::Invalid("a namespace is one of an application, which is not named".to_owned()));
        }
        if wanted.is_empty() {
            wanted.push(Wanted::default());
        }
        Ok(Sources { door: door.clone(), wanted: wanted.into() })
    }

    /// Claims up to so many attempts; waits until there is one. If there is not enough for all, the
    /// sources get their turns.
    pub async fn take(self, credit: u32, turn: usize) -> Result<Vec<Undelivered>, Error> {
        let credit = credit.min(CLAIM_MAX);
        loop {
            let known = self.door.applications().all();
            let sources = self.among(&known);
            let taken = match self.at_once(&sources, credit, turn).await {
                Ok(taken) if taken.is_empty() => tokio::select! {
                    biased;
                    taken = self.first(&sources, credit) => taken,
                    () = self.door.applications().changed(&known) => continue,
                },
                taken => taken,
            };
            match taken {
                Ok(taken) if !taken.is_empty() => return Ok(taken),
                // There is no room for claims.
                Ok(_) | Err(Error::Overloaded) => tokio::time::sleep(PAUSE).await,
                Err(Error::Rejected(rejection)) if matches!(Fault::from(rejection.clone()), Fault::Later(_)) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Those that are there.
    fn among<'a>(&'a self, known: &Known) -> Vec<Source<'a>> {
        let mut sources = Vec::new();
        for Wanted { application, namespace } in &*self.wanted {
            match application {
                Some(name) => sources.extend(known.get(name).map(|workflow| (*workflow, namespace.as_deref()))),
                None => sources.extend(known.values().map(|workflow| (*workflow, None))),
            }
        }
        sources
    }

    /// What there is now, of several sources from each the same share; of a single one nothing, as who
    /// waits for that gets what there is at once.
    async fn at_once(&self, sources: &[Source<'_>], credit: u32, turn: usize) -> Result<Vec<Undelivered>, Error> {
        if sources.len() < 2 {
            return Ok(Vec::new());
        }
        let many = sources.len().min(credit as usize);
        let share = credit / many as u32;
        let turns = sources.iter().cycle().skip(turn % sources.len()).take(many);
        let claims: FuturesUnordered<_> = turns.map(|source| self.claim(*source, share, None)).collect();
        claims.try_filter(|claimed| std::future::ready(has_jobs(claimed))).try_collect().await
    }

    /// What comes first. Claims that are dropped give back what they got meanwhile.
    async fn first(&self, sources: &[Source<'_>], credit: u32) -> Result<Vec<Undelivered>, Error> {
        let mut claims: FuturesUnordered<_> =
            sources.iter().map(|source| self.claim(*source, credit, Some(Timestamp(i64::MAX)))).collect();
        match claims.next().await {
            Some(claimed) => Ok(Vec::from_iter(Some(claimed?).filter(has_jobs))),
            None => std::future::pending().await,
        }
    }

    async fn claim(&self, source: Source<'_>, limit: u32, wait_until: Option<Timestamp>) -> Result<Undelivered, Error> {
        let (workflow, namespace) = source;
        let claim = Claim { limit, ..claim_of(workflow, namespace, wait_until) };
        self.door.engine().call_for_delivery(Command::Claim(claim)).await
    }
}

fn has_jobs(claimed: &Undelivered) -> bool {
    matches!(&**claimed, Answer::Claimed(claimed) if !claimed.jobs.is_empty())
}
