//! What is to become of all jobs of a workflow, worked out from their rows. It needs nothing but these, so
//! that whoever read them can do it: a million jobs take a second, and the machine has others to serve.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::command::{Answer, Rejection};
use crate::graph::{Graph, Place};
use crate::ids::{JobId, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow};
use crate::policy::Tries;
use crate::port::GraphRows;
use crate::state::{Event, JobState};

/// What all rows of a workflow are read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// Its graph.
    Graph,
    /// Its held jobs are canceled.
    Cancel,
    /// Jobs back to draft: all, or those that failed and all that hang on them.
    /// The first `done` in the order of the change are behind it.
    Reset { failed_only: bool, done: u32 },
    /// Each job becomes blocked or ready, but for the first `done` in the order of the change.
    Initialize { only_drafts: bool, done: u32, now: Timestamp },
    /// One job is deleted, or all.
    Delete { job: Option<JobId> },
    /// Jobs from this one on are of a creation that did not end: they are removed.
    Uncreate { from: JobId },
    /// This job has ended, and what waited for it alone goes on, as far as it has not yet.
    Release { job: JobId, now: Timestamp },
}

/// What comes of an aim.
#[derive(Clone, PartialEq, Debug)]
pub enum Plan {
    Graph(Graph),
    Cancel {
        held: Vec<JobRow>,
        graph: Graph,
    },
    Change(Box<Change>),
    /// `graph` is there for one job only, for what waited for it.
    Delete {
        doomed: Vec<JobRow>,
        graph: Option<Graph>,
    },
    Refused(Rejection),
}

/// A change of many jobs.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// Edges to be stored that are not.
    pub edges: Vec<(JobId, JobId)>,
    /// In the order of the change: what depends on a job comes before the job. So what is left to do is
    /// judged by what is left as it was, whatever was done before a crash.
    pub rows: Vec<Changed>,
    /// As it is after the change, where it need not be read anew.
    pub graph: Option<Graph>,
    /// Absent: as before.
    pub has_edges: Option<bool>,
    pub answer: Answer,
}

/// A row as it is to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Changed {
    /// How many jobs, of all in the order of the change, are done with this one.
    pub done: u32,
    /// The state that the job is in.
    pub was: JobState,
    pub row: JobRow,
}

impl Plan {
    /// Works out what comes of an aim, from all rows of the workflow as of one moment.
    pub fn new(workflow: WorkflowId, aim: Aim, rows: GraphRows) -> Plan {
        match aim {
            Aim::Graph => Plan::Graph(rows.graph(workflow)),
            Aim::Cancel => {
                let held = rows.jobs.iter().filter(|row| row.state.is_held()).copied().collect();
                Plan::Cancel { held, graph: rows.graph(workflow) }
            }
            Aim::Reset { failed_only, done } => Plan::Change(Box::new(reset(workflow, failed_only, done, &rows))),
            Aim::Initialize { only_drafts, done, now } => match initialize(workflow, only_drafts, done, now, rows) {
                Ok(change) => Plan::Change(Box::new(change)),
                Err(rejection) => Plan::Refused(rejection),
            },
            Aim::Delete { job: None } => Plan::Delete { doomed: rows.jobs, graph: None },
            Aim::Delete { job: Some(job) } => match rows.jobs.iter().find(|row| row.id == job) {
                Some(row) => Plan::Delete { doomed: alloc::vec![*row], graph: Some(rows.graph(workflow)) },
                None => Plan::Refused(Rejection::NoSuchJob(job)),
            },
            Aim::Release { job, now } => Plan::Change(Box::new(release(workflow, job, now, &rows))),
            Aim::Uncreate { from } => {
                let doomed = rows.jobs.into_iter().filter(|row| row.id >= from).collect();
                Plan::Delete { doomed, graph: None }
            }
        }
    }
}

impl GraphRows {
    fn graph(&self, workflow: WorkflowId) -> Graph {
        Graph::new(workflow, &self.jobs, &self.edges)
    }
}

