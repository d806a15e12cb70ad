//! `/user/tokens/verify`, `/accounts/{account}/tokens/verify`, `/memberships` and `/ips`

use std::net::IpAddr;

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Router};
use ipnet::IpNet;
use ring::digest;
use serde_json::json;

use super::context::{self, Shared};
use super::envelope::{Answer, one, page};
use super::input::{At, Params};
use super::permit::Caller;
use crate::model::HexId;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/user/tokens/verify", get(verify))
        .route("/accounts/{account}/tokens/verify", get(verify_of_account))
        .route("/memberships", get(memberships))
        .route("/ips", get(ips))
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
