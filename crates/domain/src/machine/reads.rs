//! Reads: what is asked for, what waits for it, and how an answer that may be older than memory is
//! taken over without undoing what memory knows.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Broken, Found, Machine, ReadId, ReadRequest, Slot, Stop, Trace, Work, Workflow};
use crate::batch::LaneState;
use crate::command::{Answer, Claimed, Rejection};
use crate::graph::Graph;
use crate::ids::{JobId, LaneId, Lsn, NodeId, Ticket, Timestamp, WorkflowId};
use crate::job::{JobRow, Payload};
use crate::lane::{Lane, OrderKey};
use crate::limits::Limits;
use crate::plan::Aim;
use crate::port::{Read, Rows, WorkflowRows};
use crate::state::JobState;

/// A read on its way.
#[derive(Debug)]
pub(super) struct Flight {
    /// What was committed when it was asked for: its snapshot is at least as new.
    asked_at: Lsn,
    after: Lsn,
    what: Read,
    purpose: Purpose,
}

#[derive(Debug)]
pub(super) enum Purpose {
    Page {
        lane: LaneId,
        epoch: u32,
    },
    Due {
        epoch: u32,
    },
    Held {
        node: NodeId,
    },
    Workflow {
        id: WorkflowId,
        works: Vec<Work>,
    },
    /// All rows, for this work.
    Rows {
        id: WorkflowId,
        aim: Aim,
        work: Work,
    },
    Jobs {
        works: Vec<Work>,
    },
    /// Only whether they are there, for a creation of jobs.
    Prerequisites {
        workflow: WorkflowId,
        work: Work,
    },
    /// For this work.
    Dependents {
        work: Work,
    },
    Payloads {
        ticket: Ticket,
        answer: Answer,
        stamp: Lsn,
    },
}

impl Machine {
    /// A read has come back, with what was there at batch `lsn`.
    pub fn read_done(&mut self, now: Timestamp, id: ReadId, lsn: Lsn, found: Found) {
        let Some(flight) = self.flights.remove(&id) else { return };
        match (flight.purpose, found) {
            (Purpose::Rows { id, aim, work }, Found::Plan(plan)) => self.apply_plan(now, id, aim, plan, work),
            (purpose, Found::Rows(rows)) => self.apply_rows(now, &flight.what, purpose, lsn, rows),
            (_, Found::Plan(_)) => unreachable!("only a read of all rows has a plan"),
        }
        self.forget_old();
        self.serve(now);
    }

    fn apply_rows(&mut self, now: Timestamp, what: &Read, purpose: Purpose, lsn: Lsn, rows: Rows) {
        match (purpose, rows) {
            (Purpose::Page { lane, epoch }, Rows::Page(rows)) => self.apply_page(lane, epoch, what, lsn, rows),
            (Purpose::Due { epoch }, Rows::Due(moments)) => self.apply_due(epoch, what, lsn, &moments),
            (Purpose::Held { node }, Rows::Held(jobs)) => self.apply_held(now, node, jobs),
            (Purpose::Workflow { id, works }, Rows::Workflow(rows)) => {
                self.workflow_reads.remove(&id);
                self.parked -= works.len();
                self.apply_workflow(now, id, rows.map(|rows| *rows), works);
            }
            (Purpose::Jobs { works }, Rows::Jobs(rows)) => self.apply_jobs(now, what, lsn, rows, works),
            (Purpose::Prerequisites { workflow, work }, Rows::Jobs(rows)) => {
                self.parked -= 1;
                self.apply_prerequisites(workflow, what, lsn, &rows, work);
            }
            (Purpose::Dependents { work }, Rows::Dependents(found)) => {
                self.parked -= 1;
                self.apply_dependents(now, what, work, found);
            }
            (Purpose::Payloads { ticket, answer, stamp }, Rows::Payloads(rows)) => {
                self.parked -= 1;
                self.apply_payloads(ticket, answer, stamp, what, rows);
            }
            // A reader that answers something else than it was asked has no answer for us.
            (
                _,
                Rows::Page(_)
                | Rows::Due(_)
                | Rows::Held(_)
                | Rows::Dependents(_)
                | Rows::Workflow(_)
                | Rows::Graph(_)
                | Rows::Jobs(_)
                | Rows::Payloads(_),
            ) => {
                unreachable!("a reader answers each read with the rows of its kind")
            }
        }
    }

    /// No read in flight was asked for before this batch was committed, and it is.
    pub(super) fn floor(&self) -> Lsn {
        if self.tracer.breaks(Broken::ForgetsAtOnce) {
            return self.committed;
        }
        self.flights.values().next().map_or(self.committed, |oldest| oldest.asked_at.min(self.committed))
    }

