//! Look-ups by something other than an id. They follow from the tables and are never stored.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::id::{TunnelId, VnetId};
use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;
use uuid::Uuid;

use super::names::Names;
use crate::model::audit::Entry;
use crate::model::hostname_route::HostnameRoute;
use crate::model::record::Record;
use crate::model::route::Route;
use crate::model::spectrum::App;
use crate::model::static_route::StaticRoute;
use crate::model::token::Token;
use crate::model::tunnel::{Kind, Tunnel};
use crate::model::vnet::Vnet;
use crate::model::zone::Zone;
use crate::model::{HexId, Timestamp};
use crate::rib::Rib;

/// What happens to an object in the indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It comes.
    Add,
    /// It goes, or changes and comes back.
    Remove,
}

/// What is looked up by something other than its id; follows from the tables. Clones share what did
/// not change.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    /// Zones by name.
    pub zones: OrdMap<String, HexId>,
    /// The records of each zone, by name.
    pub names: OrdMap<HexId, OrdSet<(Arc<str>, HexId)>>,
    /// The names that exist in each zone, and the apps that have them.
    pub tree: Names,
    /// The apps of each zone.
    pub apps: OrdMap<HexId, OrdSet<HexId>>,
    /// Routes by vnet and prefix.
    pub rib: Rib,
    /// The routes of each tunnel, by prefix.
    pub tunnel_routes: OrdMap<Uuid, OrdSet<(IpNet, Uuid)>>,
    /// The routes of each account, oldest first.
    pub account_routes: OrdMap<HexId, OrdSet<(Timestamp, Uuid)>>,
    /// The hostname routes of each account, by name.
    pub hostnames: OrdMap<HexId, OrdMap<String, Uuid>>,
    /// The hostname routes of each account, oldest first.
    pub account_hostnames: OrdMap<HexId, OrdSet<(Timestamp, Uuid)>>,
    /// The hostname routes of each tunnel, by name.
    pub tunnel_hostnames: OrdMap<Uuid, OrdSet<(String, Uuid)>>,
    /// The static routes of each tunnel, by prefix.
    pub tunnel_statics: OrdMap<Uuid, OrdSet<(IpNet, HexId)>>,
    /// The static routes of each account, oldest first.
    pub account_statics: OrdMap<HexId, OrdSet<(Timestamp, HexId)>>,
    /// The tunnels of each account, oldest first.
    pub account_tunnels: OrdMap<HexId, OrdSet<(Timestamp, Uuid)>>,
    /// The tunnels of each vnet.
    pub vnet_tunnels: OrdMap<Uuid, OrdSet<Uuid>>,
    /// GRE and IPsec tunnels by their outer ends, the edge's first, over all accounts.
    pub ends: OrdMap<(IpAddr, IpAddr), OrdSet<Uuid>>,
    /// Interconnects by their device and VLAN, over all accounts.
    pub devices: OrdMap<(String, Option<u16>), OrdSet<Uuid>>,
    /// Tunnels by the number that nodes call them.
    pub tunnels: OrdMap<TunnelId, Uuid>,
    /// Vnets by the number that nodes call them.
    pub vnets: OrdMap<VnetId, Uuid>,
    /// Tokens by their hash.
    pub tokens: OrdMap<String, HexId>,
    /// How many changes the audit log lists.
    pub audited: usize,
    /// The default vnet of each account.
    pub default_vnets: OrdMap<HexId, OrdSet<Uuid>>,
}

pub(super) fn unindexed<R>(_: &mut Indexes, _: &R, _: Step) {}

pub(super) fn audit(indexes: &mut Indexes, entry: &Entry, step: Step) {
    // An entry counts even if all its changes were too many to list.
    let changes = entry.changes.len().max(1);
    match step {
        Step::Add => indexes.audited += changes,
        Step::Remove => indexes.audited -= changes,
    }
}

pub(super) fn zone(indexes: &mut Indexes, zone: &Zone, step: Step) {
    match step {
        Step::Add => indexes.zones.insert(zone.name.clone(), zone.id),
        Step::Remove => indexes.zones.remove(&zone.name),
    };
}

pub(super) fn token(indexes: &mut Indexes, token: &Token, step: Step) {
    match step {
        Step::Add => indexes.tokens.insert(token.hash.clone(), token.id),
        Step::Remove => indexes.tokens.remove(&token.hash),
    };
}

pub(super) fn record(indexes: &mut Indexes, record: &Record, step: Step) {
    let entry = (Arc::from(record.name.as_str()), record.id);
    member(&mut indexes.names, record.zone_id, entry, step);
    match step {
        Step::Add => indexes.tree.add_record(record.zone_id, &record.name),
        Step::Remove => indexes.tree.remove_record(record.zone_id, &record.name),
    }
}

