//! Hand-off: the last hop to an origin, by the public network or by a vnet's source address.
//!
//! In: a network (public, or a vnet) and an address. Out: a pingora peer, a TCP stream or a UDP
//! socket whose local address names the vnet: of the kernel, or with userspace flows of the router. The state, sources and routes, belongs to the router;
//! this room only reads it. A private answer never becomes a public connection.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;

use controlplane::model::address;
use dataplane::id::{TunnelId, VnetId};
use dataplane::program::Tables;

use crate::congestion::Congestion;
use crate::counters::Counters;

mod connect;
mod gateway;
mod prohibited;
mod user;

pub(crate) use connect::reset;
use gateway::Name;
pub use user::{Datagrams, Flow, Flows, Upstream};

/// What the hand-off asks of the router's tables.
pub trait Vnets: Send + Sync + 'static {
    /// The address that a connection of `vnet` to `to` is bound to, of the same family as `to`.
    fn source(&self, vnet: VnetId, to: IpAddr) -> Option<IpAddr>;
    /// The vnet that owns a source address.
    fn owner(&self, source: IpAddr) -> Option<VnetId>;
    /// Whether the vnet has a route to the address.
    fn has_route(&self, vnet: VnetId, to: IpAddr) -> bool;
    /// Whether the vnet's route to the address leads into the tunnel, by itself or among others.
    fn leads_to(&self, vnet: VnetId, to: IpAddr, tunnel: TunnelId) -> bool;
}

impl Vnets for Tables {
    fn source(&self, vnet: VnetId, to: IpAddr) -> Option<IpAddr> {
        Tables::source(self, vnet, to)
    }

    fn owner(&self, source: IpAddr) -> Option<VnetId> {
        self.sources.vnet(source)
    }

    fn has_route(&self, vnet: VnetId, to: IpAddr) -> bool {
        self.route(vnet, to).is_some()
    }

    fn leads_to(&self, vnet: VnetId, to: IpAddr, tunnel: TunnelId) -> bool {
        Tables::leads_to(self, vnet, to, tunnel)
    }
}

/// The network that an origin's address is an address of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The Internet.
    Public,
    /// A vnet; `None` if the one that is meant does not exist on this node.
    Private(Option<VnetId>),
}

/// How a connection reaches its origin: the decision, made once and checked again on use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From whatever address the machine's routes choose.
    Public,
    /// Bound to a source address of the vnet.
    Private {
        /// The vnet.
        vnet: VnetId,
        /// Its source address.
        source: IpAddr,
    },
}

/// Why a hand-off did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The vnet does not exist on this node, or has no source address here.
    #[error("the virtual network does not exist on this edge")]
    VnetGone,
    /// The vnet has no route to the address.
    #[error("the virtual network has no route to the origin's address")]
    NoRoute,
    /// A public name leads to an address that is not one of the Internet.
    #[error("a public name may not lead to a private or local address")]
    Prohibited,
    /// The connection's local address is not one of the vnet.
    #[error("the connection does not start from an address of the virtual network")]
    WrongSource,
}

/// Opens connections to origins. One per proxy, shared.
pub struct Handoff {
    vnets: Arc<dyn Vnets>,
    allow_local: bool,
    congestion: Congestion,
    /// The userspace back end; `None` if the kernel has the connections of vnets.
    flows: Option<Arc<dyn Flows>>,
    /// The device that they leave by there.
    device: Option<Arc<str>>,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for Handoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handoff")
            .field("allow_local", &self.allow_local)
            .finish_non_exhaustive()
    }
}

