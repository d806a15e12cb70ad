//! What can be seen of a tunnel from outside.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::id::{TunnelId, VnetId};
use crate::tunnel::{KINDS, KindName, ipsec};

use super::HealthStatus;

/// A tunnel as `show tunnels` and the API present it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// Which tunnel.
    pub id: TunnelId,
    /// Its only vnet.
    pub vnet: VnetId,
    /// The customer's name for it.
    pub name: String,
    /// The kind: `wireguard`, `direct` or `ipsec`.
    #[serde(deserialize_with = "kind")]
    pub kind: KindName,
    /// Where datagrams go: as configured until the peer has been heard, then where it was heard last.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last completed handshake; `None` before the first.
    pub last_handshake_secs: Option<u64>,
    /// Whether there is a session that can carry packets now (REJECT_AFTER_TIME, 180 s).
    pub is_up: bool,
    /// The longest inner packet: as configured, or less where a router of the path has said so.
    #[serde(default)]
    pub mtu: u16,
    /// Inner packets that went into the tunnel.
    pub tx_packets: u64,
    /// Bytes of inner packets that went into the tunnel.
    pub tx_bytes: u64,
    /// Inner packets that came out and passed the source check.
    pub rx_packets: u64,
    /// Bytes of inner packets that came out and passed the source check.
    pub rx_bytes: u64,
    /// Packets of this tunnel that were dropped, either way.
    pub dropped_packets: u64,
    /// The SAs of an IPsec tunnel, and why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipsec: Option<ipsec::Status>,
    /// What probes say of it; `None` when it is not probed.
    pub health: Option<HealthStatus>,
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KindName, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut known = KINDS.into_iter();
    let found = known.find(|kind| *kind == text);
    found.ok_or_else(|| de::Error::unknown_variant(&text, &KINDS))
}
