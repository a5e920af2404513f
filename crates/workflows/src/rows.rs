//! Catalog rows and wire models: a field and the column of its name hold the same. Every table
//! goes through here; what a table says of itself is in `forebay_domain::catalog`.

use forebay_domain::catalog::{Column, Kind, Row, Table, Value};
use forebay_wire::JobStatus;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::fault::Fault;

/// How a column looks on the wire, where its kind does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As its kind.
    Plain,
    /// An integer that is a flag.
    Flag,
    /// Text that is a JSON document.
    Document,
    /// An integer that is a job status.
    Status,
    /// Of this server alone: no client sees it.
    Hidden,
}

pub(crate) fn form(table: Table, column: &str) -> Form {
    if (table, column) == (Table::UserData, "data_before") {
        return Form::Hidden;
    }
    let (documents, flags): (&[&str], &[&str]) = match table {
        Table::Workflow => (
            &["metadata", "env", "resource_monitor_config", "slurm_defaults", "execution_config", "dynamic_jobs"],
            &["compute_node_ignore_workflow_completion", "use_pending_failed", "enable_ro_crate"],
        ),
        Table::UserData => (&["data"], &["is_ephemeral"]),
        Table::Node => (&["scheduler", "labels"], &["is_active"]),
        Table::Event => (&["data"], &[]),
        Table::Action => (&["action_config", "job_ids"], &["executed", "persistent", "is_recovery"]),
        Table::SlurmScheduler => (&[], &["serialize_allocations"]),
        Table::Result => return if column == "status" { Form::Status } else { Form::Plain },
        Table::Requirement
        | Table::File
        | Table::Handler
        | Table::LocalScheduler
        | Table::ScheduledNode
        | Table::Task
        | Table::Application => (&[], &[]),
    };
    if documents.contains(&column) {
        Form::Document
    } else if flags.contains(&column) {
        Form::Flag
    } else {
        Form::Plain
    }
}

/// The row of a model. A missing id is 0: the engine sets it.
pub(crate) fn to_row(table: Table, model: &impl Serialize) -> Result<Row, Fault> {
    let mut fields = fields_of(model);
    let mut row = Vec::with_capacity(table.columns().len());
    for (place, column) in table.columns().iter().enumerate() {
        let value = match fields.remove(column.name) {
            Some(field) => to_value(table, column, field)?,
            None if place == 0 => Value::Int(0),
            None => Value::Null,
        };
        if value == Value::Null && !column.nullable {
            return Err(Fault::unprocessable(format!("missing field `{}`", column.name)));
        }
        row.push(value);
    }
    Ok(row.into())
}

/// What an update with this model sets: each field that is there, but the id and the workflow.
pub(crate) fn changes(table: Table, model: &impl Serialize) -> Result<Vec<(usize, Value)>, Fault> {
    let mut fields = fields_of(model);
    let mut set = Vec::new();
    for (place, column) in table.columns().iter().enumerate() {
        if let Some(field) = fields.remove(column.name)
            && column.name != "id"
            && column.name != "workflow_id"
        {
            set.push((place, to_value(table, column, field)?));
        }
    }
    Ok(set)
}

fn fields_of(model: &impl Serialize) -> Map<String, Json> {
    match serde_json::to_value(model) {
        Ok(Json::Object(fields)) => fields,
        other => unreachable!("a model of the catalog is an object, not {other:?}"),
    }
}

fn to_value(table: Table, column: &Column, field: Json) -> Result<Value, Fault> {
    if field.is_null() {
        return Ok(Value::Null);
    }
    let value = match (form(table, column.name), column.kind, &field) {
        (Form::Document, Kind::Text, _) => Some(Value::Text(field.to_string().into())),
        (Form::Flag, Kind::Int, Json::Bool(flag)) => Some(Value::Int(i64::from(*flag))),
        (Form::Status, Kind::Int, Json::String(word)) => status(word).map(Value::Int),
        (Form::Plain, Kind::Int, Json::Number(number)) => number.as_i64().map(Value::Int),
        (Form::Plain, Kind::Real, Json::Number(number)) => number.as_f64().map(Value::Real),
        (Form::Plain, Kind::Text, Json::String(text)) => Some(Value::Text(text.as_str().into())),
        (
            Form::Plain | Form::Flag | Form::Document | Form::Status | Form::Hidden,
            Kind::Int | Kind::Real | Kind::Text,
            _,
        ) => None,
    };
    value.ok_or_else(|| Fault::field(format!("invalid value of field `{}`", column.name), column.name, field))
}

