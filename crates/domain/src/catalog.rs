//! The catalog: what is stored for people and runners and decides nothing. Each table is
//! described once, here, as plain data; one piece of generic code stores, filters, sorts and
//! lists them all.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::ids::WorkflowId;

/// A value of a catalog row.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Null,
    Int(i64),
    Real(f64),
    Text(Box<str>),
}

/// The values of a row, in the order of its table's columns. The first is the id.
pub type Row = Box<[Value]>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Int,
    Real,
    Text,
}

/// A column, what may be asked of it, and whether it is NULL-able.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub nullable: bool,
    /// Callers may filter by it.
    pub filter: bool,
    /// Callers may sort by it.
    pub sort: bool,
}

/// The tables of the catalog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Table {
    Workflow,
    Requirement,
    File,
    UserData,
    Node,
    Handler,
    Event,
    Result,
    Action,
    LocalScheduler,
    SlurmScheduler,
    ScheduledNode,
    Task,
    Application,
}

/// Every table, in the order of its number.
pub const TABLES: [Table; 14] = [
    Table::Workflow,
    Table::Requirement,
    Table::File,
    Table::UserData,
    Table::Node,
    Table::Handler,
    Table::Event,
    Table::Result,
    Table::Action,
    Table::LocalScheduler,
    Table::SlurmScheduler,
    Table::ScheduledNode,
    Table::Task,
    Table::Application,
];

const fn column(name: &'static str, kind: Kind, nullable: bool, filter: bool, sort: bool) -> Column {
    Column { name, kind, nullable, filter, sort }
}

/// Not null, may be filtered and sorted by.
const fn key(name: &'static str, kind: Kind) -> Column {
    column(name, kind, false, true, true)
}

/// May be null, may be filtered and sorted by.
const fn opt(name: &'static str, kind: Kind) -> Column {
    column(name, kind, true, true, true)
}

/// May be null; only carried. JSON documents among them.
const fn held(name: &'static str, kind: Kind) -> Column {
    column(name, kind, true, false, false)
}

use Kind::{Int, Real, Text};

/// Its id, then (except for the workflow itself) the workflow that it belongs to.
const WORKFLOW: &[Column] = &[
    key("id", Int),
    key("name", Text),
    opt("description", Text),
    key("user", Text),
    key("timestamp", Text),
    opt("project", Text),
    held("metadata", Text),
    held("env", Text),
    held("submission_directory", Text),
    held("compute_node_expiration_buffer_seconds", Int),
    held("compute_node_wait_for_new_jobs_seconds", Int),
    held("compute_node_ignore_workflow_completion", Int),
    held("compute_node_wait_for_healthy_database_minutes", Int),
    held("compute_node_min_time_for_new_jobs_seconds", Int),
    held("resource_monitor_config", Text),
    held("slurm_defaults", Text),
    held("execution_config", Text),
    held("dynamic_jobs", Text),
    held("use_pending_failed", Int),
    held("enable_ro_crate", Int),
    // Ours: which file made it, and the hash of that file's expanded content.
    opt("source_path", Text),
    held("source_hash", Text),
];

const REQUIREMENT: &[Column] = &[
    key("id", Int),
    key("workflow_id", Int),
    key("name", Text),
    key("num_cpus", Int),
    key("num_gpus", Int),
    key("num_nodes", Int),
    key("memory", Text),
    key("runtime", Text),
];

const FILE: &[Column] =
    &[key("id", Int), key("workflow_id", Int), key("name", Text), key("path", Text), opt("st_mtime", Real)];

const USER_DATA: &[Column] = &[
    key("id", Int),
    key("workflow_id", Int),
    key("name", Text),
    key("is_ephemeral", Int),
    held("data", Text),
    // Ours: the data when the workflow was initialized last, where it was changed since.
    held("data_before", Text),
];

const NODE: &[Column] = &[
    key("id", Int),
    key("workflow_id", Int),
    key("hostname", Text),
    key("pid", Int),
    key("start_time", Text),
    opt("end_time", Text),
    opt("duration_seconds", Real),
    opt("is_active", Int),
    key("num_cpus", Int),
    key("memory_gb", Real),
    key("num_gpus", Int),
    key("num_nodes", Int),
    opt("time_limit", Text),
    opt("scheduler_config_id", Int),
    key("compute_node_type", Text),
    held("scheduler", Text),
    held("labels", Text),
    held("sample_count", Int),
    held("peak_cpu_percent", Real),
    held("avg_cpu_percent", Real),
    held("peak_memory_bytes", Int),
    held("avg_memory_bytes", Int),
];

const HANDLER: &[Column] =
    &[key("id", Int), key("workflow_id", Int), key("name", Text), column("rules", Text, false, false, false)];

const EVENT: &[Column] = &[key("id", Int), key("workflow_id", Int), key("timestamp", Int), held("data", Text)];

const RESULT: &[Column] = &[
    key("id", Int),
    key("workflow_id", Int),
    key("job_id", Int),
    key("run_id", Int),
    key("attempt_id", Int),
    key("compute_node_id", Int),
    key("return_code", Int),
    key("exec_time_minutes", Real),
    key("completion_time", Text),
    key("status", Int),
    opt("peak_memory_bytes", Int),
    opt("avg_memory_bytes", Int),
    opt("peak_cpu_percent", Real),
    opt("avg_cpu_percent", Real),
];

