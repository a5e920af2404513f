//! What the HTTP library costs with nothing behind it: answers as large as the real ones.

use axum::Router;
use axum::body::Bytes;
use axum::http::Uri;

/// About what a claim of one job answers.
const CLAIM: &str = r#"{"jobs":[{"id":123456,"workflow_id":1,"status":"pending","attempt_id":1,"priority":0,"start_time":null,"compute_node_id":null,"name":"job_000123","command":"true","invocation_script":null,"env":null,"cancel_on_blocking_job_failure":true,"supports_termination":false,"depends_on_job_ids":null,"input_file_ids":null,"output_file_ids":[],"input_user_data_ids":null,"output_user_data_ids":[],"resource_requirements_id":1,"scheduler_id":null,"failure_handler_id":null,"labels":null,"origin":null,"schedule_compute_nodes":null}]}"#;

/// Listens as the server does, until it is killed.
pub fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("listening http={}", listener.local_addr()?);
        let router = Router::new().fallback(|uri: Uri, _body: Bytes| async move {
            let body = if uri.path().contains("claim") { CLAIM } else { &CLAIM[9..CLAIM.len() - 2] };
            ([("content-type", "application/json")], body)
        });
        axum::serve(listener, router).await?;
        Ok(())
    })
}
