//! A workflow file as it is written, before anything is expanded.

use std::collections::BTreeMap;

use forebay_wire::units::{duration_seconds, memory_bytes};
use forebay_wire::{DynamicJobsConfig, FailureHandlerRule, StdioConfig, StdioMode};

use crate::diagnostic::{Kind, Position, Report};
use crate::fields::Fields;
use crate::node::{Node, Text, Value};
use crate::parameters::Parameter;
use crate::settings;
use crate::tables::Tables;
use crate::workflow::{FailureHandler, ResourceRequirements, Settings, SlurmScheduler};

/// The fields of a workflow file.
pub(crate) struct Spec {
    pub(crate) settings: Settings,
    /// Values may hold templates of workflow-level parameters.
    pub(crate) env: Vec<(Text, Text)>,
    pub(crate) parameters: Option<Vec<Parameter>>,
    pub(crate) parameters_file: Option<Text>,
    pub(crate) jobs: Vec<(JobSpec, Expansion)>,
    pub(crate) files: Vec<(FileSpec, Expansion)>,
    pub(crate) user_data: Vec<(UserDataSpec, Expansion)>,
    pub(crate) resource_requirements: Vec<(Text, ResourceRequirements)>,
    pub(crate) failure_handlers: Vec<(Text, FailureHandler)>,
    pub(crate) slurm_schedulers: Vec<(Text, SlurmScheduler)>,
    pub(crate) actions: Vec<ActionSpec>,
    /// Where fields stand that are read but not carried out, for the notices.
    pub(crate) places: Places,
}

/// Where some fields of the file stand, if they are there.
#[derive(Default)]
pub(crate) struct Places {
    pub(crate) actions: Option<Position>,
    pub(crate) slurm_schedulers: Option<Position>,
    pub(crate) slurm_defaults: Option<Position>,
    pub(crate) dynamic_jobs: Option<Position>,
    pub(crate) enable_ro_crate: Option<Position>,
    pub(crate) access_groups: Option<Position>,
    pub(crate) execution_config: Option<Position>,
    pub(crate) resource_monitor: Option<Position>,
    pub(crate) expiration_buffer: Option<Position>,
}

/// What a template is expanded over.
#[derive(Default)]
pub(crate) struct Expansion {
    pub(crate) parameters: Option<Vec<Parameter>>,
    pub(crate) mode: Option<(ParameterMode, Position)>,
    pub(crate) use_parameters: Option<Vec<Text>>,
    pub(crate) parameters_file: Option<Text>,
    /// Where `use_parameters_file: true` stands.
    pub(crate) use_parameters_file: Option<Position>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParameterMode {
    Product,
    Zip,
}

/// A job, or the template of many.
#[derive(Clone, Default)]
pub(crate) struct JobSpec {
    pub(crate) name: Text,
    pub(crate) command: Text,
    pub(crate) invocation_script: Option<Text>,
    pub(crate) env: Vec<(Text, Text)>,
    pub(crate) cancel_on_blocking_job_failure: Option<bool>,
    pub(crate) resource_requirements: Option<Text>,
    pub(crate) failure_handler: Option<Text>,
    pub(crate) scheduler: Option<Text>,
    pub(crate) depends_on: Wanted,
    pub(crate) input_files: Wanted,
    pub(crate) output_files: Wanted,
    pub(crate) input_user_data: Wanted,
    pub(crate) output_user_data: Wanted,
    pub(crate) stdio: Option<StdioConfig>,
    pub(crate) priority: Option<i64>,
    pub(crate) labels: Vec<Text>,
}

/// What a job refers to, by name and by regular expression.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) names: Vec<Text>,
    pub(crate) regexes: Vec<Text>,
}

#[derive(Clone, Default)]
pub(crate) struct FileSpec {
    pub(crate) name: Text,
    pub(crate) path: Text,
    pub(crate) identifier: Option<Text>,
    pub(crate) st_mtime: Option<f64>,
}

#[derive(Clone, Default)]
pub(crate) struct UserDataSpec {
    pub(crate) name: Text,
    pub(crate) is_ephemeral: Option<bool>,
    pub(crate) data: Option<Node>,
}

pub(crate) struct ActionSpec {
    pub(crate) trigger_type: String,
    pub(crate) action_type: String,
    pub(crate) jobs: Wanted,
    /// Whether `jobs` or `job_name_regexes` is there.
    pub(crate) names_jobs: bool,
    pub(crate) commands: Vec<String>,
    pub(crate) scheduler: Option<Text>,
    pub(crate) scheduler_type: Option<String>,
    pub(crate) num_allocations: Option<i64>,
    pub(crate) start_one_worker_per_node: Option<bool>,
    pub(crate) max_parallel_jobs: Option<i32>,
    pub(crate) persistent: Option<bool>,
}

