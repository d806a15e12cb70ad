//! `/accounts/{account}/teamnet/routes`

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use dataplane::fib::CANDIDATES_MAX;
use http::Method;
use imbl::OrdSet;
use ipnet::IpNet;
use serde_json::{Value, json};
use uuid::Uuid;

use super::context::{self, Shared};
use super::coverage;
use super::envelope::{Answer, one, page, page_of};
use super::input::{At, Body, Params};
use super::operation::{
    self, BOOLEAN, PREFIX, Routes, Shape, TEXT, TIME, TIME_OR_NULL, UUID, does,
};
use super::vnets;
use crate::model::fields::echo;
use crate::model::route::{Draft, INVALID, Route, parse_network};
use crate::model::{Fields, HexId, Refusal, Timestamp, address};
use crate::store::{Snapshot, Transaction};

/// Code of a prefix that has a route already.
pub(super) const TAKEN: u32 = 1014;
/// Code of a route that does not exist, or whose tunnel took it along (api.md 3.2).
pub(super) const UNKNOWN: u32 = 1015;

const ROUTE: Shape = Shape::Named(
    "Route",
    &Shape::Object(&[
        ("id", UUID),
        ("network", PREFIX),
        ("tunnel_id", UUID),
        ("tunnel_name", Shape::OrNull(&TEXT)),
        ("tun_type", Shape::OrNull(&TEXT)),
        ("virtual_network_id", UUID),
        ("virtual_network_name", Shape::OrNull(&TEXT)),
        ("comment", TEXT),
        ("created_at", TIME),
        ("deleted_at", TIME_OR_NULL),
    ]),
);

const FILTERS: &[(&str, Shape)] = &[
    ("tun_types", TEXT),
    ("comment", TEXT),
    ("network_subset", TEXT),
    ("network_superset", TEXT),
    ("route_id", UUID),
    ("tunnel_id", UUID),
    ("virtual_network_id", UUID),
    ("is_deleted", BOOLEAN),
];

const VNET: &[(&str, Shape)] = &[("virtual_network_id", UUID)];

pub(super) fn routes() -> Routes {
    let all = "/accounts/{account}/teamnet/routes";
    let each = "/accounts/{account}/teamnet/routes/{route}";
    let ip = "/accounts/{account}/teamnet/routes/ip/{ip}";
    let cidr = "/accounts/{account}/teamnet/routes/network/{cidr}";
    let examples = || {
        vec![json!({
            "network": "10.20.0.0/16", "tunnel_id": operation::TUNNEL_ID,
            "virtual_network_id": operation::VNET_ID, "comment": "Office",
        })]
    };
    let examples_of_prefix =
        || vec![json!({"tunnel_id": operation::TUNNEL_ID, "comment": "Office"})];
    let list_of = does("List routes").asks(FILTERS);
    let new = does("Make a route").takes(|fields| Draft::read(fields)?.whole().map(drop), examples);
    let changed = does("Change a route").takes_part(|f| Draft::read(f).map(drop), examples);
    let shown = does("Show the route that an address takes").asks(VNET);
    let new_of = does("Make a route of a prefix").takes(
        |fields| Draft::read(fields)?.tunnel().map(drop),
        examples_of_prefix,
    );
    let changed_of = does("Change the route of a prefix").asks(VNET);
    let changed_of = changed_of.takes_part(|f| Draft::read(f).map(drop), examples_of_prefix);
    let gone_of = does("Delete the route of a prefix").asks(VNET);
    Routes::new()
        .on((Method::GET, all), list, list_of.lists(ROUTE, 1_000))
        .on((Method::POST, all), create, new.gives(ROUTE))
        .on((Method::GET, each), read, does("Show a route").gives(ROUTE))
        .on((Method::PATCH, each), patch, changed.gives(ROUTE))
        .on(
            (Method::DELETE, each),
            delete,
            does("Delete a route").gives(ROUTE),
        )
        .on((Method::GET, ip), by_ip, shown.gives(ROUTE))
        .on((Method::POST, cidr), create_by_cidr, new_of.gives(ROUTE))
        .on(
            (Method::PATCH, cidr),
            patch_by_cidr,
            changed_of.gives(ROUTE),
        )
        .on((Method::DELETE, cidr), delete_by_cidr, gone_of.gives(ROUTE))
}

