//! Tunnels: one face for every kind.
//!
//! In: inner packets to encapsulate, datagrams to decapsulate, the time. Out: datagrams, inner packets,
//! events, the next timeout. State: one worker owns a tunnel and its sessions.
//!
//! One impurity: boringtun reads the system's clock for its own timers. The `now` that callers pass
//! decides when those timers are looked at, the limits on handshakes, and what is shown.

pub mod bucket;
pub mod direct;
mod face;
pub mod gre;
pub mod ipsec;
pub mod wireguard;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::TunnelId;

pub use face::{Handle, Tunnels};

/// The kinds of tunnel, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    /// A WireGuard peer.
    WireGuard(wireguard::Config),
    /// A device, and no encapsulation.
    Direct(direct::Config),
    /// A GRE tunnel.
    Gre(gre::Config),
}

/// Why a tunnel cannot be made as configured: a sentence that names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// Of a WireGuard peer.
    #[error(transparent)]
    WireGuard(#[from] wireguard::PutError),
    /// Of a GRE tunnel.
    #[error(transparent)]
    Gre(#[from] gre::PutError),
}

impl Config {
    /// The kind as shown to people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WireGuard(_) => "wireguard",
            Self::Direct(_) => "direct",
            Self::Gre(_) => "gre",
        }
    }
}

/// The longest datagram that is handled: the largest tunnel MTU (9000) with its encapsulation.
/// Buffers given to [`Tunnels`] are at least this long.
pub const DATAGRAM_LEN_MAX: usize = 9216;

/// Why a tunnel did not take a packet or a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No message of a tunnel protocol: too short, wrong type, wrong length.
    Malformed,
    /// A datagram longer than [`DATAGRAM_LEN_MAX`].
    Oversized,
    /// A receiver index without a session.
    IndexUnknown,
    /// A counter or a timestamp that came before, or too late.
    Replay,
    /// It did not authenticate.
    Invalid,
    /// Authentic, but no IP packet inside.
    NotIp,
    /// More handshake messages from one source than it may send.
    HandshakeLimited,
    /// A handshake under load; its sender was given a cookie to prove its address with.
    CookieSent,
    /// A handshake for none of our identities.
    UnknownIdentity,
    /// A handshake of a peer that is not configured.
    UnknownPeer,
    /// Nobody knows where the peer is.
    NoEndpoint,
    /// Too many packets wait for a session.
    QueueFull,
    /// The outbox is full.
    OutboxFull,
    /// A GRE packet between addresses, or with a key, that name no tunnel.
    NameUnknown,
    /// A GRE packet whose checksum is wrong, or missing where it must be.
    Checksum,
}

/// What came out of a datagram that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decap {
    /// A message between the tunnel's two ends; nothing is left to do.
    Control,
    /// An inner packet: the first `len` bytes of the caller's buffer. It begins like an IP packet
    /// and is as long as its header says; nothing else about it has been checked.
    Inner {
        /// The tunnel that it came out of.
        tunnel: TunnelId,
        /// Its length in bytes.
        len: usize,
    },
    /// For another worker's tunnel: that worker is to be given the datagram. A handshake initiation
    /// has passed the gate.
    Elsewhere {
        /// The tunnel.
        tunnel: TunnelId,
    },
}

/// Something that its driver may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer was heard, authentically, from a new address. Whoever keeps it can give it back
    /// after a restart, so that the tunnel is there again before the peer notices.
    EndpointChanged {
        /// The tunnel.
        tunnel: TunnelId,
        /// Where its peer is.
        endpoint: SocketAddr,
    },
}

/// What a tunnel shows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Where datagrams go.
    pub endpoint: Option<SocketAddr>,
    /// Time since the last completed handshake; `None` before the first.
    pub since_handshake: Option<Duration>,
    /// Whether there is a session that can carry packets.
    pub is_up: bool,
}
