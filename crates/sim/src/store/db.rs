//! The maps, and how a batch changes them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use forebay_domain::batch::{
    Batch, Extent, JobDetail, LaneRow, LaneState, LeaseRow, March, Outcomes, Sequence, WorkflowRow,
};
use forebay_domain::catalog::{Kind, Row, Statement, StatementOutcome, TABLES, Table, Value};
use forebay_domain::claim::Needs;
use forebay_domain::graph::Edges;
use forebay_domain::ids::{BarrierId, Epoch, JobId, LaneId, Lsn, NodeId, RequirementId, WorkflowId};
use forebay_domain::job::{JobRow, Payload, RelationKind};
use forebay_domain::lane::OrderKey;
use forebay_domain::port::{Dependents, GraphRows, Moment, Read, Recovered, Rows, WorkflowRows};
use forebay_domain::state::JobState;

/// What waits for what.
#[derive(Clone, Debug, Default)]
pub struct StoredEdges {
    /// (job, the job it depends on)
    pub direct: BTreeSet<(JobId, JobId)>,
    /// (barrier, the job it waits for)
    pub barriers: BTreeSet<(BarrierId, JobId)>,
    /// Who waits, and where.
    pub members: BTreeMap<JobId, BarrierId>,
}

impl StoredEdges {
    fn direct_from(&self, job: JobId) -> impl Iterator<Item = (JobId, JobId)> {
        self.direct.range((job, JobId(i64::MIN))..=(job, JobId(i64::MAX))).copied()
    }
}

/// All that is committed.
#[derive(Clone, Debug, Default)]
pub struct Db {
    pub lsn: Lsn,
    pub epoch: Epoch,
    pub sequences: BTreeMap<Sequence, i64>,
    pub workflows: BTreeMap<WorkflowId, WorkflowRow>,
    pub lanes: BTreeMap<LaneId, LaneRow>,
    pub lane_states: BTreeMap<LaneId, LaneState>,
    pub requirements: BTreeMap<(WorkflowId, RequirementId), Needs>,
    pub jobs: BTreeMap<JobId, JobRow>,
    pub details: BTreeMap<JobId, JobDetail>,
    pub edges: StoredEdges,
    pub relations: BTreeSet<(JobId, RelationKind, i64)>,
    pub leases: BTreeMap<NodeId, LeaseRow>,
    /// Rows by their id, a map for each table in the order of `TABLES`.
    pub tables: [BTreeMap<i64, Row>; TABLES.len()],
    /// What the last commit answered, for when it is asked again.
    last_outcomes: Outcomes,
    /// Kept beside `jobs`: the ready ones of each lane in its order.
    ready: BTreeMap<LaneId, BTreeSet<OrderKey>>,
    /// Kept beside `jobs`: their timers, soonest first.
    moments: BTreeSet<Moment>,
    /// Kept beside `jobs`.
    of_node: BTreeSet<(NodeId, JobId)>,
    /// Kept beside `jobs`.
    of_workflow: BTreeMap<WorkflowId, BTreeSet<JobId>>,
}

impl Db {
    pub fn recover(&mut self) -> Recovered {
        self.epoch.0 += 1;
        Recovered {
            lsn: self.lsn,
            epoch: self.epoch,
            sequences: self.sequences.iter().map(|(&sequence, &next)| (sequence, next)).collect(),
            marching: self.workflows.values().filter(|row| row.march.is_some()).map(|row| row.id).collect(),
            graph_bytes: self.workflows.values().map(|row| row.graph_bytes).sum(),
            lanes: self.workflows.values().map(|row| row.lanes).sum(),
            leases: self.leases.values().copied().collect(),
        }
    }

