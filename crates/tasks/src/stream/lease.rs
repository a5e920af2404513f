//! The lease of an attempt: all by which a report finds it, and that nobody else can have. Opaque to
//! workers.

use forebay_domain::command::Held;
use forebay_domain::ids::{Grant, JobId, WorkflowId};
use forebay_domain::job::JobRow;

use crate::grants::Attempt;

/// An attempt of a job as one claim gave it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub workflow: WorkflowId,
    pub held: Held,
}

const NUMBER: usize = size_of::<i64>();

impl Lease {
    /// Of a job that was just handed out.
    pub fn of(row: &JobRow) -> Lease {
        Lease { workflow: row.workflow, held: Held { job: row.id, attempt: row.attempt, grant: row.grant } }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let Lease { workflow, held: Held { job, attempt, grant } } = self;
        [workflow.0, job.0, attempt, grant.0].map(i64::to_be_bytes).concat()
    }

    /// None if it is nothing that was ever handed out.
    pub fn read(bytes: &[u8]) -> Option<Lease> {
        let (numbers, rest) = bytes.as_chunks::<NUMBER>();
        let (&[workflow, job, attempt, grant], []) = (numbers, rest) else { return None };
        let [workflow, job, attempt, grant] = [workflow, job, attempt, grant].map(i64::from_be_bytes);
        let held = Held { job: JobId(job), attempt, grant: Grant(grant) };
        Some(Lease { workflow: WorkflowId(workflow), held })
    }

    pub fn attempt(self) -> Attempt {
        let Lease { workflow, held: Held { job, attempt, grant } } = self;
        Attempt { workflow, job, attempt, grant: Some(grant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_as_it_was_written_and_nothing_else_is_one() {
        let held = Held { job: JobId(2), attempt: 3, grant: Grant(i64::MAX) };
        let lease = Lease { workflow: WorkflowId(-1), held };
        let bytes = lease.to_bytes();
        assert_eq!(Lease::read(&bytes), Some(lease));
        assert_eq!(Lease::read(&bytes[1..]), None);
        assert_eq!(Lease::read(&[bytes, vec![0; 8]].concat()), None);
        assert_eq!(Lease::read(&[]), None);
    }
}
