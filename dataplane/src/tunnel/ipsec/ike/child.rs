//! Child SAs: the first one, and rekeys (CREATE_CHILD_SA), in both roles and at once.

use std::time::{Duration, Instant};

use crate::tunnel::ipsec::lifetime::{Lifetime, Limits};
use crate::tunnel::ipsec::sa::{Inbound, Keys as SaKeys};
use crate::wire::esp::Spi;
use crate::wire::ikev2::Exchange;
use crate::wire::ikev2::payload::{Chain, Notify, Payload, Selector};
use crate::wire::ikev2::proposal::Protocol;

use super::config::{Config, Pair};
use super::context::Context;
use super::dh::{Group, Private};
use super::event::{ChildUp, Event, Failure};
use super::keys::Nonces;
use super::notify::{self, Parts};
use super::sa::{CHILDREN_MAX, Sa};
use super::selector;
use super::stage::{Child, Offer, Stage, Task, What};
use super::suite::{self, EspSuite};

/// What a request of ours for a child asked.
#[derive(Debug)]
pub(super) struct Asked {
    /// The child that it is to replace; `None` for another one.
    old: Option<Spi>,
    /// Which of [`Config::pairs`] it carries.
    pair: usize,
    spi_in: Spi,
    offer: Offer,
    /// The peer's rekey of the same child, which came while ours was under way.
    rival: Option<Rival>,
}

/// A child that the peer made of the one that we are rekeying.
#[derive(Debug)]
struct Rival {
    nonces: Nonces,
}

/// What both sides agreed on about a child.
struct Agreed {
    suite: EspSuite,
    pair: usize,
    spi_in: Spi,
    spi_out: Spi,
    local_ts: Vec<Selector>,
    remote_ts: Vec<Selector>,
    /// Whether we asked for it.
    is_ours: bool,
    sends: bool,
}

/// When a child that the peer did not want, or took away, is asked for again.
const ANOTHER_AFTER: Duration = Duration::from_secs(30);

/// An error to answer with.
type Refused = (u16, Vec<u8>);

/// Chooses what a request offers, for the first child or a later one, and writes the answer.
fn accept(
    sa: &mut Sa,
    context: &mut Context,
    parts: &Parts<'_, '_>,
    (nonces, is_first): (&Nonces, bool),
    (chain, now): (&mut Chain, Instant),
) -> Result<Spi, Refused> {
    let config = context
        .config(sa.tunnel)
        .cloned()
        .ok_or((notify::NO_ADDITIONAL_SAS, Vec::new()))?;
    let (Some(proposals), Some(ts_i), Some(ts_r)) = (parts.sa, parts.ts_i, parts.ts_r) else {
        return Err((notify::INVALID_SYNTAX, Vec::new()));
    };
    if sa.children.len() >= CHILDREN_MAX {
        return Err((notify::NO_ADDITIONAL_SAS, Vec::new()));
    }
    let sent = parts.ke.map(|(group, _)| group);
    let Some((suite, proposal)) = suite::choose_esp(proposals, &config.esp, !is_first, sent) else {
        fail(
            sa,
            context,
            no_proposal(&config, Some(suite::describe(proposals))),
        );
        return Err((notify::NO_PROPOSAL_CHOSEN, Vec::new()));
    };
    let narrowed = config
        .pairs()
        .enumerate()
        .find_map(|(pair, (ours, theirs))| {
            let remote_ts = selector::narrow(ts_i, theirs);
            let local_ts = selector::narrow(ts_r, ours);
            let is_something = !remote_ts.is_empty() && !local_ts.is_empty();
            is_something.then_some((pair, local_ts, remote_ts))
        });
    let Some((pair, local_ts, remote_ts)) = narrowed else {
        fail(sa, context, Failure::NoTraffic);
        return Err((notify::TS_UNACCEPTABLE, Vec::new()));
    };
    let (shared, public) = exchange(context, suite, parts.ke)?;
    let spi_in = context
        .sad
        .reserve()
        .map_err(|_full| (notify::NO_ADDITIONAL_SAS, Vec::new()))?;
    let answer = suite::answer_esp(suite, proposal.number, &spi_in.0.to_be_bytes());
    chain.push(&Payload::Sa(answer));
    if !is_first {
        chain.push(&Payload::Nonce(&nonces.responder));
    }
    if let (Some(group), Some(public)) = (suite.group, &public) {
        chain.push(&Payload::Ke {
            group: group.id(),
            data: public,
        });
    }
    chain.push(&Payload::TsI(remote_ts.clone()));
    chain.push(&Payload::TsR(local_ts.clone()));
    let agreed = Agreed {
        suite,
        pair,
        spi_in,
        spi_out: spi_of(&proposal.spi),
        local_ts,
        remote_ts,
        is_ours: false,
        sends: is_first,
    };
    install(sa, context, agreed, (nonces, &shared), now);
    Ok(spi_in)
}

