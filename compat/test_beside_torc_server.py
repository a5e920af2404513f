"""The same odd requests to torc-server and to ours: what differs has a reason, and stands in docs/from-torc.md."""

import http.client
import json
import os
import re
import subprocess
import urllib.request

import pytest

from beside import BASE, PHASES, Side, mutations, world

# Made by the server, or by its clock.
TIMES = {"timestamp", "created_at", "created_at_ms", "started_at_ms", "finished_at_ms", "executed_at", "walltime_seconds",
         "start_time"}
# What a client makes up of a thing that is new: torc-server says it back, ours says what is so.
MADE_UP = {"attempt_id", "compute_node_id", "start_time", "origin", "is_archived", "is_canceled", "run_id",
           "required_triggers", "failure_handler_id", "scheduler_id"}

# Operations whose answers differ with a reason, and which requests of them.
KNOWN = [
    ("initialize_jobs", "async=true", "is waited for, and has mostly ended by then"),
    ("delete_failure_handler", "", "answers as torc's specification says"),
    ("delete_all_user_data", "", "answers with a count"),
    ("delete_resource_requirements?", "", "one that is in use is kept"),
    ("reset_workflow_status", "", "has another one of two mistakes named: nodes, not jobs"),
    ("create_resource_requirements|update_resource_requirements", "num_gpus=-1|runtime=", "less than no GPU; the words of a parser"),
    ("claim_jobs_based_on_resources", "time_limit=", "the words of a parser"),
    ("create_user_data_list", "workflow", "the words for user data of two workflows"),
    ("get_active_task_for_workflow", "path", "names the workflow that is not there"),
    ("get_task", "", "names the task that is not there"),
    ("list_scheduled_compute_nodes", "scheduler", "the id of a scheduler is a number"),
    ("get_version", "", "names both versions"),
    ("update_workflow", "access_groups", "access groups are not there yet"),
    ("create_workflow", "access_groups", "access groups are not there yet"),
    ("manage_status_change", "path {status}", "a state that the job cannot be in by hand"),
    ("reset_job_status", "", "counts all jobs that it is about"),
    ("batch_complete_jobs|complete_job", "", "has another one of two mistakes named; ids in lists"),
    (".*", r"grant=|source_hash=|source_path=", "a field of ours has its type"),
    (".*", "%00", "a text that SQLite ends early"),
    ("list_job_.*", "offset=|limit=", "a part that cannot be"),
    ("get_running_jobs|get_slurm_job_correlations|list_failure_handlers", "reverse_sort=", "a flag is one here, too"),
]


def plain(value, key=""):
    """Without what differs from server to server."""
    if isinstance(value, dict):
        return {k: plain(v, k) for k, v in value.items() if v not in (None, "", 0, []) and k not in TIMES}
    if isinstance(value, list):
        items = [plain(one, key) for one in value]
        return sorted(set(items)) if key == "labels" else items
    if isinstance(value, str) and key in ("message", "error"):
        return re.sub(r"\d+", "#", value)
    if isinstance(value, int) and not isinstance(value, bool) and (key == "id" or key.endswith(("_id", "_ids"))):
        return "an id"
    return value


