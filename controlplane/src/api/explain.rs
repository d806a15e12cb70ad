//! `/accounts/{account}/explain/{host}`, of our own: which way a request for a host would go, and why.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use dataplane::source::RANGE_V6;
use http::Method;
use ipnet::IpNet;
use serde_json::{Value, json};
use uuid::Uuid;

use super::context::{self, Shared};
use super::coverage;
use super::envelope::{Answer, one};
use super::input::At;
use super::operation::{BOOLEAN, COUNT, HEX_ID, IP, PREFIX, Routes, Shape, TEXT, UUID, does};
use super::permit::Caller;
use super::tunnels::Seen;
use crate::dns;
use crate::model::fields::echo;
use crate::model::host_name;
use crate::model::permission::{Access, Group, Scope};
use crate::model::tunnel::Tunnel;
use crate::model::vnet::Vnet;
use crate::model::zone::Zone;
use crate::origin::{self, PrivateName};
use crate::rib::TEAMNET_PRIORITY;
use crate::store::Snapshot;

const ORIGIN: Shape = Shape::Object(&[
    ("address", IP),
    ("is_private", BOOLEAN),
    ("prefix", Shape::Maybe(&Shape::OrNull(&PREFIX))),
    ("candidates", Shape::Maybe(&Shape::List(&CANDIDATE))),
]);

const CANDIDATE: Shape = Shape::Object(&[
    ("route", Shape::Map(&TEXT)),
    ("priority", COUNT),
    ("weight", COUNT),
    ("is_used", BOOLEAN),
    ("tunnel", Shape::Map(&Shape::OrNull(&TEXT))),
]);

const NAMED: Shape = Shape::Object(&[
    ("id", UUID),
    ("hostname", TEXT),
    ("asked_for", TEXT),
    ("resolvers", Shape::List(&ORIGIN)),
]);

const EXPLAINED: Shape = Shape::Object(&[
    ("host", TEXT),
    ("is_served", BOOLEAN),
    (
        "zone",
        Shape::OrNull(&Shape::Object(&[
            ("id", HEX_ID),
            ("name", TEXT),
            ("paused", BOOLEAN),
        ])),
    ),
    (
        "records",
        Shape::List(&Shape::Object(&[
            ("id", HEX_ID),
            ("type", TEXT),
            ("name", TEXT),
            ("content", TEXT),
            ("proxied", BOOLEAN),
        ])),
    ),
    (
        "apps",
        Shape::List(&Shape::Object(&[
            ("id", HEX_ID),
            ("first_port", COUNT),
            ("last_port", COUNT),
        ])),
    ),
    (
        "virtual_network",
        Shape::OrNull(&Shape::Object(&[("id", UUID), ("name", TEXT)])),
    ),
    ("hostname_route", Shape::OrNull(&NAMED)),
    ("origins", Shape::List(&ORIGIN)),
    ("steps", Shape::List(&TEXT)),
]);

pub(super) fn routes() -> Routes {
    let about = does("Explain which way a request for a host would go").gives(EXPLAINED);
    let path = "/accounts/{account}/explain/{host}";
    Routes::new().on((Method::GET, path), explain, about)
}

async fn explain(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    At((account, host)): At<(String, String)>,
) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?.id;
    // It shows records and tunnels, too.
    caller.must(Group::Dns, Access::Read, Scope::ZonesOf(account))?;
    caller.must(Group::Tunnels, Access::Read, Scope::Account(account))?;
    let mut way = Way::default();
    let Ok(name) = host_name::normal(&host) else {
        way.say(format!("'{}' is not a host name.", echo(&host)));
        return Ok(one(way.shown(&host)));
    };
    // A zone of another account is none.
    let zone = dns::zone_of(&snapshot, &name).filter(|zone| zone.account_id == account);
    match zone {
        Some(zone) => in_zone(&shared, &snapshot, zone, &name, &mut way),
        None => way.say(format!("No zone of this account contains {name}.")),
    }
    Ok(one(way.shown(&name)))
}

/// What is told, as it is found.
#[derive(Default)]
struct Way {
    zone: Value,
    records: Vec<Value>,
    apps: Vec<Value>,
    vnet: Value,
    hostname_route: Value,
    origins: Vec<Value>,
    steps: Vec<String>,
    is_served: bool,
}

impl Way {
    fn say(&mut self, step: String) {
        self.steps.push(step);
    }

