"""torc-client from PyPI: each resource is created, read, listed, changed and deleted."""

import subprocess
import sys
import threading

import pytest

from torc import map_function_to_jobs
from torc.openapi_client import (
    ApiException,
    ComputeNodeModel,
    ComputeNodesResources,
    EventModel,
    FailureHandlerModel,
    FileModel,
    JobModel,
    LocalSchedulerModel,
    ResourceRequirementsModel,
    ResultModel,
    ScheduledComputeNodesModel,
    SlurmSchedulerModel,
    UserDataModel,
    WorkflowModel,
)
from torc.openapi_client.models.spawn_job_model import SpawnJobModel
from torc.orchestrator import Orchestrator


@pytest.fixture
def workflow(api):
    return api.create_workflow(WorkflowModel(name="w", user="me")).id


def node(workflow):
    return ComputeNodeModel(
        workflow_id=workflow,
        hostname="h",
        pid=1,
        start_time="2026-01-01T00:00:00Z",
        num_cpus=4,
        memory_gb=8.0,
        num_gpus=0,
        num_nodes=1,
        compute_node_type="local",
        is_active=True,
    )


RESOURCES = {
    "file": lambda w: FileModel(workflow_id=w, name="f", path="f.txt"),
    "user_data": lambda w: UserDataModel(workflow_id=w, name="u", data={"a": [1, 2.5, None]}),
    "resource_requirements": lambda w: ResourceRequirementsModel(
        workflow_id=w, name="r", num_cpus=2, num_gpus=0, num_nodes=1, memory="2g", runtime="PT5M"
    ),
    "compute_node": node,
    "local_scheduler": lambda w: LocalSchedulerModel(workflow_id=w, name="l", num_cpus=4, memory="8g"),
    "slurm_scheduler": lambda w: SlurmSchedulerModel(
        workflow_id=w, name="s", account="a", nodes=1, walltime="01:00:00"
    ),
    "scheduled_compute_node": lambda w: ScheduledComputeNodesModel(
        workflow_id=w, scheduler_id=7, scheduler_config_id=1, scheduler_type="slurm", status="pending"
    ),
    "event": lambda w: EventModel(workflow_id=w, timestamp=0, data={"category": "c"}),
    "job": lambda w: JobModel(workflow_id=w, name="j", command="true"),
}

LISTS = {"user_data": "list_user_data", "resource_requirements": "list_resource_requirements"}
DELETES = {"resource_requirements": "delete_resource_requirement"}


def call(api, name, *arguments):
    found = next(name for name in ([name] if isinstance(name, str) else name) if hasattr(api, name))
    return getattr(api, found)(*arguments)


@pytest.mark.parametrize("name", RESOURCES)
def test_a_resource_is_created_read_listed_changed_and_deleted(api, workflow, name):
    made = call(api, f"create_{name}", RESOURCES[name](workflow))
    assert call(api, f"get_{name}", made.id).id == made.id
    listed = call(api, LISTS.get(name, f"list_{name}s"), workflow)
    assert made.id in [item.id for item in listed.items]
    assert (listed.max_limit, listed.has_more) == (100_000, False)
    if name == "event":
        changed = call(api, "update_event", made.id, {"category": "d"})
        assert changed.data == {"category": "d"}
    else:
        assert call(api, f"update_{name}", made.id, made).id == made.id
    call(api, (DELETES.get(name, ""), f"delete_{name}"), made.id)
    with pytest.raises(ApiException) as refused:
        call(api, f"get_{name}", made.id)
    assert refused.value.status == 404


def test_failure_handlers(api, workflow):
    made = api.create_failure_handler(FailureHandlerModel(workflow_id=workflow, name="f", rules="[]"))
    assert api.get_failure_handler(made.id).rules == "[]"
    assert [item.id for item in api.list_failure_handlers(workflow).items] == [made.id]
    api.delete_failure_handler(made.id)
    assert api.list_failure_handlers(workflow).items == []


