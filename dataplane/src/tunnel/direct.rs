//! Direct links: a TUN device whose other side is the private network. Nothing is encapsulated.
//!
//! The device is made here and moved to where the network is: into a namespace, a container, a
//! virtual machine's host side. Packets cross it as super-packets, with their checksums left open.
//! A link has no session and no timer; the driver owns the device.

use serde::{Deserialize, Serialize};

/// A direct link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Name of the TUN device, 1..=15 bytes, as it is made in the router's namespace.
    pub device: String,
}
