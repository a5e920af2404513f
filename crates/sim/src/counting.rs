//! An allocator that counts, for benchmarks.

#![expect(unsafe_code, reason = "an allocator is told of memory by address")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The system's allocator; it counts what is asked of it. To be a program's global allocator.
#[derive(Debug, Default)]
pub struct Counting([Count; COUNTS]);

/// More than the threads that a benchmark has at work.
const COUNTS: usize = 16;

/// On a cache line of its own: what threads count together would take longer than what they count.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

thread_local! {
    /// Which count is this thread's.
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Counting {
    pub const fn new() -> Counting {
        Counting([const { Count(AtomicU64::new(0)) }; COUNTS])
    }

    /// How often memory was asked for, or more or less of it, since the start.
    pub fn allocations(&self) -> u64 {
        self.0.iter().map(|count| count.0.load(Relaxed)).sum()
    }

    fn count(&self) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        let place = PLACE.get().unwrap_or_else(|| {
            let place = THREADS.fetch_add(1, Relaxed) % COUNTS;
            PLACE.set(Some(place));
            place
        });
        self.0[place].0.fetch_add(1, Relaxed);
    }
}

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: the caller holds to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller holds to the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count();
        // SAFETY: the caller holds to the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}
