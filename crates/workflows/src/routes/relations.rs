//! How jobs, files and user data hang together.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use forebay_domain::catalog::{Row, Table};
use forebay_domain::command::Scope;
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::job::RelationKind;
use forebay_domain::port::{Dependency, JobQuery, Read, Reader, Rows, StoreError};
use forebay_domain::state::JobState;
use forebay_wire::{
    JobDependencyModel, JobFileRelationshipModel, JobUserDataRelationshipModel, ListJobIdsResponse,
    ListMissingUserDataResponse, ListRequiredExistingFilesResponse,
};
use serde::Serialize;

use crate::http::{self, Call, Reply};
use crate::list::{self, Envelope, Part};
use crate::routes::catalog::exists;
use crate::{Door, Unseen, rows};

/// Jobs that are looked at in one go.
const STEP: u64 = 50_000;

pub(super) async fn job_ids(door: &Door, workflow: i64) -> Reply {
    door.look(move |reader| {
        exists(reader, workflow)?;
        let mut query = JobQuery::of(WorkflowId(workflow), 0, STEP);
        let mut job_ids = Vec::new();
        loop {
            let (views, total) = reader.jobs(&query)?;
            job_ids.extend(views.iter().map(|view| view.row.id.0));
            query.offset += STEP;
            if query.offset >= total {
                let count = i64::try_from(job_ids.len()).unwrap_or(i64::MAX);
                return Ok(http::ok_json(&ListJobIdsResponse { job_ids, count }));
            }
        }
    })
    .await
}

pub(super) async fn dependencies(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let part = Part::of(&call.params())?;
    door.look(move |reader| {
        exists(reader, workflow)?;
        let (edges, total) = if part.reverse {
            from_the_end(reader, WorkflowId(workflow), part)?
        } else {
            reader.dependencies(WorkflowId(workflow), part.by_id())?
        };
        let mut envelope = Envelope::new();
        for edge in edges {
            let model = JobDependencyModel {
                job_id: edge.job.0,
                job_name: edge.job_name.into(),
                depends_on_job_id: edge.depends_on.0,
                depends_on_job_name: edge.depends_on_name.into(),
                workflow_id: workflow,
            };
            envelope.item(|out| out.append(&mut http::to_json(&model)));
        }
        Ok(envelope.close(part, total))
    })
    .await
}

/// The store has dependencies in one direction: the same part, counted from their end.
fn from_the_end(
    reader: &mut dyn Reader,
    workflow: WorkflowId,
    part: Part,
) -> Result<(Vec<Dependency>, u64), StoreError> {
    let (_, total) = reader.dependencies(workflow, Part { offset: 0, limit: 0, ..part }.by_id())?;
    let end = total.saturating_sub(part.offset);
    let offset = end.saturating_sub(part.limit);
    let (mut edges, _) = reader.dependencies(workflow, Part { offset, limit: end - offset, ..part }.by_id())?;
    edges.reverse();
    Ok((edges, total))
}

pub(super) async fn of_files(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let kinds = (RelationKind::OutputFile, RelationKind::InputFile);
    of_table(door, workflow, call, Table::File, kinds, |tie| JobFileRelationshipModel {
        file_id: rows::int(tie.row, Table::File, "id"),
        file_name: rows::text(tie.row, Table::File, "name").unwrap_or_default().to_owned(),
        file_path: rows::text(tie.row, Table::File, "path").unwrap_or_default().to_owned(),
        producer_job_id: tie.producer.map(|job| job.0),
        producer_job_name: tie.name(tie.producer),
        consumer_job_id: tie.consumer.map(|job| job.0),
        consumer_job_name: tie.name(tie.consumer),
        workflow_id: tie.workflow,
    })
    .await
}

pub(super) async fn of_user_data(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let kinds = (RelationKind::OutputUserData, RelationKind::InputUserData);
    of_table(door, workflow, call, Table::UserData, kinds, |tie| JobUserDataRelationshipModel {
        user_data_id: rows::int(tie.row, Table::UserData, "id"),
        user_data_name: rows::text(tie.row, Table::UserData, "name").unwrap_or_default().to_owned(),
        producer_job_id: tie.producer.map(|job| job.0),
        producer_job_name: tie.name(tie.producer),
        consumer_job_id: tie.consumer.map(|job| job.0),
        consumer_job_name: tie.name(tie.consumer),
        workflow_id: tie.workflow,
    })
    .await
}

/// A row with one of the jobs that write it and one of those that read it, where there are any.
struct Tie<'a> {
    workflow: i64,
    row: &'a Row,
    producer: Option<JobId>,
    consumer: Option<JobId>,
    names: &'a HashMap<JobId, Box<str>>,
}

