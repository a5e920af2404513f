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
    /// Over the columns for priorities, delays and leases.
    pub(crate) set_options: String,
    pub(crate) due: String,
    pub(crate) next_due: String,
    pub(crate) show: String,
    pub(crate) is_leased: String,
    pub(crate) renew: String,
    /// Over the table of events.
    pub(crate) log: String,
    pub(crate) drop_log: String,
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

/// Timers that one poll fires, so that it does not hold the file for long; the rest is for the next.
const TIMERS_MAX: usize = 100;

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
            set_options: format!("UPDATE {table} SET priority = ?1, hidden = ?2, due = ?3, retries = ?4 WHERE id = ?5"),
            due: format!(
                "SELECT id, back, attempt, retries FROM {table} \
                 WHERE due <= ?1 ORDER BY due LIMIT {TIMERS_MAX}"
            ),
            next_due: format!("SELECT min(due) FROM {table} WHERE due IS NOT NULL"),
            show: format!("UPDATE {table} SET hidden = 0, due = NULL WHERE id = ?1"),
            is_leased: format!("SELECT 1 FROM {table} WHERE id = ?1 AND attempt = ?2 AND back IS NOT NULL"),
            renew: format!("UPDATE {table} SET due = ?1 WHERE id = ?2 AND attempt = ?3 AND back IS NOT NULL"),
            log: format!(
                "INSERT INTO {log} (job_id, seq, event) VALUES \
                 (?1, (SELECT coalesce(max(seq), 0) + 1 FROM {log} WHERE job_id = ?1), ?2)"
            ),
            drop_log: format!("DELETE FROM {log} WHERE job_id = ?1"),
            fields,
            table,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::conn::Conn;
    use crate::{Durability, Query};

    /// A table in memory of each form, with an index on the state's tag.
    fn tables() -> Vec<(Conn, Table, String)> {
        let condition = "(json_extract(j.state, '$[0]')) = ?1";
        let mut made = Vec::new();
        for (events, extras) in
            [(Events::Column, false), (Events::Column, true), (Events::Table, false), (Events::Table, true)]
        {
            let mut conn = Conn::open(Path::new(":memory:"), Durability::Power, events).expect("memory");
            let queue = DEFAULT_QUEUE.into();
            let mut table = conn.table(&queue).expect("read").expect("there");
            if extras {
                conn.add_extras(&table).expect("added");
                table = conn.table(&queue).expect("read").expect("there");
            }
            assert_eq!((table.events, table.has_extras), (events, extras));
            let index = Query::tag("x").compile().expect("a query").index.expect("an index");
            conn.ensure_index(&queue, &table, &index).expect("made");
            made.push((conn, (*table).clone(), condition.to_owned()));
        }
        made
    }

    fn plan(conn: &Conn, sql: &str) -> Vec<String> {
        let mut statement = conn.db().prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
        let mut rows = statement.raw_query();
        let mut plan = Vec::new();
        while let Some(row) = rows.next().expect("a plan") {
            plan.push(row.get(3).expect("a line"));
        }
        plan
    }

    #[test]
    fn each_statement_but_a_query_of_the_callers_searches_an_index() {
        for (conn, table, condition) in tables() {
            let mut statements = vec![
                table.insert.clone(),
                table.get.clone(),
                table.append.clone(),
                table.delete.clone(),
                table.move_to.clone(),
                table.poll(&condition, 1),
            ];
            if table.has_extras {
                let extras =
                    [&table.set_options, &table.due, &table.next_due, &table.show, &table.is_leased, &table.renew];
                statements.extend(extras.map(Clone::clone));
            }
            if table.events == Events::Table {
                statements.extend([table.log.clone(), table.drop_log.clone()]);
            }
            for sql in statements {
                for line in plan(&conn, &sql) {
                    // The events of one job, which a search found, are put together in order.
                    let is_search = line.starts_with("SEARCH") || line.contains("SUBQUERY");
                    let is_found = line.starts_with("CO-ROUTINE (subquery") || line.starts_with("SCAN (subquery");
                    assert!(is_search || is_found, "{sql}\n{line}");
                    assert!(!line.contains("TEMP B-TREE"), "{sql}\n{line}");
                }
            }
        }
    }

    #[test]
    fn a_poll_of_any_job_reads_them_in_order_without_sorting() {
        for (conn, table, _) in tables() {
            for sql in [table.poll("TRUE", 1), table.query("TRUE", None)] {
                let plan = plan(&conn, &sql).join("\n");
                assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
            }
        }
    }
}
