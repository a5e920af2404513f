//! The statements of the catalog's tables, made from the description of their columns.

use std::sync::LazyLock;

use forebay_domain::catalog::{Kind, Match, Paging, Query, Row, StatementOutcome, TABLES, Table, Value};
use rusqlite::types::Value as Bound;
use rusqlite::{Connection, params_from_iter};

use crate::encode::{Cell, catalog_row};
use crate::sql::TOGETHER;

/// The statements of fixed text of one table.
struct Fixed {
    /// As `r.a, r.b`, in the order of the columns.
    columns: String,
    insert: String,
    /// As many rows as [`TOGETHER`].
    insert_together: String,
    get: String,
    delete: String,
    delete_all: String,
}

static FIXED: LazyLock<[Fixed; TABLES.len()]> = LazyLock::new(|| TABLES.map(Fixed::new));

impl Fixed {
    fn new(table: Table) -> Fixed {
        let names: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
        let (name, places) = (table.name(), vec!["?"; names.len()].join(", "));
        let list = names.join(", ");
        let rows = vec![format!("({places})"); TOGETHER].join(", ");
        Fixed {
            columns: names.iter().map(|name| format!("r.{name}")).collect::<Vec<_>>().join(", "),
            insert: format!("INSERT INTO {name} ({list}) VALUES ({places})"),
            insert_together: format!("INSERT INTO {name} ({list}) VALUES {rows}"),
            get: format!("SELECT {list} FROM {name} WHERE id = ?1"),
            delete: format!("DELETE FROM {name} WHERE id = ?1 RETURNING {list}"),
            delete_all: format!("DELETE FROM {name} WHERE {} = ?1", owner(table)),
        }
    }

    fn of(table: Table) -> &'static Fixed {
        &FIXED[table as usize]
    }
}

/// The column that names the workflow of a row.
fn owner(table: Table) -> &'static str {
    if table == Table::Workflow { "id" } else { "workflow_id" }
}

/// All columns in their order.
pub(crate) fn insert(table: Table) -> &'static str {
    &Fixed::of(table).insert
}

/// The same, of as many rows as [`TOGETHER`].
pub(crate) fn insert_together(table: Table) -> &'static str {
    &Fixed::of(table).insert_together
}

/// By the workflow.
pub(crate) fn delete_all(table: Table) -> &'static str {
    &Fixed::of(table).delete_all
}

pub(crate) fn get(db: &Connection, table: Table, id: i64) -> rusqlite::Result<Option<Row>> {
    one(db, &Fixed::of(table).get, table, [Cell(&Value::Int(id))])
}

pub(crate) fn delete(db: &Connection, table: Table, id: i64) -> rusqlite::Result<StatementOutcome> {
    one(db, &Fixed::of(table).delete, table, [Cell(&Value::Int(id))]).map(StatementOutcome::Row)
}

pub(crate) fn update(
    db: &Connection,
    table: Table,
    id: i64,
    only_if: &[(usize, Value)],
    set: &[(usize, Value)],
) -> rusqlite::Result<StatementOutcome> {
    let columns = table.columns();
    if let Some((place, _)) = only_if.iter().chain(set).find(|(place, _)| *place >= columns.len()) {
        let why = format!("{} has no column {place}", table.name());
        return Ok(StatementOutcome::Refused(why.into()));
    }
    if set.is_empty() {
        let meets = |row: &Row| only_if.iter().all(|(place, value)| row[*place] == *value);
        return get(db, table, id).map(|row| StatementOutcome::Row(row.filter(meets)));
    }
    let names = |of: &[(usize, Value)]| of.iter().map(|(place, _)| columns[*place].name).collect::<Vec<_>>();
    let sql = update_text(table, &names(set), &names(only_if));
    let id = Value::Int(id);
    let wanted = only_if.iter().map(|(_, value)| value);
    let values = set.iter().map(|(_, value)| value).chain([&id]).chain(wanted).map(Cell);
    one(db, &sql, table, values).map(StatementOutcome::Row)
}

