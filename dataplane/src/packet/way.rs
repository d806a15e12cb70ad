//! Ways over the underlay: what carries a datagram, and between which addresses.

use std::net::{IpAddr, SocketAddr};

/// What carries the datagrams of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// UDP, on the port of WireGuard.
    WireGuard,
    /// UDP port 500: IKE.
    Ike,
    /// UDP port 4500: IKE behind a marker, and ESP (RFC 3948).
    NatT,
    /// IP protocol 50: ESP. Datagrams are without their IP header, here and in the carriers below.
    Esp,
    /// IP protocol 47: GRE.
    Gre,
    /// ICMP and ICMPv6 echo between the outer addresses of a tunnel, past it: probes that come back so.
    Echo,
    /// UDP, on the port of Geneve: what nodes hand to each other.
    Relay,
}

/// A way over the underlay, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The peer's end. Its port is 0 where the carrier has none.
    pub remote: SocketAddr,
    /// What carries datagrams.
    pub carrier: Carrier,
    /// Our address; `None` for the carrier's only one of the family, which may be a wildcard.
    pub local: Option<IpAddr>,
    /// DSCP and ECN of the outer header: of what came, and for what goes.
    pub class: u8,
    /// TTL of the outer header of what goes; 0 for the system's own. Nothing is known of what came.
    pub ttl: u8,
}

impl Way {
    /// The way to or from a WireGuard peer.
    #[must_use]
    pub const fn wireguard(remote: SocketAddr) -> Self {
        Self {
            remote,
            carrier: Carrier::WireGuard,
            local: None,
            class: 0,
            ttl: 0,
        }
    }

    /// A way by UDP between an address of ours and a peer's socket.
    #[must_use]
    pub const fn udp(carrier: Carrier, local: IpAddr, remote: SocketAddr) -> Self {
        Self {
            remote,
            carrier,
            local: Some(local),
            class: 0,
            ttl: 0,
        }
    }

    /// Whether both go between the same two ends, whatever their headers say.
    #[must_use]
    pub fn has_ends_of(&self, other: &Self) -> bool {
        self.remote == other.remote && self.carrier == other.carrier && self.local == other.local
    }

    /// A way by a carrier without ports.
    #[must_use]
    pub const fn raw(carrier: Carrier, local: IpAddr, remote: IpAddr) -> Self {
        Self {
            remote: SocketAddr::new(remote, 0),
            carrier,
            local: Some(local),
            class: 0,
            ttl: 0,
        }
    }
}
