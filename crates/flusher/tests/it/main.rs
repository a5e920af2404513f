//! The group commit seen from outside, with real threads.

mod group;
