//! The settings of a workflow as a whole.

use forebay_wire::{
    ComputeNodeMonitorConfig, ExecutionConfig, ExecutionMode, JobMonitorConfig, MonitorGranularity,
    ResourceMonitorConfig,
};

use crate::diagnostic::{Kind, Report};
use crate::fields::Fields;
use crate::node::{Node, Text};
use crate::spec::{dynamic_jobs, json_map, stdio};
use crate::workflow::Settings;

/// What a Slurm allocation gets from its scheduler, so that a default means nothing.
const SLURM_DEFAULTS_EXCLUDED: [&str; 8] =
    ["partition", "nodes", "walltime", "time", "mem", "gres", "name", "job-name"];

/// Takes the settings out of a workflow's fields.
pub(crate) fn decode(fields: &mut Fields<'_, '_>) -> Settings {
    let report = fields.report();
    let plain = |text: Option<Text>| text.map(|text| text.value);
    // Deprecated and without effect, in torc too.
    fields.int("compute_node_expiration_buffer_seconds");
    Settings {
        name: fields.required_text("name").value,
        user: plain(fields.text("user")),
        description: plain(fields.text("description")),
        compute_node_wait_for_new_jobs_seconds: fields.int_from("compute_node_wait_for_new_jobs_seconds", 0),
        compute_node_ignore_workflow_completion: fields.bool("compute_node_ignore_workflow_completion"),
        compute_node_wait_for_healthy_database_minutes: fields
            .int_from("compute_node_wait_for_healthy_database_minutes", 0),
        slurm_defaults: slurm_defaults(fields),
        resource_monitor: fields.take("resource_monitor").and_then(|node| resource_monitor(node, report)),
        dynamic_jobs: fields.take("dynamic_jobs").and_then(|node| dynamic_jobs(node, report)),
        use_pending_failed: fields.bool("use_pending_failed"),
        enable_ro_crate: fields.bool("enable_ro_crate"),
        project: plain(fields.text("project")),
        metadata: json_map(fields, "metadata"),
        execution_config: fields.take("execution_config").and_then(|node| execution_config(node, report)),
        access_groups: fields
            .take("access_groups")
            .is_some()
            .then(|| fields.texts("access_groups").into_iter().map(|text| text.value).collect()),
    }
}

fn slurm_defaults(fields: &mut Fields<'_, '_>) -> Option<std::collections::BTreeMap<String, serde_json::Value>> {
    for (key, _) in fields.map("slurm_defaults").unwrap_or_default() {
        if SLURM_DEFAULTS_EXCLUDED.contains(&key.value.to_lowercase().as_str()) {
            let message = format!("`{}` cannot be among the `slurm_defaults`", key.value);
            let help = || Some("it belongs to each of the `slurm_schedulers`".to_owned());
            fields.report().error_with(Kind::BadValue, key.at, message, help);
        }
    }
    json_map(fields, "slurm_defaults")
}

fn resource_monitor(node: &Node, report: &Report<'_>) -> Option<ResourceMonitorConfig> {
    let mut fields = Fields::of(node, "resource_monitor", report)?;
    let default = ResourceMonitorConfig::default();
    let config = ResourceMonitorConfig {
        enabled: fields.bool("enabled").unwrap_or_default(),
        granularity: granularity(&mut fields),
        sample_interval_seconds: fields.int32("sample_interval_seconds").unwrap_or(default.sample_interval_seconds),
        flush_interval_seconds: fields.int32("flush_interval_seconds").unwrap_or(default.flush_interval_seconds),
        generate_plots: fields.bool("generate_plots").unwrap_or_default(),
        jobs: fields.take("jobs").and_then(|node| job_monitor(node, report)),
        compute_node: fields.take("compute_node").and_then(|node| compute_node_monitor(node, report)),
    };
    fields.finish_leniently();
    Some(config)
}

fn job_monitor(node: &Node, report: &Report<'_>) -> Option<JobMonitorConfig> {
    let mut fields = Fields::of(node, "jobs of resource_monitor", report)?;
    let config =
        JobMonitorConfig { enabled: fields.bool("enabled").unwrap_or_default(), granularity: granularity(&mut fields) };
    fields.finish_leniently();
    Some(config)
}

fn compute_node_monitor(node: &Node, report: &Report<'_>) -> Option<ComputeNodeMonitorConfig> {
    let mut fields = Fields::of(node, "compute_node of resource_monitor", report)?;
    let config = ComputeNodeMonitorConfig {
        enabled: fields.bool("enabled").unwrap_or_default(),
        granularity: granularity(&mut fields),
        cpu: fields.bool("cpu").unwrap_or(true),
        memory: fields.bool("memory").unwrap_or(true),
    };
    fields.finish_leniently();
    Some(config)
}

fn granularity(fields: &mut Fields<'_, '_>) -> MonitorGranularity {
    let words = [("summary", MonitorGranularity::Summary), ("time_series", MonitorGranularity::TimeSeries)];
    fields.word("granularity", &words).unwrap_or_default()
}

fn execution_config(node: &Node, report: &Report<'_>) -> Option<ExecutionConfig> {
    let mut fields = Fields::of(node, "execution_config", report)?;
    let modes = [("direct", ExecutionMode::Direct), ("slurm", ExecutionMode::Slurm), ("auto", ExecutionMode::Auto)];
    let plain = |text: Option<Text>| text.map(|text| text.value);
    let config = ExecutionConfig {
        mode: fields.word("mode", &modes).unwrap_or_default(),
        sigkill_headroom_seconds: fields.int_from("sigkill_headroom_seconds", 0),
        timeout_exit_code: fields.int32("timeout_exit_code"),
        staggered_start: fields.bool("staggered_start"),
        limit_resources: fields.bool("limit_resources"),
        termination_signal: plain(fields.text("termination_signal")),
        sigterm_lead_seconds: fields.int_from("sigterm_lead_seconds", 0),
        oom_exit_code: fields.int32("oom_exit_code"),
        srun_termination_signal: plain(fields.text("srun_termination_signal")),
        srun_mpi: plain(fields.text("srun_mpi")),
        enable_cpu_bind: fields.bool("enable_cpu_bind"),
        stdio: fields.take("stdio").and_then(|node| stdio(node, report)),
        job_stdio_overrides: fields.map("job_stdio_overrides").map(|entries| {
            let entries = entries.iter().filter_map(|(name, node)| Some((name.value.clone(), stdio(node, report)?)));
            entries.collect()
        }),
    };
    let mode_fields: &[&str] = match config.mode {
        ExecutionMode::Slurm => &["termination_signal", "sigterm_lead_seconds", "oom_exit_code"],
        ExecutionMode::Direct => &["srun_termination_signal", "enable_cpu_bind"],
        ExecutionMode::Auto => &[],
    };
    for name in mode_fields {
        if let Some(node) = node
            .get(name)
            .filter(|node| !matches!(node.value, crate::node::Value::Null | crate::node::Value::Bool(false)))
        {
            let mode = if config.mode == ExecutionMode::Slurm { "slurm" } else { "direct" };
            report.error(Kind::Conflict, node.at, format!("`{name}` has no meaning in {mode} mode"));
        }
    }
    fields.finish();
    Some(config)
}
