//! From one desired state to the next: table writes and tunnel changes, in an order that loses
//! nothing and leaks nothing.
//!
//! What goes away leaves the tables before the worker is told; what comes is told to the worker
//! before it enters the tables. A change that cannot be made is refused with its reason, and the
//! rest goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::health::Direction;
use super::relay::{self, RelayError};
use super::tables::Tables;
use super::vnet::VnetWriter;
use super::{
    Change, Delta, INTERFACES_MAX, Key, Relay, Relays, Route, RouteKey, Spec, Tunnel, Vnet,
    far_side, health,
};
use crate::fib::return_table::{self, Owner};
use crate::fib::{Candidates, Nexthop, lpm, routes};
use crate::id::{NodeId, TunnelId, VnetId, Workers};
use crate::source::{Leases, NoAddressLeft, RANGE_V6, Slice};

/// Smallest inner MTU: every IPv4 host takes 576 bytes (RFC 1122, section 3.3.2).
const MTU_MIN: u16 = 576;
/// Largest inner MTU: a jumbo frame.
const MTU_MAX: u16 = 9000;

/// What the workers are told of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelChange {
    /// The tunnel exists, with these properties.
    Put(TunnelId, Box<Tunnel>),
    /// The tunnel is gone.
    Delete(TunnelId),
}

impl TunnelChange {
    /// The tunnel.
    pub fn id(&self) -> TunnelId {
        match self {
            Self::Put(id, _) | Self::Delete(id) => *id,
        }
    }
}

/// What became of a [`Delta`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The revision that the node is at, but for what was rejected.
    pub revision: u64,
    /// Objects that are not as the delta wants them, and why; a sentence for people.
    pub rejected: Vec<(Key, String)>,
}

/// Owner of the applied [`Spec`] and only writer of the [`Tables`]. One per node.
#[derive(Debug)]
pub struct Programmer {
    node: NodeId,
    tables: Arc<Tables>,
    spec: Spec,
    pub(super) vnets: BTreeMap<VnetId, VnetWriter>,
    pub(super) returns: return_table::Writer,
    /// Nothing on a site: it has no slice.
    pub(super) leases: Option<Leases>,
}

