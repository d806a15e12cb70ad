//! Rekeys of the IKE SA (CREATE_CHILD_SA), in both roles and at once.

use std::time::{Duration, Instant};

use crate::wire::ikev2::Exchange;
use crate::wire::ikev2::payload::{Chain, Payload};

use super::context::Context;
use super::dh::Private;
use super::keys::Nonces;
use super::notify::{self, Parts};
use super::sa::{HALF_OPEN, Sa};
use super::stage::{Offer, Stage, Task, What};
use super::suite;

/// How long a refused rekey rests.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long an SA lives of which it is not known whether it is the successor: all retries of our
/// request.
const UNDECIDED: Duration = Duration::from_secs(90);

/// What a rekey of ours asked.
#[derive(Debug)]
pub(super) struct Asked {
    successor: Sa,
    offer: Offer,
}

/// An SA that the peer made of this one while we were making one.
#[derive(Debug)]
pub(super) struct Rival {
    /// Our SPI of it.
    ours: u64,
    nonces: Nonces,
}

/// Asks for a successor.
pub(super) fn ask(sa: &mut Sa, context: &mut Context, now: Instant) {
    let Some(config) = context.config(sa.tunnel).cloned() else {
        return;
    };
    // The group that both take is known.
    let group = sa.suite.map_or(config.ike.groups[0], |suite| suite.group);
    let Some(private) = Private::generate(group, context.random()) else {
        sa.rekey_at = context.jittered(AGAIN_AFTER, now);
        return;
    };
    let successor = Sa::new(context, true, sa.path, now);
    let nonce = context.nonce();
    let mut chain = Chain::new();
    let offer = suite::offer_ike(&config.ike, &successor.ours.to_be_bytes());
    chain.push(&Payload::Sa(offer));
    chain.push(&Payload::Nonce(&nonce));
    chain.push(&Payload::Ke {
        group: group.id(),
        data: private.public(),
    });
    let offer = Offer {
        nonce,
        private: Some(private),
    };
    let what = What::RekeyIke(Box::new(Asked { successor, offer }));
    sa.rekey_at = context.jittered(config.times.ike, now);
    sa.ask(context, Exchange::CREATE_CHILD_SA, &chain, what, now);
}

