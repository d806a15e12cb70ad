//! IKE_SA_INIT: agrees on algorithms and keys, and looks for NATs, in both roles.

use std::time::Instant;

use ring::digest;

use crate::id::TunnelId;
use crate::wire::ikev2::payload::{Chain, Payload};
use crate::wire::ikev2::proposal::Proposal;
use crate::wire::ikev2::{Exchange, Header};

use super::auth::{self, Signed};
use super::config::{Config, IkeOffer};
use super::context::{Context, PORT, PORT_SHARED};
use super::dh::{Group, Private};
use super::event::{Failure, Path};
use super::keys::{Keys, Nonces};
use super::notify::{self, Parts};
use super::sa::{HALF_OPEN, Sa};
use super::stage::{Offer, Stage};
use super::suite::{self, IkeSuite};

/// Times that the peer may want the first request otherwise: a cookie, another group, a cookie
/// again.
const CHANGES_MAX: u32 = 4;
/// The longest cookie (RFC 7296 section 2.6).
const COOKIE_LEN_MAX: usize = 64;

/// What the first request asked.
#[derive(Debug)]
pub(super) struct Asked {
    offer: Offer,
    cookie: Vec<u8>,
    message: Vec<u8>,
    changes: u32,
}

/// The peer of a tunnel begins to be asked.
pub(super) fn start(
    context: &mut Context,
    tunnel: TunnelId,
    path: Path,
    now: Instant,
) -> Option<Sa> {
    let group = *context.configs.get(&tunnel)?.ike.groups.first()?;
    let mut sa = Sa::new(context, true, path, now);
    sa.tunnel = Some(tunnel);
    sa.can_fragment = true;
    let asked = Asked {
        offer: Offer {
            nonce: context.nonce(),
            private: Some(Private::generate(group, context.random())?),
        },
        cookie: Vec::new(),
        message: Vec::new(),
        changes: 0,
    };
    send(&mut sa, context, asked, now);
    Some(sa)
}

/// Sends the first request, with what is known by now.
fn send(sa: &mut Sa, context: &mut Context, mut asked: Asked, now: Instant) {
    let Some(config) = context.config(sa.tunnel) else {
        return;
    };
    let mut chain = Chain::new();
    if !asked.cookie.is_empty() {
        chain.notify(notify::COOKIE, &asked.cookie);
    }
    chain.push(&Payload::Sa(suite::offer_ike(&config.ike, &[])));
    let private = asked.offer.private.as_ref().expect("made with the request");
    push_key(&mut chain, private, &asked.offer.nonce);
    push_nat_detection(&mut chain, sa, config.forces_udp);
    let message = sa.header(Exchange::IKE_SA_INIT, false, 0).with(&chain);
    asked.message.clone_from(&message);
    sa.stage = Stage::Init(Box::new(asked));
    sa.ask_in_clear(context, message, now);
}

fn push_key(chain: &mut Chain, private: &Private, nonce: &[u8]) {
    chain.push(&Payload::Ke {
        group: private.group().id(),
        data: private.public(),
    });
    chain.push(&Payload::Nonce(nonce));
}

/// Hashes of where we think that both are, so that the other sees whether a NAT changed that
/// (RFC 7296 section 2.23). A wrong one of our own makes it see one that is not there.
fn push_nat_detection(chain: &mut Chain, sa: &Sa, forces_udp: bool) {
    let (initiator, responder) = sa.spis();
    let mut ours = nat_hash(initiator, responder, sa.path.local);
    if forces_udp {
        ours[0] ^= 0xff;
    }
    chain.notify(notify::NAT_DETECTION_SOURCE_IP, &ours);
    let theirs = nat_hash(initiator, responder, sa.path.remote);
    chain.notify(notify::NAT_DETECTION_DESTINATION_IP, &theirs);
    chain.notify(notify::FRAGMENTATION_SUPPORTED, &[]);
}

fn nat_hash(initiator: u64, responder: u64, at: std::net::SocketAddr) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&initiator.to_be_bytes());
    context.update(&responder.to_be_bytes());
    match at.ip() {
        std::net::IpAddr::V4(address) => context.update(&address.octets()),
        std::net::IpAddr::V6(address) => context.update(&address.octets()),
    }
    context.update(&at.port().to_be_bytes());
    let hash = context.finish();
    hash.as_ref().try_into().expect("SHA-1 has 20 bytes")
}

