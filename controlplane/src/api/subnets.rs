//! `/accounts/{account}/zerotrust/subnets`: the range that the edge's connections come from.

use axum::extract::State;
use http::Method;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::coverage;
use super::envelope::{Answer, one, page};
use super::input::{At, Body, Params};
use super::operation::{BOOLEAN, PREFIX, Routes, Shape, TEXT, TIME, TIME_OR_NULL, UUID, does};
use crate::model::account::Account;
use crate::model::subnet::{Family, INVALID, Subnet};
use crate::model::{Fields, HexId, Refusal, Resource as _, Timestamp};
use crate::store::Snapshot;

/// Code of a subnet that does not exist.
const UNKNOWN: u32 = 1017;
/// Code of a range in which something else lies.
const TAKEN: u32 = 1018;

const SUBNET: Shape = Shape::Named(
    "Subnet",
    &Shape::Object(&[
        ("id", UUID),
        ("name", TEXT),
        ("comment", TEXT),
        ("network", PREFIX),
        ("subnet_type", Shape::Words(&["cloudflare_source"])),
        ("is_default_network", BOOLEAN),
        ("created_at", TIME),
        ("deleted_at", TIME_OR_NULL),
    ]),
);

const FILTERS: &[(&str, Shape)] = &[
    ("name", TEXT),
    ("comment", TEXT),
    ("network", TEXT),
    ("address_family", Shape::Words(&["v4", "v6"])),
    ("subnet_types", TEXT),
    ("is_default_network", BOOLEAN),
    ("is_deleted", BOOLEAN),
    ("sort_order", Shape::Words(&["asc", "desc"])),
];

pub(super) fn routes() -> Routes {
    let all = "/accounts/{account}/zerotrust/subnets";
    let each = "/accounts/{account}/zerotrust/subnets/cloudflare_source/{family}";
    let example = || {
        vec![json!({"name": "edge", "comment": "Where it comes from", "network": "10.160.0.0/12"})]
    };
    let list_of = does("List subnets").asks(FILTERS);
    let changed = does("Name and place the range that the edge's connections come from")
        .takes_part(
            |fields| {
                let now = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
                Subnet::of(HexId::MIN, Family::V4, now)
                    .changed(fields)
                    .map(drop)
            },
            example,
        );
    Routes::new()
        .on((Method::GET, all), list, list_of.lists(SUBNET, 1_000))
        .on((Method::PATCH, each), patch, changed.gives(SUBNET))
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let paging = params.paging(20, 1_000)?;
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let family = params.word("address_family", &["v4", "v6"])?;
    let kinds = params.list("subnet_types");
    let is_none = params.boolean("is_deleted")?.unwrap_or(false)
        || !params.boolean("is_default_network")?.unwrap_or(true)
        || kinds.is_some_and(|kinds| !kinds.contains(&"cloudflare_source"));
    let mut found: Vec<Subnet> = Family::ALL
        .map(|of| current(&snapshot, &account, of))
        .into();
    found.retain(|subnet| {
        let is = |name: &str, own: &str| params.get(name).is_none_or(|wanted| wanted == own);
        !is_none
            && family.is_none_or(|family| subnet.family.name() == family)
            && is("name", &subnet.name)
            && is("comment", &subnet.comment)
            && is("network", &subnet.network().to_string())
    });
    if params.word("sort_order", &["asc", "desc"])? == Some("desc") {
        found.reverse();
    }
    Ok(page(found, paging, |subnet| show(&subnet)))
}

async fn patch(
    State(shared): State<Shared>,
    At((account, family)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let unknown =
            || Refusal::not_found(UNKNOWN, "There is a source range of v4 and one of v6.");
        let family = Family::named(&family).ok_or_else(unknown)?;
        let before = current(transaction.snapshot(), &account, family);
        let subnet = before.clone().changed(Fields::new(body, INVALID)?)?;
        if subnet.range != before.range {
            let range = subnet.range.net();
            if let Some(user) = coverage::user_of_range(transaction.snapshot(), account.id, range) {
                let why = format!(
                    "{range} cannot be the source range: {user}. Choose another /12, or move that."
                );
                return Err(Refusal::conflict(TAKEN, why).at("network"));
            }
        }
        transaction.put(subnet.clone());
        Ok(show(&subnet))
    });
    Ok(one(shown.await?))
}

/// The account's, as it was changed last.
fn current(snapshot: &Snapshot, account: &Account, family: Family) -> Subnet {
    let fresh = Subnet::of(account.id, family, account.created_on);
    let changed = snapshot.subnets.get(&fresh.id());
    changed.map_or(fresh, |subnet| (**subnet).clone())
}

fn show(subnet: &Subnet) -> Value {
    json!({
        "id": subnet.id(),
        "name": subnet.name,
        "comment": subnet.comment,
        "network": subnet.network(),
        "subnet_type": "cloudflare_source",
        "is_default_network": true,
        "created_at": subnet.created_at,
        "deleted_at": null,
    })
}
