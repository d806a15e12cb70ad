//! Direct links: an interface whose other side is the private network. Nothing is encapsulated.
//!
//! Of two kinds. A TUN device is made here and moved to where the network is: into a namespace, a
//! container, a virtual machine's host side; packets cross it as super-packets, with their checksums
//! left open. An Ethernet port, or one VLAN of it, is handed over: there the router has an Ethernet
//! address of its own beside the interface's, and finds its one neighbour of each family itself
//! ([`Neighbours`]). A link has no session; the driver owns the device, and what is known of the
//! neighbours.

mod neighbour;

use serde::{Deserialize, Serialize};

pub use neighbour::{End, Neighbours, Next};

/// A direct link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Name of the device, 1..=15 bytes, in the router's namespace.
    pub device: String,
    /// What the device is.
    #[serde(default)]
    pub medium: Medium,
}

/// What the device of a direct link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// A TUN device, which is made.
    #[default]
    Tun,
    /// An Ethernet interface, which is there. The link needs an interface address of each family
    /// that it is to carry.
    Ethernet {
        /// The VLAN whose frames are the link's, 1..=4094; `None`: those without a tag.
        vlan: Option<u16>,
    },
}

/// The VLANs that there are (IEEE 802.1Q: 0 is no VLAN, 4095 reserved).
pub const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;