async fn create(State(shared): State<Shared>, At(account): At<String>, Body(body): Body) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let draft = Draft::read(Fields::new(body, INVALID)?)?;
        new(transaction, account.id, draft)
    });
    Ok(one(shown.await?))
}

async fn create_by_cidr(
    State(shared): State<Shared>,
    At((account, cidr)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let mut draft = Draft::read(Fields::new(body, INVALID)?)?;
        let network = parse_network(&decoded(&cidr))?;
        if let Some(other) = draft.network.filter(|other| *other != network) {
            let why = format!(
                "'network' is {other}, and the path says {network}: leave it out, or make them the same."
            );
            return Err(Refusal::invalid(INVALID, why).at("network"));
        }
        draft.network = Some(network);
        new(transaction, account.id, draft)
    });
    Ok(one(shown.await?))
}

async fn read(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let route = find(&snapshot, account.id, &id)?;
    Ok(one(show(&snapshot, &route, None)))
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let paging = params.paging(20, 1_000)?;
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let filter = Filter::read(&params)?;
    let own = snapshot.routes_of(account.id);
    if !filter.has_tests() {
        let total = snapshot.indexes.account_routes.get(&account.id);
        let total = total.map_or(0, OrdSet::len);
        return Ok(page_of(own, total, paging, |route| {
            show(&snapshot, route, None)
        }));
    }
    let found: Vec<_> = own
        .filter(|route| filter.is_wanted(&snapshot, route))
        .collect();
    Ok(page(found, paging, |route| show(&snapshot, route, None)))
}

async fn patch(
    State(shared): State<Shared>,
    At((account, id)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let route = find(transaction.snapshot(), account.id, &id)?;
        let draft = Draft::read(Fields::new(body, INVALID)?)?;
        changed(transaction, &route, draft)
    });
    Ok(one(shown.await?))
}

async fn patch_by_cidr(
    State(shared): State<Shared>,
    At((account, cidr)): At<(String, String)>,
    params: Params,
    Body(body): Body,
) -> Answer {
    let vnet = params.uuid("virtual_network_id")?;
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let route = find_by_cidr(transaction.snapshot(), account.id, &cidr, vnet)?;
        let draft = Draft::read(Fields::new(body, INVALID)?)?;
        changed(transaction, &route, draft)
    });
    Ok(one(shown.await?))
}

async fn delete(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let route = find(transaction.snapshot(), account.id, &id)?;
        Ok(deleted(transaction, &route))
    });
    Ok(one(shown.await?))
}

async fn delete_by_cidr(
    State(shared): State<Shared>,
    At((account, cidr)): At<(String, String)>,
    params: Params,
) -> Answer {
    let vnet = params.uuid("virtual_network_id")?;
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let route = find_by_cidr(transaction.snapshot(), account.id, &cidr, vnet)?;
        Ok(deleted(transaction, &route))
    });
    Ok(one(shown.await?))
}

async fn by_ip(
    State(shared): State<Shared>,
    At((account, ip)): At<(String, String)>,
    params: Params,
) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let ip: IpAddr = match ip.parse() {
        Ok(ip) => ip,
        Err(_) => {
            let why = format!("Could not parse input / invalid address: '{}'.", echo(&ip));
            return Err(Refusal::invalid(INVALID, why));
        }
    };
    let vnet = vnet_of(&snapshot, account.id, params.uuid("virtual_network_id")?)?;
    let covering = snapshot.indexes.rib.covering(vnet, ip);
    let shown = covering.and_then(|prefix| show_best(&snapshot, vnet, &prefix));
    let none = || {
        Refusal::not_found(
            UNKNOWN,
            format!("No route in this virtual network covers {ip}."),
        )
    };
    Ok(one(shown.ok_or_else(none)?))
}

/// The most preferred route of the prefix, a static one in the form of the others.
fn show_best(snapshot: &Snapshot, vnet: Uuid, prefix: &IpNet) -> Option<Value> {
    let teamnet = snapshot.indexes.rib.exact(vnet, prefix);
    if let Some(route) = teamnet.and_then(|id| snapshot.routes.get(&id)) {
        return Some(show(snapshot, route, None));
    }
    let statics = snapshot.statics_at(vnet, prefix);
    let best = statics.min_by_key(|route| (route.priority, route.id))?;
    let as_route = Route {
        id: best.id.uuid(),
        account_id: best.account_id,
        network: best.prefix,
        tunnel_id: best.tunnel_id,
        virtual_network_id: vnet,
        comment: best.description.clone(),
        created_at: best.created_on,
    };
    Some(show(snapshot, &as_route, None))
}

