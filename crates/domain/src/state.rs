//! What a job may be, and the one table of what may become of it.

/// Where a job is in its life. The numbers are stored, and are torc's where torc has the state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum JobState {
    /// Created, its workflow not initialized (or reset) since.
    Draft = 0,
    /// Waits for prerequisites.
    Blocked = 1,
    /// May be claimed.
    Ready = 2,
    /// Handed out; its process not reported as started.
    Claimed = 3,
    /// Its process runs.
    Running = 4,
    Completed = 5,
    Failed = 6,
    Canceled = 7,
    Terminated = 8,
    /// Taken out by the user. Counts as done for its workflow; what depends on it stays blocked.
    Disabled = 9,
    /// Failed, and waits for somebody to say whether it shall be retried.
    PendingFailed = 10,
    /// Waits for a moment: a delay, or the back-off before a retry.
    Scheduled = 11,
}

/// How many states there are: the length of the counters by state.
pub const STATES: usize = 12;

/// What happens to a job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// Initialized while a prerequisite is not done, or a prerequisite was re-armed.
    Block,
    /// Nothing is in its way any more.
    Free,
    /// It shall wait until a moment.
    Delay,
    /// Handed out to a claimant.
    Claim,
    /// Its claim did not reach the claimant, or the claimant put it back.
    GiveBack,
    Start,
    Complete,
    Fail,
    Terminate,
    /// Failed, to be judged later.
    Doubt,
    /// Canceled by a user, or since a prerequisite failed.
    Cancel,
    /// A new attempt after an end, or instead of one.
    Retry,
    /// Back to where it was created.
    Reset,
    Disable,
}

pub const STATE_LIST: [JobState; STATES] = [
    JobState::Draft,
    JobState::Blocked,
    JobState::Ready,
    JobState::Claimed,
    JobState::Running,
    JobState::Completed,
    JobState::Failed,
    JobState::Canceled,
    JobState::Terminated,
    JobState::Disabled,
    JobState::PendingFailed,
    JobState::Scheduled,
];

pub const EVENT_LIST: [Event; 14] = [
    Event::Block,
    Event::Free,
    Event::Delay,
    Event::Claim,
    Event::GiveBack,
    Event::Start,
    Event::Complete,
    Event::Fail,
    Event::Terminate,
    Event::Doubt,
    Event::Cancel,
    Event::Retry,
    Event::Reset,
    Event::Disable,
];

impl Event {
    /// Whether it makes of a job what it has not been: nobody may hear of it, or hold it, before this
    /// is committed. All else is a step in the life of an attempt.
    pub fn rearms(self) -> bool {
        use Event::*;
        match self {
            Block | Delay | Retry | Reset | Disable => true,
            Free | Claim | GiveBack | Start | Complete | Fail | Terminate | Doubt | Cancel => false,
        }
    }
}

impl JobState {
    /// The state with this stored number.
    pub fn from_number(number: i64) -> Option<JobState> {
        usize::try_from(number).ok().and_then(|n| STATE_LIST.get(n).copied())
    }

