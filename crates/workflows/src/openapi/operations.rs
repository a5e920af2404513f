//! Every operation. The order of the answers, names and summaries is torc's where torc has them.

use forebay_domain::catalog::Table;
use forebay_wire::ours::{HeartbeatRequest, HeartbeatResponse, ReportAndClaimRequest, ReportAndClaimResponse};
use forebay_wire::*;
use serde_json::Value;
use utoipa::ToSchema;

use super::operation::Kind::{Count, Flag, Int, Status, Text};
use super::operation::{Operation, delete, get, post, put};

/// Milliseconds and the like: any that are not negative.
const ANY: super::operation::Kind = Count(i64::MAX);

pub(super) fn operations() -> Vec<Operation> {
    let groups: [(&str, Vec<Operation>); 12] = [
        ("workflows", workflows()),
        ("workflows", initialization()),
        ("jobs", jobs()),
        ("jobs", running()),
        ("files", files()),
        ("user_data", user_data()),
        ("compute_nodes", compute_nodes()),
        ("resource_requirements", requirements()),
        ("schedulers", schedulers()),
        ("workflow_actions", actions()),
        ("events", events_and_handlers()),
        ("system", system()),
    ];
    groups.into_iter().flat_map(|(tag, all)| all.into_iter().map(move |operation| operation.tag(tag))).collect()
}

fn workflows() -> Vec<Operation> {
    vec![
        get("/workflows", "list_workflows", "Lists workflows")
            .filters(Table::Workflow)
            .takes(Flag, &["is_archived"])
            .takes(Text, &["access_group"])
            .paged()
            .gives_page::<WorkflowModel>("ListWorkflowsResponse"),
        post("/workflows", "create_workflow", "Creates a workflow").body::<WorkflowModel>().gives::<WorkflowModel>(),
        get("/workflows/{id}", "get_workflow", "A workflow").gives::<WorkflowModel>(),
        put("/workflows/{id}", "update_workflow", "Changes a workflow; what is left out stays")
            .body::<WorkflowModel>()
            .gives::<WorkflowModel>(),
        delete("/workflows/{id}", "delete_workflow", "Deletes a workflow and everything of it")
            .gives::<WorkflowModel>(),
        get("/workflows/{id}/status", "get_workflow_status", "How far it is")
            .takes_ours(Flag, &["times"])
            .gives::<WorkflowStatusResponse>(),
        get("/workflows/{id}/is_complete", "is_workflow_complete", "Whether it is at its end")
            .gives::<IsCompleteResponse>(),
        get("/workflows/{id}/is_uninitialized", "is_workflow_uninitialized", "Whether nothing has begun")
            .gives::<IsUninitializedResponse>(),
        put("/workflows/{id}/cancel", "cancel_workflow", "Cancels what is held and hands out nothing more")
            .gives::<WorkflowModel>(),
        post("/workflows/{id}/archive", "archive_workflow", "Puts it away, or takes it out again")
            .body::<ArchiveWorkflowRequest>()
            .gives::<WorkflowModel>(),
        get("/workflows/{id}/job_ids", "list_job_ids", "The ids of its jobs").gives::<ListJobIdsResponse>(),
        get("/workflows/{id}/job_dependencies", "list_job_dependencies", "Which job waits for which")
            .paged()
            .gives_page::<JobDependencyModel>("ListJobDependenciesResponse"),
        get("/workflows/{id}/job_file_relationships", "list_job_file_relationships", "Who writes and reads files")
            .paged()
            .gives_page::<JobFileRelationshipModel>("ListJobFileRelationshipsResponse"),
        get(
            "/workflows/{id}/job_user_data_relationships",
            "list_job_user_data_relationships",
            "Who writes and reads user data",
        )
        .paged()
        .gives_page::<JobUserDataRelationshipModel>("ListJobUserDataRelationshipsResponse"),
        get("/workflows/{id}/running_jobs", "get_running_jobs", "Which of its jobs run where")
            .paged()
            .gives_page::<RunningJobModel>("RunningJobsResponse"),
        get(
            "/workflows/{id}/slurm_job_correlations",
            "get_slurm_job_correlations",
            "Which jobs ran in which of Slurm's",
        )
        .paged()
        .gives_page::<SlurmJobCorrelationModel>("SlurmJobCorrelationsResponse"),
        get("/workflows/{id}/events/stream", "stream_workflow_events", "What happens, as it happens")
            .takes(Text, &["level"])
            .streams(),
        get("/workflows/{id}/remote_workers", "list_remote_workers", "None: they cannot be added yet")
            .gives_list::<RemoteWorkerModel>(),
        get("/workflows/{id}/failure_handlers", "list_failure_handlers", "Its failure handlers")
            .filters(Table::Handler)
            .paged()
            .gives_page::<FailureHandlerModel>("ListFailureHandlersResponse"),
    ]
}

