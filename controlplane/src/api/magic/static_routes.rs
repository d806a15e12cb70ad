//! `/accounts/{account}/magic/routes`: prefixes, and the customer's side of a tunnel.

use std::sync::Arc;

use axum::extract::State;
use dataplane::fib::CANDIDATES_MAX;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::context::{self, Shared};
use super::super::coverage;
use super::super::envelope::{Answer, one};
use super::super::input::{At, Body};
use super::super::operation::{self, Routes, does};
use super::super::routes::{TAKEN, UNKNOWN, vnet_of};
use super::tunnels::entries;
use super::write::Writing;
use super::{about, show};
use crate::model::route::INVALID;
use crate::model::static_route::{Draft, StaticRoute};
use crate::model::tunnel::Tunnel;
use crate::model::{Fields, HexId, Refusal};
use crate::store::{Snapshot, Transaction};

pub(super) fn routes() -> Routes {
    use about::{NAMED_ROUTES, REHEARSAL, route_examples};
    let (all, each) = (
        "/accounts/{account}/magic/routes",
        "/accounts/{account}/magic/routes/{route}",
    );
    let read_route: operation::Read = |fields| Draft::read(fields, None).map(drop);
    let many = operation::Body::Many("routes", read_route, route_examples);
    let new = does("Make a static route").asks(REHEARSAL);
    let new = new.takes(read_route, route_examples);
    let changed = does("Change a static route").asks(REHEARSAL);
    let changed = changed.takes_part(read_route, route_examples);
    let changed_all = does("Change static routes, all or none").asks(REHEARSAL);
    let gone = does("Delete a static route").asks(REHEARSAL);
    let gone_all = does("Delete the static routes that the body names; without one, all");
    let gone_all = gone_all.asks(REHEARSAL).takes_body(NAMED_ROUTES);
    Routes::new()
        .on(
            (Method::GET, all),
            list,
            does("List static routes").gives(about::ROUTES),
        )
        .on((Method::POST, all), create, new.gives(about::MADE_ROUTE))
        .on(
            (Method::PUT, all),
            bulk,
            changed_all.takes_body(many).gives(about::CHANGED_ROUTES),
        )
        .on(
            (Method::DELETE, all),
            empty,
            gone_all.gives(about::GONE_ROUTES),
        )
        .on(
            (Method::GET, each),
            read,
            does("Show a static route").gives(about::ONE_ROUTE),
        )
        .on(
            (Method::PUT, each),
            update,
            changed.gives(about::CHANGED_ROUTE),
        )
        .on(
            (Method::DELETE, each),
            delete,
            gone.gives(about::GONE_ROUTE),
        )
}

async fn create(writing: Writing, Body(body): Body) -> Answer {
    let made = writing.run(move |transaction, account| {
        let draft = Draft::read(Fields::new(body, INVALID)?, None)?;
        let route = drafted(transaction, (account, None), draft)?;
        keep(transaction, std::slice::from_ref(&route)).map_err(|(_, why)| why)?;
        Ok(show::route(transaction.snapshot(), &route))
    });
    Ok(one(writing.made(made.await?, "routes")))
}

async fn list(State(shared): State<Shared>, At(account): At<String>) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let routes = snapshot.statics_of(account.id);
    let shown: Vec<Value> = routes.map(|route| show::route(&snapshot, route)).collect();
    Ok(one(json!({"routes": shown})))
}

async fn read(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let route = find(&snapshot, account.id, &id)?;
    Ok(one(json!({"route": show::route(&snapshot, &route)})))
}

async fn update(writing: Writing, At((_, id)): At<(String, String)>, Body(body): Body) -> Answer {
    let changed = writing.run(move |transaction, account| {
        let route = change(transaction, account, &id, body)?;
        keep(transaction, std::slice::from_ref(&route)).map_err(|(_, why)| why)?;
        Ok(show::route(transaction.snapshot(), &route))
    });
    Ok(one(writing.done("modified", "route", changed.await?)))
}

