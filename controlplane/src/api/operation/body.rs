//! The schema of a body, found by running its reader on examples: it says what the reader enforces.
//!
//! A field is required when no example that has it (or the object around it) is read without it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Examples, Read};
use crate::model::Fields;
use crate::model::asked::{Form, Log};
use crate::model::fields::LIST_LEN_MAX;

/// Text without control characters.
const PLAIN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// What a body is.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    /// What the reader reads.
    Whole(Read, Examples),
    /// The same, without the need to say all.
    Part(Read, Examples),
    /// A list, under this key, of objects that name the `id` of what they change.
    Many(&'static str, Read, Examples),
    /// Described by hand: a schema, and an example.
    Other(fn() -> (Value, Value)),
    /// A form with a file.
    Form(fn() -> Value),
}

impl Body {
    /// Its media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Body::Form(_) => "multipart/form-data",
            Body::Whole(..) | Body::Part(..) | Body::Many(..) | Body::Other(_) => {
                "application/json"
            }
        }
    }

    /// Its schema and examples of it.
    pub(super) fn described(self) -> (Value, Vec<Value>) {
        match self {
            Body::Whole(read, examples) => (whole(read, examples), examples()),
            Body::Part(read, examples) => (part(read, examples), examples()),
            Body::Many(key, read, examples) => many(key, read, examples),
            Body::Other(described) => {
                let (schema, example) = described();
                (schema, vec![example])
            }
            Body::Form(schema) => (schema(), Vec::new()),
        }
    }
}

/// The schema of a body that says all.
pub(crate) fn whole(read: Read, examples: Examples) -> Value {
    tree(read, &examples()).object()
}

/// The schema of a body that says what changes.
pub(crate) fn part(read: Read, examples: Examples) -> Value {
    let mut tree = tree(read, &examples());
    for field in tree.0.values_mut() {
        field.is_required = false;
    }
    tree.object()
}

/// An object of `fields` with the `id` of what it changes.
pub(crate) fn with_id(mut schema: Value) -> Value {
    schema["properties"]["id"] = json!({"type": "string"});
    match schema["required"].as_array_mut() {
        Some(names) => names.push(json!("id")),
        None => schema["required"] = json!(["id"]),
    }
    schema
}

fn many(key: &str, read: Read, examples: Examples) -> (Value, Vec<Value>) {
    let schema = json!({
        "type": "object",
        "properties": {key: {
            "type": "array", "maxItems": LIST_LEN_MAX, "items": with_id(part(read, examples)),
        }},
        "required": [key],
        "additionalProperties": false,
    });
    (schema, vec![json!({key: []})])
}

/// The fields of an object, by name; `*` is any entry of a list.
#[derive(Default)]
struct Tree(BTreeMap<String, Field>);

#[derive(Default)]
struct Field {
    form: Option<Form>,
    is_required: bool,
    below: Tree,
}

fn tree(read: Read, examples: &[Value]) -> Tree {
    let mut tree = Tree::default();
    for example in examples {
        let log = Log::default();
        if let Ok(fields) = Fields::new(example.clone(), 1000) {
            // That every example is read without a refusal, a test sees to.
            let _unread = read(fields.logged(&log)).is_err();
        }
        for asked in log.asked() {
            tree.note(&asked.path, asked.form);
        }
    }
    let paths: Vec<String> = tree.paths("");
    for path in paths {
        let having: Vec<Value> = examples
            .iter()
            .filter_map(|example| without(example, &path))
            .collect();
        let is_read = |body: Value| Fields::new(body, 1000).is_ok_and(|f| read(f).is_ok());
        let is_required = !having.is_empty() && !having.into_iter().any(is_read);
        if let Some(field) = tree.at(&path) {
            field.is_required = is_required;
        }
    }
    tree
}

/// The example without the field; `None` when it does not have the object around it.
fn without(example: &Value, path: &str) -> Option<Value> {
    let mut body = example.clone();
    let (parent, name) = path.rsplit_once('/')?;
    let parent = parent.replace('*', "0");
    body.pointer_mut(&parent)?.as_object_mut()?.remove(name);
    Some(body)
}

impl Tree {
    fn note(&mut self, path: &str, form: Form) {
        let field = self.at_or_new(path);
        let is_better = match (&field.form, &form) {
            (None, _) | (Some(Form::Any | Form::Ignored), _) => true,
            (Some(Form::Object { is_there: false }), Form::Object { is_there }) => *is_there,
            (Some(Form::Objects { is_there, .. }), _) => !*is_there,
            (Some(_), _) => false,
        };
        if is_better {
            field.form = Some(form);
        }
    }

    fn at_or_new(&mut self, path: &str) -> &mut Field {
        let (first, rest) = split(path);
        let field = self.0.entry(first.to_owned()).or_default();
        match rest {
            "" => field,
            rest => field.below.at_or_new(rest),
        }
    }

    fn at(&mut self, path: &str) -> Option<&mut Field> {
        let (first, rest) = split(path);
        let field = self.0.get_mut(first)?;
        match rest {
            "" => Some(field),
            rest => field.below.at(rest),
        }
    }

    fn paths(&self, above: &str) -> Vec<String> {
        let mut paths = Vec::new();
        for (name, field) in &self.0 {
            let path = format!("{above}/{name}");
            paths.extend(field.below.paths(&path));
            if name != "*" {
                paths.push(path);
            }
        }
        paths
    }

    fn object(&self) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for (name, field) in &self.0 {
            properties.insert(name.clone(), field.schema());
            if field.is_required {
                required.push(name.as_str());
            }
        }
        let mut schema = json!({
            "type": "object", "properties": properties, "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }
}

fn split(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    match path.find('/') {
        Some(at) => (&path[..at], &path[at..]),
        None => (path, ""),
    }
}

impl Field {
    fn schema(&self) -> Value {
        let Some(form) = &self.form else {
            return json!({});
        };
        let mut schema = match form {
            Form::Any => return json!({}),
            Form::Ignored => return json!({"description": "Taken as it was shown; has no effect."}),
            Form::Boolean => json!({"type": "boolean"}),
            Form::Integer { min, max } => {
                json!({"type": "integer", "minimum": min, "maximum": max})
            }
            Form::Text { chars_max } => {
                json!({"type": "string", "maxLength": chars_max, "pattern": PLAIN})
            }
            Form::Lines { chars_max } => json!({"type": "string", "maxLength": chars_max}),
            Form::Parsed(wanted) => json!({
                "type": "string", "maxLength": 256, "pattern": PLAIN, "description": wanted,
            }),
            Form::Uuid => json!({"type": "string", "format": "uuid"}),
            Form::Words(words) => json!({"type": "string", "enum": words}),
            Form::Texts { chars_max } => json!({
                "type": "array", "maxItems": LIST_LEN_MAX,
                "items": {"type": "string", "maxLength": chars_max, "pattern": PLAIN},
            }),
            Form::Object { is_there } => {
                let mut schema = self.below.object();
                if !is_there {
                    schema["description"] = json!("No example has it.");
                }
                schema
            }
            Form::Objects { max, .. } => {
                let of = self
                    .below
                    .0
                    .get("*")
                    .map_or_else(|| json!({}), |of| of.below.object());
                json!({"type": "array", "maxItems": max, "items": of})
            }
        };
        if !self.is_required {
            // Null counts as absent.
            schema["type"] = json!([schema["type"], "null"]);
            if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
                words.push(Value::Null);
            }
        }
        schema
    }
}