fn initialization() -> Vec<Operation> {
    vec![
        post("/workflows/{id}/initialize_jobs", "initialize_jobs", "Makes jobs ready, or blocked by others")
            .takes(Flag, &["only_uninitialized", "clear_ephemeral_user_data", "async"])
            .gives::<MessageResponse>()
            .gives_with::<TaskModel>(202)
            .conflicts(),
        post("/workflows/{id}/reset_status", "reset_workflow_status", "Begins a new run")
            .takes(Flag, &["force"])
            .gives::<WorkflowModel>(),
        post("/workflows/{id}/reset_job_status", "reset_job_status", "Takes jobs back to before their beginning")
            .takes(Flag, &["failed_only"])
            .gives::<ResetJobStatusResponse>(),
        post(
            "/workflows/{id}/process_changed_job_inputs",
            "process_changed_job_inputs",
            "Takes jobs whose inputs have changed back to before their beginning",
        )
        .takes(Flag, &["dry_run"])
        .gives::<ProcessChangedJobInputsResponse>(),
        get("/workflows/{id}/required_existing_files", "list_required_existing_files", "Files that must be there")
            .gives::<ListRequiredExistingFilesResponse>(),
        get("/workflows/{id}/missing_user_data", "list_missing_user_data", "User data that must have a value")
            .gives::<ListMissingUserDataResponse>(),
        get("/workflows/{id}/active_task", "get_active_task_for_workflow", "Its task that runs")
            .gives::<ActiveTaskResponse>(),
        get("/tasks/{id}", "get_task", "A task").gives::<TaskModel>(),
    ]
}

fn jobs() -> Vec<Operation> {
    vec![
        get("/jobs", "list_jobs", "Lists the jobs of a workflow")
            .needs(Int, "workflow_id")
            .takes(Text, &["name", "command", "labels"])
            .takes(Status, &["status"])
            .takes(Int, &["active_compute_node_id", "upstream_job_id", "needs_file_id"])
            .takes(Flag, &["origin_is_set", "include_relationships"])
            .paged()
            .gives_page::<JobModel>("ListJobsResponse"),
        post("/jobs", "create_job", "Creates a job").body::<JobModel>().gives::<JobModel>(),
        delete("/jobs", "delete_jobs", "Deletes the jobs of a workflow")
            .needs(Int, "workflow_id")
            .gives::<DeleteCountResponse>(),
        post("/bulk_jobs", "create_jobs", "Creates jobs of one workflow, all or none")
            .body::<JobsModel>()
            .gives::<CreateJobsResponse>(),
        get("/jobs/{id}", "get_job", "A job").gives::<JobModel>(),
        put("/jobs/{id}", "update_job", "Changes a job").body::<JobModel>().gives::<JobModel>(),
        delete("/jobs/{id}", "delete_job", "Deletes a job").gives::<JobModel>(),
        get("/results", "list_results", "How jobs ended: the latest of each")
            .needs(Int, "workflow_id")
            .filters(Table::Result)
            .takes(Flag, &["all_runs"])
            .paged()
            .gives_page::<ResultModel>("ListResultsResponse"),
        post("/results", "create_result", "The latest of its job from now on")
            .body::<ResultModel>()
            .gives::<ResultModel>(),
        delete("/results", "delete_results", "Deletes those of a workflow")
            .needs(Int, "workflow_id")
            .gives::<DeleteCountResponse>(),
        get("/results/{id}", "get_result", "How an attempt ended").gives::<ResultModel>(),
        put("/results/{id}", "update_result", "Changes how an attempt ended")
            .body::<ResultModel>()
            .gives::<ResultModel>(),
        delete("/results/{id}", "delete_result", "Deletes one").gives::<ResultModel>(),
    ]
}

