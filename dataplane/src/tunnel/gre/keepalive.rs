//! Keepalives: a packet that its receiver need only route to have it come back.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::wire::checksum::Sum;
use crate::wire::gre::{self, Header};
use crate::wire::ip::{GRE, Inner, put_word};

use super::Keepalive;

/// TTL of the inner packet, as Cisco's routers send it.
const TTL: u8 = 255;

/// The longest inner packet: an IPv6 header and a GRE header.
pub(super) const INNER_LEN_MAX: usize = 40 + gre::HEADER_LEN_MAX;

/// Whether the peer answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    keepalive: Keepalive,
    /// When the next one goes out.
    pub(super) due: Instant,
    /// Those sent since the last answer.
    unanswered: u16,
    /// Down until the first answer.
    pub(super) is_up: bool,
}

impl Watch {
    pub(super) fn new(keepalive: Keepalive, now: Instant) -> Self {
        Self {
            keepalive,
            due: now,
            unanswered: 0,
            is_up: false,
        }
    }

    /// The time has come: one goes out.
    pub(super) fn sent(&mut self, now: Instant) {
        if self.unanswered >= u16::from(self.keepalive.retries) {
            self.is_up = false;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.due = now + Duration::from_secs(self.keepalive.interval_secs.into());
    }

    pub(super) fn answered(&mut self) {
        self.unanswered = 0;
        self.is_up = true;
    }
}

/// Writes the packet that the peer `from` is to send to us, at `to`, and returns its length.
pub(super) fn write(
    answer: &Header,
    (from, to): (IpAddr, IpAddr),
    out: &mut [u8; INNER_LEN_MAX],
) -> usize {
    let answer_len = answer.len();
    let len = u16::try_from(answer_len).expect("at most HEADER_LEN_MAX");
    let at = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out[..20].fill(0);
            out[0] = 0x45;
            put_word(out, 2, 20 + len);
            out[8] = TTL;
            out[9] = GRE;
            out[12..16].copy_from_slice(&from.octets());
            out[16..20].copy_from_slice(&to.octets());
            let sum = Sum::new().bytes(&out[..20]).checksum();
            put_word(out, 10, sum);
            20
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            out[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            put_word(out, 4, len);
            out[6] = GRE;
            out[7] = TTL;
            out[8..24].copy_from_slice(&from.octets());
            out[24..40].copy_from_slice(&to.octets());
            40
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return 0,
    };
    answer.write(&mut out[at..at + answer_len]);
    at + answer_len
}

/// The answer that the peer wants to get back: what is behind the IP header of an inner packet that is from
/// us and for the peer, and is nothing but a GRE header.
pub(super) fn answer_wanted(packet: &[u8], (local, remote): (IpAddr, IpAddr)) -> Option<&[u8]> {
    let inner = Inner::parse(packet).ok()?;
    if inner.protocol != GRE || inner.is_fragment || (inner.src, inner.dst) != (local, remote) {
        return None;
    }
    let answer = &packet[inner.l4_offset..inner.total_len];
    let (header, at) = Header::parse(answer).ok()?;
    (header.protocol == gre::KEEPALIVE && at == answer.len()).then_some(answer)
}
