//! New tasks that wait for others: which ones these are.

use std::collections::HashMap;

use forebay_domain::command::{Answer, Command, Rejection};
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::job::NewJob;
use forebay_domain::port::TaskName;
use forebay_domain::state::JobState;
use forebay_engine::Error;

use crate::Door;
use crate::fault::Fault;
use crate::ident::Ident;

/// What new tasks of one application depend on, task by task.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    tasks: Vec<(Vec<String>, bool)>,
    /// Those that bring an id along: which of them it is.
    known: HashMap<String, usize>,
}

impl Waiting {
    /// The next task.
    pub fn comes(&mut self, name: &str, depends_on: Vec<String>, met_if_gone: bool) {
        if !name.is_empty() {
            self.known.insert(name.to_owned(), self.tasks.len());
        }
        self.tasks.push((depends_on, met_if_gone));
    }
}

impl Door {
    /// Makes the jobs of new tasks: the first one's id.
    pub(crate) async fn make(
        &self,
        workflow: WorkflowId,
        mut jobs: Vec<NewJob>,
        waiting: Waiting,
    ) -> Result<i64, Fault> {
        if waiting.tasks.iter().all(|(depends_on, _)| depends_on.is_empty()) {
            return created(self.engine().call(Command::Enqueue { workflow, jobs }).await?);
        }
        let names = self.wait_for(workflow, &mut jobs, &waiting).await?;
        loop {
            let enqueue = Command::Enqueue { workflow, jobs: jobs.clone() };
            let gone = match self.engine().call(enqueue).await {
                Err(Error::Rejected(Rejection::NoSuchPrerequisite(gone))) => gone,
                Err(Error::Rejected(Rejection::AlreadyEnded { job, state: JobState::Completed })) => job,
                Err(Error::Rejected(Rejection::AlreadyEnded { job, .. })) => {
                    return Err(Fault::Conflict(format!("the task {:?} has ended without success", names[&job])));
                }
                made => return created(made?),
            };
            // It has ended since it was looked up.
            for (job, (_, met_if_gone)) in jobs.iter_mut().zip(&waiting.tasks) {
                if !met_if_gone && job.depends_on.contains(&gone) {
                    return Err(is_gone(&names[&gone]));
                }
                job.depends_on = job.depends_on.iter().copied().filter(|on| *on != gone).collect();
            }
        }
    }

    /// Says of each job which others it waits for; these by the names that they were given.
    async fn wait_for(
        &self,
        workflow: WorkflowId,
        jobs: &mut [NewJob],
        waiting: &Waiting,
    ) -> Result<HashMap<JobId, String>, Fault> {
        let mut wanted: Vec<String> = Vec::new();
        for (place, (depends_on, _)) in waiting.tasks.iter().enumerate() {
            for name in depends_on {
                match waiting.known.get(name) {
                    Some(other) if *other < place => {}
                    Some(_) => {
                        return Err(Fault::Invalid(format!("{name:?} does not come before what depends on it")));
                    }
                    None => wanted.push(name.clone()),
                }
            }
        }
        let found = self.jobs_named(workflow, wanted).await?;
        for (job, (depends_on, met_if_gone)) in jobs.iter_mut().zip(&waiting.tasks) {
            let mut on = Vec::with_capacity(depends_on.len());
            for name in depends_on {
                match (waiting.known.get(name), found.get(name)) {
                    (Some(other), _) => on.push(JobId(-1 - i64::try_from(*other).expect("a few"))),
                    (None, Some(job)) => on.push(*job),
                    (None, None) if *met_if_gone => {}
                    (None, None) => return Err(is_gone(name)),
                }
            }
            on.sort_unstable();
            on.dedup();
            job.depends_on = on.into();
        }
        Ok(found.into_iter().map(|(name, job)| (job, name)).collect())
    }

    /// Of these ids those that tasks of an application have.
    async fn jobs_named(&self, workflow: WorkflowId, ids: Vec<String>) -> Result<HashMap<String, JobId>, Fault> {
        let named = |id: &String| match Ident::read(id) {
            Ident::Ours { job, .. } => TaskName::Job(job),
            Ident::Given(name) => TaskName::Named { workflow, name: name.into() },
        };
        let names: Vec<TaskName> = ids.iter().map(named).collect();
        let found = self.engine().read(move |reader| reader.tasks(&names)).await?;
        let found = ids.into_iter().zip(found).filter_map(|(id, view)| Some((id, view?.row)));
        Ok(found.filter(|(_, row)| row.workflow == workflow).map(|(id, row)| (id, row.id)).collect())
    }
}

fn created(made: Answer) -> Result<i64, Fault> {
    let Answer::Created(first) = made else { unreachable!("new jobs are answered with an id") };
    Ok(first)
}

fn is_gone(name: &str) -> Fault {
    Fault::Conflict(format!("there is no task {name:?} to wait for: it never was, or has ended"))
}
