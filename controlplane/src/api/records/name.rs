//! What the records of one name mean together: clashes, private routing, the vnet, the route.

use std::sync::Arc;

use uuid::Uuid;

use crate::api::coverage;
use crate::model::Refusal;
use crate::model::record::{INVALID, Kind, Record};
use crate::model::record_draft::refuse;
use crate::model::zone::Zone;
use crate::store::{Snapshot, Transaction};

/// Code of a private address without a route, in the chain of 1004. The product has none of its
/// own for DNS; Spectrum's for the same rule is 11044.
const NO_ROUTE: u32 = 11_044;

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
    check_clash(&record, &others)?;
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

/// No A or AAAA beside a CNAME, nothing beside an NS below the apex (api.md 2.2); nothing twice.
fn check_clash(record: &Record, others: &[Arc<Record>]) -> Result<(), Refusal> {
    for other in others {
        let is_same = other.kind == record.kind
            && other.content == record.content
            && other.priority == record.priority;
        if is_same {
            return Err(Refusal::invalid(
                81_058,
                "An identical record already exists.",
            ));
        }
        let has = |kind: Kind| record.kind == kind || other.kind == kind;
        let is_host = |kind: Kind| kind.is_address() || kind == Kind::Cname;
        if has(Kind::Cname) && is_host(record.kind) && is_host(other.kind) {
            let message = "An A, AAAA, or CNAME record with that host already exists.";
            return Err(Refusal::invalid(81_053, message).at("name"));
        }
        let is_delegation = has(Kind::Ns) && record.kind != other.kind;
        if is_delegation && (is_host(record.kind) || is_host(other.kind)) {
            let message = "An NS record and a host cannot have the same name.";
            return Err(Refusal::invalid(81_056, message).at("name"));
        }
    }
    Ok(())
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

/// The edge follows a proxied CNAME inside the account's own zones; it resolves no others.
fn check_target(snapshot: &Snapshot, zone: &Zone, record: &Record) -> Result<(), Refusal> {
    if record.kind != Kind::Cname || !record.proxied {
        return Ok(());
    }
    let target = crate::origin::zone_of(snapshot, &record.content);
    match target.filter(|target| target.account_id == zone.account_id) {
        Some(_) if record.content != record.name => Ok(()),
        Some(_) => Err(refuse("content", 9007, "A CNAME cannot point at itself.")),
        None => {
            let why = format!(
                "A proxied CNAME to {}, which is in no zone of this account, is not carried here.",
                record.content
            );
            Err(refuse("content", 9041, why))
        }
    }
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
