//! Making, changing and deleting a tunnel of any kind: what must hold between tunnels.

use std::sync::Arc;

use dataplane::id::TunnelId;
use dataplane::program::health::Direction;
use ipnet::IpNet;
use uuid::Uuid;

use super::{TAKEN, UNKNOWN};
use crate::api::coverage;
use crate::api::envelope::few;
use crate::api::routes::vnet_of;
use crate::model::counter::Numbered;
use crate::model::hostname_route::HostnameRoute;
use crate::model::route::Route;
use crate::model::tunnel::{Gre, INVALID, Interconnect, Ipsec, Kind, Shared, Tunnel, WireGuard};
use crate::model::{Fault, HexId, Refusal};
use crate::options::Options;
use crate::program;
use crate::store::{Snapshot, Transaction};

/// Code of a tunnel that something leads into.
const IN_USE: u32 = 1018;

/// A new tunnel, not yet kept.
pub(crate) fn fresh(
    transaction: &mut Transaction,
    account: HexId,
    shared: Shared,
    kind: Kind,
) -> Result<Tunnel, Refusal> {
    let vnet =
        vnet_of(transaction.snapshot(), account, shared.virtual_network_id).map_err(|refusal| {
            Refusal {
                code: INVALID,
                ..refusal
            }
        })?;
    let number = transaction.number(Numbered::Tunnel, u32::MAX, |snapshot, number| {
        snapshot.indexes.tunnels.contains_key(&TunnelId(number))
    });
    let number =
        number.ok_or_else(|| Refusal::conflict(TAKEN, "All tunnel numbers are in use."))?;
    Ok(Tunnel {
        id: Uuid::new_v4(),
        account_id: account,
        number: TunnelId(number),
        name: shared.name,
        description: shared.description,
        virtual_network_id: vnet,
        interface: shared.interface,
        allowed_prefixes: shared.allowed_prefixes,
        mtu: shared.mtu,
        health_check: shared.health_check,
        kind,
        created_at: transaction.now(),
        modified_at: transaction.now(),
    })
}

/// The old tunnel as the request wants it, not yet kept.
pub(crate) fn amended(
    transaction: &Transaction,
    old: &Tunnel,
    shared: Shared,
    kind: Kind,
) -> Result<Tunnel, Refusal> {
    let is_moved = |id: Uuid| id != old.virtual_network_id;
    if shared.virtual_network_id.is_some_and(is_moved) {
        let why = "A tunnel stays in its virtual network: delete it and make a new one.";
        return Err(Refusal::invalid(INVALID, why).at("virtual_network_id"));
    }
    Ok(Tunnel {
        name: shared.name,
        description: shared.description,
        interface: shared.interface,
        allowed_prefixes: shared.allowed_prefixes,
        mtu: shared.mtu,
        health_check: shared.health_check,
        kind,
        modified_at: transaction.now(),
        ..old.clone()
    })
}

/// Keeps the tunnels, new or changed, when all of them fit to each other and to what there is. A
/// refusal names the first that does not, by its place in the list.
pub(crate) fn keep(
    transaction: &mut Transaction,
    options: &Options,
    tunnels: &[Tunnel],
) -> Result<(), (usize, Refusal)> {
    for tunnel in tunnels {
        transaction.put(on_its_medium(options, tunnel.clone()));
    }
    for (index, tunnel) in tunnels.iter().enumerate() {
        let fits = check(transaction.snapshot(), options, tunnel);
        fits.map_err(|refusal| (index, refusal))?;
    }
    Ok(())
}

