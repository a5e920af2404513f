//! One connection to a file of queues: opening it, its tables, and the wall around queries.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::query::is_known_function;
use crate::table::{DEFAULT_QUEUE, Events, Table, events_name, table_name};
use crate::{Durability, Error};

/// Statements kept prepared on each connection.
const STATEMENTS_MAX: usize = 128;
/// How long opening waits for whoever holds the file.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// An expression index slows each write, so a queue gets only so many.
const INDEXES_MAX: i64 = 8;

/// The original's migrations, as it notes them in a file: name and hash.
const MIGRATIONS: [(&str, &str); 3] = [
    ("anosql_migrations_create_table", "5c1ab02f0d3afbc74360a955f775dde90f1f6a673e9f022c81a5f9790d9dc69d"),
    ("migration_0000_create_jobq", "d64925b703edd448b886130e7b28f3c50285b2b1d725b8c1be648e8195346aaa"),
    ("migration_0001_index_modified", "835f6d607101af88c5b5e9981673b129f03b63d777f85a4eb6c21eb51a5cc0d1"),
];

pub(crate) struct Conn {
    db: Connection,
    is_memory: bool,
    tables: HashMap<Arc<str>, Arc<Table>>,
    /// The queue of the last call and its table: mostly the next call is on the same.
    last: Option<(Arc<str>, Arc<Table>)>,
    indexed: Vec<(Arc<str>, String)>,
    schema: i64,
    /// While a statement with a caller's query in it is prepared.
    strict: Arc<AtomicBool>,
}

impl Conn {
    /// Opens a file for writing, making it if there is none, or `:memory:`.
    pub(crate) fn open(path: &Path, durability: Durability, events: Events) -> Result<Self, Error> {
        let is_memory = path.as_os_str() == ":memory:";
        let mut db = if is_memory {
            Connection::open_in_memory()?
        } else {
            Connection::open_with_flags(
                path,
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?
        };
        db.busy_timeout(OPEN_TIMEOUT)?;
        if !is_memory {
            use_wal(&db, durability)?;
        }
        create_file(&mut db, events)?;
        // From here on a busy file is the group commit's to wait for.
        db.busy_timeout(Duration::ZERO)?;
        Conn::new(db, is_memory)
    }

    /// Opens a file for reading, beside a connection that writes.
    pub(crate) fn open_reader(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(OPEN_TIMEOUT)?;
        Conn::new(db, false)
    }

    fn new(mut db: Connection, is_memory: bool) -> Result<Self, Error> {
        db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Else SQLite plans a statement anew each time that a value is bound to it.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        let strict = Arc::new(AtomicBool::new(false));
        let wall = Arc::clone(&strict);
        db.authorizer(Some(
            move |context: AuthContext<'_>| {
                if wall.load(Ordering::Relaxed) { authorize(&context) } else { Authorization::Allow }
            },
        ))?;
        let tables = HashMap::new();
        Ok(Conn { db, is_memory, tables, last: None, indexed: Vec::new(), schema: 0, strict })
    }

    pub(crate) fn db(&self) -> &Connection {
        &self.db
    }

    pub(crate) fn is_memory(&self) -> bool {
        self.is_memory
    }

