//! Any text is refused as a query, or becomes an expression that SQLite prepares and that does no
//! more than read a job.
//!
//! `cargo +nightly fuzz run query -- -dict=fuzz/query.dict`

#![no_main]

use std::cell::RefCell;

use forebay_jobq::Query;
use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;

thread_local! {
    static DB: RefCell<Connection> = RefCell::new(database());
}

fn database() -> Connection {
    let mut db = Connection::open_in_memory().expect("memory");
    db.execute_batch(
        "CREATE TABLE job (id INTEGER PRIMARY KEY, payload TEXT, events TEXT, state TEXT, modified INTEGER);
         INSERT INTO job VALUES (1, '{\"a\":[1,2]}', '[[\"job_created\",{}]]', '[\"new\"]', 1);
         CREATE TABLE secret (word TEXT);",
    )
    .expect("tables");
    db.authorizer(Some(|context: AuthContext<'_>| match context.action {
        AuthAction::Select | AuthAction::Read { table_name: "job", .. } | AuthAction::Function { .. } => {
            Authorization::Allow
        }
        other => panic!("{other:?}"),
    }))
    .expect("an authorizer");
    // What takes long is no fault of the grammar's.
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, 100_000).expect("a limit");
    db
}

fuzz_target!(|text: &str| {
    let queries = [
        Ok(Query::from(text)),
        match serde_json::from_str(text) {
            Ok(value) => Query::from_value(&value),
            Err(_) => Ok(Query::from(text)),
        },
    ];
    for query in queries.into_iter().flatten() {
        let Ok(sql) = query.check() else { continue };
        DB.with_borrow(|db| {
            let statement = format!("SELECT id FROM job AS j WHERE {sql} LIMIT 1");
            let prepared = db.prepare(&statement);
            let mut prepared = prepared.unwrap_or_else(|error| panic!("{statement}: {error}"));
            assert!(prepared.readonly(), "{statement}");
            // Values are NULL here; a row may refuse the expression, such as a path that is none.
            let mut rows = prepared.raw_query();
            drop(rows.next());
        });
    }
});
