//! The leases as everybody else reads them: vnet to source address, and back.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arc_swap::ArcSwap;

use super::{Leases, to_v4, to_v6};
use crate::id::VnetId;

/// A snapshot of the leases that is replaced as a whole: two reads may see two of them, one read
/// never a mixture.
#[derive(Debug, Default)]
pub struct Sources {
    snapshot: ArcSwap<Snapshot>,
}

#[derive(Debug, Default)]
struct Snapshot {
    addresses: HashMap<VnetId, Ipv4Addr>,
    vnets: HashMap<Ipv4Addr, VnetId>,
}

impl Sources {
    /// Replaces the snapshot. Only the program thread does.
    pub fn publish(&self, leases: &Leases) {
        self.snapshot.store(
            Snapshot {
                addresses: leases.iter().collect(),
                vnets: leases
                    .iter()
                    .map(|(vnet, address)| (address, vnet))
                    .collect(),
            }
            .into(),
        );
    }

    /// The IPv4 source address of a vnet; `None` when it is not active on this node.
    pub fn of(&self, vnet: VnetId) -> Option<Ipv4Addr> {
        self.snapshot.load().addresses.get(&vnet).copied()
    }

    /// The IPv6 source address of a vnet; `None` when it is not active on this node.
    pub fn of_v6(&self, vnet: VnetId) -> Option<Ipv6Addr> {
        self.of(vnet).map(to_v6)
    }

    /// The vnet that a source address, of either family, names on this node.
    pub fn vnet(&self, address: IpAddr) -> Option<VnetId> {
        let address = match address {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => to_v4(address)?,
        };
        self.snapshot.load().vnets.get(&address).copied()
    }
}
