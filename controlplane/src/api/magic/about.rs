//! What bodies and answers of `magic` look like.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::super::operation::{
    BOOLEAN, Body, COUNT, Examples, HEX_ID, IP, PREFIX, Read, Shape, TEXT, TIME, TIME_OR_NULL,
    UUID, VNET_ID,
};
use super::super::tunnels::{HEALTH, HEALTH_CHECK, STATUS, TEXT_OR_NULL, TRAFFIC, with_shared};
use super::collection::{Asked, Collection};
use crate::model::tunnel::TargetForm;
use crate::model::{Fields, HexId, Refusal, Timestamp};

/// Whether a write is only tried.
pub(super) const REHEARSAL: &[(&str, Shape)] = &[("validate_only", BOOLEAN)];

/// What is said of one collection.
pub(super) struct About {
    /// Reads a new tunnel.
    pub(super) read: Read,
    /// New tunnels.
    pub(super) examples: Examples,
    /// The answers.
    pub(super) listed: Shape,
    pub(super) made: Shape,
    pub(super) shown: Shape,
    pub(super) changed: Shape,
    pub(super) changed_all: Shape,
    pub(super) gone: Shape,
}

type Properties = &'static [(&'static str, Shape)];

/// An id, or null when the tunnel was only tried.
const SHOWN: Properties = &[
    ("id", Shape::OrNull(&HEX_ID)),
    ("name", TEXT),
    ("description", TEXT),
    ("interface_address", Shape::OrNull(&PREFIX)),
    ("interface_address6", Shape::OrNull(&PREFIX)),
    ("customer_interface_address", Shape::OrNull(&IP)),
    ("customer_interface_address6", Shape::OrNull(&IP)),
    ("mtu", COUNT),
    ("automatic_return_routing", BOOLEAN),
    ("virtual_network_id", UUID),
    ("allowed_prefixes", Shape::List(&PREFIX)),
    ("tun_type", Shape::Words(&["gre", "ip_sec", "cni"])),
    ("status", STATUS),
    ("health", HEALTH),
    ("rejected", TEXT_OR_NULL),
    ("traffic", TRAFFIC),
    ("created_on", TIME),
    ("modified_on", TIME),
    ("health_check", HEALTH_CHECK),
];

const GRE_ONLY: Properties = &[
    ("cloudflare_gre_endpoint", IP),
    ("customer_gre_endpoint", IP),
    ("ttl", Shape::Integer(1, 255)),
    ("key_tx", Shape::OrNull(&COUNT)),
    ("key_rx", Shape::OrNull(&COUNT)),
    ("checksum", BOOLEAN),
    ("sequence", BOOLEAN),
    (
        "keepalive",
        Shape::OrNull(&Shape::Object(&[
            ("interval_secs", COUNT),
            ("retries", COUNT),
        ])),
    ),
];

const IPSEC_ONLY: Properties = &[
    ("cloudflare_endpoint", IP),
    ("customer_endpoint", TEXT),
    ("allow_null_cipher", BOOLEAN),
    ("replay_protection", BOOLEAN),
    (
        "psk_metadata",
        Shape::Object(&[("last_generated_on", TIME_OR_NULL)]),
    ),
    (
        "custom_remote_identities",
        Shape::Object(&[("fqdn_id", TEXT)]),
    ),
    ("ike_identities", Shape::Map(&TEXT_OR_NULL)),
    ("role", Shape::Words(&["responder", "initiator"])),
    ("encapsulation", Shape::Words(&["auto", "udp"])),
    (
        "ike",
        Shape::Object(&[
            ("ciphers", Shape::List(&TEXT)),
            ("prfs", Shape::List(&TEXT)),
            ("groups", Shape::List(&TEXT)),
            ("lifetime_secs", COUNT),
            ("dpd_secs", COUNT),
        ]),
    ),
    (
        "esp",
        Shape::Object(&[
            ("ciphers", Shape::List(&TEXT)),
            ("groups", Shape::List(&TEXT)),
            ("esn", BOOLEAN),
            ("lifetime_secs", COUNT),
        ]),
    ),
    ("ipsec_status", Shape::OrNull(&Shape::Map(&Shape::Any))),
];

const DEVICE_ONLY: Properties = &[
    ("device", TEXT),
    ("vlan", Shape::OrNull(&Shape::Integer(1, 4_094))),
];