    /// Forgets what no read in flight can be too old for.
    pub(super) fn forget_old(&mut self) {
        let floor = self.floor();
        self.deleted.retain(|_, deleted| *deleted > floor);
        self.timers.forget_old(floor);
        while let Some(&(lsn, id)) = self.recent.front() {
            if lsn > floor {
                break;
            }
            self.recent.pop_front();
            let Some(slot) = self.slots.get(&id) else { continue };
            if slot.lsn != lsn || slot.windowed {
                continue;
            }
            let row = slot.row;
            if row.state.is_held() && self.held_kept < self.limits.held_max {
                self.held_kept += 1;
                self.slots.get_mut(&id).expect("looked up above").kept = true;
                continue;
            }
            if row.state == JobState::Ready
                && let Some(lane) = self.lanes.get_mut(&row.lane)
            {
                lane.forget(row.key());
            }
            self.slots.remove(id);
        }
        if self.recent.len() + self.timers.recent_len() > self.limits.recent_max
            && let Some((_, oldest)) = self.flights.pop_first()
        {
            self.ask_again(oldest);
        }
    }

    fn ask_again(&mut self, flight: Flight) {
        let id = self.ask(flight.after, flight.what, flight.purpose);
        match &self.flights[&id].purpose {
            Purpose::Workflow { id: workflow, .. } => {
                self.workflow_reads.insert(*workflow, id);
            }
            Purpose::Jobs { .. } => {
                if let Read::Jobs(jobs) = &self.flights[&id].what {
                    self.job_reads.extend(jobs.iter().map(|job| (*job, id)));
                }
            }
            Purpose::Page { .. }
            | Purpose::Due { .. }
            | Purpose::Held { .. }
            | Purpose::Rows { .. }
            | Purpose::Prerequisites { .. }
            | Purpose::Dependents { .. }
            | Purpose::Payloads { .. } => {}
        }
    }

    pub(super) fn ask(&mut self, after: Lsn, what: Read, purpose: Purpose) -> ReadId {
        let id = ReadId(self.next_read);
        self.next_read += 1;
        let aim = match &purpose {
            Purpose::Rows { aim, .. } => Some(*aim),
            Purpose::Page { .. } | Purpose::Due { .. } | Purpose::Held { .. } | Purpose::Workflow { .. } => None,
            Purpose::Jobs { .. } | Purpose::Prerequisites { .. } => None,
            Purpose::Dependents { .. } | Purpose::Payloads { .. } => None,
        };
        self.reads.push(ReadRequest { id, after, what: what.clone(), aim });
        self.flights.insert(id, Flight { asked_at: self.committed, after, what, purpose });
        id
    }

    /// Puts work aside until what it needs was read.
    pub(super) fn park(&mut self, stop: Stop, work: Work) {
        if self.parked >= self.limits.parked_max && matches!(work, Work::Command(..)) {
            let rejection = Rejection::Limit { option: "parked_max", max: self.limits.parked_max as u64 };
            return self.answer(&work, Answer::Rejected(rejection));
        }
        match stop {
            Stop::Workflow(id) => {
                self.parked += 1;
                if let Some(read) = self.workflow_reads.get(&id)
                    && let Some(Flight { purpose: Purpose::Workflow { works, .. }, .. }) = self.flights.get_mut(read)
                {
                    works.push(work);
                    return;
                }
                let read =
                    self.ask(Lsn::default(), Read::Workflow(id), Purpose::Workflow { id, works: alloc::vec![work] });
                self.workflow_reads.insert(id, read);
            }
            Stop::Jobs(workflow, jobs) => {
                let after = self.workflows.get(&workflow).map_or(Lsn::default(), |workflow| workflow.bulk);
                self.park_for_jobs(after, jobs, work);
            }
            Stop::UnknownJobs(jobs) => {
                // Whichever workflow they are of: what was decided in bulk before is in the next commit.
                let after = self.open.stamp();
                self.park_for_jobs(after, jobs, work);
            }
            Stop::Prerequisites(workflow, jobs) => {
                self.parked += 1;
                let after = self.workflows.get(&workflow).map_or(Lsn::default(), |workflow| workflow.touched);
                self.ask(after, Read::Jobs(jobs), Purpose::Prerequisites { workflow, work });
            }
            Stop::Dependents(workflow, job) => {
                self.parked += 1;
                let after = self.workflows.get(&workflow).map_or(Lsn::default(), |workflow| workflow.touched);
                let limit = u32::try_from(self.limits.step_max).unwrap_or(u32::MAX).max(1);
                self.ask(after, Read::Dependents { job, after: None, limit }, Purpose::Dependents { work });
            }
            Stop::Rows { workflow, aim } => {
                let owner = self.workflows.get_mut(&workflow).expect("all rows are read only of a workflow in memory");
                owner.frozen = Some(VecDeque::new());
                let after = owner.touched;
                self.ask(after, Read::Graph(workflow), Purpose::Rows { id: workflow, aim, work });
            }
            Stop::Rejected(_) | Stop::Frozen(_) | Stop::March => unreachable!("dealt with where work is run"),
        }
    }

