//! What bodies and answers of records look like.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::batch::CHANGES_MAX;
use crate::api::operation::{self, BOOLEAN, Body, COUNT, HEX_ID, Shape, TEXT, TIME, UUID, body};
use crate::model::record_draft::Draft;
use crate::model::setting::Settings;
use crate::model::zone::Zone;
use crate::model::{Fields, HexId, Refusal, Timestamp};

/// A record.
pub(super) const RECORD: Shape = Shape::Named(
    "Record",
    &Shape::Object(&[
        ("id", HEX_ID),
        ("zone_id", HEX_ID),
        ("zone_name", TEXT),
        ("name", TEXT),
        ("type", TEXT),
        ("content", TEXT),
        ("proxiable", BOOLEAN),
        ("proxied", BOOLEAN),
        ("ttl", Shape::Integer(1, 86_400)),
        ("settings", Shape::Map(&BOOLEAN)),
        ("meta", Shape::Object(&[])),
        ("comment", Shape::OrNull(&TEXT)),
        ("tags", Shape::List(&TEXT)),
        ("created_on", TIME),
        ("modified_on", TIME),
        ("priority", Shape::Maybe(&Shape::Integer(0, 65_535))),
        ("data", Shape::Maybe(&Shape::Map(&Shape::Any))),
        ("comment_modified_on", Shape::Maybe(&TIME)),
        ("tags_modified_on", Shape::Maybe(&TIME)),
        ("private_routing", Shape::Maybe(&BOOLEAN)),
        ("use_private_routing", Shape::Maybe(&BOOLEAN)),
        ("virtual_network_id", Shape::Maybe(&Shape::OrNull(&UUID))),
    ]),
);

/// What a batch did.
pub(super) const BATCHED: Shape = Shape::Object(&[
    ("deletes", Shape::List(&RECORD)),
    ("patches", Shape::List(&RECORD)),
    ("puts", Shape::List(&RECORD)),
    ("posts", Shape::List(&RECORD)),
]);

/// What an import did.
pub(super) const IMPORTED: Shape =
    Shape::Object(&[("recs_added", COUNT), ("total_records_parsed", COUNT)]);

/// How a list is chosen and ordered.
pub(super) const FILTERS: &[(&str, Shape)] = &[
    ("name", TEXT),
    ("name.exact", TEXT),
    ("name.contains", TEXT),
    ("name.startswith", TEXT),
    ("name.endswith", TEXT),
    ("content", TEXT),
    ("content.exact", TEXT),
    ("content.contains", TEXT),
    ("content.startswith", TEXT),
    ("content.endswith", TEXT),
    ("comment", TEXT),
    ("comment.exact", TEXT),
    ("comment.contains", TEXT),
    ("comment.startswith", TEXT),
    ("comment.endswith", TEXT),
    ("comment.present", TEXT),
    ("comment.absent", TEXT),
    ("tag", TEXT),
    ("tag.exact", TEXT),
    ("tag.contains", TEXT),
    ("tag.startswith", TEXT),
    ("tag.endswith", TEXT),
    ("tag.present", TEXT),
    ("tag.absent", TEXT),
    ("tag_match", Shape::Words(&["any", "all"])),
    ("type", TEXT),
    ("proxied", BOOLEAN),
    ("search", TEXT),
    ("match", Shape::Words(&["any", "all"])),
    (
        "order",
        Shape::Words(&["type", "name", "content", "ttl", "proxied"]),
    ),
    ("direction", Shape::Words(&["asc", "desc"])),
];

/// Reads a record of the zone `example.com`.
pub(super) fn read(fields: Fields) -> Result<(), Refusal> {
    let now = Timestamp::new(OffsetDateTime::UNIX_EPOCH);
    let zone = Zone {
        id: HexId::MIN,
        account_id: HexId::MIN,
        name: "example.com".to_owned(),
        paused: false,
        settings: Settings::default(),
        serial: 1,
        created_on: now,
        modified_on: now,
    };
    Draft::read(fields)?
        .create(HexId::MIN, &zone, now)
        .map(drop)
}

/// One of each way to say what a record is.
pub(super) fn examples() -> Vec<Value> {
    vec![
        json!({
            "name": "app.example.com", "type": "A", "content": "10.0.0.50", "ttl": 1,
            "proxied": true, "private_routing": true, "use_private_routing": true,
            "virtual_network_id": operation::VNET_ID, "comment": "Second floor",
            "tags": ["team:web"], "settings": {"ipv4_only": true, "ipv6_only": false},
        }),
        json!({
            "name": "_sip._tcp", "type": "SRV",
            "data": {"priority": 1, "weight": 5, "port": 5060, "target": "sip.example.com"},
        }),
        json!({"name": "@", "type": "MX", "content": "mx.example.com", "priority": 10, "ttl": 300}),
        json!({
            "name": "www", "type": "CNAME", "content": "app.example.com",
            "settings": {"flatten_cname": true},
        }),
    ]
}

/// Many changes at once.
pub(super) const BATCH: Body = Body::Other(|| {
    let list = |of: Value| json!({"type": ["array", "null"], "maxItems": CHANGES_MAX, "items": of});
    let named = json!({
        "type": "object",
        "properties": {"id": {"type": "string"}},
        "required": ["id"],
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "deletes": list(named),
            "patches": list(body::with_id(body::part(read, examples))),
            "puts": list(body::with_id(body::whole(read, examples))),
            "posts": list(body::whole(read, examples)),
        },
        "additionalProperties": false,
    });
    (
        schema,
        json!({"posts": [{"name": "mail", "type": "A", "content": "192.0.2.1"}]}),
    )
});

/// A BIND file.
pub(super) const FILE: Body = Body::Form(|| {
    json!({
        "type": "object",
        "properties": {
            "file": {"type": "string", "contentMediaType": "text/dns"},
            "proxied": {"type": "string", "enum": ["true", "false", ""]},
        },
        "required": ["file"],
        "additionalProperties": false,
    })
});
