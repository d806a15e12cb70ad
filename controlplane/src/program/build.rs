//! Compiles what exists into what a node is told, object by object.

use dataplane::fib::Nexthop;
use dataplane::id::{TunnelId, VnetId};
use dataplane::program::{Route, RouteKey, Spec, Tunnel, Vnet};
use dataplane::tunnel;
use dataplane::tunnel::wireguard;
use ipnet::IpNet;

use crate::model;
use crate::store::Snapshot;

/// The desired state of the one node. A vnet is active on it when a tunnel of the vnet ends there:
/// one without a tunnel needs no source address.
pub fn spec(snapshot: &Snapshot) -> Spec {
    let mut spec = Spec {
        revision: snapshot.revision,
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
    let keys = snapshot
        .routes
        .iter()
        .filter_map(|route| key(snapshot, route));
    spec.routes = keys
        .filter_map(|key| Some((key, route(snapshot, key)?)))
        .collect();
    spec
}

/// A vnet as the node is to have it; `None` when it is not active there.
pub(super) fn vnet(snapshot: &Snapshot, id: VnetId) -> Option<Vnet> {
    let vnet = snapshot.vnets.get(snapshot.indexes.vnets.get(&id)?)?;
    snapshot.tunnels_of(vnet.id).next()?;
    Some(Vnet {
        name: vnet.name.clone(),
    })
}

/// A tunnel as the node is to have it.
pub(super) fn tunnel(snapshot: &Snapshot, id: TunnelId) -> Option<Tunnel> {
    let tunnel = snapshot.tunnels.get(snapshot.indexes.tunnels.get(&id)?)?;
    let (Some(vnet), Some(identity)) = (
        snapshot.vnets.get(&tunnel.virtual_network_id),
        snapshot.identities.get(&tunnel.account_id),
    ) else {
        // Both are made before the tunnel and go after it.
        tracing::error!(tunnel = %tunnel.id, "tunnel without a vnet or identity");
        return None;
    };
    let kind = tunnel::Config::WireGuard(wireguard::Config {
        private_key: identity.private_key,
        peer: tunnel.peer_public_key,
        preshared_key: tunnel.preshared_key,
        endpoint: tunnel.endpoint,
        keepalive: Some(tunnel.persistent_keepalive).filter(|secs| *secs != 0),
    });
    Some(Tunnel {
        vnet: vnet.number,
        name: tunnel.name.clone(),
        mtu: tunnel.mtu,
        allowed: allowed(snapshot, tunnel),
        interface: Vec::new(),
        health: None,
        kind,
    })
}

/// A route as the node is to have it.
pub(super) fn route(snapshot: &Snapshot, key: RouteKey) -> Option<Route> {
    let vnet = snapshot.indexes.vnets.get(&key.vnet)?;
    let route = snapshot.indexes.rib.exact(*vnet, &key.prefix)?;
    let route = snapshot.routes.get(&route)?;
    let tunnel = snapshot.tunnels.get(&route.tunnel_id)?;
    Some(Route::from(Nexthop::Tunnel(tunnel.number)))
}

/// What a node calls a route.
pub(super) fn key(snapshot: &Snapshot, route: &model::route::Route) -> Option<RouteKey> {
    let vnet = snapshot.vnets.get(&route.virtual_network_id)?;
    Some(RouteKey {
        vnet: vnet.number,
        prefix: route.network,
    })
}

/// The inner sources that a tunnel's peer may use: its allowed prefixes or, without any, its routes.
pub fn allowed(snapshot: &Snapshot, tunnel: &model::tunnel::Tunnel) -> Vec<IpNet> {
    match tunnel.allowed_prefixes.is_empty() {
        true => {
            let routes = snapshot.routes_into(tunnel.id);
            routes.map(|route| route.network).collect()
        }
        false => tunnel.allowed_prefixes.clone(),
    }
}
