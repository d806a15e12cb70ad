//! What the records of one name mean together: clashes, private routing, the vnet, the route.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::api::coverage;
use crate::api::envelope::few;
use crate::model::record::{INVALID, Kind, Record};
use crate::model::record_draft::refuse;
use crate::model::zone::Zone;
use crate::model::{Refusal, host_name};
use crate::store::{Snapshot, Transaction};

/// Code of a private address without a route, in the chain of 1004. The product has none of its
/// own for DNS; Spectrum's for the same rule is 11044.
const NO_ROUTE: u32 = 11_044;

/// Code of a record that is there already.
pub(super) const IDENTICAL: u32 = 81_058;

/// Most records of one name: an answer has all of a type, and each is compared with all others.
const RECORDS_MAX: usize = 200;

/// Most bytes of a name's records of one type, so that they fit into a message over TCP with all
/// that is around them.
const ANSWER_BYTES_MAX: usize = 60_000;

/// Bytes of a record beside its name and RDATA (RFC 1035, section 4.1.3). Names far down in a long
/// message are not compressed.
const RECORD_BYTES: usize = 12;

/// Whether the name is private: one private record makes it so (api.md 2.3).
pub(super) fn is_private(snapshot: &Snapshot, zone: &Zone, name: &str) -> bool {
    snapshot
        .records_named(zone.id, name)
        .any(|record| record.is_private())
}

/// Puts the record, when the records of its name then fit together. A name is in one vnet: naming
/// it on one record moves the others along, and a new record follows those that are there.
pub(super) fn put(
    transaction: &mut Transaction,
    zone: &Zone,
    mut record: Record,
    old: Option<&Record>,
    given_vnet: Option<Option<Uuid>>,
) -> Result<Record, Refusal> {
    let others = others(transaction.snapshot(), &record);
    check_size(&record, &others)?;
    check_clash(zone, &record, &others)?;
    check_delegation(transaction.snapshot(), zone, &record)?;
    if record.kind.is_address() {
        let inherited = others.iter().find(|other| other.kind.is_address());
        if let (None, Some(other)) = (given_vnet, inherited) {
            record.virtual_network_id = other.virtual_network_id;
        }
    } else {
        refuse_vnet(
            given_vnet,
            "only A and AAAA records are in a virtual network",
        )?;
        record.virtual_network_id = None;
    }
    check_vnet(transaction.snapshot(), zone, &record)?;
    check_target(transaction.snapshot(), zone, &record)?;
    transaction.put(record.clone());
    for other in others.iter().filter(|other| other.kind.is_address()) {
        if record.kind.is_address() && other.virtual_network_id != record.virtual_network_id {
            transaction.put(Record {
                virtual_network_id: record.virtual_network_id,
                ..(**other).clone()
            });
        }
    }
    let is_private = is_private(transaction.snapshot(), zone, &record.name);
    if !is_private {
        refuse_vnet(given_vnet, "this name is not privately routed")?;
    }
    let leads_elsewhere = old.is_none_or(|old| where_to(old) != where_to(&record));
    if is_private && leads_elsewhere {
        check_routes(transaction.snapshot(), zone, &record)?;
    }
    Ok(record)
}

/// What decides where the requests for a record go.
fn where_to(record: &Record) -> (&str, Kind, &str, bool, bool, Option<Uuid>) {
    let private = record.is_private();
    let vnet = record.virtual_network_id;
    (
        &record.name,
        record.kind,
        &record.content,
        record.proxied,
        private,
        vnet,
    )
}

fn others(snapshot: &Snapshot, record: &Record) -> Vec<Arc<Record>> {
    let named = snapshot.records_named(record.zone_id, &record.name);
    named
        .filter(|other| other.id != record.id)
        .cloned()
        .collect()
}

fn check_size(record: &Record, others: &[Arc<Record>]) -> Result<(), Refusal> {
    if others.len() >= RECORDS_MAX {
        let why = format!("A name may have at most {RECORDS_MAX} records.");
        return Err(refuse("name", 9000, why));
    }
    let around = RECORD_BYTES + record.name.len();
    let bytes = |r: &Record| around + r.rdata().map_or(0, |rdata| rdata.wire().len());
    let same = others.iter().filter(|other| other.kind == record.kind);
    let total: usize = same.map(|other| bytes(other)).sum();
    if total + bytes(record) > ANSWER_BYTES_MAX {
        let why = format!(
            "The {} records of this name would not fit into one answer ({ANSWER_BYTES_MAX} bytes).",
            record.kind.name()
        );
        return Err(refuse("content", 9000, why));
    }
    Ok(())
}

/// No A or AAAA beside a CNAME, nothing beside an NS below the apex (api.md 2.2); nothing twice.
fn check_clash(zone: &Zone, record: &Record, others: &[Arc<Record>]) -> Result<(), Refusal> {
    let said = record.rdata();
    for other in others {
        if other.kind == record.kind && other.rdata() == said {
            return Err(Refusal::invalid(
                IDENTICAL,
                "An identical record already exists.",
            ));
        }
        let has = |kind: Kind| record.kind == kind || other.kind == kind;
        let is_host = |kind: Kind| kind.is_address() || kind == Kind::Cname;
        if has(Kind::Cname) && is_host(record.kind) && is_host(other.kind) {
            let message = "An A, AAAA, or CNAME record with that host already exists.";
            return Err(Refusal::invalid(81_053, message).at("name"));
        }
        // A CNAME that is answered as such hides what is beside it (RFC 1034, section 3.6.2).
        let hides = |r: &Record| r.kind == Kind::Cname && !r.proxied && !r.is_flattened(&zone.name);
        if hides(record) || hides(other) {
            let message = "A CNAME record that is neither proxied nor flattened cannot have other \
                           records beside it.";
            return Err(Refusal::invalid(81_053, message).at("name"));
        }
        let is_delegation = record.name != zone.name && has(Kind::Ns) && record.kind != other.kind;
        if is_delegation && !has(Kind::Ds) {
            let message = "An NS record hands its name to other servers: only NS and DS records can \
                           have that name.";
            return Err(Refusal::invalid(81_056, message).at("name"));
        }
        let (a, b) = (record.settings, other.settings);
        if (a.ipv4_only && b.ipv6_only) || (a.ipv6_only && b.ipv4_only) {
            let name = if a.ipv4_only {
                "ipv4_only"
            } else {
                "ipv6_only"
            };
            let why = "Another record of this name asks for the other address family alone.";
            return Err(refuse(&format!("settings/{name}"), 9000, why));
        }
    }
    Ok(())
}

