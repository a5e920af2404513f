"""Requests for each operation of torc's that our OpenAPI document describes: a good one, then the same with one
thing wrong or odd in its path, its query or its body. They are made for a side, whose ids they name.
"""

import copy
import http.client
import json
import time
import urllib.parse

BASE = "/torc-service/v1"
UNKNOWN = 999_999
INT_ODD = ["1", 1.5, 1.0, -1, 0, None, True, [], 2**31, 2**63 - 1, 2**63, 10**30]
TEXT_ODD = [1, "", " ", None, True, [], {}, "ü'\"%_\\", "x" * 2000]
REAL_ODD = ["1", 1, -1.5, None, True, []]
FLAG_ODD = ["true", 1, 0, None, True, False]
LIST_ODD = [None, [], ["1"], [1.5], [UNKNOWN], [-1], 1, "1", [None], {}]
MAP_ODD = [None, {}, {"a": 1}, {"a": None}, [], "x", {"": "x"}, {"a b": "x"}, {"a": "x"}]
PARAMETER_ODD = {
    "integer": ["", "x", "-1", "0", "1", "1.5", "100000", "100001", str(UNKNOWN), str(2**63), "%20"],
    "number": ["", "x", "-1", "0", "1.5"],
    "boolean": ["", "x", "true", "false", "True", "1", "0"],
    "string": ["", "x", "%25", "_", "a,b", "name", "id", "%00", "completed", "0"],
}
PATH_ODD = ["0", "-1", str(UNKNOWN), "x", "1.5", "", str(2**63), "%20", "1%2F2"]


class Side:
    def __init__(self, host, port):
        self.connection = http.client.HTTPConnection(host, port, timeout=30)
        self.ids = {}

    def send(self, method, path, body=None, raw=None, content_type="application/json"):
        headers = {}
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None and content_type:
            headers["Content-Type"] = content_type
        for again in (True, False):
            try:
                self.connection.request(method, BASE + path, body=data, headers=headers)
                response = self.connection.getresponse()
                break
            except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
                # It was told too early, on the request before.
                self.connection.close()
                if not again:
                    raise
        got = response.read()
        try:
            got = json.loads(got) if got else None
        except ValueError:
            got = got.decode(errors="replace")
        return response.status, got, dict((k.lower(), v) for k, v in response.getheaders())

    def make(self, name, path, body, field="id", method="POST"):
        status, got, _ = self.send(method, path, body)
        assert status == 200, (method, path, body, status, got)
        if field:
            self.ids[name] = got[field]
        return got


NODE = {"hostname": "h", "pid": 1, "start_time": "2026-01-01T00:00:00Z", "num_cpus": 4, "memory_gb": 8.0,
        "num_gpus": 0, "num_nodes": 1, "compute_node_type": "local", "is_active": True}
RESOURCES = {"num_cpus": 4, "memory_gb": 8.0, "num_gpus": 0, "num_nodes": 1}


