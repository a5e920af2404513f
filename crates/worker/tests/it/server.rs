//! A server in memory: what a worker asks of the workflows door, and knobs to be nasty.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use forebay_wire::ours::{
    ClaimRequest, HeartbeatRequest, HeartbeatResponse, ReportAndClaimRequest, ReportAndClaimResponse,
};
use forebay_wire::units::{gb_to_bytes, memory_bytes};
use forebay_wire::*;
use tokio::sync::{Notify, watch};

/// Jobs have ids from 1 in the order in which they were added.
#[derive(Default)]
pub struct Book {
    pub workflow: WorkflowModel,
    pub jobs: Vec<JobModel>,
    pub needs: Vec<ResourceRequirementsModel>,
    pub handlers: Vec<FailureHandlerModel>,
    pub files: Vec<FileModel>,
    pub nodes: Vec<ComputeNodeModel>,
    pub results: Vec<ResultModel>,
    pub canceled: bool,
    /// Requests so far, as `METHOD /path`.
    pub requests: Vec<String>,
    /// Answer 503.
    pub away: bool,
    /// Answer 404.
    pub refuse: bool,
    /// Carry out so many requests for reports and claims and close the connection.
    pub lose_answers: u32,
    /// The same, but undo the claim, as a server does that notices.
    pub undo_lost: bool,
    /// Compute nodes with a lease.
    pub leases: Vec<i64>,
    /// Refuse requests with more than one report: one of them is poison.
    pub poison: Option<i64>,
}

#[derive(Clone)]
pub struct Server {
    book: Arc<Mutex<Book>>,
    changed: Arc<Notify>,
    /// Counts the requests.
    asked: watch::Sender<usize>,
    address: SocketAddr,
}

impl Server {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let book = Book {
            workflow: WorkflowModel {
                id: Some(1),
                name: "w".into(),
                user: "me".into(),
                run_id: Some(1),
                submission_directory: Some("/submitted".into()),
                ..WorkflowModel::default()
            },
            ..Book::default()
        };
        let server = Self {
            book: Arc::new(Mutex::new(book)),
            changed: Arc::default(),
            asked: watch::channel(0).0,
            address: listener.local_addr().unwrap(),
        };
        server.needs("default", 1, "1m", "PT1M");
        let router = Router::new()
            .route("/workflows/{id}", get(workflow))
            .route("/workflows/{id}/report_and_claim", post(report_and_claim))
            .route("/workflows/{id}/heartbeat", post(heartbeat))
            .route("/workflows/{id}/is_complete", get(is_complete))
            .route("/workflows/{id}/status", get(status))
            .route("/compute_nodes", post(create_node))
            .route("/compute_nodes/{id}", get(node).put(update_node))
            .route("/resource_requirements", get(list_needs))
            .route("/resource_requirements/{id}", get(one_need))
            .route("/failure_handlers/{id}", get(handler))
            .route("/files/{id}", get(file).put(update_file))
            .route("/jobs", get(list_jobs))
            .route("/jobs/{id}", get(job))
            .route("/jobs/{id}/retry/{run}", post(retry))
            .route("/jobs/{id}/manage_status_change/{status}/{run}", put(change_status))
            .layer(from_fn_with_state(server.clone(), note))
            .with_state(server.clone());
        let router = Router::new().nest(BASE_PATH, router);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// Adds requirements and returns their id. The first are those of jobs that name none.
    pub fn needs(&self, name: &str, num_cpus: i64, memory: &str, runtime: &str) -> i64 {
        let mut book = self.book();
        let id = book.needs.len() as i64 + 1;
        book.needs.push(ResourceRequirementsModel {
            id: Some(id),
            workflow_id: 1,
            name: name.into(),
            num_cpus,
            num_gpus: 0,
            num_nodes: 1,
            memory: memory.into(),
            runtime: runtime.into(),
        });
        id
    }

    /// Adds a job that is ready, or blocked if `shape` makes it depend on others.
    pub fn job(&self, name: &str, command: &str, shape: impl FnOnce(&mut JobModel)) -> i64 {
        let mut book = self.book();
        let id = book.jobs.len() as i64 + 1;
        let mut job = JobModel {
            id: Some(id),
            workflow_id: 1,
            name: name.into(),
            command: command.into(),
            status: Some(JobStatus::Ready),
            attempt_id: Some(1),
            resource_requirements_id: Some(1),
            ..JobModel::default()
        };
        shape(&mut job);
        if job.depends_on_job_ids.is_some() {
            job.status = Some(JobStatus::Blocked);
        }
        book.jobs.push(job);
        drop(book);
        self.changed.notify_waiters();
        id
    }

