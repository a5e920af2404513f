//! The machine: it owns all scheduling state and decides everything. It takes commands and what
//! readers and the writer report, each with the time; it gives answers, reads and batches. It
//! reads no clock, draws no number by chance and does no I/O.

mod awaited;
mod claims;
mod heads;
mod held;
mod jobs;
mod leases;
mod marches;
mod open;
mod outcomes;
mod pen;
mod policies;
mod reads;
mod reserved;
mod shares;
mod sizes;
mod slots;
mod stamps;
mod tasks;
mod timers;
mod trace;
mod waiting;
mod work;
mod workflows;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;

use crate::batch::{Batch, Sequence, WorkflowRow};
use crate::catalog::Statement;
use crate::claim::Needs;
use crate::command::{Answer, Command, Rejection};
use crate::graph::Graph;
use crate::ids::{Grant, JobId, LaneId, Lsn, RequirementId, SchedulerId, Ticket, Timestamp, WorkflowId};
use crate::job::JobRow;
use crate::lane::{LabelSet, Lane};
use crate::limits::Limits;
use crate::plan::{Aim, Plan};
use crate::port::{Read, Recovered, Rows};
use crate::state::JobState;

use heads::Heads;
use leases::Leases;
use open::OpenBatch;
use reads::{Flight, Purpose};
use shares::Shares;
use sizes::Sizes;
use slots::{Slot, Slots};
use timers::Timers;
pub use trace::{Broken, Trace};
use waiting::{News, Waiting};
use work::{Step, Stop, Work};

type Map<K, V> = HashMap<K, V, FxBuildHasher>;
type Set<K> = HashSet<K, FxBuildHasher>;

/// Names a read that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadId(pub u64);

/// A read to be carried out once batch `after` is committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadRequest {
    pub id: ReadId,
    pub after: Lsn,
    pub what: Read,
    /// What is to be worked out of the rows, for a `Read::Graph`.
    pub aim: Option<Aim>,
}

/// What a read brings back.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    Rows(Rows),
    Plan(Plan),
}

impl ReadRequest {
    /// Makes what the machine takes of what a reader answered. It may take long, and needs nothing of the
    /// machine: whoever read does it.
    pub fn digest(&self, rows: Rows) -> Found {
        match (&self.what, self.aim, rows) {
            (Read::Graph(workflow), Some(aim), Rows::Graph(rows)) => Found::Plan(Plan::new(*workflow, aim, *rows)),
            (_, _, rows) => Found::Rows(rows),
        }
    }
}

#[derive(Debug)]
struct Workflow {
    row: WorkflowRow,
    requirements: BTreeMap<RequirementId, Needs>,
    lanes: BTreeMap<LaneKey, LaneId>,
    /// There only where jobs depend on each other, and once it was needed.
    graph: Option<Graph>,
    /// The batch of the last change of any of its jobs.
    touched: Lsn,
    /// The batch of the last change in bulk: what was read before is stale.
    bulk: Lsn,
    /// The batch that last wrote a payload.
    details: Lsn,
    /// The batch that last deleted jobs.
    purged: Lsn,
    /// Work that waits, while all rows are being read or changed in parts.
    frozen: Option<VecDeque<Work>>,
    /// Its lanes in the orders of claims.
    heads: Heads,
    /// Claims without an answer.
    waiting: Waiting,
    used: u64,
    progress: Progress,
}

type LaneKey = (RequirementId, Option<SchedulerId>, LabelSet);

