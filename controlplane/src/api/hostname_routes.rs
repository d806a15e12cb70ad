//! `/accounts/{account}/zerotrust/routes/hostname`: names that resolvers in private networks know.

use std::sync::Arc;

use axum::extract::State;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::context::{self, Shared};
use super::coverage;
use super::envelope::{Answer, few, one, one_noting, page};
use super::input::{At, Body, Params};
use super::operation::{self, BOOLEAN, IP, Routes, Shape, TEXT, TIME, TIME_OR_NULL, UUID, does};
use crate::model::hostname_route::{Draft, HostnameRoute, INVALID};
use crate::model::record::Kind;
use crate::model::{Fields, HexId, Refusal, Timestamp};
use crate::store::{Snapshot, Transaction};

/// Code of a name that another hostname route has, by itself or with all around it.
const TAKEN: u32 = 1021;
/// Code of a hostname route that does not exist.
const UNKNOWN: u32 = 1022;

const ROUTE: Shape = Shape::Named(
    "HostnameRoute",
    &Shape::Object(&[
        ("id", UUID),
        ("hostname", TEXT),
        ("tunnel_id", UUID),
        ("tunnel_name", Shape::OrNull(&TEXT)),
        ("tun_type", Shape::OrNull(&TEXT)),
        ("resolver_ips", Shape::List(&IP)),
        ("comment", TEXT),
        ("created_at", TIME),
        ("deleted_at", TIME_OR_NULL),
    ]),
);

const FILTERS: &[(&str, Shape)] = &[
    ("id", UUID),
    ("hostname", TEXT),
    ("comment", TEXT),
    ("tunnel_id", UUID),
    ("is_deleted", BOOLEAN),
];

pub(super) fn routes() -> Routes {
    let all = "/accounts/{account}/zerotrust/routes/hostname";
    let each = "/accounts/{account}/zerotrust/routes/hostname/{route}";
    let examples = || {
        vec![json!({
            "hostname": "wiki.internal", "tunnel_id": operation::TUNNEL_ID,
            "resolver_ips": ["10.0.0.53"], "comment": "Office",
        })]
    };
    let list_of = does("List hostname routes").asks(FILTERS);
    let new = does("Make a hostname route")
        .takes(|fields| Draft::read(fields)?.whole().map(drop), examples);
    let changed =
        does("Change a hostname route").takes_part(|f| Draft::read(f).map(drop), examples);
    let shown = does("Show a hostname route");
    let gone = does("Delete a hostname route");
    Routes::new()
        .on((Method::GET, all), list, list_of.lists(ROUTE, 1_000))
        .on((Method::POST, all), create, new.gives(ROUTE))
        .on((Method::GET, each), read, shown.gives(ROUTE))
        .on((Method::PATCH, each), patch, changed.gives(ROUTE))
        .on((Method::DELETE, each), delete, gone.gives(ROUTE))
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let paging = params.paging(20, 1_000)?;
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let (id, tunnel) = (params.uuid("id")?, params.uuid("tunnel_id")?);
    let part = params.get("hostname").map(str::to_ascii_lowercase);
    let is_deleted = params.boolean("is_deleted")?.unwrap_or(false);
    let found = snapshot.hostname_routes_of(account.id).filter(|route| {
        !is_deleted
            && id.is_none_or(|id| route.id == id)
            && tunnel.is_none_or(|id| route.tunnel_id == id)
            && part
                .as_ref()
                .is_none_or(|part| route.hostname.contains(part))
            && params
                .get("comment")
                .is_none_or(|comment| route.comment == comment)
    });
    Ok(page(found.collect(), paging, |route| {
        show(&snapshot, route, None)
    }))
}

async fn create(State(shared): State<Shared>, At(account): At<String>, Body(body): Body) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let draft = Draft::read(Fields::new(body, INVALID)?)?;
        let comment = draft.comment.clone().unwrap_or_default();
        let (hostname, tunnel_id, resolver_ips) = draft.whole()?;
        let route = HostnameRoute {
            id: Uuid::new_v4(),
            account_id: account.id,
            hostname,
            tunnel_id,
            resolver_ips,
            comment,
            created_at: transaction.now(),
        };
        put(transaction, route)
    });
    Ok(one(shown.await?))
}

async fn read(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let route = find(&snapshot, account.id, &id)?;
    Ok(one(show(&snapshot, &route, None)))
}

async fn patch(
    State(shared): State<Shared>,
    At((account, id)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let old = find(transaction.snapshot(), account.id, &id)?;
        let draft = Draft::read(Fields::new(body, INVALID)?)?;
        let old = (*old).clone();
        let route = HostnameRoute {
            hostname: draft.hostname.unwrap_or(old.hostname),
            tunnel_id: draft.tunnel_id.unwrap_or(old.tunnel_id),
            resolver_ips: draft.resolver_ips.unwrap_or(old.resolver_ips),
            comment: draft.comment.unwrap_or(old.comment),
            ..old
        };
        put(transaction, route)
    });
    Ok(one(shown.await?))
}

