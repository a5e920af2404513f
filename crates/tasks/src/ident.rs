//! What an attempt is called on the wire. The first bears the id that the producer gave, if it gave one;
//! every other one an id that says which job it is of, so that nothing need be kept to find it by. A
//! worker that has seen an id takes it for a repetition, so each retry has one of its own; an attempt
//! that was lost keeps it, as it is the same try.

use std::fmt::Write as _;

use forebay_domain::ids::JobId;
use forebay_domain::job::JobRow;
use sha2::{Digest, Sha256};

/// What an id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ident {
    /// Ours: of this job, after so many failures.
    Ours { job: JobId, failures: u16 },
    /// A producer's, for as long as nothing has failed.
    Given(String),
}

/// Where the job stands in the 128 bits, and how many it may have.
const JOB_BITS: u32 = 48;

impl Ident {
    pub fn read(id: &str) -> Ident {
        ours(id).unwrap_or_else(|| Ident::Given(id.to_owned()))
    }
}

/// The id of the attempt that this row is, of a task that was enqueued by this name (or none).
pub fn of_attempt(row: &JobRow, name: &str) -> String {
    if row.tries.failures == 0 && !name.is_empty() { name.to_owned() } else { own(row.id, row.tries.failures) }
}

/// Our id: a UUID of version 8.
pub fn own(job: JobId, failures: u16) -> String {
    let bytes = bytes_of(job, failures);
    let mut id = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        write!(id, "{byte:02x}").expect("a String takes all text");
    }
    id
}

fn ours(id: &str) -> Option<Ident> {
    let digits: Vec<u8> = id.bytes().filter(|byte| *byte != b'-').collect();
    if id.len() != 36 || digits.len() != 32 {
        return None;
    }
    let text = std::str::from_utf8(&digits).ok()?;
    let number = u128::from_str_radix(text, 16).ok()?;
    let bytes = number.to_be_bytes();
    let job = JobId((number >> (128 - JOB_BITS)) as i64);
    let failures = u16::from(bytes[6] & 0x0F) << 12 | u16::from(bytes[7]) << 4 | u16::from(bytes[8] >> 2 & 0x0F);
    (bytes_of(job, failures) == bytes).then_some(Ident::Ours { job, failures })
}

/// 48 bits for the job; 16 for the failures, around the marks of a UUID of version 8; the rest tells it
/// from what others make up.
fn bytes_of(job: JobId, failures: u16) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"forebay task");
    hash.update(job.0.to_be_bytes());
    hash.update(failures.to_be_bytes());
    let check = hash.finalize();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&job.0.to_be_bytes()[2..]);
    bytes[6] = 0x80 | (failures >> 12) as u8;
    bytes[7] = (failures >> 4) as u8;
    bytes[8] = 0x80 | ((failures & 0x0F) as u8) << 2 | (check[0] & 3);
    bytes[9..].copy_from_slice(&check[1..8]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_ours_says_which_job_and_which_try() {
        for job in [1, 2, 77, 1 << 20, (1 << 48) - 1] {
            for failures in [0, 1, 15, 16, 4_095, u16::MAX] {
                let id = own(JobId(job), failures);
                assert_eq!(Ident::read(&id), Ident::Ours { job: JobId(job), failures }, "{id}");
                assert_eq!((&id[14..15], id.len()), ("8", 36));
            }
        }
        assert_ne!(own(JobId(1), 0), own(JobId(1), 1));
    }

    #[test]
    fn an_id_that_somebody_else_made_is_not_taken_for_ours() {
        let mut other = own(JobId(7), 1);
        other.replace_range(0..1, "1");
        for id in ["", "x", "0123456789abcdef0123456789abcdef", "00000000-0000-8000-8000-000000000000", &other, "é"] {
            assert_eq!(Ident::read(id), Ident::Given(id.to_owned()));
        }
    }
}