/// See the module.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    /// The latest claim.
    granted: Grant,
    workflows: Map<WorkflowId, Workflow>,
    /// Deleted, and the batch that says so is not committed.
    deleted: BTreeMap<WorkflowId, Lsn>,
    lanes: Map<LaneId, Lane>,
    shares: Shares,
    /// Of the lanes' windows.
    sizes: Sizes,
    slots: Slots,
    held_kept: usize,
    /// Changed or read jobs, in the order of their batches, until no read in flight is older.
    recent: VecDeque<(Lsn, JobId)>,
    timers: Timers,
    leases: Leases,
    deadlines: BTreeSet<(Timestamp, WorkflowId, Ticket)>,
    waiters: Map<Ticket, WorkflowId>,
    sequences: BTreeMap<Sequence, Ids>,
    open: OpenBatch,
    committed: Lsn,
    flights: BTreeMap<ReadId, Flight>,
    workflow_reads: BTreeMap<WorkflowId, ReadId>,
    job_reads: Map<JobId, ReadId>,
    /// Workflows being changed in parts, the next in turn first.
    marches: VecDeque<(WorkflowId, marches::Bulk)>,
    /// The last batch that has a part of one.
    marched: Lsn,
    /// The last batch with a change of a job that is not in memory any more.
    unslotted: Lsn,
    /// The work that is being done re-arms what it changes.
    arming: bool,
    /// Bytes reserved for graphs by all workflows, in memory or not.
    graph_bytes: i64,
    /// Lanes of all workflows that are not complete, in memory or not.
    lanes_reserved: i64,
    parked: usize,
    next_read: u64,
    clock: u64,
    /// Jobs that a read did not find, while what waited for that read is done.
    absent: Set<JobId>,
    /// Workflows whose waiting claims may be served.
    awake: BTreeMap<WorkflowId, News>,
    /// What is to be done in the batch of a command, if that is accepted.
    beside: Map<Ticket, Vec<Statement>>,
    answers: Vec<(Ticket, Lsn, Answer)>,
    tracer: trace::Tracer,
    reads: Vec<ReadRequest>,
    /// Kept for its room: the groups of lanes that a claim may take from.
    groups: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Ids {
    next: i64,
    reserved: i64,
}

/// How full everything is: for operators, and for tests of the bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    pub workflows: usize,
    pub lanes: usize,
    pub lanes_behind: usize,
    pub windowed: usize,
    /// Of payloads, in bytes.
    pub payload_bytes: usize,
    pub window_longest: usize,
    pub slots: usize,
    pub recent: usize,
    pub waiting: usize,
    pub parked: usize,
    pub reads: usize,
    pub marches: usize,
    pub timers: usize,
    /// There may be more timers in the store.
    pub timers_behind: bool,
    pub leases: usize,
    pub graph_bytes: usize,
    pub backlog: usize,
}

/// What became of a workflow's jobs, one by one: for who watches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Jobs that ended: completed, failed, terminated.
    pub ended: u64,
    /// Jobs that waited for others and became ready.
    pub freed: u64,
    /// Attempts that nobody knows the end of: their time ran out, or their node is gone.
    pub lost: u64,
}

impl Progress {
    fn note(&mut self, before: JobState, after: JobState) {
        use JobState::*;
        let has_outcome = |state| matches!(state, Completed | Failed | Terminated | PendingFailed);
        self.ended += u64::from(has_outcome(after) && !has_outcome(before));
        self.freed += u64::from(before == Blocked && after == Ready);
    }
}

impl Machine {
    pub fn new(limits: Limits, recovered: Recovered) -> Machine {
        let mut sequences = BTreeMap::new();
        for (sequence, next) in recovered.sequences {
            sequences.insert(sequence, Ids { next, reserved: next });
        }
        let mut machine = Machine {
            granted: Grant::before(recovered.epoch),
            workflows: Map::default(),
            deleted: BTreeMap::new(),
            lanes: Map::default(),
            shares: Shares::default(),
            sizes: Sizes::default(),
            slots: Slots::default(),
            held_kept: 0,
            recent: VecDeque::new(),
            timers: Timers::new(),
            leases: Leases::new(recovered.leases),
            deadlines: BTreeSet::new(),
            waiters: Map::default(),
            sequences,
            open: OpenBatch::new(recovered.lsn.next()),
            committed: recovered.lsn,
            flights: BTreeMap::new(),
            workflow_reads: BTreeMap::new(),
            job_reads: Map::default(),
            marches: VecDeque::new(),
            marched: recovered.lsn,
            unslotted: recovered.lsn,
            arming: false,
            graph_bytes: recovered.graph_bytes,
            lanes_reserved: recovered.lanes,
            parked: 0,
            next_read: 1,
            clock: 0,
            absent: Set::default(),
            awake: BTreeMap::new(),
            beside: Map::default(),
            answers: Vec::new(),
            tracer: Default::default(),
            reads: Vec::new(),
            groups: Vec::new(),
            limits,
        };
        machine.want_moments();
        for id in recovered.marching {
            machine.park(Stop::Workflow(id), Work::Resume(id));
        }
        machine
    }

