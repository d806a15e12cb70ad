//! `/accounts/{account}/teamnet/virtual_networks`

use std::sync::Arc;

use axum::extract::State;
use dataplane::id::VnetId;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::context::{self, Shared};
use super::coverage;
use super::envelope::{Answer, one, page};
use super::input::{At, Body, Paging, Params};
use super::operation::{BOOLEAN, Routes, Shape, TEXT, TIME, TIME_OR_NULL, UUID, does};
use crate::model::counter::Numbered;
use crate::model::vnet::{Draft, INVALID, Vnet};
use crate::model::{Fields, HexId, Refusal, Timestamp};
use crate::store::{Snapshot, Transaction};

/// Code of a vnet id that names none.
const UNKNOWN: u32 = 1004;
/// Code of a vnet name that is taken.
const TAKEN: u32 = 1005;
/// Code of a vnet that is in use or is the default.
const IN_USE: u32 = 1006;

const VNET: Shape = Shape::Named(
    "VirtualNetwork",
    &Shape::Object(&[
        ("id", UUID),
        ("name", TEXT),
        ("comment", TEXT),
        ("is_default_network", BOOLEAN),
        ("created_at", TIME),
        ("deleted_at", TIME_OR_NULL),
    ]),
);

const FILTERS: &[(&str, Shape)] = &[
    ("name", TEXT),
    ("vnet_name", TEXT),
    ("id", UUID),
    ("vnet_id", UUID),
    ("is_default_network", BOOLEAN),
    ("is_default", BOOLEAN),
    ("is_deleted", BOOLEAN),
];

pub(super) fn routes() -> Routes {
    let all = "/accounts/{account}/teamnet/virtual_networks";
    let each = "/accounts/{account}/teamnet/virtual_networks/{vnet}";
    let examples = || {
        vec![json!({
            "name": "new network", "comment": "Second floor", "is_default_network": false,
            "is_default": false,
        })]
    };
    let list_of = does("List virtual networks").asks(FILTERS);
    let new = does("Make a virtual network")
        .takes(|fields| Draft::read(fields, true).map(drop), examples);
    let changed = does("Change a virtual network")
        .takes_part(|fields| Draft::read(fields, false).map(drop), examples);
    let shown = does("Show a virtual network");
    let gone = does("Delete a virtual network that nothing uses");
    Routes::new()
        .on((Method::GET, all), list, list_of.lists_all(VNET))
        .on((Method::POST, all), create, new.gives(VNET))
        .on((Method::GET, each), read, shown.gives(VNET))
        .on((Method::PATCH, each), patch, changed.gives(VNET))
        .on((Method::DELETE, each), delete, gone.gives(VNET))
}

async fn create(State(shared): State<Shared>, At(account): At<String>, Body(body): Body) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let draft = Draft::read(Fields::new(body, INVALID)?, true)?;
        let number = transaction.number(Numbered::Vnet, u32::from(u16::MAX), |snapshot, number| {
            u16::try_from(number).is_ok_and(|n| snapshot.indexes.vnets.contains_key(&VnetId(n)))
        });
        let number = number.and_then(|number| u16::try_from(number).ok());
        let number = number
            .ok_or_else(|| Refusal::conflict(TAKEN, "All 65535 virtual networks are in use."))?;
        let vnet = Vnet {
            id: Uuid::new_v4(),
            account_id: account.id,
            number: VnetId(number),
            name: String::new(),
            comment: String::new(),
            is_default_network: false,
            created_at: transaction.now(),
        };
        let vnet = put(transaction, vnet, draft)?;
        Ok(show(&vnet, None))
    });
    Ok(one(shown.await?))
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let name = params.get("name").or_else(|| params.get("vnet_name"));
    let id = params.uuid("id")?.or(params.uuid("vnet_id")?);
    let is_default = params
        .boolean("is_default_network")?
        .or(params.boolean("is_default")?);
    let is_deleted = params.boolean("is_deleted")?.unwrap_or(false);
    let mut found: Vec<Arc<Vnet>> = snapshot
        .vnets
        .iter()
        .filter(|vnet| vnet.account_id == account.id && !is_deleted)
        .filter(|vnet| name.is_none_or(|name| vnet.name == name))
        .filter(|vnet| id.is_none_or(|id| vnet.id == id))
        .filter(|vnet| is_default.is_none_or(|is| vnet.is_default_network == is))
        .cloned()
        .collect();
    found.sort_by_key(|vnet| (vnet.created_at, vnet.id));
    // A single page (api.md 3.1).
    let paging = Paging {
        page: 1,
        per_page: found.len().max(1),
    };
    Ok(page(found, paging, |vnet| show(&vnet, None)))
}