impl Tie<'_> {
    fn name(&self, job: Option<JobId>) -> Option<String> {
        job.and_then(|job| self.names.get(&job)).map(|name| name.to_string())
    }
}

/// Every pair of writer and reader of each row, in the order of the rows.
async fn of_table<M: Serialize>(
    door: &Door,
    workflow: i64,
    call: &Call<'_>,
    table: Table,
    (writes, reads): (RelationKind, RelationKind),
    model: impl Fn(&Tie) -> M + Send + 'static,
) -> Reply {
    let part = Part::of(&call.params())?;
    door.look(move |reader| {
        exists(reader, workflow)?;
        let mut jobs: BTreeMap<i64, (Vec<JobId>, Vec<JobId>)> = BTreeMap::new();
        for (job, kind, id) in reader.relations(WorkflowId(workflow))? {
            if kind == writes {
                jobs.entry(id).or_default().0.push(job);
            } else if kind == reads {
                jobs.entry(id).or_default().1.push(job);
            }
        }
        let mut pairs = Vec::new();
        for (id, (producers, consumers)) in jobs {
            for producer in all_or_none(producers) {
                pairs.extend(all_or_none(consumers.clone()).into_iter().map(|consumer| (id, producer, consumer)));
            }
        }
        if part.reverse {
            pairs.reverse();
        }
        let page = &pairs[part.range(pairs.len())];
        let named: BTreeSet<JobId> = page.iter().flat_map(|(_, one, other)| [*one, *other]).flatten().collect();
        let names = reader.job_names(&Vec::from_iter(named))?.into_iter().collect();
        let mut envelope = Envelope::new();
        let mut row: Option<Row> = None;
        for (id, producer, consumer) in page.iter().copied() {
            if row.as_ref().is_none_or(|row| rows::int(row, table, "id") != id) {
                row = reader.get(table, id)?;
            }
            if let Some(row) = &row {
                let tie = Tie { workflow, row, producer, consumer, names: &names };
                envelope.item(|out| out.append(&mut http::to_json(&model(&tie))));
            }
        }
        Ok(envelope.close(part, pairs.len() as u64))
    })
    .await
}

fn all_or_none(mut jobs: Vec<JobId>) -> Vec<Option<JobId>> {
    jobs.sort_unstable();
    if jobs.is_empty() { vec![None] } else { jobs.into_iter().map(Some).collect() }
}

/// Files that jobs read and none writes, and those that completed jobs wrote.
pub(super) async fn required_existing_files(door: &Door, workflow: i64) -> Reply {
    door.look_of(Scope::Workflow(WorkflowId(workflow)), move |reader| {
        exists(reader, workflow)?;
        let files = expected(reader, workflow, RelationKind::InputFile, RelationKind::OutputFile)?;
        Ok(http::ok_json(&ListRequiredExistingFilesResponse { files: files.into_iter().collect() }))
    })
    .await
}

/// User data that is expected as those files are, and has no data.
pub(super) async fn missing_user_data(door: &Door, workflow: i64) -> Reply {
    door.look_of(Scope::Workflow(WorkflowId(workflow)), move |reader| {
        exists(reader, workflow)?;
        let expected = expected(reader, workflow, RelationKind::InputUserData, RelationKind::OutputUserData)?;
        let mut user_data = Vec::new();
        list::each_row(reader, Table::UserData, workflow, |row| {
            let id = rows::int(&row, Table::UserData, "id");
            if expected.contains(&id) && rows::text(&row, Table::UserData, "data").is_none() {
                user_data.push(id);
            }
        })?;
        Ok(http::ok_json(&ListMissingUserDataResponse { user_data }))
    })
    .await
}

fn expected(
    reader: &mut dyn Reader,
    workflow: i64,
    reads: RelationKind,
    writes: RelationKind,
) -> Result<BTreeSet<i64>, Unseen> {
    let (mut read, mut written) = (BTreeSet::new(), Vec::new());
    for (job, kind, id) in reader.relations(WorkflowId(workflow))? {
        if kind == reads {
            read.insert(id);
        } else if kind == writes {
            written.push((job, id));
        }
    }
    let mut writers: Vec<JobId> = written.iter().map(|(job, _)| *job).collect();
    writers.sort_unstable();
    writers.dedup();
    let (_, Rows::Jobs(jobs)) = reader.read(&Read::Jobs(writers))? else {
        unreachable!("a reader answers with the twin of what was asked")
    };
    let done: HashSet<JobId> =
        jobs.into_iter().filter(|job| job.state == JobState::Completed).map(|job| job.id).collect();
    let mut expected = read;
    for (_, id) in &written {
        expected.remove(id);
    }
    expected.extend(written.into_iter().filter(|(job, _)| done.contains(job)).map(|(_, id)| id));
    Ok(expected)
}