    pub fn handler(&self, rules: &str) -> i64 {
        let mut book = self.book();
        let id = book.handlers.len() as i64 + 1;
        book.handlers.push(FailureHandlerModel { id: Some(id), workflow_id: 1, name: "h".into(), rules: rules.into() });
        id
    }

    pub fn file(&self, path: &str) -> i64 {
        let mut book = self.book();
        let id = book.files.len() as i64 + 1;
        book.files.push(FileModel {
            id: Some(id),
            workflow_id: 1,
            name: path.into(),
            path: path.into(),
            st_mtime: None,
        });
        id
    }

    pub fn cancel(&self) {
        let mut book = self.book();
        book.canceled = true;
        for job in &mut book.jobs {
            if matches!(job.status, Some(JobStatus::Running)) {
                job.status = Some(JobStatus::Canceled);
            }
        }
        drop(book);
        self.changed.notify_waiters();
    }

    /// The lease of a node is over: what it runs is ready, as new attempts.
    pub fn end_lease(&self, node: i64) {
        let mut book = self.book();
        book.leases.retain(|leased| *leased != node);
        for job in book.jobs.iter_mut().filter(|job| job.compute_node_id == Some(node)) {
            if job.status == Some(JobStatus::Running) {
                job.status = Some(JobStatus::Ready);
                job.attempt_id = job.attempt_id.map(|attempt| attempt + 1);
                job.compute_node_id = None;
            }
        }
        drop(book);
        self.changed.notify_waiters();
    }

    pub fn status_of(&self, id: i64) -> JobStatus {
        self.book().jobs[id as usize - 1].status.unwrap()
    }

    pub fn result_of(&self, id: i64) -> ResultModel {
        let book = self.book();
        book.results.iter().rev().find(|result| result.job_id == id).expect("it was reported").clone()
    }

    /// How many requests began like this.
    pub fn asked(&self, start: &str) -> usize {
        self.book().requests.iter().filter(|request| request.starts_with(start)).count()
    }

    /// Waits until so many requests began like this.
    pub async fn until_asked(&self, start: &str, count: usize) {
        let mut asked = self.asked.subscribe();
        while self.asked(start) < count {
            asked.changed().await.unwrap();
        }
    }
}

impl Book {
    fn is_complete(&self) -> bool {
        self.jobs.iter().all(|job| job.status.unwrap().is_complete())
    }

    fn set_free(&mut self) {
        let done: Vec<i64> =
            self.jobs.iter().filter(|job| job.status.unwrap().is_complete()).map(|job| job.id.unwrap()).collect();
        for job in self.jobs.iter_mut().filter(|job| job.status == Some(JobStatus::Blocked)) {
            if job.depends_on_job_ids.iter().flatten().all(|id| done.contains(id)) {
                job.status = Some(JobStatus::Ready);
            }
        }
    }

    fn claim(&mut self, claim: &ClaimRequest) -> Vec<JobModel> {
        let mut free = claim.resources.clone();
        let mut taken = Vec::new();
        for job in self.jobs.iter_mut().filter(|job| job.status == Some(JobStatus::Ready)) {
            if taken.len() as i64 >= claim.limit {
                break;
            }
            if let Some(free) = &mut free {
                let id = job.resource_requirements_id.unwrap();
                let needs = self.needs.iter().find(|needs| needs.id == Some(id)).unwrap();
                let memory = memory_bytes(&needs.memory).unwrap();
                if needs.num_cpus > free.num_cpus
                    || memory > gb_to_bytes(free.memory_gb)
                    || needs.num_gpus > free.num_gpus
                {
                    continue;
                }
                free.num_cpus -= needs.num_cpus;
                free.memory_gb -= units::bytes_to_gb(memory);
                free.num_gpus -= needs.num_gpus;
            }
            job.status = Some(JobStatus::Running);
            job.compute_node_id = claim.start_on;
            taken.push(job.clone());
        }
        taken
    }
}

