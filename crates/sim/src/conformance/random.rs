//! The same random batches on two stores: every read of both must be equal.

use forebay_domain::batch::{Batch, Extent, JobWrite, LaneState, Sequence};
use forebay_domain::catalog::{Kind, Match, Paging, Query, Statement, TABLES, Table, Value};
use forebay_domain::ids::{BarrierId, Grant, JobId, LaneId, Lsn, NodeId, ResultId, SchedulerId, Timestamp, WorkflowId};
use forebay_domain::job::{JobFlags, JobRow, RelationKind};
use forebay_domain::lane::{LabelSet, OrderKey};
use forebay_domain::port::{JobQuery, JobSort, Moment, Read, Reader, Rows, Store};
use forebay_domain::state::STATE_LIST;

use super::*;
use crate::random::Random;

/// Commits the same `batches` random batches to both and compares what all reads answer.
///
/// # Panics
/// If they differ: the seed and the question are in the message.
pub fn differential<S: Store, R: Reader, T: Store, Q: Reader>(
    seed: u64,
    batches: usize,
    left: &mut Opened<S, R>,
    right: &mut Opened<T, Q>,
) {
    let mut made = Made { random: Random::new(seed), ..Made::default() };
    let (mut left_reader, mut right_reader) = (left.1(), right.1());
    for number in 1..=batches {
        let batch = Batch { lsn: Lsn(number as u64), ..made.batch() };
        let again = made.random.chance(1, 8);
        for _ in 0..=usize::from(again) {
            let outcomes = (left.0.commit(&batch), right.0.commit(&batch));
            match outcomes {
                (Ok(left), Ok(right)) => {
                    let same = left.len() == right.len() && left.iter().zip(&right).all(|(l, r)| alike(l, r));
                    assert!(same, "seed {seed}, batch {number}: {left:?} and {right:?}");
                }
                (left, right) => panic!("seed {seed}, batch {number}: {left:?} and {right:?}"),
            }
        }
        for _ in 0..12 {
            let question = made.question();
            let (left, right) = (question.ask(&mut left_reader), question.ask(&mut right_reader));
            assert_eq!(left, right, "seed {seed}, after batch {number}: {question:?}");
        }
        if made.random.chance(1, 10) {
            let (left, right) = (left.0.recover().expect("recovers"), right.0.recover().expect("recovers"));
            assert_eq!((left.lsn, left.epoch), (right.lsn, right.epoch));
        }
    }
}

/// Refusals are worded by their store.
fn alike(left: &forebay_domain::catalog::StatementOutcome, right: &forebay_domain::catalog::StatementOutcome) -> bool {
    use forebay_domain::catalog::StatementOutcome::Refused;
    matches!((left, right), (Refused(_), Refused(_))) || left == right
}

/// What exists, as far as the next batch must know it.
#[derive(Default)]
struct Made {
    random: Random,
    next: i64,
    workflows: Vec<i64>,
    lanes: Vec<LaneRow>,
    jobs: Vec<JobRow>,
    rows: Vec<(Table, i64)>,
}

impl Made {
    fn id(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        if self.workflows.is_empty() || self.random.chance(1, 12) {
            let id = self.id();
            batch = workflow_batch(id);
            self.workflows.push(id);
            self.lanes.push(lane_row(id, id));
            self.rows.extend([(Table::Workflow, id), (Table::Requirement, id)]);
        }
        if self.random.chance(1, 6) {
            let id = self.id();
            let workflow = self.workflow();
            let names = ["a", "b", "ä,\"x\""];
            let labels = LabelSet::new(
                names.into_iter().filter(|_| self.random.chance(1, 2)).map(Into::into).collect::<Vec<_>>(),
            );
            let scheduler = self.random.chance(1, 3).then_some(SchedulerId(3));
            let lane = LaneRow { labels, scheduler, ..lane_row(id, workflow) };
            self.lanes.push(lane.clone());
            batch.lanes.push(lane);
        }
        if self.random.chance(1, 4)
            && let Some(lane) = self.random.pick(&self.lanes).map(|lane| lane.id)
        {
            let (held, paused) = (self.random.between(0, 99), self.random.chance(1, 2));
            batch.lane_states.push(LaneState { lane, held, paused });
        }
        self.change_jobs(&mut batch);
        self.change_catalog(&mut batch);
        if self.random.chance(1, 3) {
            batch.sequences.push((Sequence::Job, self.next + 10));
        }
        if self.random.chance(1, 4) {
            let id = self.workflow();
            let counts = std::array::from_fn(|_| self.random.between(0, 99));
            batch.workflows.push(forebay_domain::batch::WorkflowRow { counts, ..workflow_row(id) });
        }
        if self.workflows.len() > 1 && self.random.chance(1, 25) {
            let gone = self.workflow();
            batch.workflows_deleted.push(WorkflowId(gone));
            self.workflows.retain(|&id| id != gone);
            self.lanes.retain(|lane| lane.workflow != WorkflowId(gone));
            self.jobs.retain(|row| row.workflow != WorkflowId(gone));
        }
        batch
    }

