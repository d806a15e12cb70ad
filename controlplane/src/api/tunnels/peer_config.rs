//! The peer's side of a tunnel in the form that `wg-quick` reads.

use std::fmt::Write as _;

use dataplane::source::{RANGE_V6, Range};
use dataplane::tunnel::wireguard::{PresharedKey, PrivateKey, PublicKey};

use crate::model::tunnel::{Tunnel, WireGuard};

/// Seconds between the peer's keepalives: under the usual 30 s that NATs keep a UDP mapping.
const KEEPALIVE_SECS: u16 = 25;

/// What the text is made of.
pub(super) struct Parts<'a> {
    /// The tunnel, and what only WireGuard has.
    pub(super) tunnel: (&'a Tunnel, &'a WireGuard),
    /// Where the peer sees packets from, and routes back into the tunnel.
    pub(super) range: Range,
    /// The edge's public key.
    pub(super) edge: Option<PublicKey>,
    /// Where the edge listens.
    pub(super) endpoint: Option<&'a str>,
    /// The peer's private key, when it was made for this request.
    pub(super) peer: Option<&'a PrivateKey>,
    /// The preshared key, when it was made for this request.
    pub(super) preshared: Option<&'a PresharedKey>,
}

/// The configuration. What is not known here stands as a comment that says what to fill in.
pub(super) fn text(parts: &Parts<'_>) -> String {
    let mut text = String::new();
    let (tunnel, wireguard) = parts.tunnel;
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a String takes any text");
        text.push('\n');
    };
    line(format_args!("# {}", tunnel.name));
    line(format_args!("[Interface]"));
    match parts.peer {
        Some(key) => line(format_args!("PrivateKey = {}", key.to_base64())),
        None => line(format_args!(
            "# PrivateKey = the private half of {}",
            wireguard.peer_public_key.to_base64()
        )),
    }
    line(format_args!("MTU = {}", tunnel.mtu));
    if let Some(endpoint) = wireguard.endpoint {
        line(format_args!("ListenPort = {}", endpoint.port()));
    }
    line(format_args!(""));
    line(format_args!("[Peer]"));
    match parts.edge {
        Some(key) => line(format_args!("PublicKey = {}", key.to_base64())),
        None => line(format_args!("# PublicKey = the edge's public key")),
    }
    match (parts.preshared, wireguard.preshared_key) {
        (Some(key), _) => line(format_args!("PresharedKey = {}", key.to_base64())),
        (None, Some(_)) => line(format_args!(
            "# PresharedKey = the preshared key of this tunnel"
        )),
        (None, None) => {}
    }
    let range = parts.range.net();
    line(format_args!("AllowedIPs = {range}, {RANGE_V6}"));
    match parts.endpoint {
        Some(endpoint) => line(format_args!("Endpoint = {endpoint}")),
        None => line(format_args!(
            "# Endpoint = the edge's address and WireGuard port"
        )),
    }
    line(format_args!("PersistentKeepalive = {KEEPALIVE_SECS}"));
    text
}
