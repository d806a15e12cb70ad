//! Compiles what exists into what a node is told, object by object.

use std::collections::BTreeMap;

use dataplane::fib::{Candidate, Candidates, Nexthop};
use dataplane::id::{NodeId, TunnelId, VnetId};
use dataplane::program::{Relay, Route, RouteKey, Spec, Tunnel, Vnet};
use dataplane::tunnel::{self, direct, gre, wireguard};
use ipnet::{IpNet, Ipv4Net};

use super::ipsec;
use crate::model;
use crate::model::Timestamp;
use crate::model::lease;
use crate::model::static_route::StaticRoute;
use crate::model::tunnel::{HealthCheck, Kind};
use crate::rib::TEAMNET_PRIORITY;
use crate::store::Snapshot;

/// The node that is compiled for, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// Its part of the source range.
    pub slice: Ipv4Net,
    /// The time by which leases have ended or not.
    pub now: Timestamp,
}

/// The desired state of a node. A vnet is active on it when a tunnel of the vnet ends there:
/// one without a tunnel needs no source address.
pub fn spec(snapshot: &Snapshot, here: Here) -> Spec {
    let mut spec = Spec {
        revision: snapshot.revision,
        relays: relays(snapshot, here),
        ..Spec::default()
    };
    let numbers = snapshot.indexes.vnets.keys();
    spec.vnets = numbers
        .filter_map(|id| Some((*id, vnet(snapshot, *id)?)))
        .collect();
    let numbers = snapshot.indexes.tunnels.keys();
    spec.tunnels = numbers
        .filter_map(|id| Some((*id, tunnel(snapshot, *id)?)))
        .collect();
    let routes = snapshot.routes.iter();
    let routes = routes.filter_map(|route| key(snapshot, route));
    let statics = snapshot.static_routes.iter();
    let statics = statics.filter_map(|route| static_key(snapshot, route));
    spec.routes = routes
        .chain(statics)
        .filter_map(|key| Some((key, route(snapshot, key)?)))
        .collect();
    spec
}

/// Where the other nodes take packets for their slices, by slice: each of the leases that has not ended and
/// says so. A lease that has ended is nobody's, also before it is given on.
pub(super) fn relays(snapshot: &Snapshot, here: Here) -> Vec<Relay> {
    let leases = snapshot.leases.iter();
    let others = leases.filter(|lease| !here.slice.contains(&lease.slice));
    let held = others.filter(|lease| lease.is_held(here.now));
    let relays = held.filter_map(|lease| {
        Some(Relay {
            net: lease.slice,
            node: NodeId(lease::number(lease.slice)),
            address: lease.relay?,
        })
    });
    relays.collect()
}

/// A vnet as the node is to have it; `None` when it is not active there.
pub(super) fn vnet(snapshot: &Snapshot, id: VnetId) -> Option<Vnet> {
    let vnet = snapshot.vnets.get(snapshot.indexes.vnets.get(&id)?)?;
    snapshot.tunnels_of(vnet.id).next()?;
    Some(Vnet {
        name: vnet.name.clone(),
        range: snapshot.source_range(vnet.account_id),
    })
}

/// A tunnel as the node is to have it; `None` when it is not to be told of it.
pub(super) fn tunnel(snapshot: &Snapshot, id: TunnelId) -> Option<Tunnel> {
    let tunnel = snapshot.tunnels.get(snapshot.indexes.tunnels.get(&id)?)?;
    if !tunnel.is_ready() {
        return None;
    }
    let Some(vnet) = snapshot.vnets.get(&tunnel.virtual_network_id) else {
        // It is made before the tunnel and goes after it.
        tracing::error!(tunnel = %tunnel.id, "tunnel without a vnet");
        return None;
    };
    Some(Tunnel {
        vnet: vnet.number,
        name: tunnel.name.clone(),
        mtu: tunnel.mtu,
        allowed: allowed(snapshot, tunnel),
        interface: tunnel.interface.links().collect(),
        health: tunnel.health_check.as_ref().and_then(HealthCheck::config),
        kind: kind(snapshot, tunnel)?,
    })
}