const ACTION: &[Column] = &[
    key("id", Int),
    key("workflow_id", Int),
    key("trigger_type", Text),
    key("action_type", Text),
    held("action_config", Text),
    held("job_ids", Text),
    key("trigger_count", Int),
    key("required_triggers", Int),
    key("executed", Int),
    held("executed_at", Text),
    held("executed_by", Int),
    key("persistent", Int),
    key("is_recovery", Int),
];

const LOCAL_SCHEDULER: &[Column] =
    &[key("id", Int), key("workflow_id", Int), opt("name", Text), opt("memory", Text), opt("num_cpus", Int)];

const SLURM_SCHEDULER: &[Column] = &[
    key("id", Int),
    key("workflow_id", Int),
    opt("name", Text),
    key("account", Text),
    opt("gres", Text),
    opt("mem", Text),
    key("nodes", Int),
    opt("ntasks_per_node", Int),
    opt("partition", Text),
    opt("qos", Text),
    opt("tmp", Text),
    key("walltime", Text),
    opt("extra", Text),
    opt("serialize_allocations", Int),
];

const SCHEDULED_NODE: &[Column] = &[
    key("id", Int),
    key("workflow_id", Int),
    key("scheduler_id", Int),
    key("scheduler_config_id", Int),
    key("scheduler_type", Text),
    key("status", Text),
];

const TASK: &[Column] = &[
    key("id", Int),
    key("workflow_id", Int),
    key("operation", Text),
    key("status", Text),
    held("error", Text),
    key("created_at_ms", Int),
    held("started_at_ms", Int),
    held("finished_at_ms", Int),
];

/// Whose tasks an endless workflow has.
const APPLICATION: &[Column] = &[key("id", Int), key("workflow_id", Int), key("name", Text)];

impl Table {
    /// The name of the table in the store.
    pub fn name(self) -> &'static str {
        match self {
            Table::Workflow => "workflow",
            Table::Requirement => "resource_requirements",
            Table::File => "file",
            Table::UserData => "user_data",
            Table::Node => "compute_node",
            Table::Handler => "failure_handler",
            Table::Event => "event",
            Table::Result => "result",
            Table::Action => "workflow_action",
            Table::LocalScheduler => "local_scheduler",
            Table::SlurmScheduler => "slurm_scheduler",
            Table::ScheduledNode => "scheduled_compute_node",
            Table::Task => "task",
            Table::Application => "application",
        }
    }

    pub fn columns(self) -> &'static [Column] {
        match self {
            Table::Workflow => WORKFLOW,
            Table::Requirement => REQUIREMENT,
            Table::File => FILE,
            Table::UserData => USER_DATA,
            Table::Node => NODE,
            Table::Handler => HANDLER,
            Table::Event => EVENT,
            Table::Result => RESULT,
            Table::Action => ACTION,
            Table::LocalScheduler => LOCAL_SCHEDULER,
            Table::SlurmScheduler => SLURM_SCHEDULER,
            Table::ScheduledNode => SCHEDULED_NODE,
            Table::Task => TASK,
            Table::Application => APPLICATION,
        }
    }

    /// The place of a column in this table's rows.
    pub fn column(self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name == name)
    }
}

/// A change to the catalog. Each is a savepoint of its batch: it fails alone.
#[derive(Clone, PartialEq, Debug)]
pub enum Statement {
    /// The ids are set.
    Insert { table: Table, rows: Vec<Row> },
    /// `only_if` and `set` name columns by their place. Where a column of `only_if` holds something
    /// else, nothing changes and there is no row. Answers the row as it is then.
    Update { table: Table, id: i64, only_if: Vec<(usize, Value)>, set: Vec<(usize, Value)> },
    /// Answers the row as it was. What ties jobs to a file or to user data goes with it.
    Delete { table: Table, id: i64 },
    /// All rows of a workflow, with what ties jobs to them. Answers how many there were.
    DeleteAll { table: Table, workflow: WorkflowId },
}

/// What became of a statement.
#[derive(Clone, PartialEq, Debug)]
pub enum StatementOutcome {
    Inserted,
    /// The row, or `None` if there is none of that id.
    Row(Option<Row>),
    Count(u64),
    /// A constraint of the store refused it; nothing of it was done.
    Refused(Box<str>),
}

/// One condition of a list.
#[derive(Clone, PartialEq, Debug)]
pub enum Match {
    Equal(Value),
    /// A substring, without regard to ASCII case.
    Contains(Box<str>),
    /// Strictly greater.
    Above(Value),
}

/// Which part of a list, in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paging {
    pub offset: u64,
    pub limit: u64,
    /// The place of the column to sort by; by id otherwise, and by id among equals.
    pub sort_by: Option<usize>,
    pub reverse: bool,
}

/// A list of rows of one table. Every condition holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Query {
    pub table: Table,
    /// The column by its place, and what it must be.
    pub filters: Vec<(usize, Match)>,
    pub paging: Paging,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_begins_with_its_id_and_its_workflow() {
        for table in TABLES {
            let columns = table.columns();
            assert_eq!(columns[0].name, "id");
            if table != Table::Workflow {
                assert_eq!(columns[1].name, "workflow_id", "{table:?}");
            }
        }
    }
}
