//! `/accounts/{account}/wireguard_tunnels`, a resource of our own.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use dataplane::node::TunnelStatus;
use dataplane::tunnel::wireguard::{PresharedKey, PrivateKey};
use http::Method;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::about::{FILTERS, WIREGUARD, examples};
use super::{
    Seen, amended, delete as delete_any, find as find_any, fresh, keep, listed, no_random,
};
use super::{UNKNOWN, peer_config};
use crate::api::context::{self, Shared};
use crate::api::envelope::{Answer, one, one_noting, page};
use crate::api::input::{At, Body, Params};
use crate::api::operation::{Routes, does};
use crate::model::tunnel::{
    self, Draft, INVALID, Identity, Kind, TargetForm, Tunnel, Wanted, WireGuard,
};
use crate::model::{Fields, HexId, Refusal, Timestamp};
use crate::store::{Snapshot, Transaction};

pub(super) fn routes() -> Routes {
    let all = "/accounts/{account}/wireguard_tunnels";
    let each = "/accounts/{account}/wireguard_tunnels/{tunnel}";
    let file = "/accounts/{account}/wireguard_tunnels/{tunnel}/config";
    let list_of = does("List WireGuard tunnels").asks(FILTERS);
    let read_draft = |fields| Draft::read(fields, None).map(drop);
    let new = does("Make a WireGuard tunnel").takes(read_draft, examples);
    let shown = does("Show a WireGuard tunnel");
    let changed = does("Change a WireGuard tunnel").takes_part(read_draft, examples);
    let gone = does("Delete a WireGuard tunnel and its routes");
    let of_peer = does("The peer's configuration, for wg-quick");
    Routes::new()
        .on((Method::GET, all), list, list_of.lists(WIREGUARD, 1_000))
        .on((Method::POST, all), create, new.gives(WIREGUARD))
        .on((Method::GET, each), read, shown.gives(WIREGUARD))
        .on((Method::PATCH, each), patch, changed.gives(WIREGUARD))
        .on((Method::DELETE, each), delete, gone.gives(WIREGUARD))
        .on((Method::GET, file), config, of_peer.gives_text())
}

/// Keys that were made for a request: shown in its answer and nowhere else.
#[derive(Default)]
struct Made {
    peer: Option<PrivateKey>,
    preshared: Option<PresharedKey>,
}

async fn create(State(shared): State<Shared>, At(account): At<String>, Body(body): Body) -> Answer {
    let options = shared.options.clone();
    let (tunnel, made) = shared
        .write(move |transaction| {
            let account = context::account(transaction.snapshot(), &account)?;
            let draft = Draft::read(Fields::new(body, INVALID)?, None)?;
            identify(transaction, account.id)?;
            let (kind, made) = kind_of(&draft, None)?;
            let tunnel = fresh(transaction, account.id, draft.shared, kind)?;
            keep(transaction, &options, std::slice::from_ref(&tunnel)).map_err(|(_, why)| why)?;
            Ok((tunnel, made))
        })
        .await?;
    Ok(one(show_with_keys(&shared, &tunnel, &made)))
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let paging = params.paging(100, 1_000)?;
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let seen = Seen::now(&shared);
    let found = listed(&snapshot, account.id, &seen, &params)?;
    let found = found
        .into_iter()
        .filter_map(|tunnel| Some((tunnel, of(tunnel)?)));
    Ok(page(found.collect(), paging, |(tunnel, wireguard)| {
        show(&snapshot, &seen, (tunnel, wireguard), None)
    }))
}

async fn read(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let tunnel = find(&snapshot, account.id, &id)?;
    let shown = show_with_keys(&shared, &tunnel, &Made::default());
    Ok(one(shown))
}

async fn patch(
    State(shared): State<Shared>,
    At((account, id)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let options = shared.options.clone();
    let (tunnel, made) = shared
        .write(move |transaction| {
            let account = context::account(transaction.snapshot(), &account)?;
            let old = find(transaction.snapshot(), account.id, &id)?;
            let draft = Draft::read(Fields::new(body, INVALID)?, Some(&old))?;
            let (kind, made) = kind_of(&draft, of(&old))?;
            let tunnel = amended(transaction, &old, draft.shared, kind)?;
            keep(transaction, &options, std::slice::from_ref(&tunnel)).map_err(|(_, why)| why)?;
            Ok((tunnel, made))
        })
        .await?;
    Ok(one(show_with_keys(&shared, &tunnel, &made)))
}

/// Takes the tunnel's routes along (api.md 3.2), and says so.
async fn delete(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let seen = Seen::now(&shared);
    let deleted = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let tunnel = find(transaction.snapshot(), account.id, &id)?;
        let wireguard = of(&tunnel).ok_or_else(unknown)?;
        let now = Some(transaction.now());
        let shown = show(transaction.snapshot(), &seen, (&tunnel, wireguard), now);
        let notes = delete_any(transaction, &tunnel)?;
        Ok((shown, notes))
    });
    let (shown, notes) = deleted.await?;
    Ok(one_noting(shown, &notes))
}

/// The peer's configuration, ready for `wg-quick`, but for keys that only the peer has.
async fn config(
    State(shared): State<Shared>,
    At((account, id)): At<(String, String)>,
) -> Result<Response, Refusal> {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let tunnel = find(&snapshot, account.id, &id)?;
    let wireguard = of(&tunnel).ok_or_else(unknown)?;
    let text = config_of(&shared, &snapshot, (&tunnel, wireguard), &Made::default());
    Ok(([("content-type", "text/plain; charset=utf-8")], text).into_response())
}

/// Gives the account its keys, if it has none.
fn identify(transaction: &mut Transaction, account: HexId) -> Result<(), Refusal> {
    if transaction.snapshot().identities.get(&account).is_none() {
        let private_key = tunnel::private_key(&SystemRandom::new()).map_err(no_random)?;
        transaction.put(Identity {
            account_id: account,
            private_key,
        });
    }
    Ok(())
}