fn kind(snapshot: &Snapshot, tunnel: &model::tunnel::Tunnel) -> Option<tunnel::Config> {
    match &tunnel.kind {
        Kind::WireGuard(peer) => {
            let Some(identity) = snapshot.identities.get(&tunnel.account_id) else {
                // It is made before the tunnel and goes after it.
                tracing::error!(tunnel = %tunnel.id, "tunnel without an identity");
                return None;
            };
            Some(tunnel::Config::WireGuard(wireguard::Config {
                private_key: identity.private_key,
                peer: peer.peer_public_key,
                preshared_key: peer.preshared_key,
                endpoint: peer.endpoint,
                keepalive: Some(peer.persistent_keepalive).filter(|secs| *secs != 0),
            }))
        }
        Kind::Interconnect(link) => Some(tunnel::Config::Direct(direct::Config {
            device: link.device.clone(),
            medium: match link.is_ethernet {
                true => direct::Medium::Ethernet { vlan: link.vlan },
                false => direct::Medium::Tun,
            },
        })),
        Kind::Ipsec(ipsec) => ipsec::config(tunnel, ipsec).map(tunnel::Config::IpSec),
        Kind::Gre(ours) => Some(tunnel::Config::Gre(gre_config(ours))),
    }
}

fn gre_config(tunnel: &model::tunnel::Gre) -> gre::Config {
    gre::Config {
        local: tunnel.local,
        remote: tunnel.remote,
        key_tx: tunnel.key_tx,
        key_rx: tunnel.key_rx,
        is_checksummed: tunnel.is_checksummed,
        is_sequenced: tunnel.is_sequenced,
        keepalive: tunnel.keepalive.map(|keepalive| gre::Keepalive {
            interval_secs: keepalive.interval_secs,
            retries: keepalive.retries,
        }),
        ttl: tunnel.ttl,
    }
}

/// A route as the node is to have it: every tunnel that the prefix may lead into.
pub(super) fn route(snapshot: &Snapshot, key: RouteKey) -> Option<Route> {
    let vnet = *snapshot.indexes.vnets.get(&key.vnet)?;
    let teamnet = snapshot.indexes.rib.exact(vnet, &key.prefix);
    let teamnet = teamnet.and_then(|id| snapshot.routes.get(&id));
    let teamnet = teamnet.map(|route| (route.tunnel_id, TEAMNET_PRIORITY, 1));
    let statics = snapshot.statics_at(vnet, &key.prefix);
    let statics = statics.map(|route| (route.tunnel_id, route.priority, route.share()));
    let mut members: BTreeMap<TunnelId, Candidate> = BTreeMap::new();
    for (tunnel, priority, weight) in teamnet.into_iter().chain(statics) {
        let tunnel = snapshot.tunnels.get(&tunnel)?;
        if !tunnel.is_ready() {
            continue;
        }
        let candidate = Candidate {
            nexthop: Nexthop::Tunnel(tunnel.number),
            priority,
            weight,
        };
        // A teamnet and a static route may lead into one tunnel: the more preferred stands.
        let known = members.entry(tunnel.number).or_insert(candidate);
        if priority < known.priority {
            *known = candidate;
        }
    }
    // Without any there is no route. More than the node takes are refused by the API.
    let candidates = Candidates::new(members.into_values().collect()).ok()?;
    Some(Route { candidates })
}

/// What a node calls a route.
pub(super) fn key(snapshot: &Snapshot, route: &model::route::Route) -> Option<RouteKey> {
    key_of(snapshot, route.virtual_network_id, route.network)
}

/// What a node calls the route that a static route is part of.
pub(super) fn static_key(snapshot: &Snapshot, route: &StaticRoute) -> Option<RouteKey> {
    key_of(snapshot, route.virtual_network_id, route.prefix)
}

fn key_of(snapshot: &Snapshot, vnet: uuid::Uuid, prefix: IpNet) -> Option<RouteKey> {
    let vnet = snapshot.vnets.get(&vnet)?.number;
    Some(RouteKey { vnet, prefix })
}

/// The inner sources that a tunnel's peer may use: its allowed prefixes or, without any, its routes.
pub fn allowed(snapshot: &Snapshot, tunnel: &model::tunnel::Tunnel) -> Vec<IpNet> {
    if !tunnel.allowed_prefixes.is_empty() {
        return tunnel.allowed_prefixes.clone();
    }
    let routes = snapshot.routes_into(tunnel.id).map(|route| route.network);
    let statics = snapshot.statics_into(tunnel.id).map(|route| route.prefix);
    let mut prefixes: Vec<IpNet> = routes.chain(statics).collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}