    /// Prepares one of our own statements.
    pub(crate) fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.db.prepare_cached(sql)
    }

    /// Prepares a statement with a caller's query in it, behind the wall.
    pub(crate) fn prepare_query(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.strict.store(true, Ordering::Relaxed);
        let statement = self.db.prepare_cached(sql);
        self.strict.store(false, Ordering::Relaxed);
        statement
    }

    /// Forgets what is known of tables if another process changed them.
    pub(crate) fn refresh(&mut self) -> rusqlite::Result<()> {
        if self.is_memory {
            return Ok(());
        }
        let schema = self.prepare("PRAGMA schema_version")?.query_row([], |row| row.get::<_, i64>(0))?;
        if schema != self.schema {
            self.forget();
            self.schema = schema;
        }
        Ok(())
    }

    /// Forgets what is known of tables.
    pub(crate) fn forget(&mut self) {
        self.tables.clear();
        self.last = None;
        self.indexed.clear();
    }

    /// The table of a queue; none if there is no such queue.
    pub(crate) fn table(&mut self, queue: &Arc<str>) -> rusqlite::Result<Option<Arc<Table>>> {
        if let Some((last, table)) = &self.last
            && Arc::ptr_eq(last, queue)
        {
            return Ok(Some(Arc::clone(table)));
        }
        if let Some(table) = self.tables.get(queue) {
            self.last = Some((Arc::clone(queue), Arc::clone(table)));
            return Ok(Some(Arc::clone(table)));
        }
        let columns = self.columns(&table_name(queue))?;
        if columns.is_empty() {
            return Ok(None);
        }
        let events = match self.columns(&events_name(queue))?.is_empty() {
            true => Events::Column,
            false => Events::Table,
        };
        let has_extras = columns.iter().any(|column| column == "hidden");
        let table = Arc::new(Table::new(queue, events, has_extras));
        self.tables.insert(Arc::clone(queue), Arc::clone(&table));
        Ok(Some(table))
    }

    /// Makes a queue, or finds it made.
    pub(crate) fn create_queue(&mut self, queue: &str, events: Events) -> rusqlite::Result<()> {
        self.db.execute_batch(&tables_sql(queue, events))?;
        self.forget();
        Ok(())
    }

    /// Removes a queue with all its jobs.
    pub(crate) fn drop_queue(&mut self, queue: &str) -> rusqlite::Result<()> {
        let (table, log) = (table_name(queue), events_name(queue));
        self.db.execute_batch(&format!("DROP TABLE IF EXISTS \"{table}\"; DROP TABLE IF EXISTS \"{log}\";"))?;
        self.forget();
        Ok(())
    }

    /// The names of the queues beside the default one.
    pub(crate) fn queues(&self) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.prepare(
            "SELECT substr(name, 6) FROM sqlite_schema \
             WHERE type = 'table' AND substr(name, 1, 5) = 'jobq:' ORDER BY name",
        )?;
        statement.query_map([], |row| row.get(0))?.collect()
    }

    /// Gives a queue's table the columns for priorities, delays and leases. The original names the
    /// columns that it uses, so it goes on as before.
    pub(crate) fn add_extras(&mut self, table: &Table) -> rusqlite::Result<()> {
        let name = &table.table;
        let stem = table.index_stem();
        let old: Vec<String> = self
            .prepare(
                "SELECT name FROM sqlite_schema \
                 WHERE type = 'index' AND substr(name, 1, length(?1)) = ?1",
            )?
            .query_map([&stem], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for index in old {
            self.db.execute_batch(&format!("DROP INDEX \"{index}\""))?;
        }
        self.db.execute_batch(&format!(
            "ALTER TABLE {name} ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
             ALTER TABLE {name} ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0;
             ALTER TABLE {name} ADD COLUMN due INTEGER;
             ALTER TABLE {name} ADD COLUMN back TEXT;
             ALTER TABLE {name} ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
             ALTER TABLE {name} ADD COLUMN retries INTEGER;
             CREATE INDEX \"{stem}due\" ON {name} (due) WHERE due IS NOT NULL;
             CREATE INDEX \"{stem}order\" ON {name} (hidden, priority DESC, modified);"
        ))?;
        self.forget();
        Ok(())
    }

    /// Makes the index for polls by `expression`, unless it is there or there are enough.
    pub(crate) fn ensure_index(&mut self, queue: &Arc<str>, table: &Table, expression: &str) -> rusqlite::Result<()> {
        if self.indexed.iter().any(|(known, made)| known == queue && made == expression) {
            return Ok(());
        }
        let stem = table.index_stem();
        let made: i64 = self.db.query_row(
            "SELECT count(*) FROM sqlite_schema \
             WHERE type = 'index' AND substr(name, 1, length(?1)) = ?1",
            [&stem],
            |row| row.get(0),
        )?;
        if made < INDEXES_MAX {
            self.db.execute_batch(&table.create_index(expression))?;
        }
        if self.indexed.len() < 64 {
            self.indexed.push((Arc::clone(queue), expression.to_owned()));
        }
        Ok(())
    }

    /// Counts the commits that other connections made, as far as this one sees.
    pub(crate) fn data_version(&self) -> rusqlite::Result<i64> {
        self.prepare("PRAGMA data_version")?.query_row([], |row| row.get(0))
    }

    fn columns(&self, table: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.prepare("SELECT name FROM pragma_table_info(?1)")?;
        statement.query_map([table], |row| row.get(0))?.collect()
    }
}

