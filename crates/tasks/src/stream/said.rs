//! What a worker says of its attempts, and what it is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_domain::command::{Again, Answer, Command, Held, Report};
use forebay_domain::ids::WorkflowId;
use forebay_engine::Error;
use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;

use crate::Door;
use crate::fault::Fault;
use crate::proto::ours;
use crate::reports::{End, completion, failures_max};
use crate::stream::lease::Lease;

/// Of one message, together.
const WORDS_MAX: usize = 10_000;

/// How long is waited where there is no room, before the same is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// A message of a worker that is to be answered.
pub(super) struct Said {
    door: Door,
    number: u64,
    parts: Vec<Part>,
}

/// What is said of attempts of one application, and where each stands in its message.
struct Part {
    workflow: WorkflowId,
    words: Words,
    places: Vec<u32>,
}

enum Words {
    Reports(Vec<(Lease, End)>),
    Renewed(Vec<Held>),
    PutBack(Vec<Held>),
}

impl Said {
    /// None if nothing is said of any attempt.
    pub fn read(door: &Door, message: ours::FromWorker) -> Result<Option<Said>, Fault> {
        let ours::FromWorker { number, reports, renewed, put_back, .. } = message;
        let words = reports.len() + renewed.len() + put_back.len();
        if words > WORDS_MAX {
            return Err(Fault::Invalid(format!("a message says {WORDS_MAX} things of attempts at most, not {words}")));
        }
        if words == 0 {
            return Ok(None);
        }
        let mut parts = Vec::new();
        let reports = reports.into_iter().map(|report| {
            let lease = read(&report.lease)?;
            let end = End::read(report.status, || Again {
                failures_max: report.max_attempts.and_then(failures_max),
                delay_ms: report.delay_ms.map(|delay| i64::try_from(delay).unwrap_or(i64::MAX)),
            });
            Ok((lease.workflow, (lease, end?)))
        });
        parts.extend(by_application(reports, Words::Reports)?);
        let held = |lease: Vec<u8>| read(&lease).map(|lease| (lease.workflow, lease.held));
        parts.extend(by_application(renewed.into_iter().map(held), Words::Renewed)?);
        parts.extend(by_application(put_back.into_iter().map(held), Words::PutBack)?);
        Ok(Some(Said { door: door.clone(), number, parts }))
    }

    /// Has the engine take all of it, however long that takes; the answer.
    pub async fn settle(self) -> Result<ours::Answer, Fault> {
        let Said { door, number, parts } = self;
        let mut answer = ours::Answer { number, ..Default::default() };
        let mut settled: FuturesUnordered<_> = parts.iter().map(|part| part.settle(&door)).collect();
        while let Some((part, stale)) = settled.try_next().await? {
            match part.words {
                Words::Reports(_) => answer.stale_reports.extend(stale),
                Words::Renewed(_) => answer.stale_renewed.extend(stale),
                Words::PutBack(_) => answer.stale_put_back.extend(stale),
            }
        }
        Ok(answer)
    }
}

impl Part {
    /// Answers the places of those whose lease holds nothing.
    async fn settle(&self, door: &Door) -> Result<(&Part, Vec<u32>), Fault> {
        loop {
            match door.engine().call(self.command()).await {
                Ok(Answer::Reported { outcomes, .. }) => {
                    let stale = outcomes.iter().zip(&self.places).filter(|((_, outcome), _)| outcome.is_err());
                    return Ok((self, stale.map(|(_, place)| *place).collect()));
                }
                Ok(other) => unreachable!("what is said of attempts was answered with {other:?}"),
                Err(Error::Stopping) => return Err(Error::Stopping.into()),
                Err(Error::Overloaded) => {}
                Err(Error::Rejected(rejection)) => match Fault::from(rejection) {
                    Fault::Later(_) => {}
                    // No application has such attempts.
                    Fault::NotFound(_) => return Ok((self, self.places.clone())),
                    fault => return Err(fault),
                },
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn command(&self) -> Command {
        let workflow = self.workflow;
        match &self.words {
            Words::Reports(reports) => {
                let completions = reports.iter().map(|(lease, end)| completion(&lease.attempt(), *end)).collect();
                Command::Report(Report { workflow, completions, claim: None })
            }
            Words::Renewed(held) => Command::Renew { workflow, attempts: held.clone() },
            Words::PutBack(held) => Command::PutBack { workflow, attempts: held.clone() },
        }
    }
}

fn read(lease: &[u8]) -> Result<Lease, Fault> {
    Lease::read(lease).ok_or_else(|| Fault::Invalid("a lease is not one of ours".to_owned()))
}

fn by_application<T>(
    said: impl Iterator<Item = Result<(WorkflowId, T), Fault>>,
    words: impl Fn(Vec<T>) -> Words,
) -> Result<impl Iterator<Item = Part>, Fault> {
    let mut of: BTreeMap<WorkflowId, (Vec<T>, Vec<u32>)> = BTreeMap::new();
    for (place, said) in (0..).zip(said) {
        let (workflow, word) = said?;
        let (words, places) = of.entry(workflow).or_default();
        words.push(word);
        places.push(place);
    }
    Ok(of.into_iter().map(move |(workflow, (all, places))| Part { workflow, words: words(all), places }))
}
