//! Claimed jobs as they were handed out, so that their start and their end need no read.

use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_domain::ids::JobId;
use forebay_domain::job::{JobRow, Payload};

/// How many jobs are kept at most.
const PLACES: usize = 1 << 14;

/// A larger payload is not kept, in bytes: at most 64 MiB in all.
const PAYLOAD_MAX: usize = 4096;

/// A place for each id modulo `PLACES`: a newer job takes the place of an older one, which is then
/// read from the store when it is needed.
pub(crate) struct Kept(Mutex<Places>);

type Places = Box<[Option<(JobRow, Payload)>]>;

impl Kept {
    pub fn new() -> Kept {
        Kept(Mutex::new(vec![None; PLACES].into()))
    }

    /// Jobs that are handed out.
    pub fn keep(&self, jobs: &[(JobRow, Payload)]) {
        let mut places = self.lock();
        for (row, payload) in jobs {
            places[place(row.id)] = (payload.len() <= PAYLOAD_MAX).then(|| (*row, Payload::clone(payload)));
        }
    }

    /// The job as it was handed out last.
    pub fn get(&self, job: JobId) -> Option<(JobRow, Payload)> {
        self.lock()[place(job)].clone().filter(|(row, _)| row.id == job)
    }

    /// The job as it was handed out last; it is not kept any more.
    pub fn take(&self, job: JobId) -> Option<(JobRow, Payload)> {
        self.lock()[place(job)].take_if(|(row, _)| row.id == job)
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Each place is whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(job: JobId) -> usize {
    (job.0 as usize) % PLACES
}
