//! `/accounts/{account}/wireguard_tunnels`, a resource of our own, and `/accounts/{account}/tunnels`.

mod peer_config;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use dataplane::id::TunnelId;
use dataplane::node::TunnelStatus;
use dataplane::program::Key;
use dataplane::tunnel::wireguard::{PresharedKey, PrivateKey};
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use uuid::Uuid;

use super::context::{self, Shared};
use super::coverage;
use super::envelope::{Answer, one, page};
use super::input::{At, Body, Params};
use super::routes::vnet_of;
use crate::model::counter::Numbered;
use crate::model::route::Route;
use crate::model::tunnel::{self, Draft, INVALID, Identity, MTU_DEFAULT, Tunnel, Wanted};
use crate::model::{Fault, Fields, HexId, Refusal, Timestamp};
use crate::program;
use crate::store::{Snapshot, Transaction};

/// Code of a tunnel that does not exist.
const UNKNOWN: u32 = 1016;
/// Code of a name, key or prefix that another tunnel has.
const TAKEN: u32 = 1013;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/accounts/{account}/tunnels", get(list))
        .route(
            "/accounts/{account}/wireguard_tunnels",
            get(list).post(create),
        )
        .route(
            "/accounts/{account}/wireguard_tunnels/{tunnel}",
            get(read).patch(patch).delete(delete),
        )
        .route(
            "/accounts/{account}/wireguard_tunnels/{tunnel}/config",
            get(config),
        )
}

/// Keys that were made for a request: shown in its answer and nowhere else.
#[derive(Default)]
struct Made {
    peer: Option<PrivateKey>,
    preshared: Option<PresharedKey>,
}

async fn create(State(shared): State<Shared>, At(account): At<String>, Body(body): Body) -> Answer {
    let (tunnel, made) = shared
        .write(move |transaction| {
            let account = context::account(transaction.snapshot(), &account)?;
            let draft = Draft::read(Fields::new(body, INVALID)?)?;
            new(transaction, account.id, draft)
        })
        .await?;
    Ok(one(show_with_keys(&shared, &tunnel, &made)))
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let paging = params.paging(100, 1_000)?;
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let seen = Seen::now(&shared);
    let is_deleted = params.boolean("is_deleted")?.unwrap_or(false);
    let id = params.uuid("uuid")?;
    let kinds = params.get("tun_types");
    let mut found: Vec<Arc<Tunnel>> = snapshot
        .tunnels
        .iter()
        .filter(|tunnel| tunnel.account_id == account.id && !is_deleted)
        .filter(|_| kinds.is_none_or(|kinds| kinds.split(',').any(|kind| kind == "wireguard")))
        .filter(|tunnel| params.get("name").is_none_or(|name| tunnel.name == name))
        .filter(|tunnel| {
            params
                .get("include_prefix")
                .is_none_or(|p| tunnel.name.starts_with(p))
        })
        .filter(|tunnel| {
            params
                .get("exclude_prefix")
                .is_none_or(|p| !tunnel.name.starts_with(p))
        })
        .filter(|tunnel| {
            params
                .get("status")
                .is_none_or(|status| seen.status(tunnel) == status)
        })
        .filter(|tunnel| id.is_none_or(|id| tunnel.id == id))
        .cloned()
        .collect();
    found.sort_by_key(|tunnel| (tunnel.created_at, tunnel.id));
    Ok(page(found, paging, |tunnel| {
        show(&snapshot, &seen, &tunnel, None)
    }))
}

async fn read(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let tunnel = find(&snapshot, account.id, &id)?;
    Ok(one(show(&snapshot, &Seen::now(&shared), &tunnel, None)))
}

async fn patch(
    State(shared): State<Shared>,
    At((account, id)): At<(String, String)>,
    Body(body): Body,
) -> Answer {
    let (tunnel, made) = shared
        .write(move |transaction| {
            let account = context::account(transaction.snapshot(), &account)?;
            let old = find(transaction.snapshot(), account.id, &id)?;
            let draft = Draft::read(Fields::new(body, INVALID)?)?;
            let is_moved = draft
                .virtual_network_id
                .is_some_and(|id| id != old.virtual_network_id);
            if is_moved {
                let why = "A tunnel stays in its virtual network: delete it and make a new one.";
                return Err(Refusal::invalid(INVALID, why).at("virtual_network_id"));
            }
            put(transaction, (*old).clone(), draft)
        })
        .await?;
    Ok(one(show_with_keys(&shared, &tunnel, &made)))
}