const GRE: Shape = Shape::Named("GreTunnel", &Shape::Both(&[SHOWN, GRE_ONLY]));
const IPSEC: Shape = Shape::Named("IpsecTunnel", &Shape::Both(&[SHOWN, IPSEC_ONLY]));
const DEVICE: Shape = Shape::Named("Interconnect", &Shape::Both(&[SHOWN, DEVICE_ONLY]));

/// What is said of a collection: the answers' keys are the product's (api.md 4.1).
pub(super) fn of(collection: Collection) -> About {
    match collection {
        Collection::Gre => About {
            read: |fields| read(Collection::Gre, fields),
            examples: gre_examples,
            listed: Shape::Object(&[("gre_tunnels", Shape::List(&GRE))]),
            made: Shape::Both(&[SHOWN, GRE_ONLY, &[("gre_tunnels", Shape::List(&GRE))]]),
            shown: Shape::Object(&[("gre_tunnel", GRE)]),
            changed: Shape::Object(&[("modified", BOOLEAN), ("modified_gre_tunnel", GRE)]),
            changed_all: Shape::Object(&[
                ("modified", BOOLEAN),
                ("modified_gre_tunnels", Shape::List(&GRE)),
            ]),
            gone: Shape::Object(&[("deleted", BOOLEAN), ("deleted_gre_tunnel", GRE)]),
        },
        Collection::Ipsec => About {
            read: |fields| read(Collection::Ipsec, fields),
            examples: ipsec_examples,
            listed: Shape::Object(&[("ipsec_tunnels", Shape::List(&IPSEC))]),
            made: Shape::Both(&[SHOWN, IPSEC_ONLY, &[("ipsec_tunnels", Shape::List(&IPSEC))]]),
            shown: Shape::Object(&[("ipsec_tunnel", IPSEC)]),
            changed: Shape::Object(&[("modified", BOOLEAN), ("modified_ipsec_tunnel", IPSEC)]),
            changed_all: Shape::Object(&[
                ("modified", BOOLEAN),
                ("modified_ipsec_tunnels", Shape::List(&IPSEC)),
            ]),
            gone: Shape::Object(&[("deleted", BOOLEAN), ("deleted_ipsec_tunnel", IPSEC)]),
        },
        Collection::Interconnects => About {
            read: |fields| read(Collection::Interconnects, fields),
            examples: device_examples,
            listed: Shape::Object(&[("interconnects", Shape::List(&DEVICE))]),
            made: Shape::Both(&[
                SHOWN,
                DEVICE_ONLY,
                &[("interconnects", Shape::List(&DEVICE))],
            ]),
            shown: Shape::Object(&[("interconnect", DEVICE)]),
            changed: Shape::Object(&[("modified", BOOLEAN), ("modified_interconnect", DEVICE)]),
            changed_all: Shape::Object(&[
                ("modified", BOOLEAN),
                ("modified_interconnects", Shape::List(&DEVICE)),
            ]),
            gone: Shape::Object(&[("deleted", BOOLEAN), ("deleted_interconnect", DEVICE)]),
        },
    }
}

fn read(collection: Collection, fields: Fields) -> Result<(), Refusal> {
    let asked = Asked {
        account: HexId::MIN,
        now: Timestamp::new(OffsetDateTime::UNIX_EPOCH),
        form: TargetForm::Text,
    };
    collection.read_fields(fields, None, asked).map(drop)
}

fn gre_examples() -> Vec<Value> {
    vec![with_shared(
        2,
        json!({
            "name": "gre-1", "cloudflare_gre_endpoint": "198.51.100.1",
            "customer_gre_endpoint": "198.51.100.31", "interface_address": "10.255.9.0/31",
            "ttl": 64, "key_tx": 7, "key_rx": 7, "checksum": false, "sequence": false,
            "keepalive": {"interval_secs": 10, "retries": 3},
        }),
    )]
}

fn ipsec_examples() -> Vec<Value> {
    vec![with_shared(
        3,
        json!({
            "name": "ipsec-1", "cloudflare_endpoint": "198.51.100.1",
            "customer_endpoint": "198.51.100.32", "interface_address": "10.255.10.0/31",
            "psk": "correct horse battery staple", "replay_protection": true,
            "allow_null_cipher": false, "custom_remote_identities": {"fqdn_id": ""},
            "role": "responder", "encapsulation": "auto",
            "ike": {
                "ciphers": ["aes256gcm16"], "prfs": ["prfsha256"], "groups": ["x25519"],
                "lifetime_secs": 14_400, "dpd_secs": 30,
            },
            "esp": {
                "ciphers": ["aes128gcm16"], "groups": ["x25519"], "esn": false,
                "lifetime_secs": 3_600,
            },
        }),
    )]
}

