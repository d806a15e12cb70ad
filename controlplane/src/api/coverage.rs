//! Rules between resources, one for every product: is there a route, who may send from a prefix.

use std::net::IpAddr;

use ipnet::IpNet;
use uuid::Uuid;

use crate::model::address;
use crate::model::tunnel::Tunnel;
use crate::program;
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
             it (POST /accounts/ACCOUNT/teamnet/routes), or name another virtual_network_id."
        )),
    }
}

/// Whether each prefix that a peer of the vnet may send from belongs to one tunnel only. The same
/// prefix on two would leave it to chance whose packets pass.
///
/// # Errors
/// A sentence that names the prefix and both tunnels.
pub(super) fn check_allowed(snapshot: &Snapshot, tunnel: &Tunnel) -> Result<(), String> {
    let own = program::allowed(snapshot, tunnel);
    let others = snapshot.tunnels.iter().filter(|other| {
        other.virtual_network_id == tunnel.virtual_network_id && other.id != tunnel.id
    });
    for other in others {
        let theirs: Vec<IpNet> = program::allowed(snapshot, other);
        if let Some(prefix) = own.iter().find(|prefix| theirs.contains(prefix)) {
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
    let routes = snapshot
        .routes
        .iter()
        .filter(|route| route.virtual_network_id == vnet);
    let tunnels = snapshot
        .tunnels
        .iter()
        .filter(|tunnel| tunnel.virtual_network_id == vnet);
    let records = snapshot
        .records
        .iter()
        .filter(|r| r.virtual_network_id == Some(vnet));
    let apps = snapshot
        .apps
        .iter()
        .filter(|app| app.virtual_network_id == Some(vnet));
    let counts = [
        (routes.count(), "route"),
        (tunnels.count(), "tunnel"),
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