/// Runs a statement that gives one row or none, to its end.
fn one<'a>(
    db: &Connection,
    sql: &str,
    table: Table,
    values: impl IntoIterator<Item = Cell<'a>>,
) -> rusqlite::Result<Option<Row>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let row = rows.next()?.map(|row| catalog_row(table, row)).transpose()?;
    while rows.next()?.is_some() {}
    Ok(row)
}

/// Which rows a list is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Of {
    Table,
    /// Of the results, those that are their job's latest.
    LatestResults,
}

/// A list as text with its values: the rows, and how many there are without `LIMIT` and `OFFSET`.
///
/// What callers give is a value, never text.
pub(crate) struct List {
    rows: String,
    count: String,
    values: Vec<Bound>,
    paging: Paging,
}

impl List {
    pub(crate) fn new(of: Of, query: &Query) -> List {
        let Query { table, filters, paging } = query;
        let from = match of {
            Of::Table => format!("{} r", table.name()),
            Of::LatestResults => "result r CROSS JOIN job j ON j.id = r.job_id AND j.result_id = r.id".to_owned(),
        };
        let mut values = Vec::new();
        let conditions: Vec<String> =
            filters.iter().map(|(place, wanted)| condition(*table, *place, wanted, &mut values)).collect();
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let turn = if paging.reverse { " DESC" } else { "" };
        let order = match paging.sort_by {
            Some(place) if place > 0 => format!("r.{}{turn}, r.id{turn}", table.columns()[place].name),
            Some(_) | None => format!("r.id{turn}"),
        };
        List {
            rows: format!("SELECT {} FROM {from}{filter} ORDER BY {order} LIMIT ? OFFSET ?", Fixed::of(*table).columns),
            count: format!("SELECT count(*) FROM {from}{filter}"),
            values,
            paging: *paging,
        }
    }

    /// To be called within a snapshot.
    pub(crate) fn read(&self, db: &Connection, table: Table) -> rusqlite::Result<(Vec<Row>, u64)> {
        let paging = [bound(self.paging.limit), bound(self.paging.offset)];
        let mut statement = db.prepare_cached(&self.rows)?;
        let rows = statement
            .query_map(params_from_iter(self.values.iter().chain(&paging)), |row| catalog_row(table, row))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let total = match total_of_part(rows.len(), self.paging.offset, self.paging.limit) {
            Some(total) => total,
            None => count(db, &self.count, &self.values)?,
        };
        Ok((rows, total))
    }
}

/// Those of fixed text, and of those that are made one of each kind, with their names.
pub(crate) fn statements() -> impl Iterator<Item = (String, String)> {
    TABLES.into_iter().flat_map(|table| {
        let Fixed { insert, insert_together, get, delete, delete_all, .. } = Fixed::of(table);
        let column = table.columns()[1].name;
        let owner = usize::from(table != Table::Workflow);
        let filters = vec![(owner, Match::Equal(Value::Int(1)))];
        let query = Query { table, filters, paging: Paging { offset: 0, limit: 10, sort_by: None, reverse: false } };
        let list = List::new(Of::Table, &query);
        let latest = (table == Table::Result).then(|| List::new(Of::LatestResults, &query));
        let named = [
            ("insert", insert.clone()),
            ("insert_together", insert_together.clone()),
            ("get", get.clone()),
            ("update", update_text(table, &[column], &[column])),
            ("delete", delete.clone()),
            ("delete_all", delete_all.clone()),
            ("list", list.rows),
            ("count", list.count),
        ];
        let latest = latest.into_iter().flat_map(|list| [("latest", list.rows), ("latest_count", list.count)]);
        named.into_iter().chain(latest).map(move |(what, sql)| (format!("{}.{what}", table.name()), sql))
    })
}

/// Of the row of an id, if these columns have the values that follow it.
fn update_text(table: Table, set: &[&str], only_if: &[&str]) -> String {
    let assignments: Vec<String> = set.iter().map(|name| format!("{name} = ?")).collect();
    let names: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
    let conditions: String = only_if.iter().map(|name| format!(" AND {name} IS ?")).collect();
    let (name, set, names) = (table.name(), assignments.join(", "), names.join(", "));
    format!("UPDATE {name} SET {set} WHERE id = ?{conditions} RETURNING {names}")
}