    fn park_for_jobs(&mut self, after: Lsn, mut jobs: Vec<JobId>, work: Work) {
        self.parked += 1;
        self.timers.reads(&work);
        jobs.sort_unstable();
        jobs.dedup();
        if let [job] = jobs[..]
            && let Some(read) = self.job_reads.get(&job)
            && let Some(Flight { purpose: Purpose::Jobs { works }, after: asked, .. }) = self.flights.get_mut(read)
            && *asked >= after
        {
            works.push(work);
            return;
        }
        let id = self.ask(after, Read::Jobs(jobs.clone()), Purpose::Jobs { works: alloc::vec![work] });
        self.job_reads.extend(jobs.into_iter().map(|job| (job, id)));
    }

    /// Reads these jobs, whichever workflow they are of, for these works.
    pub(super) fn load_for(&mut self, jobs: Vec<JobId>, works: Vec<Work>) {
        self.parked += works.len();
        for work in &works {
            self.timers.reads(work);
        }
        let id = self.ask(self.open.stamp(), Read::Jobs(jobs.clone()), Purpose::Jobs { works });
        self.job_reads.extend(jobs.into_iter().map(|job| (job, id)));
    }

    /// A claim took a job from a lane.
    pub(super) fn took_from(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.taken += 1;
            self.want_page(id);
        }
    }

    /// How many jobs a lane's window is to have.
    fn target_of(&self, lane: &Lane) -> usize {
        let Limits { window_min, window_max, windows_jobs_max, .. } = self.limits;
        let target = lane.target.max(window_min.min(window_max));
        let wished = target.saturating_sub(lane.len());
        target.min(self.sizes.allowed(lane.len(), wished, windows_jobs_max))
    }

    /// Asks for the next page of a lane that runs low and has more behind.
    pub(super) fn want_page(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get(&id).filter(|lane| !lane.asked && lane.is_behind()) else { return };
        let target = self.target_of(lane);
        if lane.len() >= (target / 2).max(1) {
            return;
        }
        let Limits { windows_bytes_max, payload_inline_max, page_max, .. } = self.limits;
        let limit = u32::try_from(target.saturating_sub(lane.len())).unwrap_or(u32::MAX);
        let limit = page_max.min(limit).max(1);
        let payload_max = if self.slots.bytes() < windows_bytes_max { payload_inline_max } else { 0 };
        let what = Read::Page { lane: id, after: lane.horizon().after(), limit, payload_max };
        let lane = self.lanes.get_mut(&id).expect("looked up above");
        lane.asked = true;
        lane.taken = 0;
        let (epoch, after) = (lane.epoch(), lane.fresh_from());
        self.ask(after, what, Purpose::Page { lane: id, epoch });
    }

    fn apply_page(&mut self, id: LaneId, epoch: u32, what: &Read, lsn: Lsn, rows: Vec<(JobRow, Option<Payload>)>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.asked = false;
        let workflow = lane.row.workflow;
        if self.workflows.get(&workflow).is_some_and(|owner| owner.frozen.is_some()) {
            // What it shows may be changed in bulk by now. It is asked for again when somebody claims.
            return;
        }
        if !lane.accepts(epoch, lsn) {
            self.want_page(id);
            return;
        }
        let Read::Page { limit, .. } = what else { unreachable!("a page was asked for as a page") };
        lane.resize(&self.limits);
        let end = if rows.len() < *limit as usize { None } else { rows.last().map(|(row, _)| row.key()) };
        let mut keys: Vec<OrderKey> = Vec::with_capacity(rows.len());
        let bytes_max = self.limits.windows_bytes_max;
        for (row, payload) in rows {
            match self.slots.get_mut(&row.id) {
                // Memory knows better: the page's snapshot may be older than the job's last change. A
                // job that was only read since is still where the page has it.
                Some(slot) if slot.lsn > lsn => {
                    if slot.row.state == JobState::Ready && slot.row.lane == id && slot.row.key() == row.key() {
                        slot.windowed = true;
                        keys.push(row.key());
                    }
                    continue;
                }
                Some(slot) => {
                    slot.windowed = true;
                    self.slots.keep_payload(row.id, payload, bytes_max);
                }
                None => {
                    let mut slot = Slot::read(row, lsn);
                    slot.windowed = true;
                    self.slots.insert_with_payload(slot, payload, bytes_max);
                }
            }
            keys.push(row.key());
        }
        let lane = self.lanes.get_mut(&id).expect("looked up above");
        let (joined, evicted) = lane.page(keys.into_iter(), end, self.limits.window_max);
        for key in joined {
            self.mark_windowed(key.id());
        }
        for key in evicted {
            self.evicted(id, key);
        }
        self.stand(id);
        self.fit_windows();
        self.wake_for(workflow, id);
    }

    fn apply_workflow(&mut self, now: Timestamp, id: WorkflowId, rows: Option<WorkflowRows>, works: Vec<Work>) {
        match rows {
            // Somebody asked for it before it was created: memory knows better.
            _ if self.workflows.contains_key(&id) => {}
            Some(rows) if !self.deleted.contains_key(&id) => {
                self.make_room(rows.lanes.len());
                let mut workflow = Workflow::new(rows.row);
                workflow.touched = self.floor();
                workflow.requirements.extend(rows.requirements);
                let states: super::Map<LaneId, LaneState> =
                    rows.lane_states.into_iter().map(|state| (state.lane, state)).collect();
                for (lane, has_ready) in rows.lanes {
                    let Some(needs) = workflow.requirements.get(&lane.requirement) else { continue };
                    workflow.lanes.insert((lane.requirement, lane.scheduler, lane.labels.clone()), lane.id);
                    let mut lane = Lane::new(lane, *needs, has_ready);
                    if workflow.row.endless {
                        lane.stake = Some(self.shares.stake(&lane.row, states.get(&lane.row.id).copied()));
                    }
                    workflow.heads.join(&mut lane);
                    self.lanes.insert(lane.row.id, lane);
                }
                self.workflows.insert(id, workflow);
            }
            Some(_) | None => {
                for work in works {
                    self.answer(&work, Answer::Rejected(Rejection::NoSuchWorkflow(id)));
                }
                return;
            }
        }
        for work in works {
            self.run(now, work);
        }
    }

    fn apply_jobs(&mut self, now: Timestamp, what: &Read, lsn: Lsn, rows: Vec<JobRow>, works: Vec<Work>) {
        let Read::Jobs(jobs) = what else { unreachable!("jobs were asked for as jobs") };
        for job in jobs {
            self.job_reads.remove(job);
        }
        let stale = rows.iter().find_map(|row| {
            let workflow = self.workflows.get(&row.workflow)?;
            (workflow.bulk > lsn).then_some((row.workflow, workflow.frozen.is_some()))
        });
        if let Some((workflow, true)) = stale
            && rows.iter().all(|row| row.workflow == workflow)
        {
            // They are read again when nothing changes in bulk any more.
            self.parked -= works.len();
            for work in &works {
                self.timers.has_read(work);
            }
            let owner = self.workflows.get_mut(&workflow).expect("looked up above");
            owner.frozen.get_or_insert_default().extend(works);
            return;
        }
        if stale.is_some() {
            let after = self.open.stamp();
            let id = self.ask(after, Read::Jobs(jobs.clone()), Purpose::Jobs { works });
            self.job_reads.extend(jobs.iter().map(|job| (*job, id)));
            return;
        }
        self.parked -= works.len();
        for work in &works {
            self.timers.has_read(work);
        }
        let found: super::Set<JobId> = rows.iter().map(|row| row.id).collect();
        self.absent.extend(jobs.iter().copied().filter(|job| !found.contains(job)));
        for row in rows {
            if self.deleted.contains_key(&row.workflow) {
                self.absent.insert(row.id);
            } else if !self.slots.contains_key(&row.id) {
                self.slots.insert(Slot::read(row, lsn));
                self.recent.push_back((lsn, row.id));
            }
        }
        for work in works {
            self.run(now, work);
        }
        self.absent.clear();
    }

    fn apply_payloads(
        &mut self,
        ticket: Ticket,
        mut answer: Answer,
        stamp: Lsn,
        what: &Read,
        rows: Vec<(JobId, Payload)>,
    ) {
        let Read::Payloads(missing) = what else { unreachable!("payloads were asked for as payloads") };
        let claimed = match &mut answer {
            Answer::Claimed(claimed) => claimed,
            Answer::Reported { claimed: Some(claimed), .. } => claimed,
            _ => unreachable!("payloads are read only for what a claim hands out"),
        };
        fill(claimed, missing, &rows.into_iter().collect());
        self.answers.push((ticket, stamp, answer));
    }

    /// Gives an answer that hands out jobs, once the payloads that are not in memory are read.
    pub(super) fn hand_out(&mut self, ticket: Ticket, answer: Answer, missing: Vec<JobId>, after: Lsn) {
        let stamp = self.stamp_of_work(&answer);
        if missing.is_empty() {
            self.answers.push((ticket, stamp, answer));
        } else {
            self.parked += 1;
            self.ask(after, Read::Payloads(missing), Purpose::Payloads { ticket, answer, stamp });
        }
    }

    /// Takes workflows out of memory that have nothing going on, until so many more lanes fit.
    pub(super) fn make_room(&mut self, lanes: usize) {
        while self.workflows.len() >= self.limits.workflows_max || self.lanes.len() + lanes > self.limits.lanes_max {
            let floor = self.floor();
            let idle = self
                .workflows
                .iter()
                .filter(|(_, workflow)| workflow.is_idle(floor))
                .min_by_key(|(id, workflow)| (workflow.used, **id))
                .map(|(id, _)| *id);
            let Some(id) = idle else { return };
            self.unload(id);
        }
    }

    /// Leaves the graphs of workflows with nothing going on, until all fit; never the one just read.
    pub(super) fn fit_graphs(&mut self, kept: WorkflowId) {
        let floor = self.floor();
        let mut bytes: usize = self.workflows.values().filter_map(|w| w.graph.as_ref()).map(Graph::bytes).sum();
        while bytes > self.limits.graph_bytes_max {
            let idle = self
                .workflows
                .iter()
                .filter(|(id, workflow)| **id != kept && workflow.graph.is_some() && workflow.touched <= floor)
                .min_by_key(|(id, workflow)| (workflow.used, **id))
                .map(|(id, _)| *id);
            let Some(workflow) = idle.and_then(|id| self.workflows.get_mut(&id)) else { return };
            bytes -= workflow.graph.take().map_or(0, |graph| graph.bytes());
        }
    }

    /// Takes a workflow with its lanes and their windows out of memory.
    pub(super) fn unload(&mut self, id: WorkflowId) {
        let Some(workflow) = self.workflows.remove(&id) else { return };
        self.tracer.note(Trace::Unloaded(id));
        for lane in workflow.lanes.values() {
            if let Some(lane) = self.lanes.remove(lane) {
                self.sizes.forget(&lane);
                for key in lane.keys() {
                    self.slots.remove(key.id());
                }
            }
        }
        // Its pages on their way are of windows that are no more.
        let lanes = &self.lanes;
        self.flights.retain(|_, flight| match &flight.purpose {
            Purpose::Page { lane, .. } => lanes.contains_key(lane),
            Purpose::Due { .. }
            | Purpose::Held { .. }
            | Purpose::Workflow { .. }
            | Purpose::Rows { .. }
            | Purpose::Jobs { .. }
            | Purpose::Prerequisites { .. }
            | Purpose::Dependents { .. }
            | Purpose::Payloads { .. } => true,
        });
    }
}

