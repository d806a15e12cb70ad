//! What an IKE endpoint tells its driver, and why things failed, in words for people.

use std::fmt;
use std::net::SocketAddr;

use crate::id::TunnelId;
use crate::packet::{Carrier, Way};
use crate::tunnel::ipsec::lifetime::Lifetime;
use crate::tunnel::ipsec::sa::Keys;
use crate::wire::esp::Spi;
use crate::wire::ikev2::payload::Selector;

use super::context::{PORT, PORT_SHARED};

/// The two ends of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

impl Path {
    /// The ends of a message that came by a way; `None` without our address.
    #[must_use]
    pub fn of(way: Way) -> Option<Self> {
        let port = if way.carrier == Carrier::Ike {
            PORT
        } else {
            PORT_SHARED
        };
        Some(Self {
            local: SocketAddr::new(way.local?, port),
            remote: way.remote,
        })
    }

    /// The way of a message to the peer.
    #[must_use]
    pub fn way(self) -> Way {
        let carrier = if self.local.port() == PORT {
            Carrier::Ike
        } else {
            Carrier::NatT
        };
        Way::udp(carrier, self.local.ip(), self.remote)
    }
}

/// A datagram to send: a UDP payload, with the non-ESP marker where it needs one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From where and where to.
    pub path: Path,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// A child SA that came up. Its inbound half is in the endpoint's SAD already.
#[derive(Clone, Debug)]
pub struct ChildUp {
    /// The tunnel.
    pub tunnel: TunnelId,
    /// Its name: the SPI that we receive on.
    pub spi_in: Spi,
    /// What the outbound half is made from.
    pub outbound: Keys,
    /// Its lifetime. When the outbound half is due, tell the endpoint (`rekey_child`).
    pub lifetime: Lifetime,
    /// What it carries of our side.
    pub local_ts: Vec<Selector>,
    /// What it carries of the peer's side.
    pub remote_ts: Vec<Selector>,
    /// Where packets go.
    pub path: Path,
    /// Whether they go in UDP; as protocol 50 otherwise.
    pub is_in_udp: bool,
    /// Whether it is to be used from here on. If not, [`Event::Send`] says when.
    pub sends: bool,
}

/// Something that happened to a tunnel.
#[derive(Clone, Debug)]
pub enum Event {
    /// The peer proved who it is.
    Up {
        /// The tunnel.
        tunnel: TunnelId,
        /// Where the peer is.
        path: Path,
    },
    /// A child SA came up.
    ChildUp(Box<ChildUp>),
    /// Packets go out by this child from here on, instead of the one that it replaces if it is a
    /// successor. What of several children a packet takes is the driver's choice, by selectors.
    Send {
        /// The tunnel.
        tunnel: TunnelId,
        /// The child.
        spi_in: Spi,
    },
    /// A child is gone; nothing may be sent by it.
    ChildDown {
        /// The tunnel.
        tunnel: TunnelId,
        /// The child.
        spi_in: Spi,
    },
    /// The peer, which is behind a NAT, has another address.
    Moved {
        /// The tunnel.
        tunnel: TunnelId,
        /// Where it is.
        path: Path,
    },
    /// An IKE SA of the tunnel is gone, with its children.
    Down {
        /// The tunnel.
        tunnel: TunnelId,
        /// Why.
        failure: Failure,
    },
    /// An attempt failed.
    Failed {
        /// The tunnel, when it is known.
        tunnel: Option<TunnelId>,
        /// Where the peer is.
        remote: SocketAddr,
        /// Why.
        failure: Failure,
    },
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing that both sides accept.
    NoProposal {
        /// For what: "IKE" or "ESP".
        what: &'static str,
        /// What we offer or accept.
        ours: String,
        /// What the peer offered, when it said.
        theirs: Option<String>,
    },
    /// The peer's proof does not fit our key.
    WrongPsk {
        /// Who it says it is.
        peer: String,
    },
    /// The peer refused our proof.
    PskRefused,
    /// Nobody is configured with the identity that the peer gave.
    UnknownPeer {
        /// That identity.
        peer: String,
    },
    /// The peer is another one than is configured.
    WrongIdentity {
        /// Who it says it is.
        peer: String,
    },
    /// The peer comes from another address than is configured.
    WrongAddress {
        /// Who it says it is.
        peer: String,
        /// Where it should be.
        configured: std::net::IpAddr,
    },
    /// No traffic that both sides want to carry.
    NoTraffic,
    /// The peer does not answer.
    Unreachable,
    /// The peer sent an error.
    Refused(u16),
    /// The peer sent what cannot be.
    Protocol(&'static str),
    /// The peer closed the SA.
    ClosedByPeer,
    /// The peer began anew.
    Replaced,
    /// The tunnel was deleted or changed.
    Deleted,
    /// Out of SPIs or randomness.
    Exhausted,
}

impl Failure {
    /// What may be shown on a tunnel whose peer this may have been: nothing that somebody said who may
    /// be another tunnel's.
    #[must_use]
    pub fn of_nobody(&self) -> String {
        if matches!(self, Self::UnknownPeer { .. }) {
            return "a peer came from where this tunnel's may be, with an identity that no tunnel's peer \
                    has"
            .to_owned();
        }
        self.to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProposal { what, ours, theirs } => {
                write!(f, "no common {what} proposal: we accept {ours}; ")?;
                match theirs {
                    Some(theirs) => write!(f, "the peer offered {theirs}"),
                    None => {
                        f.write_str("the peer accepts none of that, and does not say what else")
                    }
                }
            }
            Self::WrongPsk { peer } => {
                write!(
                    f,
                    "{peer} has another pre-shared key than is configured here"
                )
            }
            Self::PskRefused => f.write_str(
                "the peer refused us: its pre-shared key or the identities differ from ours",
            ),
            Self::UnknownPeer { peer } => write!(f, "no tunnel has a peer with identity {peer}"),
            Self::WrongIdentity { peer } => {
                write!(f, "the peer says it is {peer}, not who is configured")
            }
            Self::WrongAddress { peer, configured } => {
                write!(f, "{peer} comes from another address than {configured}")
            }
            Self::NoTraffic => f.write_str("the traffic selectors have nothing in common"),
            Self::Unreachable => f.write_str("the peer does not answer"),
            Self::Refused(kind) => write!(f, "the peer refused with notification {kind}"),
            Self::Protocol(what) => write!(f, "the peer broke the protocol: {what}"),
            Self::ClosedByPeer => f.write_str("the peer closed the SA"),
            Self::Replaced => f.write_str("the peer began anew"),
            Self::Deleted => f.write_str("the tunnel was deleted or changed here"),
            Self::Exhausted => f.write_str("no SPI or no randomness is left"),
        }
    }
}