    fn shown(self, host: &str) -> Value {
        json!({
            "host": echo(host),
            "is_served": self.is_served,
            "zone": self.zone,
            "records": self.records,
            "apps": self.apps,
            "virtual_network": self.vnet,
            "hostname_route": self.hostname_route,
            "origins": self.origins,
            "steps": self.steps,
        })
    }
}

fn in_zone(shared: &Shared, snapshot: &Snapshot, zone: &Zone, host: &str, way: &mut Way) {
    way.zone = json!({"id": zone.id, "name": zone.name, "paused": zone.paused});
    way.say(format!("{host} is in zone {}.", zone.name));
    let records = origin::records_of(snapshot, zone, host);
    for record in &records {
        let kind = serde_json::to_value(record.kind).unwrap_or_default();
        way.records.push(json!({
            "id": record.id, "type": kind, "name": record.name, "content": record.content,
            "proxied": record.proxied,
        }));
        let proxied = if record.proxied { "" } else { "not " };
        let kind = kind.as_str().unwrap_or("?");
        let content = echo(&record.content);
        way.say(format!(
            "Record {} {kind} {content} is {proxied}proxied.",
            record.name
        ));
    }
    for app in snapshot.apps_of(zone.id).filter(|app| app.hostname == host) {
        let (first, last) = (app.ports.first, app.ports.last);
        way.apps
            .push(json!({"id": app.id, "first_port": first, "last_port": last}));
        way.say(format!(
            "Ports {first}-{last} of it are those of app {}.",
            app.id
        ));
        if let Some(origin) = &app.origin_dns {
            let name = &origin.name;
            way.say(match snapshot.hostname_route(zone.account_id, name) {
                Some(route) => format!(
                    "Its origin {name} is asked for in the private network of hostname route {}.",
                    route.hostname
                ),
                None => format!("Its origin {name} has no hostname route: the app is not served."),
            });
        }
    }
    if zone.paused {
        way.say(format!(
            "Zone {} is paused: the edge serves nothing of it.",
            zone.name
        ));
    } else if records.is_empty() {
        way.say(format!(
            "Zone {} has no record for it, not even a wildcard.",
            zone.name
        ));
    } else if !records.iter().any(|record| record.proxied) {
        way.say("None of its records is proxied: clients go to the content themselves.".to_owned());
    } else {
        proxied(shared, snapshot, host, way);
    }
}

/// The same question that the proxy asks, then what the router would do with its answer.
fn proxied(shared: &Shared, snapshot: &Snapshot, host: &str, way: &mut Way) {
    let Some(answer) = origin::host(snapshot, host) else {
        return;
    };
    if let Some(name) = &answer.private_name {
        return named(shared, snapshot, name, way);
    }
    let v4 = answer.ipv4_addresses.iter().copied().map(IpAddr::V4);
    let v6 = answer.ipv6_addresses.iter().copied().map(IpAddr::V6);
    let addresses: Vec<IpAddr> = v4.chain(v6).collect();
    if addresses.is_empty() {
        way.say("Its records lead to no address: requests are answered with 530.".to_owned());
    }
    let vnet = answer
        .virtual_network_id
        .and_then(|id| snapshot.vnets.get(&id));
    match vnet.filter(|_| answer.use_private_routing) {
        Some(vnet) => {
            way.vnet = json!({"id": vnet.id, "name": vnet.name});
            let seen = Seen::now(shared);
            for ip in addresses {
                let (origin, is_up) = private(snapshot, &seen, vnet, ip, way);
                way.is_served |= is_up;
                way.origins.push(origin);
            }
        }
        None => {
            for ip in addresses {
                way.is_served = true;
                way.say(format!("The proxy connects to {ip} over the Internet."));
                way.origins
                    .push(json!({"address": ip, "is_private": false}));
            }
        }
    }
}

/// What is asked for by name: the way to the resolvers. What they answer only the edge knows.
fn named(shared: &Shared, snapshot: &Snapshot, name: &PrivateName, way: &mut Way) {
    let route = snapshot.hostname_routes.get(&name.route_id);
    let vnet = snapshot.indexes.vnets.get(&name.vnet);
    let vnet = vnet.and_then(|id| snapshot.vnets.get(id));
    let (Some(route), Some(vnet)) = (route, vnet) else {
        return;
    };
    way.vnet = json!({"id": vnet.id, "name": vnet.name});
    way.say(format!(
        "{} has hostname route {}: the edge asks its resolvers in virtual network '{}', and connects to an \
         address behind the same tunnel only.",
        name.name, route.hostname, vnet.name
    ));
    let seen = Seen::now(shared);
    let mut resolvers = Vec::new();
    for ip in &name.resolvers {
        way.say(format!("{ip} is a resolver of it."));
        let (resolver, is_up) = private(snapshot, &seen, vnet, *ip, way);
        way.is_served |= is_up;
        resolvers.push(resolver);
    }
    way.hostname_route = json!({
        "id": route.id, "hostname": route.hostname, "asked_for": name.name, "resolvers": resolvers,
    });
}

