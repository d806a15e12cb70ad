//! IKE_AUTH: both say who they are, prove it with the pre-shared key, and make the first child.

use std::time::Instant;

use subtle::ConstantTimeEq;

use crate::wire::ikev2::Exchange;
use crate::wire::ikev2::payload::{Chain, Id, Payload};

use super::child;
use super::config::{Config, Identity, Psk};
use super::context::Context;
use super::event::{Event, Failure};
use super::keys::{Keys, Nonces};
use super::notify::{self, Parts};
use super::sa::Sa;
use super::stage::{Stage, What};
use super::suite;

/// Proof by a shared key (RFC 7296 section 3.8).
const SHARED_KEY: u8 = 2;
/// What a shared key is mixed with first (RFC 7296 section 2.15).
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// What is proved: the first exchange, as it was on the wire.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) request: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) nonces: Nonces,
    /// The shared key of it.
    pub(super) shared: Vec<u8>,
}

impl Signed {
    /// The proof of one side (RFC 7296 section 2.15).
    fn proof(&self, of_initiator: bool, keys: &Keys, psk: &Psk, id: Id<'_>) -> Vec<u8> {
        let (message, nonce, key) = if of_initiator {
            (&self.request, &self.nonces.responder, &keys.pi)
        } else {
            (&self.response, &self.nonces.initiator, &keys.pr)
        };
        let id = [&[id.kind, 0, 0, 0], id.data].concat();
        let mac_of_id = keys.prf.of(key, &[&id]);
        let key = keys.prf.of(&psk.0, &[KEY_PAD]);
        keys.prf.of(&key, &[message, nonce, &mac_of_id])
    }

    /// Whether one side has proved in its IKE_AUTH that it knows the key.
    pub(super) fn is_proved(
        &self,
        by_initiator: bool,
        sa: &Sa,
        psk: &Psk,
        parts: &Parts<'_, '_>,
    ) -> bool {
        let id = if by_initiator { parts.id_i } else { parts.id_r };
        let (Some(id), Some((SHARED_KEY, data)), Some(keys)) = (id, parts.auth, &sa.keys) else {
            return false;
        };
        let expected = self.proof(by_initiator, keys, psk, id);
        bool::from(expected.ct_eq(data))
    }
}

/// Says who we are, and offers the first child.
pub(super) fn ask(
    sa: &mut Sa,
    context: &mut Context,
    signed: Signed,
    config: &Config,
    now: Instant,
) {
    let Ok(spi_in) = context.sad.reserve() else {
        return sa.die(context, Failure::Exhausted);
    };
    let (kind, data) = config.local_id.to_parts();
    let (peer_kind, peer_data) = config.remote_id.to_parts();
    let id = Id { kind, data: &data };
    let keys = sa.keys.as_ref().expect("agreed on before");
    let proof = signed.proof(true, keys, &config.psk, id);
    let mut chain = Chain::new();
    chain.push(&Payload::IdI(id));
    chain.notify(notify::INITIAL_CONTACT, &[]);
    chain.push(&Payload::IdR(Id {
        kind: peer_kind,
        data: &peer_data,
    }));
    chain.push(&Payload::Auth {
        method: SHARED_KEY,
        data: &proof,
    });
    let offer = suite::offer_esp(&config.esp, false, &spi_in.0.to_be_bytes());
    chain.push(&Payload::Sa(offer));
    chain.push(&Payload::TsI(config.local_ts.clone()));
    chain.push(&Payload::TsR(config.remote_ts.clone()));
    sa.stage = Stage::Auth(Box::new(signed), spi_in);
    sa.ask(context, Exchange::IKE_AUTH, &chain, What::Auth, now);
}