fn running() -> Vec<Operation> {
    vec![
        post("/workflows/{id}/claim_next_jobs", "claim_next_jobs", "Claims by priority, then id")
            .takes(ANY, &["limit"])
            .takes(Text, &["labels"])
            .takes_ours(ANY, &["wait_ms"])
            .gives::<ClaimNextJobsResponse>(),
        post(
            "/workflows/{id}/claim_jobs_based_on_resources/{limit}",
            "claim_jobs_based_on_resources",
            "Claims what fits the resources",
        )
        .takes(Flag, &["strict_scheduler_match"])
        .takes_ours(ANY, &["wait_ms"])
        .body::<ComputeNodesResources>()
        .gives::<ClaimJobsBasedOnResources>(),
        put("/jobs/{id}/start_job/{run_id}/{compute_node_id}", "start_job", "A claimed job runs there")
            .gives::<JobModel>(),
        post("/jobs/{id}/complete_job/{status}/{run_id}", "complete_job", "Reports how an attempt ended")
            .body::<ResultModel>()
            .gives::<JobModel>(),
        post("/workflows/{id}/batch_complete_jobs", "batch_complete_jobs", "Reports many, each by itself")
            .body::<BatchCompleteJobsRequest>()
            .gives::<BatchCompleteJobsResponse>(),
        post("/workflows/{id}/report_and_claim", "report_and_claim", "Reports and claims in one step; may wait")
            .ours()
            .body::<ReportAndClaimRequest>()
            .gives::<ReportAndClaimResponse>()
            .needs_lease(),
        post("/workflows/{id}/heartbeat", "heartbeat", "A compute node lives: begins, renews or ends its lease")
            .ours()
            .body::<HeartbeatRequest>()
            .gives::<HeartbeatResponse>()
            .needs_lease(),
        post("/jobs/{id}/spawn_jobs", "spawn_jobs", "A running job brings forth others, which wait for its end")
            .body::<SpawnJobsRequest>()
            .gives::<SpawnJobsResponse>(),
        post("/jobs/{id}/retry/{run_id}", "retry_job", "A new attempt, if there were fewer than so many")
            .needs(Int, "max_retries")
            .takes_ours(ANY, &["delay_ms"])
            .gives::<JobModel>(),
        put("/jobs/{id}/manage_status_change/{status}/{run_id}", "manage_status_change", "A state set by hand")
            .gives::<JobModel>(),
    ]
}