/// Why an object is not as it should be.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("0 names no virtual network")]
    VnetZero,
    #[error("{0} does not exist on this node")]
    NoVnet(VnetId),
    #[error("{0} does not exist on this node")]
    NoTunnel(TunnelId),
    #[error("{0} belongs to {1}, and packets never cross from one virtual network into another")]
    ForeignTunnel(TunnelId, VnetId),
    #[error("{0} was deleted, or moved to another virtual network, while this still led to it")]
    TunnelGone(TunnelId),
    #[error("{0} was deleted while this was still in it")]
    VnetGone(VnetId),
    #[error("the number of {0} is above that of {max}", max = lpm::TUNNEL_MAX)]
    TunnelNumber(TunnelId),
    #[error("an MTU is {MTU_MIN} to {MTU_MAX} bytes, not {0}")]
    Mtu(u16),
    #[error("the prefix has host bits: {0} is meant")]
    HostBits(IpNet),
    #[error(
        "interface {0} is no end of a link: give an address of a /31, /30, /127 or /126 that a \
         host can have, at most {INTERFACES_MAX} for a tunnel"
    )]
    Interface(IpNet),
    #[error(
        "health needs two addresses to probe between: give the tunnel an interface address of the \
         target's family, or an edge's tunnel a health.target in its network"
    )]
    NoProbe,
    #[error(
        "health.direction is unidirectional: that needs a tunnel with an outer address of ours, and \
         its peer's or a health.target of the same family"
    )]
    NoWayPast,
    #[error(transparent)]
    Health(#[from] health::ConfigError),
    #[error("{0} lies inside the source range, which belongs to the edge")]
    Reserved(IpNet),
    #[error("an edge has no network of its own to deliver to")]
    LocalOnEdge,
    #[error("the worker refused it: {0}")]
    Worker(String),
    #[error(transparent)]
    Address(#[from] NoAddressLeft),
    #[error(transparent)]
    Full(#[from] routes::Full),
    #[error(transparent)]
    Relay(#[from] RelayError),
}

/// One run of [`Programmer::apply`].
struct Run<'a> {
    tell: &'a mut dyn FnMut(TunnelChange) -> Result<(), String>,
    rejected: BTreeMap<Key, Refusal>,
    /// Routes that the delta puts: one whose tunnel goes is about to get another.
    puts: BTreeSet<Key>,
    /// Routes that were left in the tables although their tunnel went, because of `puts`.
    kept: Vec<RouteKey>,
}

impl Programmer {
    /// A node that was told nothing yet: an edge with its slice, or a site without one.
    pub fn new(slice: Option<Slice>, node: NodeId, workers: Workers) -> Self {
        let returns = return_table::Writer::new();
        Self {
            node,
            tables: Arc::new(Tables::new(returns.table().clone(), workers)),
            spec: Spec::default(),
            vnets: BTreeMap::new(),
            returns,
            leases: slice.map(|slice| Leases::new(slice, workers)),
        }
    }

    /// The read side.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// What the node is: the desired state without what was rejected. The delta to give next is
    /// this one's [`Spec::diff`] to the desired state; it tries again what was rejected.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Makes the changes. Each object is either as its last change says, or among the rejected.
    pub fn apply(
        &mut self,
        delta: &Delta,
        tell: &mut dyn FnMut(TunnelChange) -> Result<(), String>,
    ) -> Applied {
        let puts = delta
            .changes
            .iter()
            .filter(|change| is_put(change))
            .map(Change::key);
        let mut run = Run {
            tell,
            rejected: BTreeMap::new(),
            puts: puts.collect(),
            kept: Vec::new(),
        };
        let redirects = self.redirects(delta);
        let (first, then): (Vec<_>, Vec<_>) = delta
            .changes
            .iter()
            .partition(|change| redirects.contains(&change.key()));
        self.redirect(&first);
        for change in first.into_iter().chain(then) {
            match self.change(change, &mut run) {
                Ok(()) => run.rejected.remove(&change.key()),
                Err(refusal) => run.rejected.insert(change.key(), refusal),
            };
        }
        for key in std::mem::take(&mut run.kept) {
            self.delete_dangling(&key);
        }
        if let Some(relays) = &delta.relays {
            self.put_relays(relays, &mut run);
        }
        self.spec.revision = delta.revision;
        Applied {
            revision: delta.revision,
            rejected: run
                .rejected
                .into_iter()
                .map(|(key, refusal)| (key, refusal.to_string()))
                .collect(),
        }
    }

    /// Routes that only move to a tunnel that is there and stays as it is. They go first: their old
    /// tunnel may be about to go, and not a packet need be lost.
    fn redirects(&self, delta: &Delta) -> BTreeSet<Key> {
        let mut changes = BTreeMap::new();
        for change in &delta.changes {
            *changes.entry(change.key()).or_insert(0) += 1;
        }
        delta
            .changes
            .iter()
            .filter(|change| match change {
                Change::PutRoute(key, route) => {
                    let is_tunnel_touched = route.candidates.iter().any(|member| {
                        matches!(member.nexthop,
                            Nexthop::Tunnel(id) if changes.contains_key(&Key::Tunnel(id)))
                    });
                    self.spec.routes.contains_key(key)
                        && changes[&change.key()] == 1
                        && !changes.contains_key(&Key::Vnet(key.vnet))
                        && !is_tunnel_touched
                        && self.check_route(key, route).is_ok()
                }
                Change::PutVnet(..)
                | Change::DeleteVnet(_)
                | Change::PutTunnel(..)
                | Change::DeleteTunnel(_)
                | Change::DeleteRoute(_) => false,
            })
            .map(Change::key)
            .collect()
    }

    /// Where all routes of a group move alike, one store per bucket moves them at once; what is
    /// left, and the books, follow route by route.
    fn redirect(&mut self, changes: &[&Change]) {
        let mut moves: BTreeMap<VnetId, Vec<(IpNet, &Candidates)>> = BTreeMap::new();
        for change in changes {
            if let Change::PutRoute(key, route) = change {
                let moves = moves.entry(key.vnet).or_default();
                moves.push((key.prefix, &route.candidates));
            }
        }
        for (vnet, moves) in moves {
            if let Some(vnet) = self.vnets.get_mut(&vnet) {
                vnet.routes.redirect(moves.into_iter());
            }
        }
    }

    fn change(&mut self, change: &Change, run: &mut Run<'_>) -> Result<(), Refusal> {
        match change {
            Change::PutVnet(id, vnet) => self.put_vnet(*id, vnet, run),
            Change::DeleteVnet(id) => {
                self.delete_vnet(*id, run);
                Ok(())
            }
            Change::PutTunnel(id, tunnel) => self.put_tunnel(*id, tunnel, run),
            Change::DeleteTunnel(id) => self.delete_tunnel(*id, run),
            Change::PutRoute(key, route) => self.put_route(key, route),
            Change::DeleteRoute(key) => {
                self.delete_route(key);
                Ok(())
            }
        }
    }

    fn put_vnet(&mut self, id: VnetId, vnet: &Vnet, run: &mut Run<'_>) -> Result<(), Refusal> {
        if id.0 == 0 {
            return Err(Refusal::VnetZero);
        }
        let range = self.leases.as_ref().map(|_edge| vnet.range);
        let addresses = match &mut self.leases {
            Some(leases) => leases.lease(id)?,
            None => Vec::new(),
        };
        let writer = self.vnets.entry(id).or_default();
        self.tables
            .publish(id, Some(writer.tables(&vnet.name, range)));
        if let Some(before) = self.spec.vnets.insert(id, vnet.clone()) {
            let told = match before.range == vnet.range {
                true => Ok(()),
                false => self.tell_again(id, run),
            };
            if told.is_err() {
                // So that the next try tells them again.
                self.spec.vnets.insert(id, before);
            }
            return told;
        }
        for (worker, address) in self.tables.workers.iter().zip(addresses) {
            let owner = Owner {
                vnet: id,
                node: self.node,
                worker,
            };
            self.returns
                .set(Ipv4Net::from(address), owner)
                .expect("a slice lies inside the return table's range");
        }
        self.publish_sources();
        Ok(())
    }

    /// Tells the workers once more of the tunnels that are probed from a source address of the vnet: it is seen as
    /// another now. All of them, whatever one of them says.
    fn tell_again(&self, vnet: VnetId, run: &mut Run<'_>) -> Result<(), Refusal> {
        let is_probed = |tunnel: &Tunnel| {
            let target = tunnel.health.as_ref().and_then(|health| health.target);
            tunnel.vnet == vnet && target.is_some()
        };
        let tunnels = self.spec.tunnels.iter();
        let mut told = Ok(());
        for (id, tunnel) in tunnels.filter(|(_, tunnel)| is_probed(tunnel)) {
            let change = TunnelChange::Put(*id, Box::new(tunnel.clone()));
            let answer = (run.tell)(change).map_err(Refusal::Worker);
            told = told.and(answer);
        }
        told
    }

    /// Takes a vnet away, and whatever is still in it.
    fn delete_vnet(&mut self, id: VnetId, run: &mut Run<'_>) {
        let released = self.leases.as_mut().map(|leases| leases.release(id));
        self.publish_sources();
        for address in released.into_iter().flatten() {
            self.returns.clear(Ipv4Net::from(address));
        }
        self.tables.publish(id, None);
        let routes: Vec<_> = self
            .spec
            .routes
            .keys()
            .filter(|key| key.vnet == id)
            .copied()
            .collect();
        for key in routes {
            self.delete_route(&key);
            run.rejected.insert(Key::Route(key), Refusal::VnetGone(id));
        }
        let tunnels = self
            .spec
            .tunnels
            .iter()
            .filter(|(_, tunnel)| tunnel.vnet == id);
        for tunnel in tunnels.map(|(id, _)| *id).collect::<Vec<_>>() {
            let refusal = self.delete_tunnel(tunnel, run).err();
            let refusal = refusal.unwrap_or(Refusal::VnetGone(id));
            run.rejected.insert(Key::Tunnel(tunnel), refusal);
        }
        self.vnets.remove(&id);
        self.spec.vnets.remove(&id);
    }

    fn put_tunnel(
        &mut self,
        id: TunnelId,
        tunnel: &Tunnel,
        run: &mut Run<'_>,
    ) -> Result<(), Refusal> {
        if id > lpm::TUNNEL_MAX {
            return Err(Refusal::TunnelNumber(id));
        }
        if !(MTU_MIN..=MTU_MAX).contains(&tunnel.mtu) {
            return Err(Refusal::Mtu(tunnel.mtu));
        }
        if let Some(prefix) = tunnel
            .allowed
            .iter()
            .find(|prefix| self.is_reserved(tunnel.vnet, prefix))
        {
            return Err(Refusal::Reserved(*prefix));
        }
        check_interface(&tunnel.interface)?;
        self.check_health(tunnel)?;
        if !self.vnets.contains_key(&tunnel.vnet) {
            return Err(Refusal::NoVnet(tunnel.vnet));
        }
        let is_moving = |known: &Tunnel| known.vnet != tunnel.vnet;
        if self.spec.tunnels.get(&id).is_some_and(is_moving) {
            self.delete_tunnel(id, run)?;
        }
        (run.tell)(TunnelChange::Put(id, Box::new(tunnel.clone()))).map_err(Refusal::Worker)?;
        let vnet = self
            .vnets
            .get_mut(&tunnel.vnet)
            .ok_or(Refusal::NoVnet(tunnel.vnet))?;
        if let Err(full) = vnet.allow(id, &tunnel.allowed) {
            // The worker goes back to what the tables say.
            let back = match self.spec.tunnels.get(&id) {
                Some(known) => TunnelChange::Put(id, Box::new(known.clone())),
                None => TunnelChange::Delete(id),
            };
            (run.tell)(back).map_err(Refusal::Worker)?;
            return Err(full.into());
        }
        if tunnel.health.is_none() {
            vnet.routes.penalize(&[(Nexthop::Tunnel(id), 0)]);
        }
        self.spec.tunnels.insert(id, tunnel.clone());
        Ok(())
    }

    /// Takes a tunnel away. Routes with other tunnels go on over those. Routes that lead to it alone
    /// go too, but for those that this run gives another next hop: until then the worker drops
    /// their packets, it has no such tunnel.
    fn delete_tunnel(&mut self, id: TunnelId, run: &mut Run<'_>) -> Result<(), Refusal> {
        let Some(tunnel) = self.spec.tunnels.remove(&id) else {
            return Ok(());
        };
        let gone = Nexthop::Tunnel(id);
        if let Some(vnet) = self.vnets.get_mut(&tunnel.vnet) {
            vnet.routes.withdraw(gone);
            vnet.routes.penalize(&[(gone, 0)]);
        }
        let comes_back = run.puts.contains(&Key::Tunnel(id));
        let routes = self.spec.routes.iter();
        let dangling = routes.filter(|(_, route)| route.candidates.contains(gone));
        let dangling: Vec<_> = dangling
            .map(|(key, route)| (*key, route.candidates.without(gone)))
            .collect();
        for (key, others) in dangling {
            if let Some(candidates) = others {
                self.spec.routes.insert(key, Route { candidates });
            } else if comes_back || !run.puts.contains(&Key::Route(key)) {
                self.delete_route(&key);
            } else {
                run.kept.push(key);
            }
            run.rejected
                .insert(Key::Route(key), Refusal::TunnelGone(id));
        }
        if let Some(vnet) = self.vnets.get_mut(&tunnel.vnet) {
            vnet.allow(id, &[]).expect("allowing nothing takes no room");
        }
        (run.tell)(TunnelChange::Delete(id)).map_err(Refusal::Worker)
    }

    /// All the other nodes, in place of those before.
    fn put_relays(&mut self, wanted: &[Relay], run: &mut Run<'_>) {
        let own = self.leases.as_ref().map(Leases::slice);
        let (relays, refused) = relay::sorted(wanted, own);
        for (net, error) in refused {
            run.rejected.insert(Key::Relay(net), error.into());
        }
        self.tables.publish_relays(Relays::new(&relays));
        self.spec.relays = relays;
    }

    fn check_health(&self, tunnel: &Tunnel) -> Result<(), Refusal> {
        let Some(health) = &tunnel.health else {
            return Ok(());
        };
        health.check()?;
        if health.direction == Direction::Unidirectional {
            let ends = tunnel.kind.outer();
            let ends = ends.and_then(|(near, peer)| Some((near, health.target.or(peer)?)));
            let can_be = ends.is_some_and(|(near, far)| near.is_ipv4() == far.is_ipv4());
            return can_be.then_some(()).ok_or(Refusal::NoWayPast);
        }
        let is_between = |near: &IpNet| {
            let is_of_family = |far: IpAddr| far.is_ipv4() == near.addr().is_ipv4();
            health.target.is_none_or(is_of_family)
        };
        // An edge has a source address of the vnet besides.
        let has_source = self.leases.is_some() && health.target.is_some();
        let can_be = has_source || tunnel.interface.iter().any(is_between);
        can_be.then_some(()).ok_or(Refusal::NoProbe)
    }

    fn put_route(&mut self, key: &RouteKey, route: &Route) -> Result<(), Refusal> {
        self.check_route(key, route)?;
        let vnet = self
            .vnets
            .get_mut(&key.vnet)
            .ok_or(Refusal::NoVnet(key.vnet))?;
        vnet.routes.insert(key.prefix, &route.candidates)?;
        self.spec.routes.insert(*key, route.clone());
        Ok(())
    }

    fn check_route(&self, key: &RouteKey, route: &Route) -> Result<(), Refusal> {
        if !self.vnets.contains_key(&key.vnet) {
            return Err(Refusal::NoVnet(key.vnet));
        }
        if key.prefix != key.prefix.trunc() {
            return Err(Refusal::HostBits(key.prefix.trunc()));
        }
        if self.is_reserved(key.vnet, &key.prefix) {
            return Err(Refusal::Reserved(key.prefix));
        }
        route
            .candidates
            .iter()
            .try_for_each(|member| self.check_nexthop(key.vnet, member.nexthop))
    }

    fn check_nexthop(&self, vnet: VnetId, nexthop: Nexthop) -> Result<(), Refusal> {
        match nexthop {
            Nexthop::Local if self.leases.is_some() => Err(Refusal::LocalOnEdge),
            Nexthop::Local => Ok(()),
            Nexthop::Tunnel(id) => match self.spec.tunnels.get(&id) {
                None => Err(Refusal::NoTunnel(id)),
                Some(tunnel) if tunnel.vnet != vnet => Err(Refusal::ForeignTunnel(id, tunnel.vnet)),
                Some(_) => Ok(()),
            },
        }
    }

    fn delete_route(&mut self, key: &RouteKey) {
        if let Some(vnet) = self.vnets.get_mut(&key.vnet) {
            vnet.routes.remove(key.prefix);
        }
        self.spec.routes.remove(key);
    }

    /// Takes out a route whose tunnel went in this run and that got no other.
    fn delete_dangling(&mut self, key: &RouteKey) {
        let known = self.spec.routes.get(key).cloned();
        if known.is_some_and(|known| self.check_route(key, &known).is_err()) {
            self.delete_route(key);
        }
    }

    /// Whether a prefix belongs to the source range as the vnet sees it, which on an edge nobody else may have.
    fn is_reserved(&self, vnet: VnetId, prefix: &IpNet) -> bool {
        let range = self.spec.vnets.get(&vnet).map(|vnet| vnet.range);
        let range = range.unwrap_or_default().net();
        let mut all = [IpNet::V4(range), IpNet::V6(RANGE_V6)].into_iter();
        self.leases.is_some() && all.any(|range| range.contains(prefix))
    }

    fn publish_sources(&self) {
        if let Some(leases) = &self.leases {
            self.tables.sources.publish(leases);
        }
    }
}

fn check_interface(interface: &[IpNet]) -> Result<(), Refusal> {
    let bad = interface
        .iter()
        .enumerate()
        .find(|(n, near)| *n >= INTERFACES_MAX || far_side(**near).is_none());
    bad.map_or(Ok(()), |(_, near)| Err(Refusal::Interface(*near)))
}

fn is_put(change: &Change) -> bool {
    match change {
        Change::PutVnet(..) | Change::PutTunnel(..) | Change::PutRoute(..) => true,
        Change::DeleteVnet(_) | Change::DeleteTunnel(_) | Change::DeleteRoute(_) => false,
    }
}
