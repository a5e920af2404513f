//! Claims jobs, runs their processes, reports.