def bodies(ids):
    """A good body for each operation that takes one."""
    w = ids["w"]
    result = {"job_id": ids["j0"], "workflow_id": w, "run_id": 1, "attempt_id": 1, "compute_node_id": ids["n"],
              "return_code": 0, "exec_time_minutes": 0.5, "completion_time": "2026-01-01T00:01:00Z",
              "status": "completed", "peak_memory_bytes": 5, "avg_cpu_percent": 1.5}
    return {
        "create_workflow": {"name": "new", "user": "u", "description": "d", "env": {"A": "1"}, "metadata": {"m": 1},
                            "project": "p", "dynamic_jobs": {"max_iterations": 3}, "use_pending_failed": True,
                            "compute_node_wait_for_new_jobs_seconds": 5, "enable_ro_crate": False,
                            "slurm_defaults": {"qos": "x"}, "submission_directory": "/tmp",
                            "execution_config": {"mode": "direct"},
                            "resource_monitor_config": {"enabled": True, "sample_interval_seconds": 5}},
        "update_workflow": {"name": "renamed", "user": "u", "description": "e", "project": "q", "metadata": {"n": 2},
                            "compute_node_expiration_buffer_seconds": 9},
        "create_file": {"workflow_id": w, "name": "f", "path": "f.txt", "st_mtime": 1.5},
        "update_file": {"workflow_id": w, "name": "f9", "path": "g.txt", "st_mtime": 2.5},
        "create_files": {"files": [{"workflow_id": w, "name": "b1", "path": "b1"},
                                   {"workflow_id": w, "name": "b2", "path": "b2"}]},
        "create_user_data": {"workflow_id": w, "name": "u", "data": {"a": [1, 2.5, None]}, "is_ephemeral": False},
        "update_user_data": {"workflow_id": w, "name": "u9", "data": [1], "is_ephemeral": True},
        "create_user_data_list": {"user_data": [{"workflow_id": w, "name": "v1", "data": 1},
                                                {"workflow_id": w, "name": "v2"}]},
        "create_resource_requirements": {"workflow_id": w, "name": "big", "num_cpus": 2, "num_gpus": 1,
                                         "num_nodes": 1, "memory": "2g", "runtime": "PT5M"},
        "update_resource_requirements": {"workflow_id": w, "name": "r9", "num_cpus": 3, "num_gpus": 0,
                                         "num_nodes": 1, "memory": "3g", "runtime": "PT6M"},
        "create_compute_node": dict(NODE, workflow_id=w, labels=["b", "a"], scheduler={"scheduler_id": 3},
                                    time_limit="PT1H"),
        "update_compute_node": dict(NODE, workflow_id=w, is_active=False, duration_seconds=3.5, sample_count=2),
        "create_event": {"workflow_id": w, "timestamp": 0, "data": {"category": "c"}},
        "update_event": {"category": "d"},
        "create_failure_handler": {"workflow_id": w, "name": "h", "rules": "[]"},
        "create_local_scheduler": {"workflow_id": w, "name": "l", "num_cpus": 4, "memory": "8g"},
        "update_local_scheduler": {"workflow_id": w, "name": "l9", "num_cpus": 5, "memory": "9g"},
        "create_slurm_scheduler": {"workflow_id": w, "name": "s", "account": "a", "nodes": 1, "walltime": "01:00:00",
                                   "partition": "p"},
        "update_slurm_scheduler": {"workflow_id": w, "name": "s9", "account": "b", "nodes": 2, "walltime": "02:00:00"},
        "create_scheduled_compute_node": {"workflow_id": w, "scheduler_id": 7, "scheduler_config_id": 1,
                                          "scheduler_type": "slurm", "status": "pending"},
        "update_scheduled_compute_node": {"workflow_id": w, "scheduler_id": 7, "scheduler_config_id": 1,
                                          "scheduler_type": "slurm", "status": "active"},
        "create_job": {"workflow_id": w, "name": "jn", "command": "true", "depends_on_job_ids": [ids["j0"]],
                       "input_file_ids": [ids["f0"]], "output_file_ids": [ids["f2"]], "priority": 2,
                       "resource_requirements_id": ids["r"], "labels": ["b", "a"], "env": {"B": "2"},
                       "cancel_on_blocking_job_failure": True, "supports_termination": False,
                       "input_user_data_ids": [ids["u0"]], "failure_handler_id": ids["h"]},
        "update_job": {"workflow_id": w, "name": "j0", "command": "false", "priority": 4,
                       "resource_requirements_id": ids["r"]},
        "create_jobs": {"jobs": [{"workflow_id": w, "name": "k1", "command": "true"},
                                 {"workflow_id": w, "name": "k2", "command": "true", "priority": 1}]},
        "complete_job": result,
        "create_result": dict(result, job_id=ids["j3"]),
        "update_result": dict(result, return_code=3),
        "batch_complete_jobs": {"completions": [
            {"job_id": ids["j0"], "run_id": 1, "status": "completed", "result": result}]},
        "claim_jobs_based_on_resources": dict(RESOURCES, time_limit="PT1H"),
        "archive_workflow": {"is_archived": True},
        "spawn_jobs": {"jobs": [{"name": "s1", "command": "true"},
                                {"name": "s2", "command": "true", "depends_on": ["s1"]}], "state": {"n": 1}},
        "create_workflow_action": {"workflow_id": w, "trigger_type": "on_jobs_ready", "action_type": "run_commands",
                                   "action_config": {"commands": ["true"]}, "job_ids": [ids["j0"]]},
        "update_workflow_action": {"num_allocations": 2},
        "claim_action": {"compute_node_id": ids["n"]},
    }


