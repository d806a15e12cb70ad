//! Tunnels of every kind: `/accounts/{account}/tunnels` lists them all.
//!
//! `wireguard` is a resource of our own, `magic` (beside this room) has those of the product. Both
//! make, check and delete by `place`, and ask the node by `seen`.

mod about;
mod peer_config;
mod place;
mod seen;
mod wireguard;

use std::sync::Arc;

use axum::extract::State;
use http::Method;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::envelope::{Answer, page};
use super::input::{At, Params};
use super::operation::{Routes, does};
use crate::model::tunnel::{Kind, Tunnel};
use crate::model::{HexId, Refusal, Timestamp};
use crate::store::Snapshot;

pub(super) use about::{HEALTH, HEALTH_CHECK, STATUS, TEXT_OR_NULL, TRAFFIC, with_shared};
pub(super) use place::{amended, claims_address, delete, find, fresh, keep, no_random};
pub(super) use seen::Seen;

/// Code of a tunnel that does not exist.
pub(super) const UNKNOWN: u32 = 1016;
/// Code of a name, key, address or prefix that another tunnel has.
pub(super) const TAKEN: u32 = 1013;

pub(super) fn routes() -> Routes {
    let all = "/accounts/{account}/tunnels";
    let list_of = does("List tunnels of every kind").asks(about::FILTERS);
    Routes::new()
        .on((Method::GET, all), list, list_of.lists(about::ANY, 1_000))
        .and(wireguard::routes())
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let paging = params.paging(100, 1_000)?;
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let seen = Seen::now(&shared);
    let found = listed(&snapshot, account.id, &seen, &params)?;
    Ok(page(found, paging, |tunnel| {
        show_any(&snapshot, &seen, tunnel)
    }))
}

/// The account's tunnels that the query wants, oldest first.
fn listed<'a>(
    snapshot: &'a Snapshot,
    account: HexId,
    seen: &Seen,
    params: &Params,
) -> Result<Vec<&'a Arc<Tunnel>>, Refusal> {
    let is_deleted = params.boolean("is_deleted")?.unwrap_or(false);
    let id = params.uuid("uuid")?;
    let kinds = params.list("tun_types");
    let found = snapshot.tunnels_in(account).filter(|tunnel| {
        !is_deleted
            && kinds
                .as_ref()
                .is_none_or(|kinds| kinds.contains(&tunnel.tun_type()))
            && params.get("name").is_none_or(|name| tunnel.name == name)
            && params
                .get("include_prefix")
                .is_none_or(|prefix| tunnel.name.starts_with(prefix))
            && params
                .get("exclude_prefix")
                .is_none_or(|prefix| !tunnel.name.starts_with(prefix))
            && params
                .get("status")
                .is_none_or(|status| seen.status(tunnel) == status)
            && id.is_none_or(|id| tunnel.id == id)
    });
    Ok(found.collect())
}

fn show_any(snapshot: &Snapshot, seen: &Seen, tunnel: &Tunnel) -> Value {
    match &tunnel.kind {
        Kind::WireGuard(wireguard) => wireguard::show(snapshot, seen, (tunnel, wireguard), None),
        Kind::Gre(_) | Kind::Ipsec(_) | Kind::Interconnect(_) => json!({
            "id": tunnel.id,
            "account_tag": tunnel.account_id,
            "name": tunnel.name,
            "tun_type": tunnel.tun_type(),
            "status": seen.status(tunnel),
            "rejected": seen.rejection(tunnel),
            "connections": [],
            "virtual_network_id": tunnel.virtual_network_id,
            "health": seen.health(tunnel),
            "traffic": seen.traffic(tunnel),
            "created_at": tunnel.created_at,
            "deleted_at": None::<Timestamp>,
        }),
    }
}