/// A route that covers an address, as the node weighs it.
struct Candidate<'a> {
    route: Value,
    tunnel: &'a Arc<Tunnel>,
    priority: u32,
    weight: u16,
    /// What the node adds to the priority for the tunnel's health.
    penalty: u32,
    status: &'static str,
}

impl Candidate<'_> {
    /// Those of the lowest number share the flows.
    fn rank(&self) -> u32 {
        self.priority.saturating_add(self.penalty)
    }

    fn is_up(&self) -> bool {
        matches!(self.status, "healthy" | "degraded")
    }
}

/// The routes to a private address, and whether one that is up is used.
fn private(
    snapshot: &Snapshot,
    seen: &Seen,
    vnet: &Vnet,
    ip: IpAddr,
    way: &mut Way,
) -> (Value, bool) {
    let none = json!({"address": ip, "is_private": true, "prefix": null, "candidates": []});
    if let Err(why) = coverage::check(snapshot, vnet.id, ip) {
        way.say(why);
        return (none, false);
    }
    let Some(prefix) = snapshot.indexes.rib.covering(vnet.id, ip) else {
        return (none, false);
    };
    way.say(format!(
        "{ip} is private: {prefix} covers it in virtual network '{}'.",
        vnet.name
    ));
    let range: IpNet = match ip {
        IpAddr::V4(_) => snapshot.source_range(vnet.account_id).net().into(),
        IpAddr::V6(_) => RANGE_V6.into(),
    };
    way.say(format!(
        "It sees the edge by an address of {range}, and must route that back."
    ));
    let candidates = candidates(snapshot, seen, vnet.id, prefix);
    let best = candidates.iter().map(Candidate::rank).min();
    let mut shown = Vec::new();
    let mut is_up = false;
    for one in &candidates {
        let is_used = Some(one.rank()) == best;
        let name = &one.tunnel.name;
        let used = if is_used { "is used" } else { "stands by" };
        let (priority, weight, status) = (one.priority, one.weight, one.status);
        let refused = seen.rejection(one.tunnel);
        let mut step =
            format!("Tunnel '{name}' ({status}, priority {priority}, weight {weight}) {used}.");
        if let Some(why) = refused {
            step = format!("{step} The node refuses the tunnel: {why}");
        }
        way.say(step);
        is_up |= is_used && one.is_up();
        shown.push(json!({
            "route": one.route,
            "priority": priority,
            "weight": weight,
            "is_used": is_used,
            "tunnel": {
                "id": one.tunnel.id, "name": name, "type": one.tunnel.tun_type(), "status": status,
                "refused": refused, "endpoint": seen.of(one.tunnel).and_then(|seen| seen.endpoint),
            },
        }));
    }
    let origin = json!({
        "address": ip, "is_private": true, "prefix": prefix, "candidates": shown,
    });
    (origin, is_up)
}

fn candidates<'a>(
    snapshot: &'a Snapshot,
    seen: &Seen,
    vnet: Uuid,
    prefix: IpNet,
) -> Vec<Candidate<'a>> {
    let candidate = |route: Value, tunnel: Uuid, priority, weight| {
        let tunnel = snapshot.tunnels.get(&tunnel)?;
        let health = seen.of(tunnel).and_then(|seen| seen.health.as_ref());
        Some(Candidate {
            route,
            tunnel,
            priority,
            weight,
            penalty: health.map_or(0, |health| health.state.penalty()),
            status: seen.status(tunnel),
        })
    };
    let teamnet = snapshot.indexes.rib.exact(vnet, &prefix);
    let teamnet = teamnet.and_then(|id| snapshot.routes.get(&id));
    let teamnet = teamnet.and_then(|route| {
        let shown = json!({"id": route.id, "type": "teamnet", "comment": route.comment});
        candidate(shown, route.tunnel_id, TEAMNET_PRIORITY, 1)
    });
    let statics = snapshot.statics_at(vnet, &prefix).filter_map(|route| {
        let shown = json!({"id": route.id, "type": "static", "nexthop": route.nexthop});
        candidate(shown, route.tunnel_id, route.priority, route.weight)
    });
    teamnet.into_iter().chain(statics).collect()
}
