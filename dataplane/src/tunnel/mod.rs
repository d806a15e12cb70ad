//! Tunnels: one face for every kind.
//!
//! In: inner packets to encapsulate, datagrams to decapsulate, the time. Out: datagrams, inner packets,
//! events, the next timeout. State: one worker owns a tunnel and its sessions.
//!
//! Two impurities: ring draws the randomness of IKE from the system itself, and boringtun reads the system's clock for its own timers. The `now` that callers pass
//! decides when those timers are looked at, the limits on handshakes, and what is shown.

pub mod bucket;
pub mod direct;
mod face;
pub mod gre;
pub mod ipsec;
pub mod wireguard;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{TunnelId, WorkerId, Workers};

pub use face::{Handle, PutError, Tunnels};

/// A kind of tunnel, as shown to people.
pub type KindName = &'static str;

/// All of them.
pub const KINDS: [KindName; 4] = ["wireguard", "direct", "ipsec", "gre"];

/// The kinds of tunnel, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    /// A WireGuard peer.
    WireGuard(wireguard::Config),
    /// A device, and no encapsulation.
    Direct(direct::Config),
    /// IPsec: ESP in tunnel mode, with IKEv2 or static keys.
    #[serde(rename = "ipsec")]
    IpSec(ipsec::Config),
    /// A GRE tunnel.
    Gre(gre::Config),
}

impl Config {
    /// The kind as shown to people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WireGuard(_) => "wireguard",
            Self::Direct(_) => "direct",
            Self::IpSec(_) => "ipsec",
            Self::Gre(_) => "gre",
        }
    }

    /// The outer addresses, ours and the peer's, of kinds that have one of ours.
    #[must_use]
    pub fn outer(&self) -> Option<(IpAddr, Option<IpAddr>)> {
        match self {
            Self::WireGuard(_) | Self::Direct(_) => None,
            Self::IpSec(config) => Some((config.local, config.remote)),
            Self::Gre(config) => Some((config.local, Some(config.remote))),
        }
    }

    /// The worker that owns such a tunnel: by its number, and of IPsec by where the peer is.
    #[must_use]
    pub fn owner(&self, tunnel: TunnelId, workers: Workers) -> WorkerId {
        match self {
            Self::WireGuard(_) | Self::Direct(_) | Self::Gre(_) => workers.owner(tunnel),
            Self::IpSec(config) => config.owner(workers),
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
    /// An ESP packet with padding that it must not have.
    Padding,
    /// An ESP packet whose sender has nothing to say.
    Dummy,
    /// An SA at the end of its life.
    Expired,
    /// No SA is up.
    NoSa,
    /// An inner packet that its SA does not carry, or that none does.
    OutsideSelectors,
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