    /// Applies a batch, whole. An error says in which way the batch is not one that a machine may make.
    pub fn apply(&mut self, batch: &Batch) -> Result<Outcomes, String> {
        if batch.lsn == self.lsn {
            return Ok(self.last_outcomes.clone());
        }
        if batch.lsn < self.lsn {
            return Ok(batch.statements.iter().map(forgotten).collect());
        }
        self.check(batch)?;
        for &(sequence, next) in &batch.sequences {
            self.sequences.insert(sequence, next);
        }
        for row in &batch.workflows {
            self.workflows.insert(row.id, *row);
        }
        for lane in &batch.lanes {
            self.lanes.insert(lane.id, lane.clone());
        }
        for &state in &batch.lane_states {
            self.lane_states.insert(state.lane, state);
        }
        for &(workflow, requirement, needs) in &batch.requirements {
            self.requirements.insert((workflow, requirement), needs);
        }
        for write in &batch.jobs {
            self.put_job(write.row);
        }
        for detail in &batch.details {
            self.details.insert(detail.job, detail.clone());
        }
        for job in &batch.edges_cut {
            self.edges.direct.retain(|(dependent, _)| dependent != job);
            self.leave_barrier(*job);
        }
        self.edges.direct.extend(&batch.edges.direct);
        self.edges.barriers.extend(&batch.edges.barriers);
        for &(job, barrier) in &batch.edges.members {
            self.edges.members.entry(job).or_insert(barrier);
        }
        self.relations.extend(&batch.relations);
        for (lease, begins) in &batch.leases {
            if *begins {
                self.leases.insert(lease.node, *lease);
            } else {
                self.leases.remove(&lease.node);
            }
        }
        for (table, row) in &batch.appends {
            self.tables[*table as usize].insert(id_of(row), stored(*table, row));
        }
        let outcomes: Outcomes = batch.statements.iter().map(|statement| self.execute(statement)).collect();
        for &job in &batch.jobs_deleted {
            self.delete_job(job);
        }
        for &job in &batch.jobs_over {
            self.delete_job(job);
        }
        for &workflow in &batch.workflows_deleted {
            self.delete_workflow(workflow);
        }
        self.lsn = batch.lsn;
        self.last_outcomes.clone_from(&outcomes);
        Ok(outcomes)
    }

    /// What other stores could not notice: their statements would find nothing and say nothing.
    fn check(&self, batch: &Batch) -> Result<(), String> {
        let mut written = BTreeSet::new();
        let mut created = BTreeSet::new();
        for write in &batch.jobs {
            let id = write.row.id;
            if !written.insert(id) {
                return Err(format!("job {id} is written twice in one batch"));
            }
            let is_new = write.extent == Extent::New;
            if is_new {
                created.insert(id);
            }
            if is_new == self.jobs.contains_key(&id) {
                let what = if is_new { "created again" } else { "changed, but is not there" };
                return Err(format!("job {id} is {what}"));
            }
            if let Some(stored) = self.jobs.get(&id)
                && Extent::between(&stored.standing(), &write.row.standing()) > write.extent
            {
                return Err(format!(
                    "job {id} changes more than {:?}: {stored:?} becomes {:?}",
                    write.extent, write.row
                ));
            }
            if !self.lanes.contains_key(&write.row.lane) && !batch.lanes.iter().any(|lane| lane.id == write.row.lane) {
                return Err(format!("job {id} is in lane {}, which is not there", write.row.lane));
            }
            let workflow = write.row.workflow;
            if !self.workflows.contains_key(&workflow) && !batch.workflows.iter().any(|row| row.id == workflow) {
                return Err(format!("job {id} is of workflow {workflow}, which is not there"));
            }
        }
        let known = |job: &JobId| self.jobs.contains_key(job) || created.contains(job);
        if let Some(job) = batch.jobs_over.iter().find(|job| !known(job)) {
            return Err(format!("job {job} is over, but is not there"));
        }
        for (job, on) in &batch.edges.direct {
            if !known(job) || !known(on) {
                return Err(format!("edge {job} on {on} has an end that is not there"));
            }
        }
        let ends = batch.edges.barriers.iter().map(|(_, on)| on).chain(batch.edges.members.iter().map(|(job, _)| job));
        if let Some(job) = ends.into_iter().find(|job| !known(job)) {
            return Err(format!("job {job} is at a barrier, but not there"));
        }
        if let Some(detail) = batch.details.iter().find(|detail| !known(&detail.job)) {
            return Err(format!("job {} has a detail, but is not there", detail.job));
        }
        if let Some((job, ..)) = batch.relations.iter().find(|(job, ..)| !known(job)) {
            return Err(format!("job {job} has a relation, but is not there"));
        }
        if let Some(lane) = batch.lanes.iter().find(|lane| self.lanes.contains_key(&lane.id)) {
            return Err(format!("lane {} is created again", lane.id));
        }
        let is_known = |id| self.lanes.contains_key(&id) || batch.lanes.iter().any(|lane| lane.id == id);
        if let Some(state) = batch.lane_states.iter().find(|state| !is_known(state.lane)) {
            return Err(format!("{state:?} is of a lane that is not there"));
        }
        for (table, row) in &batch.appends {
            if self.tables[*table as usize].contains_key(&id_of(row)) {
                return Err(format!("row {} is appended to {} again", id_of(row), table.name()));
            }
        }
        for &(sequence, next) in &batch.sequences {
            if self.sequences.get(&sequence).is_some_and(|&old| old > next) {
                return Err(format!("sequence {} goes back to {next}", sequence.name()));
            }
        }
        Ok(())
    }

