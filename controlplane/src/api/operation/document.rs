//! The OpenAPI 3.1 document of all operations.

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use super::super::context::Shared;
use super::shape::{BOOLEAN, COUNT, Shape, TEXT};
use super::{About, Answer, Operation};

/// What a DELETE answers that is only asked about (`dry_run`).
const REHEARSED: Shape = Shape::Named(
    "DryRun",
    &Shape::Object(&[
        ("dry_run", BOOLEAN),
        ("deletes", Shape::List(&OBJECT)),
        ("changes", Shape::List(&OBJECT)),
        ("unlisted", COUNT),
    ]),
);

const OBJECT: Shape =
    Shape::Object(&[("type", TEXT), ("id", TEXT), ("name", Shape::OrNull(&TEXT))]);

/// Serves the document, to anybody: nothing in it is anybody's. It is made once.
pub(crate) fn document_route(operations: &[Operation]) -> Router<Shared> {
    let document = Bytes::from(document(operations).to_string());
    let serve = async move || ([(CONTENT_TYPE, "application/json")], document.clone());
    Router::new().route("/openapi.json", get(serve))
}

fn document(operations: &[Operation]) -> Value {
    let mut named = Map::new();
    named.insert("Failure".to_owned(), failure());
    named.insert("Note".to_owned(), note());
    let mut paths = Map::new();
    for operation in operations {
        let path = paths
            .entry(operation.path.clone())
            .or_insert_with(|| json!({"parameters": path_parameters(&operation.path)}));
        path[operation.method.as_str().to_lowercase()] = described(operation, &mut named);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Portcullis",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A self-hosted edge that puts public hostnames in front of private IPs.",
            "license": {"name": "See LICENSE"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": named,
        },
    })
}

fn described(operation: &Operation, named: &mut Map<String, Value>) -> Value {
    let Operation {
        method,
        path,
        about,
    } = operation;
    let mut parameters = Vec::new();
    for (place, list) in [("query", &about.query), ("header", &about.headers)] {
        for (name, shape) in list {
            let mut schema = shape.schema(named);
            if place == "query" {
                schema = or_empty(shape, schema);
            }
            parameters.push(json!({"name": name, "in": place, "schema": schema}));
        }
    }
    if *method == Method::DELETE {
        let words = json!({"type": "string", "enum": ["true", "false"]});
        parameters.push(json!({"name": "dry_run", "in": "query", "schema": words}));
    }
    let mut described = json!({
        "summary": about.summary,
        "operationId": id(method, path),
        "tags": [tag(path)],
        "responses": responses(method, about, named),
    });
    if !parameters.is_empty() {
        described["parameters"] = json!(parameters);
    }
    if let Some(body) = about.body {
        let (schema, examples) = body.described();
        // An absent body is an empty object.
        let is_required = schema.get("required").is_some();
        let mut media = json!({"schema": schema});
        let named_examples = examples.into_iter().enumerate();
        let named_examples: Map<String, Value> = named_examples
            .map(|(index, value)| (format!("{}", index + 1), json!({"value": value})))
            .collect();
        if !named_examples.is_empty() {
            media["examples"] = Value::Object(named_examples);
        }
        described["requestBody"] = json!({
            "required": is_required,
            "content": {body.media_type(): media},
        });
    }
    described
}

/// A parameter of the query that is empty counts as absent; switches are written in several ways.
fn or_empty(shape: &Shape, schema: Value) -> Value {
    let others = match shape {
        Shape::Text | Shape::Any => return schema,
        Shape::Boolean => json!(["", "1", "0", "True", "False"]),
        Shape::Integer(..)
        | Shape::Number
        | Shape::Pattern(_)
        | Shape::Format(_)
        | Shape::Words(_)
        | Shape::List(_)
        | Shape::Object(_)
        | Shape::Both(_)
        | Shape::Map(_)
        | Shape::OrNull(_)
        | Shape::Maybe(_)
        | Shape::Either(_)
        | Shape::Named(..) => json!([""]),
    };
    json!({"anyOf": [schema, {"type": "string", "enum": others}]})
}

/// Every status that the operation may have.
fn responses(method: &Method, about: &About, named: &mut Map<String, Value>) -> Value {
    let (media_type, schema) = success(method, &about.answer, named);
    let mut responses = json!({
        "200": {"description": "Done.", "content": {media_type: {"schema": schema}}},
    });
    let mut failures = vec![
        (400, "The request is wrong."),
        (403, "The token is missing, wrong, or not enough."),
        (404, "There is no such thing, for this token."),
        (405, "The path does not have this method."),
        (429, "Too many requests."),
        (500, "Ours: nothing changed."),
    ];
    if !method.is_safe() {
        failures.push((408, "The body did not arrive in time."));
        failures.push((409, "It clashes with what there is."));
        failures.push((413, "The body is too large."));
        failures.push((503, "Others changed the state at the same moment."));
    }
    for (status, description) in failures {
        responses[status.to_string()] = json!({
            "description": description,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
        });
    }
    responses
}

