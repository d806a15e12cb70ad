//! `/user/tokens/verify`, `/accounts/{account}/tokens/verify`, `/memberships` and `/ips`

use std::net::IpAddr;

use axum::Extension;
use axum::extract::State;
use http::Method;
use ipnet::IpNet;
use ring::digest;
use serde_json::json;

use super::context::{self, Shared};
use super::envelope::{Answer, one, page};
use super::input::{At, Params};
use super::operation::{HEX_ID, PREFIX, Routes, Shape, TEXT, TIME_OR_NULL, does};
use super::permit::Caller;
use crate::model::HexId;

const VERIFIED: Shape = Shape::Object(&[
    ("id", HEX_ID),
    ("status", Shape::Words(&["active", "disabled", "expired"])),
    ("not_before", TIME_OR_NULL),
    ("expires_on", TIME_OR_NULL),
]);

const MEMBERSHIP: Shape = Shape::Object(&[
    ("id", HEX_ID),
    ("status", Shape::Words(&["accepted"])),
    (
        "account",
        Shape::Object(&[("id", HEX_ID), ("name", TEXT), ("type", TEXT)]),
    ),
    ("roles", Shape::List(&TEXT)),
]);

const IPS: Shape = Shape::Object(&[
    ("etag", TEXT),
    ("ipv4_cidrs", Shape::List(&PREFIX)),
    ("ipv6_cidrs", Shape::List(&PREFIX)),
]);

pub(super) fn routes() -> Routes {
    let of_token = does("Verify the token of the request").gives(VERIFIED);
    let of_account =
        does("Verify the token of the request, which the account owns").gives(VERIFIED);
    let own = does("List the accounts that the token knows").lists(MEMBERSHIP, 50);
    let of_edge = does("List the addresses of the edge").gives(IPS);
    let of_accounts = "/accounts/{account}/tokens/verify";
    Routes::new()
        .on((Method::GET, "/user/tokens/verify"), verify, of_token)
        .on((Method::GET, of_accounts), verify_of_account, of_account)
        .on((Method::GET, "/memberships"), memberships, own)
        .on((Method::GET, "/ips"), ips, of_edge)
}

async fn verify(Extension(caller): Extension<Caller>) -> Answer {
    let (token, bounds) = (&caller.token, &caller.token.bounds);
    Ok(one(json!({
        "id": token.id,
        "status": token.status(context::now()),
        "not_before": bounds.not_before,
        "expires_on": bounds.expires_on,
    })))
}

/// The same, of a token that the account owns.
async fn verify_of_account(At(account): At<String>, caller: Extension<Caller>) -> Answer {
    let owner = caller.token.account_id.map(|id: HexId| id.to_string());
    match owner.is_some_and(|owner| owner == account) {
        true => verify(caller).await,
        false => Err(context::no_route(&format!("/accounts/{account}/tokens"))),
    }
}

/// Nobody is a member of an account but the token that asks.
async fn memberships(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    params: Params,
) -> Answer {
    let paging = params.paging(20, 50)?;
    let snapshot = shared.snapshot();
    let accounts = snapshot.accounts.iter();
    let known = accounts.filter(|account| caller.token.knows(account.id));
    Ok(page(known.collect(), paging, |account| {
        let whose = json!({"id": account.id, "name": account.name, "type": "standard"});
        json!({"id": account.id, "status": "accepted", "account": whose, "roles": []})
    }))
}

async fn ips(State(shared): State<Shared>) -> Answer {
    let addresses = &shared.options.edge_addresses;
    let family = |is_wanted: fn(&IpAddr) -> bool| -> Vec<String> {
        let wanted = addresses.iter().copied().filter(is_wanted);
        wanted.map(|ip| IpNet::from(ip).to_string()).collect()
    };
    let ipv4 = family(IpAddr::is_ipv4);
    let ipv6 = family(IpAddr::is_ipv6);
    let all = format!("{ipv4:?}{ipv6:?}");
    let hash = digest::digest(&digest::SHA256, all.as_bytes());
    let etag: String = hash
        .as_ref()
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect();
    Ok(one(
        json!({"etag": etag, "ipv4_cidrs": ipv4, "ipv6_cidrs": ipv6}),
    ))
}
