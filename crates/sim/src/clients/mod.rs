//! The outside: people, runners and their habits. They know only what they were told.

mod chance;

use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroU32};

use forebay_domain::batch::ENDLESS_RUN;
use forebay_domain::catalog::{Statement, Table, Value};
use forebay_domain::command::{
    Again, Answer, Claim, ClaimOrder, Claimed, Command, Completion, Held, JobChange, LaneShare, Rejection, Report,
    Scope,
};
use forebay_domain::ids::{Grant, JobId, NodeId, RequirementId, SchedulerId, Timestamp, WorkflowId};
use forebay_domain::job::{JobRow, NewJob, Outcome, RelationKind};
use forebay_domain::share::Share;
use forebay_domain::state::{JobState, STATE_LIST};

use crate::plan::Plan;
use crate::random::Random;
pub(crate) use chance::claim;
use chance::{create_workflow, labels, needs, policy, row};

/// What the outside knows.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    workflows: Vec<Known>,
    /// Jobs that a runner believes to hold.
    held: Vec<Holding>,
    /// Jobs that were held once: for late messages.
    let_go: VecDeque<Holding>,
    /// Reports of late, to be repeated.
    reports: VecDeque<Report>,
    /// Makes each outcome unlike any other.
    outcomes: u64,
    files: i64,
    /// Runners that hold a lease, as far as they know.
    nodes: Vec<(NodeId, WorkflowId)>,
    nodes_begun: i64,
    asked_for_workflow: usize,
}

#[derive(Debug)]
struct Known {
    id: WorkflowId,
    run: i64,
    requirements: Vec<RequirementId>,
    jobs: Vec<JobId>,
    /// Files that its jobs write.
    files: Vec<i64>,
    is_initialized: bool,
    created: usize,
    endless: bool,
}

#[derive(Clone, Copy, Debug)]
struct Holding {
    row: JobRow,
    started: bool,
    node: Option<NodeId>,
}

impl Clients {
    /// The next thing that somebody asks for.
    pub fn ask(&mut self, now: Timestamp, plan: &Plan, random: &mut Random) -> Command {
        if self.asked_for_workflow == 0 || (self.asked_for_workflow < plan.workflows && random.chance(1, 30)) {
            self.asked_for_workflow += 1;
            return create_workflow(plan, random);
        }
        if self.workflows.is_empty() {
            // Its number is not known yet; perhaps it was lost.
            if random.chance(1, 10) {
                return create_workflow(plan, random);
            }
            let guess = WorkflowId(random.between(1, 3));
            return Command::Claim(self.claim(guess, now, plan, random));
        }
        let place = random.below(self.workflows.len());
        let known = &self.workflows[place];
        if known.jobs.is_empty() || (known.created < 4 && random.chance(1, 12)) {
            return self.new_jobs(place, now, plan, random);
        }
        if !known.is_initialized && random.chance(1, 2) {
            self.workflows[place].is_initialized = true;
            let only_drafts = !plan.by_hand || random.chance(1, 2);
            return Command::Initialize { workflow: self.workflows[place].id, only_drafts };
        }
        if plan.leases && random.chance(1, 8) {
            return self.heartbeat(place, random);
        }
        let known = &self.workflows[place];
        if plan.leases
            && random.chance(1, 8)
            && let Some((node, workflow)) = random.pick(&self.nodes).copied()
        {
            let claim = self.claim(workflow, now, plan, random);
            return Command::Claim(Claim { start_on: Some(node), leased: true, ..claim });
        }
        match random.below(100) {
            0..=33 => Command::Claim(self.claim(known.id, now, plan, random)),
            34 if plan.edges && random.chance(1, 3) => self.spawn_jobs(place, now, plan, random),
            34..=47 => self.start(place, random),
            48..=72 => self.report(place, now, plan, random),
            73..=77 => self.repeat_report(place, now, plan, random),
            78..=79 => self.keep_or_put_back(place, random),
            80..=83 => self.update_job(place, plan, random),
            84..=86 if plan.retries => self.retry(place, plan, random),
            87..=92 if plan.by_hand => self.by_hand(place, random),
            93 => Command::Initialize { workflow: known.id, only_drafts: !plan.by_hand || random.chance(1, 2) },
            94..=99 => self.rarely(place, now, plan, random),
            _ => Command::Claim(self.claim(known.id, now, plan, random)),
        }
    }