/// Deletes the tunnel with its teamnet and hostname routes (api.md 3.2); sentences that say what went with it.
/// Static routes say a next hop themselves: as long as some lead here, it stays.
pub(crate) fn delete(
    transaction: &mut Transaction,
    tunnel: &Tunnel,
) -> Result<Vec<String>, Refusal> {
    let statics = transaction.snapshot().statics_into(tunnel.id);
    let statics: Vec<String> = statics.map(|route| route.prefix.to_string()).collect();
    if !statics.is_empty() {
        let why = format!(
            "Tunnel '{}' is the next hop of {}: delete or change them first (magic/routes).",
            tunnel.name,
            named(&statics)
        );
        return Err(Refusal::conflict(IN_USE, why));
    }
    let routes: Vec<Arc<Route>> = {
        let routes = transaction.snapshot().routes_into(tunnel.id);
        routes.cloned().collect()
    };
    for route in &routes {
        transaction.delete::<Route>(&route.id);
    }
    let hostnames: Vec<Arc<HostnameRoute>> = {
        let routes = transaction.snapshot().hostname_routes_into(tunnel.id);
        routes.cloned().collect()
    };
    for route in &hostnames {
        transaction.delete::<HostnameRoute>(&route.id);
    }
    transaction.delete::<Tunnel>(&tunnel.id);
    let prefixes = routes.iter().map(|route| route.network.to_string());
    let hostnames = hostnames.iter().map(|route| route.hostname.clone());
    let gone: Vec<String> = prefixes.chain(hostnames).collect();
    Ok(match gone.is_empty() {
        true => Vec::new(),
        false => vec![format!("Deleted with the tunnel: {}.", named(&gone))],
    })
}

/// The account's tunnel of this id, with or without dashes.
pub(crate) fn find(snapshot: &Snapshot, account: HexId, id: &str) -> Result<Arc<Tunnel>, Refusal> {
    let found = id
        .parse()
        .ok()
        .and_then(|id: Uuid| snapshot.tunnels.get(&id));
    let unknown = || Refusal::not_found(UNKNOWN, "There is no such tunnel in this account.");
    found
        .filter(|tunnel| tunnel.account_id == account)
        .cloned()
        .ok_or_else(unknown)
}

/// The system has no randomness.
pub(crate) fn no_random(_: ring::error::Unspecified) -> Refusal {
    Refusal::new(
        Fault::Ours,
        10_002,
        "The system gives no random bytes for a key: try again.",
    )
}

fn named(routes: &[String]) -> String {
    let plural = if routes.len() == 1 { "" } else { "s" };
    format!("{} route{plural} ({})", routes.len(), few(routes))
}

fn taken(name: &str, why: String) -> Refusal {
    Refusal::conflict(TAKEN, why).at(name)
}

fn check(snapshot: &Snapshot, options: &Options, tunnel: &Tunnel) -> Result<(), Refusal> {
    let mut others = snapshot
        .tunnels_in(tunnel.account_id)
        .filter(|other| other.id != tunnel.id);
    if others.any(|other| other.name == tunnel.name) {
        let why = format!("A tunnel with the name '{}' exists already.", tunnel.name);
        return Err(taken("name", why));
    }
    check_range(snapshot, tunnel)?;
    check_interface(snapshot, tunnel)?;
    check_probes(tunnel)?;
    match &tunnel.kind {
        Kind::WireGuard(wireguard) => check_wireguard(snapshot, tunnel, wireguard)?,
        Kind::Gre(gre) => check_gre(snapshot, options, tunnel, gre)?,
        Kind::Ipsec(ipsec) => check_ipsec(snapshot, options, tunnel, ipsec)?,
        Kind::Interconnect(link) => check_interconnect(snapshot, options, tunnel, link)?,
    }
    let routes = snapshot.routes_into(tunnel.id).map(|route| route.network);
    let own = match tunnel.allowed_prefixes.is_empty() {
        true => routes.collect(),
        false => program::allowed(snapshot, tunnel),
    };
    coverage::check_allowed(snapshot, tunnel, &own).map_err(|why| taken("allowed_prefixes", why))
}

/// Whether no address of the tunnel lies in the account's source range.
fn check_range(snapshot: &Snapshot, tunnel: &Tunnel) -> Result<(), Refusal> {
    let links = tunnel.interface.links();
    let links = links.map(|link| (link.trunc(), "interface_address"));
    let allowed = tunnel.allowed_prefixes.iter();
    let allowed = allowed.map(|prefix| (*prefix, "allowed_prefixes"));
    let target = tunnel.inner_target().map(IpNet::from);
    let target = target.map(|target| (target, "health_check/target"));
    for (prefix, field) in links.chain(allowed).chain(target) {
        coverage::check_outside(snapshot, tunnel.account_id, &prefix)
            .map_err(|why| Refusal::invalid(INVALID, why).at(field))?;
    }
    Ok(())
}