# What stands in the place of a parameter of a path.
PLACES = {
    "files": "f0", "user_data": "u0", "resource_requirements": "r", "compute_nodes": "n", "events": "e",
    "failure_handlers": "h", "local_schedulers": "l", "slurm_schedulers": "s", "scheduled_compute_nodes": "c",
    "jobs": "j0", "results": "x", "workflows": "w", "tasks": "t",
}
WORDS = {"run_id": "1", "status": "completed", "limit": "2"}
# A good value of parameters that need one.
GOOD = {"max_retries": "3"}
PHASES = ["draft", "ready", "running", "ended"]


def world(side, phase):
    """A workflow in such a phase, with one of everything."""
    make, ids = side.make, side.ids
    ids.clear()
    make("w", "/workflows", {"name": "w", "user": "u"})
    w = ids["w"]
    for n in range(3):
        make(f"f{n}", "/files", {"workflow_id": w, "name": f"f{n}", "path": f"p_{n}%.txt"})
        make(f"u{n}", "/user_data", {"workflow_id": w, "name": f"u{n}", "data": {"n": n}, "is_ephemeral": n == 1})
    make("r", "/resource_requirements",
         {"workflow_id": w, "name": "r", "num_cpus": 1, "num_gpus": 0, "num_nodes": 1, "memory": "1g", "runtime": "PT5M"})
    make("n", "/compute_nodes", dict(NODE, workflow_id=w))
    make("n2", "/compute_nodes", dict(NODE, workflow_id=w, hostname="other", is_active=False, scheduler={"scheduler_id": 7}))
    for n in range(2):
        make("e", "/events", {"workflow_id": w, "timestamp": 0, "data": {"category": f"c{n}"}})
    make("h", "/failure_handlers", {"workflow_id": w, "name": "h", "rules": "[]"})
    make("l", "/local_schedulers", {"workflow_id": w, "name": "l", "num_cpus": 4, "memory": "8g"})
    make("s", "/slurm_schedulers", {"workflow_id": w, "name": "s", "account": "a", "nodes": 1, "walltime": "01:00:00"})
    job = {"workflow_id": w, "command": "true"}
    make("j0", "/jobs", dict(job, name="j0", resource_requirements_id=ids["r"], output_file_ids=[ids["f1"]],
                             output_user_data_ids=[ids["u1"]]))
    make("j1", "/jobs", dict(job, name="j1", depends_on_job_ids=[ids["j0"]], cancel_on_blocking_job_failure=True))
    make("j2", "/jobs", dict(job, name="j2", input_file_ids=[ids["f1"], ids["f0"]], input_user_data_ids=[ids["u1"], ids["u0"]]))
    make("j3", "/jobs", dict(job, name="j3", priority=3, labels=["a"]))
    make("j4", "/jobs", dict(job, name="j4", command="false % _"))
    make("a", f"/workflows/{w}/actions",
         {"workflow_id": w, "trigger_type": "on_jobs_ready", "action_type": "run_commands",
          "action_config": {"commands": ["true"]}, "job_ids": [ids["j0"]]})
    ids["x"] = ids["t"] = UNKNOWN
    if phase != "draft":
        make("", f"/workflows/{w}/reset_status", None, None)
        make("", f"/workflows/{w}/initialize_jobs", None, None)
    make("c", "/scheduled_compute_nodes", {"workflow_id": w, "scheduler_id": 7, "scheduler_config_id": ids["s"],
                                           "scheduler_type": "slurm", "status": "pending"})
    if phase == "draft":
        return
    if phase == "ready":
        return
    for labels in ["", "&labels=a"]:
        make("", f"/workflows/{w}/claim_next_jobs?limit=10{labels}", None, None)
    for name in ["j0", "j4"]:
        make("", f"/jobs/{ids[name]}/start_job/1/{ids['n']}", None, None, "PUT")
    if phase == "running":
        return
    for name, status in [("j0", "completed"), ("j4", "failed")]:
        result = dict(bodies(ids)["complete_job"], job_id=ids[name], status=status, return_code=int(status == "failed"))
        make("", f"/jobs/{ids[name]}/complete_job/{status}/1", result, None)
    ids["x"] = side.send("GET", f"/results?workflow_id={w}")[1]["items"][0]["id"]
    # torc-server looks now and then for what may go on.
    while side.send("GET", f"/jobs/{ids['j2']}")[1]["status"] == "blocked":
        time.sleep(0.02)


def resolve(schemas, schema):
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            options = [resolve(schemas, one) for one in schema[key]]
            options = [one for one in options if one.get("type") != "null"]
            if options:
                return options[0]
    return schema


def kind_of(schema):
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    return kind