fn status(word: &str) -> Option<i64> {
    word.parse::<JobStatus>().ok().map(JobStatus::code)
}

/// The value that a query parameter names, in a column's form.
pub(crate) fn parse_value(table: Table, column: &Column, text: &str) -> Result<Value, Fault> {
    let value = match (form(table, column.name), column.kind) {
        (Form::Flag, _) => text.parse().map(|flag: bool| Value::Int(i64::from(flag))).map_err(|why| why.to_string()),
        (Form::Status, _) => status(text).map(Value::Int).ok_or_else(|| unknown_status(text)),
        (Form::Hidden, _) => Err("no client sees it".to_owned()),
        (Form::Plain | Form::Document, Kind::Int) => text.parse().map(Value::Int).map_err(|why| why.to_string()),
        (Form::Plain | Form::Document, Kind::Real) => text.parse().map(Value::Real).map_err(|why| why.to_string()),
        (Form::Plain | Form::Document, Kind::Text) => Ok(Value::Text(text.into())),
    };
    value.map_err(|why| Fault::bad_request(format!("Failed to deserialize query string: {}: {why}", column.name)))
}

/// torc's text where a word is none of the job statuses.
pub(crate) fn unknown_status(word: &str) -> String {
    let known = JobStatus::ALL.map(|status| format!("`{status}`")).join(", ");
    format!("unknown variant `{word}`, expected one of {known}")
}

/// Writes a row as an object, open at its end: more fields may follow, then `}`. A field that is
/// not set is left out.
pub(crate) fn write_open(out: &mut Vec<u8>, table: Table, row: &Row) {
    out.push(b'{');
    for (column, value) in table.columns().iter().zip(row) {
        let form = form(table, column.name);
        if *value == Value::Null || form == Form::Hidden {
            continue;
        }
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(column.name.as_bytes());
        out.extend_from_slice(b"\":");
        write_value(out, form, value);
    }
}

/// Writes a row as an object.
pub(crate) fn write(out: &mut Vec<u8>, table: Table, row: &Row) {
    write_open(out, table, row);
    out.push(b'}');
}

fn write_value(out: &mut Vec<u8>, form: Form, value: &Value) {
    match (form, value) {
        (Form::Document, Value::Text(document)) => out.extend_from_slice(document.as_bytes()),
        (Form::Flag, Value::Int(flag)) => out.extend_from_slice(if *flag == 0 { b"false" } else { b"true" }),
        (Form::Status, Value::Int(code)) => {
            write_text(out, JobStatus::from_code(*code).map_or("unknown", JobStatus::as_str));
        }
        (_, Value::Null) => out.extend_from_slice(b"null"),
        (_, Value::Int(number)) => write_int(out, *number),
        (_, Value::Real(number)) => serde_json::to_writer(out, number).expect("a Vec takes all bytes"),
        (_, Value::Text(text)) => write_text(out, text),
    }
}

pub(crate) fn write_int(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes all bytes");
}

/// The integer in a column of a row; 0 where it is not set.
pub(crate) fn int(row: &Row, table: Table, column: &str) -> i64 {
    match at(row, table, column) {
        Value::Int(number) => *number,
        Value::Null | Value::Real(_) | Value::Text(_) => 0,
    }
}

pub(crate) fn real(row: &Row, table: Table, column: &str) -> f64 {
    match at(row, table, column) {
        Value::Real(number) => *number,
        Value::Null | Value::Int(_) | Value::Text(_) => 0.0,
    }
}