    fn put_job(&mut self, row: JobRow) {
        self.take_job(row.id);
        if row.state == JobState::Ready {
            self.ready.entry(row.lane).or_default().insert(row.key());
        }
        self.moments.extend(row.moment());
        self.of_node.extend(row.node.map(|node| (node, row.id)));
        self.of_workflow.entry(row.workflow).or_default().insert(row.id);
        self.jobs.insert(row.id, row);
    }

    fn take_job(&mut self, id: JobId) {
        let Some(old) = self.jobs.remove(&id) else { return };
        if let Some(ready) = self.ready.get_mut(&old.lane) {
            ready.remove(&old.key());
        }
        if let Some(moment) = old.moment() {
            self.moments.remove(&moment);
        }
        if let Some(node) = old.node {
            self.of_node.remove(&(node, id));
        }
        if let Some(jobs) = self.of_workflow.get_mut(&old.workflow) {
            jobs.remove(&id);
        }
    }

    /// A savepoint: done whole or not at all.
    fn execute(&mut self, statement: &Statement) -> StatementOutcome {
        match statement {
            Statement::Insert { table, rows } => {
                let into = &self.tables[*table as usize];
                let mut ids = BTreeSet::new();
                for row in rows {
                    if let Some(why) = misfit(*table, row) {
                        return StatementOutcome::Refused(why);
                    }
                    if into.contains_key(&id_of(row)) || !ids.insert(id_of(row)) {
                        return StatementOutcome::Refused(format!("{} has that id", table.name()).into());
                    }
                }
                let into = &mut self.tables[*table as usize];
                into.extend(rows.iter().map(|row| (id_of(row), stored(*table, row))));
                StatementOutcome::Inserted
            }
            Statement::Update { table, id, only_if, set } => {
                let meets = |row: &&Row| only_if.iter().all(|(place, value)| row[*place] == *value);
                let old = self.tables[*table as usize].get(id).filter(meets);
                let Some(old) = old else { return StatementOutcome::Row(None) };
                let mut row = old.clone();
                for (place, value) in set {
                    row[*place] = value.clone();
                }
                if let Some(why) = misfit(*table, &row) {
                    return StatementOutcome::Refused(why);
                }
                let row = stored(*table, &row);
                self.tables[*table as usize].insert(*id, row.clone());
                StatementOutcome::Row(Some(row))
            }
            Statement::Delete { table, id } => {
                let ties = RelationKind::of(*table);
                self.relations.retain(|(_, kind, item)| item != id || !ties.contains(kind));
                StatementOutcome::Row(self.tables[*table as usize].remove(id))
            }
            Statement::DeleteAll { table, workflow } => {
                let ties = RelationKind::of(*table);
                let of = self.of_workflow.get(workflow);
                let is_tied = |job: &JobId| of.is_some_and(|jobs| jobs.contains(job));
                self.relations.retain(|(job, kind, _)| !ties.contains(kind) || !is_tied(job));
                let rows = &mut self.tables[*table as usize];
                let before = rows.len();
                rows.retain(|_, row| !is_of(*table, row, *workflow));
                StatementOutcome::Count((before - rows.len()) as u64)
            }
        }
    }

    /// A job waits at no barrier any more; one at which nobody waits goes.
    fn leave_barrier(&mut self, id: JobId) {
        if let Some(barrier) = self.edges.members.remove(&id)
            && !self.edges.members.values().any(|other| *other == barrier)
        {
            self.edges.barriers.retain(|&(left, _)| left != barrier);
        }
    }

    fn delete_job(&mut self, id: JobId) {
        let Some(workflow) = self.jobs.get(&id).map(|row| row.workflow) else { return };
        self.take_job(id);
        self.details.remove(&id);
        self.edges.direct.retain(|&(job, on)| job != id && on != id);
        self.edges.barriers.retain(|&(_, on)| on != id);
        self.leave_barrier(id);
        self.relations.retain(|&(job, ..)| job != id);
        let of_job = Table::Result.column("job_id").expect("a result names its job");
        let results = &mut self.tables[Table::Result as usize];
        results.retain(|_, row| row[of_job] != Value::Int(id.0) || !is_of(Table::Result, row, workflow));
    }

    fn delete_workflow(&mut self, id: WorkflowId) {
        for job in self.of_workflow.remove(&id).unwrap_or_default() {
            self.delete_job(job);
        }
        self.workflows.remove(&id);
        self.leases.retain(|_, lease| lease.workflow != id);
        self.lanes.retain(|_, lane| lane.workflow != id);
        let lanes = &self.lanes;
        self.lane_states.retain(|lane, _| lanes.contains_key(lane));
        self.requirements.retain(|&(workflow, _), _| workflow != id);
        for table in TABLES {
            self.tables[table as usize].retain(|_, row| !is_of(table, row, id));
        }
    }

