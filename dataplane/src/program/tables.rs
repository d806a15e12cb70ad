//! Everything that workers and the proxy read: one set of tables per node, lock-free.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use crate::fib::group::Group;
use crate::fib::publish::Published;
use crate::fib::return_table::ReturnTable;
use crate::fib::routes::Routes;
use crate::fib::{Guard, Nexthop, pin};
use crate::id::{TunnelId, VnetId, WorkerId, Workers};
use crate::source::{RANGE_V6, Range, Sources, to_v4, to_v6};

use super::{Paths, Relays};

/// Vnets are found in two loads: 256 pages of 256, each page made when its first vnet comes.
const PAGE: usize = 256;

type Page = Box<[Published<VnetTables>]>;

/// The read side of a node's desired state. One per node, shared by all its threads.
pub struct Tables {
    /// Who owns a source address of 100.64.0.0/12.
    pub returns: Arc<ReturnTable>,
    /// The source addresses of each vnet.
    pub sources: Sources,
    /// How many workers the node has, which says who owns a tunnel.
    pub workers: Workers,
    relays: Published<Relays>,
    pages: Box<[OnceLock<Page>]>,
}

impl Tables {
    pub(super) fn new(returns: Arc<ReturnTable>, workers: Workers) -> Self {
        Self {
            returns,
            workers,
            sources: Sources::default(),
            relays: Published::empty(),
            pages: (0..PAGE).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The tables of a vnet; `None` when it is not active on this node. Look it up anew for every
    /// batch: a guard keeps a deleted vnet readable.
    pub fn vnet<'g>(&self, vnet: VnetId, guard: &'g Guard) -> Option<&'g VnetTables> {
        let (page, index) = place(vnet);
        self.pages[page].get()?[index].load(guard)
    }

    /// Where `vnet` routes `destination` to; of several next hops, one. Pins for this one look-up:
    /// for the proxy, not for batches of packets.
    pub fn route(&self, vnet: VnetId, destination: IpAddr) -> Option<Nexthop> {
        let guard = pin();
        self.vnet(vnet, &guard)?.route(destination, || 0, &guard)
    }

    /// Whether `vnet` routes `destination` into `tunnel`, by itself or among others. Pins for this one
    /// look-up.
    pub fn leads_to(&self, vnet: VnetId, destination: IpAddr, tunnel: TunnelId) -> bool {
        let guard = pin();
        self.vnet(vnet, &guard)
            .is_some_and(|tables| tables.leads_to(destination, tunnel, &guard))
    }

    /// The address that a connection of `vnet` to `destination` is bound to, of the same family: one
    /// of the worker that owns the tunnel there, so that no packet changes workers. Without a route
    /// any worker's is as good. `None` when the vnet is not active on this node.
    pub fn source(&self, vnet: VnetId, destination: IpAddr) -> Option<IpAddr> {
        let worker = match self.route(vnet, destination) {
            Some(Nexthop::Tunnel(tunnel)) => self.workers.owner(tunnel),
            Some(Nexthop::Local) | None => WorkerId(0),
        };
        let source = self.sources.at(vnet, worker)?;
        Some(match destination {
            IpAddr::V4(_) => source.into(),
            IpAddr::V6(_) => to_v6(source).into(),
        })
    }

    /// The other nodes with their slices; `None` before there was a list of them.
    #[inline]
    pub fn relays<'g>(&self, guard: &'g Guard) -> Option<&'g Relays> {
        self.relays.load(guard)
    }

    pub(super) fn publish_relays(&self, relays: Relays) {
        self.relays.store(Some(relays));
    }

    pub(super) fn publish(&self, vnet: VnetId, tables: Option<VnetTables>) {
        let (page, index) = place(vnet);
        let page = self.pages[page].get_or_init(|| (0..PAGE).map(|_| Published::empty()).collect());
        page[index].store(tables);
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables")
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

/// What a packet needs to know of its vnet.
#[derive(Debug)]
pub struct VnetTables {
    pub(super) name: String,
    /// Where the private network sees the source addresses, of which it may own none. `None` on a site: there
    /// they lie behind the tunnel.
    pub(super) range: Option<Range>,
    pub(super) routes: Arc<Routes>,
    pub(super) allowed: Arc<Routes>,
    pub(super) paths: Arc<Paths>,
}

impl VnetTables {
    /// Where a packet to `destination` goes. Of several next hops its flow decides
    /// ([`crate::wire::flow::hash`]), which is asked for only then. On an edge a source address is
    /// never routed into a tunnel, not even by 0.0.0.0/0.
    #[inline]
    pub fn route(
        &self,
        destination: IpAddr,
        flow: impl FnOnce() -> u32,
        guard: &Guard,
    ) -> Option<Nexthop> {
        let group = self.lookup(&self.routes, destination, guard)?;
        Some(group.nexthop(flow))
    }

    /// Whether `tunnel` is a way to `address`, the only or one of several.
    #[inline]
    pub fn leads_to(&self, address: IpAddr, tunnel: TunnelId, guard: &Guard) -> bool {
        self.lookup(&self.routes, address, guard)
            .is_some_and(|group| group.contains(Nexthop::Tunnel(tunnel)))
    }

    /// Whether packets from `source` may come out of `tunnel`. On an edge none from a source
    /// address, not even by 0.0.0.0/0.
    #[inline]
    pub fn is_allowed(&self, source: IpAddr, tunnel: TunnelId, guard: &Guard) -> bool {
        self.lookup(&self.allowed, source, guard)
            .is_some_and(|group| group.contains(Nexthop::Tunnel(tunnel)))
    }

    /// Whether packets from `address` come out of a tunnel of the vnet: one allows it, and it is routed to
    /// one. For packets of other nodes, which know the tunnel. Never of a source address.
    #[inline]
    pub fn is_behind_tunnel(&self, address: IpAddr, guard: &Guard) -> bool {
        let is_allowed = self.lookup(&self.allowed, address, guard).is_some();
        is_allowed && self.lookup(&self.routes, address, guard).is_some()
    }

    fn lookup<'g>(
        &self,
        table: &'g Routes,
        address: IpAddr,
        guard: &'g Guard,
    ) -> Option<Group<'g>> {
        if self.is_source(address) {
            return None;
        }
        table.lookup(address, guard)
    }

    /// Whether an address, as the private network sees it, is kept for source addresses. Never on a site.
    #[inline]
    pub fn is_source(&self, address: IpAddr) -> bool {
        self.range.is_some_and(|range| match address {
            IpAddr::V4(address) => range.net().contains(&address),
            IpAddr::V6(address) => RANGE_V6.contains(&address),
        })
    }

    /// The lent address that a private network sees as `seen`, or that its IPv6 address stands for; `None`
    /// when there is none, as on a site.
    pub fn lent(&self, seen: IpAddr) -> Option<Ipv4Addr> {
        let range = self.range?;
        match seen {
            IpAddr::V4(seen) => range.lent(seen),
            IpAddr::V6(seen) => to_v4(seen),
        }
    }

    /// Where the private network sees the source addresses; as they are, on a site.
    pub fn range(&self) -> Range {
        self.range.unwrap_or_default()
    }

    /// What fits the paths behind its tunnels.
    #[inline]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The customer's name for the vnet.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Page and index of a vnet.
fn place(vnet: VnetId) -> (usize, usize) {
    let [page, index] = vnet.0.to_be_bytes();
    (usize::from(page), usize::from(index))
}
