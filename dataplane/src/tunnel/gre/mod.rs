//! GRE: RFC 2784 with key and sequence number of RFC 2890, and keepalives as Cisco's routers send them.
//!
//! In: GRE packets with the addresses of their outer header, inner packets, the time. Out: GRE packets,
//! inner packets. State: one [`Device`] per worker owns its tunnels, and knows everybody's by name.
//!
//! A tunnel is named by its two outer addresses and the key that it expects; what names none goes nowhere.
//! Nothing authenticates GRE: whoever can forge the peer's address and knows the key is taken for it.
//! What vnets that keeps apart is therefore the underlay's business; that they are apart is ours.
//!
//! A keepalive is a packet for ourselves inside a packet for the peer: a peer that decapsulates and routes
//! sends it back, whatever it knows of keepalives. We send back those of the peer, and nothing else
//! leaves a tunnel for the underlay.

mod device;
mod keepalive;
mod recent;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use device::{Device, PutError, Slot, TUNNELS_MAX};

/// The TTL of the outer header where the configuration does not say.
pub const TTL_DEFAULT: u8 = 64;

/// One side of a GRE tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address, of the same family.
    pub remote: IpAddr,
    /// The key that packets are sent with; `None` for none.
    pub key_tx: Option<u32>,
    /// The key that packets must have; `None`: they must have none.
    pub key_rx: Option<u32>,
    /// Packets are sent with a checksum, and must have one. A wrong one is dropped in any case.
    pub is_checksummed: bool,
    /// Packets are sent with a sequence number, and those that come late or twice are dropped.
    pub is_sequenced: bool,
    /// Keepalives to the peer; `None` for none. The peer's are answered in any case.
    pub keepalive: Option<Keepalive>,
    /// TTL of the outer header.
    pub ttl: u8,
}

impl Config {
    /// The largest inner packet where nobody says: see [`mtu_default`].
    #[must_use]
    pub fn mtu_default(&self) -> u16 {
        let has_key = self.key_tx.or(self.key_rx).is_some();
        mtu_default(has_key, self.is_checksummed, self.is_sequenced)
    }
}

/// The largest inner packet over an underlay of 1500 bytes: less 20 for IPv4, 4 for GRE (RFC 2784) and 4 for
/// each thing that either side sends besides (RFC 2890).
#[must_use]
pub fn mtu_default(has_key: bool, is_checksummed: bool, is_sequenced: bool) -> u16 {
    let options = [has_key, is_checksummed, is_sequenced];
    1476 - 4 * options.map(u16::from).iter().sum::<u16>()
}

/// When the peer counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepalive {
    /// Seconds between keepalives, at least 1.
    pub interval_secs: u16,
    /// Keepalives in a row without an answer that make the tunnel down, at least 1.
    pub retries: u8,
}
