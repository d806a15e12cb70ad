//! WireGuard: handshake and sessions by boringtun, everything around them here.
//!
//! In: datagrams with their source, inner packets, the time. Out: datagrams, inner packets, events.
//! State: one [`Device`] per worker owns its identities, its peers and their sessions.
//!
//! Receiver indices carry `worker (8 bits) | slot (16 bits) | session (8 bits)`: the last byte on the
//! wire names the worker, the middle ones the peer.
//!
//! What boringtun bounds for us: a session ends after REJECT_AFTER_TIME (180 s), long before
//! REJECT_AFTER_MESSAGES (2^64 - 2^13) could be sent; its replay window is 1024 packets. Memory of a
//! peer: about 11 KiB, and [`QUEUE_LEN_MAX`] packets while there is no session.

mod device;
mod directory;
mod identity;
mod key;
mod peer;
mod strangers;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use device::{Device, PEERS_MAX, PutError, Slot, addressee};
pub use key::{ParseKeyError, PresharedKey, PrivateKey, PublicKey};
pub use peer::QUEUE_LEN_MAX;

/// Both sides of a WireGuard tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Our identity towards this peer. Tunnels of one account share one; accounts never do.
    pub private_key: PrivateKey,
    /// The peer's identity; unique per `private_key`.
    pub peer: PublicKey,
    /// Additional symmetric key, when both sides have it.
    pub preshared_key: Option<PresharedKey>,
    /// Where to send the first handshake; `None` waits for the peer. Roams afterwards.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives, `None` for none.
    pub keepalive: Option<u16>,
}
