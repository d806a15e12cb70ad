//! The document of the API: true of every answer that any test gets, complete, and about nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use super::World;

/// What the document says of the API.
pub(super) struct Document(pub(super) Value);

/// An answer, to be held to the document.
pub(super) struct Given<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) status: u16,
    pub(super) media_type: &'a str,
    pub(super) text: &'a str,
}

impl Document {
    /// The operations: path, method in lower case, description.
    pub(super) fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let mut operations = Vec::new();
        for (path, item) in self.0["paths"].as_object().unwrap() {
            let methods = item.as_object().unwrap().iter();
            let methods = methods.filter(|(name, _)| *name != "parameters");
            operations
                .extend(methods.map(|(method, about)| (path.as_str(), method.as_str(), about)));
        }
        operations
    }

    /// Fails unless the document has the status, the media type and the form of the answer.
    pub(super) fn hold(&self, given: &Given<'_>) {
        let Some(item) = self.item(given.path) else {
            return;
        };
        let what = format!("{} {} {}", given.method, given.path, given.status);
        let about = &item[given.method.as_str().to_lowercase()];
        if about.is_null() {
            assert!(
                given.status == 405 || given.status == 403,
                "{what} is not in the document"
            );
            return;
        }
        let content = &about["responses"][given.status.to_string()]["content"];
        let media_type = given.media_type.split(';').next().unwrap();
        let schema = &content[media_type]["schema"];
        assert!(
            !schema.is_null(),
            "{what} {media_type} is not in the document"
        );
        let value = match media_type {
            "application/json" => serde_json::from_str(given.text).unwrap(),
            _ => json!(given.text),
        };
        if let Err(why) = self.fits(schema, &value, "") {
            panic!("{what}: {why}: {}", given.text);
        }
    }

    /// The path's entry: that with the fewest variable parts.
    fn item(&self, path: &str) -> Option<&Value> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let found = paths.filter(|(template, _)| is_of(template, path));
        found
            .min_by_key(|(template, _)| template.matches('{').count())
            .map(|(_, item)| item)
    }

    /// Whether the value has the form; no field may be there that the form does not have.
    fn fits(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.trim_start_matches('#');
            let named = self
                .0
                .pointer(name)
                .ok_or_else(|| format!("{at}: no {name}"))?;
            return self.fits(named, value, at);
        }
        if let Some(all) = schema["anyOf"].as_array() {
            let tried: Vec<_> = all.iter().map(|one| self.fits(one, value, at)).collect();
            return match tried.iter().any(Result::is_ok) {
                true => Ok(()),
                false => Err(format!("{tried:?}")),
            };
        }
        let wrong = |why: &str| Err(format!("{at}: {value} {why} {schema}"));
        if !is_type(&schema["type"], value) {
            return wrong("is not of the type of");
        }
        if schema["enum"]
            .as_array()
            .is_some_and(|words| !words.contains(value))
            || schema.get("const").is_some_and(|one| one != value)
        {
            return wrong("is none of");
        }
        let number = value.as_f64();
        if number.is_some_and(|n| schema["minimum"].as_f64().is_some_and(|min| n < min))
            || number.is_some_and(|n| schema["maximum"].as_f64().is_some_and(|max| n > max))
        {
            return wrong("is out of the range of");
        }
        if let Some(list) = value.as_array() {
            let count = list.len() as u64;
            if schema["maxItems"].as_u64().is_some_and(|max| count > max) {
                return wrong("is longer than");
            }
            for (index, entry) in list.iter().enumerate() {
                self.fits(&schema["items"], entry, &format!("{at}/{index}"))?;
            }
        }
        match value.as_object() {
            Some(fields) => self.fields_fit(schema, fields, at),
            None => Ok(()),
        }
    }

    fn fields_fit(
        &self,
        schema: &Value,
        fields: &serde_json::Map<String, Value>,
        at: &str,
    ) -> Result<(), String> {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let missing = required
            .iter()
            .find(|name| !fields.contains_key(name.as_str().unwrap()));
        if let Some(name) = missing {
            return Err(format!("{at}: {name} is missing"));
        }
        for (name, value) in fields {
            let of = match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Null) if schema["type"].is_null() => &Value::Null,
                (Value::Null, Value::Null) => return Err(format!("{at}/{name} is not described")),
                (Value::Null, rest) => rest,
                (of, _) => of,
            };
            self.fits(of, value, &format!("{at}/{name}"))?;
        }
        Ok(())
    }
}

fn is_type(wanted: &Value, value: &Value) -> bool {
    if let Some(any) = wanted.as_array() {
        return any.iter().any(|one| is_type(one, value));
    }
    match wanted.as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some(_) => value.is_null(),
    }
}

fn is_of(template: &str, path: &str) -> bool {
    let (mut parts, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (parts.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(given)) if part == given || part.starts_with('{') => {}
            _ => return false,
        }
    }
}

/// The path with something in place of what varies.
fn filled(template: &str) -> String {
    let parts = template.split('/');
    let filled: Vec<&str> = parts
        .map(|p| if p.starts_with('{') { "x" } else { p })
        .collect();
    filled.join("/")
}

