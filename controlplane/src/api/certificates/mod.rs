//! `/zones/{zone}/custom_certificates`

use std::sync::Arc;

use axum::extract::State;
use http::Method;
use serde_json::{Value, json};

use super::context::{self, Shared, now};
use super::envelope::{Answer, one, page};
use super::input::{At, Body, Params};
use super::operation::{GONE, HEX_ID, Routes, Shape, TEXT, TIME, does};
use crate::model::certificate::{Certificate, Draft, INVALID};
use crate::model::zone::Zone;
use crate::model::{Fields, HexId, Refusal, Timestamp};
use crate::store::{Snapshot, Transaction};

/// Code of a certificate that does not exist.
const UNKNOWN: u32 = 1201;
/// Code of one certificate too many.
const TOO_MANY: u32 = 1202;

/// Most bytes of all certificates: the proxy asks for them in one answer of at most 16 MiB.
const BYTES_MAX: usize = 14 << 20;

/// Most certificates of a zone.
const OF_ZONE_MAX: usize = 100;

const CERTIFICATE: Shape = Shape::Named(
    "CustomCertificate",
    &Shape::Object(&[
        ("id", HEX_ID),
        ("zone_id", HEX_ID),
        ("hosts", Shape::List(&TEXT)),
        ("issuer", TEXT),
        ("signature", TEXT),
        ("status", Shape::Words(&["active", "expired"])),
        ("bundle_method", Shape::Words(&["force"])),
        ("type", Shape::Words(&["sni_custom"])),
        ("priority", Shape::Integer(0, 0)),
        ("expires_on", TIME),
        ("uploaded_on", TIME),
        ("modified_on", TIME),
    ]),
);

pub(super) fn routes() -> Routes {
    let all = "/zones/{zone}/custom_certificates";
    let each = "/zones/{zone}/custom_certificates/{certificate}";
    let read_draft = |fields| Draft::read(fields).map(drop);
    let examples = || {
        vec![json!({
            "certificate": include_str!("example.crt"), "private_key": include_str!("example.key"),
            "bundle_method": "force", "type": "sni_custom", "deploy": "production",
        })]
    };
    let list_of = does("List the certificates of a zone").asks(&[
        ("status", Shape::Words(&["active", "expired"])),
        ("match", Shape::Words(&["any", "all"])),
    ]);
    let new = does("Bring a certificate for the names of a zone").takes(read_draft, examples);
    let changed = does("Replace a certificate and its key").takes(read_draft, examples);
    let shown = does("Show a certificate");
    Routes::new()
        .on((Method::GET, all), list, list_of.lists(CERTIFICATE, 50))
        .on((Method::POST, all), create, new.gives(CERTIFICATE))
        .on((Method::GET, each), read, shown.gives(CERTIFICATE))
        .on((Method::PATCH, each), patch, changed.gives(CERTIFICATE))
        .on(
            (Method::DELETE, each),
            delete,
            does("Delete a certificate").gives(GONE),
        )
}

async fn create(State(shared): State<Shared>, At(id): At<String>, Body(body): Body) -> Answer {
    let shown = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &id)?;
        let draft = Draft::read(Fields::new(body, INVALID)?)?;
        put(transaction, &zone, draft, None)
    });
    Ok(one(shown.await?))
}

async fn patch(
    State(shared): State<Shared>,
    At((zone, id)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let shown = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &zone)?;
        let old = find(transaction.snapshot(), &zone, &id)?;
        let draft = Draft::read(Fields::new(body, INVALID)?)?;
        put(transaction, &zone, draft, Some(&old))
    });
    Ok(one(shown.await?))
}

async fn list(State(shared): State<Shared>, At(id): At<String>, params: Params) -> Answer {
    let paging = params.paging(20, 50)?;
    let snapshot = shared.snapshot();
    let zone = context::zone(&snapshot, &id)?;
    let now = now();
    let wanted = params.word("status", &["active", "expired"])?;
    params.word("match", &["any", "all"])?;
    let own = snapshot
        .certificates
        .iter()
        .filter(|one| one.zone_id == zone.id);
    let own = own.filter(|one| wanted.is_none_or(|wanted| status(one, now) == wanted));
    let mut found: Vec<&Arc<Certificate>> = own.collect();
    found.sort_by_key(|one| (one.uploaded_on, one.id));
    Ok(page(found, paging, |one| show(one, now)))
}

async fn read(State(shared): State<Shared>, At((zone, id)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let zone = context::zone(&snapshot, &zone)?;
    Ok(one(show(&*find(&snapshot, &zone, &id)?, now())))
}

async fn delete(State(shared): State<Shared>, At((zone, id)): At<(String, String)>) -> Answer {
    let deleted = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &zone)?;
        let old = find(transaction.snapshot(), &zone, &id)?;
        transaction.delete::<Certificate>(&old.id);
        Ok(json!({"id": old.id}))
    });
    Ok(one(deleted.await?))
}

fn put(
    transaction: &mut Transaction,
    zone: &Zone,
    draft: Draft,
    old: Option<&Certificate>,
) -> Result<Value, Refusal> {
    let now = transaction.now();
    let id = old.map_or_else(HexId::random, |old| old.id);
    let mut certificate = draft.certificate(id, (zone.id, &zone.name), now)?;
    certificate.uploaded_on = old.map_or(now, |old| old.uploaded_on);
    let others = || {
        transaction
            .snapshot()
            .certificates
            .iter()
            .filter(|other| other.id != id)
    };
    if others().filter(|other| other.zone_id == zone.id).count() >= OF_ZONE_MAX {
        let why =
            format!("A zone has at most {OF_ZONE_MAX} certificates: delete those not in use.");
        return Err(Refusal::conflict(TOO_MANY, why));
    }
    let bytes: usize = others().map(|other| other.bytes()).sum();
    if bytes + certificate.bytes() > BYTES_MAX {
        let why = format!("All certificates together may have at most {BYTES_MAX} bytes.");
        return Err(Refusal::conflict(TOO_MANY, why).at("certificate"));
    }
    transaction.put(certificate.clone());
    Ok(show(&certificate, now))
}

fn find(snapshot: &Snapshot, zone: &Zone, id: &str) -> Result<Arc<Certificate>, Refusal> {
    let found = id
        .parse()
        .ok()
        .and_then(|id| snapshot.certificates.get(&id));
    let unknown = || Refusal::not_found(UNKNOWN, "There is no such certificate in this zone.");
    found
        .filter(|one| one.zone_id == zone.id)
        .cloned()
        .ok_or_else(unknown)
}

fn status(certificate: &Certificate, now: Timestamp) -> &'static str {
    match certificate.expires_on > now {
        true => "active",
        false => "expired",
    }
}

fn show(certificate: &Certificate, now: Timestamp) -> Value {
    json!({
        "id": certificate.id,
        "zone_id": certificate.zone_id,
        "hosts": certificate.hosts,
        "issuer": certificate.issuer,
        "signature": certificate.signature,
        "status": status(certificate, now),
        "bundle_method": "force",
        "type": "sni_custom",
        "priority": 0,
        "expires_on": certificate.expires_on,
        "uploaded_on": certificate.uploaded_on,
        "modified_on": certificate.modified_on,
    })
}