struct Filter {
    kinds: Option<Vec<String>>,
    comment: Option<String>,
    network_subset: Option<IpNet>,
    network_superset: Option<IpNet>,
    route: Option<Uuid>,
    tunnel: Option<Uuid>,
    vnet: Option<Uuid>,
    is_none: bool,
}

impl Filter {
    fn read(params: &Params) -> Result<Filter, Refusal> {
        let prefix = |name: &str| match params.get(name).map(address::parse_prefix) {
            None => Ok(None),
            Some(Ok(prefix)) => Ok(Some(prefix)),
            Some(Err(why)) => Err(Refusal::invalid(INVALID, why).at(name)),
        };
        let kinds = params.list("tun_types");
        let kinds = kinds.map(|kinds| kinds.into_iter().map(str::to_owned).collect());
        Ok(Filter {
            kinds,
            comment: params.get("comment").map(str::to_owned),
            network_subset: prefix("network_subset")?,
            network_superset: prefix("network_superset")?,
            route: params.uuid("route_id")?,
            tunnel: params.uuid("tunnel_id")?,
            vnet: params.uuid("virtual_network_id")?,
            is_none: params.boolean("is_deleted")?.unwrap_or(false),
        })
    }

    fn has_tests(&self) -> bool {
        self.is_none
            || self.kinds.is_some()
            || self.comment.is_some()
            || self.network_subset.is_some()
            || self.network_superset.is_some()
            || self.route.is_some()
            || self.tunnel.is_some()
            || self.vnet.is_some()
    }

    fn is_wanted(&self, snapshot: &Snapshot, route: &Route) -> bool {
        let is_kind = |kinds: &Vec<String>| {
            let tunnel = snapshot.tunnels.get(&route.tunnel_id);
            tunnel.is_some_and(|tunnel| kinds.iter().any(|kind| kind == tunnel.tun_type()))
        };
        !self.is_none
            && self.kinds.as_ref().is_none_or(is_kind)
            && self
                .comment
                .as_ref()
                .is_none_or(|comment| route.comment == *comment)
            && self
                .network_subset
                .is_none_or(|outer| outer.contains(&route.network))
            && self
                .network_superset
                .is_none_or(|inner| route.network.contains(&inner))
            && self.route.is_none_or(|id| route.id == id)
            && self.tunnel.is_none_or(|id| route.tunnel_id == id)
            && self.vnet.is_none_or(|id| route.virtual_network_id == id)
    }
}

fn new(transaction: &mut Transaction, account: HexId, draft: Draft) -> Result<Value, Refusal> {
    let (network, tunnel_id) = draft.whole()?;
    let route = Route {
        id: Uuid::new_v4(),
        account_id: account,
        network,
        tunnel_id,
        virtual_network_id: vnet_of(transaction.snapshot(), account, draft.virtual_network_id)?,
        comment: draft.comment.unwrap_or_default(),
        created_at: transaction.now(),
    };
    put(transaction, route)
}

fn changed(transaction: &mut Transaction, old: &Route, draft: Draft) -> Result<Value, Refusal> {
    let vnet = match draft.virtual_network_id {
        Some(id) => vnet_of(transaction.snapshot(), old.account_id, Some(id))?,
        None => old.virtual_network_id,
    };
    let route = Route {
        network: draft.network.unwrap_or(old.network),
        tunnel_id: draft.tunnel_id.unwrap_or(old.tunnel_id),
        virtual_network_id: vnet,
        comment: draft.comment.unwrap_or_else(|| old.comment.clone()),
        ..old.clone()
    };
    put(transaction, route)
}