/// Below NS records a name is others' to serve: proxied, it would have no effect.
fn check_delegation(snapshot: &Snapshot, zone: &Zone, record: &Record) -> Result<(), Refusal> {
    match crate::dns::delegation(snapshot, zone, &record.name).filter(|_| record.proxied) {
        None => Ok(()),
        Some(cut) => {
            let why = format!(
                "The NS records of {cut} hand {} to other servers: it cannot be proxied here.",
                record.name
            );
            Err(refuse("proxied", 9041, why))
        }
    }
}

/// What NS records take out of the edge's hands: names below theirs that are proxied or an app's.
pub(super) fn silenced<'a>(
    snapshot: &Snapshot,
    zone: &Zone,
    records: impl IntoIterator<Item = &'a Record>,
) -> Vec<String> {
    let cuts = records
        .into_iter()
        .filter(|r| r.kind == Kind::Ns && r.name != zone.name);
    let cuts: BTreeSet<&str> = cuts.map(|record| record.name.as_str()).collect();
    let mut notes = Vec::new();
    for cut in cuts {
        let is_below = |name: &str| name != cut && host_name::is_within(name, cut);
        let records = snapshot.records_of(zone.id);
        let records = records.filter(|r| r.proxied && is_below(&r.name));
        let records = records.map(|record| record.name.clone());
        let apps = snapshot
            .apps_of(zone.id)
            .filter(|app| is_below(&app.hostname));
        let names: BTreeSet<String> = records
            .chain(apps.map(|app| app.hostname.clone()))
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        if !names.is_empty() {
            notes.push(format!(
                "The NS records of {cut} hand the names below it to other servers: the edge answers for \
                 them no more, and serves no HTTP there: {}.",
                few(&names)
            ));
        }
    }
    notes
}

fn refuse_vnet(given: Option<Option<Uuid>>, why: &str) -> Result<(), Refusal> {
    match given.flatten() {
        None => Ok(()),
        Some(_) => {
            let why = format!("'virtual_network_id' would have no effect: {why}.");
            Err(refuse("virtual_network_id", 9000, why))
        }
    }
}

fn check_vnet(snapshot: &Snapshot, zone: &Zone, record: &Record) -> Result<(), Refusal> {
    let Some(id) = record.virtual_network_id else {
        return Ok(());
    };
    let vnet = snapshot
        .vnets
        .get(&id)
        .filter(|vnet| vnet.account_id == zone.account_id);
    match vnet {
        Some(_) => Ok(()),
        None => {
            let why = format!("There is no virtual network {id} in this account.");
            Err(refuse("virtual_network_id", 9000, why))
        }
    }
}

/// The edge follows a CNAME inside the account's own zones, and resolves names that have a hostname
/// route; no others. One that is neither proxied nor flattened is the client's to follow.
fn check_target(snapshot: &Snapshot, zone: &Zone, record: &Record) -> Result<(), Refusal> {
    let is_flattened = record.is_flattened(&zone.name);
    if record.kind != Kind::Cname {
        return Ok(());
    }
    if record.content == record.name {
        return Err(refuse("content", 9007, "A CNAME cannot point at itself."));
    }
    let target = crate::dns::zone_of(snapshot, &record.content);
    let is_own = target.is_some_and(|target| target.account_id == zone.account_id);
    let route = snapshot.hostname_route(zone.account_id, &record.content);
    let what = match (record.proxied, is_flattened) {
        (true, _) if route.is_some() => return Ok(()),
        _ if is_own => return Ok(()),
        (true, _) => "proxied CNAME",
        (false, true) => "CNAME answered with addresses (flattened, or at the zone's own name)",
        (false, false) => return Ok(()),
    };
    let content = &record.content;
    let why = format!(
        "A {what} to {content}, which is in no zone of this account, is not carried here. A private \
             network's name needs a hostname route (zerotrust/routes/hostname), and the record to be proxied."
    );
    Err(refuse("content", 9041, why))
}

/// Every proxied address of a private name must have a route in the name's vnet.
fn check_routes(snapshot: &Snapshot, zone: &Zone, record: &Record) -> Result<(), Refusal> {
    let vnet = record
        .virtual_network_id
        .or_else(|| snapshot.default_vnet(zone.account_id).map(|vnet| vnet.id))
        .ok_or_else(|| Refusal::invalid(INVALID, "The account has no default virtual network."))?;
    let serving = snapshot
        .records_named(zone.id, &record.name)
        .filter(|r| r.proxied);
    for ip in serving.filter_map(|record| record.ip()) {
        coverage::check(snapshot, vnet, ip).map_err(|why| refuse("content", NO_ROUTE, why))?;
    }
    Ok(())
}