impl Spec {
    /// Reads the fields of a document; mistakes are reported.
    pub(crate) fn decode(root: &Node, tables: &Tables, report: &Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(root, "a workflow", report)?;
        if let Some(node) = fields.take("slurm_config") {
            let help = || Some("write `execution_config` instead".to_owned());
            report.error_with(Kind::UnknownField, node.at, "`slurm_config` is not a field any more", help);
        }
        let reader = Reader { tables, report };
        let places = places(root);
        let settings = settings::decode(&mut fields);
        let spec = Self {
            settings,
            env: env(&mut fields),
            parameters: reader.parameters(&mut fields),
            parameters_file: fields.text("parameters_file"),
            jobs: reader.items(&mut fields, "jobs", Reader::job),
            files: reader.items(&mut fields, "files", Reader::file),
            user_data: reader.items(&mut fields, "user_data", Reader::user_data),
            resource_requirements: reader.items(&mut fields, "resource_requirements", Reader::resource_requirements),
            failure_handlers: reader.items(&mut fields, "failure_handlers", Reader::failure_handler),
            slurm_schedulers: reader.items(&mut fields, "slurm_schedulers", Reader::slurm_scheduler),
            actions: reader.items(&mut fields, "actions", Reader::action),
            places,
        };
        if fields.take("jobs").is_none() {
            fields.missing("jobs");
        }
        // Put into the texts before; here only known.
        fields.take("variables");
        fields.finish();
        Some(spec)
    }
}

fn places(root: &Node) -> Places {
    let place = |name| root.get(name).filter(|node| !node.is_null()).map(|node| node.at);
    Places {
        actions: place("actions"),
        slurm_schedulers: place("slurm_schedulers"),
        slurm_defaults: place("slurm_defaults"),
        dynamic_jobs: place("dynamic_jobs"),
        enable_ro_crate: place("enable_ro_crate"),
        access_groups: place("access_groups"),
        execution_config: place("execution_config"),
        resource_monitor: place("resource_monitor"),
        expiration_buffer: place("compute_node_expiration_buffer_seconds"),
    }
}

struct Reader<'r> {
    tables: &'r Tables,
    report: &'r Report<'r>,
}

impl<'r> Reader<'r> {
    fn items<T>(&self, fields: &mut Fields<'_, 'r>, name: &'static str, read: fn(&Self, &Node) -> Option<T>) -> Vec<T> {
        let items = fields.list(name).unwrap_or_default();
        items.iter().filter_map(|node| read(self, node)).collect()
    }

    fn job(&self, node: &Node) -> Option<(JobSpec, Expansion)> {
        let mut fields = Fields::of(node, "a job", self.report)?;
        let job = JobSpec {
            name: fields.required_text("name"),
            command: fields.required_text("command"),
            invocation_script: fields.text("invocation_script"),
            env: env(&mut fields),
            cancel_on_blocking_job_failure: fields.bool("cancel_on_blocking_job_failure"),
            resource_requirements: fields.text("resource_requirements"),
            failure_handler: fields.text("failure_handler"),
            scheduler: fields.text("scheduler"),
            depends_on: wanted(&mut fields, "depends_on", "depends_on_regexes"),
            input_files: wanted(&mut fields, "input_files", "input_file_regexes"),
            output_files: wanted(&mut fields, "output_files", "output_file_regexes"),
            input_user_data: wanted(&mut fields, "input_user_data", "input_user_data_regexes"),
            output_user_data: wanted(&mut fields, "output_user_data", "output_user_data_regexes"),
            stdio: fields.take("stdio").and_then(|node| stdio(node, self.report)),
            priority: fields.int_from("priority", 0),
            labels: fields.texts("labels"),
        };
        // Accepted and without effect, as in torc, which deprecates it.
        fields.bool("supports_termination");
        let expansion = self.expansion(&mut fields);
        fields.finish();
        Some((job, expansion))
    }

    fn file(&self, node: &Node) -> Option<(FileSpec, Expansion)> {
        let mut fields = Fields::of(node, "a file", self.report)?;
        let file = FileSpec {
            name: fields.required_text("name"),
            path: fields.required_text("path"),
            identifier: fields.text("identifier"),
            st_mtime: fields.float("st_mtime"),
        };
        let expansion = self.expansion(&mut fields);
        fields.finish();
        Some((file, expansion))
    }

    fn user_data(&self, node: &Node) -> Option<(UserDataSpec, Expansion)> {
        let mut fields = Fields::of(node, "user data", self.report)?;
        let user_data = UserDataSpec {
            name: fields.required_text("name"),
            is_ephemeral: fields.bool("is_ephemeral"),
            data: fields.take("data").cloned(),
        };
        let expansion = self.expansion(&mut fields);
        fields.finish();
        Some((user_data, expansion))
    }

