//! Group commit: gather, commit, release, retry.
