//! `/zones/{zone}/spectrum/apps`

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::State;
use http::Method;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::coverage;
use super::envelope::{Answer, one, page};
use super::input::{At, Body, Params, wrong};
use super::operation::{self, BOOLEAN, HEX_ID, Routes, Shape, TEXT, TIME, UUID, does};
use crate::model::origin_dns;
use crate::model::spectrum::{App, Connectivity, EdgeIps, INVALID, Transport};
use crate::model::zone::Zone;
use crate::model::{Fields, HexId, Refusal, Timestamp, host_name};
use crate::options::Options;
use crate::store::{Snapshot, Transaction};

/// Code of an app that does not exist.
const UNKNOWN: u32 = 10_006;
/// Code of an edge address that the edge does not have.
const NOT_OURS: u32 = 11_019;
/// Code of an edge address and port that are taken.
const TAKEN: u32 = 11_033;
/// Code of a private origin that no route of the vnet covers.
const NO_ROUTE: u32 = 11_044;
/// Code of a name that is not in the zone.
const OTHER_ZONE: u32 = 16_001;

/// TCP ports on which the edge itself serves HTTP.
const HTTP_PORTS: [u16; 2] = [80, 443];

const APP: Shape = Shape::Named(
    "SpectrumApp",
    &Shape::Object(&[
        ("id", HEX_ID),
        ("protocol", TEXT),
        (
            "dns",
            Shape::Object(&[
                ("type", Shape::Words(&["CNAME", "ADDRESS"])),
                ("name", TEXT),
            ]),
        ),
        ("origin_direct", Shape::Maybe(&Shape::List(&TEXT))),
        (
            "origin_dns",
            Shape::Maybe(&Shape::Object(&[
                ("name", TEXT),
                ("type", Shape::Words(&["", "A", "AAAA"])),
            ])),
        ),
        ("origin_port", Shape::Maybe(&Shape::Any)),
        ("edge_ips", Shape::Map(&Shape::Any)),
        ("traffic_type", Shape::Words(&["direct"])),
        ("proxy_protocol", Shape::Words(&["off"])),
        ("tls", Shape::Words(&["off"])),
        ("ip_firewall", BOOLEAN),
        ("argo_smart_routing", BOOLEAN),
        ("virtual_network_id", Shape::Maybe(&UUID)),
        ("created_on", TIME),
        ("modified_on", TIME),
    ]),
);

const FILTERS: &[(&str, Shape)] = &[
    (
        "order",
        Shape::Words(&["protocol", "app_id", "created_on", "modified_on", "dns"]),
    ),
    ("direction", Shape::Words(&["asc", "desc"])),
];

/// One origin in a private network at any address of the edge; one on the Internet at a certain one; and one
/// that has a name in a private network.
fn examples() -> Vec<Value> {
    let name = |kind| json!({"type": kind, "name": "ssh.example.com"});
    vec![
        json!({
            "protocol": "tcp/2222", "dns": name("CNAME"), "origin_direct": ["tcp://10.0.0.50:22"],
            "virtual_network_id": operation::VNET_ID, "traffic_type": "direct",
            "edge_ips": {"type": "dynamic", "connectivity": "all"}, "proxy_protocol": "off",
            "tls": "off", "ip_firewall": false, "argo_smart_routing": false,
        }),
        json!({
            "protocol": "tcp/2223", "dns": name("ADDRESS"), "origin_direct": ["tcp://192.0.2.9:22"],
            "edge_ips": {"type": "static", "ips": ["203.0.113.1"]},
        }),
        json!({
            "protocol": "tcp/2224", "dns": name("CNAME"),
            "origin_dns": {"name": "wiki.internal", "type": "A"}, "origin_port": 22,
        }),
    ]
}

pub(super) fn routes() -> Routes {
    let (all, each) = (
        "/zones/{zone}/spectrum/apps",
        "/zones/{zone}/spectrum/apps/{app}",
    );
    let read_app = |fields| {
        let now = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
        App::read(fields, HexId::MIN, HexId::MIN, now).map(drop)
    };
    let list_of = does("List layer-4 apps").asks(FILTERS);
    let new = does("Make a layer-4 app").takes(read_app, examples);
    let changed = does("Replace a layer-4 app").takes(read_app, examples);
    let gone = does("Delete a layer-4 app");
    Routes::new()
        .on((Method::GET, all), list, list_of.lists(APP, 100))
        .on((Method::POST, all), create, new.gives(APP))
        .on(
            (Method::GET, each),
            read,
            does("Show a layer-4 app").gives(APP),
        )
        .on((Method::PUT, each), replace, changed.gives(APP))
        .on((Method::DELETE, each), delete, gone.gives(operation::GONE))
}

