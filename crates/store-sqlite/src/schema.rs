//! The schema, its versions, and how a database gets from one to another.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::OpenError;

struct Migration {
    up: &'static str,
    down: &'static str,
}

/// In their order; the version of a database is how many of them were applied.
///
/// Once released, a migration is never edited: a change of the schema is a new one at the end.
const MIGRATIONS: [Migration; 11] = [
    Migration {
        up: include_str!("migrations/0001_engine.up.sql"),
        down: include_str!("migrations/0001_engine.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0002_catalog.up.sql"),
        down: include_str!("migrations/0002_catalog.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0003_doors.up.sql"),
        down: include_str!("migrations/0003_doors.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0004_timers.up.sql"),
        down: include_str!("migrations/0004_timers.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0005_leases.up.sql"),
        down: include_str!("migrations/0005_leases.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0006_grants.up.sql"),
        down: include_str!("migrations/0006_grants.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0007_barriers.up.sql"),
        down: include_str!("migrations/0007_barriers.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0008_tasks.up.sql"),
        down: include_str!("migrations/0008_tasks.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0009_lanes.up.sql"),
        down: include_str!("migrations/0009_lanes.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0010_reserved_lanes.up.sql"),
        down: include_str!("migrations/0010_reserved_lanes.down.sql"),
    },
    Migration {
        up: include_str!("migrations/0011_names.up.sql"),
        down: include_str!("migrations/0011_names.down.sql"),
    },
];

/// The version that this program reads and writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// In the header of each of our databases: "Fbay".
const APPLICATION_ID: i32 = 0x4662_6179;

/// The version of a database that is ours, or that is still empty (0).
pub(crate) fn version(db: &Connection, path: &Path) -> Result<u32, OpenError> {
    let foreign = |source| OpenError::NotForebay { path: path.to_owned(), source };
    let asked = db.query_row(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) \
         FROM pragma_application_id, pragma_user_version",
        [],
        |row| Ok((row.get::<_, i32>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
    );
    let (application, version, objects) = asked.map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => foreign(Some(error)),
        _ => OpenError::sqlite(path, error),
    })?;
    let is_empty = application == 0 && version == 0 && objects == 0;
    if application != APPLICATION_ID && !is_empty {
        return Err(foreign(None));
    }
    let found = u32::try_from(version).map_err(|_| foreign(None))?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    Ok(found)
}

/// Brings a database of a known version to another known one, each step in a transaction.
pub(crate) fn migrate(db: &mut Connection, from: u32, to: u32) -> rusqlite::Result<()> {
    for version in from + 1..=to {
        step(db, MIGRATIONS[version as usize - 1].up, version)?;
    }
    for version in (to..from).rev() {
        step(db, MIGRATIONS[version as usize].down, version)?;
    }
    Ok(())
}

