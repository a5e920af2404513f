//! What the door answers to, as an OpenAPI 3.1 document: schemas from the wire types, filters from
//! the catalog, the rest as [`operations`] says it. A test asks the door itself whether that is so.

mod operation;
mod operations;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use forebay_wire::{API_VERSION, BASE_PATH};
use hyper::body::Bytes;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathsBuilder, RefOr, Schema, ServerBuilder,
};

use operation::Operation;

/// Schemas by their name.
type Schemas = BTreeMap<String, RefOr<Schema>>;

/// The document as JSON.
pub fn openapi_json() -> Bytes {
    static JSON: LazyLock<Bytes> = LazyLock::new(|| {
        let json = document().to_json().expect("an OpenAPI document has string keys and no failing serializers");
        Bytes::from(json)
    });
    JSON.clone()
}

fn document() -> OpenApi {
    let mut schemas = Schemas::new();
    let mut paths = PathsBuilder::new();
    let mut paths_by_name: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in operations::operations() {
        paths_by_name.entry(operation.path()).or_default().push(operation);
    }
    for (path, operations) in paths_by_name {
        paths = paths.path(path, operation::path_item(operations, &mut schemas));
    }
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme("basic", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build()))
        .security_scheme("bearer", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()));
    let nothing: [&str; 0] = [];
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Forebay")
                .version(API_VERSION)
                .description(Some(
                    "torc's HTTP API as Forebay serves it. What is marked `x-forebay` is an addition to it.",
                ))
                .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build())),
        )
        .servers(Some([ServerBuilder::new().url(BASE_PATH).build()]))
        .paths(paths)
        .components(Some(components.build()))
        // None, where the server asks for none.
        .security(Some([
            SecurityRequirement::default(),
            SecurityRequirement::new("basic", nothing),
            SecurityRequirement::new("bearer", nothing),
        ]))
        .build()
}