/// The six operations of a table: list, create, delete all, one, change, delete.
fn table<M: ToSchema>(
    paths: [&'static str; 2],
    table: Table,
    page: &'static str,
    ids: [&'static str; 6],
) -> Vec<Operation> {
    let ([all, one], [list, create, clear, read, update, remove]) = (paths, ids);
    vec![
        get(all, list, "Lists those of a workflow")
            .needs(Int, "workflow_id")
            .filters(table)
            .paged()
            .gives_page::<M>(page),
        post(all, create, "Creates one").body::<M>().gives::<M>(),
        delete(all, clear, "Deletes those of a workflow").needs(Int, "workflow_id").gives::<DeleteCountResponse>(),
        get(one, read, "One").gives::<M>(),
        put(one, update, "Changes one; what is left out stays").body::<M>().gives::<M>(),
        delete(one, remove, "Deletes one").gives::<M>(),
    ]
}

fn files() -> Vec<Operation> {
    let ids = ["list_files", "create_file", "delete_files", "get_file", "update_file", "delete_file"];
    let mut all = table::<FileModel>(["/files", "/files/{id}"], Table::File, "ListFilesResponse", ids);
    let list = all.remove(0).takes(Flag, &["is_output"]).takes(Int, &["produced_by_job_id"]);
    all.push(list);
    all.push(
        post("/bulk_files", "create_files", "Creates files of one workflow, all or none")
            .body::<FilesModel>()
            .gives::<CreateFilesResponse>(),
    );
    all
}

fn user_data() -> Vec<Operation> {
    let ids = [
        "list_user_data",
        "create_user_data",
        "delete_all_user_data",
        "get_user_data",
        "update_user_data",
        "delete_user_data",
    ];
    let paths = ["/user_data", "/user_data/{id}"];
    let mut all = table::<UserDataModel>(paths, Table::UserData, "ListUserDataResponse", ids);
    let list = all.remove(0).takes(Int, &["consumer_job_id", "producer_job_id"]);
    all.push(list);
    all.push(
        post("/bulk_user_data", "create_user_data_list", "Creates user data of one workflow, all or none")
            .body::<UserDataListModel>()
            .gives::<CreateUserDataListResponse>(),
    );
    all
}

fn compute_nodes() -> Vec<Operation> {
    let ids = [
        "list_compute_nodes",
        "create_compute_node",
        "delete_compute_nodes",
        "get_compute_node",
        "update_compute_node",
        "delete_compute_node",
    ];
    let paths = ["/compute_nodes", "/compute_nodes/{id}"];
    let mut all = table::<ComputeNodeModel>(paths, Table::Node, "ListComputeNodesResponse", ids);
    let list = all.remove(0).takes(Int, &["scheduled_compute_node_id"]);
    all.push(list);
    all
}

fn requirements() -> Vec<Operation> {
    let ids = [
        "list_resource_requirements",
        "create_resource_requirements",
        "delete_resource_requirements",
        "get_resource_requirements",
        "update_resource_requirements",
        "delete_resource_requirement",
    ];
    let paths = ["/resource_requirements", "/resource_requirements/{id}"];
    let page = "ListResourceRequirementsResponse";
    let mut all = table::<ResourceRequirementsModel>(paths, Table::Requirement, page, ids);
    all[0] = get(paths[0], ids[0], "Lists those of a workflow; `runtime` in seconds")
        .needs(Int, "workflow_id")
        .takes(Int, &["runtime", "job_id"])
        .filters(Table::Requirement)
        .paged()
        .gives_page::<ResourceRequirementsModel>(page);
    all
}

fn schedulers() -> Vec<Operation> {
    let slurm = [
        "list_slurm_schedulers",
        "create_slurm_scheduler",
        "delete_slurm_schedulers",
        "get_slurm_scheduler",
        "update_slurm_scheduler",
        "delete_slurm_scheduler",
    ];
    let local = [
        "list_local_schedulers",
        "create_local_scheduler",
        "delete_local_schedulers",
        "get_local_scheduler",
        "update_local_scheduler",
        "delete_local_scheduler",
    ];
    let scheduled = [
        "list_scheduled_compute_nodes",
        "create_scheduled_compute_node",
        "delete_scheduled_compute_nodes",
        "get_scheduled_compute_node",
        "update_scheduled_compute_node",
        "delete_scheduled_compute_node",
    ];
    let paths = ["/slurm_schedulers", "/slurm_schedulers/{id}"];
    let mut all = table::<SlurmSchedulerModel>(paths, Table::SlurmScheduler, "ListSlurmSchedulersResponse", slurm);
    let paths = ["/local_schedulers", "/local_schedulers/{id}"];
    all.extend(table::<LocalSchedulerModel>(paths, Table::LocalScheduler, "ListLocalSchedulersResponse", local));
    let (paths, page) =
        (["/scheduled_compute_nodes", "/scheduled_compute_nodes/{id}"], "ListScheduledComputeNodesResponse");
    all.extend(table::<ScheduledComputeNodesModel>(paths, Table::ScheduledNode, page, scheduled));
    all
}

fn actions() -> Vec<Operation> {
    vec![
        get("/workflows/{id}/actions", "get_workflow_actions", "What is to be done at triggers")
            .gives_list::<WorkflowActionModel>(),
        post("/workflows/{id}/actions", "create_workflow_action", "Creates one")
            .body::<WorkflowActionModel>()
            .gives::<WorkflowActionModel>(),
        get("/workflows/{id}/actions/pending", "get_pending_actions", "Those that somebody is to carry out now")
            .takes(Text, &["trigger_type"])
            .gives_list::<WorkflowActionModel>(),
        put("/workflows/{id}/actions/{action_id}", "update_workflow_action", "Changes its configuration")
            .body::<Value>()
            .gives::<WorkflowActionModel>(),
        delete("/workflows/{id}/actions/{action_id}", "delete_workflow_action", "Deletes one")
            .gives::<MessageResponse>(),
        post("/workflows/{id}/actions/{action_id}/claim", "claim_action", "One claimant is to carry it out")
            .body::<ClaimActionRequest>()
            .gives::<ClaimActionResponse>()
            .conflicts(),
    ]
}

fn events_and_handlers() -> Vec<Operation> {
    let ids = ["list_events", "create_event", "delete_events", "get_event", "update_event", "delete_event"];
    let mut all = table::<EventModel>(["/events", "/events/{id}"], Table::Event, "ListEventsResponse", ids);
    let list = all.remove(0).takes(Text, &["category"]).takes(Int, &["after_timestamp"]);
    all.retain(|operation| !operation.is("update_event"));
    all.extend([
        list,
        put("/events/{id}", "update_event", "The body is its new data").body::<Value>().gives::<EventModel>(),
        post("/failure_handlers", "create_failure_handler", "Creates one")
            .body::<FailureHandlerModel>()
            .gives::<FailureHandlerModel>(),
        get("/failure_handlers/{id}", "get_failure_handler", "One").gives::<FailureHandlerModel>(),
        delete("/failure_handlers/{id}", "delete_failure_handler", "Deletes one").gives::<FailureHandlerModel>(),
    ]);
    all
}

fn system() -> Vec<Operation> {
    vec![
        get("/ping", "ping", "Whether it is there").gives::<PingResponse>(),
        get("/version", "get_version", "Which it is").gives::<VersionResponse>(),
    ]
}