fn put(transaction: &mut Transaction, route: Route) -> Result<Value, Refusal> {
    let snapshot = transaction.snapshot();
    let tunnel = snapshot.tunnels.get(&route.tunnel_id);
    let Some(tunnel) = tunnel
        .filter(|tunnel| tunnel.account_id == route.account_id)
        .cloned()
    else {
        let why = format!("There is no tunnel {} in this account.", route.tunnel_id);
        return Err(Refusal::invalid(INVALID, why).at("tunnel_id"));
    };
    if tunnel.virtual_network_id != route.virtual_network_id {
        let why = format!(
            "Tunnel '{}' is in virtual network {}, the route in {}: they must be in the same one.",
            tunnel.name, tunnel.virtual_network_id, route.virtual_network_id
        );
        return Err(Refusal::invalid(INVALID, why).at("virtual_network_id"));
    }
    let taken = snapshot
        .indexes
        .rib
        .exact(route.virtual_network_id, &route.network);
    if taken.is_some_and(|id| id != route.id) {
        let why = "You already have a route defined for this exact IP subnet.";
        return Err(Refusal::conflict(TAKEN, why).at("network"));
    }
    coverage::check_outside(snapshot, route.account_id, &route.network)
        .map_err(|why| Refusal::invalid(INVALID, why).at("network"))?;
    let statics = snapshot
        .statics_at(route.virtual_network_id, &route.network)
        .count();
    if taken.is_none() && statics >= CANDIDATES_MAX {
        let why = format!(
            "{} has {CANDIDATES_MAX} routes already, which is all.",
            route.network
        );
        return Err(Refusal::conflict(TAKEN, why).at("network"));
    }
    transaction.put(route.clone());
    if tunnel.allowed_prefixes.is_empty() {
        coverage::check_allowed(transaction.snapshot(), &tunnel, &[route.network])
            .map_err(|why| Refusal::conflict(TAKEN, why).at("network"))?;
    }
    Ok(show(transaction.snapshot(), &route, None))
}

fn deleted(transaction: &mut Transaction, route: &Route) -> Value {
    let shown = show(transaction.snapshot(), route, Some(transaction.now()));
    transaction.delete::<Route>(&route.id);
    shown
}

/// The named vnet of the account, or its default.
pub(super) fn vnet_of(
    snapshot: &Snapshot,
    account: HexId,
    named: Option<Uuid>,
) -> Result<Uuid, Refusal> {
    let vnet = match named {
        None => snapshot.default_vnet(account).cloned(),
        Some(id) => vnets::find(snapshot, account, &id.to_string()).ok(),
    };
    vnet.map(|vnet| vnet.id).ok_or_else(|| {
        let why = "There is no such virtual network in this account.";
        Refusal::invalid(INVALID, why).at("virtual_network_id")
    })
}

fn find(snapshot: &Snapshot, account: HexId, id: &str) -> Result<Arc<Route>, Refusal> {
    let found = id
        .parse()
        .ok()
        .and_then(|id: Uuid| snapshot.routes.get(&id));
    found
        .filter(|route| route.account_id == account)
        .cloned()
        .ok_or_else(unknown)
}

fn find_by_cidr(
    snapshot: &Snapshot,
    account: HexId,
    cidr: &str,
    vnet: Option<Uuid>,
) -> Result<Arc<Route>, Refusal> {
    let prefix = address::parse_prefix(&decoded(cidr));
    let prefix = prefix.map_err(|why| Refusal::invalid(INVALID, why).at("network"))?;
    let vnet = vnet_of(snapshot, account, vnet)?;
    let id = snapshot
        .indexes
        .rib
        .exact(vnet, &prefix)
        .ok_or_else(unknown)?;
    snapshot.routes.get(&id).cloned().ok_or_else(unknown)
}

/// The official client encodes the slash and the colons twice (api.md 15).
fn decoded(cidr: &str) -> String {
    let cidr = cidr.replace("%2F", "/").replace("%2f", "/");
    cidr.replace("%3A", ":").replace("%3a", ":")
}

fn unknown() -> Refusal {
    let why = "You are trying to modify the route for a network that isn't routed in this virtual network.";
    Refusal::not_found(UNKNOWN, why)
}

fn show(snapshot: &Snapshot, route: &Route, deleted_at: Option<Timestamp>) -> Value {
    let tunnel = snapshot.tunnels.get(&route.tunnel_id);
    let vnet = snapshot.vnets.get(&route.virtual_network_id);
    json!({
        "id": route.id,
        "network": route.network,
        "tunnel_id": route.tunnel_id,
        "tunnel_name": tunnel.map(|tunnel| tunnel.name.as_str()),
        "tun_type": tunnel.map(|tunnel| tunnel.tun_type()),
        "virtual_network_id": route.virtual_network_id,
        "virtual_network_name": vnet.map(|vnet| vnet.name.as_str()),
        "comment": route.comment,
        "created_at": route.created_at,
        "deleted_at": deleted_at,
    })
}