async fn note(State(server): State<Server>, request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let line = line.replacen(BASE_PATH, "", 1);
    let (away, refuse) = {
        let mut book = server.book();
        book.requests.push(line);
        (book.away, book.refuse)
    };
    server.asked.send_modify(|count| *count += 1);
    if away {
        return (StatusCode::SERVICE_UNAVAILABLE, "away").into_response();
    }
    if refuse {
        return (StatusCode::NOT_FOUND, Json(ErrorResponse::message("no such workflow"))).into_response();
    }
    next.run(request).await
}

async fn workflow(State(server): State<Server>) -> Json<WorkflowModel> {
    Json(server.book().workflow.clone())
}

async fn report_and_claim(State(server): State<Server>, Json(request): Json<ReportAndClaimRequest>) -> Response {
    let mut answer = ReportAndClaimResponse::default();
    let ids: Vec<i64> = request.completions.iter().map(|entry| entry.job_id).collect();
    if server.book().poison.is_some_and(|poison| ids.contains(&poison)) {
        return (StatusCode::BAD_REQUEST, Json(ErrorResponse::message("poison"))).into_response();
    }
    let node = request.claim.as_ref().and_then(|claim| claim.start_on.filter(|_| claim.leased == Some(true)));
    let has_lease = || node.is_none_or(|node| server.book().leases.contains(&node));
    if !has_lease() {
        return lease_over();
    }
    for entry in request.completions {
        let mut guard = server.book();
        let book = &mut *guard;
        let job = &mut book.jobs[entry.job_id as usize - 1];
        if job.status.unwrap().is_complete() {
            let message = format!("job_id={} is already complete", entry.job_id);
            answer.errors.push(JobCompletionError { job_id: entry.job_id, message });
            continue;
        }
        if job.attempt_id > entry.result.attempt_id && !book.leases.contains(&entry.result.compute_node_id) {
            let message = format!("Attempt ID mismatch: job_id={}", entry.job_id);
            answer.errors.push(JobCompletionError { job_id: entry.job_id, message });
            continue;
        }
        assert_eq!(job.attempt_id, entry.result.attempt_id, "only the current attempt is reported");
        job.status = Some(entry.status);
        book.results.push(entry.result);
        book.set_free();
        answer.completed.push(entry.job_id);
    }
    if !answer.completed.is_empty() {
        server.changed.notify_waiters();
    }
    if let Some(claim) = &request.claim {
        let wait = Duration::from_millis(claim.wait_ms.unwrap_or(0) as u64);
        let until = tokio::time::Instant::now() + wait;
        loop {
            let changed = server.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !has_lease() {
                return lease_over();
            }
            {
                let mut book = server.book();
                if !book.canceled {
                    answer.jobs = book.claim(claim);
                }
                (answer.is_complete, answer.is_canceled) = (book.is_complete(), book.canceled);
            }
            if !answer.jobs.is_empty() || answer.is_complete || answer.is_canceled {
                break;
            }
            if tokio::time::timeout_at(until, changed).await.is_err() {
                break;
            }
        }
    }
    let mut book = server.book();
    (answer.is_complete, answer.is_canceled) = (book.is_complete(), book.canceled);
    if book.lose_answers > 0 {
        book.lose_answers -= 1;
        if book.undo_lost {
            for job in &answer.jobs {
                book.jobs[job.id.unwrap() as usize - 1].status = Some(JobStatus::Ready);
            }
        }
        drop(book);
        // The connection's task ends, and with it the connection.
        std::panic::resume_unwind(Box::new("lost"));
    }
    Json(answer).into_response()
}

fn lease_over() -> Response {
    (StatusCode::GONE, Json(ErrorResponse::message("no lease, or none any more"))).into_response()
}

async fn heartbeat(State(server): State<Server>, Json(request): Json<HeartbeatRequest>) -> Response {
    let HeartbeatRequest { compute_node_id: node, lease_ms, begin } = request;
    if begin {
        server.book().leases.push(node);
    } else if !server.book().leases.contains(&node) {
        return lease_over();
    }
    if lease_ms == 0 {
        server.end_lease(node);
    }
    Json(HeartbeatResponse { lease_ms }).into_response()
}

async fn is_complete(State(server): State<Server>) -> Json<IsCompleteResponse> {
    let book = server.book();
    Json(IsCompleteResponse { is_canceled: book.canceled, is_complete: book.is_complete() })
}

