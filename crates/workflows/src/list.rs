//! Lists: which part of them, their conditions, their envelope.

use std::ops::Range;

use forebay_domain::catalog::{Match, Paging, Query, Row, Table, Value};
use forebay_domain::port::{Reader, StoreError};
use forebay_wire::RECORDS_MAX;
use hyper::Response;

use crate::fault::Fault;
use crate::http::{self, Body, Params};
use crate::rows;

/// Rows that are looked at in one go where the store cannot tell which are wanted.
const STEP: u64 = 10_000;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub offset: u64,
    pub limit: u64,
    pub reverse: bool,
}

impl Part {
    pub fn of(params: &Params) -> Result<Part, Fault> {
        let offset = params.get::<i64>("offset")?.unwrap_or(0);
        let limit = params.get::<i64>("limit")?.unwrap_or(RECORDS_MAX);
        let offset = u64::try_from(offset).map_err(|_| Fault::unprocessable("offset cannot be negative"))?;
        let limit = u64::try_from(limit).map_err(|_| Fault::unprocessable("limit cannot be negative"))?;
        if limit > RECORDS_MAX as u64 {
            return Err(Fault::unprocessable(format!("Limit cannot exceed {RECORDS_MAX}")));
        }
        Ok(Part { offset, limit, reverse: params.flag("reverse_sort")? })
    }

    /// In the order of this column, if it is one to sort by; else by id.
    pub fn paging(self, table: Table, sort_by: Option<&str>) -> Paging {
        let place = sort_by.and_then(|name| table.column(name)).filter(|place| table.columns()[*place].sort);
        Paging { offset: self.offset, limit: self.limit, sort_by: place, reverse: self.reverse }
    }

    pub fn by_id(self) -> Paging {
        Paging { offset: self.offset, limit: self.limit, sort_by: None, reverse: self.reverse }
    }

    /// This part of a list that is there in whole.
    pub fn range(self, len: usize) -> Range<usize> {
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(len);
        at(self.offset)..at(self.offset.saturating_add(self.limit))
    }
}

/// The query for a workflow's rows of a table: every parameter that names a column to filter by is
/// a condition; those in `contains` ask for a part of the text.
pub(crate) fn query(
    table: Table,
    workflow: Option<i64>,
    params: &Params,
    contains: &[&str],
    part: Part,
) -> Result<Query, Fault> {
    let mut filters = Vec::new();
    for (place, column) in table.columns().iter().enumerate() {
        match (column.name, workflow) {
            ("workflow_id", Some(id)) => filters.push((place, Match::Equal(Value::Int(id)))),
            _ if !column.filter => {}
            (name, _) => {
                if let Some(text) = params.text(name) {
                    let condition = if contains.contains(&name) {
                        Match::Contains(text.into())
                    } else {
                        Match::Equal(rows::parse_value(table, column, text)?)
                    };
                    filters.push((place, condition));
                }
            }
        }
    }
    Ok(Query { table, filters, paging: part.paging(table, params.text("sort_by")) })
}

/// The part of a list whose last condition is one that the store does not know, and how long that
/// list is.
pub(crate) fn filtered(
    reader: &mut dyn Reader,
    query: &Query,
    mut keep: impl FnMut(&mut dyn Reader, &[Row]) -> Result<Vec<bool>, StoreError>,
) -> Result<(Vec<Row>, u64), StoreError> {
    let (from, to) = (query.paging.offset, query.paging.offset.saturating_add(query.paging.limit));
    let mut step = Query { paging: Paging { offset: 0, limit: STEP, ..query.paging }, ..query.clone() };
    let (mut kept, mut seen) = (Vec::new(), 0);
    loop {
        let (rows, total) = reader.list(&step)?;
        let wanted = keep(reader, &rows)?;
        for (row, _) in rows.into_iter().zip(wanted).filter(|(_, wanted)| *wanted) {
            if (from..to).contains(&seen) {
                kept.push(row);
            }
            seen += 1;
        }
        step.paging.offset += STEP;
        if step.paging.offset >= total {
            return Ok((kept, seen));
        }
    }
}

/// All rows of a workflow in a table, a step at a time.
pub(crate) fn each_row(
    reader: &mut dyn Reader,
    table: Table,
    workflow: i64,
    visit: impl FnMut(Row),
) -> Result<(), StoreError> {
    each_such(reader, table, vec![(1, Match::Equal(Value::Int(workflow)))], visit)
}

/// The rows of a workflow whose value in one column is such.
pub(crate) fn such_rows(
    reader: &mut dyn Reader,
    table: Table,
    workflow: i64,
    such: (usize, Match),
) -> Result<Vec<Row>, StoreError> {
    let mut found = Vec::new();
    each_such(reader, table, vec![(1, Match::Equal(Value::Int(workflow))), such], |row| found.push(row))?;
    Ok(found)
}

fn each_such(
    reader: &mut dyn Reader,
    table: Table,
    filters: Vec<(usize, Match)>,
    mut visit: impl FnMut(Row),
) -> Result<(), StoreError> {
    let paging = Paging { offset: 0, limit: STEP, sort_by: None, reverse: false };
    let mut query = Query { table, filters, paging };
    loop {
        let (rows, total) = reader.list(&query)?;
        rows.into_iter().for_each(&mut visit);
        query.paging.offset += STEP;
        if query.paging.offset >= total {
            return Ok(());
        }
    }
}

/// Writes torc's list envelope.
pub(crate) struct Envelope {
    out: Vec<u8>,
    count: u64,
}

impl Envelope {
    pub fn new() -> Envelope {
        Envelope { out: br#"{"items":["#.to_vec(), count: 0 }
    }

    pub fn item(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.count > 0 {
            self.out.push(b',');
        }
        self.count += 1;
        write(&mut self.out);
    }

    pub fn close(mut self, part: Part, total: u64) -> Response<Body> {
        let mut number = |name: &str, value: u64| {
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        };
        number(r#"],"offset":"#, part.offset);
        number(r#","max_limit":"#, RECORDS_MAX as u64);
        number(r#","count":"#, self.count);
        number(r#","total_count":"#, total);
        let has_more = part.offset.saturating_add(self.count) < total;
        self.out.extend_from_slice(if has_more { br#","has_more":true}"# } else { br#","has_more":false}"# });
        http::ok(self.out)
    }
}

/// Rows of a table as a list.
pub(crate) fn rows_page(table: Table, page: &[Row], part: Part, total: u64) -> Response<Body> {
    let mut envelope = Envelope::new();
    for row in page {
        envelope.item(|out| rows::write(out, table, row));
    }
    envelope.close(part, total)
}
