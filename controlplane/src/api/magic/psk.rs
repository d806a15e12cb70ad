//! `/accounts/{account}/magic/ipsec_tunnels/{tunnel}/psk_generate` and `ipsec_tunnels/psk`.
//!
//! A key is shown in the answer of the request that made or gave it, and never again.

use http::Method;
use ring::rand::SystemRandom;
use serde_json::{Map, Value, json};

use super::super::envelope::{Answer, one};
use super::super::input::{At, Body};
use super::super::operation::{Routes, does};
use super::super::tunnels::no_random;
use super::about::{MADE_PSK, PSKS, REHEARSAL, SET_PSKS};
use super::collection::Collection;
use super::tunnels::{entries, find};
use super::write::Writing;
use crate::model::tunnel::{INVALID, Kind, Psk, Tunnel};
use crate::model::{Refusal, Timestamp};
use crate::store::Transaction;

pub(super) fn routes() -> Routes {
    let all = "/accounts/{account}/magic/ipsec_tunnels/psk";
    let each = "/accounts/{account}/magic/ipsec_tunnels/{tunnel}/psk_generate";
    let given = does("Set pre-shared keys").asks(REHEARSAL).takes_body(PSKS);
    let made = does("Make a pre-shared key").asks(REHEARSAL);
    Routes::new()
        .on((Method::POST, all), set, given.gives(SET_PSKS))
        .on((Method::POST, each), generate, made.gives(MADE_PSK))
}

async fn generate(writing: Writing, At((_, id)): At<(String, String)>) -> Answer {
    let made = writing.run(move |transaction, account| {
        let tunnel = find(transaction.snapshot(), account, Collection::Ipsec, &id)?;
        let psk = Psk::generate(&SystemRandom::new()).map_err(no_random)?;
        Ok(apply(transaction, &tunnel, psk))
    });
    Ok(one(made.await?))
}

/// Sets several; those that cannot be set are named with the reason, and the others are set.
async fn set(writing: Writing, Body(mut body): Body) -> Answer {
    let asked = body
        .as_object_mut()
        .and_then(|body| body.remove("validate_only"));
    let asked = match asked {
        None | Some(Value::Null) => None,
        Some(Value::Bool(asked)) => Some(asked),
        Some(_) => {
            let why = "'validate_only' must be true or false.";
            return Err(Refusal::invalid(INVALID, why).at("validate_only"));
        }
    };
    let writing = writing.rehearsed_if(asked.unwrap_or(false));
    let set = writing.run(move |transaction, account| {
        let mut applied = Map::new();
        let mut unapplied = Map::new();
        for (id, entry) in entries(body, "psks", INVALID)? {
            let found = find(transaction.snapshot(), account, Collection::Ipsec, &id);
            let psk = match entry["psk"].as_str() {
                Some(text) => Psk::new(text.to_owned()),
                None => Err("'psk' must be a string."),
            };
            match (found, psk) {
                (Ok(tunnel), Ok(psk)) => {
                    applied.insert(id, apply(transaction, &tunnel, psk));
                }
                (Err(why), _) => _ = unapplied.insert(id, json!(why.message)),
                (Ok(_), Err(why)) => _ = unapplied.insert(id, json!(why)),
            }
        }
        Ok(json!({"successfully_applied_psks": applied, "unapplied_psks": unapplied}))
    });
    Ok(one(set.await?))
}

/// Gives the tunnel the key; what the request's answer says of it.
fn apply(transaction: &mut Transaction, tunnel: &Tunnel, psk: Psk) -> Value {
    let now: Timestamp = transaction.now();
    let mut tunnel = tunnel.clone();
    let mut ipsec_id = None;
    let (account, id) = (tunnel.account_id, tunnel.id);
    let shown = psk.reveal().to_owned();
    if let Kind::Ipsec(ipsec) = &mut tunnel.kind {
        ipsec.psk = Some(psk);
        ipsec.psk_set_at = Some(now);
        ipsec_id = Some(ipsec.identities(account, id).key_id);
    }
    tunnel.modified_at = now;
    transaction.put(tunnel);
    json!({
        "ipsec_id": ipsec_id,
        "ipsec_tunnel_id": id.simple(),
        "psk": shown,
        "psk_metadata": {"last_generated_on": now},
    })
}