def odd_values(schema):
    kind = kind_of(schema)
    if "enum" in schema:
        return TEXT_ODD + ["Completed", "completed", "bogus", *schema["enum"]]
    return {"integer": INT_ODD, "number": REAL_ODD, "boolean": FLAG_ODD, "string": TEXT_ODD, "array": LIST_ODD,
            "object": MAP_ODD}.get(kind, [None, 1, "x", [], {}])


class Asked:
    """A request, its ids by name."""

    def __init__(self, why, method, path, query=None, body=None, raw=None, content_type="application/json"):
        self.why, self.method, self.path, self.query = why, method, path, query or {}
        self.body, self.raw, self.content_type = body, raw, content_type


SPECIFIC = {
    "memory": ["4gb", "1.5g", "g", "0", "1024", "-1g", "8 g", "99999999999g", "1G", "1T"],
    "runtime": ["PT", "5m", "P1D", "PT1H30M", "P0DT1M", "-PT5M", "P1Y", "PT0S", "PT1.5S"],
    "time_limit": ["PT", "5m", "P1D", "-PT5M", "PT0S"],
    "walltime": ["1", "x", "1-00:00:00"],
    "labels": [["a,b"], ["", "a"], ["a", "a"], [" a "], ["b", "a"]],
    "trigger_type": ["on_workflow_start", "on_workflow_complete", "on_worker_start", "on_worker_complete",
                     "on_jobs_complete", "bogus"],
    "action_type": ["schedule_nodes", "bogus"],
    "action_config": [{}, {"commands": []}, {"commands": "x"}, {"commands": [1]}],
    "status": ["ready", "running", "completed", "failed", "canceled", "terminated", "disabled", "pending_failed",
               "uninitialized", "blocked", "pending"],
    "start_time": ["x", "2026-01-01"],
    "completion_time": ["x", "2026-01-01"],
    "rules": ["x", "{}", '[{"exit_codes":[1]}]'],
    "scheduler_type": ["local", "bogus"],
    "env": [{"A": "x" * 10}, {"TORC_X": "1"}, {"A=B": "1"}],
    "jobs": [[{"name": "s1", "command": "true"}, {"name": "s1", "command": "true"}],
             [{"name": "a", "command": "true", "depends_on": ["b"]}, {"name": "b", "command": "true", "depends_on": ["a"]}],
             [{"name": "a", "command": "true", "depends_on": ["zz"]}], [{"name": "a"}], [{"command": "x"}]],
    "sort_by": ["name", "status", "priority", "timestamp", "bogus"],
}


