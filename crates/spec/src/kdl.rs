//! KDL into the document that the same workflow has in YAML.
//!
//! In KDL a job is a node of its own, and a list is a node with several arguments or several
//! nodes of one name. The tables below say which node becomes which field and in what shape. They
//! know more than torc's own reader, which passes over what it does not know, even where torc's
//! examples use it: `depends_on_job`, `input_files`, `output_files`, `priority`.

use kdl::{KdlDocument, KdlEntry, KdlNode, KdlValue};

use crate::diagnostic::{Kind, Position, Report, did_you_mean};
use crate::json::{self, Dialect};
use crate::node::{Malformed, Node, Text, Value};

/// The nodes that may stand in some place.
struct Schema {
    /// What a person calls the place.
    place: &'static str,
    /// Whether the first argument is the `name`.
    named: bool,
    /// Whether unknown nodes are passed over with a notice, as torc does for these places in
    /// every format.
    lenient: bool,
    /// Node name, field name, shape.
    nodes: &'static [(&'static str, &'static str, Shape)],
}

#[derive(Clone, Copy)]
enum Shape {
    /// The one argument.
    Value,
    /// All arguments, of all nodes of this name.
    Values,
    /// Children as entries: their names and arguments.
    Map,
    /// Children as fields.
    Block(&'static Schema),
    /// One item of a list for each node of this name.
    Item(&'static Schema),
    /// A text that holds JSON.
    Json,
}

use Shape::{Block, Item, Json, Map, Value as One, Values};

const WORKFLOW: Schema = Schema {
    place: "a workflow",
    named: false,
    lenient: false,
    nodes: &[
        ("name", "name", One),
        ("user", "user", One),
        ("description", "description", One),
        ("parameters", "parameters", Map),
        ("parameters_file", "parameters_file", One),
        ("variables", "variables", Map),
        ("env", "env", Map),
        ("compute_node_expiration_buffer_seconds", "compute_node_expiration_buffer_seconds", One),
        ("compute_node_wait_for_new_jobs_seconds", "compute_node_wait_for_new_jobs_seconds", One),
        ("compute_node_ignore_workflow_completion", "compute_node_ignore_workflow_completion", One),
        ("compute_node_wait_for_healthy_database_minutes", "compute_node_wait_for_healthy_database_minutes", One),
        ("job", "jobs", Item(&JOB)),
        ("file", "files", Item(&FILE)),
        ("user_data", "user_data", Item(&USER_DATA)),
        ("resource_requirements", "resource_requirements", Item(&RESOURCE_REQUIREMENTS)),
        ("failure_handler", "failure_handlers", Item(&FAILURE_HANDLER)),
        ("slurm_scheduler", "slurm_schedulers", Item(&SLURM_SCHEDULER)),
        ("slurm_defaults", "slurm_defaults", Map),
        ("resource_monitor", "resource_monitor", Block(&RESOURCE_MONITOR)),
        ("action", "actions", Item(&ACTION)),
        ("dynamic_jobs", "dynamic_jobs", Block(&DYNAMIC_JOBS)),
        ("use_pending_failed", "use_pending_failed", One),
        ("enable_ro_crate", "enable_ro_crate", One),
        ("project", "project", One),
        ("metadata", "metadata", Json),
        ("execution_config", "execution_config", Block(&EXECUTION_CONFIG)),
        ("access_groups", "access_groups", Values),
    ],
};

const JOB: Schema = Schema {
    place: "a job",
    named: true,
    lenient: false,
    nodes: &[
        ("command", "command", One),
        ("invocation_script", "invocation_script", One),
        ("env", "env", Map),
        ("cancel_on_blocking_job_failure", "cancel_on_blocking_job_failure", One),
        ("supports_termination", "supports_termination", One),
        ("resource_requirements", "resource_requirements", One),
        ("failure_handler", "failure_handler", One),
        ("depends_on", "depends_on", Values),
        ("depends_on_job", "depends_on", Values),
        ("depends_on_regexes", "depends_on_regexes", Values),
        ("input_file", "input_files", Values),
        ("input_files", "input_files", Values),
        ("input_file_regexes", "input_file_regexes", Values),
        ("output_file", "output_files", Values),
        ("output_files", "output_files", Values),
        ("output_file_regexes", "output_file_regexes", Values),
        ("input_user_data", "input_user_data", Values),
        ("input_user_data_regexes", "input_user_data_regexes", Values),
        ("output_user_data", "output_user_data", Values),
        ("output_user_data_regexes", "output_user_data_regexes", Values),
        ("scheduler", "scheduler", One),
        ("parameters", "parameters", Map),
        ("parameter_mode", "parameter_mode", One),
        ("use_parameters", "use_parameters", Values),
        ("parameters_file", "parameters_file", One),
        ("use_parameters_file", "use_parameters_file", One),
        ("stdio", "stdio", Block(&STDIO)),
        ("priority", "priority", One),
        ("labels", "labels", Values),
    ],
};

const FILE: Schema = Schema {
    place: "a file",
    named: true,
    lenient: false,
    nodes: &[
        ("path", "path", One),
        ("identifier", "identifier", One),
        ("st_mtime", "st_mtime", One),
        ("parameters", "parameters", Map),
        ("parameter_mode", "parameter_mode", One),
        ("use_parameters", "use_parameters", Values),
        ("parameters_file", "parameters_file", One),
        ("use_parameters_file", "use_parameters_file", One),
    ],
};

const USER_DATA: Schema = Schema {
    place: "user data",
    named: true,
    lenient: false,
    nodes: &[
        ("is_ephemeral", "is_ephemeral", One),
        ("data", "data", Json),
        ("parameters", "parameters", Map),
        ("parameter_mode", "parameter_mode", One),
        ("use_parameters", "use_parameters", Values),
        ("parameters_file", "parameters_file", One),
        ("use_parameters_file", "use_parameters_file", One),
    ],
};

const RESOURCE_REQUIREMENTS: Schema = Schema {
    place: "resource requirements",
    named: true,
    lenient: false,
    nodes: &[
        ("num_cpus", "num_cpus", One),
        ("num_gpus", "num_gpus", One),
        ("num_nodes", "num_nodes", One),
        ("memory", "memory", One),
        ("runtime", "runtime", One),
    ],
};

const FAILURE_HANDLER: Schema =
    Schema { place: "a failure handler", named: true, lenient: false, nodes: &[("rule", "rules", Item(&RULE))] };

const RULE: Schema = Schema {
    place: "a rule",
    named: false,
    lenient: false,
    nodes: &[
        ("exit_codes", "exit_codes", Values),
        ("match_all_exit_codes", "match_all_exit_codes", One),
        ("recovery_script", "recovery_script", One),
        ("max_retries", "max_retries", One),
    ],
};

const SLURM_SCHEDULER: Schema = Schema {
    place: "a Slurm scheduler",
    named: true,
    lenient: false,
    nodes: &[
        ("account", "account", One),
        ("gres", "gres", One),
        ("mem", "mem", One),
        ("nodes", "nodes", One),
        ("ntasks_per_node", "ntasks_per_node", One),
        ("partition", "partition", One),
        ("qos", "qos", One),
        ("tmp", "tmp", One),
        ("walltime", "walltime", One),
        ("extra", "extra", One),
        ("serialize_allocations", "serialize_allocations", One),
    ],
};

const ACTION: Schema = Schema {
    place: "an action",
    named: false,
    lenient: false,
    nodes: &[
        ("trigger_type", "trigger_type", One),
        ("action_type", "action_type", One),
        ("job", "jobs", Values),
        ("jobs", "jobs", Values),
        ("job_name_regexes", "job_name_regexes", Values),
        ("command", "commands", Values),
        ("commands", "commands", Values),
        ("scheduler", "scheduler", One),
        ("scheduler_type", "scheduler_type", One),
        ("num_allocations", "num_allocations", One),
        ("start_one_worker_per_node", "start_one_worker_per_node", One),
        ("max_parallel_jobs", "max_parallel_jobs", One),
        ("persistent", "persistent", One),
    ],
};

const DYNAMIC_JOBS: Schema =
    Schema { place: "dynamic_jobs", named: false, lenient: false, nodes: &[("max_iterations", "max_iterations", One)] };

const RESOURCE_MONITOR: Schema = Schema {
    place: "resource_monitor",
    named: false,
    lenient: true,
    nodes: &[
        ("enabled", "enabled", One),
        ("granularity", "granularity", One),
        ("sample_interval_seconds", "sample_interval_seconds", One),
        ("flush_interval_seconds", "flush_interval_seconds", One),
        ("generate_plots", "generate_plots", One),
        ("jobs", "jobs", Block(&MONITOR_SCOPE)),
        ("compute_node", "compute_node", Block(&MONITOR_SCOPE)),
    ],
};

const MONITOR_SCOPE: Schema = Schema {
    place: "a scope of resource_monitor",
    named: false,
    lenient: true,
    nodes: &[
        ("enabled", "enabled", One),
        ("granularity", "granularity", One),
        ("cpu", "cpu", One),
        ("memory", "memory", One),
    ],
};

const EXECUTION_CONFIG: Schema = Schema {
    place: "execution_config",
    named: false,
    lenient: false,
    nodes: &[
        ("mode", "mode", One),
        ("limit_resources", "limit_resources", One),
        ("enable_cpu_bind", "enable_cpu_bind", One),
        ("staggered_start", "staggered_start", One),
        ("termination_signal", "termination_signal", One),
        ("srun_termination_signal", "srun_termination_signal", One),
        ("srun_mpi", "srun_mpi", One),
        ("sigterm_lead_seconds", "sigterm_lead_seconds", One),
        ("sigkill_headroom_seconds", "sigkill_headroom_seconds", One),
        ("timeout_exit_code", "timeout_exit_code", One),
        ("oom_exit_code", "oom_exit_code", One),
        ("stdio", "stdio", Block(&STDIO)),
    ],
};

const STDIO: Schema = Schema {
    place: "stdio",
    named: false,
    lenient: false,
    nodes: &[("mode", "mode", One), ("delete_on_success", "delete_on_success", One)],
};

/// Reads one KDL document. Nodes that workflow files do not have are reported.
pub(crate) fn read(source: &str, report: &Report<'_>) -> Result<Node, Malformed> {
    let places = Places::new(source);
    let document = KdlDocument::parse(source).map_err(|error| malformed(&error, &places))?;
    let reader = Reader { places, report };
    let mut fields = Vec::new();
    reader.children(document.nodes(), &WORKFLOW, &mut fields);
    if !fields.iter().any(|(key, _): &(Text, Node)| key.value == "jobs") {
        let key = Text { value: "jobs".to_owned(), at: Position::default() };
        fields.push((key, Node::new(Value::List(Vec::new()), Position::default())));
    }
    Ok(Node::new(Value::Map(fields), Position::new(1, 1)))
}

struct Reader<'s, 'r> {
    places: Places<'s>,
    report: &'r Report<'s>,
}

type Fields = Vec<(Text, Node)>;

impl Reader<'_, '_> {
    fn children(&self, nodes: &[KdlNode], schema: &Schema, fields: &mut Fields) {
        for node in nodes {
            let name = node.name().value();
            let at = self.places.of(node.name().span().offset());
            match schema.nodes.iter().find(|(known, ..)| *known == name) {
                Some((_, field, shape)) => self.node(node, at, field, *shape, fields),
                None => self.unknown(name, at, schema),
            }
        }
    }

    fn node(&self, node: &KdlNode, at: Position, field: &'static str, shape: Shape, fields: &mut Fields) {
        let key = Text { value: field.to_owned(), at };
        if !matches!(shape, Values | Item(_)) && fields.iter().any(|(known, _)| known.value == field) {
            self.report.error(Kind::Conflict, at, format!("`{field}` is there twice"));
            return;
        }
        if matches!(shape, One | Values | Json) && node.children().is_some() {
            self.report.error(Kind::BadValue, at, format!("`{field}` takes no block"));
            return;
        }
        match shape {
            One => fields.extend(self.argument(node, at).map(|value| (key, value))),
            Json => fields.extend(self.json(node, at).map(|value| (key, value))),
            Values => {
                if node.entries().iter().any(|entry| entry.name().is_some()) {
                    self.report.error(Kind::BadValue, at, format!("`{field}` takes values without names"));
                }
                list(fields, key).extend(node.entries().iter().map(|entry| self.value(entry)));
            }
            Map => {
                let entries = node.children().map_or(&[][..], KdlDocument::nodes).iter();
                let entries = entries.filter_map(|entry| self.map_entry(entry)).collect();
                fields.push((key, Node::new(Value::Map(entries), at)));
            }
            Block(schema) => {
                let block = self.block(node, at, schema);
                fields.push((key, block));
            }
            Item(schema) => {
                let item = self.block(node, at, schema);
                list(fields, key).push(item);
            }
        }
    }

    /// A node whose properties and children are fields.
    fn block(&self, node: &KdlNode, at: Position, schema: &Schema) -> Node {
        let mut fields = Vec::new();
        let mut arguments = 0;
        for entry in node.entries() {
            let place = self.places.of(entry.span().offset());
            let Some(property) = entry.name() else {
                arguments += 1;
                if schema.named && arguments == 1 {
                    let key = Text { value: "name".to_owned(), at: place };
                    fields.push((key, self.value(entry)));
                } else {
                    let message = format!("{} takes no argument here: `{}`", schema.place, entry.value());
                    self.report.error(Kind::BadValue, place, message);
                }
                continue;
            };
            match schema.nodes.iter().find(|(known, ..)| *known == property.value()) {
                Some((_, field, One)) => {
                    let key = Text { value: (*field).to_owned(), at: place };
                    fields.push((key, self.value(entry)));
                }
                Some(_) => {
                    let message = format!("`{}` is a node, not a property", property.value());
                    self.report.error(Kind::BadValue, place, message);
                }
                None => self.unknown(property.value(), place, schema),
            }
        }
        let children = node.children().map_or(&[][..], KdlDocument::nodes);
        self.children(children, schema, &mut fields);
        Node::new(Value::Map(fields), at)
    }

    fn map_entry(&self, node: &KdlNode) -> Option<(Text, Node)> {
        let at = self.places.of(node.name().span().offset());
        let key = Text { value: node.name().value().to_owned(), at };
        let value = match node.entries() {
            [_, _, ..] => Node::new(Value::List(node.entries().iter().map(|entry| self.value(entry)).collect()), at),
            _ => self.argument(node, at)?,
        };
        Some((key, value))
    }

    /// The one argument of a node.
    fn argument(&self, node: &KdlNode, at: Position) -> Option<Node> {
        match node.entries() {
            [entry] if entry.name().is_none() => Some(self.value(entry)),
            [] => {
                self.report.error(Kind::BadValue, at, format!("`{}` needs a value", node.name().value()));
                None
            }
            _ => {
                self.report.error(Kind::BadValue, at, format!("`{}` takes one value", node.name().value()));
                None
            }
        }
    }

    fn json(&self, node: &KdlNode, at: Position) -> Option<Node> {
        let argument = self.argument(node, at)?;
        let Value::Text(text) = &argument.value else { return Some(argument) };
        match json::read(text, Dialect::Json) {
            Ok(mut value) => {
                move_to(&mut value, argument.at);
                Some(value)
            }
            Err(error) => {
                let message = format!("`{}` has to hold JSON: {}", node.name().value(), error.message);
                self.report.error(Kind::BadValue, argument.at, message);
                None
            }
        }
    }

    fn value(&self, entry: &KdlEntry) -> Node {
        let at = self.places.of(entry.span().offset());
        let value = match entry.value() {
            KdlValue::String(text) => Value::Text(text.clone()),
            KdlValue::Integer(number) => match i64::try_from(*number) {
                Ok(number) => Value::Int(number),
                Err(_) => Value::Float(*number as f64),
            },
            KdlValue::Float(number) => Value::Float(*number),
            KdlValue::Bool(flag) => Value::Bool(*flag),
            KdlValue::Null => Value::Null,
        };
        Node::new(value, at)
    }

    fn unknown(&self, name: &str, at: Position, schema: &Schema) {
        if schema.lenient {
            self.report.notice(at, format!("`{name}` in {} has no effect: it is not known", schema.place));
            return;
        }
        let message = format!("unknown node `{name}` in {}", schema.place);
        let known = schema.nodes.iter().map(|(known, ..)| *known);
        self.report.error_with(Kind::UnknownField, at, message, || did_you_mean(name, known));
    }
}

/// The list of this field, made if it is not there.
fn list(fields: &mut Fields, key: Text) -> &mut Vec<Node> {
    let index = fields.iter().position(|(known, _)| known.value == key.value).unwrap_or_else(|| {
        let at = key.at;
        fields.push((key, Node::new(Value::List(Vec::new()), at)));
        fields.len() - 1
    });
    match &mut fields[index].1.value {
        Value::List(items) => items,
        _ => unreachable!("a field has one shape"),
    }
}

fn move_to(node: &mut Node, at: Position) {
    node.at = at;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| move_to(item, at)),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, node)| {
            key.at = at;
            move_to(node, at);
        }),
        _ => {}
    }
}