    fn workflow(&mut self) -> i64 {
        *self.random.pick(&self.workflows).expect("there is always a workflow")
    }

    fn change_jobs(&mut self, batch: &mut Batch) {
        let old = self.jobs.len();
        for place in 0..old {
            if self.random.chance(1, 4) {
                let old = self.jobs[place];
                let mut row = self.random_row(old.id);
                if self.random.chance(1, 2) {
                    // As most changes are.
                    row = JobRow { lane: old.lane, priority: old.priority, expires_at: old.expires_at, ..row };
                }
                self.jobs[place] = row;
                let extent = Extent::between(&old.standing(), &row.standing());
                batch.jobs.push(JobWrite { row, extent });
                if self.random.chance(1, 5) {
                    batch.details.push(detail(&row, "again", b"{\"command\":\"again\"}"));
                }
            }
        }
        for _ in 0..self.random.below(6) {
            let id = JobId(self.id());
            let row = self.random_row(id);
            self.jobs.push(row);
            batch.jobs.push(JobWrite { row, extent: Extent::New });
            let command = format!("{{\"command\":\"run {}\"}}", id.0 % 7);
            batch.details.push(detail(&row, &format!("name-{}", id.0 % 5), command.as_bytes()));
        }
        for _ in 0..self.random.below(5) {
            let (Some(a), Some(b)) = (self.random.pick(&self.jobs).copied(), self.random.pick(&self.jobs).copied())
            else {
                break;
            };
            if a.workflow == b.workflow && a.id > b.id {
                // No job depends on another in both ways.
                if a.id.0 % 2 == 0 {
                    batch.edges.direct.push((a.id, b.id));
                } else {
                    let barrier = BarrierId(b.workflow.0 * 10 + self.random.between(0, 2));
                    batch.edges.barriers.push((barrier, b.id));
                    batch.edges.members.push((a.id, barrier));
                }
            }
            let kinds = [
                RelationKind::InputFile,
                RelationKind::OutputFile,
                RelationKind::InputUserData,
                RelationKind::OutputUserData,
            ];
            batch.relations.push((a.id, kinds[self.random.below(4)], self.random.between(1, 4)));
        }
        // One that this batch does not write as well: it would come back.
        if old > 4 && self.random.chance(1, 5) {
            let gone = self.jobs[self.random.below(old)].id;
            batch.jobs_deleted.push(gone);
            self.jobs.retain(|row| row.id != gone);
        }
    }

    /// A row for a job: where it is new in a random lane, otherwise in one of the same workflow.
    fn random_row(&mut self, id: JobId) -> JobRow {
        let old = self.jobs.iter().find(|row| row.id == id).copied();
        let of = old.map(|row| row.workflow);
        let lanes: Vec<&LaneRow> =
            self.lanes.iter().filter(|lane| of.is_none_or(|workflow| lane.workflow == workflow)).collect();
        let lane = *self.random.pick(&lanes).expect("each workflow has a lane");
        let random = &mut self.random;
        JobRow {
            id,
            workflow: lane.workflow,
            lane: lane.id,
            state: if random.chance(1, 2) { JobState::Ready } else { STATE_LIST[random.below(STATE_LIST.len())] },
            priority: random.between(0, 3),
            attempt: random.between(1, 9),
            flags: JobFlags(random.below(8) as u8),
            node: random.chance(1, 3).then(|| NodeId(random.between(1, 3))),
            grant: Grant(random.between(0, 5)),
            started_at: random.chance(1, 3).then(|| Timestamp(random.between(0, 1 << 40))),
            due_at: random.chance(1, 3).then(|| Timestamp(random.between(0, 50))),
            result: random.chance(1, 3).then(|| ResultId(random.between(1, self.next))),
            tries: Tries { failures: random.below(3) as u16, losses: random.below(3) as u16 },
            policy: old.map_or_else(|| random.chance(1, 3).then_some(POLICY), |old| old.policy),
            expires_at: old
                .map_or_else(|| random.chance(1, 3).then(|| Timestamp(random.between(0, 50))), |old| old.expires_at),
        }
    }

