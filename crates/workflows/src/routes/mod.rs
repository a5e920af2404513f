//! Which request goes where. Paths are torc's; those marked as ours are additions to its API.

mod actions;
mod catalog;
mod changed;
mod claims;
mod jobs;
mod later;
mod leases;
mod relations;
mod requirements;
mod results;
mod running;
mod schedulers;
mod spawn;
mod status;
mod untie;
mod workflows;

use hyper::body::{Body as HttpBody, Bytes};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response};

use forebay_wire::{API_VERSION, BASE_PATH, PingResponse, TORC_VERSION, VersionResponse};

use crate::fault::Fault;
use crate::http::{self, Body, Call, Reply, path_id};
use crate::{Door, Options};

use catalog::{EVENTS, FILES, HANDLERS, NODES, USER_DATA};

/// Segments of the longest path.
const SEGMENTS_MAX: usize = 6;

pub(crate) async fn answer<B>(door: &Door, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let (parts, body) = request.into_parts();
    let mut segments = [""; SEGMENTS_MAX];
    let reply = match split(parts.uri.path(), &mut segments) {
        None => Err(Fault::no_route()),
        Some(segments) => match http::read_body(body, body_max(segments, door.options())).await {
            Err(fault) => Err(fault),
            Ok(body) => {
                let user = parts.extensions.get();
                let call = Call { query: parts.uri.query(), headers: &parts.headers, user, body };
                route(door, &parts.method, segments, &call).await
            }
        },
    };
    let mut response = reply.unwrap_or_else(|fault| {
        tracing::debug!(method = %parts.method, path = parts.uri.path(), status = fault.status.as_u16(), "refused");
        fault.into_response()
    });
    let span = match parts.headers.get(http::SPAN_ID) {
        Some(span) => span.clone(),
        None => HeaderValue::from_str(&format!("{:016x}", door.next_span())).expect("hexadecimal digits are visible"),
    };
    response.headers_mut().insert(http::SPAN_ID, span);
    response
}