def mutations(schemas, operation, path, method, ids):
    """The requests of an operation."""
    name = operation["operationId"]
    body = bodies(ids).get(name)
    parameters = [one for one in operation.get("parameters", []) if not one.get("x-forebay")]
    parts = path.strip("/").split("/")
    good = []
    for place, part in enumerate(parts):
        if not part.startswith("{"):
            good.append(part)
            continue
        key = part[1:-1]
        if key in WORDS:
            good.append(WORDS[key])
        elif key == "compute_node_id":
            good.append(str(ids["n"]))
        elif key == "action_id":
            good.append(str(ids["a"]))
        elif key in ("id", "workflow_id"):
            good.append(str(ids[PLACES[parts[place - 1]]]))
        else:
            good.append("1")
    query = {}
    for parameter in parameters:
        if parameter["in"] == "query" and parameter.get("required"):
            query[parameter["name"]] = str(ids["w"]) if parameter["name"] == "workflow_id" else GOOD[parameter["name"]]

    def ask(why, parts=good, query=query, **how):
        if not how and body is not None:
            how = {"body": body}
        return Asked(why, method, "/" + "/".join(parts), query, **how)

    yield ask("good")
    for place, part in enumerate(parts):
        if part.startswith("{"):
            odd = PATH_ODD if part != "{status}" else PATH_ODD + SPECIFIC["status"] + ["Completed"]
            for value in odd:
                yield ask(f"path {part}={value}", good[:place] + [value] + good[place + 1:])
    for parameter in parameters:
        if parameter["in"] != "query":
            continue
        key = parameter["name"]
        if key in query:
            yield ask(f"query without {key}", query={k: v for k, v in query.items() if k != key})
        kind = kind_of(resolve(schemas, parameter["schema"])) or "string"
        odd = PARAMETER_ODD[kind] + [urllib.parse.quote(v) for v in SPECIFIC.get(key, []) if isinstance(v, str)]
        named = {"job_id": "j0", "upstream_job_id": "j0", "needs_file_id": "f1", "produced_by_job_id": "j0",
                 "consumer_job_id": "j2", "producer_job_id": "j0", "active_compute_node_id": "n", "compute_node_id": "n",
                 "scheduled_compute_node_id": "c", "scheduler_config_id": "s"}.get(key)
        if named:
            odd = odd + [str(ids[named])]
        if key == "hostname":
            odd = odd + ["h", "ot"]
        if key in ("name", "job_name"):
            odd = odd + ["j0", "f0", "u0", "w", "r", "h", "j"]
        if key in ("path", "command"):
            odd = odd + ["p_0%25.txt", "p_", "tru", "%25", "true"]
        if key == "category":
            odd = odd + ["c0", "c1"]
        if key == "sort_by":
            odd = odd + ["num_cpus", "hostname", "return_code", "job_id", "name", "path", "st_mtime", "memory", "runtime",
                         "workflow_id", "priority"]
        for value in odd:
            yield ask(f"query {key}={value}", query={**query, key: value})
            if key == "sort_by":
                yield ask(f"query {key}={value} reversed", query={**query, key: value, "reverse_sort": "true"})
    if any(parameter["name"] == "offset" for parameter in parameters):
        for offset, limit in [(0, 0), (0, 1), (1, 1), (100, 1), (1, 2)]:
            yield ask(f"part {offset}+{limit}", query={**query, "offset": str(offset), "limit": str(limit)})
    yield ask("query zzz=1", query={**query, "zzz": "1"})
    if body is None:
        if method in ("POST", "PUT"):
            yield ask("empty object", body={})
            yield ask("broken JSON", raw=b"{")
        return
    for why, how in [
        ("no body", {"raw": b""}), ("no body and no type", {"raw": b"", "content_type": None}),
        ("broken JSON", {"raw": b"{"}), ("trailing", {"raw": json.dumps(body).encode() + b" x"}),
        ("an array", {"raw": b"[]"}), ("null", {"raw": b"null"}), ("text", {"raw": b'"x"'}),
        ("number", {"raw": b"1"}), ("empty object", {"raw": b"{}"}), ("not UTF-8", {"raw": b'{"a":"\xff"}'}),
        ("wrong type", {"raw": json.dumps(body).encode(), "content_type": "text/plain"}),
        ("no type", {"raw": json.dumps(body).encode(), "content_type": None}),
        ("type with charset", {"raw": json.dumps(body).encode(), "content_type": "application/json; charset=utf-8"}),
        ("merge type", {"raw": json.dumps(body).encode(), "content_type": "application/merge-patch+json"}),
    ]:
        yield ask(why, **how)
    if not isinstance(body, dict):
        return
    content = operation["requestBody"]["content"]
    schema = resolve(schemas, next(iter(content.values()))["schema"])
    yield ask("an unknown field", body=dict(body, zzz=1))
    yield from fields(schemas, schema, body, lambda why, body: ask(why, body=body), name)
    # Lists of things: the same inside the first of them.
    for key, value in body.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = resolve(schemas, resolve(schemas, schema["properties"][key])["items"])

            def inside(why, one, key=key, value=value):
                return ask(f"{key}[0].{why}", body=dict(body, **{key: [one, *value[1:]]}))

            yield from fields(schemas, items, value[0], inside, name)
            yield ask(f"{key} twice", body=dict(body, **{key: [value[0], value[0]]}))
            if "workflow_id" in value[0]:
                yield ask(f"{key} of two workflows", body=dict(body, **{key: [value[0], dict(value[0], name="q", workflow_id=UNKNOWN)]}))
            if "result" in value[0]:
                result = resolve(schemas, items["properties"]["result"])

                def deep(why, one, key=key, value=value):
                    return ask(f"{key}[0].result.{why}", body=dict(body, **{key: [dict(value[0], result=one)]}))

                yield from fields(schemas, result, value[0]["result"], deep, name)


def fields(schemas, schema, body, ask, name):
    for key, field in schema.get("properties", {}).items():
        if key in body:
            yield ask(f"without {key}", {k: v for k, v in body.items() if k != key})
        for value in odd_values(resolve(schemas, field)) + SPECIFIC.get(key, []):
            yield ask(f"{key}={json.dumps(value, ensure_ascii=False)[:60]}", dict(body, **{key: value}))
