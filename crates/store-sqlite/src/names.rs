//! Names of tasks that are over. They come in no order, so that to take each out with its task would dirty
//! a page for each. So they stay until there are many, and go in their order, many from one page. Until
//! then they lead to no job, and nobody finds anything by them.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::encode::unreadable;
use crate::sql;

/// A name as it stands in `job_name`, and in its order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    workflow: i64,
    /// Of the name. Mostly it decides, and the rest need not be looked for elsewhere in memory.
    first_bytes: [u8; 8],
    name: Box<str>,
    job: i64,
}

impl Name {
    pub fn new(workflow: i64, name: &str, job: i64) -> Name {
        let mut first_bytes = [0; 8];
        let known = name.len().min(first_bytes.len());
        first_bytes[..known].copy_from_slice(&name.as_bytes()[..known]);
        Name { workflow, first_bytes, name: name.into(), job }
    }
}

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
            let names: Vec<(i64, String, i64)> =
                serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|_| unreadable(0, "not a list of names"))?;
            gathered.extend(names.iter().map(|(workflow, name, job)| Name::new(*workflow, name, *job)));
        }
        Ok(GoneNames { gathered_max, gathered, ..GoneNames::default() })
    }

    /// A job comes by this name: earlier ones of it go, so that who looks for it finds few.
    pub fn clear(&self, db: &Connection, change: &mut NamesChange, workflow: i64, name: &str) -> rusqlite::Result<()> {
        if self.gathered.is_empty() && self.going.is_empty() {
            return Ok(());
        }
        let first = Name::new(workflow, name, i64::MIN);
        for gone in [&self.gathered, &self.going] {
            let same = gone.range(&first..).take_while(|gone| gone.workflow == workflow && *gone.name == *name);
            for gone in same {
                sql::DELETE_NAME.on(db)?.execute((gone.workflow, &gone.name, gone.job))?;
                change.cleared.push(gone.clone());
            }
        }
        Ok(())
    }

    /// The names of the jobs that this batch ended stay, and some earlier ones go.
    pub fn pass(&self, db: &Connection, change: &mut NamesChange, lsn: i64, came: Vec<Name>) -> rusqlite::Result<()> {
        if !came.is_empty() {
            let names: Vec<(i64, &str, i64)> = came.iter().map(|one| (one.workflow, &*one.name, one.job)).collect();
            let names = serde_json::to_string(&names).expect("numbers and texts can be written as JSON");
            sql::NEW_GONE_NAMES.on(db)?.execute((lsn, names))?;
        }
        change.went = self.going.len().min(GOING + 2 * came.len());
        change.came = came;
        if change.went > 0 {
            let mut delete = sql::DELETE_NAME.on(db)?;
            for Name { workflow, name, job, .. } in self.going.iter().take(change.went) {
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
