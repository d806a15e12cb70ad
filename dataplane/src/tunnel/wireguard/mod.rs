//! WireGuard: handshake and sessions by boringtun, everything around them here.

mod key;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use key::{ParseKeyError, PresharedKey, PrivateKey, PublicKey};

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