/// The peer asks for a successor.
pub(super) fn request(sa: &mut Sa, context: &mut Context, payloads: &[Payload<'_>], now: Instant) {
    let exchange = Exchange::CREATE_CHILD_SA;
    let is_busy = match sa.asks() {
        Some(What::RekeyChild(_) | What::DeleteChild(_) | What::DeleteIke) => true,
        Some(What::Init | What::Auth | What::RekeyIke(_) | What::Dpd) | None => false,
    };
    if is_busy || !matches!(sa.stage, Stage::Up) || sa.rival.is_some() {
        return sa.refuse(context, exchange, notify::TEMPORARY_FAILURE, &[]);
    }
    let (mut successor, nonces, chain) = match accept(sa, context, payloads, now) {
        Ok(accepted) => accepted,
        Err((kind, data)) => return sa.refuse(context, exchange, kind, &data),
    };
    sa.answer(context, exchange, &chain);
    if matches!(sa.asks(), Some(What::RekeyIke(_))) {
        // Which of the two stays is known when the answer to ours is there.
        let ours = successor.ours;
        sa.rival = Some(Rival { ours, nonces });
        successor.stage = Stage::Replaced(now + UNDECIDED);
        context.born.push(successor);
        return;
    }
    hand_over(sa, successor, context, now);
}

type Accepted = (Sa, Nonces, Chain);

fn accept(
    sa: &Sa,
    context: &mut Context,
    payloads: &[Payload<'_>],
    now: Instant,
) -> Result<Accepted, (u16, Vec<u8>)> {
    let invalid = || (notify::INVALID_SYNTAX, Vec::new());
    let refused = || (notify::NO_PROPOSAL_CHOSEN, Vec::new());
    let parts = Parts::of(payloads).unwrap_or_default();
    let (Some(proposals), Some((group, theirs)), Some(nonce)) = (parts.sa, parts.ke, parts.nonce)
    else {
        return Err(invalid());
    };
    let config = context.config(sa.tunnel).cloned().ok_or_else(refused)?;
    let chosen = suite::choose_ike(proposals, &config.ike, Some(group));
    let (suite, proposal) = chosen.ok_or_else(refused)?;
    if suite.group.id() != group {
        let wanted = suite.group.id().to_be_bytes().to_vec();
        return Err((notify::INVALID_KE_PAYLOAD, wanted));
    }
    let spi = proposal
        .spi
        .as_slice()
        .try_into()
        .map_err(|_length| invalid())?;
    let private = Private::generate(suite.group, context.random()).ok_or_else(invalid)?;
    let ours = private.public().to_vec();
    let shared = private.agree(theirs).ok_or_else(invalid)?;
    let nonces = Nonces {
        initiator: nonce.to_vec(),
        responder: context.nonce(),
    };
    let mut successor = Sa::new(context, false, sa.path, now);
    successor.theirs = u64::from_be_bytes(spi);
    successor.succeed(sa, suite, &nonces, &shared);
    successor.rekey_at = context.jittered(config.times.ike, now);
    let mut chain = Chain::new();
    let spi = successor.ours.to_be_bytes();
    chain.push(&Payload::Sa(suite::answer_ike(
        suite,
        proposal.number,
        &spi,
    )));
    chain.push(&Payload::Nonce(&nonces.responder));
    chain.push(&Payload::Ke { group, data: &ours });
    Ok((successor, nonces, chain))
}

/// The successor gets the children and what there is to do; the old SA waits for its deletion.
fn hand_over(sa: &mut Sa, mut successor: Sa, context: &mut Context, now: Instant) {
    successor.children = std::mem::take(&mut sa.children);
    for task in sa.take_tasks() {
        match task {
            Task::NewChild(_) | Task::RekeyChild(_) | Task::DeleteChild(_) => successor.want(task),
            Task::RekeyIke | Task::DeleteIke | Task::Dpd => {}
        }
    }
    sa.stage = Stage::Replaced(now + HALF_OPEN);
    context.born.push(successor);
}

/// The answer to a rekey of ours came.
pub(super) fn response(
    sa: &mut Sa,
    context: &mut Context,
    asked: Asked,
    payloads: &[Payload<'_>],
    now: Instant,
) {
    let Asked {
        successor,
        offer: Offer { nonce, private },
    } = asked;
    let rival = sa.rival.take();
    let made = private.and_then(|private| take(sa, context, successor, (nonce, private), payloads));
    let Some((mut successor, nonces)) = made else {
        match rival {
            // Only the peer's attempt bore fruit.
            Some(rival) => yield_to(sa, context, &rival, now),
            None => sa.rekey_at = context.jittered(AGAIN_AFTER, now),
        }
        return;
    };
    successor.rekey_at = sa.rekey_at;
    match rival {
        Some(rival) if nonces.lowest() < rival.nonces.lowest() => {
            // RFC 7296 section 2.8.2: whose exchange has the lowest nonce closes what it made.
            yield_to(sa, context, &rival, now);
            successor.stage = Stage::Replaced(now + HALF_OPEN);
            successor.want(Task::DeleteIke);
            context.born.push(successor);
        }
        Some(_) | None => {
            hand_over(sa, successor, context, now);
            sa.want(Task::DeleteIke);
        }
    }
}

/// The children go to what the peer made.
pub(super) fn yield_to(sa: &mut Sa, context: &mut Context, rival: &Rival, now: Instant) {
    let children = std::mem::take(&mut sa.children);
    context.moves.push((rival.ours, children));
    sa.stage = Stage::Replaced(now + HALF_OPEN);
}

/// Makes the successor of what the peer chose.
fn take(
    sa: &Sa,
    context: &Context,
    mut successor: Sa,
    (nonce, private): (Vec<u8>, Private),
    payloads: &[Payload<'_>],
) -> Option<(Sa, Nonces)> {
    let parts = Parts::of(payloads)?;
    let (group, theirs) = parts.ke?;
    let offer = &context.config(sa.tunnel)?.ike;
    let (suite, proposal) = suite::choose_ike(parts.sa?, offer, Some(group))?;
    if suite.group.id() != group || private.group() != suite.group {
        return None;
    }
    let spi = proposal.spi.as_slice().try_into().ok()?;
    let nonces = Nonces {
        initiator: nonce,
        responder: parts.nonce?.to_vec(),
    };
    successor.theirs = u64::from_be_bytes(spi);
    let shared = private.agree(theirs)?;
    successor.succeed(sa, suite, &nonces, &shared);
    Some((successor, nonces))
}