async fn create(State(shared): State<Shared>, At(id): At<String>, Body(body): Body) -> Answer {
    let options = shared.options.clone();
    let shown = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &id)?;
        let fields = Fields::new(body, INVALID)?;
        let app = App::read(fields, HexId::random(), zone.id, transaction.now())?;
        put(transaction, &options, &zone, app)
    });
    Ok(one(shown.await?))
}

async fn replace(
    State(shared): State<Shared>,
    At((zone, id)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let options = shared.options.clone();
    let shown = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &zone)?;
        let old = find(transaction.snapshot(), &zone, &id)?;
        let fields = Fields::new(body, INVALID)?;
        let mut app = App::read(fields, old.id, zone.id, transaction.now())?;
        app.created_on = old.created_on;
        if dns_type(&app) != dns_type(&old) {
            let why = "The dns.type of an app cannot change: make a new app.";
            return Err(Refusal::invalid(11_004, why).at("dns/type"));
        }
        put(transaction, &options, &zone, app)
    });
    Ok(one(shown.await?))
}

async fn list(State(shared): State<Shared>, At(id): At<String>, params: Params) -> Answer {
    let paging = params.paging(20, 100)?;
    let snapshot = shared.snapshot();
    let zone = context::zone(&snapshot, &id)?;
    let mut found: Vec<Arc<App>> = snapshot.apps_of(zone.id).cloned().collect();
    match params.get("order") {
        None | Some("protocol") => found.sort_by_key(|a| (a.transport, a.ports.first, a.id)),
        Some("app_id") => found.sort_by_key(|app| app.id),
        Some("created_on") => found.sort_by_key(|app| (app.created_on, app.id)),
        Some("modified_on") => found.sort_by_key(|app| (app.modified_on, app.id)),
        Some("dns") => found.sort_by_key(|app| (app.hostname.clone(), app.id)),
        Some(other) => {
            return Err(wrong(
                "order",
                "protocol, app_id, created_on, modified_on or dns",
                other,
            ));
        }
    }
    if params.is_descending()? {
        found.reverse();
    }
    Ok(page(found, paging, |app| show(&app)))
}

async fn read(State(shared): State<Shared>, At((zone, id)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let zone = context::zone(&snapshot, &zone)?;
    Ok(one(show(&*find(&snapshot, &zone, &id)?)))
}

async fn delete(State(shared): State<Shared>, At((zone, id)): At<(String, String)>) -> Answer {
    let deleted = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &zone)?;
        let app = find(transaction.snapshot(), &zone, &id)?;
        transaction.delete::<App>(&app.id);
        Ok(json!({"id": app.id}))
    });
    Ok(one(deleted.await?))
}

fn put(
    transaction: &mut Transaction,
    options: &Options,
    zone: &Zone,
    app: App,
) -> Result<Value, Refusal> {
    if !host_name::is_within(&app.hostname, &zone.name) {
        let why = format!("{} is not in zone {}.", app.hostname, zone.name);
        return Err(Refusal::invalid(OTHER_ZONE, why).at("dns/name"));
    }
    check_edge(transaction.snapshot(), options, &app)?;
    check_route(transaction.snapshot(), zone, &app)?;
    check_name(transaction.snapshot(), zone, &app)?;
    transaction.put(app.clone());
    Ok(show(&app))
}

fn check_edge(snapshot: &Snapshot, options: &Options, app: &App) -> Result<(), Refusal> {
    let edge = &options.edge_addresses;
    let addresses = app.edge_ips.of(edge);
    if let EdgeIps::Static { ips } = &app.edge_ips
        && let Some(foreign) = ips.iter().find(|ip| !edge.contains(ip))
    {
        let why = format!("{foreign} is not an address of this edge.");
        return Err(Refusal::invalid(NOT_OURS, why).at("edge_ips/ips"));
    }
    if addresses.is_empty() {
        let why = "The edge has no address of that kind.";
        return Err(Refusal::invalid(NOT_OURS, why).at("edge_ips"));
    }
    if let Some(port) = port_of_ours(options, app, &addresses) {
        let why = format!(
            "Port {}/{port} is the edge's own: choose another.",
            app.transport.name()
        );
        return Err(Refusal::invalid(TAKEN, why).at("protocol"));
    }
    for other in snapshot.apps.iter().filter(|other| other.id != app.id) {
        let is_shared = |ip: &IpAddr| addresses.contains(ip);
        let meets = other.transport == app.transport
            && other.ports.overlaps(app.ports)
            && other.edge_ips.of(edge).iter().any(is_shared);
        if meets {
            let why = format!(
                "{}/{} of the edge is in use by another app: choose another port or address.",
                app.transport.name(),
                other.ports
            );
            return Err(Refusal::invalid(TAKEN, why).at("protocol"));
        }
    }
    Ok(())
}

