//! Finds the answers in a snapshot.

use std::net::IpAddr;
use std::sync::Arc;

use ring::digest;

use super::answer::{
    App, Apps, Certificate, Certificates, HostAnswer, NamedOrigin, PrivateName, Transport,
};
use crate::dns::{self, Found, zone_of};
use crate::model::hostname_route::HostnameRoute;
use crate::model::record::{Kind, Record};
use crate::model::spectrum::Connectivity;
use crate::model::vnet::Vnet;
use crate::model::zone::Zone;
use crate::model::{self, HexId, Timestamp, host_name, spectrum};
use crate::store::Snapshot;

/// Longest chain of CNAMEs that is followed: what resolvers commonly do; longer is a loop.
const CNAME_DEPTH_MAX: usize = 8;

/// Where the requests for a host go; `None` when nothing proxied has the name.
pub(crate) fn host(snapshot: &Snapshot, host: &str) -> Option<HostAnswer> {
    let host = host_name::normal(host).ok()?;
    let zone = zone_of(snapshot, &host).filter(|zone| !zone.paused)?;
    let records = records_of(snapshot, zone, &host);
    let serving: Vec<Arc<Record>> = records.into_iter().filter(|r| r.proxied).collect();
    if serving.is_empty() {
        return None;
    }
    let (serving, private_name) = match behind_cnames(snapshot, zone, serving) {
        End::Records(records) => (records, None),
        End::Named(name) => (Vec::new(), Some(name)),
    };
    let is_private = private_name.is_some() || serving.iter().any(|record| record.is_private());
    let vnet = match &private_name {
        Some(name) => vnet_numbered(snapshot, name),
        None if is_private => vnet_of(snapshot, zone, &serving),
        None => None,
    };
    let mut answer = HostAnswer {
        zone_name: zone.name.clone(),
        zone_id: zone.id.to_string(),
        account_id: zone.account_id.to_string(),
        ipv4_addresses: Vec::new(),
        ipv6_addresses: Vec::new(),
        use_private_routing: is_private,
        virtual_network_id: vnet.map(|vnet| vnet.id),
        vnet: vnet.map(|vnet| vnet.number),
        private_name,
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
    let served = snapshot.apps.iter().filter_map(|app| {
        let zone = snapshot.zones.get(&app.zone_id);
        zone.filter(|zone| !zone.paused).map(|zone| (zone, app))
    });
    Apps {
        revision: snapshot.revision,
        apps: served
            .map(|(zone, one)| app(snapshot, zone, one, edge_addresses))
            .collect(),
    }
}

fn app(snapshot: &Snapshot, zone: &Zone, app: &spectrum::App, edge: &[IpAddr]) -> App {
    let origin_name = named_origin(snapshot, zone.account_id, app);
    let vnet = match &origin_name {
        Some(origin) => vnet_numbered(snapshot, &origin.name),
        None => {
            let id = app.virtual_network_id;
            id.and_then(|id| snapshot.vnets.get(&id))
        }
    };
    let vnet_id = app.virtual_network_id.or_else(|| vnet.map(|vnet| vnet.id));
    App {
        id: app.id.to_string(),
        zone_id: app.zone_id.to_string(),
        hostname: app.hostname.clone(),
        transport: match app.transport {
            spectrum::Transport::Tcp => Transport::Tcp,
            spectrum::Transport::Udp => Transport::Udp,
        },
        edge_addresses: app.edge_ips.of(edge),
        edge_port: app.ports.first,
        edge_port_end: app.ports.last,
        origins: app.origin_sockets(),
        origin_port_end: app.origin_ports().map_or(0, |ports| ports.last),
        vnet: vnet.map(|vnet| vnet.number),
        virtual_network_id: vnet_id,
        origin_name,
    }
}

/// The origin of an app that has a name in place of addresses; `None` too when no hostname route has
/// the name any more.
fn named_origin(snapshot: &Snapshot, account: HexId, app: &spectrum::App) -> Option<NamedOrigin> {
    let origin = app.origin_dns.as_ref()?;
    let route = snapshot.hostname_route(account, &origin.name)?;
    Some(NamedOrigin {
        name: private_name(snapshot, route, &origin.name)?,
        port: origin.ports.first,
        ipv4: origin.family != Connectivity::Ipv6,
        ipv6: origin.family != Connectivity::Ipv4,
    })
}

fn private_name(snapshot: &Snapshot, route: &HostnameRoute, name: &str) -> Option<PrivateName> {
    let tunnel = snapshot.tunnels.get(&route.tunnel_id)?;
    Some(PrivateName {
        account_id: route.account_id.to_string(),
        route_id: route.id,
        name: name.to_owned(),
        resolvers: route.resolver_ips.clone(),
        vnet: snapshot.vnets.get(&tunnel.virtual_network_id)?.number,
        tunnel: tunnel.number,
    })
}

fn vnet_numbered<'a>(snapshot: &'a Snapshot, name: &PrivateName) -> Option<&'a Arc<Vnet>> {
    let id = snapshot.indexes.vnets.get(&name.vnet)?;
    snapshot.vnets.get(id)
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

/// The end of a chain of CNAMEs.
enum End {
    /// Records of zones of one account, with addresses among them or without.
    Records(Vec<Arc<Record>>),
    /// A name that a private network's resolver is asked for.
    Named(PrivateName),
}

/// Follows CNAMEs inside zones of one account, up to the first name that has a hostname route: that
/// one is private, whatever the zones say of it.
fn behind_cnames(snapshot: &Snapshot, zone: &Zone, mut records: Vec<Arc<Record>>) -> End {
    for _ in 0..CNAME_DEPTH_MAX {
        let cname = records.iter().find(|record| record.kind == Kind::Cname);
        let Some(target) = cname.map(|record| record.content.clone()) else {
            return End::Records(records);
        };
        if let Some(route) = snapshot.hostname_route(zone.account_id, &target) {
            return match private_name(snapshot, route, &target) {
                Some(name) => End::Named(name),
                None => End::Records(Vec::new()),
            };
        }
        let next = zone_of(snapshot, &target).filter(|next| next.account_id == zone.account_id);
        records = match next {
            Some(next) => records_of(snapshot, next, &target),
            None => Vec::new(),
        };
    }
    End::Records(Vec::new())
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