/// All jobs in the order in which they are changed in bulk: dependents first.
pub fn order(graph: &Graph) -> Vec<Place> {
    // In a circle nothing has begun, and nothing of it is judged by another.
    let mut order = graph.order().unwrap_or_else(|| (0..graph.len() as Place).collect());
    order.reverse();
    order
}

fn reset(workflow: WorkflowId, failed_only: bool, done: u32, rows: &GraphRows) -> Change {
    let graph = rows.graph(workflow);
    let failed = |place: &Place| match graph.state(*place) {
        JobState::Failed | JobState::Canceled | JobState::Terminated | JobState::PendingFailed => true,
        JobState::Draft
        | JobState::Blocked
        | JobState::Ready
        | JobState::Claimed
        | JobState::Running
        | JobState::Completed
        | JobState::Disabled
        | JobState::Scheduled => !failed_only,
    };
    let chosen = graph.downstream((0..rows.jobs.len() as Place).filter(failed));
    let after = rows.jobs.iter().zip(&chosen).map(|(row, chosen)| {
        let reset = if *chosen { step(row, Event::Reset) } else { None };
        reset.unwrap_or(*row)
    });
    let after: Vec<JobRow> = after.collect();
    let count = chosen.iter().filter(|chosen| **chosen).count();
    Change {
        edges: Vec::new(),
        rows: changes(&graph, done, &rows.jobs, &after).0,
        graph: None,
        has_edges: None,
        answer: Answer::Count(count as i64),
    }
}

fn release(workflow: WorkflowId, job: JobId, now: Timestamp, rows: &GraphRows) -> Change {
    let mut graph = rows.graph(workflow);
    let mut met = Vec::new();
    let mut ended: Vec<Place> = graph.place(job).into_iter().collect();
    while let Some(place) = ended.pop() {
        for dependent in graph.behind(place) {
            match graph.state(dependent) {
                JobState::Blocked if graph.unmet(dependent) == 0 => met.push(dependent),
                // What hangs on it may not have been looked at.
                JobState::Canceled if graph.flags(dependent).has(JobFlags::CASCADED) => ended.push(dependent),
                _ => {}
            }
        }
    }
    met.sort_unstable();
    met.dedup();
    let rows = go_on(&mut graph, now, met);
    Change { edges: Vec::new(), rows, graph: Some(graph), has_edges: None, answer: Answer::Done }
}

/// Blocked jobs whose prerequisites have all ended are free, or canceled if one failed; and so on from
/// there. The graph is then as the rows are to be.
pub fn go_on(graph: &mut Graph, now: Timestamp, met: Vec<Place>) -> Vec<Changed> {
    let mut rows = Vec::with_capacity(met.len());
    let mut met = VecDeque::from(met);
    while let Some(place) = met.pop_front() {
        let before = graph.row(place);
        let is_canceled = graph.blamed(place) && before.flags.has(JobFlags::CANCEL_ON_FAILURE);
        let is_early = before.due_at.is_some_and(|due| due > now);
        let event = match (is_canceled, is_early) {
            (true, _) => Event::Cancel,
            (false, true) => Event::Delay,
            (false, false) => Event::Free,
        };
        let mut row = JobRow { state: before.state.on(event).expect("a blocked job goes on"), ..before };
        row.flags = row.flags.with(JobFlags::BLAMED, is_canceled).with(JobFlags::CASCADED, is_canceled);
        graph.update(&row);
        rows.push(Changed { done: 0, was: before.state, row });
        if is_canceled {
            let next = graph.meet(place, true);
            met.extend(next.into_iter().filter(|next| graph.state(*next) == JobState::Blocked));
        }
    }
    rows
}