    /// A claim that may be anybody's, mostly of the kind that goes with its workflow.
    fn claim(&self, workflow: WorkflowId, now: Timestamp, plan: &Plan, random: &mut Random) -> Claim {
        let claim = claim(workflow, now, plan, random);
        let is_endless = self.workflows.iter().any(|known| known.id == workflow && known.endless);
        if is_endless != random.chance(1, 60) { Claim { by: ClaimOrder::Lanes, ..claim } } else { claim }
    }

    fn new_jobs(&mut self, place: usize, now: Timestamp, plan: &Plan, random: &mut Random) -> Command {
        let command = self.create_jobs(place, now, plan, random);
        match command {
            Command::CreateJobs { workflow, mut jobs } if self.workflows[place].endless != random.chance(1, 60) => {
                let of_late = self.workflows[place].jobs.len().saturating_sub(8);
                for (number, job) in jobs.iter_mut().enumerate() {
                    job.depends_on = Box::new([]);
                    if plan.edges && random.chance(1, 3) {
                        job.depends_on = self.tasks_before(place, of_late, number, random);
                    }
                    job.requirement = job.requirement.filter(|_| random.chance(1, 40));
                    job.scheduler = job.scheduler.filter(|_| random.chance(1, 60));
                    job.relations = Box::new([]);
                }
                Command::Enqueue { workflow, jobs }
            }
            command => command,
        }
    }

    /// What a task is to wait for: tasks that are there, mostly, or that come with it before it.
    fn tasks_before(&self, place: usize, of_late: usize, number: usize, random: &mut Random) -> Box<[JobId]> {
        let mut on = Vec::new();
        for _ in 0..random.between(1, 2) {
            match random.below(10) {
                0..=4 if number > 0 => on.push(JobId(-1 - random.below(number) as i64)),
                5..=7 => {
                    let held = self.held.iter().filter(|held| held.row.workflow == self.workflows[place].id);
                    let held: Vec<JobId> = held.map(|held| held.row.id).collect();
                    on.extend(random.pick(&held).copied());
                }
                8 if random.chance(1, 5) => on.push(self.any_job(place, random)),
                9 if random.chance(1, 8) => on.push(JobId(-1 - random.below(number + 2) as i64)),
                _ => on.extend(random.pick(&self.workflows[place].jobs[of_late..]).copied()),
            }
        }
        on.sort_unstable();
        on.dedup();
        on.into()
    }

    /// As a creation, by a job that is, perhaps, running; some depend on those before them.
    fn spawn_jobs(&mut self, place: usize, now: Timestamp, plan: &Plan, random: &mut Random) -> Command {
        let was_initialized = self.workflows[place].is_initialized;
        let Command::CreateJobs { mut jobs, .. } = self.create_jobs(place, now, plan, random) else {
            unreachable!("it creates jobs")
        };
        // They need no initialize, nor would one see what they read and write.
        self.workflows[place].is_initialized = was_initialized;
        for (number, job) in jobs.iter_mut().enumerate() {
            job.relations = Box::new([]);
            if number > 0 && random.chance(1, 3) {
                let before = JobId(-1 - random.below(number) as i64);
                job.depends_on = job.depends_on.iter().copied().chain([before]).collect();
            }
        }
        let held = random.pick(&self.held).map(|holding| holding.row.id).filter(|_| random.chance(9, 10));
        let parent = held.unwrap_or_else(|| self.any_job(place, random));
        Command::SpawnJobs { parent, jobs }
    }

