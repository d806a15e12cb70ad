//! What an IPsec tunnel shows of itself.

use serde::{Deserialize, Serialize};

use super::cipher::Transform;
use super::ike::{IkeSuite, Prf, dh::Group};

/// The SAs of a tunnel, and why there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What protects the IKE SAs that are up; none with static keys.
    pub ike: Vec<IkeStatus>,
    /// The child SAs, those that packets go out by first.
    pub children: Vec<ChildStatus>,
    /// Child SAs that took over from others.
    pub rekeys: u64,
    /// What went wrong last, in words; `None` since the last child SA came up.
    pub failure: Option<String>,
}

/// An IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeStatus {
    /// Encryption of messages.
    pub cipher: Transform,
    /// Key derivation.
    pub prf: Prf,
    /// Key exchange.
    pub group: Group,
}

/// A child SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// The SPI that we receive on, in hexadecimal.
    pub spi_in: String,
    /// The peer's.
    pub spi_out: String,
    /// What protects packets.
    pub transform: Transform,
    /// Whether packets go out by it.
    pub sends: bool,
    /// Whether they go in UDP.
    pub is_in_udp: bool,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets received.
    pub rx_packets: u64,
}

impl From<IkeSuite> for IkeStatus {
    fn from(suite: IkeSuite) -> Self {
        let IkeSuite { cipher, prf, group } = suite;
        Self { cipher, prf, group }
    }
}