fn success(
    method: &Method,
    answer: &Answer,
    named: &mut Map<String, Value>,
) -> (&'static str, Value) {
    match answer {
        Answer::Text => ("text/plain", json!({"type": "string"})),
        Answer::Plain(shape) => ("application/json", shape.schema(named)),
        Answer::One(shape) if *method == Method::DELETE => {
            let either = json!({"anyOf": [shape.schema(named), REHEARSED.schema(named)]});
            ("application/json", envelope(either, None))
        }
        Answer::One(shape) => ("application/json", envelope(shape.schema(named), None)),
        Answer::Timed(shape) => {
            let timing = json!({
                "type": "object",
                "properties": {
                    "start_time": {"type": "string", "format": "date-time"},
                    "end_time": {"type": "string", "format": "date-time"},
                    "process_time": {"type": "number"},
                },
                "required": ["start_time", "end_time", "process_time"],
            });
            let extra = Some(("timing", timing));
            ("application/json", envelope(shape.schema(named), extra))
        }
        Answer::List(shape) => {
            let list = json!({"type": "array", "items": shape.schema(named)});
            named.entry("Page").or_insert_with(page);
            let page = json!({"$ref": "#/components/schemas/Page"});
            (
                "application/json",
                envelope(list, Some(("result_info", page))),
            )
        }
    }
}

fn envelope(result: Value, extra: Option<(&str, Value)>) -> Value {
    let mut schema = json!({
        "type": "object",
        "properties": {
            "success": {"type": "boolean", "const": true},
            "errors": {"type": "array", "maxItems": 0},
            "messages": {"type": "array", "items": {"$ref": "#/components/schemas/Note"}},
            "result": result,
        },
        "required": ["success", "errors", "messages", "result"],
    });
    if let Some((name, extra)) = extra {
        schema["properties"][name] = extra;
        if let Some(required) = schema["required"].as_array_mut() {
            required.push(json!(name));
        }
    }
    schema
}

fn note() -> Value {
    json!({
        "type": "object",
        "properties": {
            "code": {"type": "integer", "minimum": 1000},
            "message": {"type": "string"},
        },
        "required": ["code", "message"],
    })
}

fn page() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    json!({
        "type": "object",
        "properties": {
            "page": {"type": "integer", "minimum": 1},
            "per_page": {"type": "integer", "minimum": 1},
            "count": count, "total_count": count, "total_pages": count,
        },
        "required": ["page", "per_page", "count", "total_count", "total_pages"],
    })
}

fn failure() -> Value {
    let error = json!({
        "type": "object",
        "properties": {
            "code": {"type": "integer", "minimum": 1000},
            "message": {"type": "string", "minLength": 1},
            "source": {
                "type": "object",
                "properties": {"pointer": {
                    "type": "string", "description": "JSON pointer to the field that is wrong.",
                }},
                "required": ["pointer"],
            },
            "error_chain": {"type": "array", "items": {"$ref": "#/components/schemas/Note"}},
        },
        "required": ["code", "message"],
    });
    json!({
        "type": "object",
        "properties": {
            "success": {"type": "boolean", "const": false},
            "errors": {"type": "array", "minItems": 1, "items": error},
            "messages": {"type": "array", "maxItems": 0},
            "result": {"type": "null"},
        },
        "required": ["success", "errors", "messages", "result"],
    })
}

fn path_parameters(path: &str) -> Value {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters = names.map(|name| {
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}})
    });
    parameters.collect()
}

/// `get_zones_zone_dns_records`: what generators call the operation.
fn id(method: &Method, path: &str) -> String {
    let path = path.trim_start_matches("/client/v4");
    let mut id = method.as_str().to_lowercase();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        id.push('_');
        id.push_str(part.trim_matches(['{', '}']));
    }
    id
}

/// The resource: the first part of the path that names one.
fn tag(path: &str) -> &str {
    let around = [
        "",
        "client",
        "origin",
        "v4",
        "v1",
        "teamnet",
        "magic",
        "zerotrust",
        "spectrum",
    ];
    let is_name = |part: &&str| !part.starts_with('{') && !around.contains(part);
    let mut parts = path.split('/').filter(is_name);
    match (parts.next(), parts.next()) {
        (Some("accounts" | "zones"), Some(resource)) => resource,
        (first, _) => first.unwrap_or(path),
    }
}
