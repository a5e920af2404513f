//! When the batch that is gathering may go to the writer.
//!
//! A pure state machine: `now` is the time since an origin of the owner's choosing and never goes
//! back. The owner tells what happened ([`gathered`](Cadence::gathered),
//! [`handed`](Cadence::handed), [`committed`](Cadence::committed)) and asks what to do
//! ([`decide`](Cadence::decide)), at each turn of its loop, whether or not more messages wait.

use std::time::Duration;

/// How often to flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CadenceOptions {
    /// The least time from the start of one commit to the start of the next, while fewer than 1024 callers
    /// wait for that.
    pub flush_interval: Duration,
    /// The same for a batch that somebody waits for; at most `flush_interval` counts.
    pub answer_interval: Duration,
    /// At most so long after the start of a commit the next one gathers for callers to come back, if that
    /// is longer than a share of the commit's time.
    pub gather_max: Duration,
    /// A batch of this many changes is full and goes as soon as the writer is idle.
    pub batch_max: usize,
}

impl CadenceOptions {
    /// The fsync is the cadence: the next batch goes when the last is committed.
    #[must_use]
    pub fn power() -> Self {
        CadenceOptions::every(Duration::ZERO)
    }

    /// A commit is quick, so the next one gathers until all callers are back, or for so long that with many
    /// of them there are few commits, and not so long that a processor has nothing to do meanwhile.
    #[must_use]
    pub fn process() -> Self {
        CadenceOptions { gather_max: Duration::from_micros(300), ..CadenceOptions::power() }
    }

    /// A commit each 100 ms; within 5 ms when somebody waits for it.
    #[must_use]
    pub fn memory() -> Self {
        CadenceOptions {
            answer_interval: Duration::from_millis(5),
            ..CadenceOptions::every(Duration::from_millis(100))
        }
    }

    fn every(flush_interval: Duration) -> Self {
        CadenceOptions {
            flush_interval,
            answer_interval: flush_interval,
            gather_max: Duration::ZERO,
            batch_max: 10_000,
        }
    }
}

/// What to do with the batch that is gathering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// There is nothing to flush.
    Nothing,
    /// A batch is in flight: ask again when it is committed.
    WhenCommitted,
    /// Go on gathering and ask again at this time, or sooner if more was gathered.
    At(Duration),
    /// Close the batch and hand it to the writer.
    Now,
}

/// Decides when the next batch goes to the writer.
#[derive(Debug, Clone)]
pub struct Cadence {
    options: CadenceOptions,
    open: Open,
    in_flight: Option<InFlight>,
    last_start: Option<Duration>,
    gathering: Option<Gathering>,
    /// How many callers there are, as far as commits show it: the most that one released of late, in
    /// parts of [`FADE`](Cadence::FADE).
    crowd: usize,
    hurry: bool,
}

/// What has gathered for the next batch.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    changes: usize,
    callers: usize,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    callers: usize,
}

/// The wait for callers that commits released.
#[derive(Debug, Clone, Copy)]
struct Gathering {
    missing: usize,
    until: Duration,
}

impl Cadence {
    /// The batch waits at most the last commit's time divided by this for callers to come back.
    const GATHER_SHARE: u32 = 10;
    /// With so many callers a commit costs each of them so little that to gather more saves nothing.
    const MANY: usize = 1024;
    /// With each commit that releases fewer callers a part of so many of the crowd is forgotten.
    const FADE: usize = 8;

    #[must_use]
    pub fn new(options: CadenceOptions) -> Self {
        Cadence {
            options,
            open: Open::default(),
            in_flight: None,
            last_start: None,
            gathering: None,
            crowd: 0,
            hurry: false,
        }
    }

    /// `changes` joined the open batch, and `callers` wait for its commit (either may be 0).
    pub fn gathered(&mut self, changes: usize, callers: usize) {
        self.open.changes += changes;
        self.open.callers += callers;
        self.gathering = self.gathering.and_then(|gathering| {
            let missing = gathering.missing.saturating_sub(callers);
            (missing > 0).then_some(Gathering { missing, ..gathering })
        });
    }