fn step(db: &mut Connection, sql: &str, version: u32) -> rusqlite::Result<()> {
    let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    step.execute_batch(sql)?;
    step.pragma_update(None, "application_id", APPLICATION_ID)?;
    step.pragma_update(None, "user_version", version)?;
    step.commit()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use forebay_domain::catalog::{Kind, TABLES};

    /// A database in memory with the whole schema.
    pub(crate) fn migrated() -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db, 0, SCHEMA_VERSION).unwrap();
        db
    }

    /// The steps in which a statement would be carried out.
    pub(crate) fn plan(db: &Connection, sql: &str) -> Vec<String> {
        crate::tend::steps(db, sql).unwrap()
    }

    fn dump(db: &Connection) -> Vec<String> {
        let mut schema = db.prepare("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY type, name").unwrap();
        schema.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn each_migration_can_be_rolled_back_and_applied_again() {
        let mut db = Connection::open_in_memory().unwrap();
        let mut before = vec![dump(&db)];
        for version in 1..=SCHEMA_VERSION {
            migrate(&mut db, version - 1, version).unwrap();
            before.push(dump(&db));
        }
        for version in (0..SCHEMA_VERSION).rev() {
            migrate(&mut db, version + 1, version).unwrap();
            assert_eq!(dump(&db), before[version as usize]);
        }
        migrate(&mut db, 0, SCHEMA_VERSION).unwrap();
        assert_eq!(dump(&db), before[SCHEMA_VERSION as usize]);
    }

    #[test]
    fn tasks_that_wait_go_on_where_the_schema_is_rolled_back_to_one_without_them() {
        let mut db = migrated();
        db.execute_batch(
            "INSERT INTO workflow_state (id, run, is_canceled, is_archived, has_edges, default_requirement_id, \
             graph_bytes, is_endless, is_paused, draft, blocked, ready, claimed, running, completed, failed, canceled, \
             terminated, disabled, pending_failed, scheduled) \
             VALUES (1, -1, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0)",
        )
        .unwrap();
        for (id, state, flags, due_at, expires_at) in [
            (1, 1, 0, None, Some(70)),
            (2, 1, 32, Some(50), Some(70)),
            (3, 3, 32, Some(60), None),
            (4, 5, 32, None, None),
            (5, 6, 16 + 32, None, None),
        ] {
            let times: (i64, i64, i64, Option<i64>, Option<i64>) = (id, state, flags, due_at, expires_at);
            db.execute(
                "INSERT INTO job (id, workflow_id, lane_id, state, priority, attempt, flags, grant_number, tries, \
                 due_at, expires_at, timer_at) VALUES (?1, 1, 1, ?2, 0, 1, ?3, 0, 0, ?4, ?5, 0)",
                times,
            )
            .unwrap();
            db.execute("INSERT INTO job_detail VALUES (?1, 1, '', x'')", [id]).unwrap();
        }
        db.execute_batch("INSERT INTO dependency VALUES (1, 1, 2), (1, 2, 3), (1, 1, 4)").unwrap();
        migrate(&mut db, SCHEMA_VERSION, 8).unwrap();
        let mut jobs = db.prepare("SELECT id, state, flags, timer_at FROM job ORDER BY id").unwrap();
        let jobs = jobs.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
        let jobs: Vec<(i64, i64, i64, Option<i64>)> = jobs.collect::<Result<_, _>>().unwrap();
        assert_eq!(jobs, [(1, 2, 0, Some(70)), (2, 11, 0, Some(50)), (3, 3, 0, Some(0)), (5, 6, 16, None)]);
        let counts = db.query_row(
            "SELECT blocked, ready, scheduled, claimed, completed, failed, (SELECT count(*) FROM dependency), \
             (SELECT count(*) FROM job_detail) FROM workflow_state",
            [],
            |row| (0..8).map(|column| row.get(column)).collect::<Result<Vec<i64>, _>>(),
        );
        assert_eq!(counts.unwrap(), [0, 1, 1, 1, 0, 1, 0, 4]);
    }

    #[test]
    fn lanes_of_what_is_not_complete_are_reserved_where_a_schema_without_that_is_migrated() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db, 0, 9).unwrap();
        for (id, is_canceled, is_endless, blocked, completed) in
            [(1, 0, 0, 1, 5), (2, 0, 0, 0, 5), (3, 1, 0, 1, 5), (4, 0, 1, 0, 0)]
        {
            db.execute(
                "INSERT INTO workflow_state (id, run, is_canceled, is_archived, has_edges, default_requirement_id, \
                 graph_bytes, is_endless, is_paused, draft, blocked, ready, claimed, running, completed, failed, \
                 canceled, terminated, disabled, pending_failed, scheduled) \
                 VALUES (?1, 0, ?2, 0, 0, 0, 0, ?3, 0, 0, ?4, 0, 0, 0, ?5, 0, 0, 0, 0, 0, 0)",
                [id, is_canceled, is_endless, blocked, completed],
            )
            .unwrap();
            db.execute("INSERT INTO lane VALUES (?1 * 10, ?1, 1, '[]', NULL), (?1 * 10 + 1, ?1, 2, '[]', NULL)", [id])
                .unwrap();
        }
        migrate(&mut db, 9, SCHEMA_VERSION).unwrap();
        let mut lanes = db.prepare("SELECT lanes FROM workflow_state ORDER BY id").unwrap();
        let lanes: Vec<i64> = lanes.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(lanes, [2, 0, 0, 2]);
    }

    /// If it fails: the catalog's columns were changed, and a migration has to follow them.
    #[test]
    fn the_tables_have_the_columns_of_the_catalog() {
        let db = migrated();
        for table in TABLES {
            let mut columns = db.prepare("SELECT name, type, \"notnull\" FROM pragma_table_info(?1)").unwrap();
            let stored: Vec<(String, String, bool)> = columns
                .query_map([table.name()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            let described: Vec<(String, String, bool)> = table
                .columns()
                .iter()
                .map(|column| {
                    let kind = match column.kind {
                        Kind::Int => "INTEGER",
                        Kind::Real => "REAL",
                        Kind::Text => "TEXT",
                    };
                    // An INTEGER PRIMARY KEY cannot be null without being told so.
                    (column.name.to_owned(), kind.to_owned(), !column.nullable && column.name != "id")
                })
                .collect();
            assert_eq!(stored, described, "{table:?}");
        }
    }
}