/// Derives the dependencies that files and user data imply, then makes each job blocked or ready
/// (torc 1.0.0, `initialize_jobs_core`).
fn initialize(
    workflow: WorkflowId,
    only_drafts: bool,
    done: u32,
    now: Timestamp,
    rows: GraphRows,
) -> Result<Change, Rejection> {
    let GraphRows { jobs: before, mut edges, mut implied } = rows;
    edges.sort();
    implied.retain(|(job, on)| !edges.contains(*job, *on));
    edges.direct.extend(&implied);
    edges.direct.sort_unstable();
    let mut graph = Graph::new(workflow, &before, &edges);
    let has_edges = !edges.is_empty();
    drop(edges);
    if let Some(circle) = graph.circle() {
        return Err(Rejection::Cycle(circle));
    }
    let mut after = before.clone();
    if only_drafts {
        let drafts = (0..after.len() as Place).filter(|place| graph.state(*place) == JobState::Draft);
        for (row, _) in after.iter_mut().zip(graph.downstream(drafts)).filter(|(_, reached)| *reached) {
            *row = step(row, Event::Reset).unwrap_or(*row);
        }
        graph.take_rows(&after);
    }
    // Who waits for a job that has not ended waits, whatever it was before; who waits for that one
    // is judged by what it was before, as torc does.
    for (place, row) in after.iter_mut().enumerate() {
        let unmet = graph.unmet(place as Place) > 0;
        let changed = match row.state {
            JobState::Draft | JobState::Scheduled if unmet => step(row, Event::Block),
            JobState::Disabled => None,
            _ if only_drafts && row.state != JobState::Draft => None,
            JobState::Ready | JobState::Claimed | JobState::Running | JobState::PendingFailed if unmet => {
                step(row, Event::Block)
            }
            JobState::Completed | JobState::Failed | JobState::Canceled | JobState::Terminated if unmet => {
                step(row, Event::Reset).and_then(|row| step(&row, Event::Block))
            }
            JobState::Completed | JobState::Failed | JobState::Canceled | JobState::Ready => None,
            JobState::Draft
            | JobState::Blocked
            | JobState::Claimed
            | JobState::Running
            | JobState::Terminated
            | JobState::PendingFailed
            | JobState::Scheduled => match (unmet, row.not_before().is_some_and(|due| due > now)) {
                (true, _) => None,
                (false, true) => step(row, Event::Delay),
                (false, false) => step(row, Event::Free),
            },
        };
        *row = changed.unwrap_or(*row);
    }
    for (before, row) in before.iter().zip(&mut after) {
        // What has an outcome and is to be done again is a new attempt: an attempt has one outcome.
        let had_ended = before.state.has_ended() || before.state == JobState::PendingFailed;
        if had_ended && before.result.is_some() && row.state != before.state {
            row.attempt += 1;
        }
    }
    let (rows, after) = changes(&graph, done, &before, &after);
    graph.take_rows(&after);
    Ok(Change {
        edges: implied,
        rows,
        graph: has_edges.then_some(graph),
        has_edges: Some(has_edges),
        answer: Answer::Done,
    })
}

/// A row after an event of a change in bulk: nobody holds it, and it has no outcome.
fn step(row: &JobRow, event: Event) -> Option<JobRow> {
    Some(JobRow {
        state: row.state.on(event)?,
        node: None,
        started_at: None,
        result: None,
        flags: row
            .flags
            .with(JobFlags::BLAMED, false)
            .with(JobFlags::CASCADED, false)
            .with(JobFlags::DEAD_LETTER, false),
        due_at: row.not_before(),
        tries: Tries::default(),
        ..*row
    })
}