    /// The open batch has as many changes as a batch may have: apply no more commands.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.open.changes >= self.options.batch_max
    }

    /// So many callers wait for the open batch that it goes as soon as the writer is idle.
    #[must_use]
    pub fn is_worth_a_commit(&self) -> bool {
        self.open.callers >= Self::MANY
    }

    /// Something is waiting in the open batch, or a batch is in flight.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.in_flight.is_some() || self.has_open()
    }

    /// How many callers the open batch gathers for; 0 if it waits for none.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.gathering.map_or(0, |gathering| gathering.missing)
    }

    /// From now on each batch goes as soon as the writer is idle: the server is stopping.
    pub fn hurry(&mut self) {
        self.hurry = true;
    }

    /// What to do with the open batch at `now`.
    #[must_use]
    pub fn decide(&self, now: Duration) -> Flush {
        if self.in_flight.is_some() {
            return Flush::WhenCommitted;
        }
        if !self.has_open() {
            return Flush::Nothing;
        }
        match self.due() {
            Some(due) if due > now && !self.is_full() && !self.is_worth_a_commit() && !self.hurry => Flush::At(due),
            Some(_) | None => Flush::Now,
        }
    }

    /// The open batch was closed and handed to the writer; a new one is open.
    pub fn handed(&mut self, now: Duration) {
        debug_assert!(self.in_flight.is_none(), "the writer takes one batch at a time");
        self.in_flight = Some(InFlight { callers: self.open.callers });
        self.open = Open::default();
        self.last_start = Some(now);
        self.gathering = None;
    }

    /// The batch in flight is committed; its last try took `took`, and its callers are released.
    pub fn committed(&mut self, now: Duration, took: Duration) {
        let released = self.in_flight.take().map_or(0, |batch| batch.callers);
        self.crowd = (self.crowd - self.crowd.div_ceil(Self::FADE)).max(released * Self::FADE);
        let missing = self.crowd / Self::FADE;
        let until =
            (now + took / Self::GATHER_SHARE).max(self.last_start.map_or(now, |start| start + self.options.gather_max));
        self.gathering = (missing > 1).then_some(Gathering { missing, until });
    }

    fn has_open(&self) -> bool {
        self.open.changes > 0 || self.open.callers > 0
    }

    /// When the open batch may go; none is at once.
    fn due(&self) -> Option<Duration> {
        let interval = if self.open.callers > 0 {
            self.options.answer_interval.min(self.options.flush_interval)
        } else {
            self.options.flush_interval
        };
        let spaced = self.last_start.map(|start| start + interval);
        let gathered = self.gathering.map(|gathering| gathering.until);
        spaced.max(gathered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn power() -> Cadence {
        Cadence::new(CadenceOptions::power())
    }

    /// A cadence whose last batch, with `callers`, was handed at 0 and committed after `took`.
    fn after_a_commit(options: CadenceOptions, callers: usize, took: Duration) -> Cadence {
        let mut cadence = Cadence::new(options);
        cadence.gathered(callers.max(1), callers);
        assert_eq!(cadence.decide(us(0)), Flush::Now);
        cadence.handed(us(0));
        cadence.committed(took, took);
        cadence
    }

    #[test]
    fn nothing_gathered_is_nothing_to_flush() {
        assert_eq!(power().decide(us(0)), Flush::Nothing);
        assert!(!power().is_pending());
    }

    #[test]
    fn the_next_batch_gathers_while_one_is_being_committed_and_goes_when_it_ends() {
        let mut cadence = power();
        cadence.gathered(1, 1);
        cadence.handed(us(0));
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(10)), Flush::WhenCommitted);
        assert!(cadence.is_pending());
        cadence.committed(us(1000), us(1000));
        assert_eq!(cadence.decide(us(1000)), Flush::Now);
    }

    #[test]
    fn in_power_mode_there_is_no_least_time_between_commits() {
        let mut cadence = after_a_commit(CadenceOptions::power(), 1, us(200));
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(201)), Flush::Now);
    }

    #[test]
    fn in_process_mode_one_caller_never_waits() {
        let mut cadence = after_a_commit(CadenceOptions::process(), 1, us(30));
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(31)), Flush::Now);
    }

    #[test]
    fn in_process_mode_a_commit_starts_when_all_callers_are_back_or_after_300_microseconds() {
        let mut cadence = after_a_commit(CadenceOptions::process(), 3, us(30));
        cadence.gathered(2, 2);
        assert_eq!(cadence.decide(us(31)), Flush::At(us(300)));
        assert_eq!(cadence.decide(us(300)), Flush::Now);
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(32)), Flush::Now);
    }

    #[test]
    fn callers_who_stay_away_are_gathered_for_ever_less() {
        let mut cadence = after_a_commit(CadenceOptions::process(), 16, us(30));
        let mut awaited = vec![cadence.awaited()];
        for commit in 1..=24 {
            let now = us(commit * 10_000);
            cadence.gathered(2, 2);
            assert_eq!(cadence.decide(now), Flush::Now);
            cadence.handed(now);
            cadence.committed(now + us(30), us(30));
            awaited.push(cadence.awaited());
        }
        assert!(awaited.is_sorted_by(|a, b| a >= b), "{awaited:?}");
        assert_eq!((awaited[0], awaited[1], awaited[24]), (16, 14, 2));
    }

    #[test]
    fn in_memory_mode_commits_start_at_least_100_milliseconds_apart() {
        let mut cadence = after_a_commit(CadenceOptions::memory(), 0, us(30));
        cadence.gathered(1, 0);
        assert_eq!(cadence.decide(us(31)), Flush::At(us(100_000)));
    }

    #[test]
    fn in_memory_mode_a_waiting_answer_brings_the_flush_forward() {
        let mut cadence = after_a_commit(CadenceOptions::memory(), 0, us(30));
        cadence.gathered(1, 0);
        cadence.gathered(0, 1);
        assert_eq!(cadence.decide(us(31)), Flush::At(us(5_000)));
        assert_eq!(cadence.decide(us(5_000)), Flush::Now);
    }

    #[test]
    fn after_a_quiet_time_the_first_change_goes_at_once() {
        let mut cadence = after_a_commit(CadenceOptions::memory(), 0, us(30));
        cadence.gathered(1, 0);
        assert_eq!(cadence.decide(us(100_000)), Flush::Now);
    }

    #[test]
    fn a_full_batch_goes_before_its_interval_is_over() {
        let options = CadenceOptions { batch_max: 10, ..CadenceOptions::memory() };
        let mut cadence = after_a_commit(options, 0, us(30));
        cadence.gathered(9, 0);
        assert!(!cadence.is_full());
        assert_eq!(cadence.decide(us(31)), Flush::At(us(100_000)));
        cadence.gathered(1, 0);
        assert!(cadence.is_full());
        assert_eq!(cadence.decide(us(31)), Flush::Now);
    }

    #[test]
    fn a_full_batch_still_waits_for_the_one_in_flight() {
        let mut cadence = Cadence::new(CadenceOptions { batch_max: 1, ..CadenceOptions::power() });
        cadence.gathered(1, 1);
        cadence.handed(us(0));
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(1)), Flush::WhenCommitted);
    }

    #[test]
    fn a_trickle_is_flushed_within_the_interval_while_messages_keep_coming() {
        let mut cadence = after_a_commit(CadenceOptions::memory(), 0, us(30));
        for now in (1_000..100_000).step_by(1_000) {
            cadence.gathered(1, 0);
            assert_eq!(cadence.decide(us(now)), Flush::At(us(100_000)));
        }
        cadence.gathered(1, 0);
        assert_eq!(cadence.decide(us(100_000)), Flush::Now);
    }

    #[test]
    fn after_a_commit_that_released_callers_the_batch_gathers_until_as_many_came_back() {
        let mut cadence = after_a_commit(CadenceOptions::power(), 3, us(1000));
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(1001)), Flush::At(us(1100)));
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(1002)), Flush::At(us(1100)));
        assert_eq!(cadence.awaited(), 1);
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(1003)), Flush::Now);
        assert_eq!(cadence.awaited(), 0);
    }

    #[test]
    fn gathering_ends_after_a_tenth_of_the_last_commits_time() {
        let mut cadence = after_a_commit(CadenceOptions::power(), 3, us(1000));
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(1099)), Flush::At(us(1100)));
        assert_eq!(cadence.decide(us(1100)), Flush::Now);
    }

    #[test]
    fn callers_that_came_during_the_commit_are_not_those_who_come_back() {
        let mut cadence = power();
        cadence.gathered(2, 2);
        cadence.handed(us(0));
        cadence.gathered(2, 2);
        cadence.committed(us(1000), us(1000));
        assert_eq!(cadence.decide(us(1000)), Flush::At(us(1100)));
        cadence.gathered(2, 2);
        assert_eq!(cadence.decide(us(1001)), Flush::Now);
    }

    #[test]
    fn nobody_gathers_for_one_caller() {
        let mut cadence = after_a_commit(CadenceOptions::power(), 1, us(1000));
        cadence.gathered(1, 0);
        assert_eq!(cadence.decide(us(1001)), Flush::Now);
    }

    #[test]
    fn for_very_many_callers_a_commit_starts_when_the_writer_is_idle() {
        let gathers = [CadenceOptions::power(), CadenceOptions::process()];
        for options in gathers.into_iter().chain([CadenceOptions::every(us(1100))]) {
            let mut cadence = after_a_commit(options, 4 * Cadence::MANY, us(1000));
            cadence.gathered(1, Cadence::MANY - 1);
            assert_eq!(cadence.decide(us(1001)), Flush::At(us(1100)));
            assert!(!cadence.is_worth_a_commit());
            cadence.gathered(1, 1);
            assert!(cadence.is_worth_a_commit());
            assert_eq!(cadence.decide(us(1001)), Flush::Now);
        }
    }

    #[test]
    fn gathering_alone_flushes_nothing() {
        let cadence = after_a_commit(CadenceOptions::power(), 3, us(1000));
        assert_eq!(cadence.decide(us(1200)), Flush::Nothing);
        assert!(!cadence.is_pending());
    }

    #[test]
    fn callers_who_are_back_still_wait_for_the_interval() {
        let options = CadenceOptions::every(Duration::from_millis(1));
        let mut cadence = after_a_commit(options, 2, us(30));
        cadence.gathered(2, 2);
        assert_eq!(cadence.decide(us(31)), Flush::At(us(1000)));
    }

    #[test]
    fn a_full_batch_does_not_gather() {
        let options = CadenceOptions { batch_max: 1, ..CadenceOptions::power() };
        let mut cadence = after_a_commit(options, 3, us(1000));
        cadence.gathered(1, 1);
        assert_eq!(cadence.decide(us(1001)), Flush::Now);
    }

    #[test]
    fn in_a_hurry_a_partial_batch_goes_at_once() {
        let mut cadence = after_a_commit(CadenceOptions::memory(), 3, us(30));
        cadence.gathered(1, 0);
        cadence.hurry();
        assert_eq!(cadence.decide(us(31)), Flush::Now);
    }
}
