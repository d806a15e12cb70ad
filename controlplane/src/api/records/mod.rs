//! `/zones/{zone}/dns_records`

mod about;
mod batch;
mod file;
mod filter;
mod name;

use std::sync::Arc;

use axum::extract::State;
use http::Method;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::envelope::{Answer, one, one_noting, page};
use super::input::{At, Body, Params};
use super::operation::{GONE, Routes, does};
use crate::model::record::{INVALID, Record};
use crate::model::record_draft::Draft;
use crate::model::zone::Zone;
use crate::model::{Fields, HexId, Refusal, Timestamp};
use crate::store::{Snapshot, Transaction};

pub(super) fn routes() -> Routes {
    use about::{BATCH, BATCHED, FILE, FILTERS, IMPORTED, RECORD, examples};
    let (all, each) = (
        "/zones/{zone}/dns_records",
        "/zones/{zone}/dns_records/{record}",
    );
    let many = "/zones/{zone}/dns_records/batch";
    let (out, back) = (
        "/zones/{zone}/dns_records/export",
        "/zones/{zone}/dns_records/import",
    );
    let list_of = does("List DNS records").asks(FILTERS);
    let new = does("Make a DNS record").takes(about::read, examples);
    let replaced = does("Replace a DNS record").takes(about::read, examples);
    let changed = does("Change a DNS record").takes_part(about::read, examples);
    let at_once = does("Change many DNS records, all or none").takes_body(BATCH);
    let file = does("The zone as a BIND file").gives_text();
    let from_file = does("Add the records of a BIND file, all or none").takes_body(FILE);
    Routes::new()
        .on((Method::GET, all), list, list_of.lists(RECORD, 5_000_000))
        .on((Method::POST, all), create, new.gives(RECORD))
        .on((Method::POST, many), batch::run, at_once.gives(BATCHED))
        .on((Method::GET, out), file::export, file)
        .on(
            (Method::POST, back),
            file::import,
            from_file.gives_timed(IMPORTED),
        )
        .on(
            (Method::GET, each),
            read,
            does("Show a DNS record").gives(RECORD),
        )
        .on((Method::PUT, each), replace, replaced.gives(RECORD))
        .on((Method::PATCH, each), patch, changed.gives(RECORD))
        .on(
            (Method::DELETE, each),
            delete,
            does("Delete a DNS record").gives(GONE),
        )
}

async fn create(State(shared): State<Shared>, At(id): At<String>, Body(body): Body) -> Answer {
    let shown = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &id)?;
        let draft = Draft::read(Fields::new(body, INVALID)?)?;
        let record = add(transaction, &zone, draft)?;
        touch(transaction, &zone);
        Ok(show_noting(transaction.snapshot(), &zone, &record))
    });
    let (shown, notes) = shown.await?;
    Ok(one_noting(shown, &notes))
}

async fn list(State(shared): State<Shared>, At(id): At<String>, params: Params) -> Answer {
    let paging = params.paging(100, 5_000_000)?;
    let snapshot = shared.snapshot();
    let zone = context::zone(&snapshot, &id)?;
    let filter = filter::Filter::read(&params)?;
    let own = snapshot.records_of(zone.id);
    let mut found: Vec<Arc<Record>> = own.filter(|r| filter.is_wanted(r)).cloned().collect();
    filter.sort(&mut found);
    Ok(page(found, paging, |record| {
        show(&snapshot, &zone, &record)
    }))
}

async fn read(State(shared): State<Shared>, At((zone, id)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let zone = context::zone(&snapshot, &zone)?;
    let record = find(&snapshot, &zone, &id)?;
    Ok(one(show(&snapshot, &zone, &record)))
}

async fn replace(shared: State<Shared>, at: At<(String, String)>, body: Body) -> Answer {
    change(shared, at, body, Draft::replace).await
}

async fn patch(shared: State<Shared>, at: At<(String, String)>, body: Body) -> Answer {
    change(shared, at, body, Draft::patch).await
}

async fn delete(State(shared): State<Shared>, At((zone, id)): At<(String, String)>) -> Answer {
    let deleted = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &zone)?;
        let record = find(transaction.snapshot(), &zone, &id)?;
        transaction.delete::<Record>(&record.id);
        touch(transaction, &zone);
        Ok(json!({"id": record.id}))
    });
    Ok(one(deleted.await?))
}