/// What only WireGuard has, as the request wants it, and the keys that were made for it.
fn kind_of(draft: &Draft, old: Option<&WireGuard>) -> Result<(Kind, Made), Refusal> {
    let mut made = Made::default();
    let peer_public_key = match draft.peer {
        Some(Wanted::Given(key)) => Some(key),
        Some(Wanted::Generate) => {
            let key = tunnel::private_key(&SystemRandom::new()).map_err(no_random)?;
            let public = key.public();
            made.peer = Some(key);
            Some(public)
        }
        None => old.map(|old| old.peer_public_key),
    };
    let preshared_key = match &draft.preshared_key {
        None => old.and_then(|old| old.preshared_key),
        Some(None) => None,
        Some(Some(Wanted::Given(key))) => Some(*key),
        Some(Some(Wanted::Generate)) => {
            let key = tunnel::preshared_key(&SystemRandom::new()).map_err(no_random)?;
            made.preshared = Some(key);
            Some(key)
        }
    };
    let kind = Kind::WireGuard(WireGuard {
        peer_public_key: peer_public_key.ok_or_else(unknown)?,
        preshared_key,
        endpoint: draft.endpoint,
        persistent_keepalive: draft.persistent_keepalive,
    });
    Ok((kind, made))
}

fn find(snapshot: &Snapshot, account: HexId, id: &str) -> Result<std::sync::Arc<Tunnel>, Refusal> {
    let found = find_any(snapshot, account, id)?;
    match of(&found) {
        Some(_) => Ok(found),
        None => Err(unknown()),
    }
}

fn unknown() -> Refusal {
    Refusal::not_found(
        UNKNOWN,
        "There is no such WireGuard tunnel in this account.",
    )
}

/// What only WireGuard has; `None` for a tunnel of another kind.
fn of(tunnel: &Tunnel) -> Option<&WireGuard> {
    match &tunnel.kind {
        Kind::WireGuard(wireguard) => Some(wireguard),
        Kind::Gre(_) | Kind::Ipsec(_) | Kind::Interconnect(_) => None,
    }
}

pub(super) fn show(
    snapshot: &Snapshot,
    seen: &Seen,
    (tunnel, wireguard): (&Tunnel, &WireGuard),
    deleted_at: Option<Timestamp>,
) -> Value {
    let status = seen.of(tunnel);
    let identity = snapshot.identities.get(&tunnel.account_id);
    let handshake = status.and_then(|status| status.last_handshake_secs);
    let count = |of: fn(&TunnelStatus) -> u64| status.map_or(0, of);
    let outside = status.and_then(|status| status.endpoint).map(|at| at.ip());
    let health_check = tunnel
        .health_check
        .map(|check| check.show(check.default_target(tunnel, outside), TargetForm::Text));
    json!({
        "id": tunnel.id,
        "account_tag": tunnel.account_id,
        "name": tunnel.name,
        "description": tunnel.description,
        "tun_type": tunnel.tun_type(),
        "status": seen.status(tunnel),
        "health": seen.health(tunnel),
        "rejected": seen.rejection(tunnel),
        "connections": [],
        "virtual_network_id": tunnel.virtual_network_id,
        "interface_address": tunnel.interface.ipv4,
        "interface_address6": tunnel.interface.ipv6,
        "health_check": health_check,
        "public_key": identity.map(|identity| identity.private_key.public()),
        "peer_public_key": wireguard.peer_public_key,
        "has_preshared_key": wireguard.preshared_key.is_some(),
        "endpoint": wireguard.endpoint,
        "current_endpoint": status.and_then(|status| status.endpoint),
        "allowed_prefixes": tunnel.allowed_prefixes,
        "mtu": tunnel.mtu,
        "persistent_keepalive": wireguard.persistent_keepalive,
        "last_handshake": handshake.map(|secs| seen.before(secs)),
        "tx_packets": count(|status| status.tx_packets),
        "tx_bytes": count(|status| status.tx_bytes),
        "rx_packets": count(|status| status.rx_packets),
        "rx_bytes": count(|status| status.rx_bytes),
        "dropped_packets": count(|status| status.dropped_packets),
        "created_at": tunnel.created_at,
        "deleted_at": deleted_at,
    })
}

/// The tunnel, with the keys that were made for this request and the configuration that has them.
fn show_with_keys(shared: &Shared, tunnel: &Tunnel, made: &Made) -> Value {
    let snapshot = shared.snapshot();
    let Some(wireguard) = of(tunnel) else {
        return Value::Null;
    };
    let mut shown = show(&snapshot, &Seen::now(shared), (tunnel, wireguard), None);
    if let Some(key) = &made.peer {
        shown["peer_private_key"] = json!(key.to_base64());
    }
    if let Some(key) = &made.preshared {
        shown["preshared_key"] = json!(key.to_base64());
    }
    if made.peer.is_some() || made.preshared.is_some() {
        shown["config"] = json!(config_of(shared, &snapshot, (tunnel, wireguard), made));
    }
    shown
}

fn config_of(
    shared: &Shared,
    snapshot: &Snapshot,
    tunnel: (&Tunnel, &WireGuard),
    made: &Made,
) -> String {
    let identity = snapshot.identities.get(&tunnel.0.account_id);
    peer_config::text(&peer_config::Parts {
        tunnel,
        range: snapshot.source_range(tunnel.0.account_id),
        edge: identity.map(|identity| identity.private_key.public()),
        endpoint: shared.options.wireguard_endpoint.as_deref(),
        peer: made.peer.as_ref(),
        preshared: made.preshared.as_ref(),
    })
}