/// Changes several, all or none.
async fn bulk(writing: Writing, Body(body): Body) -> Answer {
    let changed = writing.run(move |transaction, account| {
        let place = |index: usize| format!("/routes/{index}");
        let mut routes = Vec::new();
        for (index, (id, body)) in entries(body, "routes", INVALID)?.into_iter().enumerate() {
            let route = change(transaction, account, &id, body);
            routes.push(route.map_err(|why| why.within(&place(index)))?);
        }
        keep(transaction, &routes).map_err(|(index, why)| why.within(&place(index)))?;
        let snapshot = transaction.snapshot();
        let shown = routes.iter().map(|route| show::route(snapshot, route));
        Ok(shown.collect::<Vec<Value>>())
    });
    Ok(one(writing.done("modified", "routes", changed.await?)))
}

async fn delete(writing: Writing, At((_, id)): At<(String, String)>) -> Answer {
    let deleted = writing.run(move |transaction, account| {
        let route = find(transaction.snapshot(), account, &id)?;
        let shown = show::route(transaction.snapshot(), &route);
        transaction.delete::<StaticRoute>(&route.id);
        Ok(shown)
    });
    Ok(one(writing.done("deleted", "route", deleted.await?)))
}

/// Deletes those that the body names, all or none; without a body, all.
async fn empty(writing: Writing, Body(body): Body) -> Answer {
    let deleted = writing.run(move |transaction, account| {
        let is_empty = body.as_object().is_some_and(serde_json::Map::is_empty);
        let routes: Vec<Arc<StaticRoute>> = match is_empty {
            true => transaction
                .snapshot()
                .statics_of(account)
                .cloned()
                .collect(),
            // Whoever says something, and it is not which routes, does not mean all of them.
            false => {
                let named = entries(body, "routes", INVALID)?.into_iter().enumerate();
                let found = named.map(|(index, (id, _))| {
                    let found = find(transaction.snapshot(), account, &id);
                    found.map_err(|why| why.within(&format!("/routes/{index}/id")))
                });
                found.collect::<Result<_, _>>()?
            }
        };
        let snapshot = transaction.snapshot();
        let shown: Vec<Value> = routes.iter().map(|r| show::route(snapshot, r)).collect();
        for route in &routes {
            transaction.delete::<StaticRoute>(&route.id);
        }
        Ok(shown)
    });
    Ok(one(writing.done("deleted", "routes", deleted.await?)))
}

fn change(
    transaction: &Transaction,
    account: HexId,
    id: &str,
    body: Value,
) -> Result<StaticRoute, Refusal> {
    let old = find(transaction.snapshot(), account, id)?;
    let draft = Draft::read(Fields::new(body, INVALID)?, Some(&old))?;
    drafted(transaction, (account, Some(&old)), draft)
}

/// The route as the request wants it, not yet kept: finds the tunnel of the next hop.
fn drafted(
    transaction: &Transaction,
    (account, old): (HexId, Option<&StaticRoute>),
    draft: Draft,
) -> Result<StaticRoute, Refusal> {
    let snapshot = transaction.snapshot();
    let vnet = match (draft.virtual_network_id, old) {
        (None, Some(old)) => old.virtual_network_id,
        (named, _) => vnet_of(snapshot, account, named)?,
    };
    let tunnel = tunnel_at(snapshot, account, vnet, draft.nexthop)?;
    let now = transaction.now();
    Ok(StaticRoute {
        id: old.map_or_else(HexId::random, |old| old.id),
        account_id: account,
        virtual_network_id: vnet,
        prefix: draft.prefix,
        nexthop: draft.nexthop,
        tunnel_id: tunnel.id,
        priority: draft.priority,
        weight: draft.weight,
        description: draft.description,
        created_on: old.map_or(now, |old| old.created_on),
        modified_on: now,
    })
}

