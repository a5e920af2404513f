//! How a history ends: everybody is answered, everything is worked off, and nothing is left behind.

use std::collections::BTreeMap;

use forebay_domain::batch::LaneRow;
use forebay_domain::command::{Claim, ClaimOrder, Command, Completion, Report};
use forebay_domain::ids::WorkflowId;
use forebay_domain::job::Outcome;
use forebay_domain::lane::LabelSet;
use forebay_domain::state::JobState;

use super::{Checked, Turn, World};

impl World {
    /// No more faults and no new commands: everybody gets an answer.
    pub(super) fn settle(&mut self) -> Checked {
        self.faults = false;
        for _ in 0..20_000 {
            self.summary.steps += 1;
            if let Some(ticket) = self.calls.pop() {
                self.deliver(ticket)?;
            } else if !self.answers.is_empty() {
                self.arrive()?;
            } else if !self.read.is_empty() {
                self.turn(Turn::Page)?;
            } else if self.wanted.iter().any(|read| read.after <= self.committed) {
                self.snapshot();
            } else if !self.writing.is_empty() {
                self.write()?;
            } else if self.machine.backlog() > 0 {
                self.take()?;
            } else if let Some(due) = self.machine.next_deadline() {
                self.now = self.now.max(due);
                self.machine.tick(self.now);
                self.collect()?;
            } else {
                return self.check_settled();
            }
        }
        Err(format!("it does not come to rest: {:?}", self.machine.stats()))
    }

    fn check_settled(&mut self) -> Checked {
        if let Some(ticket) = self.callers.first() {
            return Err(format!("{ticket:?} is never answered: {:?}", self.asked[ticket]));
        }
        if !self.outbox.is_empty() || !self.wanted.is_empty() {
            return Err(format!("these never leave: {:?} {:?}", self.outbox, self.wanted));
        }
        let stats = self.machine.stats();
        let left = stats.parked + stats.waiting + stats.reads + stats.marches + stats.leases;
        if left > 0 {
            return Err(format!("something is left behind: {stats:?}"));
        }
        if let Some(oracle) = &self.oracle {
            oracle.check_timers(self.now)?;
            oracle.check_waiting(self.now)?;
        }
        Ok(())
    }

    /// Everything is committed: the store holds what it must.
    pub(super) fn check_store(&self) -> Checked {
        self.store.look(|db| {
            if let Some(oracle) = &self.oracle {
                oracle.check_store(db)?;
            }
            self.auditor.at_end(db)
        })
    }

    /// Every workflow is worked off: what is ready is claimed, what is held is reported.
    pub(super) fn drain(&mut self) -> Checked {
        self.check_store()?;
        // It takes as long as all else: every second history does it.
        if !self.seed.is_multiple_of(2) {
            return Ok(());
        }
        for _ in 0..1_000 {
            let (open, held) = self.store.look(|db| {
                let open = db.workflows.values().filter(|row| !row.canceled);
                let open: Vec<(WorkflowId, bool)> = open.map(|row| (row.id, row.endless)).collect();
                let held: Vec<_> = db.jobs.values().filter(|row| row.state.is_held()).copied().collect();
                (open, held)
            });
            let before = self.summary.handed_out;
            let paused =
                self.store.look(|db| db.workflows.values().filter(|row| row.paused).map(|row| row.id).collect());
            let paused: Vec<WorkflowId> = paused;
            for workflow in paused {
                self.send(Command::Pause { workflow, labels: LabelSet::default(), paused: false });
                self.settle()?;
            }
            let paused = self.store.look(|db| {
                let lanes = db.lane_states.values().filter(|state| state.paused).map(|state| &db.lanes[&state.lane]);
                let lanes: Vec<LaneRow> = lanes.cloned().collect();
                lanes
            });
            for lane in paused {
                self.send(Command::Pause { workflow: lane.workflow, labels: lane.labels, paused: false });
                self.settle()?;
            }
            self.send(Command::SetShares(Vec::new()));
            self.settle()?;
            for (id, endless) in open {
                for labels in [vec![], vec!["gpu", "fast"]] {
                    let claim = Claim {
                        workflow: id,
                        limit: 1_000,
                        labels: LabelSet::new(labels.into_iter().map(Into::into)),
                        by: if endless { ClaimOrder::Lanes } else { ClaimOrder::Queue },
                        start_on: None,
                        leased: false,
                        wait_until: None,
                    };
                    self.send(Command::Claim(claim));
                    self.settle()?;
                }
            }
            let mut reports: BTreeMap<WorkflowId, Vec<Completion>> = BTreeMap::new();
            for row in &held {
                let run = self.store.look(|db| db.workflows[&row.workflow].run);
                let completion_time = format!("drained {} {}", self.next_ticket, row.id).into();
                let outcome = Outcome {
                    state: JobState::Completed,
                    return_code: 0,
                    exec_time_minutes: 0.0,
                    completion_time,
                    peak_memory_bytes: None,
                    avg_memory_bytes: None,
                    peak_cpu_percent: None,
                    avg_cpu_percent: None,
                };
                let attempt = Some(row.attempt);
                let (node, grant, again) = (None, Some(row.grant), None);
                let completion = Completion { job: row.id, run, attempt, node, grant, outcome, again };
                reports.entry(row.workflow).or_default().push(completion);
            }
            for (workflow, completions) in reports {
                self.send(Command::Report(Report { workflow, completions, claim: None }));
                self.settle()?;
            }
            if self.summary.handed_out == before && held.is_empty() {
                self.check_store()?;
                return self.check_drained();
            }
        }
        Err("it is never worked off".into())
    }

    fn check_drained(&self) -> Checked {
        self.store.look(|db| {
            for row in db.jobs.values().filter(|row| !db.workflows[&row.workflow].canceled) {
                if row.state == JobState::Ready || row.state == JobState::Scheduled || row.state.is_held() {
                    return Err(format!("nothing more goes on, but there is {row:?}"));
                }
            }
            Ok(())
        })
    }
}