/// The port in the range that the edge serves itself: HTTP, HTTPS, WireGuard, or DNS.
fn port_of_ours(options: &Options, app: &App, addresses: &[IpAddr]) -> Option<u16> {
    let wireguard = options.wireguard_endpoint.as_deref();
    let wireguard = wireguard.and_then(|endpoint| endpoint.rsplit_once(':')?.1.parse().ok());
    let is_here =
        |socket: &&SocketAddr| socket.ip().is_unspecified() || addresses.contains(&socket.ip());
    let dns = options.dns_listen.iter().filter(is_here);
    let mut own: Vec<u16> = match app.transport {
        Transport::Tcp => HTTP_PORTS.to_vec(),
        Transport::Udp => wireguard.into_iter().collect(),
    };
    own.extend(dns.map(SocketAddr::port));
    own.into_iter()
        .find(|port| (app.ports.first..=app.ports.last).contains(port))
}

fn check_route(snapshot: &Snapshot, zone: &Zone, app: &App) -> Result<(), Refusal> {
    let Some(id) = app.virtual_network_id else {
        return Ok(());
    };
    let refuse = |why: String, at: &str| {
        let message = "No matching routes in the specified virtual network.";
        Err(Refusal::invalid(NO_ROUTE, message)
            .at(at)
            .because(NO_ROUTE, why))
    };
    let vnet = snapshot
        .vnets
        .get(&id)
        .filter(|vnet| vnet.account_id == zone.account_id);
    if vnet.is_none() {
        let why = format!("There is no virtual network {id} in this account.");
        return refuse(why, "virtual_network_id");
    }
    for origin in &app.origins {
        if let Err(why) = coverage::check(snapshot, id, origin.ip) {
            return refuse(why, "origin_direct/0");
        }
    }
    Ok(())
}

/// Names are resolved in private networks only: one of the Internet would have no effect.
fn check_name(snapshot: &Snapshot, zone: &Zone, app: &App) -> Result<(), Refusal> {
    let Some(origin) = &app.origin_dns else {
        return Ok(());
    };
    match snapshot.hostname_route(zone.account_id, &origin.name) {
        Some(_) => Ok(()),
        None => {
            let why = format!(
                "{} has no hostname route in this account, and names of the Internet are not resolved here: \
                 first add one (POST /accounts/ACCOUNT/zerotrust/routes/hostname).",
                origin.name
            );
            Err(Refusal::invalid(origin_dns::INVALID, why).at("origin_dns/name"))
        }
    }
}

fn find(snapshot: &Snapshot, zone: &Zone, id: &str) -> Result<Arc<App>, Refusal> {
    let found = id.parse().ok().and_then(|id| snapshot.apps.get(&id));
    let unknown = || Refusal::not_found(UNKNOWN, "There is no such app in this zone.");
    found
        .filter(|app| app.zone_id == zone.id)
        .cloned()
        .ok_or_else(unknown)
}

fn dns_type(app: &App) -> &'static str {
    match app.edge_ips {
        EdgeIps::Dynamic { .. } => "CNAME",
        EdgeIps::Static { .. } => "ADDRESS",
    }
}

fn show(app: &App) -> Value {
    let scheme = app.transport.name();
    let origin = |origin: &crate::model::spectrum::Origin| match origin.ip {
        IpAddr::V4(ip) => format!("{scheme}://{ip}:{}", origin.ports),
        IpAddr::V6(ip) => format!("{scheme}://[{ip}]:{}", origin.ports),
    };
    let origins: Vec<String> = app.origins.iter().map(origin).collect();
    let mut shown = json!({
        "id": app.id,
        "protocol": format!("{scheme}/{}", app.ports),
        "dns": {"type": dns_type(app), "name": app.hostname},
        "edge_ips": app.edge_ips,
        "traffic_type": "direct",
        "proxy_protocol": "off",
        "tls": "off",
        "ip_firewall": false,
        "argo_smart_routing": false,
        "created_on": app.created_on,
        "modified_on": app.modified_on,
    });
    match &app.origin_dns {
        None => shown["origin_direct"] = json!(origins),
        Some(origin) => {
            let kind = match origin.family {
                Connectivity::All => "",
                Connectivity::Ipv4 => "A",
                Connectivity::Ipv6 => "AAAA",
            };
            shown["origin_dns"] = json!({"name": origin.name, "type": kind});
            shown["origin_port"] = origin_dns::shown(origin.ports);
        }
    }
    if let Some(vnet) = app.virtual_network_id {
        shown["virtual_network_id"] = json!(vnet);
    }
    shown
}
