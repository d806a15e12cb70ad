//! `/accounts`

use axum::Extension;
use axum::extract::State;
use http::Method;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::envelope::{Answer, one, page};
use super::input::{At, Params};
use super::operation::{BOOLEAN, HEX_ID, Routes, Shape, TEXT, TIME, does};
use super::permit::Caller;
use crate::model::account::Account;

const ACCOUNT: Shape = Shape::Named(
    "Account",
    &Shape::Object(&[
        ("id", HEX_ID),
        ("name", TEXT),
        ("type", Shape::Words(&["standard"])),
        ("settings", Shape::Object(&[("enforce_twofactor", BOOLEAN)])),
        ("created_on", TIME),
    ]),
);

pub(super) fn routes() -> Routes {
    let direction = ("direction", Shape::Words(&["asc", "desc"]));
    let list_of = does("List accounts").asks(&[("name", TEXT), direction]);
    let one_of = does("Show an account").gives(ACCOUNT);
    Routes::new()
        .on((Method::GET, "/accounts"), list, list_of.lists(ACCOUNT, 50))
        .on((Method::GET, "/accounts/{account}"), read, one_of)
}

async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    params: Params,
) -> Answer {
    let paging = params.paging(20, 50)?;
    let name = params.get("name").unwrap_or("").to_owned();
    let snapshot = shared.snapshot();
    let found = snapshot
        .accounts
        .iter()
        .filter(|account| caller.token.knows(account.id))
        .filter(|account| account.name.contains(&name));
    let mut found: Vec<_> = found.collect();
    if params.is_descending()? {
        found.reverse();
    }
    Ok(page(found, paging, |account| show(account)))
}

async fn read(
    State(shared): State<Shared>,
    At(id): At<String>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let account = context::account(&shared.snapshot(), &id)?;
    match caller.token.knows(account.id) {
        true => Ok(one(show(&account))),
        false => Err(context::no_route(&format!("/accounts/{id}"))),
    }
}

fn show(account: &Account) -> Value {
    json!({
        "id": account.id,
        "name": account.name,
        "type": "standard",
        "settings": {"enforce_twofactor": false},
        "created_on": account.created_on,
    })
}