    pub fn number(self) -> i64 {
        self as i64
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Draft => "draft",
            JobState::Blocked => "blocked",
            JobState::Ready => "ready",
            JobState::Claimed => "claimed",
            JobState::Running => "running",
            JobState::Completed => "completed",
            JobState::Failed => "failed",
            JobState::Canceled => "canceled",
            JobState::Terminated => "terminated",
            JobState::Disabled => "disabled",
            JobState::PendingFailed => "pending_failed",
            JobState::Scheduled => "scheduled",
        }
    }

    /// An end that lets dependents go on or be canceled: completed, failed, canceled, terminated.
    pub fn has_ended(self) -> bool {
        use JobState::*;
        match self {
            Completed | Failed | Canceled | Terminated => true,
            Draft | Blocked | Ready | Claimed | Running | Disabled | PendingFailed | Scheduled => false,
        }
    }

    /// Nothing more is to be done for it before its workflow counts as complete.
    pub fn is_settled(self) -> bool {
        self.has_ended() || self == JobState::Disabled
    }

    /// A claimant holds it.
    pub fn is_held(self) -> bool {
        matches!(self, JobState::Claimed | JobState::Running)
    }

    /// The one table: what becomes of a job in this state when this happens; `None` if it cannot happen.
    ///
    /// An outcome is accepted in every state that is not an end, as torc does: who reports the
    /// right run and attempt of a job that the server took back in a crash is still right.
    pub fn on(self, event: Event) -> Option<JobState> {
        use Event::*;
        use JobState::*;
        match (self, event) {
            (Draft | Blocked | Ready | Scheduled, Block) => Some(Blocked),
            // Initialized again, or a prerequisite re-armed after it was canceled for that one's failure.
            (Claimed | Running | Canceled | Terminated | PendingFailed, Block) => Some(Blocked),
            (Completed | Failed | Disabled, Block) => None,

            (Draft | Blocked | Scheduled, Free) => Some(Ready),
            (Claimed | Running | Canceled | Terminated | PendingFailed, Free) => Some(Ready),
            (Ready | Completed | Failed | Disabled, Free) => None,

            (Draft | Blocked | Ready | Claimed | Running, Delay) => Some(Scheduled),
            (Failed | Canceled | Terminated | PendingFailed, Delay) => Some(Scheduled),
            (Completed | Disabled | Scheduled, Delay) => None,

            (Ready, Claim) => Some(Claimed),
            (Draft | Blocked | Claimed | Running | Scheduled, Claim) => None,
            (Completed | Failed | Canceled | Terminated | Disabled | PendingFailed, Claim) => None,

            (Claimed | Running, GiveBack) => Some(Ready),
            (Draft | Blocked | Ready | Scheduled, GiveBack) => None,
            (Completed | Failed | Canceled | Terminated | Disabled | PendingFailed, GiveBack) => None,

            (Claimed, Start) => Some(Running),
            (Draft | Blocked | Ready | Running | Scheduled, Start) => None,
            (Completed | Failed | Canceled | Terminated | Disabled | PendingFailed, Start) => None,

            (Draft | Blocked | Ready | Claimed | Running | Disabled | PendingFailed | Scheduled, Complete) => {
                Some(Completed)
            }
            (Draft | Blocked | Ready | Claimed | Running | Disabled | PendingFailed | Scheduled, Fail) => Some(Failed),
            (Draft | Blocked | Ready | Claimed | Running | Disabled | PendingFailed | Scheduled, Terminate) => {
                Some(Terminated)
            }
            (Draft | Blocked | Ready | Claimed | Running | Disabled | PendingFailed | Scheduled, Cancel) => {
                Some(Canceled)
            }
            (Draft | Blocked | Ready | Claimed | Running | Disabled | Scheduled, Doubt) => Some(PendingFailed),
            (PendingFailed, Doubt) => None,
            (Completed | Failed | Canceled | Terminated, Complete | Fail | Terminate | Cancel | Doubt) => None,

            (Claimed | Running | Failed | Canceled | Terminated | PendingFailed, Retry) => Some(Ready),
            (Draft | Blocked | Ready | Completed | Disabled | Scheduled, Retry) => None,

            (Blocked | Ready | Claimed | Running | Scheduled | Disabled, Reset) => Some(Draft),
            (Completed | Failed | Canceled | Terminated | PendingFailed, Reset) => Some(Draft),
            (Draft, Reset) => None,

            (Draft | Blocked | Ready | Claimed | Running | PendingFailed | Scheduled, Disable) => Some(Disabled),
            (Completed | Failed | Canceled | Terminated | Disabled, Disable) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    #[test]
    fn the_transition_table_is_as_written_down() {
        let mut table = String::new();
        for state in STATE_LIST {
            table += &format!("{state:?}:");
            for event in EVENT_LIST {
                if let Some(next) = state.on(event) {
                    table += &format!(" {event:?}->{next:?}");
                }
            }
            table += "\n";
        }
        assert_eq!(table, include_str!("state_table.txt"));
    }

    #[test]
    fn a_stored_number_names_its_state() {
        for state in STATE_LIST {
            assert_eq!(JobState::from_number(state.number()), Some(state));
        }
        assert_eq!(JobState::from_number(12), None);
        assert_eq!(JobState::from_number(-1), None);
    }
}
