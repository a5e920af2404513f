//! Listeners and configuration; hangs the doors.