    fn resource_requirements(&self, node: &Node) -> Option<(Text, ResourceRequirements)> {
        let report = self.report;
        let mut fields = Fields::of(node, "resource requirements", report)?;
        let name = fields.required_text("name");
        if name.value == "default" {
            let help = || Some("every workflow has a `default` of its own (1 cpu, 1m): take another name".to_owned());
            report.error_with(Kind::DuplicateName, name.at, "the name `default` is taken", help);
        }
        if fields.take("num_cpus").is_none() {
            fields.missing("num_cpus");
        }
        let memory = fields.required_text("memory");
        if let Err(bad) = memory_bytes(&memory.value)
            && memory.at != Position::default()
        {
            let message = format!("`memory` cannot be `{}`: {bad}", memory.value);
            let help = || Some("write a whole number and k, m, g or t: 512m".to_owned());
            report.error_with(Kind::BadMemory, memory.at, message, help);
        }
        let runtime = fields.text("runtime");
        if let Some(runtime) = &runtime
            && let Err(bad) = duration_seconds(&runtime.value)
        {
            let message = format!("`runtime` cannot be `{}`: {bad}", runtime.value);
            let help = || Some("write an ISO 8601 duration: PT30M, PT2H, P1DT12H".to_owned());
            report.error_with(Kind::BadDuration, runtime.at, message, help);
        }
        let requirements = ResourceRequirements {
            name: name.value.clone(),
            num_cpus: fields.int_from("num_cpus", 1).unwrap_or(1),
            num_gpus: fields.int_from("num_gpus", 0).unwrap_or(0),
            num_nodes: fields.int_from("num_nodes", 1).unwrap_or(1),
            memory: memory.value,
            runtime: runtime.map_or_else(|| "PT1H".to_owned(), |runtime| runtime.value),
        };
        fields.finish();
        Some((name, requirements))
    }

    fn failure_handler(&self, node: &Node) -> Option<(Text, FailureHandler)> {
        let mut fields = Fields::of(node, "a failure handler", self.report)?;
        let name = fields.required_text("name");
        if fields.take("rules").is_none() {
            fields.missing("rules");
        }
        let rules = self.items(&mut fields, "rules", Self::rule);
        fields.finish();
        Some((name.clone(), FailureHandler { name: name.value, rules }))
    }

    fn rule(&self, node: &Node) -> Option<FailureHandlerRule> {
        let mut fields = Fields::of(node, "a rule", self.report)?;
        let codes = fields.list("exit_codes").unwrap_or_default();
        let exit_codes = codes.iter().filter_map(|code| match code.value {
            Value::Int(number) if i32::try_from(number).is_ok() => i32::try_from(number).ok(),
            _ => fields.wrong(code, "exit_codes", "a list of exit codes"),
        });
        let exit_codes: Vec<i32> = exit_codes.collect();
        let rule = FailureHandlerRule {
            exit_codes,
            match_all_exit_codes: fields.bool("match_all_exit_codes").unwrap_or(false),
            recovery_script: fields.text("recovery_script").map(|text| text.value),
            max_retries: fields.int32("max_retries").unwrap_or(3),
        };
        fields.finish();
        Some(rule)
    }

    fn slurm_scheduler(&self, node: &Node) -> Option<(Text, SlurmScheduler)> {
        let mut fields = Fields::of(node, "a Slurm scheduler", self.report)?;
        let name = fields.text("name");
        let plain = |text: Option<Text>| text.map(|text| text.value);
        let scheduler = SlurmScheduler {
            name: name.as_ref().map(|name| name.value.clone()).unwrap_or_default(),
            account: fields.required_text("account").value,
            gres: plain(fields.text("gres")),
            mem: plain(fields.text("mem")),
            nodes: fields.int_from("nodes", 1).unwrap_or(1),
            ntasks_per_node: fields.int_from("ntasks_per_node", 1),
            partition: plain(fields.text("partition")),
            qos: plain(fields.text("qos")),
            tmp: plain(fields.text("tmp")),
            walltime: plain(fields.text("walltime")).unwrap_or_else(|| "01:00:00".to_owned()),
            extra: plain(fields.text("extra")),
            serialize_allocations: fields.bool("serialize_allocations"),
        };
        fields.finish();
        // Nothing can refer to a scheduler without a name: torc leaves it out too.
        name.map(|name| (name, scheduler))
    }