    fn change_catalog(&mut self, batch: &mut Batch) {
        for _ in 0..self.random.below(4) {
            let table = TABLES[2 + self.random.below(TABLES.len() - 2)];
            match self.random.below(4) {
                0 if matches!(table, Table::Result | Table::Event) => {
                    let id = self.id();
                    let workflow = self.workflow();
                    batch.appends.push((table, row(table, id, workflow)));
                    self.rows.push((table, id));
                }
                0 | 1 => {
                    let id = self.id();
                    let workflow = self.workflow();
                    batch.statements.push(insert(table, [self.random_catalog_row(table, id, workflow)]));
                    self.rows.push((table, id));
                }
                2 => {
                    let Some(&(table, id)) = self.random.pick(&self.rows) else { continue };
                    let place = 2 + self.random.below(table.columns().len() - 2);
                    let value = self.value(table, place);
                    batch.statements.push(Statement::Update {
                        table,
                        id,
                        only_if: Vec::new(),
                        set: vec![(place, value)],
                    });
                }
                _ if self.random.chance(1, 4) => {
                    let workflow = WorkflowId(self.workflow());
                    batch.statements.push(Statement::DeleteAll { table, workflow });
                }
                _ => {
                    let Some(&(table, id)) = self.random.pick(&self.rows) else { continue };
                    if table != Table::Workflow && table != Table::Requirement {
                        batch.statements.push(Statement::Delete { table, id });
                    }
                }
            }
        }
    }

    fn random_catalog_row(&mut self, table: Table, id: i64, workflow: i64) -> Row {
        let mut row = row(table, id, workflow);
        for place in 2..row.len() {
            row[place] = self.value(table, place);
        }
        row
    }

    /// Sometimes null where it may not be.
    fn value(&mut self, table: Table, place: usize) -> Value {
        let column = &table.columns()[place];
        if self.random.chance(1, if column.nullable { 3 } else { 60 }) {
            return Value::Null;
        }
        match column.kind {
            Kind::Int => Value::Int(self.random.between(0, 6)),
            Kind::Real => Value::Real(self.random.between(0, 12) as f64 / 4.0),
            Kind::Text => text(["", "a", "Ab", "aB%", "b_", "ä"][self.random.below(6)]),
        }
    }

