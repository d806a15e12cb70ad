//! Rules between resources, one for every product: is there a route, who may send from a prefix.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use uuid::Uuid;

use crate::model::address;
use crate::model::tunnel::Tunnel;
use crate::store::Snapshot;

/// Whether a private origin in the vnet can be reached by some route.
///
/// # Errors
/// A sentence that names the address, the vnet and what to do.
pub(super) fn check(snapshot: &Snapshot, vnet: Uuid, ip: IpAddr) -> Result<(), String> {
    let name = snapshot
        .vnets
        .get(&vnet)
        .map_or("?", |vnet| vnet.name.as_str());
    // The reserved range is the longer prefix, whatever route lies around it.
    if let Some((range, purpose)) = address::reserved_ip(ip) {
        return Err(format!(
            "{ip} lies in {range}, which is reserved for {purpose}: no origin can have it."
        ));
    }
    match snapshot.indexes.rib.covering(vnet, ip) {
        Some(_) => Ok(()),
        None => Err(format!(
            "{ip} has no route in virtual network '{name}' ({vnet}): first add a route that covers \
             it (POST /accounts/ACCOUNT/teamnet/routes or magic/routes), or name another virtual_network_id."
        )),
    }
}

/// Whether what is sent to the address goes into this very tunnel, by the longest prefix that covers it.
///
/// # Errors
/// A sentence that names the address, the tunnel and what to do.
pub(super) fn check_behind(snapshot: &Snapshot, tunnel: &Tunnel, ip: IpAddr) -> Result<(), String> {
    let vnet = tunnel.virtual_network_id;
    check(snapshot, vnet, ip)?;
    let prefix = snapshot.indexes.rib.covering(vnet, ip);
    let leads = |prefix: &IpNet| {
        let teamnet = snapshot.indexes.rib.exact(vnet, prefix);
        let teamnet = teamnet.and_then(|id| snapshot.routes.get(&id));
        teamnet.is_some_and(|route| route.tunnel_id == tunnel.id)
            || snapshot
                .statics_at(vnet, prefix)
                .any(|route| route.tunnel_id == tunnel.id)
    };
    match prefix.filter(|prefix| !leads(prefix)) {
        None => Ok(()),
        Some(prefix) => Err(format!(
            "{ip} is not behind tunnel '{}': {prefix} covers it and leads elsewhere. Add a route of this \
             tunnel that covers it, or name an address behind it.",
            tunnel.name
        )),
    }
}

/// Whether each of these prefixes, from which the peer of a tunnel may send, belongs to that tunnel
/// only. The same prefix on two would leave it to chance whose packets pass.
///
/// # Errors
/// A sentence that names the prefix and both tunnels.
pub(super) fn check_allowed(
    snapshot: &Snapshot,
    tunnel: &Tunnel,
    prefixes: &[IpNet],
) -> Result<(), String> {
    let vnet = tunnel.virtual_network_id;
    let others: Vec<&Arc<Tunnel>> = snapshot
        .tunnels_of(vnet)
        .filter(|other| other.id != tunnel.id)
        .collect();
    for prefix in prefixes {
        // A route allows its prefix on its tunnel, unless that names its allowed prefixes itself.
        let routed = snapshot.indexes.rib.exact(vnet, prefix);
        let routed = routed.and_then(|id| snapshot.routes.get(&id));
        let clash = others
            .iter()
            .find(|other| match &other.allowed_prefixes[..] {
                [] => routed.is_some_and(|route| route.tunnel_id == other.id),
                allowed => allowed.contains(prefix),
            });
        if let Some(other) = clash {
            return Err(format!(
                "{prefix} would be an allowed prefix of both tunnel '{}' and tunnel '{}' of one \
                 virtual network: give it to one of them.",
                tunnel.name, other.name
            ));
        }
    }
    Ok(())
}

/// What keeps a vnet from being deleted, in words; `None` when nothing does.
pub(super) fn users_of_vnet(snapshot: &Snapshot, vnet: Uuid) -> Option<String> {
    let records = snapshot
        .records
        .iter()
        .filter(|r| r.virtual_network_id == Some(vnet));
    let apps = snapshot
        .apps
        .iter()
        .filter(|app| app.virtual_network_id == Some(vnet));
    let counts = [
        (snapshot.indexes.rib.len(vnet), "route"),
        (snapshot.tunnels_of(vnet).count(), "tunnel"),
        (records.count(), "DNS record"),
        (apps.count(), "Spectrum app"),
    ];
    let used: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        .collect();
    (!used.is_empty()).then(|| used.join(", "))
}