    fn action(&self, node: &Node) -> Option<ActionSpec> {
        let mut fields = Fields::of(node, "an action", self.report)?;
        let triggers = [
            "on_workflow_start",
            "on_workflow_complete",
            "on_worker_start",
            "on_worker_complete",
            "on_jobs_ready",
            "on_jobs_complete",
        ];
        for name in ["trigger_type", "action_type"] {
            if fields.take(name).is_none() {
                fields.missing(name);
            }
        }
        let names_jobs = fields.take("jobs").is_some() || fields.take("job_name_regexes").is_some();
        let action = ActionSpec {
            trigger_type: fields.word("trigger_type", &triggers.map(|word| (word, word))).unwrap_or("").to_owned(),
            action_type: fields
                .word("action_type", &["run_commands", "schedule_nodes"].map(|word| (word, word)))
                .unwrap_or("")
                .to_owned(),
            jobs: wanted(&mut fields, "jobs", "job_name_regexes"),
            names_jobs,
            commands: fields.texts("commands").into_iter().map(|text| text.value).collect(),
            scheduler: fields.text("scheduler"),
            scheduler_type: fields.text("scheduler_type").map(|text| text.value),
            num_allocations: fields.int_from("num_allocations", 1),
            start_one_worker_per_node: fields.bool("start_one_worker_per_node"),
            max_parallel_jobs: fields.int32("max_parallel_jobs"),
            persistent: fields.bool("persistent"),
        };
        if fields.take("commands").is_none() && action.action_type == "run_commands" {
            fields.missing("commands");
        }
        if action.action_type == "schedule_nodes" {
            for name in ["scheduler", "scheduler_type"] {
                if fields.take(name).is_none() {
                    fields.missing(name);
                }
            }
        }
        if action.trigger_type.starts_with("on_jobs") && action.jobs.names.is_empty() && action.jobs.regexes.is_empty()
        {
            fields.missing("jobs");
        }
        fields.finish();
        Some(action)
    }

    fn expansion(&self, fields: &mut Fields<'_, 'r>) -> Expansion {
        let modes = [("product", ParameterMode::Product), ("zip", ParameterMode::Zip)];
        let mode_at = fields.take("parameter_mode").map(|node| node.at);
        let table_at = fields.take("use_parameters_file").map(|node| node.at);
        let named = fields.take("use_parameters").is_some();
        let use_parameters = fields.texts("use_parameters");
        Expansion {
            parameters: self.parameters(fields),
            mode: fields.word("parameter_mode", &modes).zip(mode_at),
            use_parameters: named.then_some(use_parameters),
            parameters_file: fields.text("parameters_file"),
            use_parameters_file: fields.bool("use_parameters_file").filter(|wanted| *wanted).and(table_at),
        }
    }

    fn parameters(&self, fields: &mut Fields<'_, 'r>) -> Option<Vec<Parameter>> {
        let entries = fields.map("parameters")?;
        let read = |(name, node): &(Text, Node)| Parameter::read(name, node, self.tables.directory(), self.report);
        Some(entries.iter().filter_map(read).collect())
    }
}

fn wanted(fields: &mut Fields<'_, '_>, names: &'static str, regexes: &'static str) -> Wanted {
    Wanted { names: fields.texts(names), regexes: fields.texts(regexes) }
}

/// Reads `env`, whose keys are names of environment variables.
fn env(fields: &mut Fields<'_, '_>) -> Vec<(Text, Text)> {
    let env = fields.text_map("env");
    for (name, _) in env.iter().filter(|(name, _)| !forebay_wire::is_env_name(&name.value)) {
        let message = format!("`{}` cannot be the name of an environment variable", name.value);
        let help = || Some("names are letters, digits and underscores, and do not begin with a digit".to_owned());
        fields.report().error_with(Kind::BadValue, name.at, message, help);
    }
    env
}

/// Reads a `stdio` map.
pub(crate) fn stdio(node: &Node, report: &Report<'_>) -> Option<StdioConfig> {
    let mut fields = Fields::of(node, "stdio", report)?;
    let modes = [
        ("separate", StdioMode::Separate),
        ("combined", StdioMode::Combined),
        ("no_stdout", StdioMode::NoStdout),
        ("no_stderr", StdioMode::NoStderr),
        ("none", StdioMode::None),
    ];
    let config = StdioConfig {
        mode: fields.word("mode", &modes).unwrap_or_default(),
        delete_on_success: fields.bool("delete_on_success"),
    };
    fields.finish();
    Some(config)
}

/// Reads `dynamic_jobs`.
pub(crate) fn dynamic_jobs(node: &Node, report: &Report<'_>) -> Option<DynamicJobsConfig> {
    let mut fields = Fields::of(node, "dynamic_jobs", report)?;
    let config = DynamicJobsConfig { max_iterations: fields.int_from("max_iterations", 1) };
    fields.finish();
    Some(config)
}

/// Reads a map of JSON values.
pub(crate) fn json_map(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<BTreeMap<String, serde_json::Value>> {
    let entries = fields.map(name)?;
    Some(entries.iter().map(|(key, node)| (key.value.clone(), node.to_json())).collect())
}
