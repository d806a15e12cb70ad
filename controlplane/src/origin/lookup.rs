//! Finds the answers in a snapshot.

use std::net::IpAddr;
use std::sync::Arc;

use ring::digest;

use super::answer::{App, Apps, Certificate, Certificates, HostAnswer, Transport};
use crate::dns::{self, Found, zone_of};
use crate::model::record::{Kind, Record};
use crate::model::vnet::Vnet;
use crate::model::zone::Zone;
use crate::model::{self, Timestamp, host_name, spectrum};
use crate::store::Snapshot;

/// Longest chain of CNAMEs that is followed: what resolvers commonly do; longer is a loop.
const CNAME_DEPTH_MAX: usize = 8;

/// Where the requests for a host go; `None` when nothing proxied has the name.
pub(crate) fn host(snapshot: &Snapshot, host: &str) -> Option<HostAnswer> {
    let host = host_name::normal(host).ok()?;
    let zone = zone_of(snapshot, &host).filter(|zone| !zone.paused)?;
    let records = records_of(snapshot, zone, &host);
    let mut serving: Vec<Arc<Record>> = records.into_iter().filter(|r| r.proxied).collect();
    if serving.is_empty() {
        return None;
    }
    if serving.iter().any(|record| record.kind == Kind::Cname) {
        serving = behind_cname(snapshot, zone, &serving);
    }
    let is_private = serving.iter().any(|record| record.is_private());
    let vnet = is_private
        .then(|| vnet_of(snapshot, zone, &serving))
        .flatten();
    let mut answer = HostAnswer {
        zone_name: zone.name.clone(),
        zone_id: zone.id.to_string(),
        account_id: zone.account_id.to_string(),
        ipv4_addresses: Vec::new(),
        ipv6_addresses: Vec::new(),
        use_private_routing: is_private,
        virtual_network_id: vnet.map(|vnet| vnet.id),
        vnet: vnet.map(|vnet| vnet.number),
        always_use_https: zone.settings.always_use_https,
        read_timeout_secs: zone.settings.read_timeout(),
        revision: snapshot.revision,
    };
    for record in &serving {
        match record.ip() {
            Some(IpAddr::V4(ip)) => answer.ipv4_addresses.push(ip),
            Some(IpAddr::V6(ip)) => answer.ipv6_addresses.push(ip),
            None => {}
        }
    }
    Some(answer)
}

/// Every layer-4 app that listens on one of the edge's addresses.
pub(crate) fn apps(snapshot: &Snapshot, edge_addresses: &[IpAddr]) -> Apps {
    let served = snapshot.apps.iter().filter(|app| {
        let zone = snapshot.zones.get(&app.zone_id);
        zone.is_some_and(|zone| !zone.paused)
    });
    let apps = served.map(|app| App {
        id: app.id.to_string(),
        zone_id: app.zone_id.to_string(),
        hostname: app.hostname.clone(),
        transport: match app.transport {
            spectrum::Transport::Tcp => Transport::Tcp,
            spectrum::Transport::Udp => Transport::Udp,
        },
        edge_addresses: app.edge_ips.of(edge_addresses),
        edge_port: app.ports.first,
        edge_port_end: app.ports.last,
        origins: app.origin_sockets(),
        origin_port_end: app.origins.first().map_or(0, |origin| origin.ports.last),
        vnet: app
            .virtual_network_id
            .and_then(|id| snapshot.vnets.get(&id))
            .map(|vnet| vnet.number),
        virtual_network_id: app.virtual_network_id,
    });
    Apps {
        revision: snapshot.revision,
        apps: apps.collect(),
    }
}

/// The certificates that customers brought, when they are not those that `known` names.
pub(crate) fn certificates(snapshot: &Snapshot, now: Timestamp, known: &str) -> Certificates {
    let valid = snapshot
        .certificates
        .iter()
        .filter(|one| one.expires_on > now);
    let mut valid: Vec<&Arc<model::certificate::Certificate>> = valid.collect();
    valid.sort_by_key(|one| (one.modified_on, one.id));
    let mut hash = digest::Context::new(&digest::SHA256);
    for one in &valid {
        let named = names_of(snapshot, one);
        hash.update(format!("{}{:?}{named:?}", one.id, one.modified_on).as_bytes());
    }
    let hash = hash.finish();
    let etag: String = hash
        .as_ref()
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect();
    let shown = |one: &Arc<model::certificate::Certificate>| Certificate {
        names: names_of(snapshot, one),
        chain: one.chain.clone(),
        private_key: one.private_key.reveal().to_owned(),
    };
    Certificates {
        certificates: (etag != known).then(|| valid.into_iter().map(shown).collect()),
        etag,
    }
}

/// The names of its own zone: a certificate says nothing about who has the others.
fn names_of(snapshot: &Snapshot, one: &model::certificate::Certificate) -> Vec<String> {
    let is_own = |host: &&String| {
        let bare = host.strip_prefix("*.").unwrap_or(host);
        zone_of(snapshot, bare).is_some_and(|zone| zone.id == one.zone_id)
    };
    one.hosts.iter().filter(is_own).cloned().collect()
}

/// The records that answer for a name, as DNS sees it: none at or below a name that NS records hand to others.
pub(crate) fn records_of(snapshot: &Snapshot, zone: &Zone, name: &str) -> Vec<Arc<Record>> {
    if dns::delegation(snapshot, zone, name).is_some() {
        return Vec::new();
    }
    match dns::find(snapshot, zone, name) {
        Found::Node(node) => node.records,
        Found::Nothing => Vec::new(),
    }
}

/// The address records at the end of a chain of CNAMEs, all inside zones of one account.
fn behind_cname(snapshot: &Snapshot, zone: &Zone, start: &[Arc<Record>]) -> Vec<Arc<Record>> {
    let mut records = start.to_vec();
    for _ in 0..CNAME_DEPTH_MAX {
        let cname = records.iter().find(|record| record.kind == Kind::Cname);
        let Some(target) = cname.map(|record| record.content.clone()) else {
            return records;
        };
        let next = zone_of(snapshot, &target).filter(|next| next.account_id == zone.account_id);
        records = match next {
            Some(next) => records_of(snapshot, next, &target),
            None => Vec::new(),
        };
    }
    Vec::new()
}

/// The vnet of a private name: the one its records name, or the account's default.
fn vnet_of<'a>(
    snapshot: &'a Snapshot,
    zone: &Zone,
    records: &[Arc<Record>],
) -> Option<&'a Arc<Vnet>> {
    match records.iter().find_map(|record| record.virtual_network_id) {
        Some(id) => snapshot.vnets.get(&id),
        None => snapshot.default_vnet(zone.account_id),
    }
}