/// The second wall around a caller's query: it may read a job's columns and call plain functions.
fn authorize(context: &AuthContext<'_>) -> Authorization {
    let is_ours = |table: &str| {
        ["job", "job_event"].contains(&table) || table.starts_with("jobq:") || table.starts_with("jobq_event:")
    };
    match context.action {
        AuthAction::Select => Authorization::Allow,
        AuthAction::Read { table_name, .. } if is_ours(table_name) => Authorization::Allow,
        // A subquery of ours, over the log.
        AuthAction::Read { table_name: "", .. } => Authorization::Allow,
        AuthAction::Function { function_name }
            if is_known_function(function_name) || function_name == "group_concat" =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

/// Switches to the write-ahead log unless somebody holds the file, and sets what a commit syncs.
fn use_wal(db: &Connection, durability: Durability) -> Result<(), Error> {
    let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let is_wal = mode == "wal" || {
        db.busy_timeout(Duration::ZERO)?;
        let switched = switch_to_wal(db);
        db.busy_timeout(OPEN_TIMEOUT)?;
        match switched {
            Ok(mode) => mode == "wal",
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => false,
            Err(error) => return Err(error.into()),
        }
    };
    // A rollback journal that is not synced would lose more than the last commits.
    let synchronous = match (durability, is_wal) {
        (Durability::Power, _) | (Durability::Process, false) => "FULL",
        (Durability::Process, true) => "NORMAL",
    };
    db.execute_batch(&format!("PRAGMA synchronous = {synchronous}"))?;
    Ok(())
}

/// Answers the journal mode. It is set by a commit behind the answer, which is waited for.
fn switch_to_wal(db: &Connection) -> rusqlite::Result<String> {
    let mut switch = db.prepare("PRAGMA journal_mode = WAL")?;
    let answers: Vec<String> = switch.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(answers.concat())
}

/// Makes the tables of a new file; finds those of an old one.
fn create_file(db: &mut Connection, events: Events) -> Result<(), Error> {
    if has_job_table(db)? {
        return check_columns(db);
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been first.
    if !has_job_table(&transaction)? {
        transaction.execute_batch(&tables_sql(DEFAULT_QUEUE, events))?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS anosql_migration (
                 name TEXT PRIMARY KEY NOT NULL,
                 committed_at INT,
                 sha256sum TEXT NOT NULL,
                 CONSTRAINT am_sha256sum_unique UNIQUE (sha256sum)
             )",
        )?;
        // A file whose events are in a table is not one that the original knows. It finds that its
        // first migration has not run, runs it, and stops, since there is a table `job`.
        let noted = match events {
            Events::Column => &MIGRATIONS[..],
            Events::Table => &MIGRATIONS[..1],
        };
        for (name, hash) in noted {
            transaction.execute(
                "INSERT OR REPLACE INTO anosql_migration (name, committed_at, sha256sum) \
                 VALUES (?1, CAST(strftime('%s', 'now') AS INTEGER), ?2)",
                [name, hash],
            )?;
        }
    }
    transaction.commit()?;
    check_columns(db)
}

fn has_job_table(db: &Connection) -> Result<bool, Error> {
    let found =
        db.query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'job'", [], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

fn check_columns(db: &Connection) -> Result<(), Error> {
    let mut statement = db.prepare("SELECT name FROM pragma_table_info('job')")?;
    let columns: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let missing = |name: &&str| !columns.iter().any(|column| column == name);
    match ["id", "payload", "state", "modified"].iter().find(|name| missing(name)) {
        Some(name) => Err(Error::Format(format!("its table job has no column {name}"))),
        None => Ok(()),
    }
}

fn tables_sql(queue: &str, events: Events) -> String {
    let (table, log) = (table_name(queue), events_name(queue));
    let stem = if queue == DEFAULT_QUEUE { "job".to_owned() } else { format!("jobq:{queue}") };
    let (column, log) = match events {
        Events::Column => ("events TEXT DEFAULT '[]',", String::new()),
        Events::Table => (
            "",
            format!(
                "CREATE TABLE IF NOT EXISTS \"{log}\" (
                     job_id INTEGER NOT NULL, seq INTEGER NOT NULL, event TEXT NOT NULL,
                     PRIMARY KEY (job_id, seq)
                 ) WITHOUT ROWID;"
            ),
        ),
    };
    format!(
        "CREATE TABLE IF NOT EXISTS \"{table}\" (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             payload TEXT,
             {column}
             state TEXT,
             modified INTEGER
         );
         CREATE INDEX IF NOT EXISTS \"{stem}_modified\" ON \"{table}\" (modified);
         {log}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parser_would_let_through_the_authorizer_refuses() {
        let conn = Conn::open(Path::new(":memory:"), Durability::Power, Events::Column).expect("memory");
        for sql in [
            "SELECT name FROM sqlite_schema",
            "SELECT 1 FROM job WHERE EXISTS (SELECT 1 FROM anosql_migration)",
            "SELECT load_extension('x') FROM job",
            "SELECT randomblob(1000000000) FROM job",
            "DELETE FROM job",
            "UPDATE job SET state = NULL",
            "PRAGMA journal_mode",
            "ATTACH 'other' AS other",
            "CREATE TABLE other (id)",
        ] {
            conn.prepare_query(sql).map(drop).expect_err(sql);
        }
        conn.prepare_query("SELECT json_extract(state, '$[0]') FROM job").expect("a query");
        // Our own statements are not behind it.
        conn.prepare("SELECT name FROM sqlite_schema").expect("a statement of our own");
    }
}