async fn delete(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let gone = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let route = find(transaction.snapshot(), account.id, &id)?;
        let shown = show(transaction.snapshot(), &route, Some(transaction.now()));
        let notes: Vec<String> = users(transaction.snapshot(), &route).into_iter().collect();
        transaction.delete::<HostnameRoute>(&route.id);
        Ok((shown, notes))
    });
    let (shown, notes) = gone.await?;
    Ok(one_noting(shown, &notes))
}

/// Keeps the route when it fits to the others, and its resolvers are where it leads.
fn put(transaction: &mut Transaction, route: HostnameRoute) -> Result<Value, Refusal> {
    let snapshot = transaction.snapshot();
    let tunnel = snapshot.tunnels.get(&route.tunnel_id);
    let Some(tunnel) = tunnel.filter(|tunnel| tunnel.account_id == route.account_id) else {
        let why = format!("There is no tunnel {} in this account.", route.tunnel_id);
        return Err(Refusal::invalid(INVALID, why).at("tunnel_id"));
    };
    if let Some(other) = overlapping(snapshot, &route) {
        let why = format!(
            "The account has a hostname route for {} already: change that one, or delete it.",
            other.hostname
        );
        return Err(Refusal::conflict(TAKEN, why).at("hostname"));
    }
    for (index, ip) in route.resolver_ips.iter().enumerate() {
        coverage::check_behind(snapshot, tunnel, *ip)
            .map_err(|why| Refusal::invalid(INVALID, why).at(&format!("resolver_ips/{index}")))?;
    }
    transaction.put(route.clone());
    Ok(show(transaction.snapshot(), &route, None))
}

/// Another route of the account that has a name of this one. Only a wildcard is compared with all.
fn overlapping<'a>(
    snapshot: &'a Snapshot,
    route: &HostnameRoute,
) -> Option<&'a Arc<HostnameRoute>> {
    let is_other = |other: &&Arc<HostnameRoute>| other.id != route.id;
    let above = snapshot.hostname_route(route.account_id, &route.hostname);
    above.filter(is_other).or_else(|| {
        let is_wildcard = route.hostname.starts_with("*.");
        let all = is_wildcard.then(|| snapshot.hostname_routes_of(route.account_id));
        let mut others = all.into_iter().flatten().filter(is_other);
        others.find(|other| other.overlaps(&route.hostname))
    })
}

/// What leads to names of the route, in words; `None` when nothing does.
fn users(snapshot: &Snapshot, route: &HostnameRoute) -> Option<String> {
    let is_meant = |name: &str| {
        let found = snapshot.hostname_route(route.account_id, name);
        found.is_some_and(|found| found.id == route.id)
    };
    let zones = snapshot.zones.iter();
    let zones = zones.filter(|zone| zone.account_id == route.account_id);
    let mut names = Vec::new();
    for zone in zones {
        let records = snapshot.records_of(zone.id);
        let cnames = records.filter(|r| r.proxied && r.kind == Kind::Cname && is_meant(&r.content));
        names.extend(cnames.map(|record| record.name.clone()));
        let apps = snapshot.apps_of(zone.id).filter(|app| {
            let origin = app.origin_dns.as_ref();
            origin.is_some_and(|origin| is_meant(&origin.name))
        });
        names.extend(apps.map(|app| format!("{} (app {})", app.hostname, app.id)));
    }
    (!names.is_empty()).then(|| {
        format!(
            "Led there, and are without an origin as long as nothing else has the name: {}.",
            few(&names)
        )
    })
}

fn find(snapshot: &Snapshot, account: HexId, id: &str) -> Result<Arc<HostnameRoute>, Refusal> {
    let found = id.parse().ok();
    let found = found.and_then(|id: Uuid| snapshot.hostname_routes.get(&id));
    let unknown =
        || Refusal::not_found(UNKNOWN, "There is no such hostname route in this account.");
    found
        .filter(|route| route.account_id == account)
        .cloned()
        .ok_or_else(unknown)
}

fn show(snapshot: &Snapshot, route: &HostnameRoute, deleted_at: Option<Timestamp>) -> Value {
    let tunnel = snapshot.tunnels.get(&route.tunnel_id);
    json!({
        "id": route.id,
        "hostname": route.hostname,
        "tunnel_id": route.tunnel_id,
        "tunnel_name": tunnel.map(|tunnel| tunnel.name.as_str()),
        "tun_type": tunnel.map(|tunnel| tunnel.tun_type()),
        "resolver_ips": route.resolver_ips,
        "comment": route.comment,
        "created_at": route.created_at,
        "deleted_at": deleted_at,
    })
}
