//! `/accounts/{account}/explain/{host}`, of our own: which way a request for a host would go, and why.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
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
use crate::origin;
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
                private(snapshot, &seen, vnet, ip, way);
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

fn private(snapshot: &Snapshot, seen: &Seen, vnet: &Vnet, ip: IpAddr, way: &mut Way) {
    if let Err(why) = coverage::check(snapshot, vnet.id, ip) {
        way.say(why);
        way.origins
            .push(json!({"address": ip, "is_private": true, "prefix": null, "candidates": []}));
        return;
    }
    let Some(prefix) = snapshot.indexes.rib.covering(vnet.id, ip) else {
        return;
    };
    way.say(format!(
        "{ip} is private: {prefix} covers it in virtual network '{}'.",
        vnet.name
    ));
    let candidates = candidates(snapshot, seen, vnet.id, prefix);
    let best = candidates.iter().map(Candidate::rank).min();
    let mut shown = Vec::new();
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
        way.is_served |= is_used && one.is_up();
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
    way.origins.push(json!({
        "address": ip, "is_private": true, "prefix": prefix, "candidates": shown,
    }));
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