async fn read(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    Ok(one(show(&*find(&snapshot, account.id, &id)?, None)))
}

async fn patch(
    State(shared): State<Shared>,
    At((account, id)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let vnet = find(transaction.snapshot(), account.id, &id)?;
        let draft = Draft::read(Fields::new(body, INVALID)?, false)?;
        let vnet = put(transaction, (*vnet).clone(), draft)?;
        Ok(show(&vnet, None))
    });
    Ok(one(shown.await?))
}

async fn delete(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let vnet = find(transaction.snapshot(), account.id, &id)?;
        if vnet.is_default_network {
            let why =
                "The default virtual network cannot be deleted: make another the default first.";
            return Err(Refusal::conflict(IN_USE, why));
        }
        if let Some(users) = coverage::users_of_vnet(transaction.snapshot(), vnet.id) {
            let why = format!(
                "Virtual network '{}' is in use by {users}: delete them first.",
                vnet.name
            );
            return Err(Refusal::conflict(IN_USE, why));
        }
        transaction.delete::<Vnet>(&vnet.id);
        Ok(show(&vnet, Some(transaction.now())))
    });
    Ok(one(shown.await?))
}

fn put(transaction: &mut Transaction, mut vnet: Vnet, draft: Draft) -> Result<Vnet, Refusal> {
    vnet.name = draft.name.unwrap_or(vnet.name);
    vnet.comment = draft.comment.unwrap_or(vnet.comment);
    let same_account =
        |other: &&Arc<Vnet>| other.account_id == vnet.account_id && other.id != vnet.id;
    let snapshot = transaction.snapshot();
    if snapshot
        .vnets
        .iter()
        .filter(same_account)
        .any(|other| other.name == vnet.name)
    {
        let why = format!(
            "A virtual network with the name '{}' exists already.",
            vnet.name
        );
        return Err(Refusal::conflict(TAKEN, why).at("name"));
    }
    match draft.is_default {
        Some(false) if vnet.is_default_network => {
            let why =
                "An account needs a default virtual network: make another the default instead.";
            return Err(Refusal::invalid(INVALID, why).at("is_default_network"));
        }
        Some(true) => {
            let defaults = snapshot.vnets.iter().filter(same_account);
            let old: Vec<Vnet> = defaults
                .filter(|other| other.is_default_network)
                .map(|old| (**old).clone())
                .collect();
            for old in old {
                transaction.put(Vnet {
                    is_default_network: false,
                    ..old
                });
            }
            vnet.is_default_network = true;
        }
        Some(false) | None => {}
    }
    transaction.put(vnet.clone());
    Ok(vnet)
}

/// The account's vnet of this id.
pub(super) fn find(snapshot: &Snapshot, account: HexId, id: &str) -> Result<Arc<Vnet>, Refusal> {
    let found = id.parse().ok().and_then(|id: Uuid| snapshot.vnets.get(&id));
    let unknown =
        || Refusal::not_found(UNKNOWN, "There is no such virtual network in this account.");
    found
        .filter(|vnet| vnet.account_id == account)
        .cloned()
        .ok_or_else(unknown)
}

fn show(vnet: &Vnet, deleted_at: Option<Timestamp>) -> Value {
    json!({
        "id": vnet.id,
        "name": vnet.name,
        "comment": vnet.comment,
        "is_default_network": vnet.is_default_network,
        "created_at": vnet.created_at,
        "deleted_at": deleted_at,
    })
}