pub(super) fn app(indexes: &mut Indexes, app: &App, step: Step) {
    member(&mut indexes.apps, app.zone_id, app.id, step);
    match step {
        Step::Add => indexes.tree.add_app(app.zone_id, &app.hostname, app.id),
        Step::Remove => indexes.tree.remove_app(app.zone_id, &app.hostname, app.id),
    }
}

pub(super) fn route(indexes: &mut Indexes, route: &Route, step: Step) {
    let vnet = route.virtual_network_id;
    match step {
        Step::Add => indexes.rib.insert(vnet, route.network, route.id),
        Step::Remove => indexes.rib.remove(vnet, &route.network),
    }
    let by_prefix = (route.network, route.id);
    member(&mut indexes.tunnel_routes, route.tunnel_id, by_prefix, step);
    let by_age = (route.created_at, route.id);
    member(&mut indexes.account_routes, route.account_id, by_age, step);
}

pub(super) fn hostname_route(indexes: &mut Indexes, route: &HostnameRoute, step: Step) {
    let (account, name) = (route.account_id, route.hostname.clone());
    match step {
        Step::Add => {
            let names = indexes.hostnames.entry(account).or_default();
            names.insert(name.clone(), route.id);
        }
        Step::Remove => {
            if let Some(names) = indexes.hostnames.get_mut(&account) {
                names.remove(&name);
                if names.is_empty() {
                    indexes.hostnames.remove(&account);
                }
            }
        }
    }
    let by_age = (route.created_at, route.id);
    member(&mut indexes.account_hostnames, account, by_age, step);
    let by_name = (name, route.id);
    member(
        &mut indexes.tunnel_hostnames,
        route.tunnel_id,
        by_name,
        step,
    );
}

pub(super) fn static_route(indexes: &mut Indexes, route: &StaticRoute, step: Step) {
    let vnet = route.virtual_network_id;
    match step {
        Step::Add => indexes.rib.insert_static(vnet, route.prefix, route.id),
        Step::Remove => indexes.rib.remove_static(vnet, &route.prefix, route.id),
    }
    let by_prefix = (route.prefix, route.id);
    member(
        &mut indexes.tunnel_statics,
        route.tunnel_id,
        by_prefix,
        step,
    );
    let by_age = (route.created_on, route.id);
    member(&mut indexes.account_statics, route.account_id, by_age, step);
}

pub(super) fn tunnel(indexes: &mut Indexes, tunnel: &Tunnel, step: Step) {
    let vnet = tunnel.virtual_network_id;
    member(&mut indexes.vnet_tunnels, vnet, tunnel.id, step);
    let by_age = (tunnel.created_at, tunnel.id);
    member(
        &mut indexes.account_tunnels,
        tunnel.account_id,
        by_age,
        step,
    );
    let ends = match &tunnel.kind {
        Kind::Gre(gre) => Some((gre.local, gre.remote)),
        Kind::Ipsec(ipsec) => ipsec.remote.map(|remote| (ipsec.local, remote)),
        Kind::Interconnect(link) => {
            let place = (link.device.clone(), link.vlan);
            member(&mut indexes.devices, place, tunnel.id, step);
            None
        }
        Kind::WireGuard(_) => None,
    };
    if let Some(ends) = ends {
        member(&mut indexes.ends, ends, tunnel.id, step);
    }
    match step {
        Step::Add => indexes.tunnels.insert(tunnel.number, tunnel.id),
        Step::Remove => indexes.tunnels.remove(&tunnel.number),
    };
}

pub(super) fn vnet(indexes: &mut Indexes, vnet: &Vnet, step: Step) {
    match step {
        Step::Add => indexes.vnets.insert(vnet.number, vnet.id),
        Step::Remove => indexes.vnets.remove(&vnet.number),
    };
    if vnet.is_default_network {
        member(&mut indexes.default_vnets, vnet.account_id, vnet.id, step);
    }
}

/// Puts a member into the set of `of`, or takes it out; a set that is empty is not kept.
fn member<K: Ord + Clone, V: Ord + Clone>(
    sets: &mut OrdMap<K, OrdSet<V>>,
    of: K,
    member: V,
    step: Step,
) {
    match step {
        Step::Add => {
            sets.entry(of).or_default().insert(member);
        }
        Step::Remove => {
            let Some(set) = sets.get_mut(&of) else {
                return;
            };
            set.remove(&member);
            if set.is_empty() {
                sets.remove(&of);
            }
        }
    }
}
