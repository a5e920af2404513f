//! Marches: changes of so many jobs that one transaction would hold everybody up. They are carried out
//! in parts, one a batch, and the workflow's other work waits until they end. The first part records the
//! march in the workflow's hot row; after a crash it begins again from what is stored, and comes to the
//! same end.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::{Machine, Step, Stop, Trace, Work};
use crate::batch::{JobDetail, March};
use crate::command::Answer;
use crate::graph::Graph;
use crate::ids::{BarrierId, JobId, LaneId, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow, NewJob};
use crate::plan::{Aim, Change, Changed};
use crate::state::JobState;

/// A change in bulk, and how far it came.
#[derive(Debug)]
pub(super) struct Bulk {
    kind: March,
    edges: vec::IntoIter<(JobId, JobId)>,
    rows: vec::IntoIter<Changed>,
    doomed: vec::IntoIter<JobRow>,
    created: vec::IntoIter<Newborn>,
    /// The id of the next one to be created.
    next: JobId,
    /// What those wait for that wait at barriers. It comes behind them: whatever part of it is there, it
    /// goes with the last who waits.
    barriers: vec::IntoIter<(BarrierId, JobId)>,
    /// The moment as of which jobs are canceled by it.
    canceled_at: Timestamp,
    at_end: AtEnd,
    /// Whom to answer then; nobody while it is not known to march, or if it goes on after a crash.
    work: Option<Work>,
}

/// A job that is to be created.
#[derive(Debug)]
pub(super) struct Newborn {
    pub job: NewJob,
    pub lane: LaneId,
    /// It waits there for what it depends on.
    pub barrier: Option<BarrierId>,
}

impl Newborn {
    /// How many rows it takes.
    fn weight(&self) -> usize {
        let waits = if self.barrier.is_some() { 1 } else { self.job.depends_on.len() };
        1 + waits + self.job.relations.len()
    }
}

/// What is so once all is written.
#[derive(Debug)]
struct AtEnd {
    graph: Option<Graph>,
    has_edges: Option<bool>,
    /// How many jobs are new, and in which state.
    created: (JobState, i64),
    /// The jobs that it deletes count for nothing: they never were.
    uncounted: bool,
    /// The graph in memory is as it is after the change.
    keeps_graph: bool,
    answer: Answer,
}

impl AtEnd {
    /// Whether lanes lose or gain jobs by it: new drafts are in none.
    fn touches_lanes(&self) -> bool {
        let (born, created) = self.created;
        created == 0 || born != JobState::Draft
    }
}

impl Bulk {
    fn new(kind: March, answer: Answer) -> Bulk {
        let at_end = AtEnd {
            graph: None,
            has_edges: None,
            created: (JobState::Draft, 0),
            uncounted: false,
            keeps_graph: false,
            answer,
        };
        Bulk {
            kind,
            edges: Vec::new().into_iter(),
            rows: Vec::new().into_iter(),
            doomed: Vec::new().into_iter(),
            created: Vec::new().into_iter(),
            next: JobId(0),
            barriers: Vec::new().into_iter(),
            canceled_at: Timestamp::default(),
            at_end,
            work: None,
        }
    }

    /// Of rows as they are to be.
    pub fn change(kind: March, change: Change) -> Bulk {
        let mut bulk = Bulk::new(kind, change.answer);
        bulk.edges = change.edges.into_iter();
        bulk.rows = change.rows.into_iter();
        bulk.at_end.graph = change.graph;
        bulk.at_end.has_edges = change.has_edges;
        bulk
    }

    /// Of what waited for a job that has ended; the graph knows it already.
    fn release(job: JobId, now: Timestamp, rows: Vec<Changed>) -> Bulk {
        let mut bulk = Bulk::new(March::Release { job }, Answer::Done);
        bulk.canceled_at = now;
        bulk.rows = rows.into_iter();
        bulk.at_end.keeps_graph = true;
        bulk
    }

    /// Of what has not gone on when a crash broke that off.
    pub fn rest_of_release(job: JobId, now: Timestamp, change: Change) -> Bulk {
        let mut bulk = Bulk::change(March::Release { job }, change);
        bulk.canceled_at = now;
        bulk
    }

    /// Of jobs that are deleted, all of their workflow.
    pub fn delete(doomed: Vec<JobRow>) -> Bulk {
        let mut bulk = Bulk::new(March::Delete, Answer::Count(doomed.len() as i64));
        bulk.doomed = doomed.into_iter();
        bulk
    }