impl Handoff {
    /// A hand-off over the given tables. `allow_local` lifts the ban on public names that lead to
    /// local addresses.
    pub(crate) fn new(
        vnets: Arc<dyn Vnets>,
        allow_local: bool,
        congestion: Congestion,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            vnets,
            allow_local,
            congestion,
            flows: None,
            device: None,
            counters,
        }
    }

    /// Opens connections of vnets by userspace flows.
    pub(crate) fn with_flows(mut self, flows: Option<Arc<dyn Flows>>) -> Self {
        self.flows = flows;
        self
    }

    /// Has the kernel's connections of vnets leave by this device alone.
    pub(crate) fn with_device(mut self, device: Option<String>) -> Self {
        self.device = device.map(Arc::from);
        self
    }

    /// Chooses how to reach `to`.
    ///
    /// # Errors
    /// Says why there is no way; the refusal is counted.
    pub fn way(&self, network: Network, to: IpAddr) -> Result<Way, Refused> {
        let way = self.choose(network, to.to_canonical());
        match way {
            Ok(_) => {}
            Err(Refused::VnetGone | Refused::NoRoute) => {
                self.counters.handoff_no_route_total.increment();
            }
            Err(Refused::Prohibited) => self.counters.handoff_prohibited_total.increment(),
            Err(Refused::WrongSource) => self.counters.handoff_wrong_source_total.increment(),
        }
        way
    }

    fn choose(&self, network: Network, to: IpAddr) -> Result<Way, Refused> {
        match network {
            Network::Public if !self.allow_local && prohibited::is_local(to) => {
                Err(Refused::Prohibited)
            }
            Network::Public => Ok(Way::Public),
            Network::Private(None) => Err(Refused::VnetGone),
            Network::Private(Some(vnet)) => {
                let source = self.vnets.source(vnet, to).ok_or(Refused::VnetGone)?;
                if !self.vnets.has_route(vnet, to) {
                    return Err(Refused::NoRoute);
                }
                Ok(Way::Private { vnet, source })
            }
        }
    }

    /// Checks that a connection really starts where `way` says: on a fresh one against a mistake
    /// of ours, on a pooled one against a pool key that somebody aimed at.
    ///
    /// # Errors
    /// [`Refused::WrongSource`], counted.
    pub fn check(&self, way: Way, local: Option<SocketAddr>) -> Result<(), Refused> {
        let local = local.map(|address| address.ip().to_canonical());
        let right = match way {
            // A connection from a vnet's source address must not carry public traffic.
            Way::Public => local.is_none_or(|ip| self.vnets.owner(ip).is_none()),
            Way::Private { vnet, .. } => local.and_then(|ip| self.vnets.owner(ip)) == Some(vnet),
        };
        if right {
            return Ok(());
        }
        self.counters.handoff_wrong_source_total.increment();
        Err(Refused::WrongSource)
    }

    /// As [`Handoff::check`], for a connection of pingora's with its descriptor. A userspace flow must
    /// also lead to `to`: the pool's key is a hash, and no part of it is compared on reuse.
    ///
    /// # Errors
    /// [`Refused::WrongSource`], counted.
    pub(crate) fn check_pooled(
        &self,
        (way, to): (Way, SocketAddr),
        descriptor: RawFd,
        local: Option<SocketAddr>,
    ) -> Result<(), Refused> {
        if self.flows.is_none() || way == Way::Public {
            return self.check(way, local);
        }
        let name = Name::of(descriptor).filter(|name| name.to == canonical(to));
        let name =
            name.filter(|name| matches!(way, Way::Private { vnet, .. } if vnet == name.vnet));
        self.check(way, name.and_then(|name| name.local))
    }

    /// Whether a host can have the address, and it is behind the tunnel: what a private network's
    /// resolver may answer, and be. Neither this machine's own addresses nor the edge's ranges are,
    /// whatever route lies around them.
    pub(crate) fn is_behind(&self, vnet: VnetId, tunnel: TunnelId, ip: IpAddr) -> bool {
        let is_host = ip == ip.to_canonical() && !address::is_impossible(ip);
        let is_free = (self.allow_local || is_host) && address::reserved_ip(ip).is_none();
        is_free && self.vnets.leads_to(vnet, ip, tunnel)
    }

    /// Whether a flow that was opened by `way` may go on: its vnet still owns the source address
    /// and still has a route to the origin.
    pub fn is_open(&self, way: Way, to: IpAddr) -> bool {
        match way {
            Way::Public => true,
            Way::Private { vnet, source } => {
                self.vnets.owner(source) == Some(vnet)
                    && self.vnets.has_route(vnet, to.to_canonical())
            }
        }
    }
}

/// An address as it is compared: IPv4 also where it was written as IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
