//! An allocator that counts, for benchmarks.

#![expect(unsafe_code, reason = "an allocator is told of memory by address")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The system's allocator; it counts what is asked of it. To be a program's global allocator.
#[derive(Debug, Default)]
pub struct Counting(AtomicU64);

impl Counting {
    pub const fn new() -> Counting {
        Counting(AtomicU64::new(0))
    }

    /// How often memory was asked for, or more or less of it, since the start.
    pub fn allocations(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(1, Relaxed);
        // SAFETY: the caller holds to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller holds to the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.0.fetch_add(1, Relaxed);
        // SAFETY: the caller holds to the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}