#[tokio::test]
async fn the_document_has_exactly_the_methods_that_its_paths_serve() {
    let world = World::new().await;
    let mut operations: BTreeSet<String> = BTreeSet::new();
    for (path, method, _) in world.document().await.operations() {
        operations.insert(format!("{} {path}", method.to_uppercase()));
    }
    let mut served = BTreeSet::new();
    for path in world.document().await.0["paths"]
        .as_object()
        .unwrap()
        .keys()
    {
        // Of the proxy's paths one is for it alone.
        let bearer = match path.starts_with("/origin/") {
            true => format!("Bearer {}", world.plane.origin_token()),
            false => world.bearer(),
        };
        let request = Request::builder()
            .method("PURGE")
            .uri(filled(path))
            .header("authorization", bearer)
            .body(Body::empty());
        let response = world.raw_response(request.unwrap()).await;
        assert_eq!(response.status().as_u16(), 405, "{path}");
        let allowed = response.headers()["allow"].to_str().unwrap().to_owned();
        let methods = allowed.split(',').filter(|method| *method != "HEAD");
        served.extend(methods.map(|method| format!("{method} {path}")));
    }
    assert_eq!(operations, served);
    assert!(operations.len() > 50, "{}", operations.len());
}

/// Only [`crate::api::operation`] can register a route, and it registers none without a description.
#[test]
fn no_file_of_the_api_registers_a_route_by_itself() {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut files: Vec<PathBuf> = vec![api.clone()];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let below = std::fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            files.extend(below.filter(|p| *p != api.join("operation") && *p != api.join("tests")));
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains(".route("), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[tokio::test]
async fn the_document_is_open_to_everybody_and_whole() {
    let world = World::new().await;
    let request = Request::builder()
        .uri("/openapi.json")
        .body(Body::empty())
        .unwrap();
    let (status, text) = world.raw(request).await;
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(
        !text.contains("No example has it"),
        "an example must have every object"
    );
    let mut ids = BTreeSet::new();
    for (path, method, about) in world.document().await.operations() {
        let id = about["operationId"].as_str().unwrap();
        assert!(
            ids.insert(id.to_owned()),
            "{method} {path}: {id} is there twice"
        );
        assert!(
            about["summary"].as_str().unwrap().len() > 5,
            "{method} {path}"
        );
        let schema = &about["responses"]["200"]["content"];
        assert!(
            schema.as_object().is_some_and(|one| one.len() == 1),
            "{method} {path}"
        );
    }
}

/// The reader of bodies tells what it reads: types, bounds, words, and what must be there.
#[tokio::test]
async fn the_schema_of_a_body_says_what_its_reader_enforces() {
    let world = World::new().await;
    let document = world.document().await;
    let body = |path: &str, method: &str| {
        let about = &document.0["paths"][format!("/client/v4{path}")][method];
        about["requestBody"]["content"]["application/json"]["schema"].clone()
    };
    let vnets = "/accounts/{account}/teamnet/virtual_networks";
    let new = body(vnets, "post");
    assert_eq!(new["required"], json!(["name"]));
    assert_eq!(new["properties"]["name"]["maxLength"], 256);
    assert_eq!(new["additionalProperties"], false);
    let changed = body(&format!("{vnets}/{{vnet}}"), "patch");
    assert_eq!(changed.get("required"), None);
    let record = body("/zones/{zone}/dns_records", "post");
    assert_eq!(record["required"], json!(["name", "type"]));
    let ttl = &record["properties"]["ttl"];
    assert_eq!(
        (&ttl["minimum"], &ttl["maximum"]),
        (&json!(1), &json!(86_400))
    );
    let tunnel = body("/accounts/{account}/magic/gre_tunnels", "post");
    let needed = [
        "cloudflare_gre_endpoint",
        "customer_gre_endpoint",
        "interface_address",
        "name",
    ];
    assert_eq!(tunnel["required"], json!(needed));
    let check = &tunnel["properties"]["health_check"];
    assert_eq!(
        check["properties"]["rate"]["enum"],
        json!(["low", "mid", "high", null])
    );
    assert_eq!(check["type"], json!(["object", "null"]));
    let bulk = body("/accounts/{account}/magic/gre_tunnels", "put");
    assert_eq!(
        bulk["properties"]["gre_tunnels"]["items"]["required"],
        json!(["id"])
    );
}

#[test]
#[should_panic(expected = "/result/name is not described")]
fn an_answer_with_a_field_that_is_not_described_does_not_pass() {
    let named = json!({"type": "object", "properties": {"id": {"type": "string"}}});
    let envelope = json!({"type": "object", "properties": {"result": named}});
    let content = json!({"application/json": {"schema": envelope}});
    let get = json!({"responses": {"200": {"content": content}}});
    let document = Document(json!({"paths": {"/client/v4/things/{thing}": {"get": get}}}));
    document.hold(&Given {
        method: &Method::GET,
        path: "/client/v4/things/1",
        status: 200,
        media_type: "application/json",
        text: &json!({"result": {"id": "1", "name": "x"}}).to_string(),
    });
}