    /// Of jobs whose creation did not end.
    pub fn uncreate(from: JobId, doomed: Vec<JobRow>) -> Bulk {
        let mut bulk = Bulk::delete(doomed);
        bulk.kind = March::Create { from };
        bulk.at_end.uncounted = true;
        bulk
    }

    /// Of jobs that get the ids from `first` on: drafts, or blocked by the job that brought them forth.
    pub fn create(first: JobId, jobs: Vec<Newborn>, barriers: Vec<(BarrierId, JobId)>, born: JobState) -> Bulk {
        let mut bulk = Bulk::new(March::Create { from: first }, Answer::Created(first.0));
        bulk.at_end.created = (born, jobs.len() as i64);
        bulk.at_end.has_edges = jobs.iter().any(|new| !new.job.depends_on.is_empty()).then_some(true);
        bulk.created = jobs.into_iter();
        bulk.next = first;
        bulk.barriers = barriers.into_iter();
        bulk
    }

    /// About how many rows are still to be written.
    fn len(&self) -> usize {
        let created: usize = self.created.as_slice().iter().map(Newborn::weight).sum();
        self.edges.len() + self.rows.len() + self.doomed.len() + created + self.barriers.len()
    }

    fn is_done(&self) -> bool {
        self.edges.len() + self.rows.len() + self.doomed.len() + self.created.len() + self.barriers.len() == 0
    }
}

impl Machine {
    /// Carries a change out: at once, or in parts if it is of many jobs.
    pub(super) fn carry_out(&mut self, id: WorkflowId, mut bulk: Bulk) -> Step {
        if bulk.len() <= self.limits.step_max {
            self.part(id, &mut bulk, usize::MAX);
            return Ok(Some(self.end(id, bulk.at_end)));
        }
        let workflow = self.dirty(id);
        workflow.frozen.get_or_insert_default();
        // Its first part may be in a later batch than what is reserved for it.
        workflow.row.march = Some(bulk.kind);
        if bulk.at_end.touches_lanes() {
            // Windows show nothing of what is half done.
            self.reload_lanes(id);
        }
        self.marches.push_back((id, bulk));
        Err(Stop::March)
    }

    /// Lets many jobs go on in parts. That it is to be done commits with its cause, whose answer does not
    /// wait for it.
    pub(super) fn release_in_parts(&mut self, now: Timestamp, id: WorkflowId, job: JobId, rows: Vec<Changed>) {
        let bulk = Bulk::release(job, now, rows);
        let workflow = self.dirty(id);
        workflow.frozen.get_or_insert_default();
        workflow.row.march = Some(bulk.kind);
        self.reload_lanes(id);
        self.marches.push_back((id, bulk));
        self.tracer.note(Trace::Releasing(job));
    }

    /// The work that a march was begun for; it is answered at its end.
    pub(super) fn march_for(&mut self, work: Work) {
        let (_, bulk) = self.marches.back_mut().expect("it was just begun");
        bulk.work = Some(work);
    }

    /// One part of one march, if the open batch has none. The marches take turns.
    pub(super) fn march(&mut self, now: Timestamp) {
        if self.marched >= self.open.lsn() {
            return;
        }
        let Some((id, mut bulk)) = self.marches.pop_front() else { return };
        self.marched = self.open.lsn();
        self.part(id, &mut bulk, self.limits.part_max.max(1));
        if !bulk.is_done() {
            return self.marches.push_back((id, bulk));
        }
        let Bulk { kind, at_end, work, .. } = bulk;
        let answer = self.end(id, at_end);
        if let (March::Release { job }, None) = (kind, &work) {
            self.tracer.note(Trace::Released(job));
        }
        let waiting = self.thaw(id);
        if let Some(work) = work {
            self.conclude(Ok(Some(answer)), work);
        }
        for work in waiting {
            self.run(now, work);
        }
    }

    /// What waited for the workflow may go on.
    pub(super) fn thaw(&mut self, id: WorkflowId) -> VecDeque<Work> {
        self.wake_all(id);
        self.workflows.get_mut(&id).and_then(|workflow| workflow.frozen.take()).unwrap_or_default()
    }

