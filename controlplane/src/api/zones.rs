//! `/zones`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::Method;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::envelope::{Answer, one, page};
use super::input::{At, Body, Params, wrong};
use super::operation::{self, BOOLEAN, HEX_ID, Routes, Shape, TEXT, TIME, does};
use super::permit::Caller;
use crate::model::permission::{Access, Group, Scope};
use crate::model::setting::Settings;
use crate::model::zone::{INVALID, NewZone, Zone};
use crate::model::{Fields, HexId, Refusal};
use crate::options::Options;
use crate::store::Snapshot;

/// Code of a zone that would be below another account's (the product's for any subdomain).
const SUBDOMAIN: u32 = 1116;

const ZONE: Shape = Shape::Named(
    "Zone",
    &Shape::Object(&[
        ("id", HEX_ID),
        ("name", TEXT),
        ("status", Shape::Words(&["active"])),
        ("paused", BOOLEAN),
        ("type", Shape::Words(&["full"])),
        ("development_mode", Shape::Integer(0, 0)),
        ("name_servers", Shape::List(&TEXT)),
        ("original_name_servers", Shape::OrNull(&TEXT)),
        ("original_registrar", Shape::OrNull(&TEXT)),
        ("original_dnshost", Shape::OrNull(&TEXT)),
        (
            "account",
            Shape::Object(&[("id", HEX_ID), ("name", Shape::OrNull(&TEXT))]),
        ),
        ("owner", Shape::Map(&Shape::OrNull(&TEXT))),
        ("plan", Shape::Map(&Shape::Any)),
        ("meta", Shape::Map(&Shape::Any)),
        ("permissions", Shape::List(&TEXT)),
        ("created_on", TIME),
        ("modified_on", TIME),
        ("activated_on", TIME),
    ]),
);

const FILTERS: &[(&str, Shape)] = &[
    ("name", TEXT),
    ("account.id", TEXT),
    ("account.name", TEXT),
    ("status", TEXT),
    ("type", TEXT),
    ("match", Shape::Words(&["any", "all"])),
    ("order", Shape::Words(&ORDERS)),
    ("direction", Shape::Words(&["asc", "desc"])),
];

/// What lists can be ordered by; but for the name all zones are alike in it.
const ORDERS: [&str; 5] = ["name", "status", "account.id", "account.name", "plan.id"];

/// All zones: the handlers look at each.
pub(super) fn collection() -> Routes {
    let new = does("Make a zone").takes(
        |fields| NewZone::read(fields).map(drop),
        || {
            let account = json!({"id": operation::ACCOUNT_ID, "name": "default"});
            vec![json!({"name": "new.example", "account": account, "type": "full", "jump_start": false})]
        },
    );
    let list_of = does("List zones").asks(FILTERS);
    Routes::new()
        .on((Method::GET, "/zones"), list, list_of.lists(ZONE, 1_000))
        .on((Method::POST, "/zones"), create, new.gives(ZONE))
}

/// One zone.
pub(super) fn routes() -> Routes {
    let each = "/zones/{zone}";
    let changed = does("Change a zone").takes_part(
        |fields| Zone::read_patch(fields).map(drop),
        || vec![json!({"paused": false, "type": "full"})],
    );
    let gone = does("Delete a zone, its records and its apps");
    Routes::new()
        .on((Method::GET, each), read, does("Show a zone").gives(ZONE))
        .on((Method::PATCH, each), patch, changed.gives(ZONE))
        .on((Method::DELETE, each), delete, gone.gives(operation::GONE))
}

async fn create(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Answer {
    let new = NewZone::read(Fields::new(body, INVALID)?)?;
    let options = shared.options.clone();
    let shown = shared.write(move |transaction| {
        let account_id = account_of(transaction.snapshot(), &caller, new.account_id)?;
        caller.must(Group::Zones, Access::Write, Scope::ZonesOf(account_id))?;
        if transaction.snapshot().indexes.zones.contains_key(&new.name) {
            return Err(Refusal::invalid(1061, format!("{} already exists.", new.name)).at("name"));
        }
        // Who has the zone above has its names too: nobody else may take some of them away.
        let above = crate::dns::zone_of(transaction.snapshot(), &new.name);
        if let Some(above) = above.filter(|above| above.account_id != account_id) {
            let why = format!("{} is a name in a zone of another account.", new.name);
            tracing::debug!(zone = %above.id, "refused a zone below another account's");
            return Err(Refusal::invalid(SUBDOMAIN, why).at("name"));
        }
        let zone = Zone {
            id: HexId::random(),
            account_id,
            name: new.name,
            paused: false,
            settings: Settings::default(),
            serial: 1,
            created_on: transaction.now(),
            modified_on: transaction.now(),
        };
        transaction.put(zone.clone());
        Ok(show(transaction.snapshot(), &options, &zone))
    });
    Ok(one(shown.await?))
}

async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    params: Params,
) -> Answer {
    let paging = params.paging(20, 1_000)?;
    let snapshot = shared.snapshot();
    let mut found = Vec::new();
    for zone in snapshot.zones.iter() {
        let is_visible = caller.may_zone(Group::Zones, Access::Read, zone);
        if is_visible && is_wanted(&snapshot, zone, &params)? {
            found.push(Arc::clone(zone));
        }
    }
    match params.get("order") {
        Some(other) if !ORDERS.contains(&other) => return Err(wrong("order", "name", other)),
        Some(_) | None => found.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    if params.is_descending()? {
        found.reverse();
    }
    Ok(page(found, paging, |zone| {
        show(&snapshot, &shared.options, &zone)
    }))
}

async fn read(State(shared): State<Shared>, At(id): At<String>) -> Answer {
    let snapshot = shared.snapshot();
    let zone = context::zone(&snapshot, &id)?;
    Ok(one(show(&snapshot, &shared.options, &zone)))
}

async fn patch(State(shared): State<Shared>, At(id): At<String>, Body(body): Body) -> Answer {
    let options = shared.options.clone();
    let shown = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &id)?;
        let zone = zone.patched(Fields::new(body, INVALID)?, transaction.now())?;
        transaction.put(zone.clone());
        Ok(show(transaction.snapshot(), &options, &zone))
    });
    Ok(one(shown.await?))
}