fn condition(table: Table, place: usize, wanted: &Match, values: &mut Vec<Bound>) -> String {
    let column = &table.columns()[place];
    let (name, value) = match wanted {
        Match::Equal(value) => (format!("r.{} IS ?", column.name), value_of(value)),
        Match::Above(value) => (format!("r.{} > ?", column.name), value_of(value)),
        // SQLite's lower() is for ASCII; LIKE has wildcards and a limit.
        Match::Contains(part) if column.kind == Kind::Text => {
            (format!("instr(lower(r.{}), lower(?)) > 0", column.name), Bound::Text(part.to_string()))
        }
        // No number has a substring.
        Match::Contains(_) => return "0".to_owned(),
    };
    values.push(value);
    name
}

fn value_of(value: &Value) -> Bound {
    match value {
        Value::Null => Bound::Null,
        Value::Int(value) => Bound::Integer(*value),
        Value::Real(value) => Bound::Real(*value),
        Value::Text(value) => Bound::Text(value.to_string()),
    }
}

/// A number for LIMIT or OFFSET.
pub(crate) fn bound(number: u64) -> Bound {
    Bound::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// How long a whole list is, if its part shows that.
pub(crate) fn total_of_part(rows: usize, offset: u64, limit: u64) -> Option<u64> {
    let rows = rows as u64;
    let ends_here = rows < limit && (rows > 0 || offset == 0);
    ends_here.then_some(offset + rows)
}

/// The one number that a statement gives.
pub(crate) fn count(db: &Connection, sql: &str, values: &[Bound]) -> rusqlite::Result<u64> {
    let count: i64 = db.prepare_cached(sql)?.query_one(params_from_iter(values), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::{migrated, plan};
    use forebay_domain::catalog::Match;

    fn query(table: Table, filters: Vec<(usize, Match)>, sort_by: Option<usize>) -> Query {
        Query { table, filters, paging: Paging { offset: 0, limit: 10, sort_by, reverse: true } }
    }

    #[test]
    fn the_fixed_statements_of_every_table_are_searches() {
        let db = migrated();
        for fixed in FIXED.iter() {
            for sql in [&fixed.insert, &fixed.get, &fixed.delete, &fixed.delete_all] {
                assert!(plan(&db, sql).iter().all(|step| step.starts_with("SEARCH")), "{sql}");
            }
        }
    }

    #[test]
    fn a_list_of_a_workflow_is_a_search_in_the_order_of_ids() {
        let db = migrated();
        for table in TABLES {
            let List { rows, count, .. } =
                List::new(Of::Table, &query(table, vec![(usize::from(table != Table::Workflow), one())], None));
            for sql in [rows, count] {
                let steps = plan(&db, &sql);
                assert_eq!(steps.len(), 1, "{steps:?}");
                assert!(steps[0].starts_with("SEARCH r USING"), "{steps:?}");
            }
        }
    }

    #[test]
    fn the_latest_results_are_found_from_the_results_of_a_workflow_or_of_a_job() {
        let db = migrated();
        let job = Table::Result.column("job_id").expect("a result names its job");
        for (filters, index) in [
            (vec![(1, one())], "SEARCH r USING INDEX result_workflow (workflow_id=?)"),
            (vec![(1, one()), (job, one())], "SEARCH r USING INDEX result_job (job_id=?)"),
        ] {
            let list = List::new(Of::LatestResults, &query(Table::Result, filters, None));
            for sql in [list.rows, list.count] {
                assert_eq!(plan(&db, &sql), [index, "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
            }
        }
    }

    #[test]
    fn the_total_is_counted_only_where_the_part_does_not_show_it() {
        assert_eq!(total_of_part(3, 0, 10), Some(3));
        assert_eq!(total_of_part(3, 20, 10), Some(23));
        assert_eq!(total_of_part(0, 0, 10), Some(0));
        assert_eq!(total_of_part(10, 0, 10), None);
        assert_eq!(total_of_part(0, 20, 10), None);
        assert_eq!(total_of_part(0, 0, 0), None);
    }

    fn one() -> Match {
        Match::Equal(Value::Int(1))
    }
}
