//! The leases as everybody else reads them: vnet to source addresses, and back.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use arc_swap::ArcSwap;

use super::{Leases, to_v4};
use crate::id::{VnetId, WorkerId};

/// A snapshot of the leases that is replaced as a whole: two reads may see two of them, one read
/// never a mixture.
#[derive(Debug, Default)]
pub struct Sources {
    snapshot: ArcSwap<Snapshot>,
}

#[derive(Debug, Default)]
struct Snapshot {
    /// By worker.
    addresses: HashMap<VnetId, Vec<Ipv4Addr>>,
    vnets: HashMap<Ipv4Addr, VnetId>,
}

impl Sources {
    /// Replaces the snapshot. Only the program thread does.
    pub fn publish(&self, leases: &Leases) {
        let addresses: HashMap<_, _> = leases.vnets().map(|vnet| (vnet, leases.of(vnet))).collect();
        let vnets = addresses
            .iter()
            .flat_map(|(vnet, all)| all.iter().map(|address| (*address, *vnet)))
            .collect();
        self.snapshot.store(Snapshot { addresses, vnets }.into());
    }

    /// The IPv4 source address of a vnet on a worker; `None` when the vnet is not active on this
    /// node, or there is no such worker.
    pub fn at(&self, vnet: VnetId, worker: WorkerId) -> Option<Ipv4Addr> {
        let snapshot = self.snapshot.load();
        let all = snapshot.addresses.get(&vnet)?;
        all.get(usize::from(worker.0)).copied()
    }

    /// The first worker's IPv4 source address of a vnet; `None` when it is not active on this node.
    pub fn of(&self, vnet: VnetId) -> Option<Ipv4Addr> {
        self.at(vnet, WorkerId(0))
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
