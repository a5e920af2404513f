//! Names of tasks that are over. They come in no order, so that to take each out with its task would dirty
//! a page for each. So they stay until there are many, and go in their order, many from one page. Until
//! then they lead to no job, and nobody finds anything by them.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::encode::unreadable;
use crate::sql;

/// As it stands in `job_name`: the workflow, the name and the job.
pub(crate) type Name = (i64, Box<str>, i64);

/// With each commit so many go, and two for each that comes.
const GOING: usize = 16;

/// Names that stand in `job_name`, and whose jobs are over.
#[derive(Debug, Default)]
pub(crate) struct GoneNames {
    /// So many gather before they begin to go.
    gathered_max: usize,
    gathered: BTreeSet<Name>,
    /// They gathered before, and are going.
    going: BTreeSet<Name>,
    /// The last batch that ended any of those.
    going_until: i64,
}

/// What a transaction does to them.
#[derive(Debug, Default)]
pub(crate) struct NamesChange {
    came: Vec<Name>,
    /// Of those that were going, from the first.
    went: usize,
    /// They were in the way of a new one.
    cleared: Vec<Name>,
}

impl GoneNames {
    /// Those that earlier processes left.
    pub fn read(db: &Connection, gathered_max: usize) -> rusqlite::Result<GoneNames> {
        let mut gathered = BTreeSet::new();
        let mut rows = sql::GONE_NAMES.on(db)?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let names: Vec<Name> =
                serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|_| unreadable(0, "not a list of names"))?;
            gathered.extend(names);
        }
        Ok(GoneNames { gathered_max, gathered, ..GoneNames::default() })
    }

    /// A job comes by this name: earlier ones of it go, so that who looks for it finds few.
    pub fn clear(&self, db: &Connection, change: &mut NamesChange, workflow: i64, name: &str) -> rusqlite::Result<()> {
        if self.gathered.is_empty() && self.going.is_empty() {
            return Ok(());
        }
        let first = (workflow, Box::from(name), i64::MIN);
        for gone in [&self.gathered, &self.going] {
            let same = gone.range(&first..).take_while(|gone| gone.0 == workflow && *gone.1 == *name);
            for gone in same {
                sql::DELETE_NAME.on(db)?.execute((gone.0, &gone.1, gone.2))?;
                change.cleared.push(gone.clone());
            }
        }
        Ok(())
    }

    /// The names of the jobs that this batch ended stay, and some earlier ones go.
    pub fn pass(&self, db: &Connection, change: &mut NamesChange, lsn: i64, came: Vec<Name>) -> rusqlite::Result<()> {
        if !came.is_empty() {
            let names = serde_json::to_string(&came).expect("numbers and texts can be written as JSON");
            sql::NEW_GONE_NAMES.on(db)?.execute((lsn, names))?;
        }
        change.went = self.going.len().min(GOING + 2 * came.len());
        change.came = came;
        if change.went > 0 {
            let mut delete = sql::DELETE_NAME.on(db)?;
            for (workflow, name, job) in self.going.iter().take(change.went) {
                delete.execute((workflow, name, job))?;
            }
            if change.went == self.going.len() {
                sql::DELETE_GONE_NAMES.on(db)?.execute([self.going_until])?;
            }
        }
        Ok(())
    }

    /// The transaction was committed.
    pub fn committed(&mut self, lsn: i64, change: NamesChange) {
        let NamesChange { came, went, cleared } = change;
        for _ in 0..went {
            self.going.pop_first();
        }
        for name in cleared {
            self.gathered.remove(&name);
            self.going.remove(&name);
        }
        self.gathered.extend(came);
        if self.going.is_empty() && self.gathered.len() >= self.gathered_max {
            self.going = std::mem::take(&mut self.gathered);
            self.going_until = lsn;
        }
    }
}
