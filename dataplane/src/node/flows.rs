//! What userspace flows need to know of the node: the MTU of a way, and whose an address is.

use std::net::IpAddr;

use crate::fib::Nexthop;
use crate::id::WorkerId;
use crate::source;

use super::Node;

/// The MTU of a way that is not there: every IPv6 link has it (RFC 8200 section 5), and the first
/// packet will tell.
const MTU_UNKNOWN: u16 = 1280;

impl Node {
    /// The MTU of the tunnel from a source address to a destination; of several, of one of them.
    #[must_use]
    pub fn mtu_towards(&self, source: IpAddr, destination: IpAddr) -> u16 {
        let vnet = self.tables.sources.vnet(source);
        let mtu = vnet.and_then(|vnet| match self.tables.route(vnet, destination) {
            Some(Nexthop::Tunnel(tunnel)) => self.link(tunnel, vnet).ok().map(|(mtu, _)| mtu),
            Some(Nexthop::Local) | None => None,
        });
        mtu.unwrap_or(MTU_UNKNOWN)
    }

    /// The worker that has to deliver a packet for one of our source addresses, if it is another.
    pub(super) fn other_owner(&self, address: IpAddr) -> Option<WorkerId> {
        if !self.is_delivered_by_owner {
            return None;
        }
        let v4 = match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => source::to_v4(v6),
        };
        let owner = v4.and_then(|v4| self.tables.returns.lookup(v4))?;
        (owner.worker != self.config.worker).then_some(owner.worker)
    }
}
