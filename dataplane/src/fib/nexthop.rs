//! Where a route leads.

use serde::{Deserialize, Serialize};

use crate::id::TunnelId;

/// One next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nexthop {
    /// Hand the packet to this machine's own network stack (a site's LAN lies behind it).
    Local,
    /// Encapsulate into this tunnel of the same vnet.
    Tunnel(TunnelId),
}