async fn status(State(server): State<Server>) -> Json<WorkflowStatusResponse> {
    let book = server.book();
    let mut counts = JobStatusCounts::default();
    for job in &book.jobs {
        *counts.of_mut(job.status.unwrap()) += 1;
    }
    Json(WorkflowStatusResponse {
        jobs_by_status: counts,
        is_complete: book.is_complete(),
        ..WorkflowStatusResponse::default()
    })
}

async fn create_node(State(server): State<Server>, Json(mut node): Json<ComputeNodeModel>) -> Json<ComputeNodeModel> {
    let mut book = server.book();
    node.id = Some(book.nodes.len() as i64 + 1);
    book.nodes.push(node.clone());
    Json(node)
}

async fn node(State(server): State<Server>, Path(id): Path<i64>) -> Json<ComputeNodeModel> {
    Json(server.book().nodes[id as usize - 1].clone())
}

async fn update_node(
    State(server): State<Server>,
    Path(id): Path<i64>,
    Json(node): Json<ComputeNodeModel>,
) -> Json<ComputeNodeModel> {
    server.book().nodes[id as usize - 1] = node.clone();
    Json(node)
}

async fn list_needs(State(server): State<Server>) -> Json<ListResourceRequirementsResponse> {
    let needs = server.book().needs.clone();
    let count = needs.len() as i64;
    Json(ListResponse::page(needs, 0, count))
}

async fn one_need(State(server): State<Server>, Path(id): Path<i64>) -> Json<ResourceRequirementsModel> {
    Json(server.book().needs[id as usize - 1].clone())
}

async fn handler(State(server): State<Server>, Path(id): Path<i64>) -> Json<FailureHandlerModel> {
    Json(server.book().handlers[id as usize - 1].clone())
}

async fn file(State(server): State<Server>, Path(id): Path<i64>) -> Json<FileModel> {
    Json(server.book().files[id as usize - 1].clone())
}

async fn update_file(
    State(server): State<Server>,
    Path(id): Path<i64>,
    Json(file): Json<FileModel>,
) -> Json<FileModel> {
    server.book().files[id as usize - 1] = file.clone();
    Json(file)
}

async fn list_jobs(
    State(server): State<Server>,
    Query(filter): Query<BTreeMap<String, String>>,
) -> Json<ListJobsResponse> {
    let book = server.book();
    let is_wanted = |job: &&JobModel| {
        let node = filter.get("active_compute_node_id").is_none_or(|node| {
            job.status == Some(JobStatus::Running)
                && job.compute_node_id.map(|id| id.to_string()).as_ref() == Some(node)
        });
        node && filter.get("status").is_none_or(|status| job.status.unwrap().as_str() == status)
    };
    let jobs: Vec<JobModel> = book.jobs.iter().filter(is_wanted).cloned().collect();
    let count = jobs.len() as i64;
    Json(ListResponse::page(jobs, 0, count))
}

async fn job(State(server): State<Server>, Path(id): Path<i64>) -> Json<JobModel> {
    Json(server.book().jobs[id as usize - 1].clone())
}

async fn retry(
    State(server): State<Server>,
    Path((id, _run)): Path<(i64, i64)>,
    Query(query): Query<BTreeMap<String, i64>>,
) -> Response {
    let mut book = server.book();
    let lost = std::mem::take(&mut book.lose_answers) > 0;
    let job = &mut book.jobs[id as usize - 1];
    if job.attempt_id.unwrap() >= query["max_retries"] || job.status != Some(JobStatus::Running) {
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(ErrorResponse::message("no more retries"))).into_response();
    }
    job.attempt_id = job.attempt_id.map(|attempt| attempt + 1);
    job.status = Some(JobStatus::Ready);
    let answer = Json(job.clone()).into_response();
    drop(book);
    server.changed.notify_waiters();
    if lost {
        std::panic::resume_unwind(Box::new("lost"));
    }
    answer
}

async fn change_status(
    State(server): State<Server>,
    Path((id, status, _run)): Path<(i64, String, i64)>,
) -> Json<JobModel> {
    let mut book = server.book();
    let job = &mut book.jobs[id as usize - 1];
    job.status = Some(status.parse().unwrap());
    Json(job.clone())
}