    fn part(&mut self, id: WorkflowId, bulk: &mut Bulk, most: usize) {
        let mut left = most;
        let lsn = self.open.lsn();
        let workflow = self.dirty(id);
        workflow.bulk = lsn;
        for (job, prerequisite) in bulk.edges.by_ref().take(left) {
            self.open.edge(job, prerequisite);
            left -= 1;
        }
        for Changed { done, was, mut row } in bulk.rows.by_ref().take(left) {
            if row.state == JobState::Canceled {
                row.result = self.keep_cancellation(bulk.canceled_at, &row);
                let owner = self.dirty(id);
                if let Some(graph) = bulk.at_end.graph.as_mut().or(owner.graph.as_mut()) {
                    graph.update(&row);
                }
            }
            self.put_in_bulk(was, row);
            bulk.kind.behind(done);
            left -= 1;
        }
        for row in bulk.doomed.by_ref().take(left) {
            self.delete(row, bulk.at_end.uncounted);
            left -= 1;
        }
        while left > 0
            && let Some(new) = bulk.created.next()
        {
            left = left.saturating_sub(new.weight());
            self.insert(id, bulk.next, new, bulk.at_end.created.0);
            bulk.next.0 += 1;
        }
        for (barrier, prerequisite) in bulk.barriers.by_ref().take(left) {
            self.open.barrier(barrier, prerequisite);
        }
        self.dirty(id).row.march = Some(bulk.kind);
    }

    fn end(&mut self, id: WorkflowId, at_end: AtEnd) -> Answer {
        if at_end.touches_lanes() {
            self.reload_lanes(id);
        }
        let lsn = self.open.lsn();
        let workflow = self.dirty(id);
        workflow.row.march = None;
        let (born, created) = at_end.created;
        workflow.row.counts[born as usize] += created;
        workflow.row.has_edges = at_end.has_edges.unwrap_or(workflow.row.has_edges);
        workflow.purged = lsn;
        if created > 0 {
            workflow.details = lsn;
        }
        if !at_end.keeps_graph {
            let has_graph = at_end.graph.is_some();
            workflow.graph = at_end.graph;
            if has_graph {
                self.fit_graphs(id);
            }
        }
        self.reserve_what_it_needs(id);
        at_end.answer
    }

    /// A row of a change in bulk: written, and no longer as memory may know it.
    fn put_in_bulk(&mut self, was: JobState, row: JobRow) {
        let before = JobRow { state: was, ..row };
        self.retime(before.moment(), row.moment());
        self.remove_slot(row.id);
        self.open.job_in_bulk(row);
        let workflow = self.dirty(row.workflow);
        workflow.waiting.disown(row.id, was, row.state);
        workflow.progress.note(was, row.state);
        workflow.row.counts[was as usize] -= 1;
        workflow.row.counts[row.state as usize] += 1;
    }

    /// A job that goes for good.
    pub(super) fn delete(&mut self, row: JobRow, uncounted: bool) {
        if row.state == JobState::Ready {
            self.leave_lane(&row);
        }
        self.retime(row.moment(), None);
        self.remove_slot(row.id);
        let workflow = self.dirty(row.workflow);
        workflow.waiting.disown(row.id, row.state, JobState::Draft);
        if !uncounted {
            workflow.row.counts[row.state as usize] -= 1;
        }
        self.open.delete_job(row.id);
    }

    fn insert(&mut self, workflow: WorkflowId, id: JobId, new: Newborn, born: JobState) {
        let Newborn { job, lane, barrier } = new;
        let mut row = job.row(id, workflow, lane, born);
        row.flags = row.flags.with(JobFlags::SPAWNED, born == JobState::Blocked);
        self.open.new_job(row, JobDetail { job: id, workflow, name: job.name, payload: job.payload });
        match barrier {
            Some(barrier) => self.open.member(id, barrier),
            None => job.depends_on.iter().for_each(|prerequisite| self.open.edge(id, *prerequisite)),
        }
        for (kind, item) in job.relations {
            self.open.relation(id, kind, item);
        }
    }

    /// A march that did not end before a crash begins again.
    pub(super) fn resume(&mut self, now: Timestamp, id: WorkflowId) -> Step {
        let Some(march) = self.resident(id)?.row.march else { return Ok(None) };
        let aim = match march {
            March::Initialize { only_drafts, done } => Aim::Initialize { only_drafts, done, now },
            March::Reset { failed_only, done } => Aim::Reset { failed_only, done },
            March::Delete => Aim::Delete { job: None },
            March::Create { from } => Aim::Uncreate { from },
            March::Release { job } => Aim::Release { job, now },
        };
        Err(Stop::Rows { workflow: id, aim })
    }
}

impl March {
    /// So many jobs are behind it.
    fn behind(&mut self, jobs: u32) {
        match self {
            March::Initialize { done, .. } | March::Reset { done, .. } => *done = jobs,
            March::Delete | March::Create { .. } | March::Release { .. } => {}
        }
    }
}
