//! One operation, and how it is written down.

use forebay_domain::catalog::Table;
use forebay_wire::{ErrorResponse, JobStatus, RECORDS_MAX};
use utoipa::ToSchema;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathItemBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, HttpMethod, Ref, RefOr, Required, ResponseBuilder, Schema};

use super::Schemas;
use crate::rows::{self, Form};

/// Marks what torc does not have.
const OURS: &str = "x-forebay";

/// A request that the door answers.
pub(super) struct Operation {
    method: HttpMethod,
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    query: Vec<Parameter>,
    body: Option<Shape>,
    /// By status; the rest are refusals.
    answers: Vec<(u16, Shape)>,
    conflicts: bool,
    needs_lease: bool,
    ours: bool,
}

struct Parameter {
    name: &'static str,
    kind: Kind,
    required: bool,
    ours: bool,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Real,
    Flag,
    Status,
    /// How many, or from which: at least 0, at most this.
    Count(i64),
}

/// A body's schema, and those that it refers to.
struct Shape {
    schema: RefOr<Schema>,
    named: Vec<(String, RefOr<Schema>)>,
    content_type: &'static str,
}

impl Shape {
    fn of<T: ToSchema>() -> Shape {
        let mut named = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut named);
        Shape { schema: Ref::from_schema_name(T::name()).into(), named, content_type: JSON }
    }
}

const JSON: &str = "application/json";

pub(super) fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(HttpMethod::Get, path, id, summary)
}

pub(super) fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(HttpMethod::Post, path, id, summary)
}

pub(super) fn put(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(HttpMethod::Put, path, id, summary)
}

pub(super) fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(HttpMethod::Delete, path, id, summary)
}

impl Operation {
    fn new(method: HttpMethod, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
        let (query, answers) = (Vec::new(), Vec::new());
        Operation {
            method,
            path,
            id,
            tag: "",
            summary,
            query,
            body: None,
            answers,
            conflicts: false,
            needs_lease: false,
            ours: false,
        }
    }

    /// Whether it has this name.
    pub fn is(&self, id: &str) -> bool {
        self.id == id
    }

    pub fn path(&self) -> &'static str {
        self.path
    }

    pub fn tag(mut self, tag: &'static str) -> Operation {
        self.tag = tag;
        self
    }

    /// torc does not have it.
    pub fn ours(mut self) -> Operation {
        self.ours = true;
        self
    }

    /// Parameters of the query that may be left out.
    pub fn takes(mut self, kind: Kind, names: &[&'static str]) -> Operation {
        self.query.extend(names.iter().map(|name| Parameter { name, kind, required: false, ours: false }));
        self
    }

    /// The same, where torc does not have them.
    pub fn takes_ours(mut self, kind: Kind, names: &[&'static str]) -> Operation {
        self.query.extend(names.iter().map(|name| Parameter { name, kind, required: false, ours: true }));
        self
    }

    /// A parameter of the query that must be there.
    pub fn needs(mut self, kind: Kind, name: &'static str) -> Operation {
        self.query.push(Parameter { name, kind, required: true, ours: false });
        self
    }

    /// Each column of a table that a list may be filtered by.
    pub fn filters(mut self, table: Table) -> Operation {
        for column in table.columns().iter().filter(|column| column.filter) {
            let kind = match rows::form(table, column.name) {
                Form::Flag => Kind::Flag,
                Form::Status => Kind::Status,
                Form::Hidden => continue,
                Form::Plain | Form::Document => Kind::of(column.kind),
            };
            if self.query.iter().all(|known| known.name != column.name) {
                self = self.takes(kind, &[column.name]);
            }
        }
        self
    }

    /// The part of a list.
    pub fn paged(self) -> Operation {
        self.takes(Kind::Count(i64::MAX), &["offset"])
            .takes(Kind::Count(RECORDS_MAX), &["limit"])
            .takes(Kind::Text, &["sort_by"])
            .takes(Kind::Flag, &["reverse_sort"])
    }

    pub fn body<T: ToSchema>(mut self) -> Operation {
        self.body = Some(Shape::of::<T>());
        self
    }

    pub fn gives<T: ToSchema>(self) -> Operation {
        self.gives_with::<T>(200)
    }

    pub fn gives_with<T: ToSchema>(mut self, status: u16) -> Operation {
        self.answers.push((status, Shape::of::<T>()));
        self
    }

    /// torc's envelope of a list, under torc's name.
    pub fn gives_page<T: ToSchema>(mut self, name: &'static str) -> Operation {
        let Shape { schema, mut named, content_type } = Shape::of::<T>();
        let int = || ObjectBuilder::new().schema_type(Type::Integer).build();
        let mut envelope = ObjectBuilder::new()
            .property("items", ArrayBuilder::new().items(schema))
            .required("items")
            .property("has_more", ObjectBuilder::new().schema_type(Type::Boolean))
            .required("has_more");
        for field in ["offset", "max_limit", "count", "total_count"] {
            envelope = envelope.property(field, int()).required(field);
        }
        named.push((name.to_owned(), RefOr::T(Schema::Object(envelope.build()))));
        self.answers.push((200, Shape { schema: Ref::from_schema_name(name).into(), named, content_type }));
        self
    }

    /// A list without an envelope.
    pub fn gives_list<T: ToSchema>(mut self) -> Operation {
        let Shape { schema, named, content_type } = Shape::of::<T>();
        let list = ArrayBuilder::new().items(schema).build();
        self.answers.push((200, Shape { schema: RefOr::T(Schema::Array(list)), named, content_type }));
        self
    }

    /// Server-sent events, as long as somebody listens.
    pub fn streams(mut self) -> Operation {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let schema = RefOr::T(Schema::Object(text));
        self.answers.push((200, Shape { schema, named: Vec::new(), content_type: "text/event-stream" }));
        self
    }

    /// It may not go together with what goes on.
    pub fn conflicts(mut self) -> Operation {
        self.conflicts = true;
        self
    }

    /// It may be for those compute nodes alone that have a lease.
    pub fn needs_lease(mut self) -> Operation {
        self.needs_lease = true;
        self
    }

    fn build(self, schemas: &mut Schemas) -> (HttpMethod, utoipa::openapi::path::Operation) {
        let mut operation =
            OperationBuilder::new().operation_id(Some(self.id)).tag(self.tag).summary(Some(self.summary));
        for name in self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let kind = match name {
                "status" => Kind::Status,
                "limit" => Kind::Count(i64::MAX),
                _ => Kind::Int,
            };
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
            operation = operation.parameter(parameter.required(Required::True).schema(Some(kind.schema())));
        }
        for Parameter { name, kind, required, ours } in self.query {
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(if required { Required::True } else { Required::False })
                .schema(Some(kind.schema()))
                .extensions(marked(ours));
            operation = operation.parameter(parameter);
        }
        if let Some(body) = self.body {
            let content = ContentBuilder::new().schema(Some(body.schema)).build();
            let body_of = RequestBodyBuilder::new().content(body.content_type, content).required(Some(Required::True));
            operation = operation.request_body(Some(body_of.build()));
            schemas.extend(body.named);
        }
        for (status, answer) in self.answers {
            let content = ContentBuilder::new().schema(Some(answer.schema)).build();
            let response = ResponseBuilder::new().description("Done.").content(answer.content_type, content);
            operation = operation.response(status.to_string(), response);
            schemas.extend(answer.named);
        }
        let refusal = Shape::of::<ErrorResponse>();
        for (status, when) in REFUSALS {
            if *status == 409 && !self.conflicts || *status == 410 && !self.needs_lease {
                continue;
            }
            let content = ContentBuilder::new().schema(Some(refusal.schema.clone())).build();
            let response = ResponseBuilder::new().description(*when).content(JSON, content);
            operation = operation.response(status.to_string(), response);
        }
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let content = ContentBuilder::new().schema(Some(Schema::Object(text))).build();
        let unauthorized = ResponseBuilder::new()
            .description("Credentials are wrong, or missing where they are required.")
            .content("text/plain", content);
        operation = operation.response("401", unauthorized).extensions(marked(self.ours));
        schemas.extend(refusal.named);
        (self.method, operation.build())
    }
}

