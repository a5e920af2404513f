//! Numbers that name things. A twin of two `i64` cannot be swapped by mistake.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A job. Ids rise with creation, so within a priority the order of ids is first in, first out.
    JobId
    /// A workflow: the owner of jobs, lanes and catalog rows.
    WorkflowId
    /// Where jobs wait that depend on the same others. Named after the first of them, so never twice.
    BarrierId
    /// A resource requirement of a workflow.
    RequirementId
    /// A lane: ready jobs that are interchangeable to a claimant.
    LaneId
    /// A compute node: a runner that registered itself.
    NodeId
    /// A scheduler that a job may be bound to.
    SchedulerId
    /// A stored outcome of one attempt.
    ResultId
}

/// The number of a batch. Batches commit in the order of their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

/// The boot epoch: one more at each start of a server on its store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub i64);

/// One claim of one job: no two are the same, whatever starts lie between them. The boot epoch of the
/// server that granted it, and below that which of its grants it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Grant(pub i64);

impl Grant {
    /// How many bits number the grants of one boot: at a million a second they last twelve days, and
    /// then go on in the room of the next boots.
    pub const BITS: u32 = 40;

    /// Comes before the first grant of a boot.
    pub fn before(epoch: Epoch) -> Grant {
        Grant(epoch.0 << Grant::BITS)
    }

    pub fn next(self) -> Grant {
        Grant(self.0 + 1)
    }
}

/// Milliseconds since 1970-01-01 UTC. It comes in with each command; the domain reads no clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment, `ms` milliseconds later.
    pub fn after(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }

    /// As a text in UTC, RFC 3339 with milliseconds, as torc writes moments; one that is beyond the calendar
    /// as the first of all.
    pub fn rfc3339(self) -> Box<str> {
        let at = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        at.strftime("%Y-%m-%dT%H:%M:%S%.3f+00:00").to_string().into()
    }
}

/// Names a caller that waits for an answer. Never used twice within one run of the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_its_date() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000+00:00"),
            (-1, "1969-12-31T23:59:59.999+00:00"),
            (951_782_400_000, "2000-02-29T00:00:00.000+00:00"),
            (1_700_000_000_120, "2023-11-14T22:13:20.120+00:00"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999+00:00"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000+00:00"),
        ] {
            assert_eq!(&*Timestamp(ms).rfc3339(), text);
        }
    }
}
