//! The statements over one queue's table.

/// The name of the queue that the original sees.
pub(crate) const DEFAULT_QUEUE: &str = "";

/// Where a queue keeps its jobs' events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Events {
    /// In the job's row, as the original does.
    Column,
    /// In a table of their own, so that an append costs the same however long the log is.
    Table,
}

/// One queue's table, as it is in the file.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// Its name, quoted for SQL.
    pub(crate) table: String,
    pub(crate) events_table: String,
    /// The name's part in names of indexes.
    stem: String,
    pub(crate) events: Events,
    /// It has the columns for priorities, delays and leases.
    pub(crate) has_extras: bool,
    pub(crate) insert: String,
    pub(crate) get: String,
    pub(crate) append: String,
    pub(crate) delete: String,
    pub(crate) move_to: String,
    fields: String,
}

/// The name of a queue's table in the file.
pub(crate) fn table_name(queue: &str) -> String {
    if queue == DEFAULT_QUEUE { "job".to_owned() } else { format!("jobq:{queue}") }
}

/// The name of the table of a queue's events, if they are in a table.
pub(crate) fn events_name(queue: &str) -> String {
    if queue == DEFAULT_QUEUE { "job_event".to_owned() } else { format!("jobq_event:{queue}") }
}

/// Adds an event, `?1`, to the text of a log without parsing it: a log that was written by jobq
/// ends in `]]`.
const APPENDED: &str = "CASE \
    WHEN substr(events, -2) = ']]' THEN substr(events, 1, length(events) - 1) || ',' || ?1 || ']' \
    ELSE json_insert(events, '$[#]', json(?1)) END";

impl Table {
    pub(crate) fn new(queue: &str, events: Events, has_extras: bool) -> Self {
        let table = format!("\"{}\"", table_name(queue));
        let log = format!("\"{}\"", events_name(queue));
        let stem = table_name(queue);
        let (events_field, set_events) = match events {
            Events::Column => ("events".to_owned(), format!("events = {APPENDED}, ")),
            Events::Table => (
                format!(
                    "(SELECT '[' || coalesce(group_concat(event, ','), '') || ']' FROM \
                     (SELECT event FROM {log} WHERE job_id = j.id ORDER BY seq))"
                ),
                String::new(),
            ),
        };
        let fields = format!("id, payload, {events_field}, state, modified");
        let (insert_events, insert_value) = match events {
            Events::Column => ("events, ", "?3, "),
            Events::Table => ("", ""),
        };
        let (move_events, move_lease) = match (events, has_extras) {
            (Events::Column, true) => {
                ("events = ?1, ", ", due = ?5, back = ?6, attempt = coalesce(?7, attempt), hidden = 0")
            }
            (Events::Column, false) => ("events = ?1, ", ""),
            (Events::Table, true) => ("", ", due = ?5, back = ?6, attempt = coalesce(?7, attempt), hidden = 0"),
            (Events::Table, false) => ("", ""),
        };
        Table {
            insert: format!(
                "INSERT INTO {table} (payload, state, {insert_events}modified) \
                 VALUES (?1, ?2, {insert_value}?4)"
            ),
            get: format!("SELECT {fields} FROM {table} AS j WHERE id = ?1"),
            append: format!("UPDATE {table} SET {set_events}modified = ?2 WHERE id = ?3"),
            delete: format!("DELETE FROM {table} WHERE id = ?1"),
            move_to: format!(
                "UPDATE {table} SET {move_events}state = ?2, modified = ?3{move_lease} \
                 WHERE id = ?4"
            ),
            fields,
            table,
            events_table: log,
            stem,
            events,
            has_extras,
        }
    }

    /// The jobs for which `condition` holds, oldest first.
    pub(crate) fn query(&self, condition: &str, limit: Option<u64>) -> String {
        let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        format!("SELECT {} FROM {} AS j WHERE {condition} ORDER BY modified, id{limit}", self.fields, self.table)
    }

    /// The first `limit` jobs to poll for which `condition` holds, with their attempts.
    pub(crate) fn poll(&self, condition: &str, limit: u32) -> String {
        let (fields, table) = (&self.fields, &self.table);
        if self.has_extras {
            format!(
                "SELECT {fields}, attempt FROM {table} AS j WHERE hidden = 0 AND ({condition}) \
                 ORDER BY priority DESC, modified, id LIMIT {limit}"
            )
        } else {
            format!(
                "SELECT {fields}, 0 FROM {table} AS j WHERE {condition} \
                 ORDER BY modified, id LIMIT {limit}"
            )
        }
    }

    /// Makes polls by `expression` cost the same however many jobs there are.
    pub(crate) fn create_index(&self, expression: &str) -> String {
        let (table, name) = (&self.table, self.index_name(expression));
        let order = if self.has_extras { "hidden, priority DESC, modified" } else { "modified" };
        format!("CREATE INDEX IF NOT EXISTS \"{name}\" ON {table} ({expression}, {order})")
    }

    /// The start of the names of all indexes made for polls of this queue.
    pub(crate) fn index_stem(&self) -> String {
        format!("{}_by_", self.stem)
    }

    /// Differs with the expression and with the order.
    fn index_name(&self, expression: &str) -> String {
        // FNV-1a: the name must be the same in each process and each version.
        let hash = expression
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let order = if self.has_extras { "x" } else { "" };
        format!("{}{hash:016x}{order}", self.index_stem())
    }
}