/// The segments of a path after the base. A path does not end with an empty one.
fn split<'a, 's>(path: &'a str, segments: &'s mut [&'a str; SEGMENTS_MAX]) -> Option<&'s [&'a str]> {
    let rest = path.strip_prefix(BASE_PATH)?.strip_prefix('/')?;
    let mut count = 0;
    for segment in rest.split('/') {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    let segments = &segments[..count];
    (segments.last() != Some(&"")).then_some(segments)
}

fn body_max(segments: &[&str], options: &Options) -> u64 {
    match segments {
        ["bulk_jobs" | "bulk_files" | "bulk_user_data"] => options.bulk_body_max,
        ["workflows", _, "batch_complete_jobs" | "report_and_claim"] => options.report_body_max,
        _ => options.body_max,
    }
}

/// The requests of running jobs first; all others cost a box.
async fn route(door: &Door, method: &Method, segments: &[&str], call: &Call<'_>) -> Reply {
    match (method, segments) {
        (&Method::POST, ["workflows", id, "claim_next_jobs"]) => claims::claim_next(door, path_id(id)?, call).await,
        (&Method::PUT, ["jobs", id, "start_job", run, node]) => {
            claims::start(door, path_id(id)?, path_id(run)?, path_id(node)?).await
        }
        (&Method::POST, ["jobs", id, "complete_job", status, run]) => {
            claims::complete(door, path_id(id)?, status, path_id(run)?, call).await
        }
        (&Method::POST, ["workflows", id, "claim_jobs_based_on_resources", limit]) => {
            claims::claim_fitting(door, path_id(id)?, path_id(limit)?, call).await
        }
        (&Method::POST, ["workflows", id, "batch_complete_jobs"]) => {
            claims::batch_complete(door, path_id(id)?, call).await
        }
        // Ours.
        (&Method::POST, ["workflows", id, "report_and_claim"]) => {
            claims::report_and_claim(door, path_id(id)?, call).await
        }
        (&Method::POST, ["workflows", id, "heartbeat"]) => leases::heartbeat(door, path_id(id)?, call).await,
        _ => Box::pin(route_rest(door, method, segments, call)).await,
    }
}

async fn route_rest(door: &Door, method: &Method, segments: &[&str], call: &Call<'_>) -> Reply {
    // Where an answer to GET exists, HEAD has the same without its body.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    match segments {
        ["workflows", id, rest @ ..] if !rest.is_empty() => {
            of_workflow(door, method, path_id(id)?, rest, segments, call).await
        }
        ["workflows"] => match *method {
            Method::GET => workflows::list(door, call).await,
            Method::POST => workflows::create(door, call).await,
            _ => Err(Fault::method_not_allowed("GET,HEAD,POST")),
        },
        ["workflows", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => workflows::get(door, id).await,
                Method::PUT => workflows::update(door, id, call).await,
                Method::DELETE => workflows::delete(door, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["jobs"] => match *method {
            Method::GET => jobs::list(door, call).await,
            Method::POST => jobs::create(door, call).await,
            Method::DELETE => jobs::delete_all(door, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["jobs", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => jobs::get(door, id).await,
                Method::PUT => jobs::update(door, id, call).await,
                Method::DELETE => jobs::delete(door, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["jobs", id, "manage_status_change", status, run] => match *method {
            Method::PUT => jobs::manage_status_change(door, path_id(id)?, status, path_id(run)?).await,
            _ => Err(Fault::method_not_allowed("PUT")),
        },
        ["jobs", id, "retry", run] => match *method {
            Method::POST => jobs::retry(door, path_id(id)?, path_id(run)?, call).await,
            _ => Err(Fault::method_not_allowed("POST")),
        },
        ["jobs", id, "spawn_jobs"] => match *method {
            Method::POST => spawn::spawn_jobs(door, path_id(id)?, call).await,
            _ => Err(Fault::method_not_allowed("POST")),
        },
        ["jobs", _, "start_job", _, _] => Err(Fault::method_not_allowed("PUT")),
        ["jobs", _, "complete_job", _, _] => Err(Fault::method_not_allowed("POST")),
        ["bulk_jobs"] => match *method {
            Method::POST => jobs::create_many(door, call).await,
            _ => Err(Fault::method_not_allowed("POST")),
        },
        ["bulk_files"] => match *method {
            Method::POST => catalog::create_files(door, call).await,
            _ => Err(Fault::method_not_allowed("POST")),
        },
        ["bulk_user_data"] => match *method {
            Method::POST => catalog::create_user_data_list(door, call).await,
            _ => Err(Fault::method_not_allowed("POST")),
        },
        ["files"] => match *method {
            Method::GET => catalog::list_files(door, call).await,
            Method::POST => catalog::create_file(door, call).await,
            Method::DELETE => untie::delete_all(door, &FILES, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["files", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => catalog::get(door, &FILES, id).await,
                Method::PUT => catalog::update_file(door, id, call).await,
                Method::DELETE => untie::delete(door, &FILES, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["user_data"] => match *method {
            Method::GET => catalog::list_user_data(door, call).await,
            Method::POST => catalog::create_user_data(door, call).await,
            Method::DELETE => untie::delete_all(door, &USER_DATA, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["user_data", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => catalog::get(door, &USER_DATA, id).await,
                Method::PUT => catalog::update_user_data(door, id, call).await,
                Method::DELETE => untie::delete(door, &USER_DATA, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["compute_nodes"] => match *method {
            Method::GET => catalog::list_nodes(door, call).await,
            Method::POST => catalog::create_node(door, call).await,
            Method::DELETE => catalog::delete_all(door, &NODES, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["compute_nodes", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => catalog::get(door, &NODES, id).await,
                Method::PUT => catalog::update_node(door, id, call).await,
                Method::DELETE => catalog::delete(door, &NODES, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["events"] => match *method {
            Method::GET => catalog::list_events(door, call).await,
            Method::POST => catalog::create_event(door, call).await,
            Method::DELETE => catalog::delete_all(door, &EVENTS, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["events", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => catalog::get(door, &EVENTS, id).await,
                Method::PUT => catalog::update_event(door, id, call).await,
                Method::DELETE => catalog::delete(door, &EVENTS, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["failure_handlers"] => match *method {
            Method::POST => catalog::create_handler(door, call).await,
            _ => Err(Fault::method_not_allowed("POST")),
        },
        ["failure_handlers", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => catalog::get(door, &HANDLERS, id).await,
                Method::DELETE => catalog::delete(door, &HANDLERS, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD")),
            }
        }
        ["slurm_schedulers"] => match *method {
            Method::GET => schedulers::list_all(door, &schedulers::SLURM, call).await,
            Method::POST => schedulers::create_slurm(door, call).await,
            Method::DELETE => catalog::delete_all(door, &schedulers::SLURM, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["slurm_schedulers", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => catalog::get(door, &schedulers::SLURM, id).await,
                Method::PUT => schedulers::update_slurm(door, id, call).await,
                Method::DELETE => catalog::delete(door, &schedulers::SLURM, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["local_schedulers"] => match *method {
            Method::GET => schedulers::list_all(door, &schedulers::LOCAL, call).await,
            Method::POST => schedulers::create_local(door, call).await,
            Method::DELETE => catalog::delete_all(door, &schedulers::LOCAL, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["local_schedulers", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => catalog::get(door, &schedulers::LOCAL, id).await,
                Method::PUT => schedulers::update_local(door, id, call).await,
                Method::DELETE => catalog::delete(door, &schedulers::LOCAL, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["scheduled_compute_nodes"] => match *method {
            Method::GET => schedulers::list_all(door, &schedulers::SCHEDULED_NODES, call).await,
            Method::POST => schedulers::create_scheduled_node(door, call).await,
            Method::DELETE => catalog::delete_all(door, &schedulers::SCHEDULED_NODES, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["scheduled_compute_nodes", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => catalog::get(door, &schedulers::SCHEDULED_NODES, id).await,
                Method::PUT => schedulers::update_scheduled_node(door, id, call).await,
                Method::DELETE => catalog::delete(door, &schedulers::SCHEDULED_NODES, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["resource_requirements"] => match *method {
            Method::GET => requirements::list(door, call).await,
            Method::POST => requirements::create(door, call).await,
            Method::DELETE => requirements::delete_all(door, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["resource_requirements", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => catalog::get(door, &requirements::REQUIREMENTS, id).await,
                Method::PUT => requirements::update(door, id, call).await,
                Method::DELETE => requirements::delete(door, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["results"] => match *method {
            Method::GET => results::list(door, call).await,
            Method::POST => results::create(door, call).await,
            Method::DELETE => catalog::delete_all(door, &results::RESULTS, call).await,
            _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,POST")),
        },
        ["results", id] => {
            let id = path_id(id)?;
            match *method {
                Method::GET => results::get(door, id).await,
                Method::PUT => results::update(door, id, call).await,
                Method::DELETE => results::delete(door, id).await,
                _ => Err(Fault::method_not_allowed("DELETE,GET,HEAD,PUT")),
            }
        }
        ["tasks", id] => match *method {
            Method::GET => workflows::task(door, path_id(id)?).await,
            _ => Err(Fault::method_not_allowed("GET,HEAD")),
        },
        ["ping"] => match *method {
            Method::GET => Ok(http::ok_json(&PingResponse { status: "ok".to_owned() })),
            _ => Err(Fault::method_not_allowed("GET,HEAD")),
        },
        ["version"] => match *method {
            Method::GET => Ok(http::ok_json(&version())),
            _ => Err(Fault::method_not_allowed("GET,HEAD")),
        },
        _ => Err(later::refuse(method, segments)),
    }
}

async fn of_workflow(
    door: &Door,
    method: &Method,
    id: i64,
    rest: &[&str],
    segments: &[&str],
    call: &Call<'_>,
) -> Reply {
    let (post, put, get) = (method == Method::POST, method == Method::PUT, method == Method::GET);
    match rest {
        ["status"] if get => status::status(door, id, call).await,
        ["is_complete"] if get => status::is_complete(door, id).await,
        ["is_uninitialized"] if get => status::is_uninitialized(door, id).await,
        ["active_task"] if get => workflows::active_task(door, id).await,
        ["job_ids"] if get => relations::job_ids(door, id).await,
        ["job_dependencies"] if get => relations::dependencies(door, id, call).await,
        ["job_file_relationships"] if get => relations::of_files(door, id, call).await,
        ["job_user_data_relationships"] if get => relations::of_user_data(door, id, call).await,
        ["required_existing_files"] if get => relations::required_existing_files(door, id).await,
        ["missing_user_data"] if get => relations::missing_user_data(door, id).await,
        ["failure_handlers"] if get => catalog::list_handlers(door, id, call).await,
        ["running_jobs"] if get => running::jobs(door, id, call).await,
        ["slurm_job_correlations"] if get => running::in_slurm(door, id, call).await,
        ["events", "stream"] if get => workflows::events(door, id, call).await,
        ["remote_workers"] if get => workflows::remote_workers(door, id).await,
        ["actions"] if get => actions::list(door, id).await,
        ["actions"] if post => actions::create(door, id, call).await,
        ["actions", "pending"] if get => actions::pending(door, id, call).await,
        ["actions", "pending"] => Err(Fault::method_not_allowed("GET,HEAD")),
        ["actions", action] if put => actions::update(door, id, path_id(action)?, call).await,
        ["actions", action] if method == Method::DELETE => actions::delete(door, id, path_id(action)?).await,
        ["actions", action, "claim"] if post => actions::claim(door, id, path_id(action)?, call).await,
        ["process_changed_job_inputs"] if post => changed::process(door, id, call).await,
        ["cancel"] if put => workflows::cancel(door, id).await,
        ["archive"] if post => workflows::archive(door, id, call).await,
        ["reset_status"] if post => workflows::reset_status(door, id, call).await,
        ["reset_job_status"] if post => workflows::reset_job_status(door, id, call).await,
        ["initialize_jobs"] if post => workflows::initialize_jobs(door, id, call).await,
        [
            "status"
            | "is_complete"
            | "is_uninitialized"
            | "active_task"
            | "job_ids"
            | "job_dependencies"
            | "job_file_relationships"
            | "job_user_data_relationships"
            | "required_existing_files"
            | "missing_user_data"
            | "failure_handlers"
            | "running_jobs"
            | "slurm_job_correlations",
        ]
        | ["events", "stream"] => Err(Fault::method_not_allowed("GET,HEAD")),
        ["cancel"] => Err(Fault::method_not_allowed("PUT")),
        [
            "archive"
            | "reset_status"
            | "reset_job_status"
            | "initialize_jobs"
            | "process_changed_job_inputs"
            | "claim_next_jobs"
            | "batch_complete_jobs"
            | "report_and_claim"
            | "heartbeat",
        ]
        | ["claim_jobs_based_on_resources", _]
        | ["actions", _, "claim"] => Err(Fault::method_not_allowed("POST")),
        ["actions"] => Err(Fault::method_not_allowed("GET,HEAD,POST")),
        ["actions", _] => Err(Fault::method_not_allowed("DELETE,PUT")),
        _ => Err(later::refuse(method, segments)),
    }
}

fn version() -> VersionResponse {
    VersionResponse {
        version: format!("{TORC_VERSION} (forebay {})", env!("CARGO_PKG_VERSION")),
        api_version: API_VERSION.to_owned(),
        git_hash: None,
    }
}

/// An answer of another kind than a command's: the engine broke its word.
pub(crate) fn unexpected(answer: &forebay_domain::command::Answer) -> ! {
    unreachable!("the engine answers each command with its own kind of answer, not {answer:?}")
}
