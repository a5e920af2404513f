"""torc's command line, unmodified."""

import os
import shutil
from pathlib import Path

import pytest

DIAMOND = {
    "name": "diamond",
    "jobs": [
        {"name": "a", "command": "echo a > f1", "output_files": ["f1"]},
        {"name": "b", "command": "cat f1 > f2", "input_files": ["f1"], "output_files": ["f2"]},
        {"name": "c", "command": "true", "depends_on": ["a"]},
        {"name": "d", "command": "cat f2", "input_files": ["f2"], "depends_on": ["c"]},
    ],
    "files": [{"name": "f1", "path": "f1"}, {"name": "f2", "path": "f2"}],
}

FAILING = {
    "name": "failing",
    "jobs": [
        {"name": "bad", "command": "test -e mended"},
        {"name": "after", "command": "true", "depends_on": ["bad"]},
        {"name": "other", "command": "true"},
    ],
}

# Each of torc's example workflows that needs no Slurm, and how it ends on torc-server in a folder of its
# own: many look for programs that are not there, and fail in the same way on both.
EXAMPLES = {
    "yaml/hundred_jobs_parameterized.yaml": {"completed": 100},
    "yaml/hyperparameter_sweep.yaml": {"canceled": 36, "failed": 2},
    "yaml/hyperparameter_sweep_shared_params.yaml": {"canceled": 36, "failed": 2},
    "yaml/simulation_sweep.yaml": {"canceled": 48, "failed": 1},
    "yaml/data_pipeline_parameterized.yaml": {"canceled": 32, "failed": 4},
    "yaml/parameterized_from_csv.yaml": {"completed": 4},
    "yaml/parameterized_from_json.yaml": {"completed": 4},
    "yaml/parameterized_shared_table.yaml": {"canceled": 5, "failed": 4},
    "yaml/parameterized_user_data.yaml": {"failed": 3},
    "yaml/priority_workflow.yaml": {"canceled": 4, "failed": 1},
    "yaml/variables_demo.yaml": {"canceled": 5, "failed": 1},
    "yaml/zip_parameter_mode.yaml": {"canceled": 4, "completed": 1, "failed": 3},
    "yaml/dynamic_orchestrator_local.yaml": {"completed": 26},
}


def run(torc, workflow, *arguments):
    return torc("run", workflow, "--poll-interval", "0.2", *arguments)


def test_a_workflow_is_created_run_and_looked_at(torc):
    assert "Server is running" in torc("ping")
    workflow = torc.create(DIAMOND)
    run(torc, workflow)
    assert torc.counts(workflow) == {"completed": 4}
    assert torc.json("status", workflow)["is_complete"] is True
    assert "diamond" in torc("workflows", "list")
    assert len(torc.json("jobs", "list", workflow)["items"]) == 4
    assert len(torc.json("results", "list", workflow)["items"]) == 4
    for look in ["files", "events", "compute-nodes", "resource-requirements", "user-data", "failure-handlers"]:
        torc(look, "list", workflow)
    for look in ["job-job", "job-file", "job-user-data"]:
        torc("job-dependencies", look, workflow)
    torc("jobs", "running", workflow)
    torc("jobs", "list-resource-requirements", workflow)
    torc("scheduled-compute-nodes", "list", workflow)
    torc("workflows", "execution-plan", workflow)
    torc("workflows", "check-resources", workflow)
    torc("workflows", "diagnose", workflow)
    assert "Errors: 0" in torc("logs", "analyze", "torc_output")
    torc("logs", "bundle", workflow)


def test_commands_are_run_without_a_file(torc):
    torc("exec", "-c", "echo one > one", "-c", "echo two > two")
    assert (torc.folder / "one").exists() and (torc.folder / "two").exists()


