//! What an answer looks like, written beside the function that makes it. Tests hold every answer to it.

use serde_json::{Map, Value, json};

/// The form of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// True or false.
    Boolean,
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// Any number.
    Number,
    /// Any text.
    Text,
    /// Text that matches a regular expression.
    Pattern(&'static str),
    /// Text in a format that JSON Schema has a name for.
    Format(&'static str),
    /// One of these words.
    Words(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// An object with these fields.
    Object(&'static [(&'static str, Shape)]),
    /// An object that has the fields of all of these.
    Both(&'static [&'static [(&'static str, Shape)]]),
    /// An object of any keys.
    Map(&'static Shape),
    /// The value, or null.
    OrNull(&'static Shape),
    /// A field that is not always there.
    Maybe(&'static Shape),
    /// One of these.
    Either(&'static [Shape]),
    /// A value that the document describes once, by this name.
    Named(&'static str, &'static Shape),
}

/// True or false.
pub(crate) const BOOLEAN: Shape = Shape::Boolean;
/// Any text.
pub(crate) const TEXT: Shape = Shape::Text;
/// Any number.
pub(crate) const NUMBER: Shape = Shape::Number;
/// A count.
pub(crate) const COUNT: Shape = Shape::Integer(0, i64::MAX);
/// An id of 32 hex digits.
pub(crate) const HEX_ID: Shape = Shape::Pattern("^[0-9a-f]{32}$");
/// An id with dashes.
pub(crate) const UUID: Shape = Shape::Format("uuid");
/// A time.
pub(crate) const TIME: Shape = Shape::Format("date-time");
/// A time, or null.
pub(crate) const TIME_OR_NULL: Shape = Shape::OrNull(&TIME);
/// An address.
pub(crate) const IP: Shape = Shape::Pattern("^[0-9a-f.:]{2,45}$");
/// An address with a length.
pub(crate) const PREFIX: Shape = Shape::Pattern("^[0-9a-f.:]{2,45}/[0-9]{1,3}$");

impl Shape {
    /// As JSON Schema; what has a name goes into `named`, once.
    pub(super) fn schema(&self, named: &mut Map<String, Value>) -> Value {
        match self {
            Shape::Any => json!({}),
            Shape::Boolean => json!({"type": "boolean"}),
            Shape::Integer(min, i64::MAX) => json!({"type": "integer", "minimum": min}),
            Shape::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
            Shape::Number => json!({"type": "number"}),
            Shape::Text => json!({"type": "string"}),
            Shape::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
            Shape::Format(format) => json!({"type": "string", "format": format}),
            Shape::Words(words) => json!({"type": "string", "enum": words}),
            Shape::List(of) => json!({"type": "array", "items": of.schema(named)}),
            Shape::Object(fields) => object(fields.iter(), named),
            Shape::Both(all) => object(all.iter().flat_map(|fields| fields.iter()), named),
            Shape::Map(of) => json!({"type": "object", "additionalProperties": of.schema(named)}),
            Shape::OrNull(of) => json!({"anyOf": [of.schema(named), {"type": "null"}]}),
            Shape::Maybe(of) => of.schema(named),
            Shape::Either(all) => {
                let all: Vec<Value> = all.iter().map(|one| one.schema(named)).collect();
                json!({"anyOf": all})
            }
            Shape::Named(name, of) => {
                if !named.contains_key(*name) {
                    let schema = of.schema(named);
                    named.insert((*name).to_owned(), schema);
                }
                json!({"$ref": format!("#/components/schemas/{name}")})
            }
        }
    }
}

fn object<'a>(
    fields: impl Iterator<Item = &'a (&'static str, Shape)>,
    named: &mut Map<String, Value>,
) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, shape) in fields {
        properties.insert((*name).to_owned(), shape.schema(named));
        if !matches!(shape, Shape::Maybe(_)) {
            required.push(*name);
        }
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}