/// What becomes of an old record: [`Draft::replace`] or [`Draft::patch`].
type Change = fn(Draft, &Record, &Zone, Timestamp) -> Result<Record, Refusal>;

async fn change(
    State(shared): State<Shared>,
    At((zone, id)): At<(String, String)>,
    Body(body): Body,
    change: Change,
) -> Answer {
    let shown = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &zone)?;
        let old = find(transaction.snapshot(), &zone, &id)?;
        let draft = Draft::read(Fields::new(body, INVALID)?)?;
        let record = alter(transaction, &zone, &old, draft, change)?;
        touch(transaction, &zone);
        Ok(show_noting(transaction.snapshot(), &zone, &record))
    });
    let (shown, notes) = shown.await?;
    Ok(one_noting(shown, &notes))
}

fn add(transaction: &mut Transaction, zone: &Zone, draft: Draft) -> Result<Record, Refusal> {
    let given_vnet = draft.virtual_network_id;
    let record = draft.create(HexId::random(), zone, transaction.now())?;
    name::put(transaction, zone, record, None, given_vnet)
}

fn alter(
    transaction: &mut Transaction,
    zone: &Zone,
    old: &Record,
    draft: Draft,
    change: Change,
) -> Result<Record, Refusal> {
    let given_vnet = draft.virtual_network_id;
    let record = change(draft, old, zone, transaction.now())?;
    name::put(transaction, zone, record, Some(old), given_vnet)
}

/// The zone's records changed: its serial grows, once in a transaction.
fn touch(transaction: &mut Transaction, zone: &Zone) {
    transaction.put(Zone {
        serial: zone.serial.wrapping_add(1),
        ..zone.clone()
    });
}

fn find(snapshot: &Snapshot, zone: &Zone, id: &str) -> Result<Arc<Record>, Refusal> {
    let found = id.parse().ok().and_then(|id| snapshot.records.get(&id));
    found
        .filter(|record| record.zone_id == zone.id)
        .cloned()
        .ok_or_else(|| Refusal::not_found(81_044, "Record does not exist."))
}

/// The record, and what it does to others.
fn show_noting(snapshot: &Snapshot, zone: &Zone, record: &Record) -> (Value, Vec<String>) {
    let notes = name::silenced(snapshot, zone, [record]);
    (show(snapshot, zone, record), notes)
}

fn show(snapshot: &Snapshot, zone: &Zone, record: &Record) -> Value {
    let mut shown = json!({
        "id": record.id,
        "zone_id": zone.id,
        "zone_name": zone.name,
        "name": record.name,
        "type": record.kind,
        "content": record.content,
        "proxiable": record.kind.is_proxiable(),
        "proxied": record.proxied,
        "ttl": record.ttl,
        "settings": settings(record),
        "meta": {},
        "comment": record.comment,
        "tags": record.tags,
        "created_on": record.created_on,
        "modified_on": record.modified_on,
    });
    if let Some(priority) = record.priority {
        shown["priority"] = json!(priority);
    }
    if let Some(data) = record.rdata().and_then(|rdata| rdata.data()) {
        shown["data"] = data;
    }
    if let Some(at) = record.comment_modified_on {
        shown["comment_modified_on"] = json!(at);
    }
    if let Some(at) = record.tags_modified_on {
        shown["tags_modified_on"] = json!(at);
    }
    if record.kind.is_address() {
        let is_private = record.proxied && name::is_private(snapshot, zone, &record.name);
        shown["private_routing"] = json!(is_private);
        shown["use_private_routing"] = json!(is_private);
        shown["virtual_network_id"] = json!(record.virtual_network_id);
    }
    shown
}

/// Those that the record can have.
fn settings(record: &Record) -> Value {
    let mut shown = json!({});
    if record.proxied {
        shown["ipv4_only"] = json!(record.settings.ipv4_only);
        shown["ipv6_only"] = json!(record.settings.ipv6_only);
    }
    if record.kind == crate::model::record::Kind::Cname {
        shown["flatten_cname"] = json!(record.settings.flatten_cname);
    }
    shown
}
