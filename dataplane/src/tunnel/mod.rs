//! Tunnels: one face for every kind.
//!
//! In: inner packets to encapsulate, datagrams to decapsulate, the time. Out: datagrams, inner packets,
//! the next timeout. State: one worker owns a tunnel and its sessions.

pub mod wireguard;

use serde::{Deserialize, Serialize};

/// The kinds of tunnel, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    /// A WireGuard peer.
    WireGuard(wireguard::Config),
}
