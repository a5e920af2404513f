//! `forebay db`: what an operator does to a database. The work is done by the store.

mod args;

use std::io::{self, Write};

use anyhow::bail;
use forebay_store_sqlite::tend::{self, Index, Plan};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::table::Table;
pub use args::DbArgs;
use args::DbCommand;

pub fn db(args: &DbArgs) -> anyhow::Result<Exit> {
    let db = &args.db;
    match &args.command {
        DbCommand::Check { json } => {
            let faults: Vec<String> = tend::check(db)?.iter().map(ToString::to_string).collect();
            let mut out = io::stdout().lock();
            match json {
                true => writeln!(out, "{}", json!(faults))?,
                false if faults.is_empty() => writeln!(out, "{}: nothing is wrong", db.display())?,
                false => faults.iter().try_for_each(|fault| writeln!(out, "{fault}"))?,
            }
            Ok(if faults.is_empty() { Exit::Done } else { Exit::Error })
        }
        DbCommand::Plans { scans, json } => {
            let mut plans = tend::plans(db)?;
            plans.retain(|plan| !scans || plan.scans());
            show_plans(&plans, *json)?;
            Ok(if *scans && !plans.is_empty() { Exit::Error } else { Exit::Done })
        }
        DbCommand::Indexes { json } => {
            show_indexes(&tend::indexes(db)?, *json)?;
            Ok(Exit::Done)
        }
        DbCommand::Optimize => {
            let misled = tend::optimize(db)?.misled.len();
            say(&match misled {
                0 => "SQLite has looked at the tables".to_owned(),
                _ => format!("nothing to gain: with statistics, {misled} statements would read a whole table"),
            })
        }
        DbCommand::Vacuum => {
            let size = tend::vacuum(db)?;
            say(&format!("{} bytes before, {} after", size.before, size.after))
        }
        DbCommand::Backup { to } => {
            let copied = tend::backup(db, to)?;
            say(&format!("{}: {} bytes", to.display(), copied.bytes))
        }
        DbCommand::Migrate { down, to } => {
            let wanted = match (down, to) {
                (true, None) => match tend::version(db)? {
                    0 => bail!("{}: it is empty: there is no earlier version", db.display()),
                    version => Some(version - 1),
                },
                (_, to) => *to,
            };
            let migrated = tend::migrate(db, wanted)?;
            say(&match migrated {
                same if same.from == same.to => format!("the schema is at version {} already", same.to),
                moved => format!("the schema was at version {}, and is at {}", moved.from, moved.to),
            })
        }
    }
}

fn say(line: &str) -> anyhow::Result<Exit> {
    writeln!(io::stdout(), "{line}")?;
    Ok(Exit::Done)
}

fn show_plans(plans: &[Plan], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let plan =
            |plan: &Plan| json!({"name": plan.name, "sql": plan.sql, "steps": plan.steps, "scans": plan.scans()});
        return writeln!(out, "{}", Value::from_iter(plans.iter().map(plan)));
    }
    for plan in plans {
        writeln!(out, "{}: {}", plan.name, plan.sql)?;
        for step in &plan.steps {
            writeln!(out, "    {step}")?;
        }
    }
    Ok(())
}

fn show_indexes(indexes: &[Index], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let row = |one: &Index| {
            json!({
                "table": one.table, "index": one.index, "bytes": one.bytes, "entries": one.entries,
                "statements": one.statements
            })
        };
        return writeln!(out, "{}", Value::from_iter(indexes.iter().map(row)));
    }
    let mut table = Table::new(["table", "index", "bytes", "entries", "statements"]);
    for Index { table: of, index, bytes, entries, statements } in indexes {
        let name = index.as_deref().unwrap_or("(rows)");
        table.row([of.clone(), name.to_owned(), bytes.to_string(), entries.to_string(), statements.to_string()]);
    }
    table.write(&mut out)
}