    /// Does what a caller asks. Its one answer comes through `answers`, now or later.
    pub fn apply(&mut self, now: Timestamp, ticket: Ticket, command: Command) {
        let work = match command {
            Command::With { statements, command } => {
                self.beside.insert(ticket, statements);
                Work::Command(ticket, *command)
            }
            command => Work::Command(ticket, command),
        };
        self.run(now, work);
        self.serve(now);
    }

    /// Does what has come due: leases, a page of timers at most, claims that have waited long enough.
    pub fn tick(&mut self, now: Timestamp) {
        // First: what it lets wait for a moment may be due.
        self.march(now);
        self.end_leases(now);
        self.fire(now);
        self.serve(now);
        self.expire_waiting(now);
    }

    /// When `tick` has something to do next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let timer = self.next_moment().map(|moment| moment.at);
        let waiting = self.deadlines.first().map(|deadline| deadline.0);
        [timer, waiting, self.leases.next()].into_iter().flatten().min()
    }

    /// Whether changes go on by themselves from commit to commit.
    pub fn is_marching(&self) -> bool {
        !self.marches.is_empty()
    }

    /// How many changes wait in the open batch.
    pub fn backlog(&self) -> usize {
        self.open.len()
    }

    /// Closes the open batch and opens the next. `None` if nothing changed.
    pub fn take_batch(&mut self) -> Option<Batch> {
        self.open.take(&self.workflows, &self.lanes)
    }

    /// Batch `lsn` is durable.
    pub fn committed(&mut self, now: Timestamp, lsn: Lsn) {
        self.committed = lsn;
        self.forget_old();
        self.serve(now);
    }

    /// Takes the answers that were given since, each with the batch whose commit lets it leave.
    pub fn answers(&mut self) -> impl Iterator<Item = (Ticket, Lsn, Answer)> + '_ {
        self.answers.drain(..)
    }

    /// Takes the reads that were asked for since.
    pub fn reads(&mut self) -> impl Iterator<Item = ReadRequest> + '_ {
        self.reads.drain(..)
    }

    /// An answer could not be delivered: the jobs that it handed out go back.
    pub fn give_back(&mut self, now: Timestamp, answer: Answer) {
        let claimed = match answer {
            Answer::Claimed(claimed) => Some(claimed),
            Answer::Reported { claimed, .. } => claimed,
            Answer::Done
            | Answer::Created(_)
            | Answer::Count(_)
            | Answer::Job(_)
            | Answer::Statement(_)
            | Answer::Rejected(_)
            | Answer::Outcome(_) => None,
        };
        let Some(claimed) = claimed else { return };
        let jobs: Vec<JobRow> = claimed.jobs.into_iter().map(|(row, _)| row).collect();
        if !jobs.is_empty() {
            self.run(now, Work::GiveBack(jobs));
            self.serve(now);
        }
    }

    pub fn stats(&self) -> Stats {
        Stats {
            workflows: self.workflows.len(),
            lanes: self.lanes.len(),
            lanes_behind: self.lanes.values().filter(|lane| lane.is_behind()).count(),
            windowed: self.lanes.values().map(|lane| lane.len()).sum(),
            payload_bytes: self.slots.bytes(),
            window_longest: self.lanes.values().map(|lane| lane.len()).max().unwrap_or(0),
            slots: self.slots.len(),
            recent: self.recent.len(),
            waiting: self.waiters.len(),
            parked: self.parked,
            reads: self.flights.len(),
            marches: self.marches.len(),
            timers: self.timers.len(),
            timers_behind: self.timers.is_behind(),
            leases: self.leases.len(),
            graph_bytes: self.workflows.values().filter_map(|w| w.graph.as_ref()).map(Graph::bytes).sum(),
            backlog: self.open.len(),
        }
    }

    /// Takes what has become of each workflow since this was asked last; those where nothing did are
    /// left out, and those that left memory since.
    pub fn take_progress(&mut self) -> Vec<(WorkflowId, Progress)> {
        let taken = self.workflows.iter_mut().map(|(id, workflow)| (*id, core::mem::take(&mut workflow.progress)));
        let mut taken: Vec<_> = taken.filter(|(_, progress)| *progress != Progress::default()).collect();
        taken.sort_unstable_by_key(|(id, _)| *id);
        taken
    }

    /// The workflow, if it is in memory and its rows are not being read or changed in parts.
    fn resident(&mut self, id: WorkflowId) -> Result<&mut Workflow, Stop> {
        if self.deleted.contains_key(&id) {
            return Err(Rejection::NoSuchWorkflow(id).into());
        }
        self.clock += 1;
        let Some(workflow) = self.workflows.get_mut(&id) else { return Err(Stop::Workflow(id)) };
        if workflow.frozen.is_some() {
            return Err(Stop::Frozen(id));
        }
        workflow.used = self.clock;
        Ok(workflow)
    }

    /// The row of a job, once it and its workflow are in memory.
    fn resident_job(&mut self, id: JobId) -> Result<JobRow, Stop> {
        self.resident_workflow_of(id)?;
        Ok(*self.row(id))
    }

    /// The workflow of a job, once both are in memory.
    fn resident_workflow_of(&mut self, id: JobId) -> Result<WorkflowId, Stop> {
        let Some(slot) = self.slots.get(&id) else {
            return Err(if self.absent.contains(&id) {
                Rejection::NoSuchJob(id).into()
            } else {
                Stop::UnknownJobs(alloc::vec![id])
            });
        };
        let workflow = slot.row.workflow;
        self.resident(workflow)?;
        let is_over = self.workflows[&workflow].row.is_over(self.row(id));
        if is_over { Err(Rejection::NoSuchJob(id).into()) } else { Ok(workflow) }
    }

    /// A job as it is now.
    fn job_answer(&self, id: JobId) -> Answer {
        Answer::Job(Box::new(*self.row(id)))
    }

    /// Stops unless the dependents of the workflow's jobs are known.
    fn needs_graph(&mut self, id: WorkflowId) -> Result<(), Stop> {
        let workflow = self.resident(id)?;
        if workflow.row.has_edges && workflow.graph.is_none() {
            return Err(Stop::Rows { workflow: id, aim: Aim::Graph });
        }
        Ok(())
    }

    /// The workflow, whose hot row is to be written by the open batch.
    fn dirty(&mut self, id: WorkflowId) -> &mut Workflow {
        let workflow = self.workflows.get_mut(&id).expect("a workflow is loaded before it changes");
        workflow.touch(&mut self.open);
        workflow
    }

    /// `n` ids one after the other that were never given out: the first of them.
    fn take_ids(&mut self, sequence: Sequence, n: usize) -> i64 {
        let block = self.limits.id_block;
        let ids = self.sequences.entry(sequence).or_insert(Ids { next: 1, reserved: 1 });
        let first = ids.next;
        ids.next += n as i64;
        if ids.next > ids.reserved {
            ids.reserved = ids.next + block;
            self.open.sequence(sequence, ids.reserved);
        }
        first
    }

    /// The lane of such jobs; a new one if there is none yet. Whether there is room for it was asked.
    fn lane_for(&mut self, workflow: WorkflowId, key: LaneKey) -> Result<LaneId, Rejection> {
        let owner = &self.workflows[&workflow];
        if let Some(lane) = owner.lanes.get(&key) {
            return Ok(*lane);
        }
        let needs = *owner.requirements.get(&key.0).ok_or(Rejection::NoSuchRequirement(key.0))?;
        let id = LaneId(self.take_ids(Sequence::Lane, 1));
        let row = crate::batch::LaneRow { id, workflow, requirement: key.0, scheduler: key.1, labels: key.2.clone() };
        self.open.lane(row.clone());
        let mut lane = Lane::new(row, needs, false);
        let stake = self.shares.stake(&lane.row, None);
        let owner = self.dirty(workflow);
        lane.stake = owner.row.endless.then_some(stake);
        owner.heads.join(&mut lane);
        owner.lanes.insert(key, id);
        self.lanes.insert(id, lane);
        Ok(id)
    }
}

/// Sets the ids of rows that are to be created.
fn number(mut rows: Vec<crate::catalog::Row>, first: i64) -> Vec<crate::catalog::Row> {
    for (row, id) in rows.iter_mut().zip(first..) {
        row[0] = crate::catalog::Value::Int(id);
    }
    rows
}
