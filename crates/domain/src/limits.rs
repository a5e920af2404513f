//! Every bound of the machine, in one place. Over a bound the answer is a refusal, never growth.

/// When the answers to claims, starts and reports may leave. All others leave after their commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Egress {
    /// When what they say is committed.
    #[default]
    Committed,
    /// At once, if what created, reset or re-armed their jobs is committed. A crash may take back
    /// what they say; the jobs are then done again.
    AtOnce,
}

/// Sizes and bounds. Plain values; whoever starts the machine may change them.
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    pub egress: Egress,
    /// Jobs that one lane's window is filled up to at least, if so many are ready.
    pub window_min: usize,
    /// Jobs that one lane's window holds at most.
    pub window_max: usize,
    /// A window is filled up to so many times the jobs that are taken from it while a page is read.
    pub window_factor: usize,
    /// Jobs in the windows of all lanes. Over it the longest give up their last ones; each keeps its first.
    pub windows_jobs_max: usize,
    /// Bytes of payload that are kept beside the jobs in memory. Others are read when they are handed out.
    pub windows_bytes_max: usize,
    /// Jobs of one page.
    pub page_max: u32,
    /// A larger payload is not kept beside its window entry, in bytes.
    pub payload_inline_max: u32,
    /// Changed jobs that are remembered while a read is in flight; over it the oldest read is
    /// abandoned and asked again.
    pub recent_max: usize,
    /// Claimed and running jobs kept in memory; others are read when they are named.
    pub held_max: usize,
    /// Lanes of all workflows that are not complete, in memory or not.
    pub lanes_max: usize,
    /// Workflows in memory that have nothing in flight.
    pub workflows_max: usize,
    /// Claims that wait for a job.
    pub waiting_max: usize,
    /// Commands that wait for a read.
    pub parked_max: usize,
    /// Moments at which something happens to a job that are held in memory: the soonest of them.
    pub timers_window: usize,
    /// Compute nodes that hold a lease.
    pub leases_max: usize,
    /// Bytes of the dependency graphs of all unfinished workflows.
    pub graph_bytes_max: usize,
    /// A change of more jobs than this is carried out in parts, one a batch; of as many new jobs of an
    /// endless workflow, which are ready at once, it is refused.
    pub step_max: usize,
    /// Rows of one such part.
    pub part_max: usize,
    /// Jobs that one claim may take.
    pub claim_max: usize,
    /// Ids reserved beyond those in use. With 0 they stay without gaps over a kill; the mark is then
    /// written by each batch that uses ids.
    pub id_block: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            egress: Egress::default(),
            window_min: 64,
            window_max: 16_384,
            window_factor: 16,
            windows_jobs_max: 1 << 17,
            windows_bytes_max: 64 << 20,
            page_max: 4096,
            payload_inline_max: 16 * 1024,
            recent_max: 1 << 18,
            held_max: 1 << 17,
            lanes_max: 65_536,
            workflows_max: 10_000,
            waiting_max: 65_536,
            parked_max: 65_536,
            timers_window: 65_536,
            leases_max: 65_536,
            graph_bytes_max: 256 << 20,
            step_max: 2000,
            part_max: 1000,
            claim_max: 100_000,
            id_block: 0,
        }
    }
}