    fn create_jobs(&mut self, place: usize, now: Timestamp, plan: &Plan, random: &mut Random) -> Command {
        let known = &mut self.workflows[place];
        known.created += 1;
        // New drafts are to be initialized, too.
        known.is_initialized = false;
        let files = &mut self.files;
        // Sometimes all of them wait for one, whose outcome then frees many.
        let star = random.pick(&known.jobs).copied().filter(|_| plan.edges && random.chance(1, 3));
        let mut as_before = Vec::new();
        let jobs = (0..random.between(1, plan.jobs_per_batch as i64)).map(|_| {
            let mut depends_on = Vec::new();
            if plan.edges {
                for _ in 0..random.below(3) {
                    depends_on.extend(random.pick(&known.jobs).copied());
                }
                if random.chance(1, 60) {
                    depends_on.push(JobId(1_000_000 + random.between(1, 40)));
                }
                depends_on.extend(star);
                // Some wait together.
                if random.chance(1, 3) {
                    depends_on.clone_from(&as_before);
                }
                as_before.clone_from(&depends_on);
            }
            let mut relations = Vec::new();
            if plan.files && random.chance(1, 2) {
                // What is read was written by jobs that were there before, so there is no circle: mostly.
                let of_late = &known.files[known.files.len().saturating_sub(6)..];
                relations.extend(random.pick(of_late).map(|file| (RelationKind::InputFile, *file)));
                *files += 1;
                relations.push((RelationKind::OutputFile, *files));
                if plan.wild_files && random.chance(1, 4) {
                    let kinds = [RelationKind::InputUserData, RelationKind::OutputUserData, RelationKind::InputFile];
                    relations.push((kinds[random.below(3)], random.between(1, *files + 3)));
                }
            }
            NewJob {
                name: "job".into(),
                payload: vec![b'x'; random.below(20)].into(),
                requirement: if random.chance(1, 2) { random.pick(&known.requirements).copied() } else { None },
                labels: labels(plan, random),
                scheduler: (plan.schedulers && random.chance(1, 2)).then(|| SchedulerId(random.between(1, 2))),
                priority: if random.chance(1, 80) { -1 } else { random.between(0, 3) },
                cancel_on_failure: random.chance(2, 3),
                policy: (plan.policies && random.chance(1, 2)).then(|| policy(random)),
                expires_at: (plan.policies && random.chance(1, 6)).then(|| now.after(random.between(-20, 600))),
                not_before: (random.below(100) < plan.delays).then(|| now.after(random.between(-20, 300))),
                depends_on: depends_on.into(),
                relations: relations.into(),
            }
        });
        let jobs = jobs.collect();
        Command::CreateJobs { workflow: known.id, jobs }
    }

    fn start(&mut self, place: usize, random: &mut Random) -> Command {
        let run = self.run(place, random);
        let node = NodeId(random.between(1, 3));
        if !self.held.is_empty() && random.chance(9, 10) {
            let at = random.below(self.held.len());
            let holding = &mut self.held[at];
            holding.started = true;
            holding.node = Some(node);
            let run = self.run_of(self.held[at].row.workflow).unwrap_or(run);
            return Command::Start { job: self.held[at].row.id, run, node };
        }
        Command::Start { job: self.any_job(place, random), run, node }
    }

    fn report(&mut self, place: usize, now: Timestamp, plan: &Plan, random: &mut Random) -> Command {
        let mut completions = Vec::new();
        let mut workflow = self.workflows[place].id;
        for _ in 0..random.between(1, 3) {
            let mine: Vec<usize> = (0..self.held.len())
                .filter(|&at| completions.is_empty() || self.held[at].row.workflow == workflow)
                .collect();
            let Some(&at) = random.pick(&mine) else { break };
            let holding = self.held[at];
            workflow = holding.row.workflow;
            if random.chance(9, 10) {
                self.held.swap_remove(at);
            }
            completions.push(self.completion(&holding, plan, random));
            self.let_go.push_back(holding);
        }
        if self.let_go.len() > 8 {
            self.let_go.pop_front();
        }
        if random.chance(1, 12) {
            // Somebody who was thought dead, or never held it.
            if let Some(late) = self.let_go.front().copied() {
                workflow = if completions.is_empty() { late.row.workflow } else { workflow };
                completions.push(self.completion(&late, plan, random));
            }
        }
        if random.chance(1, 40) {
            let job = self.any_job(place, random);
            let attempt = random.chance(1, 2).then(|| random.between(1, 3));
            let outcome = self.outcome(plan, random);
            let (run, node, grant, again) = (self.run(place, random), None, None, None);
            completions.push(Completion { job, run, attempt, node, grant, outcome, again });
        }
        let claim = random.chance(1, 3).then(|| Box::new(self.claim(workflow, now, plan, random)));
        let report = Report { workflow, completions, claim };
        self.reports.push_back(Report { claim: None, ..report.clone() });
        if self.reports.len() > 6 {
            self.reports.pop_front();
        }
        Command::Report(report)
    }

    fn repeat_report(&mut self, place: usize, now: Timestamp, plan: &Plan, random: &mut Random) -> Command {
        if self.reports.is_empty() {
            return self.report(place, now, plan, random);
        }
        let again = self.reports[random.below(self.reports.len())].clone();
        let claim = random.chance(1, 4).then(|| Box::new(self.claim(again.workflow, now, plan, random)));
        Command::Report(Report { claim, ..again })
    }

