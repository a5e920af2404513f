//! The routes written down, as parts of an OpenAPI 3.1 document.

use serde_json::{Map, Value, json};

struct Route {
    method: &'static str,
    /// Within the queues door.
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    /// The schema of its body, and whether there must be one.
    body: Option<(&'static str, bool)>,
    /// The schema of what it answers with.
    gives: &'static str,
    /// It may not go together with what is there.
    conflicts: bool,
}

const fn route(method: &'static str, path: &'static str, id: &'static str, gives: &'static str) -> Route {
    Route { method, path, id, summary: "", body: None, gives, conflicts: false }
}

impl Route {
    const fn said(self, summary: &'static str) -> Route {
        Route { summary, ..self }
    }

    const fn takes(self, schema: &'static str) -> Route {
        Route { body: Some((schema, true)), ..self }
    }

    const fn may_take(self, schema: &'static str) -> Route {
        Route { body: Some((schema, false)), ..self }
    }

    const fn conflicts(self) -> Route {
        Route { conflicts: true, ..self }
    }
}

const ROUTES: [Route; 19] = [
    route("get", "/job", "queues_list_jobs", "QueuedJobs").said("The jobs of the default queue"),
    route("post", "/job", "queues_query_jobs", "QueuedJobs")
        .may_take("QueuedJobQuery")
        .said("Those that a query asks for"),
    route("post", "/job/create", "queues_create_job", "QueuedJob").takes("NewQueuedJob").said("Creates a job"),
    route("post", "/job/poll", "queues_poll_job", "QueuedJob")
        .takes("QueuedJobPoll")
        .said("Takes the oldest job that a query asks for, and gives it a new state"),
    route("get", "/job/{job}", "queues_get_job", "QueuedJob").said("A job"),
    route("delete", "/job/{job}", "queues_delete_job", "Nothing").said("Deletes a job"),
    route("post", "/job/{job}/state", "queues_set_state", "QueuedJob")
        .takes("QueuedJobStep")
        .conflicts()
        .said("Gives a job a new state, if it has the old one"),
    route("post", "/job/{job}/event", "queues_append_event", "QueuedJob")
        .takes("AnyJson")
        .said("Appends to what happened to a job"),
    route("get", "/queue", "queues_list", "Queues").said("The queues"),
    route("post", "/queue", "queues_create", "Queue").may_take("NewQueue").conflicts().said("Creates a queue"),
    route("delete", "/queue/{queue}", "queues_delete", "Nothing").said("Deletes a queue with all its jobs"),
    route("get", "/queue/{queue}/job", "queue_list_jobs", "QueuedJobs").said("The jobs of a queue"),
    route("post", "/queue/{queue}/job", "queue_create_job", "QueuedJob").takes("NewQueuedJob").said("Creates a job"),
    route("post", "/queue/{queue}/query_jobs", "queue_query_jobs", "QueuedJobs")
        .may_take("QueuedJobQuery")
        .said("Those that a query asks for"),
    route("post", "/queue/{queue}/poll_job", "queue_poll_job", "QueuedJob")
        .takes("QueuedJobPoll")
        .said("Takes the oldest job that a query asks for, and gives it a new state"),
    route("get", "/queue/{queue}/job/{job}", "queue_get_job", "QueuedJob").said("A job"),
    route("delete", "/queue/{queue}/job/{job}", "queue_delete_job", "Nothing").said("Deletes a job"),
    route("post", "/queue/{queue}/job/{job}/state", "queue_set_state", "QueuedJob")
        .takes("QueuedJobStep")
        .conflicts()
        .said("Gives a job a new state, if it has the old one"),
    route("post", "/queue/{queue}/job/{job}/event", "queue_append_event", "QueuedJob")
        .takes("AnyJson")
        .said("Appends to what happened to a job"),
];

/// What a request may be refused with, whichever it is; 409 where something conflicts.
const REFUSALS: [(&str, &str); 6] = [
    ("400", "The body did not come."),
    ("404", "There is no such queue, no such job, or none that the query asks for."),
    ("409", "It does not go together with what is there."),
    ("413", "The body is over its bound."),
    ("422", "The body or the query says nothing, or not what it should."),
    ("503", "It cannot be done now: ask again."),
];

/// `{"paths": …, "schemas": …}`, paths from the root.
#[must_use]
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(format!("/api/v0{}", route.path)).or_insert_with(|| json!({}));
        path[route.method] = operation(route);
    }
    json!({"paths": paths, "schemas": schemas()})
}

fn reference(schema: &str) -> Value {
    json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}})
}

fn operation(route: &Route) -> Value {
    let mut responses = Map::new();
    responses.insert("200".into(), json!({"description": "Done.", "content": reference(route.gives)}));
    for (status, when) in REFUSALS.iter().filter(|(status, _)| *status != "409" || route.conflicts) {
        responses.insert((*status).into(), json!({"description": when, "content": reference("QueueRefusal")}));
    }
    let text = json!({"text/plain": {"schema": {"type": "string"}}});
    let unauthorized = "Credentials are wrong, or missing where they are required.";
    responses.insert("401".into(), json!({"description": unauthorized, "content": text}));
    let named = |name: &str| route.path.contains(&format!("{{{name}}}"));
    let mut parameters = Vec::new();
    for (name, schema) in [("queue", json!({"type": "string"})), ("job", json!({"type": "integer", "format": "int64"}))]
    {
        if named(name) {
            parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
        }
    }
    let mut operation = json!({
        "operationId": route.id,
        "tags": ["queues"],
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
        "x-forebay": true,
    });
    if let Some((schema, required)) = route.body {
        operation["requestBody"] = json!({"required": required, "content": reference(schema)});
    }
    operation
}

fn schemas() -> Value {
    let query = json!({
        "description": "An expression over a job's columns, or a list of expressions and [op, path, value].",
        "anyOf": [{"type": "string"}, {"type": "array"}]
    });
    let job = json!({
        "type": "object",
        "required": ["id", "payload", "events", "state", "modified"],
        "properties": {
            "id": {"type": "integer", "format": "int64"},
            "payload": {}, "events": {}, "state": {},
            "modified": {"type": "integer", "format": "int64", "description": "Seconds since 1970."}
        }
    });
    let object =
        |required: Value, properties: Value| json!({"type": "object", "required": required, "properties": properties});
    let limit = json!({"type": ["integer", "null"], "minimum": 0});
    let jobs = json!({"type": "array", "items": {"$ref": "#/components/schemas/QueuedJob"}});
    let queues = json!({"type": "array", "items": {"$ref": "#/components/schemas/Queue"}});
    let text = json!({"type": "string"});
    json!({
        "QueuedJob": job,
        "QueuedJobs": object(json!(["jobs"]), json!({"jobs": jobs})),
        "NewQueuedJob": object(json!(["payload"]), json!({"payload": {}, "state": {}})),
        "QueuedJobQuery": object(json!([]), json!({"query": query, "limit": limit})),
        "QueuedJobPoll": object(json!(["query", "state"]), json!({"query": query, "state": {}})),
        "QueuedJobStep": object(json!(["old", "new"]), json!({"old": {}, "new": {}})),
        "Queue": object(json!(["id"]), json!({"id": text})),
        "Queues": object(json!(["queues"]), json!({"queues": queues})),
        "NewQueue": object(json!([]), json!({"id": {"type": ["string", "integer", "null"]}})),
        "Nothing": object(json!([]), json!({})),
        "AnyJson": {},
        "QueueRefusal": object(json!(["error"]), json!({"error": text})),
    })
}
