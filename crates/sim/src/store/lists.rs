//! The catalog's and the jobs' lists: each a filter, an order and a cut over all rows.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use forebay_domain::batch::WorkflowRow;
use forebay_domain::catalog::{Match, Paging, Query, Row, Table, Value};
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::job::RelationKind;
use forebay_domain::port::{Dependency, JobQuery, JobSort, JobView, TaskName};

use super::Db;

impl Db {
    pub fn get(&self, table: Table, id: i64) -> Option<Row> {
        self.tables[table as usize].get(&id).cloned()
    }

    pub fn list(&self, query: &Query) -> (Vec<Row>, u64) {
        select(query, self.tables[query.table as usize].values())
    }

    pub fn latest_results(&self, query: &Query) -> (Vec<Row>, u64) {
        let of_job = Table::Result.column("job_id").expect("a result names its job");
        let results = &self.tables[Table::Result as usize];
        let latest: BTreeMap<i64, &Row> = (self.jobs.values())
            .filter_map(|job| {
                results.get_key_value(&job.result?.0).filter(|(_, row)| row[of_job] == Value::Int(job.id.0))
            })
            .map(|(id, row)| (*id, row))
            .collect();
        select(query, latest.into_values())
    }

    pub fn workflow(&self, id: WorkflowId) -> Option<WorkflowRow> {
        self.workflows.get(&id).copied()
    }

    pub fn job(&self, id: JobId) -> Option<JobView> {
        self.view(id).filter(|view| !self.workflows[&view.row.workflow].endless)
    }

    pub fn task(&self, by: &TaskName) -> Option<JobView> {
        let found = match by {
            TaskName::Job(id) => self.view(*id),
            TaskName::Named { workflow, name } => {
                let mut views = self.jobs_of(*workflow).filter_map(|row| self.view(row.id));
                views.find(|view| view.name == *name)
            }
        };
        found.filter(|view| self.workflows[&view.row.workflow].endless)
    }

    fn view(&self, id: JobId) -> Option<JobView> {
        let row = *self.jobs.get(&id).filter(|row| id < self.hidden_from(row.workflow))?;
        let detail = self.details.get(&id)?;
        Some(JobView { row, name: detail.name.clone(), payload: detail.payload.clone() })
    }

    pub fn jobs(&self, query: &JobQuery) -> (Vec<JobView>, u64) {
        let mut found: Vec<JobView> = self
            .jobs_of(query.workflow)
            .filter_map(|row| self.view(row.id))
            .filter(|view| self.is_asked_for(query, view))
            .collect();
        found.sort_by(|a, b| {
            let order = match query.sort {
                JobSort::Id => Ordering::Equal,
                JobSort::Name => a.name.cmp(&b.name),
                JobSort::State => a.row.state.cmp(&b.row.state),
                JobSort::Priority => a.row.priority.cmp(&b.row.priority),
            };
            turned(query.reverse, order.then(a.row.id.cmp(&b.row.id)))
        });
        cut(found, query.offset, query.limit)
    }

    fn is_asked_for(&self, query: &JobQuery, view: &JobView) -> bool {
        let row = &view.row;
        query.state.is_none_or(|state| row.state == state)
            && query.name.as_ref().is_none_or(|part| contains(&view.name, part))
            && query.command.as_ref().is_none_or(|part| command_of(view).is_some_and(|text| contains(&text, part)))
            && query.node.is_none_or(|node| row.node == Some(node))
            && query.upstream.is_none_or(|on| self.edges_from(row.id).contains(&(row.id, on)))
            && query.needs_file.is_none_or(|file| self.relations.contains(&(row.id, RelationKind::InputFile, file)))
            && query.lanes.as_ref().is_none_or(|lanes| lanes.contains(&row.lane))
    }

    pub fn dependencies(&self, workflow: WorkflowId, paging: Paging) -> (Vec<Dependency>, u64) {
        let visible = self.jobs_of(workflow).filter(|row| row.id < self.hidden_from(workflow));
        let all = visible.flat_map(|row| self.edges_from(row.id)).filter_map(|(job, on)| {
            Some(Dependency {
                job,
                job_name: self.details.get(&job)?.name.clone(),
                depends_on: on,
                depends_on_name: self.details.get(&on)?.name.clone(),
            })
        });
        cut(all.collect(), paging.offset, paging.limit)
    }

    pub fn prerequisites(&self, jobs: &[JobId]) -> Vec<(JobId, JobId)> {
        let jobs: BTreeSet<JobId> = jobs.iter().copied().collect();
        jobs.into_iter().flat_map(|job| self.edges_from(job)).collect()
    }

    pub fn relations(&self, workflow: WorkflowId) -> Vec<(JobId, RelationKind, i64)> {
        let is_here = |job| self.jobs.get(&job).is_some_and(|row| row.workflow == workflow);
        self.relations.iter().filter(|&&(job, ..)| is_here(job)).copied().collect()
    }

    pub fn job_names(&self, ids: &[JobId]) -> Vec<(JobId, Box<str>)> {
        ids.iter().filter_map(|id| Some((*id, self.details.get(id)?.name.clone()))).collect()
    }
}

fn select<'a>(query: &Query, rows: impl Iterator<Item = &'a Row>) -> (Vec<Row>, u64) {
    let mut found: Vec<Row> = rows.filter(|row| query.filters.iter().all(|f| holds(f, row))).cloned().collect();
    let Paging { offset, limit, sort_by, reverse } = query.paging;
    let by = sort_by.unwrap_or(0);
    found.sort_by(|a, b| turned(reverse, order(&a[by], &b[by]).then(order(&a[0], &b[0]))));
    cut(found, offset, limit)
}

fn holds((place, wanted): &(usize, Match), row: &Row) -> bool {
    let value = &row[*place];
    match wanted {
        Match::Equal(wanted) => order(value, wanted) == Ordering::Equal,
        Match::Contains(part) => match value {
            Value::Text(text) => contains(text, part),
            Value::Null | Value::Int(_) | Value::Real(_) => false,
        },
        Match::Above(floor) => *value != Value::Null && order(value, floor) == Ordering::Greater,
    }
}

/// Without regard to ASCII case.
fn contains(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
}

/// Nothing, then numbers, then text.
fn order(a: &Value, b: &Value) -> Ordering {
    let class = |value: &Value| match value {
        Value::Null => 0,
        Value::Int(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
    };
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Real(a), Value::Real(b)) => a.total_cmp(b),
        (Value::Int(a), Value::Real(b)) => (*a as f64).total_cmp(b),
        (Value::Real(a), Value::Int(b)) => a.total_cmp(&(*b as f64)),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        _ => class(a).cmp(&class(b)),
    }
}

fn turned(reverse: bool, order: Ordering) -> Ordering {
    if reverse { order.reverse() } else { order }
}

fn cut<T>(all: Vec<T>, offset: u64, limit: u64) -> (Vec<T>, u64) {
    let total = all.len() as u64;
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    (all.into_iter().skip(skip).take(take).collect(), total)
}

/// The text at `$.command` of a payload of the workflows door.
fn command_of(view: &JobView) -> Option<String> {
    let payload: serde_json::Value = serde_json::from_slice(&view.payload).ok()?;
    Some(payload.get("command")?.as_str()?.to_owned())
}
