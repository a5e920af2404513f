//! The crate's tests from outside.

mod histories;
mod stores;
mod windows;