/// Notes what the other's message says about NATs and fragments.
fn learn(sa: &mut Sa, header: Header, payloads: &[Payload<'_>], forces_udp: bool) {
    let seen = |at| nat_hash(header.initiator_spi, header.responder_spi, at);
    let mut sources = notify::notifies(payloads)
        .filter(|n| n.kind == notify::NAT_DETECTION_SOURCE_IP)
        .peekable();
    let is_aware = sources.peek().is_some();
    sa.is_peer_behind_nat = is_aware && !sources.any(|n| n.data == seen(sa.path.remote));
    let destination = notify::find(payloads, notify::NAT_DETECTION_DESTINATION_IP);
    let are_we = destination.is_some_and(|n| n.data != seen(sa.path.local));
    sa.are_we_behind_nat = are_we;
    sa.is_in_udp = sa.is_peer_behind_nat || are_we || (is_aware && forces_udp);
    sa.can_fragment = notify::find(payloads, notify::FRAGMENTATION_SUPPORTED).is_some();
}

/// What both sides know after the first exchange.
pub(super) struct Agreed {
    pub(super) suite: IkeSuite,
    pub(super) nonces: Nonces,
    pub(super) shared: Vec<u8>,
}

/// Takes keys and suite of the first exchange into the SA.
pub(super) fn agree(sa: &mut Sa, agreed: Agreed, request: Vec<u8>, response: Vec<u8>) -> Signed {
    let Agreed {
        suite,
        nonces,
        shared,
    } = agreed;
    let seed = Keys::seed(suite.prf, &nonces, &shared);
    let keys = Keys::derive((suite.prf, suite.cipher), &seed, &nonces, sa.spis());
    sa.suite = Some(suite);
    sa.keys = Some(keys);
    Signed {
        request,
        response,
        nonces,
        shared,
    }
}

/// The answer to our first request came.
pub(super) fn response(
    sa: &mut Sa,
    context: &mut Context,
    (header, payloads, message): (Header, &[Payload<'_>], &[u8]),
    now: Instant,
) {
    if !matches!(sa.stage, Stage::Init(_)) {
        return;
    }
    let Some(config) = context.config(sa.tunnel).cloned() else {
        return sa.die(context, Failure::Deleted);
    };
    if change(sa, context, &config, payloads, now) {
        return;
    }
    if let Some(error) = notify::error(payloads) {
        let failure = refusal(error.kind, &config.ike);
        return sa.die(context, failure);
    }
    let parts = Parts::of(payloads).unwrap_or_default();
    let (Some(proposals), Some((group, public)), Some(nonce)) = (parts.sa, parts.ke, parts.nonce)
    else {
        return sa.die(
            context,
            Failure::Protocol("its IKE_SA_INIT answer lacks a payload"),
        );
    };
    let Stage::Init(asked) = std::mem::replace(&mut sa.stage, Stage::Dead) else {
        return;
    };
    let private = asked.offer.private.expect("made with the request");
    let chosen = suite::choose_ike(proposals, &config.ike, Some(group));
    let fitting = chosen.filter(|(suite, _)| {
        let is_one = proposals.len() == 1;
        is_one && suite.group.id() == group && suite.group == private.group()
    });
    let (Some((suite, _)), true) = (fitting, header.responder_spi != 0) else {
        return sa.die(context, Failure::Protocol("it chose what was not offered"));
    };
    let Some(shared) = private.agree(public) else {
        return sa.die(context, Failure::Protocol("its public value is none"));
    };
    sa.theirs = header.responder_spi;
    sa.settle();
    learn(sa, header, payloads, config.forces_udp);
    let nonces = Nonces {
        initiator: asked.offer.nonce,
        responder: nonce.to_vec(),
    };
    let agreed = Agreed {
        suite,
        nonces,
        shared,
    };
    let signed = agree(sa, agreed, asked.message, message.to_vec());
    if sa.is_in_udp && sa.path.local.port() == PORT {
        sa.path.local.set_port(PORT_SHARED);
        sa.path.remote.set_port(PORT_SHARED);
    }
    auth::ask(sa, context, signed, &config, now);
}

/// Sends the first request again when the peer wants it otherwise; true then.
fn change(
    sa: &mut Sa,
    context: &mut Context,
    config: &Config,
    payloads: &[Payload<'_>],
    now: Instant,
) -> bool {
    let Stage::Init(asked) = &mut sa.stage else {
        return false;
    };
    if asked.changes >= CHANGES_MAX {
        return false;
    }
    if let Some(cookie) = notify::find(payloads, notify::COOKIE)
        && (1..=COOKIE_LEN_MAX).contains(&cookie.data.len())
    {
        asked.cookie = cookie.data.to_vec();
    } else if let Some(wanted) = notify::find(payloads, notify::INVALID_KE_PAYLOAD)
        && let Ok(id) = wanted.data.try_into()
        && let Some(group) = Group::from_id(u16::from_be_bytes(id))
        && config.ike.groups.contains(&group)
        && asked
            .offer
            .private
            .as_ref()
            .is_some_and(|old| old.group() != group)
        && let Some(private) = Private::generate(group, context.random())
    {
        asked.offer.private = Some(private);
    } else {
        return false;
    }
    asked.changes += 1;
    let Stage::Init(asked) = std::mem::replace(&mut sa.stage, Stage::Dead) else {
        return false;
    };
    send(sa, context, *asked, now);
    true
}

fn refusal(kind: u16, offer: &IkeOffer) -> Failure {
    match kind {
        notify::NO_PROPOSAL_CHOSEN => Failure::NoProposal {
            what: "IKE",
            ours: suite::describe(&suite::offer_ike(offer, &[])),
            theirs: None,
        },
        other => Failure::Refused(other),
    }
}

/// Why a first request gets no SA: what to answer it with, and what to tell people.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) notify: u16,
    pub(super) data: Vec<u8>,
    pub(super) failure: Option<Failure>,
}

/// A first request came whose sender is allowed one. The SA answers it.
pub(super) fn request(
    context: &mut Context,
    path: Path,
    (header, payloads, message): (Header, &[Payload<'_>], &[u8]),
    now: Instant,
) -> Result<Sa, Refused> {
    let parts = Parts::of(payloads).unwrap_or_default();
    let (Some(proposals), Some((group, public)), Some(nonce)) = (parts.sa, parts.ke, parts.nonce)
    else {
        return Err(refused(notify::INVALID_SYNTAX, Vec::new(), None));
    };
    let (suite, number, forces_udp) = choose(context, path, proposals, group)?;
    if suite.group.id() != group {
        let wanted = suite.group.id().to_be_bytes().to_vec();
        return Err(refused(notify::INVALID_KE_PAYLOAD, wanted, None));
    }
    let invalid = || refused(notify::INVALID_SYNTAX, Vec::new(), None);
    let private = Private::generate(suite.group, context.random()).ok_or_else(invalid)?;
    let ours = private.public().to_vec();
    let shared = private.agree(public).ok_or_else(invalid)?;
    let mut sa = Sa::new(context, false, path, now);
    sa.theirs = header.initiator_spi;
    learn(&mut sa, header, payloads, forces_udp);
    let nonces = Nonces {
        initiator: nonce.to_vec(),
        responder: context.nonce(),
    };
    let mut chain = Chain::new();
    chain.push(&Payload::Sa(suite::answer_ike(suite, number, &[])));
    chain.push(&Payload::Ke { group, data: &ours });
    chain.push(&Payload::Nonce(&nonces.responder));
    push_nat_detection(&mut chain, &sa, forces_udp);
    let response = sa.header(Exchange::IKE_SA_INIT, true, 0).with(&chain);
    let agreed = Agreed {
        suite,
        nonces,
        shared,
    };
    let signed = agree(&mut sa, agreed, message.to_vec(), response.clone());
    sa.stage = Stage::Answered(Box::new(signed), now + HALF_OPEN);
    sa.answer_in_clear(context, response);
    Ok(sa)
}

const fn refused(notify: u16, data: Vec<u8>, failure: Option<Failure>) -> Refused {
    Refused {
        notify,
        data,
        failure,
    }
}

/// Chooses for a peer that has not said who it is: for one of those that may be meant, whichever worker's.
/// First come those that proved to be at this address, so that nobody who says that his peer is there
/// as well chooses for them. In UDP it goes if any of them is to: raw ESP may not reach that one.
fn choose(
    context: &Context,
    path: Path,
    proposals: &[Proposal],
    group: u16,
) -> Result<(IkeSuite, u8, bool), Refused> {
    let from = path.remote.ip();
    let ours = context.configs.iter().map(|(tunnel, peer)| (*tunnel, peer));
    let may_be = |(_, config): &(TunnelId, &Config)| {
        let remote = config.remote.map(|remote| remote.ip());
        remote.is_none_or(|remote| remote == from)
    };
    let all = ours.chain(context.elsewhere.configs()).filter(may_be);
    let mut candidates: Vec<(TunnelId, &Config)> = all.collect();
    candidates.sort_by_key(|(tunnel, _)| !context.was_at(*tunnel, from));
    let chosen = candidates.iter().find_map(|(_, config)| {
        let (suite, proposal) = suite::choose_ike(proposals, &config.ike, Some(group))?;
        Some((suite, proposal.number))
    });
    let forces_udp = candidates.iter().any(|(_, config)| config.forces_udp);
    if let Some((suite, number)) = chosen {
        return Ok((suite, number, forces_udp));
    }
    let failure = candidates.first().map(|(_, config)| Failure::NoProposal {
        what: "IKE",
        ours: suite::describe(&suite::offer_ike(&config.ike, &[])),
        theirs: Some(suite::describe(proposals)),
    });
    Err(refused(notify::NO_PROPOSAL_CHOSEN, Vec::new(), failure))
}
