//! Builds a node's desired state.

use std::collections::BTreeMap;

use dataplane::fib::Nexthop;
use dataplane::program::{Route, RouteKey, Spec, Tunnel, Vnet};
use dataplane::tunnel;
use dataplane::tunnel::wireguard;
use ipnet::IpNet;
use uuid::Uuid;

use crate::model;
use crate::store::Snapshot;

/// The desired state of the one node. A vnet is active on it when a tunnel of the vnet ends there:
/// one without a tunnel needs no source address.
pub fn spec(snapshot: &Snapshot) -> Spec {
    let mut spec = Spec {
        revision: snapshot.revision,
        ..Spec::default()
    };
    let routes = routes_by_tunnel(snapshot);
    for tunnel in snapshot.tunnels.iter() {
        let (Some(vnet), Some(identity)) = (
            snapshot.vnets.get(&tunnel.virtual_network_id),
            snapshot.identities.get(&tunnel.account_id),
        ) else {
            // Both are made before the tunnel and go after it.
            tracing::error!(tunnel = %tunnel.id, "tunnel without a vnet or identity");
            continue;
        };
        let prefixes = routes.get(&tunnel.id).map_or(&[][..], Vec::as_slice);
        spec.vnets.insert(
            vnet.number,
            Vnet {
                name: vnet.name.clone(),
            },
        );
        for prefix in prefixes {
            let key = RouteKey {
                vnet: vnet.number,
                prefix: *prefix,
            };
            spec.routes
                .insert(key, Route::from(Nexthop::Tunnel(tunnel.number)));
        }
        let kind = tunnel::Config::WireGuard(wireguard::Config {
            private_key: identity.private_key,
            peer: tunnel.peer_public_key,
            preshared_key: tunnel.preshared_key,
            endpoint: tunnel.endpoint,
            keepalive: Some(tunnel.persistent_keepalive).filter(|secs| *secs != 0),
        });
        spec.tunnels.insert(
            tunnel.number,
            Tunnel {
                vnet: vnet.number,
                name: tunnel.name.clone(),
                mtu: tunnel.mtu,
                allowed: allowed_of(tunnel, prefixes),
                kind,
            },
        );
    }
    spec
}

/// The inner sources that a tunnel's peer may use: its allowed prefixes or, without any, its routes.
pub fn allowed(snapshot: &Snapshot, tunnel: &model::tunnel::Tunnel) -> Vec<IpNet> {
    let mut prefixes: Vec<IpNet> = snapshot
        .routes
        .iter()
        .filter(|route| route.tunnel_id == tunnel.id)
        .map(|route| route.network)
        .collect();
    prefixes.sort();
    allowed_of(tunnel, &prefixes)
}

fn allowed_of(tunnel: &model::tunnel::Tunnel, routes: &[IpNet]) -> Vec<IpNet> {
    match tunnel.allowed_prefixes.is_empty() {
        true => routes.to_vec(),
        false => tunnel.allowed_prefixes.clone(),
    }
}

fn routes_by_tunnel(snapshot: &Snapshot) -> BTreeMap<Uuid, Vec<IpNet>> {
    let mut routes: BTreeMap<Uuid, Vec<IpNet>> = BTreeMap::new();
    for route in snapshot.routes.iter() {
        routes
            .entry(route.tunnel_id)
            .or_default()
            .push(route.network);
    }
    routes.values_mut().for_each(|prefixes| prefixes.sort());
    routes
}
