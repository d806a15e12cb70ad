//! `/user/tokens/verify` and `/ips`

use std::net::IpAddr;

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Router};
use ipnet::IpNet;
use ring::digest;
use serde_json::json;

use super::auth::Caller;
use super::context::Shared;
use super::envelope::{Answer, one};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/user/tokens/verify", get(verify))
        .route("/ips", get(ips))
}

async fn verify(Extension(Caller(id)): Extension<Caller>) -> Answer {
    Ok(one(json!({"id": id, "status": "active"})))
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
