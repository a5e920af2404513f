//! What one history is like, drawn from its seed.

use forebay_domain::limits::{Egress, Limits};

use crate::random::Random;

/// A rule that is broken on purpose, to see that it is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// Answers leave the process before their batch is committed.
    AnswerBeforeCommit,
    /// Whoever reports an outcome is taken to hold the job: the attempt is not checked.
    NoFence,
    /// One edge is missing whenever a graph is read.
    LostEdge,
    /// The machine forgets changes once they are committed, though older pages are on their way.
    NoRecent,
    /// The machine forgets timers that its window has no room for before a page can show them.
    LostTimers,
    /// Claims and outcomes of a new attempt are told before it is committed.
    UncommittedAttempt,
    /// The machine does not look at jobs that are held when their time runs out.
    NoDeadlines,
    /// The machine leaves the jobs of nodes that are gone where they are.
    KeptOrphans,
    /// The machine does not let the lanes of an endless workflow take turns.
    NoTurns,
    /// The machine does not look at how many jobs of a lane are held.
    NoBounds,
    /// The machine leaves tasks that waited for another where they are.
    LeftDependents,
}

/// How histories are made; each is drawn from these and its seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Commands of a history, at least.
    pub commands: usize,
    /// Whether the server crashes: at least once then.
    pub crashes: bool,
    /// Only what moves jobs into lanes, between them and out of them: one workflow, no dependencies,
    /// no lost messages.
    pub lanes_only: bool,
    /// Whether the oracle follows. The auditor always listens.
    pub oracle: bool,
    /// When answers may leave; drawn, if it is not said.
    pub egress: Option<Egress>,
    pub sabotage: Option<Sabotage>,
    /// Keep what happened as text, and a digest of all answers and batches.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            commands: 200,
            crashes: true,
            lanes_only: false,
            oracle: true,
            egress: None,
            sabotage: None,
            log: false,
        }
    }
}

/// What one history is like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub limits: Limits,
    pub workflows: usize,
    /// Commands left when the server crashes.
    pub crashes: Vec<usize>,
    /// Jobs get new attempts.
    pub retries: bool,
    /// States are set by hand, jobs are reset, deleted and initialized again.
    pub by_hand: bool,
    /// Jobs depend on others.
    pub edges: bool,
    /// Jobs are tied to files, out of order at times.
    pub files: bool,
    pub wild_files: bool,
    pub labels: bool,
    pub schedulers: bool,
    /// Of 100 jobs and retries, so many wait for a moment.
    pub delays: usize,
    /// Jobs have policies, and expire.
    pub policies: bool,
    /// Some of the workflows have no end.
    pub endless: bool,
    /// Runners hold leases, and vanish.
    pub leases: bool,
    /// Of 100 jobs, so many fail.
    pub failures: usize,
    /// The relative pace of what happens beside commands.
    pub pace: Pace,
    pub jobs_per_batch: usize,
}

/// How likely each thing is to be the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub call: usize,
    pub deliver: usize,
    pub take: usize,
    pub write: usize,
    pub snapshot: usize,
    pub page: usize,
    pub answer: usize,
    pub tick: usize,
    pub leave: usize,
    /// Of 100 commits, so many meet a busy store.
    pub busy: usize,
    /// Of 100 answers, so many are lost on the way.
    pub lost: usize,
}

impl Plan {
    pub fn draw(random: &mut Random, options: &Options) -> Plan {
        let small = |random: &mut Random, low: i64, high: i64| random.between(low, high) as usize;
        let window_max = small(random, 1, 8);
        let tight = random.chance(1, 4);
        let drawn = if random.chance(1, 3) { Egress::AtOnce } else { Egress::Committed };
        let limits = Limits {
            egress: options.egress.unwrap_or(drawn),
            window_max,
            window_min: small(random, 1, window_max as i64),
            window_factor: small(random, 1, 4),
            windows_jobs_max: if random.chance(1, 2) { small(random, 1, 12) } else { 1000 },
            windows_bytes_max: if random.chance(1, 2) { small(random, 0, 60) } else { 1000 },
            page_max: small(random, 1, 8) as u32,
            payload_inline_max: small(random, 0, 12) as u32,
            recent_max: if random.chance(1, 2) { small(random, 4, 20) } else { 1000 },
            held_max: small(random, 0, 8),
            lanes_max: if tight { small(random, 4, 10) } else { 1000 },
            workflows_max: small(random, 1, 4),
            waiting_max: if tight { small(random, 1, 3) } else { 1000 },
            parked_max: if tight { small(random, 2, 6) } else { 1000 },
            timers_window: small(random, 1, 8),
            leases_max: if tight { small(random, 1, 3) } else { 1000 },
            graph_bytes_max: if random.chance(1, 3) { small(random, 300, 3000) } else { 1 << 20 },
            step_max: small(random, 0, 20),
            part_max: small(random, 1, 6),
            claim_max: if random.chance(1, 4) { 2 } else { 1000 },
            id_block: random.between(0, 20),
        };
        let mut crashes: Vec<usize> = Vec::new();
        if options.crashes {
            crashes.extend((0..random.between(1, 3)).map(|_| random.below(options.commands)));
            crashes.sort_unstable();
        }
        let mode = random.below(4);
        let plan = Plan {
            limits,
            workflows: small(random, 1, 3),
            crashes,
            retries: mode > 0,
            by_hand: mode > 1,
            edges: random.chance(3, 4),
            files: random.chance(1, 2),
            wild_files: mode > 1 && random.chance(1, 2),
            labels: random.chance(1, 2),
            schedulers: random.chance(1, 2),
            delays: [0, 0, 25, 80][random.below(4)],
            policies: random.chance(1, 2),
            leases: random.chance(1, 2),
            endless: random.chance(1, 3),
            failures: small(random, 0, 30),
            pace: Pace::draw(random),
            jobs_per_batch: small(random, 1, 16),
        };
        if options.lanes_only { plan.lanes_only() } else { plan }
    }
}

impl Plan {
    fn lanes_only(self) -> Plan {
        let usual = Limits::default();
        let limits = Limits {
            held_max: usual.held_max,
            lanes_max: usual.lanes_max,
            workflows_max: usual.workflows_max,
            waiting_max: usual.waiting_max,
            parked_max: usual.parked_max,
            timers_window: usual.timers_window,
            leases_max: usual.leases_max,
            graph_bytes_max: usual.graph_bytes_max,
            step_max: usual.step_max,
            part_max: usual.part_max,
            id_block: usual.id_block,
            ..self.limits
        };
        Plan {
            limits,
            workflows: 1,
            retries: true,
            by_hand: false,
            edges: false,
            files: false,
            wild_files: false,
            delays: 0,
            policies: false,
            leases: false,
            endless: false,
            jobs_per_batch: 16,
            pace: Pace { leave: 0, busy: 0, lost: 0, ..self.pace },
            ..self
        }
    }
}

impl Pace {
    fn draw(random: &mut Random) -> Pace {
        let mut one_of = |among: &[usize]| among[random.below(among.len())];
        Pace {
            call: one_of(&[10, 30]),
            deliver: one_of(&[20, 40]),
            take: one_of(&[3, 10, 30]),
            write: one_of(&[3, 10, 40]),
            snapshot: one_of(&[3, 10, 40]),
            page: one_of(&[3, 10, 40]),
            answer: one_of(&[10, 40]),
            tick: one_of(&[2, 10]),
            leave: one_of(&[0, 1]),
            busy: one_of(&[0, 10, 30]),
            lost: one_of(&[0, 3]),
        }
    }
}