/// Whether there is something to probe, by the way that the answers are to come.
fn check_probes(tunnel: &Tunnel) -> Result<(), Refusal> {
    let Some(probes) = tunnel.health_check.and_then(|check| check.config()) else {
        return Ok(());
    };
    let wrong = |field: &str, why: String| Err(Refusal::invalid(INVALID, why).at(field));
    if probes.direction == Direction::Bidirectional {
        if probes.target.is_none() && tunnel.interface.links().next().is_none() {
            let why = "Probes go between two addresses: give 'interface_address', or a 'target'.";
            return wrong("health_check", why.to_owned());
        }
        return Ok(());
    }
    let (local, peer) = match &tunnel.kind {
        Kind::Gre(gre) => (gre.local, Some(gre.remote)),
        Kind::Ipsec(ipsec) => (ipsec.local, ipsec.remote),
        Kind::WireGuard(_) | Kind::Interconnect(_) => {
            let why = "Answers to unidirectional probes come past the tunnel, to its outer address, \
                       which this kind has not: 'direction' must be 'bidirectional'.";
            return wrong("health_check/direction", why.to_owned());
        }
    };
    match probes.target.or(peer) {
        Some(target) if target.is_ipv4() == local.is_ipv4() => Ok(()),
        Some(target) => {
            let why = format!(
                "Unidirectional probes go from {local} to 'target', and {target} is of the other \
                 family."
            );
            wrong("health_check/target", why)
        }
        None => {
            let why = "Unidirectional probes go to where the customer is: give \
                       'customer_endpoint', or a 'target'.";
            wrong("health_check/target", why.to_owned())
        }
    }
}

fn check_interface(snapshot: &Snapshot, tunnel: &Tunnel) -> Result<(), Refusal> {
    let field = |link: &IpNet| match link {
        IpNet::V4(_) => "interface_address",
        IpNet::V6(_) => "interface_address6",
    };
    let others = snapshot.tunnels_of(tunnel.virtual_network_id);
    for other in others.filter(|other| other.id != tunnel.id) {
        if let Some((own, theirs)) = tunnel.interface.overlap(&other.interface) {
            let why = format!(
                "{own} overlaps with {theirs} of tunnel '{}' in the same virtual network: choose \
                 another link.",
                other.name
            );
            return Err(taken(field(&own), why));
        }
    }
    for route in snapshot.statics_into(tunnel.id) {
        let is_kept = tunnel
            .interface
            .customer_sides()
            .any(|ip| ip == route.nexthop);
        if !is_kept {
            let why = format!(
                "The route of {} leads to {}, the customer's side of this tunnel: change the route \
                 first.",
                route.prefix, route.nexthop
            );
            let at = match route.nexthop.is_ipv4() {
                true => "interface_address",
                false => "interface_address6",
            };
            return Err(Refusal::conflict(IN_USE, why).at(at));
        }
    }
    Ok(())
}

fn check_wireguard(
    snapshot: &Snapshot,
    tunnel: &Tunnel,
    wireguard: &WireGuard,
) -> Result<(), Refusal> {
    let edge = snapshot.identities.get(&tunnel.account_id);
    if edge.is_some_and(|edge| edge.private_key.public() == wireguard.peer_public_key) {
        let why = "'peer_public_key' is the edge's own key: give the peer's.";
        return Err(Refusal::invalid(INVALID, why).at("peer_public_key"));
    }
    for other in snapshot.tunnels_in(tunnel.account_id) {
        let Kind::WireGuard(peer) = &other.kind else {
            continue;
        };
        if other.id != tunnel.id && peer.peer_public_key == wireguard.peer_public_key {
            let why = format!("Tunnel '{}' has this peer_public_key already.", other.name);
            return Err(taken("peer_public_key", why));
        }
    }
    Ok(())
}

/// The underlay is one for all accounts: what names a tunnel there is taken whoever has it.
fn check_gre(
    snapshot: &Snapshot,
    options: &Options,
    tunnel: &Tunnel,
    gre: &Gre,
) -> Result<(), Refusal> {
    is_ours(
        "cloudflare_gre_endpoint",
        gre.local,
        &options.gre_addresses,
        "gre",
    )?;
    for other in snapshot.tunnels_between(gre.local, gre.remote) {
        let Kind::Gre(there) = &other.kind else {
            continue;
        };
        if other.id != tunnel.id && there.key_rx == gre.key_rx {
            let why = format!(
                "There is a GRE tunnel between {} and {} with this key already: give another \
                 'key_rx' to one of them.",
                gre.local, gre.remote
            );
            return Err(taken("customer_gre_endpoint", why));
        }
    }
    Ok(())
}