fn device_examples() -> Vec<Value> {
    vec![with_shared(
        4,
        json!({
            "name": "cni-1", "device": "cni0", "interface_address": "10.255.11.0/31", "gre": {},
        }),
    )]
}

const ROUTE_FIELDS: Properties = &[
    ("id", Shape::OrNull(&HEX_ID)),
    ("prefix", PREFIX),
    ("nexthop", IP),
    ("priority", COUNT),
    ("weight", Shape::Integer(0, 256)),
    ("description", TEXT),
    ("scope", Shape::Object(&[])),
    ("virtual_network_id", UUID),
    ("tunnel_id", HEX_ID),
    ("tunnel_name", TEXT_OR_NULL),
    ("tun_type", TEXT_OR_NULL),
    ("created_on", TIME),
    ("modified_on", TIME),
];

const ROUTE: Shape = Shape::Named("StaticRoute", &Shape::Object(ROUTE_FIELDS));

/// Static routes in answers, by what was asked.
pub(super) const ROUTES: Shape = Shape::Object(&[("routes", Shape::List(&ROUTE))]);
pub(super) const ONE_ROUTE: Shape = Shape::Object(&[("route", ROUTE)]);
pub(super) const MADE_ROUTE: Shape =
    Shape::Both(&[ROUTE_FIELDS, &[("routes", Shape::List(&ROUTE))]]);
pub(super) const CHANGED_ROUTE: Shape =
    Shape::Object(&[("modified", BOOLEAN), ("modified_route", ROUTE)]);
pub(super) const CHANGED_ROUTES: Shape = Shape::Object(&[
    ("modified", BOOLEAN),
    ("modified_routes", Shape::List(&ROUTE)),
]);
pub(super) const GONE_ROUTE: Shape =
    Shape::Object(&[("deleted", BOOLEAN), ("deleted_route", ROUTE)]);
pub(super) const GONE_ROUTES: Shape = Shape::Object(&[
    ("deleted", BOOLEAN),
    ("deleted_routes", Shape::List(&ROUTE)),
]);

/// New static routes.
pub(super) fn route_examples() -> Vec<Value> {
    vec![json!({
        "prefix": "10.30.0.0/16", "nexthop": "10.255.0.1", "priority": 100, "weight": 10,
        "description": "Second floor", "virtual_network_id": VNET_ID,
        "scope": {"colo_names": [], "colo_regions": []},
    })]
}

/// Which static routes are deleted.
pub(super) const NAMED_ROUTES: Body = Body::Other(|| {
    let schema = json!({
        "type": "object",
        "properties": {"routes": list_of_ids()},
        "additionalProperties": false,
    });
    (schema, json!({"routes": []}))
});

fn list_of_ids() -> Value {
    let one = json!({
        "type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"],
    });
    json!({"type": "array", "maxItems": 1_000, "items": one})
}

/// Keys for tunnels.
pub(super) const PSKS: Body = Body::Other(|| {
    let one = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "psk": {"description": "What is no key is answered among the unapplied, with the reason."},
        },
        "required": ["id"],
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "psks": {"type": "array", "maxItems": 1_000, "items": one},
            "validate_only": {"type": ["boolean", "null"]},
        },
        "required": ["psks"],
        "additionalProperties": false,
    });
    (schema, json!({"psks": []}))
});

const PSK_FIELDS: Properties = &[
    ("ipsec_id", TEXT_OR_NULL),
    ("ipsec_tunnel_id", HEX_ID),
    ("psk", TEXT),
    (
        "psk_metadata",
        Shape::Object(&[("last_generated_on", TIME)]),
    ),
];

/// A key that was made or given: shown once.
pub(super) const MADE_PSK: Shape = Shape::Named("Psk", &Shape::Object(PSK_FIELDS));

/// Keys that were given.
pub(super) const SET_PSKS: Shape = Shape::Object(&[
    ("successfully_applied_psks", Shape::Map(&MADE_PSK)),
    ("unapplied_psks", Shape::Map(&TEXT)),
]);