    pub fn read(&self, what: &Read) -> (Lsn, Rows) {
        let rows = match what {
            Read::Page { lane, after, limit, payload_max } => {
                Rows::Page(self.page(*lane, *after, *limit as usize, *payload_max as usize))
            }
            Read::Due { after, limit } => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                Rows::Due(self.moments.range((from, Bound::Unbounded)).take(*limit as usize).copied().collect())
            }
            Read::Workflow(id) => Rows::Workflow(self.workflow_rows(*id).map(Box::new)),
            Read::Graph(id) => Rows::Graph(Box::new(self.graph(*id))),
            Read::Jobs(ids) => Rows::Jobs(ids.iter().filter_map(|id| self.jobs.get(id).copied()).collect()),
            Read::Held(node) => {
                let of_node = self.of_node.range((*node, JobId(i64::MIN))..=(*node, JobId(i64::MAX)));
                Rows::Held(of_node.map(|(_, job)| *job).collect())
            }
            Read::Dependents { job, after, limit } => {
                let after = after.map_or(JobId(i64::MIN), |after| JobId(after.0 + 1));
                let waiting = self.edges.direct.iter().filter(|(id, on)| on == job && *id >= after);
                let state = |&(_, on): &(JobId, JobId)| Some((on, self.jobs.get(&on)?.state));
                let on = |id| self.edges.direct_from(id).filter_map(|edge| state(&edge)).collect();
                let rows = waiting.take(*limit as usize).map(|&(id, _)| (self.jobs[&id], on(id))).collect();
                Rows::Dependents(Dependents { of: self.jobs.get(job).copied(), rows })
            }
            Read::Payloads(ids) => {
                Rows::Payloads(ids.iter().filter_map(|id| Some((*id, self.details.get(id)?.payload.clone()))).collect())
            }
        };
        (self.lsn, rows)
    }

    /// The ready jobs of a lane in its order.
    pub fn ready(&self, lane: LaneId) -> impl Iterator<Item = OrderKey> {
        self.ready.get(&lane).into_iter().flatten().copied()
    }

    /// Jobs of a workflow from this one on are not there for anybody yet.
    pub fn hidden_from(&self, workflow: WorkflowId) -> JobId {
        match self.workflows.get(&workflow).and_then(|row| row.march) {
            Some(March::Create { from }) => from,
            Some(_) | None => JobId(i64::MAX),
        }
    }

    /// The jobs of a workflow in the order of their ids.
    pub fn jobs_of(&self, workflow: WorkflowId) -> impl Iterator<Item = &JobRow> {
        self.of_workflow.get(&workflow).into_iter().flatten().map(|id| &self.jobs[id])
    }

    fn page(
        &self,
        lane: LaneId,
        after: Option<OrderKey>,
        limit: usize,
        payload_max: usize,
    ) -> Vec<(JobRow, Option<Payload>)> {
        let Some(ready) = self.ready.get(&lane) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        ready
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|key| {
                let payload = self.details.get(&key.id()).map(|detail| &detail.payload);
                (self.jobs[&key.id()], payload.filter(|payload| payload.len() <= payload_max).cloned())
            })
            .collect()
    }

    fn workflow_rows(&self, id: WorkflowId) -> Option<WorkflowRows> {
        let has_ready = |lane: &LaneRow| self.ready.get(&lane.id).is_some_and(|ready| !ready.is_empty());
        Some(WorkflowRows {
            row: *self.workflows.get(&id)?,
            requirements: self
                .requirements
                .range((id, RequirementId(i64::MIN))..=(id, RequirementId(i64::MAX)))
                .map(|(&(_, requirement), &needs)| (requirement, needs))
                .collect(),
            lanes: self
                .lanes
                .values()
                .filter(|lane| lane.workflow == id)
                .map(|lane| (lane.clone(), has_ready(lane)))
                .collect(),
            lane_states: self
                .lane_states
                .values()
                .filter(|state| self.lanes[&state.lane].workflow == id)
                .copied()
                .collect(),
        })
    }

    fn graph(&self, id: WorkflowId) -> GraphRows {
        let jobs: Vec<JobRow> = self.jobs_of(id).copied().collect();
        let mut edges = Edges::default();
        let mut writers: BTreeMap<(bool, i64), Vec<JobId>> = BTreeMap::new();
        for row in &jobs {
            edges.direct.extend(self.edges.direct_from(row.id));
            edges.members.extend(self.edges.members.get(&row.id).map(|barrier| (row.id, *barrier)));
            for (kind, what) in self.relations_of(row.id) {
                match kind {
                    RelationKind::OutputFile => writers.entry((false, what)).or_default().push(row.id),
                    RelationKind::OutputUserData => writers.entry((true, what)).or_default().push(row.id),
                    RelationKind::InputFile | RelationKind::InputUserData => {}
                }
            }
        }
        let mut implied = BTreeSet::new();
        for row in &jobs {
            for (kind, what) in self.relations_of(row.id) {
                let written = match kind {
                    RelationKind::InputFile => writers.get(&(false, what)),
                    RelationKind::InputUserData => writers.get(&(true, what)),
                    RelationKind::OutputFile | RelationKind::OutputUserData => None,
                };
                implied.extend(written.into_iter().flatten().filter(|&&on| on != row.id).map(|&on| (row.id, on)));
            }
        }
        let is_here = |job: &JobId| self.jobs.get(job).is_some_and(|row| row.workflow == id);
        edges.barriers = self.edges.barriers.iter().filter(|(_, on)| is_here(on)).copied().collect();
        GraphRows { jobs, edges, implied: implied.into_iter().collect() }
    }

    /// What a job depends on, directly or behind a barrier.
    /// An edge, if there is one, of which an end is not there.
    pub fn stray_edge(&self) -> Option<String> {
        let StoredEdges { direct, barriers, members } = &self.edges;
        let gone = |job: &JobId| !self.jobs.contains_key(job);
        let waits = |(barrier, _): &&(BarrierId, JobId)| members.values().any(|at| at == barrier);
        let stray = direct.iter().find(|(job, on)| gone(job) || gone(on)).map(|edge| format!("{edge:?}"));
        let behind = || members.iter().find(|(job, _)| gone(job)).map(|member| format!("{member:?}"));
        let before = || barriers.iter().find(|edge| gone(&edge.1) || !waits(edge)).map(|edge| format!("{edge:?}"));
        stray.or_else(behind).or_else(before)
    }

    pub fn edges_from(&self, job: JobId) -> BTreeSet<(JobId, JobId)> {
        let barrier = self.edges.members.get(&job);
        let behind = barrier.into_iter().flat_map(|&at| {
            self.edges.barriers.range((at, JobId(i64::MIN))..=(at, JobId(i64::MAX))).map(move |(_, on)| (job, *on))
        });
        self.edges.direct_from(job).chain(behind).collect()
    }

    fn relations_of(&self, job: JobId) -> impl Iterator<Item = (RelationKind, i64)> {
        self.relations
            .range((job, RelationKind::InputFile, i64::MIN)..=(job, RelationKind::OutputUserData, i64::MAX))
            .map(|&(_, kind, what)| (kind, what))
    }
}