/// Lines and columns of byte offsets.
struct Places<'s> {
    source: &'s str,
    line_starts: Vec<usize>,
}

impl<'s> Places<'s> {
    fn new(source: &'s str) -> Self {
        let starts = source.match_indices('\n').map(|(index, _)| index + 1);
        Self { source, line_starts: std::iter::once(0).chain(starts).collect() }
    }

    fn of(&self, offset: usize) -> Position {
        let offset = self.source.floor_char_boundary(offset.min(self.source.len()));
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let column = self.source[self.line_starts[line - 1]..offset].chars().count();
        Position::new(line, column + 1)
    }
}

fn malformed(error: &kdl::KdlError, places: &Places<'_>) -> Malformed {
    let Some(first) = error.diagnostics.first() else {
        return Malformed::new(Position::default(), "this is not KDL");
    };
    let message = first.message.as_ref().or(first.label.as_ref());
    Malformed {
        at: places.of(first.span.offset()),
        message: message.cloned().unwrap_or_else(|| "this is not KDL".to_owned()),
        help: first.help.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_clean(source: &str) -> Node {
        let report = Report::new("w.kdl", source);
        let node = read(source, &report).unwrap();
        report.check().unwrap();
        node
    }

    #[test]
    fn nodes_become_fields_lists_and_items() {
        let node = read_clean(
            r#"
            name "é"
            parameters { i "1:3"; k 1 2 }
            file "a" path="a.txt"
            job "one" { command "x"; input_file "a"; input_file "b"; labels "p" "q"; priority 3 }
            job "two" { command "y"; stdio { mode "combined"; delete_on_success #true } }
            user_data "u" { data "{\"k\": [1]}" }
            failure_handler "f" { rule { exit_codes 1 2 } }
            "#,
        );
        assert_eq!(
            node.to_json(),
            serde_json::json!({
                "name": "é",
                "parameters": {"i": "1:3", "k": [1, 2]},
                "files": [{"name": "a", "path": "a.txt"}],
                "jobs": [
                    {"name": "one", "command": "x", "input_files": ["a", "b"], "labels": ["p", "q"], "priority": 3},
                    {"name": "two", "command": "y", "stdio": {"mode": "combined", "delete_on_success": true}},
                ],
                "user_data": [{"name": "u", "data": {"k": [1]}}],
                "failure_handlers": [{"name": "f", "rules": [{"exit_codes": [1, 2]}]}],
            })
        );
    }

    #[test]
    fn places_count_characters() {
        let node = read_clean("name \"éé\"; user \"x\"\n\njob \"a\" { command \"b\" }\n");
        assert_eq!(node.get("user").unwrap().at, Position::new(1, 17));
        let Value::List(jobs) = &node.get("jobs").unwrap().value else { panic!("a list") };
        assert_eq!(jobs[0].at, Position::new(3, 1));
        assert_eq!(jobs[0].get("command").unwrap().at, Position::new(3, 19));
    }

    #[test]
    fn unknown_and_repeated_nodes_are_reported() {
        let source = "name \"a\"\nname \"b\"\njob \"x\" {\n  comand \"y\"\n}\nfile \"f\" pth=\"p\"\n";
        let report = Report::new("w.kdl", source);
        read(source, &report).unwrap();
        let error = report.check().unwrap_err();
        let lines: Vec<_> = error.diagnostics.iter().map(|d| (d.position.line, d.kind)).collect();
        assert_eq!(lines, [(2, Kind::Conflict), (4, Kind::UnknownField), (6, Kind::UnknownField)]);
        assert_eq!(error.diagnostics[1].help.as_deref(), Some("did you mean `command`?"));
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let source = "name \"a\"\njob \"x\" {\n  command \"y\n}\n";
        let report = Report::new("w.kdl", source);
        let error = read(source, &report).unwrap_err();
        assert!(error.at.line >= 3, "{error:?}");
    }
}
