//! A log of slow statements.

use std::time::Duration;

use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, StatementStatus};

use crate::sql;

/// From now on, says of each statement of this connection that takes `over` or longer which it was,
/// how long it took, how many rows it gave and how many steps of SQLite's machine that were. SQLite
/// counts time in milliseconds.
pub(crate) fn log(db: &mut Connection, over: Duration) -> rusqlite::Result<()> {
    let mut rows = 0_u64;
    let both = TraceEventCodes::SQLITE_TRACE_PROFILE | TraceEventCodes::SQLITE_TRACE_ROW;
    db.trace_v2(
        both,
        Some(move |event: TraceEvent<'_>| match event {
            TraceEvent::Row(_) => rows += 1,
            TraceEvent::Profile(statement, took) => {
                if took >= over {
                    let steps = statement.get_status(StatementStatus::VmStep);
                    tracing::warn!(statement = name(&statement.sql()), ?took, rows, steps, "slow statement");
                }
                rows = 0;
            }
            _ => {}
        }),
    )
}

/// The name of a statement of fixed text; the text of any other, in which there are no values.
fn name(sql: &str) -> &str {
    sql::all().find(|(_, text)| *text == sql).map_or(sql, |(name, _)| name)
}