    fn completion(&mut self, holding: &Holding, plan: &Plan, random: &mut Random) -> Completion {
        Completion {
            job: holding.row.id,
            run: self.run_of(holding.row.workflow).unwrap_or(0) - i64::from(random.chance(1, 60)),
            attempt: random.chance(9, 10).then_some(holding.row.attempt),
            node: if random.chance(1, 60) { Some(NodeId(9)) } else { holding.node.filter(|_| holding.started) },
            grant: if random.chance(1, 60) {
                Some(Grant(holding.row.grant.0 - 1))
            } else {
                random.chance(1, 2).then_some(holding.row.grant)
            },
            outcome: self.outcome(plan, random),
            again: random.chance(1, 2).then(|| Again {
                failures_max: random.chance(1, 4).then(|| NonZeroU16::new(2)).flatten(),
                delay_ms: random.chance(1, 4).then(|| random.between(0, 50)),
            }),
        }
    }

    /// Runners say of what they hold, or held, that it goes on, or that they did not begin it.
    fn keep_or_put_back(&mut self, place: usize, random: &mut Random) -> Command {
        let put_back = random.chance(1, 3);
        let mut workflow = self.workflows[place].id;
        let mut attempts = Vec::new();
        for _ in 0..random.between(1, 3) {
            let holding = if random.chance(1, 8) || self.held.is_empty() {
                random.pick(&self.let_go.make_contiguous()[..]).copied()
            } else {
                let at = random.below(self.held.len());
                Some(if put_back { self.held.swap_remove(at) } else { self.held[at] })
            };
            let Some(Holding { row, .. }) = holding else { continue };
            if attempts.is_empty() || random.chance(1, 60) {
                workflow = row.workflow;
            }
            let attempt = row.attempt + i64::from(random.chance(1, 60));
            let grant = Grant(row.grant.0 - i64::from(random.chance(1, 60)));
            attempts.push(Held { job: row.id, attempt, grant });
        }
        if put_back { Command::PutBack { workflow, attempts } } else { Command::Renew { workflow, attempts } }
    }

    /// A runner comes, lives on, or leaves.
    fn heartbeat(&mut self, place: usize, random: &mut Random) -> Command {
        if self.nodes.is_empty() || random.chance(1, 6) {
            self.nodes_begun += 1;
            let (node, workflow) = (NodeId(100 + self.nodes_begun), self.workflows[place].id);
            self.nodes.push((node, workflow));
            return Command::Heartbeat { workflow, node, lease_ms: random.between(20, 400), begin: true };
        }
        let at = random.below(self.nodes.len());
        let (node, workflow) = self.nodes[at];
        match random.below(10) {
            0 => {
                self.nodes.swap_remove(at);
                Command::Heartbeat { workflow, node, lease_ms: 0, begin: false }
            }
            // It vanishes, and somebody else comes.
            1 => {
                self.nodes.swap_remove(at);
                Command::Heartbeat { workflow, node: NodeId(7), lease_ms: 10, begin: false }
            }
            2 => Command::Heartbeat { workflow, node, lease_ms: random.between(20, 400), begin: true },
            _ => Command::Heartbeat { workflow, node, lease_ms: random.between(20, 400), begin: false },
        }
    }

    fn outcome(&mut self, plan: &Plan, random: &mut Random) -> Outcome {
        self.outcomes += 1;
        let state = if random.below(100) >= plan.failures {
            JobState::Completed
        } else {
            use JobState::{Canceled, Failed, PendingFailed, Ready, Terminated};
            let all = [Failed, Failed, Failed, Failed, Canceled, Terminated, PendingFailed, Ready];
            let kinds = if random.chance(1, 10) { 8 } else { 7 };
            all[random.below(kinds)]
        };
        Outcome {
            state,
            return_code: i64::from(state != JobState::Completed && random.chance(3, 4)),
            exec_time_minutes: 0.5,
            completion_time: format!("outcome {}", self.outcomes).into(),
            peak_memory_bytes: random.chance(1, 2).then_some(1 << 20),
            avg_memory_bytes: None,
            peak_cpu_percent: None,
            avg_cpu_percent: Some(12.5),
        }
    }

