//! Where a stream's attempts come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_domain::command::{Answer, Claim, Command};
use forebay_domain::ids::{Timestamp, WorkflowId};
use forebay_engine::{Error, Undelivered};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::Door;
use crate::applications::Known;
use crate::claims::claim_of;
use crate::fault::Fault;
use crate::proto::ours::{Hello, Source};
use crate::stream::said::PAUSE;

const SOURCES_MAX: usize = 64;

/// Attempts of one claim.
const CLAIM_MAX: u32 = 1_000;

/// Whose tasks a worker takes.
#[derive(Clone)]
pub(super) struct Sources {
    door: Door,
    /// None: of any application whose tasks are pulled.
    named: Option<Arc<[Named]>>,
}

struct Named {
    application: String,
    namespace: Option<String>,
}

/// A lane, or all of an application, that is there.
type Place<'a> = (WorkflowId, Option<&'a str>);

impl Sources {
    pub fn new(door: &Door, hello: Hello) -> Result<Sources, Fault> {
        let many = hello.sources.len();
        if many > SOURCES_MAX {
            return Err(Fault::Invalid(format!("a worker takes from {SOURCES_MAX} sources at most, not {many}")));
        }
        let (mut named, mut any) = (Vec::new(), many == 0);
        for source in hello.sources {
            match source {
                Source { application: Some(application), .. } if !door.is_pulled(Some(&application)) => {
                    return Err(Fault::Conflict(format!("the tasks of {application} are pushed")));
                }
                Source { application: Some(application), namespace } => named.push(Named { application, namespace }),
                Source { application: None, namespace: None } => any = true,
                Source { application: None, namespace: Some(_) } => {
                    let why = "a namespace is one of an application, which is not named";
                    return Err(Fault::Invalid(why.to_owned()));
                }
            }
        }
        Ok(Sources { door: door.clone(), named: (!any).then(|| named.into()) })
    }

    /// Claims up to so many attempts; waits until there is one. `turn` says whose turn it is among named
    /// sources.
    pub async fn take(self, credit: u32, turn: usize) -> Result<Vec<Undelivered>, Error> {
        let credit = credit.min(CLAIM_MAX);
        loop {
            let known = self.door.applications().all();
            let places = self.places(&known);
            let at_once = self.claim_all(self.shares(&places, credit, turn)).await;
            let taken = match at_once {
                Ok(taken) if taken.is_empty() => tokio::select! {
                    biased;
                    taken = self.first(&places, credit) => taken,
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
    fn places<'a>(&'a self, known: &Known) -> Vec<Place<'a>> {
        match &self.named {
            Some(named) => {
                let found = named.iter().map(|one| Some((*known.get(&one.application)?, one.namespace.as_deref())));
                found.flatten().collect()
            }
            None => {
                let pulled = known.iter().filter(|(name, _)| self.door.is_pulled(Some(name)));
                pulled.map(|(_, workflow)| (*workflow, None)).collect()
            }
        }
    }

    /// How much is asked of which, where there are several: applications have their turns by their weights,
    /// named sources the same share each. Of a single one nothing is asked at once, as who waits for that
    /// gets what there is.
    fn shares<'a>(&self, places: &[Place<'a>], credit: u32, turn: usize) -> Vec<(Place<'a>, u32)> {
        if places.len() < 2 {
            return Vec::new();
        }
        if self.named.is_none() {
            let mut turns: BTreeMap<WorkflowId, u32> = BTreeMap::new();
            let applications = places.iter().map(|(workflow, _)| *workflow);
            for _ in 0..credit {
                let Some(next) = self.door.turns().next(applications.clone()) else { break };
                *turns.entry(next).or_default() += 1;
            }
            return turns.into_iter().map(|(workflow, share)| ((workflow, None), share)).collect();
        }
        let many = places.len().min(credit as usize);
        let in_turn = places.iter().cycle().skip(turn % places.len()).take(many);
        in_turn.map(|place| (*place, credit / many as u32)).collect()
    }

    /// What there is now.
    async fn claim_all(&self, shares: Vec<(Place<'_>, u32)>) -> Result<Vec<Undelivered>, Error> {
        let claims = shares.into_iter().map(|(place, share)| self.claim(place, share, None));
        let mut claims: FuturesUnordered<_> = claims.collect();
        let mut taken = Vec::new();
        while let Some(claimed) = claims.next().await {
            taken.extend(claimed?);
        }
        Ok(taken)
    }

    /// What comes first. Claims that are dropped give back what they got meanwhile.
    async fn first(&self, places: &[Place<'_>], credit: u32) -> Result<Vec<Undelivered>, Error> {
        let claims = places.iter().map(|place| self.claim(*place, credit, Some(Timestamp(i64::MAX))));
        let mut claims: FuturesUnordered<_> = claims.collect();
        match claims.next().await {
            Some(claimed) => Ok(claimed?.into_iter().collect()),
            None => std::future::pending().await,
        }
    }

    /// A claim that got something.
    async fn claim(
        &self,
        (workflow, namespace): Place<'_>,
        limit: u32,
        wait_until: Option<Timestamp>,
    ) -> Result<Option<Undelivered>, Error> {
        let claim = Claim { limit, ..claim_of(workflow, namespace, wait_until) };
        let claimed = self.door.engine().call_for_delivery(Command::Claim(claim)).await?;
        let some = matches!(&*claimed, Answer::Claimed(claimed) if !claimed.jobs.is_empty());
        if self.named.is_none() {
            if some {
                self.door.turns().has_some(workflow);
            } else {
                self.door.turns().has_none(workflow);
            }
        }
        Ok(some.then_some(claimed))
    }
}