/// What a request may be refused with, whichever it is.
const REFUSALS: &[(u16, &str)] = &[
    (400, "The path, the query or the JSON cannot be read."),
    (404, "There is no such thing."),
    (409, "It does not go together with what goes on."),
    (410, "The compute node has no lease, or none any more: what it held is not its own."),
    (413, "The body is over its bound."),
    (415, "The body is not said to be JSON."),
    (422, "It was understood and refused: a rule, or a bound, which the text names."),
    (
        429,
        "The server is overloaded, and nothing was done; or it stops, and this may or may not have been done. Ask again.",
    ),
];

fn marked(ours: bool) -> Option<Extensions> {
    ours.then(|| Extensions::builder().add(OURS, true).build())
}

impl Kind {
    fn of(kind: forebay_domain::catalog::Kind) -> Kind {
        match kind {
            forebay_domain::catalog::Kind::Int => Kind::Int,
            forebay_domain::catalog::Kind::Real => Kind::Real,
            forebay_domain::catalog::Kind::Text => Kind::Text,
        }
    }

    fn schema(self) -> Schema {
        let schema = ObjectBuilder::new();
        let int64 = Some(SchemaFormat::KnownFormat(KnownFormat::Int64));
        let schema = match self {
            Kind::Text => schema.schema_type(Type::String),
            Kind::Int => schema.schema_type(Type::Integer).format(int64),
            Kind::Real => schema.schema_type(Type::Number),
            Kind::Flag => schema.schema_type(Type::Boolean),
            Kind::Status => schema.schema_type(Type::String).enum_values(Some(JobStatus::ALL.map(JobStatus::as_str))),
            Kind::Count(most) => {
                let schema = schema.schema_type(Type::Integer).format(int64).minimum(Some(0));
                if most == i64::MAX { schema } else { schema.maximum(Some(most)) }
            }
        };
        Schema::Object(schema.build())
    }
}

/// All operations on one path.
pub(super) fn path_item(operations: Vec<Operation>, schemas: &mut Schemas) -> PathItem {
    operations
        .into_iter()
        .fold(PathItemBuilder::new(), |item, operation| {
            let (method, operation) = operation.build(schemas);
            item.operation(method, operation)
        })
        .build()
}