/// The peer says who it is.
pub(super) fn request(sa: &mut Sa, context: &mut Context, payloads: &[Payload<'_>], now: Instant) {
    let parts = Parts::of(payloads).unwrap_or_default();
    let Stage::Answered(signed, _) = std::mem::replace(&mut sa.stage, Stage::Dead) else {
        return;
    };
    let config = match identify(sa, context, &signed, &parts) {
        Ok(config) => config,
        Err(failure) => {
            sa.refuse(
                context,
                Exchange::IKE_AUTH,
                notify::AUTHENTICATION_FAILED,
                &[],
            );
            context.event(Event::Failed {
                tunnel: sa.tunnel,
                remote: sa.path.remote,
                failure,
            });
            return;
        }
    };
    let tunnel = sa.tunnel.expect("set with the config");
    sa.stage = Stage::Up;
    sa.rekey_at = context.jittered(config.times.ike, now);
    context.event(Event::Up {
        tunnel,
        path: sa.path,
    });
    if notify::find(payloads, notify::INITIAL_CONTACT).is_some() {
        context.only = Some((tunnel, sa.ours));
    }
    let (kind, data) = config.local_id.to_parts();
    let id = Id { kind, data: &data };
    let keys = sa.keys.as_ref().expect("agreed on before");
    let proof = signed.proof(false, keys, &config.psk, id);
    let mut chain = Chain::new();
    chain.push(&Payload::IdR(id));
    chain.push(&Payload::Auth {
        method: SHARED_KEY,
        data: &proof,
    });
    child::answer_first(sa, context, &parts, &signed.nonces, (&mut chain, now));
    sa.answer(context, Exchange::IKE_AUTH, &chain);
}

/// The config of the peer, if it proved to be who it says.
fn identify(
    sa: &mut Sa,
    context: &mut Context,
    signed: &Signed,
    parts: &Parts<'_, '_>,
) -> Result<Config, Failure> {
    let id = parts
        .id_i
        .ok_or(Failure::Protocol("it did not say who it is"))?;
    let Some((tunnel, config)) = context.peer(id) else {
        return Err(Failure::UnknownPeer { peer: name(id) });
    };
    let config = config.clone();
    sa.tunnel = Some(tunnel);
    let from = sa.path.remote.ip();
    if let Some(remote) = config.remote.filter(|remote| remote.ip() != from) {
        let (peer, configured) = (name(id), remote.ip());
        return Err(Failure::WrongAddress { peer, configured });
    }
    if !signed.is_proved(true, sa, &config.psk, parts) {
        return Err(Failure::WrongPsk { peer: name(id) });
    }
    context.note_place(tunnel, from);
    // The first exchange chose before anybody had a name.
    let is_allowed = sa.suite.is_some_and(|suite| {
        let offer = &config.ike;
        offer.ciphers.contains(&suite.cipher)
            && offer.prfs.contains(&suite.prf)
            && offer.groups.contains(&suite.group)
    });
    if !is_allowed {
        let chosen = sa.suite.map(|suite| suite::answer_ike(suite, 1, &[]));
        return Err(Failure::NoProposal {
            what: "IKE",
            ours: suite::describe(&suite::offer_ike(&config.ike, &[])),
            theirs: chosen.as_deref().map(suite::describe),
        });
    }
    Ok(config)
}

fn name(id: Id<'_>) -> String {
    Identity::parse(id).map_or_else(
        || format!("an identity of kind {}", id.kind),
        |identity| identity.to_string(),
    )
}

/// The peer proved who it is, or refused our proof.
pub(super) fn response(sa: &mut Sa, context: &mut Context, payloads: &[Payload<'_>], now: Instant) {
    let Some(config) = context.config(sa.tunnel).cloned() else {
        return sa.die(context, Failure::Deleted);
    };
    let parts = Parts::of(payloads).unwrap_or_default();
    if parts.auth.is_none() {
        let failure = match notify::error(payloads).map(|error| error.kind) {
            Some(notify::AUTHENTICATION_FAILED) => Failure::PskRefused,
            Some(other) => Failure::Refused(other),
            None => Failure::Protocol("it did not prove who it is"),
        };
        return sa.die(context, failure);
    }
    let identity = parts.id_r.and_then(Identity::parse);
    if !identity.is_some_and(|identity| config.is_peer(&identity)) {
        let peer = parts.id_r.map_or_else(|| "nobody".to_owned(), name);
        return sa.die(context, Failure::WrongIdentity { peer });
    }
    let Stage::Auth(signed, spi_in) = std::mem::replace(&mut sa.stage, Stage::Dead) else {
        return;
    };
    if !signed.is_proved(false, sa, &config.psk, &parts) {
        context.sad.remove(spi_in);
        let peer = config.remote_id.to_string();
        // Back to a stage that has a failure to tell.
        sa.stage = Stage::Auth(signed, spi_in);
        return sa.die(context, Failure::WrongPsk { peer });
    }
    sa.stage = Stage::Up;
    sa.rekey_at = context.jittered(config.times.ike, now);
    let tunnel = sa.tunnel.expect("an initiator knows its tunnel");
    context.event(Event::Up {
        tunnel,
        path: sa.path,
    });
    child::take_first(
        sa,
        context,
        (payloads, &parts),
        &signed.nonces,
        (spi_in, now),
    );
}
