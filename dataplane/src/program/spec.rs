//! Desired state of one node as plain data, and the ordered difference between two of them.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::fib::{Candidates, Nexthop};
use crate::id::{TunnelId, VnetId};
use crate::source::Range;
use crate::tunnel;

use super::{Relay, health};

/// Everything a node is told. Two nodes with the same `Spec` forward alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Grows with every change; the node reports the last one it applied.
    pub revision: u64,
    /// Virtual networks active on this node.
    pub vnets: BTreeMap<VnetId, Vnet>,
    /// Tunnels that end on this node.
    pub tunnels: BTreeMap<TunnelId, Tunnel>,
    /// Routes, one per prefix and vnet, with all their candidates.
    pub routes: BTreeMap<RouteKey, Route>,
    /// The other nodes with their slices, by net.
    #[serde(default)]
    pub relays: Vec<Relay>,
}

/// A virtual network: one overlay address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vnet {
    /// The customer's name or id for it; for people only.
    pub name: String,
    /// Where its private network sees the edge's source addresses. A site knows of none.
    #[serde(default)]
    pub range: Range,
}

impl Vnet {
    /// A vnet of this name that sees the source addresses as they are.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            range: Range::default(),
        }
    }
}

/// A tunnel to a private network, always in exactly one vnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The only vnet whose packets may enter or leave by this tunnel.
    pub vnet: VnetId,
    /// The customer's name for it; for people only.
    pub name: String,
    /// Largest inner packet in bytes (576..=9000).
    pub mtu: u16,
    /// AllowedIPs: inner sources that may come out of this tunnel. Looked up by longest match over
    /// all tunnels of the vnet, so a more specific prefix of another tunnel takes its part away;
    /// tunnels that allow the same prefix share it.
    pub allowed: Vec<IpNet>,
    /// Our own addresses inside the tunnel, each with the prefix of the link: /31 or /30, /127 or
    /// /126. The customer's side has the link's other address. Known on this tunnel only: it is in no
    /// table, and other tunnels and vnets may have the same.
    #[serde(default)]
    pub interface: Vec<IpNet>,
    /// How the tunnel is probed; `None`: not at all, and its routes have no penalty.
    #[serde(default)]
    pub health: Option<health::Config>,
    /// What the tunnel is made of.
    pub kind: tunnel::Config,
}

/// Key of a route: longest match happens inside one vnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// The vnet whose address space the prefix belongs to.
    pub vnet: VnetId,
    /// The prefix, host bits zero.
    pub prefix: IpNet,
}

/// Where packets for a prefix go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// One next hop, or several tunnels: those of the lowest priority, with the penalty of their
    /// health ([`super::health::State::penalty`]), share the flows by weight. The others may send from
    /// the prefix too.
    pub candidates: Candidates,
}

impl From<Nexthop> for Route {
    fn from(nexthop: Nexthop) -> Self {
        Self {
            candidates: nexthop.into(),
        }
    }
}

/// One step from one [`Spec`] to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The vnet exists, with these properties.
    PutVnet(VnetId, Vnet),
    /// The vnet is gone; its tunnels and routes went before.
    DeleteVnet(VnetId),
    /// The tunnel exists, with these properties.
    PutTunnel(TunnelId, Box<Tunnel>),
    /// The tunnel is gone; its routes went before.
    DeleteTunnel(TunnelId),
    /// The route exists, with this next hop.
    PutRoute(RouteKey, Route),
    /// The route is gone.
    DeleteRoute(RouteKey),
}

/// What a [`Change`] or a [`Relay`] is about; names the object when a node refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A vnet.
    Vnet(VnetId),
    /// A tunnel.
    Tunnel(TunnelId),
    /// A route.
    Route(RouteKey),
    /// The relay of another node's slice.
    Relay(Ipv4Net),
}

/// Ordered changes that lead to `revision`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The revision of the spec that the changes lead to.
    pub revision: u64,
    /// In an order in which each change finds what it depends on.
    pub changes: Vec<Change>,
    /// All other nodes with their slices, in place of those before; `None` where they stay as they are.
    #[serde(default)]
    pub relays: Option<Vec<Relay>>,
}

impl Change {
    /// The object that the change is about.
    pub fn key(&self) -> Key {
        match self {
            Change::PutVnet(id, _) | Change::DeleteVnet(id) => Key::Vnet(*id),
            Change::PutTunnel(id, _) | Change::DeleteTunnel(id) => Key::Tunnel(*id),
            Change::PutRoute(key, _) | Change::DeleteRoute(key) => Key::Route(*key),
        }
    }
}

impl Spec {
    /// The changes that turn `self` into `to`: routes, tunnels and vnets that go, in that order,
    /// then vnets, tunnels and routes that come or change. A route that only changes its next hop
    /// is one `PutRoute`: there is no moment without it.
    pub fn diff(&self, to: &Spec) -> Delta {
        let mut changes = Vec::new();
        changes.extend(gone(&self.routes, &to.routes).map(|k| Change::DeleteRoute(*k)));
        changes.extend(gone(&self.tunnels, &to.tunnels).map(|k| Change::DeleteTunnel(*k)));
        changes.extend(gone(&self.vnets, &to.vnets).map(|k| Change::DeleteVnet(*k)));
        changes.extend(new(&self.vnets, &to.vnets).map(|(k, v)| Change::PutVnet(*k, v.clone())));
        let tunnels = new(&self.tunnels, &to.tunnels);
        changes.extend(tunnels.map(|(k, v)| Change::PutTunnel(*k, Box::new(v.clone()))));
        changes.extend(new(&self.routes, &to.routes).map(|(k, v)| Change::PutRoute(*k, v.clone())));
        Delta {
            revision: to.revision,
            changes,
            relays: (self.relays != to.relays).then(|| to.relays.clone()),
        }
    }
}

fn gone<'a, K: Ord, V>(
    from: &'a BTreeMap<K, V>,
    to: &BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    from.keys().filter(|k| !to.contains_key(k))
}

fn new<'a, K: Ord, V: PartialEq>(
    from: &BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    to.iter().filter(|(k, v)| from.get(k) != Some(v))
}