/// Takes the zone's records and apps along.
async fn delete(State(shared): State<Shared>, At(id): At<String>) -> Answer {
    let deleted = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &id)?;
        let snapshot = transaction.snapshot().clone();
        for record in snapshot.records_of(zone.id) {
            transaction.delete::<crate::model::record::Record>(&record.id);
        }
        for app in snapshot.apps_of(zone.id) {
            transaction.delete::<crate::model::spectrum::App>(&app.id);
        }
        for certificate in snapshot
            .certificates
            .iter()
            .filter(|one| one.zone_id == zone.id)
        {
            transaction.delete::<crate::model::certificate::Certificate>(&certificate.id);
        }
        transaction.delete::<Zone>(&zone.id);
        Ok(json!({"id": zone.id}))
    });
    Ok(one(deleted.await?))
}

/// The account that was named; the only one that the caller knows, when none was.
fn account_of(
    snapshot: &Snapshot,
    caller: &Caller,
    named: Option<HexId>,
) -> Result<HexId, Refusal> {
    let accounts = snapshot.accounts.iter().map(|account| account.id);
    let mut accounts = accounts.filter(|id| caller.token.knows(*id));
    match (named, accounts.next(), accounts.next()) {
        (Some(id), ..) => match snapshot.accounts.get(&id) {
            Some(account) if caller.token.knows(account.id) => Ok(account.id),
            Some(_) | None => Err(
                Refusal::invalid(INVALID, format!("There is no account {id}.")).at("account/id"),
            ),
        },
        (None, Some(only), None) => Ok(only),
        (None, ..) => Err(Refusal::invalid(INVALID, "'account.id' is required.").at("account/id")),
    }
}

fn is_wanted(snapshot: &Snapshot, zone: &Zone, params: &Params) -> Result<bool, Refusal> {
    let mut matches = Vec::new();
    if let Some(filter) = params.get("name") {
        matches.push(is_name(&zone.name, filter));
    }
    if let Some(id) = params.get("account.id") {
        matches.push(zone.account_id.to_string() == id);
    }
    if let Some(filter) = params.get("account.name") {
        let name = snapshot
            .accounts
            .get(&zone.account_id)
            .map(|account| account.name.as_str());
        matches.push(is_name(name.unwrap_or(""), filter));
    }
    if let Some(status) = params.get("status") {
        matches.push(status == "active");
    }
    if let Some(kinds) = params.get("type") {
        matches.push(kinds.split(',').any(|kind| kind == "full"));
    }
    match params.get("match") {
        None | Some("all") => Ok(matches.into_iter().all(|is| is)),
        Some("any") => Ok(matches.is_empty() || matches.into_iter().any(|is| is)),
        Some(other) => Err(wrong("match", "any or all", other)),
    }
}

/// `NAME` or `OPERATOR:NAME` (api.md 2.1).
fn is_name(name: &str, filter: &str) -> bool {
    let (operator, text) = filter.split_once(':').unwrap_or(("equal", filter));
    let (operator, is_exact_case) = match operator.strip_suffix("_case_sensitive") {
        Some(operator) => (operator, true),
        None => (operator, false),
    };
    let fold = |text: &str| {
        if is_exact_case {
            text.to_owned()
        } else {
            text.to_lowercase()
        }
    };
    let (name, text) = (fold(name), fold(text));
    match operator {
        "not_equal" => name != text,
        "starts_with" => name.starts_with(&text),
        "ends_with" => name.ends_with(&text),
        "contains" => name.contains(&text),
        _ => name == text,
    }
}

fn show(snapshot: &Snapshot, options: &Options, zone: &Zone) -> Value {
    let account = snapshot.accounts.get(&zone.account_id);
    json!({
        "id": zone.id,
        "name": zone.name,
        "status": "active",
        "paused": zone.paused,
        "type": "full",
        "development_mode": 0,
        "name_servers": options.name_servers,
        "original_name_servers": null,
        "original_registrar": null,
        "original_dnshost": null,
        "account": {"id": zone.account_id, "name": account.map(|account| account.name.as_str())},
        "owner": {"id": null, "type": "user", "email": null},
        "plan": {"id": "portcullis", "name": "Portcullis", "is_subscribed": true},
        "meta": {
            "step": 4, "page_rule_quota": 0, "phishing_detected": false,
            "cdn_only": false, "dns_only": false, "foundation_dns": false,
            "custom_certificate_quota": 0,
        },
        "permissions": ["#zone:read", "#zone:edit"],
        "created_on": zone.created_on,
        "modified_on": zone.modified_on,
        "activated_on": zone.created_on,
    })
}