fn check_ipsec(
    snapshot: &Snapshot,
    options: &Options,
    tunnel: &Tunnel,
    ipsec: &Ipsec,
) -> Result<(), Refusal> {
    is_ours(
        "cloudflare_endpoint",
        ipsec.local,
        &options.ipsec_addresses,
        "ipsec",
    )?;
    let Some(fqdn) = &ipsec.fqdn_id else {
        return Ok(());
    };
    for other in snapshot.tunnels_in(tunnel.account_id) {
        let Kind::Ipsec(there) = &other.kind else {
            continue;
        };
        let is_same = there.fqdn_id.as_ref() == Some(fqdn) && there.local == ipsec.local;
        if other.id != tunnel.id && is_same {
            let why = format!(
                "Tunnel '{}' has this fqdn_id at the same cloudflare_endpoint: change one of both.",
                other.name
            );
            return Err(taken("custom_remote_identities/fqdn_id", why));
        }
    }
    Ok(())
}

fn check_interconnect(
    snapshot: &Snapshot,
    options: &Options,
    tunnel: &Tunnel,
    link: &Interconnect,
) -> Result<(), Refusal> {
    let is_port = options.ports.contains(&link.device);
    if !is_port && !options.devices.contains(&link.device) {
        let why = "This edge hands out no such device: name one of its configuration's.";
        return Err(Refusal::invalid(INVALID, why).at("device"));
    }
    if !is_port && link.vlan.is_some() {
        let why =
            "This device is a TUN device, which has no VLANs: leave 'vlan' out, or name a port.";
        return Err(Refusal::invalid(INVALID, why).at("vlan"));
    }
    let place = (link.device.clone(), link.vlan);
    let users = snapshot.indexes.devices.get(&place);
    if users.is_some_and(|users| users.iter().any(|id| *id != tunnel.id)) {
        let (field, what) = match (is_port, link.vlan) {
            (true, Some(_)) => ("vlan", "This VLAN of the port belongs"),
            (true, None) => ("device", "What has no tag on this port belongs"),
            (false, _) => ("device", "This device belongs"),
        };
        return Err(taken(
            field,
            format!("{what} to another interconnect already."),
        ));
    }
    Ok(())
}

/// The tunnel, with what the edge's configuration says of its interface.
fn on_its_medium(options: &Options, mut tunnel: Tunnel) -> Tunnel {
    if let Kind::Interconnect(link) = &mut tunnel.kind {
        link.is_ethernet = options.ports.contains(&link.device);
    }
    tunnel
}

/// Whether the edge takes tunnels of the kind at this address.
fn is_ours(
    field: &str,
    address: std::net::IpAddr,
    ours: &[std::net::IpAddr],
    key: &str,
) -> Result<(), Refusal> {
    if ours.contains(&address) {
        return Ok(());
    }
    let why = match ours {
        [] => {
            format!("This edge takes no such tunnels: it has no address for them ([router] {key}).")
        }
        ours => {
            let ours: Vec<String> = ours.iter().map(ToString::to_string).collect();
            format!(
                "{address} is not an address of this edge: choose {}.",
                ours.join(" or ")
            )
        }
    };
    Err(Refusal::invalid(INVALID, why).at(field))
}

/// Whether the customer's address alone may say who asks: the first tunnel between two addresses
/// has that, over all accounts, and keeps it (api.md 4.3).
pub(crate) fn claims_address(snapshot: &Snapshot, tunnel: Option<Uuid>, ipsec: &Ipsec) -> bool {
    let Some(remote) = ipsec.remote else {
        return false;
    };
    let mut others = snapshot.tunnels_between(ipsec.local, remote);
    !others.any(|other| match &other.kind {
        Kind::Ipsec(there) => Some(other.id) != tunnel && there.has_address_identity,
        Kind::WireGuard(_) | Kind::Gre(_) | Kind::Interconnect(_) => false,
    })
}
