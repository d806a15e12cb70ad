//! `/accounts/{account}/explain/{host}`, of our own: which way a request for a host would go, and why.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use dataplane::program::Key;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::coverage;
use super::envelope::{Answer, one};
use super::input::At;
use crate::dns;
use crate::model::fields::echo;
use crate::model::zone::Zone;
use crate::model::{HexId, host_name};
use crate::origin;
use crate::store::Snapshot;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/accounts/{account}/explain/{host}", get(explain))
}

async fn explain(
    State(shared): State<Shared>,
    At((account, host)): At<(String, String)>,
) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let mut way = Way::default();
    let Some((host, zone)) = zone_of(&snapshot, account.id, &host, &mut way) else {
        return Ok(one(way.shown(&host)));
    };
    way.zone = json!({"id": zone.id, "name": zone.name, "paused": zone.paused});
    let records = origin::records_of(&snapshot, &zone, &host);
    way.records = records
        .iter()
        .map(|record| {
            json!({"id": record.id, "type": record.kind, "name": record.name,
                "content": record.content, "proxied": record.proxied})
        })
        .collect();
    for app in snapshot.apps_of(zone.id).filter(|app| app.hostname == host) {
        way.say(format!(
            "Connections to its ports {}-{} are those of app {}.",
            app.ports.first, app.ports.last, app.id
        ));
    }
    if zone.paused {
        way.say(format!(
            "Zone {} is paused: nothing of it is served.",
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
        proxied(&shared, &snapshot, &host, &mut way);
    }
    Ok(one(way.shown(&host)))
}

/// What is told, as it is found.
#[derive(Default)]
struct Way {
    zone: Value,
    records: Vec<Value>,
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
            "virtual_network": self.vnet,
            "origins": self.origins,
            "steps": self.steps,
        })
    }
}

fn zone_of(
    snapshot: &Snapshot,
    account: HexId,
    host: &str,
    way: &mut Way,
) -> Option<(String, Arc<Zone>)> {
    let Ok(host) = host_name::normal(host) else {
        way.say(format!("'{}' is not a host name.", echo(host)));
        return None;
    };
    // A zone of another account is none.
    let zone = dns::zone_of(snapshot, &host).filter(|zone| zone.account_id == account);
    if zone.is_none() {
        way.say(format!("No zone of this account contains {host}."));
    }
    Some((host, Arc::clone(zone?)))
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
    let Some(vnet) = vnet.filter(|_| answer.use_private_routing) else {
        for ip in addresses {
            way.is_served = true;
            way.say(format!("The proxy connects to {ip} over the Internet."));
            way.origins
                .push(json!({"address": ip, "is_private": false}));
        }
        return;
    };
    way.vnet = json!({"id": vnet.id, "name": vnet.name});
    way.say(format!(
        "Its addresses are private, in virtual network '{}'.",
        vnet.name
    ));
    for ip in addresses {
        let covering = snapshot.indexes.rib.covering(vnet.id, ip);
        let route = covering.and_then(|(_, id)| snapshot.routes.get(&id));
        let Some(route) = route else {
            let why = coverage::check(snapshot, vnet.id, ip).err();
            way.say(why.unwrap_or_else(|| format!("{ip} has no route.")));
            way.origins
                .push(json!({"address": ip, "is_private": true, "route": null}));
            continue;
        };
        let tunnel = snapshot.tunnels.get(&route.tunnel_id);
        let name = tunnel.map_or("?", |tunnel| tunnel.name.as_str());
        let seen = tunnel.and_then(|tunnel| {
            let all = shared.status.tunnels();
            all.into_iter().find(|seen| seen.id == tunnel.number)
        });
        let is_up = seen.as_ref().map(|seen| seen.is_up);
        let rejected = tunnel.and_then(|tunnel| {
            let all = shared.status.rejected();
            let key = Key::Tunnel(tunnel.number);
            all.into_iter().find(|(rejected, _)| *rejected == key)
        });
        let state = match (is_up, &rejected) {
            (_, Some((_, why))) => format!("which the node refuses: {why}"),
            (Some(true), None) => "which is up".to_owned(),
            (Some(false), None) => "which is down".to_owned(),
            (None, None) => "of which no node says anything".to_owned(),
        };
        way.is_served |= is_up == Some(true);
        way.say(format!(
            "{ip}: route {} leads into tunnel '{name}', {state}.",
            route.network
        ));
        way.origins.push(json!({
            "address": ip,
            "is_private": true,
            "route": {"id": route.id, "network": route.network, "comment": route.comment},
            "tunnel": {"id": route.tunnel_id, "name": name, "is_up": is_up,
                "endpoint": seen.and_then(|seen| seen.endpoint)},
        }));
    }
}