fn id_of(row: &Row) -> i64 {
    match row.first() {
        Some(Value::Int(id)) => *id,
        other => panic!("a row begins with its id, not with {other:?}"),
    }
}

/// The workflow table's own rows belong to the workflow of their id.
fn is_of(table: Table, row: &Row, workflow: WorkflowId) -> bool {
    row[usize::from(table != Table::Workflow)] == Value::Int(workflow.0)
}

/// Why a row cannot be one of this table.
fn misfit(table: Table, row: &Row) -> Option<Box<str>> {
    let columns = table.columns();
    if row.len() != columns.len() {
        return Some(format!("{} has {} columns, not {}", table.name(), columns.len(), row.len()).into());
    }
    let null = columns.iter().zip(row).find(|(column, value)| !column.nullable && **value == Value::Null);
    null.map(|(column, _)| format!("{}.{} may not be null", table.name(), column.name).into())
}

/// A row as it is read back: whole numbers in a column of reals are reals.
fn stored(table: Table, row: &Row) -> Row {
    let convert = |(column, value): (&forebay_domain::catalog::Column, &Value)| match (column.kind, value) {
        (Kind::Real, Value::Int(n)) => Value::Real(*n as f64),
        _ => value.clone(),
    };
    table.columns().iter().zip(row).map(convert).collect()
}

/// The answer to a statement of a batch that was committed long ago.
fn forgotten(statement: &Statement) -> StatementOutcome {
    match statement {
        Statement::Insert { .. } => StatementOutcome::Inserted,
        Statement::Update { .. } | Statement::Delete { .. } => StatementOutcome::Row(None),
        Statement::DeleteAll { .. } => StatementOutcome::Count(0),
    }
}