pub(crate) fn text<'a>(row: &'a Row, table: Table, column: &str) -> Option<&'a str> {
    match at(row, table, column) {
        Value::Text(text) => Some(text),
        Value::Null | Value::Int(_) | Value::Real(_) => None,
    }
}

fn at<'a>(row: &'a Row, table: Table, column: &str) -> &'a Value {
    let place = table.column(column).expect("only columns of the table are asked for");
    &row[place]
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_domain::catalog::TABLES;
    use forebay_wire::{ComputeNodeModel, EventModel, FileModel, ResultModel, UserDataModel};
    use serde_json::json;

    fn rendered(table: Table, row: &Row) -> Json {
        let mut out = Vec::new();
        write(&mut out, table, row);
        serde_json::from_slice(&out).expect("a row is rendered as JSON")
    }

    #[test]
    fn a_model_goes_into_a_row_and_comes_back() {
        let node = ComputeNodeModel {
            id: Some(7),
            workflow_id: 3,
            hostname: "a \"quoted\" host".into(),
            memory_gb: 8.0,
            is_active: Some(true),
            labels: Some(vec!["gpu".into()]),
            scheduler: Some(json!({"scheduler_id": 4})),
            ..ComputeNodeModel::default()
        };
        let row = to_row(Table::Node, &node).unwrap();
        let back: ComputeNodeModel = serde_json::from_value(rendered(Table::Node, &row)).unwrap();
        assert_eq!(back, node);
    }

    #[test]
    fn floats_keep_their_point_and_unset_fields_are_left_out() {
        let file = FileModel { workflow_id: 3, st_mtime: Some(5.0), ..FileModel::default() };
        let mut out = Vec::new();
        write(&mut out, Table::File, &to_row(Table::File, &file).unwrap());
        assert_eq!(out, br#"{"id":0,"workflow_id":3,"name":"","path":"","st_mtime":5.0}"#);
    }

    #[test]
    fn a_document_of_any_shape_survives() {
        for data in [json!("text"), json!(5), json!([1, null]), json!({"a": {"b": 1.5}})] {
            let model =
                UserDataModel { data: Some(data.clone()), is_ephemeral: Some(false), ..UserDataModel::default() };
            let row = to_row(Table::UserData, &model).unwrap();
            assert_eq!(rendered(Table::UserData, &row)["data"], data);
            let event = EventModel { data: data.clone(), ..EventModel::default() };
            assert_eq!(rendered(Table::Event, &to_row(Table::Event, &event).unwrap())["data"], data);
        }
    }

    #[test]
    fn a_status_is_stored_as_torcs_number() {
        let result = ResultModel { status: JobStatus::Terminated, attempt_id: Some(1), ..ResultModel::default() };
        let row = to_row(Table::Result, &result).unwrap();
        assert_eq!(int(&row, Table::Result, "status"), 8);
        assert_eq!(rendered(Table::Result, &row)["status"], "terminated");
    }

    #[test]
    fn an_update_sets_what_is_there_but_the_id_and_the_workflow() {
        let model = UserDataModel { id: Some(9), name: "n".into(), workflow_id: 4, ..UserDataModel::default() };
        let set = changes(Table::UserData, &model).unwrap();
        assert_eq!(set, [(2, Value::Text("n".into()))]);
    }

    #[test]
    fn a_field_that_must_be_there_is_missed() {
        let fault = to_row(Table::UserData, &UserDataModel::default()).unwrap_err();
        assert_eq!(fault.message(), "missing field `is_ephemeral`");
    }

    #[test]
    fn documents_are_text_and_flags_are_integers() {
        for table in TABLES {
            for column in table.columns() {
                match form(table, column.name) {
                    Form::Document => assert_eq!(column.kind, Kind::Text, "{}", column.name),
                    Form::Flag | Form::Status => assert_eq!(column.kind, Kind::Int, "{}", column.name),
                    Form::Plain | Form::Hidden => {}
                }
            }
        }
    }
}