/// What is not as before, beyond the first `done`; and all rows after that.
fn changes(graph: &Graph, done: u32, before: &[JobRow], after: &[JobRow]) -> (Vec<Changed>, Vec<JobRow>) {
    let mut rows = before.to_vec();
    let mut changed = Vec::new();
    for (behind, place) in order(graph).into_iter().enumerate().skip(done as usize) {
        let (was, row) = (before[place as usize], after[place as usize]);
        if was != row {
            rows[place as usize] = row;
            changed.push(Changed { done: behind as u32 + 1, was: was.state, row });
        }
    }
    (changed, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LaneId, ResultId};
    use crate::policy::{Backoff, OnEnd, Policy};
    use crate::state::STATE_LIST;
    use proptest::prelude::*;

    const W: WorkflowId = WorkflowId(1);
    const NOW: Timestamp = Timestamp(100);
    const POLICY: Policy = Policy {
        deadline_ms: 50,
        failures_max: None,
        losses_max: None,
        backoff: Backoff { base_ms: 0, cap_ms: 0, factor: 0, jitter_percent: 0 },
        at_most_once: false,
        on_end: OnEnd::Discard,
    };

    prop_compose! {
        fn job(id: i64)(
            state in 0..STATE_LIST.len(),
            flags in 0u8..16,
            failures in 0u16..2,
            has_policy: bool,
            due in proptest::option::of(50i64..150),
            result in proptest::option::of(1i64..9),
        ) -> JobRow {
            JobRow {
                id: JobId(id),
                workflow: W,
                lane: LaneId(1),
                state: STATE_LIST[state],
                priority: 0,
                attempt: 1,
                flags: JobFlags(flags),
                node: None,
                grant: Default::default(),
                started_at: None,
                due_at: due.map(Timestamp),
                result: result.map(ResultId),
                tries: Tries { failures, losses: 0 },
                policy: has_policy.then_some(POLICY),
                expires_at: None,
            }
        }
    }

    prop_compose! {
        /// Jobs, and edges from later ones to earlier ones: some stored, some implied.
        fn workflow()(n in 1usize..9)(
            jobs in (1..=n as i64).map(job).collect::<Vec<_>>(),
            edges in proptest::collection::vec((0..n, 0..n, any::<bool>()), 0..14),
        ) -> GraphRows {
            let mut rows = GraphRows { jobs, ..GraphRows::default() };
            for (a, b, is_stored) in edges.into_iter().filter(|(a, b, _)| a != b) {
                let edge = (JobId(a.max(b) as i64 + 1), JobId(a.min(b) as i64 + 1));
                let into = if is_stored { &mut rows.edges.direct } else { &mut rows.implied };
                if !into.contains(&edge) {
                    into.push(edge);
                }
            }
            rows
        }
    }

    fn aim() -> impl Strategy<Value = Aim> {
        let reset = any::<bool>().prop_map(|failed_only| Aim::Reset { failed_only, done: 0 });
        let initialize = any::<bool>().prop_map(|only_drafts| Aim::Initialize { only_drafts, done: 0, now: NOW });
        prop_oneof![reset, initialize]
    }

    fn from(done: u32, aim: Aim) -> Aim {
        match aim {
            Aim::Reset { failed_only, .. } => Aim::Reset { failed_only, done },
            Aim::Initialize { only_drafts, now, .. } => Aim::Initialize { only_drafts, done, now },
            other => other,
        }
    }

    fn change(aim: Aim, rows: &GraphRows) -> Change {
        match Plan::new(W, aim, rows.clone()) {
            Plan::Change(change) => *change,
            other => panic!("a change was asked for, not {other:?}"),
        }
    }

    fn apply(rows: &mut GraphRows, change: &Change, first: usize) {
        rows.edges.direct.extend(&change.edges);
        for Changed { row, .. } in change.rows.iter().take(first) {
            rows.jobs[row.id.0 as usize - 1] = *row;
        }
    }

    proptest! {
        #[test]
        fn a_change_that_was_broken_off_anywhere_comes_to_the_same_end(rows in workflow(), aim in aim()) {
            let whole = change(aim, &rows);
            let mut end = rows.clone();
            apply(&mut end, &whole, usize::MAX);
            for done in 0..=whole.rows.len() {
                let mut half = rows.clone();
                apply(&mut half, &whole, done);
                let last = done.checked_sub(1).map_or(0, |last| whole.rows[last].done);
                let rest = change(from(last, aim), &half);
                apply(&mut half, &rest, usize::MAX);
                prop_assert_eq!(&half.jobs, &end.jobs, "broken off after {} of {:?}", done, whole.rows);
            }
        }

        #[test]
        fn the_graph_of_a_change_is_that_of_its_rows(rows in workflow(), only_drafts: bool) {
            let change = change(Aim::Initialize { only_drafts, done: 0, now: NOW }, &rows);
            let mut end = rows;
            apply(&mut end, &change, usize::MAX);
            end.edges.sort();
            let fresh = Graph::new(W, &end.jobs, &end.edges);
            prop_assert_eq!(change.graph.unwrap_or_else(|| fresh.clone()), fresh);
        }
    }
}
