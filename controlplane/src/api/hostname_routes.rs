//! `/accounts/{account}/zerotrust/routes/hostname`: not carried, and refused rather than kept without effect.
//!
//! Such a route sends what clients of a private network ask for by name into the tunnel behind which the name is
//! resolved. Nothing here asks so: proxied names lead to addresses, and no resolver of a private network is asked.

use axum::extract::State;
use http::Method;
use serde_json::Value;

use super::context::{self, Shared};
use super::envelope::{Answer, page};
use super::input::{At, Params};
use super::operation::{Routes, Shape, does};
use crate::model::Refusal;

/// Code of what is not carried here.
const NOT_CARRIED: u32 = 1018;

pub(super) fn routes() -> Routes {
    let all = "/accounts/{account}/zerotrust/routes/hostname";
    let route = Shape::Map(&Shape::Any);
    let list_of = does("List hostname routes: there are none").lists(route, 1_000);
    let new = does("Refused: hostname routes are not carried").gives(route);
    Routes::new()
        .on((Method::GET, all), list, list_of)
        .on((Method::POST, all), create, new)
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let paging = params.paging(20, 1_000)?;
    context::account(&shared.snapshot(), &account)?;
    Ok(page(Vec::<Value>::new(), paging, |none| none))
}

async fn create(State(shared): State<Shared>, At(account): At<String>) -> Answer {
    context::account(&shared.snapshot(), &account)?;
    let why = "Hostname routes are not carried here: nothing resolves names inside a private network. \
               Route the network (teamnet/routes), and give the address in a proxied record.";
    Err(Refusal::invalid(NOT_CARRIED, why).at("hostname"))
}
