//! INFORMATIONAL: deletions, and the empty request that asks whether the peer lives.

use std::time::Instant;

use crate::wire::esp::Spi;
use crate::wire::ikev2::Exchange;
use crate::wire::ikev2::payload::{Chain, Payload};
use crate::wire::ikev2::proposal::Protocol;

use super::child;
use super::context::Context;
use super::event::Failure;
use super::rekey;
use super::sa::Sa;
use super::stage::{Stage, Task, What};

/// Bytes of an SPI of ESP.
const SPI_LEN: u8 = 4;

/// The peer deletes something, or asks whether we live.
pub(super) fn request(sa: &mut Sa, context: &mut Context, payloads: &[Payload<'_>], now: Instant) {
    let (mut is_over, mut gone) = (false, Vec::new());
    for payload in payloads {
        let Payload::Delete {
            protocol,
            spis,
            spi_len,
        } = payload
        else {
            continue;
        };
        match (*protocol, *spi_len) {
            (Protocol::IKE, _) => is_over = true,
            (Protocol::ESP, SPI_LEN) => {
                let (spis, _) = spis.as_chunks();
                let spis = spis.iter().map(|spi| Spi(u32::from_be_bytes(*spi)));
                for spi_out in spis {
                    gone.extend(delete(sa, context, spi_out, now));
                }
            }
            _ => {}
        }
    }
    let mut chain = Chain::new();
    if !gone.is_empty() {
        chain.push(&Payload::Delete {
            protocol: Protocol::ESP,
            spis: gone.as_flattened(),
            spi_len: SPI_LEN,
        });
    }
    sa.answer(context, Exchange::INFORMATIONAL, &chain);
    if is_over {
        // What the peer made while we were asking for the same is the successor.
        if let Some(rival) = sa.rival.take() {
            rekey::yield_to(sa, context, &rival, now);
        }
        return sa.die(context, Failure::ClosedByPeer);
    }
    if !gone.is_empty() {
        begin_anew_if_empty(sa, context);
    }
    sa.advance(context, now);
}

/// An SA that has lost its last child is deleted, and asked for again, by who began it.
pub(super) fn begin_anew_if_empty(sa: &mut Sa, context: &Context) {
    let initiates = context
        .config(sa.tunnel)
        .is_some_and(|config| config.initiates);
    if sa.children.is_empty() && sa.is_initiator && initiates {
        sa.want(Task::DeleteIke);
    }
}

/// Takes down the child that the peer receives on `spi_out`. Our SPI of it, to be deleted in the
/// answer; none when our own deletion of it is under way (RFC 7296 section 1.4.1).
fn delete(sa: &mut Sa, context: &mut Context, spi_out: Spi, now: Instant) -> Option<[u8; 4]> {
    let child = sa.children.iter().find(|child| child.spi_out == spi_out)?;
    let spi_in = child.spi_in;
    let is_asked = matches!(sa.asks(), Some(What::DeleteChild(asked)) if *asked == spi_in);
    child::remove(sa, context, spi_in, now);
    (!is_asked).then(|| spi_in.0.to_be_bytes())
}

/// Deletes a child.
pub(super) fn delete_child(sa: &mut Sa, context: &mut Context, spi_in: Spi, now: Instant) {
    let Some(child) = sa.children.iter_mut().find(|child| child.spi_in == spi_in) else {
        return;
    };
    child.is_deleting = true;
    let mut chain = Chain::new();
    chain.push(&Payload::Delete {
        protocol: Protocol::ESP,
        spis: &spi_in.0.to_be_bytes(),
        spi_len: SPI_LEN,
    });
    let what = What::DeleteChild(spi_in);
    sa.ask(context, Exchange::INFORMATIONAL, &chain, what, now);
}

/// Deletes the SA.
pub(super) fn delete_ike(sa: &mut Sa, context: &mut Context, now: Instant) {
    let mut chain = Chain::new();
    chain.push(&Payload::Delete {
        protocol: Protocol::IKE,
        spis: &[],
        spi_len: 0,
    });
    sa.ask(
        context,
        Exchange::INFORMATIONAL,
        &chain,
        What::DeleteIke,
        now,
    );
}

/// The peer knows that the SA is gone.
pub(super) fn deleted(sa: &mut Sa, context: &mut Context) {
    if matches!(sa.stage, Stage::Up) {
        sa.die(context, Failure::Deleted);
    } else {
        sa.stage = Stage::Dead;
    }
}