def test_a_failed_workflow_is_mended_and_run_again(torc):
    workflow = torc.create(FAILING)
    run(torc, workflow)
    assert torc.counts(workflow) == {"failed": 1, "canceled": 1, "completed": 1}
    failed = torc.json("results", "list", workflow, "--failed")["items"]
    assert sorted(result["status"] for result in failed) == ["canceled", "failed"]
    canceled = next(result for result in failed if result["status"] == "canceled")
    assert (canceled["job_name"], canceled["return_code"], canceled["compute_node_id"]) == ("after", -1, 0)
    assert "after" in torc("results", "list", workflow, "--status", "canceled")
    assert "Return Code: -1" in torc("results", "get", canceled["id"])
    torc("results", "list", workflow, "--include-logs")
    (torc.folder / "mended").touch()
    torc("workflows", "reset-status", workflow, "--failed-only", "--no-prompts", "--reinitialize")
    assert torc.counts(workflow) == {"ready": 1, "blocked": 1, "completed": 1}
    run(torc, workflow)
    assert torc.counts(workflow) == {"completed": 3}
    assert {result["status"] for result in torc.json("results", "list", workflow)["items"]} == {"completed"}


def test_a_failed_workflow_is_recovered(torc):
    workflow = torc.create(FAILING)
    run(torc, workflow)
    torc("recover", workflow, "--retry-unknown", "--dry-run")
    assert torc.counts(workflow) == {"failed": 1, "canceled": 1, "completed": 1}
    (torc.folder / "mended").touch()
    # It has no Slurm to hand the jobs to, so it may not end well; the jobs are to be run again.
    running = torc.begin("recover", workflow, "--retry-unknown")
    running.communicate("y\n", timeout=120)
    assert torc.counts(workflow) == {"ready": 1, "blocked": 1, "completed": 1}
    run(torc, workflow)
    assert torc.counts(workflow) == {"completed": 3}


def test_a_changed_input_is_noticed_by_a_reinit(torc):
    workflow = torc.create(DIAMOND)
    run(torc, workflow)
    (torc.folder / "f1").write_text("other")
    os.utime(torc.folder / "f1", (1, 1))
    torc("workflows", "reinit", workflow)
    assert "completed" in torc.counts(workflow) and torc.counts(workflow) != {"completed": 4}
    run(torc, workflow)
    assert torc.counts(workflow) == {"completed": 4}


def test_a_workflow_is_canceled_archived_and_deleted(torc):
    workflow = torc.create(DIAMOND)
    torc("cancel", workflow, says="y\n")
    assert "Canceled: true" in torc("workflows", "get", workflow)
    torc("workflows", "archive", "true", workflow)
    assert "diamond" in torc("workflows", "list", "--archived-only")
    torc("delete", workflow, "--no-prompts")
    torc("workflows", "get", workflow, fails=True)


def test_actions_are_carried_out_at_their_triggers(torc):
    def act(trigger, name, **more):
        return {"trigger_type": trigger, "action_type": "run_commands", "commands": [f"touch {name}"], **more}

    spec = {
        "name": "actions",
        "jobs": [{"name": "one", "command": "true"}, {"name": "two", "command": "true", "depends_on": ["one"]}],
        "actions": [
            act("on_workflow_start", "start"),
            act("on_worker_start", "worker"),
            act("on_jobs_ready", "ready", jobs=["two"]),
            act("on_jobs_complete", "complete", jobs=["one"]),
            act("on_workflow_complete", "end"),
        ],
    }
    workflow = torc.create(spec)
    run(torc, workflow)
    for name in ["start", "worker", "ready", "complete", "end"]:
        assert (torc.folder / "torc_output" / name).exists(), name


def test_torc_starts_our_server_by_itself(torc):
    spec = torc.folder / "alone.yaml"
    spec.write_text("name: alone\njobs:\n  - {name: a, command: 'true'}\n")
    standalone = ["-s", "--torc-server-bin", os.environ["FOREBAY"], "--db", torc.folder / "alone.db"]
    torc(*standalone, "run", spec, "--poll-interval", "0.2")
    assert '"completed": 1' in torc(*standalone, "-f", "json", "status", 1)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_ends_as_on_torc_server(torc, example):
    assert counts_at_the_end(torc, example) == EXAMPLES[example]


def test_an_example_that_fails_at_random_ends_as_its_attempts_did(torc):
    ends = [{"completed": 2}, {"canceled": 1, "failed": 1}]
    assert counts_at_the_end(torc, "yaml/simple_retry.yaml") in ends


def counts_at_the_end(torc, example):
    shutil.copytree(Path(os.environ["TORC_EXAMPLES"]), torc.folder / "examples")
    workflow = torc.json("create", f"examples/{example}")["workflow_id"]
    run(torc, workflow, "--num-cpus", "64", "--memory-gb", "512", "--num-gpus", "8")
    return torc.counts(workflow)