    fn update_job(&mut self, place: usize, plan: &Plan, random: &mut Random) -> Command {
        let known = &self.workflows[place];
        let job = self.any_job(place, random);
        let mut change = JobChange::default();
        match random.below(6) {
            0..=2 => change.priority = Some(if random.chance(1, 40) { -3 } else { random.between(0, 4) }),
            3 => change.requirement = random.pick(&known.requirements).copied(),
            4 if plan.labels => change.labels = Some(labels(plan, random)),
            4 => change.cancel_on_failure = Some(random.chance(1, 2)),
            _ if plan.schedulers => {
                change.scheduler = Some(random.chance(1, 2).then(|| SchedulerId(random.between(1, 2))));
            }
            _ => {
                change.name = Some("renamed".into());
                change.payload = Some(vec![b'y'; random.below(20)].into());
            }
        }
        change.draft_only = random.chance(1, 10);
        Command::UpdateJob { job, change: Box::new(change) }
    }

    fn retry(&mut self, place: usize, plan: &Plan, random: &mut Random) -> Command {
        let of_late = self.let_go.back().or(self.held.first()).map(|holding| holding.row.id);
        let job = of_late.filter(|_| random.chance(2, 3)).unwrap_or_else(|| self.any_job(place, random));
        let delay_ms = if random.below(100) < plan.delays { random.between(1, 300) } else { 0 };
        Command::Retry { job, run: self.run(place, random), attempts_max: random.between(1, 5), delay_ms }
    }

    fn by_hand(&mut self, place: usize, random: &mut Random) -> Command {
        let known = &self.workflows[place];
        match random.below(10) {
            0..=6 => {
                let state = if random.chance(1, 2) { JobState::Ready } else { STATE_LIST[random.below(12)] };
                let held = random.pick(&self.held).map(|holding| holding.row.id).filter(|_| random.chance(1, 3));
                let job = held.unwrap_or_else(|| self.any_job(place, random));
                Command::SetState { job, run: self.run(place, random), state }
            }
            7 => Command::ResetJobs { workflow: known.id, failed_only: random.chance(2, 3) },
            8 if random.chance(1, 3) => {
                let job = random.chance(9, 10).then(|| self.any_job(place, random));
                Command::DeleteJobs { workflow: known.id, job }
            }
            8 => Command::DeleteJobs { workflow: known.id, job: Some(self.any_job(place, random)) },
            _ => Command::Initialize { workflow: known.id, only_drafts: random.chance(1, 2) },
        }
    }

    fn rarely(&mut self, place: usize, now: Timestamp, plan: &Plan, random: &mut Random) -> Command {
        let workflow = self.workflows[place].id;
        match random.below(20) {
            0..=2 => {
                let said = Statement::Insert { table: Table::Event, rows: vec![row(Table::Event, workflow)] };
                let command = Box::new(Command::NewRun { workflow, force: random.chance(1, 2) });
                Command::With { statements: vec![said], command }
            }
            3 if self.workflows[place].endless => {
                Command::Pause { workflow, labels: labels(plan, random), paused: random.chance(1, 2) }
            }
            3 => Command::CancelWorkflow(workflow),
            4 if random.chance(1, 3) => {
                self.workflows.remove(place);
                self.asked_for_workflow -= 1;
                Command::DeleteWorkflow(workflow)
            }
            5 => Command::ArchiveWorkflow { workflow, archived: random.chance(1, 4) },
            6..=9 => {
                let rows = (0..random.between(1, 2)).map(|_| (row(Table::Requirement, workflow), needs(random)));
                Command::CreateRequirements { workflow, rows: rows.collect() }
            }
            10 => {
                let requirements = &self.workflows[place].requirements;
                let id = random.pick(requirements).copied().unwrap_or(RequirementId(99));
                Command::UpdateRequirement { workflow, id, set: vec![(3, Value::Int(4))], needs: needs(random) }
            }
            11..=13 => Command::Insert { table: Table::File, workflow, rows: vec![row(Table::File, workflow)] },
            14..=15 => {
                let id = random.between(1, 5);
                let set = vec![(3, Value::Text("moved".into()))];
                Command::Apply(Statement::Update { table: Table::File, id, only_if: Vec::new(), set })
            }
            16..=17 => Command::Flush(match random.below(3) {
                0 => Scope::Everything,
                1 => Scope::Workflow(workflow),
                _ => Scope::Job(self.any_job(place, random)),
            }),
            18 if plan.endless => self.set_shares(plan, random),
            _ => self.new_jobs(place, now, plan, random),
        }
    }

