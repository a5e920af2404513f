//! Results: how attempts ended. Reports write them; a client that brings its own may too.

use std::collections::HashMap;

use forebay_domain::catalog::{Row, Table};
use forebay_domain::command::Scope;
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::port::Reader;
use forebay_wire::ResultModel;

use crate::fault::Fault;
use crate::http::{self, Call, Reply};
use crate::list::{self, Envelope, Part};
use crate::routes::catalog::{self, Resource, exists, insert};
use crate::rows::{self, write_text};
use crate::{Door, Unseen};

pub(super) const RESULTS: Resource = Resource { table: Table::Result, noun: "Result", contains: &[] };

pub(super) async fn get(door: &Door, id: i64) -> Reply {
    // Whose result it is, is known when it is read.
    door.look_of(Scope::Everything, move |reader| {
        let row = reader.get(Table::Result, id)?.ok_or_else(|| Fault::not_found("Result", id))?;
        let names = names_of(reader, std::slice::from_ref(&row))?;
        let mut out = Vec::with_capacity(256);
        write(&mut out, &row, &names);
        Ok(http::ok(out))
    })
    .await
}

/// The latest of each job, or with `all_runs` all.
pub(super) async fn list(door: &Door, call: &Call<'_>) -> Reply {
    let params = call.params();
    let workflow: i64 = params.required("workflow_id")?;
    let all_runs = params.flag("all_runs")?;
    let part = Part::of(&params)?;
    let query = list::query(Table::Result, Some(workflow), &params, &[], part)?;
    door.look_of(Scope::Workflow(WorkflowId(workflow)), move |reader| {
        exists(reader, workflow)?;
        let (page, total) = if all_runs { reader.list(&query)? } else { reader.latest_results(&query)? };
        let names = names_of(reader, &page)?;
        let mut envelope = Envelope::new();
        for row in &page {
            envelope.item(|out| write(out, row, &names));
        }
        Ok(envelope.close(part, total))
    })
    .await
}

/// The latest of its job from now on.
pub(super) async fn create(door: &Door, call: &Call<'_>) -> Reply {
    let mut result: ResultModel = call.json()?;
    result.attempt_id.get_or_insert(1);
    let workflow = result.workflow_id;
    let id = insert(door, Table::Result, workflow, std::slice::from_ref(&result)).await?;
    get(door, id).await
}

/// torc's fields; the rest stays.
pub(super) async fn update(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    const UPDATED: [&str; 5] = ["run_id", "return_code", "exec_time_minutes", "completion_time", "status"];
    let result: ResultModel = call.json()?;
    let mut set = rows::changes(Table::Result, &result)?;
    set.retain(|(place, _)| UPDATED.contains(&Table::Result.columns()[*place].name));
    catalog::set(door, &RESULTS, id, set).await?;
    get(door, id).await
}

pub(super) async fn delete(door: &Door, id: i64) -> Reply {
    let whole = get(door, id).await?;
    catalog::delete(door, &RESULTS, id).await?;
    Ok(whole)
}

fn names_of(reader: &mut dyn Reader, page: &[Row]) -> Result<HashMap<JobId, Box<str>>, Unseen> {
    let mut ids: Vec<JobId> = page.iter().map(job_of).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(reader.job_names(&ids)?.into_iter().collect())
}

fn job_of(row: &Row) -> JobId {
    JobId(rows::int(row, Table::Result, "job_id"))
}

fn write(out: &mut Vec<u8>, row: &Row, names: &HashMap<JobId, Box<str>>) {
    rows::write_open(out, Table::Result, row);
    if let Some(name) = names.get(&job_of(row)) {
        out.extend_from_slice(b",\"job_name\":");
        write_text(out, name);
    }
    out.push(b'}');
}
