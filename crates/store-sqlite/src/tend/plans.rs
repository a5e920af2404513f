//! How each statement is carried out, and what its indexes cost.

use std::path::Path;

use rusqlite::Connection;

use super::{TendError, reading};
use crate::{catalog, jobs, sql};

/// How SQLite carries a statement out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub name: String,
    pub sql: String,
    /// In SQLite's words, such as `SEARCH j USING INDEX job_page (lane_id=?)`.
    pub steps: Vec<String>,
}

impl Plan {
    /// Whether it looks at every row of a table that is not meant to be read so.
    #[must_use]
    pub fn scans(&self) -> bool {
        if sql::WHOLE.contains(&&*self.name) {
            return false;
        }
        // `d` are rows that it has in hand, as are those of a clause; a list of values is called a virtual table.
        let in_hand = |step: &str| step == "SCAN d" || step.contains("VALUES CLAUSE") || step.contains("VIRTUAL TABLE");
        self.steps.iter().any(|step| step.starts_with("SCAN") && !in_hand(step))
    }
}

/// A table, or an index of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Index {
    pub table: String,
    /// None for the rows themselves.
    pub index: Option<String>,
    /// Of its pages, in bytes.
    pub bytes: u64,
    pub entries: u64,
    /// How many of the program's statements search it.
    pub statements: usize,
}

/// The plan of every statement that the program prepares, as it is on this database; of those that are
/// made from what is asked for, one of each kind.
///
/// # Errors
/// If it cannot be opened or read.
pub fn plans(path: impl AsRef<Path>) -> Result<Vec<Plan>, TendError> {
    reading(path.as_ref(), "its statements cannot be explained", plans_of)
}

/// All tables and indexes, the largest first. It looks at each page.
///
/// # Errors
/// If it cannot be opened or read.
pub fn indexes(path: impl AsRef<Path>) -> Result<Vec<Index>, TendError> {
    reading(path.as_ref(), "its indexes cannot be listed", |db| {
        let plans = plans_of(db)?;
        let mut sizes = db.prepare(
            "SELECT o.tbl_name, o.name, o.type, sum(s.pgsize), sum(CASE s.pagetype WHEN 'leaf' THEN s.ncell ELSE 0 END) \
             FROM dbstat s JOIN sqlite_schema o ON o.name = s.name GROUP BY o.name ORDER BY 4 DESC, 2",
        )?;
        let rows = sizes.query_map([], |row| {
            let (table, name): (String, String) = (row.get(0)?, row.get(1)?);
            let is_index = row.get_ref(2)?.as_str()? == "index";
            let statements = plans.iter().filter(|plan| plan.uses(&table, is_index.then_some(&*name))).count();
            Ok(Index {
                table,
                index: is_index.then_some(name),
                bytes: row.get::<_, i64>(3)?.unsigned_abs(),
                entries: row.get::<_, i64>(4)?.unsigned_abs(),
                statements,
            })
        })?;
        rows.collect()
    })
}

pub(super) fn plans_of(db: &Connection) -> rusqlite::Result<Vec<Plan>> {
    let fixed = sql::all().map(|(name, sql)| (name.to_owned(), sql.to_owned()));
    let all = fixed.chain(catalog::statements()).chain(jobs::statements());
    all.map(|(name, sql)| Ok(Plan { steps: steps(db, &sql)?, name, sql })).collect()
}

/// The steps in which a statement would be carried out.
pub(crate) fn steps(db: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let mut rows = explain.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        steps.push(row.get(3)?);
    }
    Ok(steps)
}

impl Plan {
    fn uses(&self, table: &str, index: Option<&str>) -> bool {
        let words = |step: &str, wanted: &str| step.split_whitespace().any(|word| word == wanted);
        match index {
            Some(index) => self.steps.iter().any(|step| words(step, index)),
            // By its key; a statement names the table, and the step an alias of it.
            None => words(&self.sql, table) && self.steps.iter().any(|step| step.contains("PRIMARY KEY")),
        }
    }
}