/// The secret of a key exchange that a child's proposal asks for, and our public value.
fn exchange(
    context: &mut Context,
    suite: EspSuite,
    ke: Option<(u16, &[u8])>,
) -> Result<(Vec<u8>, Option<Vec<u8>>), Refused> {
    let Some(group) = suite.group else {
        return Ok((Vec::new(), None));
    };
    let wanted = || {
        (
            notify::INVALID_KE_PAYLOAD,
            group.id().to_be_bytes().to_vec(),
        )
    };
    let (sent, theirs) = ke.ok_or_else(wanted)?;
    if sent != group.id() {
        return Err(wanted());
    }
    let invalid = || (notify::INVALID_SYNTAX, Vec::new());
    let private = Private::generate(group, context.random()).ok_or_else(invalid)?;
    let ours = private.public().to_vec();
    let shared = private.agree(theirs).ok_or_else(invalid)?;
    Ok((shared, Some(ours)))
}

fn spi_of(bytes: &[u8]) -> Spi {
    // Four bytes: proposals with others are not chosen.
    bytes
        .try_into()
        .map_or(Spi(0), |bytes| Spi(u32::from_be_bytes(bytes)))
}

/// Brings a child up: its inbound half into the SAD, its outbound half to the driver.
fn install(
    sa: &mut Sa,
    context: &mut Context,
    agreed: Agreed,
    (nonces, shared): (&Nonces, &[u8]),
    now: Instant,
) {
    let (Some(tunnel), Some(keys)) = (sa.tunnel, &sa.keys) else {
        return;
    };
    let Some(config) = context.config(sa.tunnel) else {
        return;
    };
    let (times, has_replay_check) = (config.times, config.has_replay_check);
    let (initiators, responders) = keys.child(nonces, shared, agreed.suite.cipher);
    let (ours, theirs) = if agreed.is_ours {
        (initiators, responders)
    } else {
        (responders, initiators)
    };
    let keyed = |spi, key| SaKeys {
        spi,
        transform: agreed.suite.cipher,
        key,
        has_esn: agreed.suite.has_esn,
    };
    let lifetime = Lifetime {
        hard: Limits {
            // Time for all retries of a rekey, and of one more.
            time: times.child + times.child / 10 + Duration::from_secs(180),
            ..Lifetime::default().hard
        },
        ..Lifetime::default()
    };
    let theirs = keyed(agreed.spi_in, theirs);
    let inbound = Inbound::new(&theirs, has_replay_check, lifetime, now);
    let is_installed = inbound.is_some_and(|inbound| context.sad.install(tunnel, inbound));
    if !is_installed || agreed.spi_out < Spi::MIN {
        context.sad.remove(agreed.spi_in);
        return;
    }
    context.event(Event::ChildUp(Box::new(ChildUp {
        tunnel,
        spi_in: agreed.spi_in,
        outbound: keyed(agreed.spi_out, ours),
        lifetime,
        local_ts: agreed.local_ts.clone(),
        remote_ts: agreed.remote_ts.clone(),
        path: sa.path,
        is_in_udp: sa.is_in_udp,
        sends: agreed.sends,
    })));
    let rekey_at = context.jittered(times.child, now);
    let expires_at = now + lifetime.hard.time;
    sa.children.push(Child {
        pair: agreed.pair,
        spi_in: agreed.spi_in,
        spi_out: agreed.spi_out,
        local_ts: agreed.local_ts,
        remote_ts: agreed.remote_ts,
        rekey_at,
        expires_at,
        successor: None,
        is_deleting: false,
    });
}

fn fail(sa: &Sa, context: &mut Context, failure: Failure) {
    context.event(Event::Failed {
        tunnel: sa.tunnel,
        remote: sa.path.remote,
        failure,
    });
}

fn no_proposal(config: &Config, theirs: Option<String>) -> Failure {
    Failure::NoProposal {
        what: "ESP",
        ours: suite::describe(&suite::offer_esp(&config.esp, true, &[])),
        theirs,
    }
}