/// Takes the tunnel's routes along (api.md 3.2).
async fn delete(State(shared): State<Shared>, At((account, id)): At<(String, String)>) -> Answer {
    let seen = Seen::now(&shared);
    let shown = shared.write(move |transaction| {
        let account = context::account(transaction.snapshot(), &account)?;
        let tunnel = find(transaction.snapshot(), account.id, &id)?;
        let shown = show(
            transaction.snapshot(),
            &seen,
            &tunnel,
            Some(transaction.now()),
        );
        let routes = transaction.snapshot().routes_into(tunnel.id);
        let routes: Vec<Uuid> = routes.map(|route| route.id).collect();
        for route in routes {
            transaction.delete::<Route>(&route);
        }
        transaction.delete::<Tunnel>(&tunnel.id);
        Ok(shown)
    });
    Ok(one(shown.await?))
}

/// The peer's configuration, ready for `wg-quick`, but for keys that only the peer has.
async fn config(
    State(shared): State<Shared>,
    At((account, id)): At<(String, String)>,
) -> Result<Response, Refusal> {
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let tunnel = find(&snapshot, account.id, &id)?;
    let text = config_of(&shared, &snapshot, &tunnel, &Made::default());
    Ok(([("content-type", "text/plain; charset=utf-8")], text).into_response())
}

fn new(
    transaction: &mut Transaction,
    account: HexId,
    draft: Draft,
) -> Result<(Tunnel, Made), Refusal> {
    let missing = |name: &str, why: &str| Refusal::invalid(INVALID, why).at(name);
    if draft.name.is_none() {
        return Err(missing("name", "'name' is required."));
    }
    let Some(peer) = draft.peer else {
        let why = "Give 'peer_public_key', or 'generate_peer_key': true.";
        return Err(missing("peer_public_key", why));
    };
    let vnet = vnet_of(transaction.snapshot(), account, draft.virtual_network_id)?;
    if transaction.snapshot().identities.get(&account).is_none() {
        let private_key = tunnel::private_key(&SystemRandom::new()).map_err(no_random)?;
        transaction.put(Identity {
            account_id: account,
            private_key,
        });
    }
    let number = transaction.number(Numbered::Tunnel, u32::MAX, |snapshot, number| {
        snapshot.indexes.tunnels.contains_key(&TunnelId(number))
    });
    let number =
        number.ok_or_else(|| Refusal::conflict(TAKEN, "All tunnel numbers are in use."))?;
    let tunnel = Tunnel {
        id: Uuid::new_v4(),
        account_id: account,
        number: TunnelId(number),
        name: String::new(),
        virtual_network_id: vnet,
        peer_public_key: match peer {
            Wanted::Given(key) => key,
            Wanted::Generate => dataplane::tunnel::wireguard::PublicKey([0; 32]),
        },
        preshared_key: None,
        endpoint: None,
        allowed_prefixes: Vec::new(),
        mtu: MTU_DEFAULT,
        persistent_keepalive: 0,
        created_at: transaction.now(),
    };
    put(transaction, tunnel, draft)
}

fn put(
    transaction: &mut Transaction,
    mut tunnel: Tunnel,
    draft: Draft,
) -> Result<(Tunnel, Made), Refusal> {
    let mut made = Made::default();
    match draft.peer {
        None => {}
        Some(Wanted::Given(key)) => tunnel.peer_public_key = key,
        Some(Wanted::Generate) => {
            let key = tunnel::private_key(&SystemRandom::new()).map_err(no_random)?;
            tunnel.peer_public_key = key.public();
            made.peer = Some(key);
        }
    }
    match draft.preshared_key {
        None => {}
        Some(None) => tunnel.preshared_key = None,
        Some(Some(Wanted::Given(key))) => tunnel.preshared_key = Some(key),
        Some(Some(Wanted::Generate)) => {
            let key = tunnel::preshared_key(&SystemRandom::new()).map_err(no_random)?;
            tunnel.preshared_key = Some(key);
            made.preshared = Some(key);
        }
    }
    tunnel.name = draft.name.unwrap_or(tunnel.name);
    tunnel.endpoint = draft.endpoint.unwrap_or(tunnel.endpoint);
    tunnel.allowed_prefixes = draft.allowed_prefixes.unwrap_or(tunnel.allowed_prefixes);
    tunnel.mtu = draft.mtu.unwrap_or(tunnel.mtu);
    tunnel.persistent_keepalive = draft
        .persistent_keepalive
        .unwrap_or(tunnel.persistent_keepalive);
    check(transaction.snapshot(), &tunnel)?;
    transaction.put(tunnel.clone());
    let allowed = program::allowed(transaction.snapshot(), &tunnel);
    coverage::check_allowed(transaction.snapshot(), &tunnel, &allowed)
        .map_err(|why| Refusal::conflict(TAKEN, why).at("allowed_prefixes"))?;
    Ok((tunnel, made))
}