def covers(ours, theirs, made_up):
    """Ours says all that theirs does; it may say more."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return all(key in made_up or covers(ours.get(key), value, made_up) for key, value in theirs.items())
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(ours) == len(theirs) and all(covers(*pair, made_up) for pair in zip(ours, theirs))
    return ours == theirs


def in_order(items):
    """Rows by their names, if they have any."""
    return sorted(items, key=lambda item: (str(item.get("name")), str(item)))


def text(body):
    """What a refusal tells people: torc-server tells some of it in bare text."""
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"].get("message")
    return re.sub(r"\d+", "#", body) if isinstance(body, str) else body


def reason(name, asked, theirs, ours, ignored):
    """Why the answers may differ, if they may."""
    (their_status, their_body), (our_status, our_body) = theirs, ours
    if their_status == 0 or their_status >= 500:
        return our_status < 500 and "a mistake of the client is none of the server"
    if their_status == our_status and our_status >= 400:
        said, says = text(their_body), text(our_body)
        if said == says:
            return "the same text"
        if our_status == 404 and str(said).startswith("Resource not found in"):
            return "says what is not there"
        if our_status == 404 and "{id}" in asked.why and "not found" in str(says):
            return "names the thing, or the workflow that it is to be of"
        for begin in ["Invalid URL: ", "Failed to parse the request body as JSON: trailing characters"]:
            if str(said).startswith(begin) and str(says).startswith(begin):
                return "the words of a parser"
    if their_status == our_status < 400:
        made_up = MADE_UP if asked.method != "GET" else set()
        said, says = plain(their_body), plain(our_body)
        if covers(says, said, made_up):
            return "the same, or more"
        if "sort_by" in asked.query and covers(in_order(says["items"]), in_order(said["items"]), made_up):
            return "rows that sort alike"
    if asked.why.startswith("query ") and their_status == 200 and plain(their_body) == ignored:
        return "torc-server ignores this parameter"
    if their_status in (404, 422) and our_status in (404, 422) and name == "complete_job":
        return "another one of two mistakes"
    return next((why for names, which, why in KNOWN if re.fullmatch(names, name) and re.search(which, asked.why)), None)


@pytest.fixture
def torc_server(tmp_path):
    """torc-server on a database of its own; its port."""
    database = tmp_path / "torc.db"
    database.touch()
    command = [os.environ["TORC_SERVER"], "run", "--host", "127.0.0.1", "--port", "0", "--database", database]
    with open(tmp_path / "torc-server.log", "w") as log:
        running = subprocess.Popen(
            [*command, "--completion-check-interval-secs", "0.1"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, text=True
        )
        line = running.stdout.readline()
        while "TORC_SERVER_PORT=" not in line:
            assert line, "torc-server did not start"
            line = running.stdout.readline()
        # What it says there must be read, or it waits.
        drain = subprocess.Popen(["cat"], stdin=running.stdout, stdout=subprocess.DEVNULL)
        yield int(line.split("=")[1])
        running.kill()
        running.wait()
        drain.wait()


def ask(side, asked):
    query = "&".join(f"{key}={value}" for key, value in asked.query.items())
    try:
        status, body, _ = side.send(asked.method, f"{asked.path}?{query}", asked.body, asked.raw, asked.content_type)
        return status, body
    except (http.client.HTTPException, OSError) as broken:
        side.connection.close()
        return 0, repr(broken)


def phases(name, path):
    """Only jobs and workflows are in phases."""
    has_phases = path.split("/")[1] in ("jobs", "workflows") and name not in ("list_workflows", "create_workflow")
    return PHASES[-2:] if has_phases else PHASES[-1:]


def test_odd_requests_are_answered_as_by_torc_server(server, torc_server):
    document = json.load(urllib.request.urlopen(server.url.replace(BASE, "/openapi.json")))
    schemas = document["components"]["schemas"]
    theirs, ours = Side("127.0.0.1", torc_server), Side("127.0.0.1", server.port)
    differences, count = [], 0
    for path, item in document["paths"].items():
        if not path.startswith(BASE) or path.endswith("/stream"):
            continue
        path = path.removeprefix(BASE)
        for method, operation in item.items():
            name = operation["operationId"]
            for phase in [] if operation.get("x-forebay") else phases(name, path):
                world(theirs, phase)
                world(ours, phase)
                asked = (mutations(schemas, operation, path, method.upper(), side.ids) for side in (theirs, ours))
                ignored = None
                for to_them, to_us in zip(*asked):
                    count += 1
                    said, says = ask(theirs, to_them), ask(ours, to_us)
                    if to_them.why == "good":
                        ignored = plain(said[1])
                    if not reason(name, to_them, said, says, ignored):
                        differences.append(f"{name}, {phase}, {to_them.why}: torc-server {said}, ours {says}"[:600])
    assert not differences, f"{len(differences)} of {count}:\n" + "\n".join(differences)
