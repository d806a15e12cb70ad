//! What bodies and answers of tunnels look like.

use serde_json::{Value, json};

use crate::api::operation::{
    self, BOOLEAN, COUNT, HEX_ID, NUMBER, PREFIX, Shape, TEXT, TIME, TIME_OR_NULL, UUID,
};

/// A text, or null.
pub(in crate::api) const TEXT_OR_NULL: Shape = Shape::OrNull(&TEXT);

/// What probes say of a tunnel.
pub(in crate::api) const HEALTH: Shape = Shape::OrNull(&Shape::Named(
    "TunnelHealth",
    &Shape::Object(&[
        ("state", TEXT),
        ("since", TIME),
        ("probes_sent", COUNT),
        ("probes_lost", COUNT),
        ("loss_percent", NUMBER),
        ("rtt_us", Shape::OrNull(&COUNT)),
        (
            "history",
            Shape::List(&Shape::Object(&[
                ("at", TIME),
                ("from", TEXT),
                ("to", TEXT),
                ("reason", TEXT),
            ])),
        ),
    ]),
));

/// What went through a tunnel.
pub(in crate::api) const TRAFFIC: Shape = Shape::Named("TunnelTraffic", &Shape::Object(COUNTERS));

const COUNTERS: &[(&str, Shape)] = &[
    ("tx_packets", COUNT),
    ("tx_bytes", COUNT),
    ("rx_packets", COUNT),
    ("rx_bytes", COUNT),
    ("dropped_packets", COUNT),
];

/// The product's words for how a tunnel is.
pub(in crate::api) const STATUS: Shape = Shape::Words(&["inactive", "degraded", "healthy", "down"]);

/// How a tunnel is probed.
pub(in crate::api) const HEALTH_CHECK: Shape = Shape::Named(
    "HealthCheck",
    &Shape::Object(&[
        ("enabled", BOOLEAN),
        ("rate", Shape::Words(&["low", "mid", "high"])),
        ("type", Shape::Words(&["request", "reply"])),
        (
            "direction",
            Shape::Words(&["unidirectional", "bidirectional"]),
        ),
        (
            "target",
            Shape::Either(&[
                TEXT,
                Shape::Object(&[("saved", TEXT), ("effective", TEXT_OR_NULL)]),
            ]),
        ),
        (
            "recovery",
            Shape::Object(&[
                ("up_after", COUNT),
                ("clean_secs", COUNT),
                ("clean_secs_max", COUNT),
            ]),
        ),
    ]),
);

/// What the product shows of any tunnel.
const COMMON: &[(&str, Shape)] = &[
    ("id", UUID),
    ("account_tag", HEX_ID),
    ("name", TEXT),
    (
        "tun_type",
        Shape::Words(&["wireguard", "gre", "ip_sec", "cni"]),
    ),
    ("status", STATUS),
    ("rejected", TEXT_OR_NULL),
    ("connections", Shape::List(&Shape::Any)),
    ("virtual_network_id", UUID),
    ("health", HEALTH),
    ("created_at", TIME),
    ("deleted_at", TIME_OR_NULL),
];

const WIREGUARD_ONLY: &[(&str, Shape)] = &[
    ("description", TEXT),
    ("interface_address", Shape::OrNull(&PREFIX)),
    ("interface_address6", Shape::OrNull(&PREFIX)),
    ("health_check", Shape::OrNull(&HEALTH_CHECK)),
    ("public_key", TEXT_OR_NULL),
    ("peer_public_key", TEXT),
    ("has_preshared_key", BOOLEAN),
    ("endpoint", TEXT_OR_NULL),
    ("current_endpoint", TEXT_OR_NULL),
    ("allowed_prefixes", Shape::List(&PREFIX)),
    ("mtu", COUNT),
    ("persistent_keepalive", COUNT),
    ("last_handshake", TIME_OR_NULL),
    ("peer_private_key", Shape::Maybe(&TEXT)),
    ("preshared_key", Shape::Maybe(&TEXT)),
    ("config", Shape::Maybe(&TEXT)),
];

/// A WireGuard tunnel.
pub(super) const WIREGUARD: Shape = Shape::Named(
    "WireGuardTunnel",
    &Shape::Both(&[COMMON, WIREGUARD_ONLY, COUNTERS]),
);

/// A tunnel of any kind.
pub(super) const ANY: Shape = Shape::Either(&[
    WIREGUARD,
    Shape::Named("Tunnel", &Shape::Both(&[COMMON, &[("traffic", TRAFFIC)]])),
]);

/// How lists of tunnels are chosen.
pub(super) const FILTERS: &[(&str, Shape)] = &[
    ("is_deleted", BOOLEAN),
    ("uuid", UUID),
    ("tun_types", TEXT),
    ("name", TEXT),
    ("include_prefix", TEXT),
    ("exclude_prefix", TEXT),
    ("status", TEXT),
];

/// What the examples of all kinds have in common, but for prefixes and links: those are the `number`th.
pub(in crate::api) fn with_shared(number: u8, mut example: Value) -> Value {
    let shared = json!({
        "description": "Second floor", "virtual_network_id": operation::VNET_ID,
        "allowed_prefixes": [format!("10.99.{number}.0/24")], "mtu": 1400, "automatic_return_routing": false,
        "bgp": {}, "interface_address6": format!("fd00:0:0:{number}::/127"),
        "health_check": {
            "enabled": true, "rate": "mid", "type": "reply", "direction": "bidirectional",
            "target": format!("10.99.{number}.1"),
            "recovery": {"up_after": 3, "clean_secs": 30, "clean_secs_max": 300},
        },
    });
    if let (Some(example), Value::Object(shared)) = (example.as_object_mut(), shared) {
        example.extend(shared);
    }
    example
}

/// A peer with keys of its own, and one whose keys are made here.
pub(super) fn examples() -> Vec<Value> {
    vec![
        with_shared(
            1,
            json!({
                "name": "office", "interface_address": "10.255.8.0/31",
                "peer_public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
                "preshared_key": "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=",
                "endpoint": "198.51.100.11:51820", "persistent_keepalive": 25,
            }),
        ),
        json!({"name": "branch", "generate_peer_key": true, "generate_preshared_key": true}),
    ]
}