/// Answers the request for the first child, inside of IKE_AUTH. An IKE SA without one stands.
pub(super) fn answer_first(
    sa: &mut Sa,
    context: &mut Context,
    parts: &Parts<'_, '_>,
    nonces: &Nonces,
    (chain, now): (&mut Chain, Instant),
) {
    if let Err((kind, data)) = accept(sa, context, parts, (nonces, true), (chain, now)) {
        chain.notify(kind, &data);
    }
}

/// Takes the first child out of the answer to IKE_AUTH. Without one the SA is of no use, and ends.
pub(super) fn take_first(
    sa: &mut Sa,
    context: &mut Context,
    (payloads, parts): (&[Payload<'_>], &Parts<'_, '_>),
    nonces: &Nonces,
    (spi_in, now): (Spi, Instant),
) {
    let Some(config) = context.config(sa.tunnel).cloned() else {
        return;
    };
    match take(&config, parts, payloads, (0, false), spi_in) {
        Ok(agreed) => {
            install(sa, context, agreed, (nonces, &[]), now);
            (1..=config.further.len()).for_each(|pair| sa.want(Task::NewChild(pair)));
        }
        Err(failure) => {
            context.sad.remove(spi_in);
            fail(sa, context, failure);
            sa.want(Task::DeleteIke);
        }
    }
}

/// What the peer chose, if it is what we offered.
fn take(
    config: &Config,
    parts: &Parts<'_, '_>,
    payloads: &[Payload<'_>],
    (pair, has_groups): (usize, bool),
    spi_in: Spi,
) -> Result<Agreed, Failure> {
    let (Some(proposals), Some(ts_i), Some(ts_r)) = (parts.sa, parts.ts_i, parts.ts_r) else {
        return Err(match notify::error(payloads).map(|error| error.kind) {
            Some(notify::NO_PROPOSAL_CHOSEN) => no_proposal(config, None),
            Some(notify::TS_UNACCEPTABLE) => Failure::NoTraffic,
            Some(other) => Failure::Refused(other),
            None => Failure::Protocol("its answer lacks a payload of the child"),
        });
    };
    let sent = parts.ke.map(|(group, _)| group);
    let chosen = suite::choose_esp(proposals, &config.esp, has_groups, sent);
    let Some((suite, proposal)) = chosen.filter(|_| proposals.len() == 1) else {
        return Err(Failure::Protocol("it chose what was not offered"));
    };
    let (ours, theirs) = config.pairs().nth(pair).unwrap_or_default();
    if !selector::is_within(ts_i, ours) || !selector::is_within(ts_r, theirs) {
        return Err(Failure::Protocol(
            "its traffic selectors are wider than ours",
        ));
    }
    Ok(Agreed {
        suite,
        pair,
        spi_in,
        spi_out: spi_of(&proposal.spi),
        local_ts: ts_i.to_vec(),
        remote_ts: ts_r.to_vec(),
        is_ours: true,
        sends: true,
    })
}

/// Asks for a successor of a child.
pub(super) fn ask(sa: &mut Sa, context: &mut Context, old: Spi, now: Instant) {
    let Some(child) = sa
        .children
        .iter()
        .find(|child| child.spi_in == old && child.is_current())
    else {
        return;
    };
    let traffic = Pair {
        local: child.local_ts.clone(),
        remote: child.remote_ts.clone(),
    };
    let pair = child.pair;
    ask_for(sa, context, (Some(old), pair), traffic, now);
}

/// Asks for a child beside the others, unless there is one of the pair.
pub(super) fn ask_another(sa: &mut Sa, context: &mut Context, pair: usize, now: Instant) {
    let is_there = sa.children.iter().any(|child| child.pair == pair);
    let config = context.config(sa.tunnel);
    let traffic = config.and_then(|config| config.pairs().nth(pair));
    if let (Some((local, remote)), false) = (traffic, is_there) {
        let (local, remote) = (local.to_vec(), remote.to_vec());
        ask_for(sa, context, (None, pair), Pair { local, remote }, now);
    }
}

fn ask_for(
    sa: &mut Sa,
    context: &mut Context,
    (old, pair): (Option<Spi>, usize),
    traffic: Pair,
    now: Instant,
) {
    let Some(config) = context.config(sa.tunnel).cloned() else {
        return;
    };
    let Ok(spi_in) = context.sad.reserve() else {
        return postpone(sa, context, (old, pair), now);
    };
    let group = sa
        .child_group
        .or_else(|| config.esp.groups.first().copied());
    let private = group.and_then(|group| Private::generate(group, context.random()));
    let nonce = context.nonce();
    let mut chain = Chain::new();
    if let Some(old) = old {
        chain.push(&Payload::Notify(Notify {
            protocol: Protocol::ESP,
            spi: &old.0.to_be_bytes(),
            kind: notify::REKEY_SA,
            data: &[],
        }));
    }
    let offer = suite::offer_esp(&config.esp, true, &spi_in.0.to_be_bytes());
    chain.push(&Payload::Sa(offer));
    chain.push(&Payload::Nonce(&nonce));
    if let Some(private) = &private {
        chain.push(&Payload::Ke {
            group: private.group().id(),
            data: private.public(),
        });
    }
    chain.push(&Payload::TsI(traffic.local));
    chain.push(&Payload::TsR(traffic.remote));
    let asked = Asked {
        old,
        pair,
        spi_in,
        offer: Offer { nonce, private },
        rival: None,
    };
    let what = What::RekeyChild(Box::new(asked));
    sa.ask(context, Exchange::CREATE_CHILD_SA, &chain, what, now);
}

/// A child that cannot be had is tried again a little later.
fn postpone(sa: &mut Sa, context: &mut Context, (old, pair): (Option<Spi>, usize), now: Instant) {
    let Some(old) = old else {
        return sa.miss(pair, context.jittered(ANOTHER_AFTER, now));
    };
    let at = context.jittered(super::rekey::AGAIN_AFTER, now);
    if let Some(child) = sa.children.iter_mut().find(|child| child.spi_in == old) {
        child.rekey_at = at;
    }
}

/// The answer to a rekey of ours came.
pub(super) fn response(
    sa: &mut Sa,
    context: &mut Context,
    asked: Asked,
    payloads: &[Payload<'_>],
    now: Instant,
) {
    let parts = Parts::of(payloads).unwrap_or_default();
    let Some(config) = context.config(sa.tunnel).cloned() else {
        return;
    };
    let group = asked.offer.private.as_ref().map(Private::group);
    let (pair, has_groups) = (asked.pair, true);
    let taken =
        take(&config, &parts, payloads, (pair, has_groups), asked.spi_in).and_then(|agreed| {
            let nonce = parts.nonce.map(<[u8]>::to_vec);
            let shared = secret(agreed.suite, asked.offer.private, parts.ke);
            let failure = Failure::Protocol("its answer lacks a nonce or a public value");
            let (shared, nonce) = shared.zip(nonce).ok_or(failure)?;
            Ok((agreed, shared, nonce))
        });
    let (mut agreed, shared, nonce) = match taken {
        Ok(taken) => taken,
        Err(failure) => {
            context.sad.remove(asked.spi_in);
            if let Some(wanted) = other_group(&config, payloads).filter(|g| Some(*g) != group) {
                sa.child_group = Some(wanted);
                return sa.want(asked.old.map_or(Task::NewChild(pair), Task::RekeyChild));
            }
            let is_passing = matches!(
                failure,
                Failure::Refused(notify::TEMPORARY_FAILURE | notify::CHILD_SA_NOT_FOUND)
            );
            if !is_passing {
                fail(sa, context, failure);
            }
            return postpone(sa, context, (asked.old, pair), now);
        }
    };
    let nonces = Nonces {
        initiator: asked.offer.nonce,
        responder: nonce,
    };
    // Of two that were made at once, the one with the lowest nonce of all four goes
    // (RFC 7296 section 2.8.1).
    let is_lost = asked
        .rival
        .as_ref()
        .is_some_and(|rival| nonces.lowest() < rival.nonces.lowest());
    agreed.sends = !is_lost;
    install(sa, context, agreed, (&nonces, &shared), now);
    let old = sa
        .children
        .iter_mut()
        .find(|child| Some(child.spi_in) == asked.old);
    match (is_lost, asked.rival) {
        (true, Some(_)) => inform_soon(sa, asked.spi_in),
        (_, _) => {
            if let Some(old) = old {
                old.successor = Some(asked.spi_in);
                let old = old.spi_in;
                inform_soon(sa, old);
            }
        }
    }
}

/// The secret of the key exchange of a rekey; empty without one.
fn secret(suite: EspSuite, private: Option<Private>, ke: Option<(u16, &[u8])>) -> Option<Vec<u8>> {
    let Some(group) = suite.group else {
        return Some(Vec::new());
    };
    let (private, (sent, theirs)) = private.zip(ke)?;
    let is_agreed = sent == group.id() && private.group() == group;
    is_agreed.then(|| private.agree(theirs))?
}

/// The group that the peer wants instead, if it is one of ours.
fn other_group(config: &Config, payloads: &[Payload<'_>]) -> Option<Group> {
    let wanted = notify::find(payloads, notify::INVALID_KE_PAYLOAD)?;
    let group = Group::from_id(u16::from_be_bytes(wanted.data.try_into().ok()?))?;
    config.esp.groups.contains(&group).then_some(group)
}

/// Queues the deletion of a child, which is not used or rekeyed any more.
fn inform_soon(sa: &mut Sa, spi_in: Spi) {
    if let Some(child) = sa.children.iter_mut().find(|child| child.spi_in == spi_in) {
        child.is_deleting = true;
        sa.want(Task::DeleteChild(spi_in));
    }
}

/// The peer asks for a child, or for a successor of one.
pub(super) fn request(sa: &mut Sa, context: &mut Context, payloads: &[Payload<'_>], now: Instant) {
    let exchange = Exchange::CREATE_CHILD_SA;
    let is_closing = !matches!(sa.stage, Stage::Up);
    if is_closing || matches!(sa.asks(), Some(What::RekeyIke(_) | What::DeleteIke)) {
        return sa.refuse(context, exchange, notify::TEMPORARY_FAILURE, &[]);
    }
    let old = match rekeyed(sa, payloads) {
        Ok(old) => old,
        Err(kind) => return sa.refuse(context, exchange, kind, &[]),
    };
    let parts = Parts::of(payloads).unwrap_or_default();
    let Some(nonce) = parts.nonce else {
        return sa.refuse(context, exchange, notify::INVALID_SYNTAX, &[]);
    };
    let nonces = Nonces {
        initiator: nonce.to_vec(),
        responder: context.nonce(),
    };
    let mut chain = Chain::new();
    let made = accept(sa, context, &parts, (&nonces, false), (&mut chain, now));
    let spi_in = match made {
        Ok(spi_in) => spi_in,
        Err((kind, data)) => return sa.refuse(context, exchange, kind, &data),
    };
    sa.answer(context, exchange, &chain);
    let Some(old) = old else {
        // Another child, not a successor: it has nobody to wait for.
        if let Some(tunnel) = sa.tunnel {
            context.event(Event::Send { tunnel, spi_in });
        }
        return;
    };
    if let Some(What::RekeyChild(asked)) = sa.asks_mut()
        && asked.old == Some(old)
    {
        asked.rival = Some(Rival { nonces });
    }
    if let Some(child) = sa.children.iter_mut().find(|child| child.spi_in == old) {
        child.successor = Some(spi_in);
    }
}

/// The child that a request replaces, by our name for it.
fn rekeyed(sa: &Sa, payloads: &[Payload<'_>]) -> Result<Option<Spi>, u16> {
    let Some(rekey) = notify::find(payloads, notify::REKEY_SA) else {
        return Ok(None);
    };
    let spi_out = spi_of(rekey.spi);
    let child = sa.children.iter().find(|child| child.spi_out == spi_out);
    let child = child.ok_or(notify::CHILD_SA_NOT_FOUND)?;
    if child.is_deleting {
        return Err(notify::TEMPORARY_FAILURE);
    }
    Ok(Some(child.spi_in))
}

/// Takes down a child that both sides deleted. Its successor sends from here on.
pub(super) fn remove(sa: &mut Sa, context: &mut Context, spi_in: Spi, now: Instant) {
    let Some(at) = sa.children.iter().position(|child| child.spi_in == spi_in) else {
        return;
    };
    let child = sa.children.remove(at);
    let heir = child
        .successor
        .filter(|heir| sa.children.iter().any(|c| c.spi_in == *heir));
    if let (Some(tunnel), Some(spi_in)) = (sa.tunnel, heir) {
        context.event(Event::Send { tunnel, spi_in });
    }
    context.drain(sa.tunnel, spi_in, now);
    // One of several that the peer took away is asked for again by who asked for it; the last one takes
    // the IKE SA along.
    let is_replaced = sa.children.iter().any(|other| other.pair == child.pair);
    let initiates = context
        .config(sa.tunnel)
        .is_some_and(|config| config.initiates);
    if initiates && !is_replaced && !sa.children.is_empty() {
        postpone(sa, context, (None, child.pair), now);
    }
}

impl Asked {
    /// The child that was to be, whose SPI is to be freed when the answer never comes.
    pub(super) fn spi_in(&self) -> Spi {
        self.spi_in
    }
}
