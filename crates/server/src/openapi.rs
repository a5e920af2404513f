//! One OpenAPI document of what all doors answer to over HTTP.

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use crate::metrics;

/// The document as JSON; with the queues door's routes where that is open.
pub(crate) fn document(with_queues: bool) -> Bytes {
    let workflows = forebay_workflows::openapi_json();
    let mut document: Value = serde_json::from_slice(&workflows).expect("the door wrote it as JSON");
    let base = document["servers"][0]["url"].take();
    document["servers"] = json!([{"url": "/"}]);
    let paths = taken(&mut document["paths"]);
    let base = base.as_str().expect("the door's document says where its paths begin");
    let mut paths: Map<String, Value> = paths.into_iter().map(|(path, item)| (format!("{base}{path}"), item)).collect();
    paths.insert(metrics::PATH.to_owned(), json!({"get": metrics()}));
    if with_queues {
        let mut queues = forebay_jobq::http::openapi();
        paths.extend(taken(&mut queues["paths"]));
        let schemas = taken(&mut queues["schemas"]);
        document["components"]["schemas"].as_object_mut().expect("the door has schemas").extend(schemas);
    }
    document["paths"] = Value::Object(paths);
    document["info"]["description"] = json!(
        "torc's HTTP API as Forebay serves it, metrics, and the routes of jobq's daemon where there are queues. \
         What is marked `x-forebay` is not torc's."
    );
    Bytes::from(document.to_string())
}

fn taken(object: &mut Value) -> Map<String, Value> {
    match object.take() {
        Value::Object(fields) => fields,
        other => unreachable!("paths and schemas are objects, not {other}"),
    }
}

fn metrics() -> Value {
    let text = json!({"text/plain": {"schema": {"type": "string"}}});
    json!({
        "operationId": "metrics",
        "tags": ["system"],
        "summary": "How the server does, in the text format of Prometheus",
        "responses": {
            "200": {"description": "Done.", "content": text},
            "401": {"description": "Credentials are wrong, or missing where they are required.", "content": text},
        },
        "x-forebay": true,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn read(with_queues: bool) -> Value {
        serde_json::from_slice(&document(with_queues)).expect("it is JSON")
    }

    #[test]
    fn all_doors_are_in_the_document_and_closed_ones_are_not() {
        let (all, without) = (read(true), read(false));
        for path in ["/torc-service/v1/workflows", "/metrics"] {
            assert!(all["paths"][path]["get"].is_object() && without["paths"][path]["get"].is_object(), "{path}");
        }
        assert!(all["paths"]["/api/v0/queue/{queue}/poll_job"]["post"].is_object());
        assert!(without["paths"].as_object().expect("paths").keys().all(|path| !path.starts_with("/api/")));
    }

    #[test]
    fn the_doors_do_not_share_names() {
        let (with, without) = (read(true), read(false));
        let schemas = |document: &Value| document["components"]["schemas"].as_object().expect("schemas").len();
        let own = forebay_jobq::http::openapi()["schemas"].as_object().expect("schemas").len();
        assert_eq!(schemas(&with), schemas(&without) + own);
        let mut ids = BTreeSet::new();
        for item in with["paths"].as_object().expect("paths").values() {
            for operation in item.as_object().expect("an item").values() {
                assert!(ids.insert(operation["operationId"].to_string()), "{operation}");
            }
        }
    }
}