/// Puts payloads where they are missing. A job that has none any more was deleted meanwhile.
fn fill(claimed: &mut Claimed, missing: &[JobId], payloads: &super::Map<JobId, Payload>) {
    let missing: super::Set<JobId> = missing.iter().copied().collect();
    claimed.jobs.retain_mut(|(row, payload)| {
        if !missing.contains(&row.id) {
            return true;
        }
        let found = payloads.get(&row.id);
        if let Some(found) = found {
            *payload = found.clone();
        }
        found.is_some()
    });
}

impl Workflow {
    pub(super) fn new(row: crate::batch::WorkflowRow) -> Workflow {
        Workflow {
            row,
            requirements: Default::default(),
            lanes: Default::default(),
            graph: None,
            touched: Lsn::default(),
            bulk: Lsn::default(),
            details: Lsn::default(),
            purged: Lsn::default(),
            frozen: None,
            heads: Default::default(),
            waiting: Default::default(),
            progress: Default::default(),
            used: 0,
        }
    }

    /// Its hot row is to be written by the open batch.
    pub(super) fn touch(&mut self, open: &mut super::OpenBatch) {
        if self.touched != open.lsn() {
            self.touched = open.lsn();
            open.workflow(self.row.id);
        }
    }

    fn is_idle(&self, floor: Lsn) -> bool {
        self.touched <= floor && self.frozen.is_none() && self.waiting.is_empty()
    }
}
