//! Rules between resources, one for every product: is there a route, who may send from a prefix.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

use crate::model::record::Record;
use crate::model::spectrum::App;
use crate::model::tunnel::Tunnel;
use crate::model::{HexId, address};
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
    let account = snapshot.vnets.get(&vnet).map(|vnet| vnet.account_id);
    if let Some(account) = account {
        check_outside(snapshot, account, &IpNet::from(ip))?;
    }
    match snapshot.indexes.rib.covering(vnet, ip) {
        Some(_) => Ok(()),
        None => Err(format!(
            "{ip} has no route in virtual network '{name}' ({vnet}): first add a route that covers \
             it (POST /accounts/ACCOUNT/teamnet/routes or magic/routes), or name another virtual_network_id."
        )),
    }
}

/// Whether a private network of the account may have this prefix: not inside the account's source range. Around
/// it is fine, the source range is the longer prefix.
///
/// # Errors
/// A sentence that names both.
pub(super) fn check_outside(
    snapshot: &Snapshot,
    account: HexId,
    prefix: &IpNet,
) -> Result<(), String> {
    let range = snapshot.source_range(account).net();
    if !IpNet::V4(range).contains(prefix) {
        return Ok(());
    }
    Err(format!(
        "{prefix} lies inside {range}, which is reserved for source addresses of the edge: choose another, or \
         another source range (PATCH /accounts/ACCOUNT/zerotrust/subnets/cloudflare_source/v4)."
    ))
}

/// Who in the account has addresses of a source range that it might choose, in words; `None` when nobody has.
pub(super) fn user_of_range(snapshot: &Snapshot, account: HexId, range: Ipv4Net) -> Option<String> {
    let range = IpNet::V4(range);
    let routes = snapshot.routes_of(account).map(|route| route.network);
    let statics = snapshot.statics_of(account).map(|route| route.prefix);
    if let Some(prefix) = routes.chain(statics).find(|prefix| range.contains(prefix)) {
        return Some(format!("the route of {prefix} lies inside it"));
    }
    for tunnel in snapshot.tunnels_in(account) {
        let links = tunnel.interface.links().map(|link| link.trunc());
        let mut prefixes = links.chain(tunnel.allowed_prefixes.iter().copied());
        let is_target = |ip: &IpAddr| range.contains(ip);
        if let Some(ip) = tunnel.inner_target().filter(is_target) {
            return Some(format!(
                "{ip}, which probes of tunnel '{}' go to, lies inside it",
                tunnel.name
            ));
        }
        if let Some(prefix) = prefixes.find(|prefix| range.contains(prefix)) {
            return Some(format!(
                "{prefix} of tunnel '{}' lies inside it",
                tunnel.name
            ));
        }
    }
    let mut resolvers = snapshot
        .hostname_routes_of(account)
        .flat_map(|route| &route.resolver_ips);
    if let Some(ip) = resolvers.find(|ip| range.contains(*ip)) {
        return Some(format!("resolver {ip} of a hostname route lies inside it"));
    }
    // No index leads from an address to them, and no account changes its range often.
    let of_account = |zone| {
        snapshot
            .zones
            .get(&zone)
            .is_some_and(|zone| zone.account_id == account)
    };
    let is_inside = |ip: IpAddr| range.contains(&ip);
    let mut records = snapshot.records.iter();
    let is_user = |record: &&Arc<Record>| {
        record.is_private() && record.ip().is_some_and(is_inside) && of_account(record.zone_id)
    };
    if let Some(record) = records.find(is_user) {
        return Some(format!(
            "record {} has {}, inside it",
            record.name, record.content
        ));
    }
    let mut apps = snapshot.apps.iter();
    let is_user = |app: &&Arc<App>| {
        let is_private = app.virtual_network_id.is_some();
        is_private
            && app.origins.iter().any(|origin| is_inside(origin.ip))
            && of_account(app.zone_id)
    };
    let app = apps.find(is_user)?;
    Some(format!(
        "Spectrum app {} of {} has an origin inside it",
        app.id, app.hostname
    ))
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
