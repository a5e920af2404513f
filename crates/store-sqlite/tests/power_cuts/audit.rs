//! What is found on a disk after a power cut, held against what was said before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use forebay_domain::command::{Answer, Claimed};
use forebay_domain::ids::{Grant, JobId, WorkflowId};
use forebay_domain::job::JobRow;
use forebay_domain::port::{Read, Reader, Rows, StoreError};
use forebay_domain::state::JobState;
use forebay_engine::{Engine, Options, SystemClock};
use forebay_store_sqlite::{Options as StoreOptions, SqliteReader, SqliteStore, tend};

use crate::power_cuts::history::{Said, claim, create_jobs, created, stop};

/// What was said and must still be so.
#[derive(Default)]
struct Promised {
    workflow: Option<WorkflowId>,
    created: BTreeSet<JobId>,
    claimed: BTreeMap<JobId, i64>,
    started: BTreeSet<JobId>,
    ended: BTreeSet<JobId>,
    grant: Option<Grant>,
}

/// Opens what a cut left, with the real store and engine; what is wrong with it.
pub fn audit(folder: &Path, files: &[(&str, Vec<u8>)], said: impl Iterator<Item = Said>) -> Vec<String> {
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).expect("a file can be written");
    }
    let path = folder.join("a.db");
    let promised = Promised::of(said);
    match look(&path, &promised) {
        Ok(faults) => faults,
        Err(error) => vec![format!("{error}: {:?}", error.source())],
    }
}

impl Promised {
    fn of(said: impl Iterator<Item = Said>) -> Promised {
        let mut promised = Promised::default();
        for said in said {
            match said {
                Said::WorkflowCreated(workflow) => promised.workflow = Some(workflow),
                Said::Created { first, count } => {
                    promised.created.extend((0..count as i64).map(|n| JobId(first.0 + n)));
                }
                Said::Claimed { job, attempt, grant } => {
                    promised.claimed.insert(job, attempt);
                    promised.grant = promised.grant.max(Some(grant));
                }
                Said::Started(job) => drop(promised.started.insert(job)),
                Said::Ended(job) => drop(promised.ended.insert(job)),
            }
        }
        promised
    }

    /// Whether a job is at least where somebody was told that it is.
    fn holds(&self, row: &JobRow) -> bool {
        use JobState::{Claimed, Completed, Running};
        let reached: &[JobState] = if self.ended.contains(&row.id) {
            &[Completed]
        } else if self.started.contains(&row.id) {
            &[Running, Completed]
        } else if self.claimed.contains_key(&row.id) {
            &[Claimed, Running, Completed]
        } else {
            return true;
        };
        reached.contains(&row.state) && self.claimed.get(&row.id).is_none_or(|attempt| row.attempt == *attempt)
    }
}

fn look(path: &Path, promised: &Promised) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let store = SqliteStore::open(path, StoreOptions::default())?;
    let mut faults: Vec<String> = tend::check(path)?.iter().map(ToString::to_string).collect();
    let mut reader = store.reader()?;
    let ids: Vec<JobId> = promised.created.iter().copied().collect();
    let (_, Rows::Jobs(rows)) = reader.read(&Read::Jobs(ids))? else { panic!("asked for jobs") };
    let found: BTreeMap<JobId, &JobRow> = rows.iter().map(|row| (row.id, row)).collect();
    for job in promised.created.iter().filter(|job| !found.contains_key(job)) {
        faults.push(format!("job {job} was created and is lost"));
    }
    for row in rows.iter().filter(|row| !promised.holds(row)) {
        faults.push(format!("job {} is {:?}, attempt {}, which is not what was said", row.id, row.state, row.attempt));
    }
    for job in &promised.ended {
        if reader.job(*job)?.is_some_and(|view| view.row.result.is_none()) {
            faults.push(format!("the outcome of job {job} is lost"));
        }
    }
    drop(reader);
    let path = path.to_owned();
    let readers = move || SqliteReader::open(&path).map_err(|error| StoreError::Broken(Box::new(error)));
    let engine = Engine::start(store, readers, Arc::new(SystemClock::new()), Options::power())?;
    if let Some(workflow) = promised.workflow {
        let new = created(engine.call_blocking(create_jobs(workflow, 1))?);
        if promised.created.last().is_some_and(|last| last.0 >= new) {
            faults.push(format!("the number {new} is given out twice"));
        }
        let Answer::Claimed(Claimed { jobs, .. }) = engine.call_blocking(claim(workflow, 100_000))? else {
            panic!("a claim is answered with jobs");
        };
        for (row, _) in &jobs {
            if promised.claimed.contains_key(&row.id) {
                faults.push(format!("job {} is handed out twice", row.id));
            }
            if promised.grant.is_some_and(|grant| row.grant <= grant) {
                faults.push(format!("{:?} is used twice", row.grant));
            }
        }
    }
    stop(&engine);
    Ok(faults)
}
