//! The crate's tests from outside.

mod histories;
mod release;
mod stores;
mod windows;