def run_all(api, workflow, run=1):
    """What a runner does, until the workflow is at its end."""
    here = api.create_compute_node(node(workflow))
    free = ComputeNodesResources(num_cpus=4, memory_gb=8.0, num_gpus=0, num_nodes=1)
    while not api.is_workflow_complete(workflow).is_complete:
        for job in api.claim_jobs_based_on_resources(workflow, 4, free).jobs:
            api.start_job(job.id, run, here.id)
            yield job
            api.complete_job(
                job.id,
                "completed",
                run,
                ResultModel(
                    job_id=job.id,
                    workflow_id=workflow,
                    run_id=run,
                    attempt_id=job.attempt_id,
                    compute_node_id=here.id,
                    return_code=0,
                    exec_time_minutes=0.5,
                    completion_time="2026-01-01T00:00:00Z",
                    status="completed",
                ),
            )


def test_results_are_listed_and_changed(api, workflow):
    api.create_job(JobModel(workflow_id=workflow, name="j", command="true"))
    api.reset_workflow_status(workflow)
    api.initialize_jobs(workflow)
    assert [job.name for job in run_all(api, workflow)] == ["j"]
    (result,) = api.list_results(workflow).items
    assert (result.return_code, result.exec_time_minutes, result.status) == (0, 0.5, "completed")
    result.return_code = 3
    assert api.update_result(result.id, result).return_code == 3
    api.delete_result(result.id)
    assert api.list_results(workflow).items == []


def test_a_function_is_mapped_to_jobs_and_run(api, server, workflow, tmp_path):
    (tmp_path / "mapped.py").write_text(
        "def run(job_name, params):\n    return {'twice': 2 * params['n']}\n"
        "def postprocess(results):\n    return {'sum': sum(r['twice'] for r in results)}\n"
    )
    map_function_to_jobs(
        api,
        workflow,
        "mapped",
        "run",
        [{"n": n} for n in range(4)],
        module_directory=str(tmp_path),
        postprocess_func="postprocess",
    )
    api.reset_workflow_status(workflow)
    api.initialize_jobs(workflow)
    tool = f"{sys.prefix}/bin/pytorc"
    for job in run_all(api, workflow):
        environment = {
            "TORC_API_URL": server.url,
            "TORC_WORKFLOW_ID": str(workflow),
            "TORC_JOB_ID": str(job.id),
            "TORC_JOB_NAME": job.name,
            "TORC_RUN_ID": "1",
            "TORC_OUTPUT_DIR": str(tmp_path),
            "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
        }
        command = job.command.replace("pytorc", tool, 1)
        subprocess.run(command, shell=True, env=environment, cwd=tmp_path, check=True)
    found = [data.data for data in api.list_user_data(workflow).items if data.data]
    assert {"sum": 12} in found, found


def test_an_orchestrator_spawns_until_it_converges(api, workflow):
    api.create_job(JobModel(workflow_id=workflow, name="seed", command="true"))
    api.reset_workflow_status(workflow)
    api.initialize_jobs(workflow)
    names = []
    for job in run_all(api, workflow):
        names.append(job.name)
        orchestrator = Orchestrator(api, workflow, job.id, "seed")
        if orchestrator.generation < 3:
            name = f"generation-{orchestrator.generation + 1}"
            orchestrator.spawn(jobs=[SpawnJobModel(name=name, command="true")], state={"n": name})
        else:
            orchestrator.converge(state={"done": True})
    assert names == ["seed", "generation-1", "generation-2", "generation-3"]


def test_many_runners_share_a_workflow_and_each_job_is_done_once(api, server, workflow):
    jobs = [JobModel(workflow_id=workflow, name=f"j{n}", command="true") for n in range(60)]
    from torc.openapi_client import JobsModel

    api.create_jobs(JobsModel(jobs=jobs))
    api.reset_workflow_status(workflow)
    api.initialize_jobs(workflow)
    done = []
    threads = [threading.Thread(target=lambda: done.extend(j.id for j in run_all(server.api(), workflow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(set(done)) == 60
    assert api.list_results(workflow, all_runs=True).total_count == 60
