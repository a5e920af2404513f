//! What a file asks for and does not get, said in words.

use forebay_wire::{ExecutionMode, MonitorGranularity};

use crate::diagnostic::{Position, Report};
use crate::spec::{JobSpec, Spec};

/// Records the notices of a file.
pub(crate) fn record(spec: &Spec, jobs: &[JobSpec], report: &Report<'_>) {
    let places = &spec.places;
    let settings = &spec.settings;
    let monitor = settings.resource_monitor.as_ref();
    let has_series = monitor.is_some_and(|monitor| {
        let jobs = monitor.jobs.as_ref().map_or(monitor.granularity, |jobs| jobs.granularity);
        jobs == MonitorGranularity::TimeSeries || monitor.compute_node.as_ref().is_some_and(|node| node.enabled)
    });
    let is_slurm = settings.execution_config.as_ref().is_some_and(|config| config.mode == ExecutionMode::Slurm);
    let candidates = [
        (
            places.actions.filter(|_| !spec.actions.is_empty()),
            "`actions` are not carried out yet: nothing is run or scheduled when jobs become ready or complete",
        ),
        (
            places.slurm_schedulers.filter(|_| !spec.slurm_schedulers.is_empty()),
            "`slurm_schedulers` are not used yet: jobs run where a worker is started",
        ),
        (places.slurm_defaults, "`slurm_defaults` are not used yet: no allocations are asked of Slurm"),
        (
            places.execution_config.filter(|_| is_slurm),
            "the execution mode `slurm` is not there yet: jobs are started directly",
        ),
        (places.dynamic_jobs, "`dynamic_jobs` has no effect yet: jobs cannot spawn jobs"),
        (
            places.enable_ro_crate.filter(|_| settings.enable_ro_crate == Some(true)),
            "`enable_ro_crate` has no effect yet: no RO-Crate is written",
        ),
        (
            places.access_groups,
            "`access_groups` have no effect yet: everybody who can reach the server can see the workflow",
        ),
        (
            places.resource_monitor.filter(|_| has_series),
            "`resource_monitor`: time series and the compute node are not recorded yet, only each job's totals",
        ),
        (places.expiration_buffer, "`compute_node_expiration_buffer_seconds` has no effect: it is deprecated"),
        (labelled(jobs), "jobs with `labels` are run only by workers that were started with these labels"),
    ];
    for (position, message) in candidates {
        position.into_iter().for_each(|position| report.notice(position, message));
    }
}

fn labelled(jobs: &[JobSpec]) -> Option<Position> {
    jobs.iter().find_map(|job| job.labels.first()).map(|label| label.at)
}