    fn question(&mut self) -> Question {
        let limit = self.random.between(0, 6) as u32;
        let ids = |made: &mut Made| -> Vec<JobId> {
            let mut ids: Vec<JobId> = (0..3).map(|_| JobId(made.random.between(0, made.next + 1))).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let workflow = WorkflowId(self.workflow());
        match self.random.below(17) {
            0..=3 => {
                let lane = self.random.pick(&self.lanes).map_or(LaneId(0), |lane| lane.id);
                let after = OrderKey::new(self.random.between(0, 3), JobId(self.random.between(0, self.next)));
                let after = self.random.chance(2, 3).then_some(after);
                Question::Read(Read::Page { lane, after, limit, payload_max: 19 })
            }
            4 => Question::Read(Read::Workflow(workflow)),
            5 => Question::Read(Read::Graph(workflow)),
            6 => Question::Read(Read::Jobs(ids(self))),
            7 => Question::Read(Read::Payloads(ids(self))),
            8 => Question::Dependencies(workflow, self.paging(None)),
            9 => Question::Relations(workflow, ids(self)),
            10 => Question::Latest(self.query(Table::Result)),
            11 => Question::Jobs(self.job_query(workflow)),
            12 => Question::Read(Read::Held(NodeId(self.random.between(1, 3)))),
            16 => {
                let job = JobId(self.random.between(0, self.next + 1));
                let after = self.random.chance(1, 3).then(|| JobId(self.random.between(0, self.next)));
                Question::Read(Read::Dependents { job, after, limit })
            }
            13 => {
                let moment =
                    Moment { at: Timestamp(self.random.between(0, 50)), job: JobId(self.random.between(0, self.next)) };
                Question::Read(Read::Due { after: self.random.chance(2, 3).then_some(moment), limit })
            }
            _ => {
                let table = TABLES[self.random.below(TABLES.len())];
                Question::List(self.query(table))
            }
        }
    }

    fn paging(&mut self, sort_by: Option<usize>) -> Paging {
        let random = &mut self.random;
        let reverse = sort_by.is_some() && random.chance(1, 2);
        Paging { offset: random.below(4) as u64, limit: random.below(9) as u64, sort_by, reverse }
    }

    fn query(&mut self, table: Table) -> Query {
        let columns = table.columns();
        let mut filters = Vec::new();
        for _ in 0..self.random.below(3) {
            let place = self.random.below(columns.len());
            if columns[place].filter {
                let wanted = match (self.random.below(3), columns[place].kind) {
                    (0, Kind::Text) => Match::Contains(["a", "B", "%", "_", ""][self.random.below(5)].into()),
                    (1, _) if place > 1 => Match::Above(self.not_null(table, place)),
                    (_, _) if place < 2 => Match::Equal(Value::Int(self.workflow())),
                    _ => Match::Equal(self.not_null(table, place)),
                };
                filters.push((place, wanted));
            }
        }
        let sort = self.random.below(columns.len());
        let paging = self.paging(columns[sort].sort.then_some(sort));
        Query { table, filters, paging }
    }

    fn not_null(&mut self, table: Table, place: usize) -> Value {
        loop {
            let value = self.value(table, place);
            if value != Value::Null {
                return value;
            }
        }
    }

    fn job_query(&mut self, workflow: WorkflowId) -> JobQuery {
        let any_job = self.random.pick(&self.jobs).map_or(JobId(0), |row| row.id);
        let lanes = self.lanes.iter().filter(|_| self.random.chance(1, 2)).map(|lane| lane.id).collect::<Vec<_>>();
        let random = &mut self.random;
        JobQuery {
            workflow,
            state: random.chance(1, 4).then(|| STATE_LIST[random.below(STATE_LIST.len())]),
            name: random.chance(1, 6).then(|| format!("name-{}", random.below(5)).into()),
            command: random.chance(1, 6).then(|| format!("run {}", random.below(7)).into()),
            node: random.chance(1, 6).then(|| NodeId(random.between(1, 3))),
            upstream: random.chance(1, 6).then_some(any_job),
            needs_file: random.chance(1, 6).then(|| random.between(1, 4)),
            lanes: random.chance(1, 4).then_some(lanes),
            offset: random.below(3) as u64,
            limit: random.below(9) as u64,
            sort: [JobSort::Id, JobSort::Name, JobSort::State, JobSort::Priority][random.below(4)],
            reverse: random.chance(1, 2),
        }
    }
}

#[derive(Debug)]
enum Question {
    Read(Read),
    List(Query),
    Latest(Query),
    Jobs(JobQuery),
    Dependencies(WorkflowId, Paging),
    Relations(WorkflowId, Vec<JobId>),
}

impl Question {
    /// The answer as text, in an order of its own where the port promises none.
    fn ask<R: Reader>(&self, reader: &mut R) -> String {
        let unread = "a read of a good store succeeds";
        match self {
            Question::Read(what) => {
                let (lsn, mut rows) = reader.read(what).expect(unread);
                match &mut rows {
                    Rows::Page(_) | Rows::Due(_) | Rows::Dependents(_) | Rows::Workflow(None) => {}
                    Rows::Held(jobs) => jobs.sort_unstable(),
                    Rows::Workflow(Some(rows)) => {
                        rows.requirements.sort_by_key(|&(id, _)| id);
                        rows.lanes.sort_by_key(|(lane, _)| lane.id);
                    }
                    Rows::Graph(rows) => {
                        rows.edges.sort();
                        rows.implied.sort_unstable();
                    }
                    Rows::Jobs(rows) => rows.sort_by_key(|row| row.id),
                    Rows::Payloads(rows) => rows.sort(),
                }
                format!("{lsn:?} {rows:?}")
            }
            Question::List(query) => format!("{:?}", reader.list(query).expect(unread)),
            Question::Latest(query) => format!("{:?}", reader.latest_results(query).expect(unread)),
            Question::Jobs(query) => format!("{:?}", reader.jobs(query).expect(unread)),
            Question::Dependencies(workflow, paging) => {
                format!("{:?}", reader.dependencies(*workflow, *paging).expect(unread))
            }
            Question::Relations(workflow, jobs) => {
                let mut relations = reader.relations(*workflow).expect(unread);
                let mut prerequisites = reader.prerequisites(jobs).expect(unread);
                relations.sort_unstable();
                prerequisites.sort_unstable();
                format!("{relations:?} {prerequisites:?} {:?}", reader.job_names(jobs).expect(unread))
            }
        }
    }
}