    fn set_shares(&self, plan: &Plan, random: &mut Random) -> Command {
        let mut shares = Vec::new();
        for known in &self.workflows {
            for _ in 0..random.below(4) {
                let weight = NonZeroU32::new(random.between(1, 5) as u32).expect("1 at least");
                let held_max = random.chance(2, 3).then(|| random.between(0, 3) as u32);
                let share = Share { weight, held_max };
                shares.push(LaneShare { workflow: known.id, labels: labels(plan, random), share });
            }
        }
        Command::SetShares(shares)
    }

    fn any_job(&self, place: usize, random: &mut Random) -> JobId {
        if random.chance(1, 100) {
            return JobId(1_000_000 + random.between(1, 60));
        }
        random.pick(&self.workflows[place].jobs).copied().unwrap_or(JobId(1))
    }

    fn run(&self, place: usize, random: &mut Random) -> i64 {
        self.workflows[place].run - i64::from(random.chance(1, 50))
    }

    fn run_of(&self, workflow: WorkflowId) -> Option<i64> {
        self.workflows.iter().find(|known| known.id == workflow).map(|known| known.run)
    }

    /// An answer arrived.
    pub fn hear(&mut self, command: &Command, answer: &Answer) {
        match (command, answer) {
            (Command::CreateWorkflow(_), Answer::Created(id)) => self.workflows.push(Known {
                id: WorkflowId(*id),
                run: 0,
                requirements: Vec::new(),
                jobs: Vec::new(),
                files: Vec::new(),
                is_initialized: false,
                created: 0,
                endless: false,
            }),
            (Command::CreateApplication { .. }, Answer::Created(id)) => self.workflows.push(Known {
                id: WorkflowId(*id),
                run: ENDLESS_RUN,
                requirements: Vec::new(),
                jobs: Vec::new(),
                files: Vec::new(),
                is_initialized: true,
                created: 0,
                endless: true,
            }),
            (Command::CreateJobs { workflow, jobs } | Command::Enqueue { workflow, jobs }, Answer::Created(first)) => {
                let ids = (*first..).take(jobs.len()).map(JobId);
                if let Some(known) = self.workflows.iter_mut().find(|known| known.id == *workflow) {
                    known.jobs.extend(ids);
                    let relations = jobs.iter().flat_map(|job| job.relations.iter());
                    let written = relations.filter(|(kind, _)| *kind == RelationKind::OutputFile);
                    known.files.extend(written.map(|(_, file)| *file));
                }
            }
            (Command::SpawnJobs { parent, jobs }, Answer::Created(first)) => {
                let ids = (*first..).take(jobs.len()).map(JobId);
                if let Some(known) = self.workflows.iter_mut().find(|known| known.jobs.contains(parent)) {
                    known.jobs.extend(ids);
                }
            }
            (Command::CreateRequirements { workflow, rows }, Answer::Created(first)) => {
                if let Some(known) = self.workflows.iter_mut().find(|known| known.id == *workflow) {
                    known.requirements.extend((*first..).take(rows.len()).map(RequirementId));
                }
            }
            (Command::With { command, .. }, answer) => self.hear(command, answer),
            (Command::NewRun { workflow, .. }, Answer::Count(run)) => {
                if let Some(known) = self.workflows.iter_mut().find(|known| known.id == *workflow) {
                    known.run = *run;
                }
            }
            (Command::DeleteJobs { workflow, job }, Answer::Count(_)) => {
                if let Some(known) = self.workflows.iter_mut().find(|known| known.id == *workflow) {
                    known.jobs.retain(|id| job.is_some_and(|job| job != *id));
                }
            }
            (_, Answer::Rejected(Rejection::NoLease(node))) => self.nodes.retain(|(known, _)| known != node),
            (_, Answer::Claimed(claimed) | Answer::Reported { claimed: Some(claimed), .. }) => self.receive(claimed),
            _ => {}
        }
    }

    fn receive(&mut self, claimed: &Claimed) {
        for (row, _) in &claimed.jobs {
            self.held.push(Holding { row: *row, started: row.state == JobState::Running, node: row.node });
            if let Some(known) = self.workflows.iter_mut().find(|known| known.id == row.workflow)
                && !known.jobs.contains(&row.id)
            {
                known.jobs.push(row.id);
            }
        }
    }
}