fn check(snapshot: &Snapshot, tunnel: &Tunnel) -> Result<(), Refusal> {
    let edge = snapshot.identities.get(&tunnel.account_id);
    if edge.is_some_and(|edge| edge.private_key.public() == tunnel.peer_public_key) {
        let why = "'peer_public_key' is the edge's own key: give the peer's.";
        return Err(Refusal::invalid(INVALID, why).at("peer_public_key"));
    }
    let others = snapshot
        .tunnels
        .iter()
        .filter(|other| other.account_id == tunnel.account_id && other.id != tunnel.id);
    for other in others {
        if other.name == tunnel.name {
            let why = format!("A tunnel with the name '{}' exists already.", tunnel.name);
            return Err(Refusal::conflict(TAKEN, why).at("name"));
        }
        if other.peer_public_key == tunnel.peer_public_key {
            let why = format!("Tunnel '{}' has this peer_public_key already.", other.name);
            return Err(Refusal::conflict(TAKEN, why).at("peer_public_key"));
        }
    }
    Ok(())
}

fn no_random(_: ring::error::Unspecified) -> Refusal {
    Refusal::new(
        Fault::Ours,
        10_002,
        "The system gives no random bytes for a key: try again.",
    )
}

fn find(snapshot: &Snapshot, account: HexId, id: &str) -> Result<Arc<Tunnel>, Refusal> {
    let found = id
        .parse()
        .ok()
        .and_then(|id: Uuid| snapshot.tunnels.get(&id));
    let unknown = || Refusal::not_found(UNKNOWN, "There is no such tunnel in this account.");
    found
        .filter(|tunnel| tunnel.account_id == account)
        .cloned()
        .ok_or_else(unknown)
}

/// What the node says of its tunnels, asked once per request.
struct Seen {
    tunnels: Vec<TunnelStatus>,
    rejected: Vec<(Key, String)>,
    at: Timestamp,
}

impl Seen {
    fn now(shared: &Shared) -> Seen {
        Seen {
            tunnels: shared.status.tunnels(),
            rejected: shared.status.rejected(),
            at: context::now(),
        }
    }

    fn of(&self, tunnel: &Tunnel) -> Option<&TunnelStatus> {
        self.tunnels.iter().find(|seen| seen.id == tunnel.number)
    }

    /// The product's words: never been up, up, or no longer up (api.md 3.3).
    fn status(&self, tunnel: &Tunnel) -> &'static str {
        match self.of(tunnel) {
            Some(seen) if seen.is_up => "healthy",
            Some(seen) if seen.last_handshake_secs.is_some() => "down",
            Some(_) | None => "inactive",
        }
    }

    fn rejection(&self, tunnel: &Tunnel) -> Option<&str> {
        let key = Key::Tunnel(tunnel.number);
        let found = self.rejected.iter().find(|(rejected, _)| *rejected == key);
        found.map(|(_, why)| why.as_str())
    }
}

fn show(snapshot: &Snapshot, seen: &Seen, tunnel: &Tunnel, deleted_at: Option<Timestamp>) -> Value {
    let status = seen.of(tunnel);
    let identity = snapshot.identities.get(&tunnel.account_id);
    let handshake = status.and_then(|status| status.last_handshake_secs);
    let count = |of: fn(&TunnelStatus) -> u64| status.map_or(0, of);
    json!({
        "id": tunnel.id,
        "account_tag": tunnel.account_id,
        "name": tunnel.name,
        "tun_type": "wireguard",
        "status": seen.status(tunnel),
        "rejected": seen.rejection(tunnel),
        "connections": [],
        "virtual_network_id": tunnel.virtual_network_id,
        "public_key": identity.map(|identity| identity.private_key.public()),
        "peer_public_key": tunnel.peer_public_key,
        "has_preshared_key": tunnel.preshared_key.is_some(),
        "endpoint": tunnel.endpoint,
        "current_endpoint": status.and_then(|status| status.endpoint),
        "allowed_prefixes": tunnel.allowed_prefixes,
        "mtu": tunnel.mtu,
        "persistent_keepalive": tunnel.persistent_keepalive,
        "last_handshake": handshake.map(|secs| seen.at.before(secs)),
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
    let mut shown = show(&snapshot, &Seen::now(shared), tunnel, None);
    if let Some(key) = &made.peer {
        shown["peer_private_key"] = json!(key.to_base64());
    }
    if let Some(key) = &made.preshared {
        shown["preshared_key"] = json!(key.to_base64());
    }
    if made.peer.is_some() || made.preshared.is_some() {
        shown["config"] = json!(config_of(shared, &snapshot, tunnel, made));
    }
    shown
}

fn config_of(shared: &Shared, snapshot: &Snapshot, tunnel: &Tunnel, made: &Made) -> String {
    let identity = snapshot.identities.get(&tunnel.account_id);
    peer_config::text(&peer_config::Parts {
        tunnel,
        edge: identity.map(|identity| identity.private_key.public()),
        endpoint: shared.options.wireguard_endpoint.as_deref(),
        peer: made.peer.as_ref(),
        preshared: made.preshared.as_ref(),
    })
}