/// The tunnel of the vnet whose customer's side is the next hop.
fn tunnel_at(
    snapshot: &Snapshot,
    account: HexId,
    vnet: Uuid,
    nexthop: std::net::IpAddr,
) -> Result<Arc<Tunnel>, Refusal> {
    let leads_to =
        |tunnel: &&Arc<Tunnel>| tunnel.interface.customer_sides().any(|ip| ip == nexthop);
    if let Some(tunnel) = snapshot.tunnels_of(vnet).find(leads_to) {
        return Ok(Arc::clone(tunnel));
    }
    let wrong = |why: String| Refusal::invalid(INVALID, why).at("nexthop");
    let ours = snapshot
        .tunnels_of(vnet)
        .find(|tunnel| tunnel.interface.links().any(|link| link.addr() == nexthop));
    if let Some(tunnel) = ours {
        let same = |ip: &std::net::IpAddr| ip.is_ipv4() == nexthop.is_ipv4();
        let theirs = tunnel.interface.customer_sides().find(same);
        let theirs = theirs.map_or_else(String::new, |ip| format!(", {ip}"));
        return Err(wrong(format!(
            "{nexthop} is the edge's side of tunnel '{}': give the customer's{theirs}.",
            tunnel.name
        )));
    }
    let elsewhere = snapshot.tunnels_in(account).find(leads_to);
    let hint = match elsewhere {
        Some(tunnel) => format!(
            " Tunnel '{}' of virtual network {} has it: give that 'virtual_network_id'.",
            tunnel.name, tunnel.virtual_network_id
        ),
        None => " It is the other address of a tunnel's 'interface_address'.".to_owned(),
    };
    Err(wrong(format!(
        "No tunnel of this virtual network has {nexthop} as its customer's side.{hint}"
    )))
}

/// Keeps the routes, new or changed, when all of them fit to each other and to what there is. A
/// refusal names the first that does not, by its place in the list.
fn keep(transaction: &mut Transaction, routes: &[StaticRoute]) -> Result<(), (usize, Refusal)> {
    for route in routes {
        transaction.put(route.clone());
    }
    for (index, route) in routes.iter().enumerate() {
        check(transaction.snapshot(), route).map_err(|refusal| (index, refusal))?;
    }
    Ok(())
}

fn check(snapshot: &Snapshot, route: &StaticRoute) -> Result<(), Refusal> {
    let vnet = route.virtual_network_id;
    coverage::check_outside(snapshot, route.account_id, &route.prefix)
        .map_err(|why| Refusal::invalid(INVALID, why).at("prefix"))?;
    let others = || {
        let all = snapshot.statics_at(vnet, &route.prefix);
        all.filter(|other| other.id != route.id)
    };
    if others().any(|other| other.tunnel_id == route.tunnel_id) {
        let why = format!(
            "There is a route of {} into the tunnel of {} already: change that one, or name \
             another next hop.",
            route.prefix, route.nexthop
        );
        return Err(Refusal::conflict(TAKEN, why).at("nexthop"));
    }
    let teamnet = usize::from(snapshot.indexes.rib.exact(vnet, &route.prefix).is_some());
    if others().count() + teamnet >= CANDIDATES_MAX {
        let why = format!(
            "{} has {CANDIDATES_MAX} routes already, which is all.",
            route.prefix
        );
        return Err(Refusal::conflict(TAKEN, why).at("prefix"));
    }
    Ok(())
}

fn find(snapshot: &Snapshot, account: HexId, id: &str) -> Result<Arc<StaticRoute>, Refusal> {
    let found = id.parse().ok();
    let found = found.and_then(|id: HexId| snapshot.static_routes.get(&id));
    let unknown = || Refusal::not_found(UNKNOWN, "There is no such static route in this account.");
    found
        .filter(|route| route.account_id == account)
        .cloned()
        .ok_or_else(unknown)
}
