//! ICMP errors: to the sender of a packet, from our own address, and not too many.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::fib::Nexthop;
use crate::id::{TunnelId, VnetId};
use crate::packet::{Exit, Parcel};
use crate::source::Range;
use crate::tunnel::bucket::Rate;
use crate::wire::icmp::{ERROR_V6_LEN_MAX, ErrorKind, error};
use crate::wire::ip::Inner;
use crate::wire::translate::{Side, translate};

use super::router::{Arrival, Sender};
use super::{DropReason, Node, Role};

/// Errors to the overlay, and into each tunnel: a traceroute and path MTU discovery of many flows
/// at once, but no amplifier (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).
const ERRORS: Rate = Rate {
    interval: Duration::from_millis(5),
    burst: 50,
};

/// The longest error, and room for padding.
const BUFFER_LEN: usize = ERROR_V6_LEN_MAX + 16;

impl Node {
    /// Tells whoever sent a packet.
    pub(super) fn report(&mut self, kind: ErrorKind, to: Sender, offending: &[u8], now: Instant) {
        match to {
            Sender::Overlay(range, _) => self.report_to_overlay(kind, range, offending, now),
            Sender::Tunnel(tunnel) => self.report_to_tunnel(kind, tunnel, offending, now),
        }
    }

    /// Tells the sender of `offending`, a packet that was under way in `vnet` when it came to nothing: its
    /// source says who that is.
    pub(super) fn report_to_source(
        &mut self,
        kind: ErrorKind,
        vnet: VnetId,
        offending: &[u8],
        now: Instant,
    ) {
        let Ok(inner) = Inner::parse(offending) else {
            return;
        };
        let is_edge = self.config.role == Role::Edge;
        let guard = crate::fib::pin();
        let Some(tables) = self.tables.vnet(vnet, &guard) else {
            return;
        };
        let range = tables.range();
        if tables.lent(inner.src).is_some() {
            self.report_to_overlay(kind, range, offending, now);
            return;
        }
        match tables.route(inner.src, || 0, &guard) {
            Some(Nexthop::Tunnel(tunnel)) => self.report_to_tunnel(kind, tunnel, offending, now),
            Some(Nexthop::Local) if !is_edge => {
                self.report_to_overlay(kind, range, offending, now);
            }
            Some(Nexthop::Local) | None => {}
        }
    }

    /// Tells the local sender of `offending`, whom the private network sees by an address of `range`.
    pub(super) fn report_to_overlay(
        &mut self,
        kind: ErrorKind,
        range: Range,
        offending: &[u8],
        now: Instant,
    ) {
        let mut buffer = [0; BUFFER_LEN];
        let Some(from) = self.error_source(offending, None) else {
            return;
        };
        let Some(len) = error(kind, offending, from, &mut buffer) else {
            return;
        };
        if !self.overlay_errors.take(ERRORS, now) {
            self.counters.icmp_errors_limited += 1;
            return;
        }
        let Ok(mut report) = Inner::parse(&buffer[..len]) else {
            return;
        };
        if !range.is_plain() {
            let how = (Side::Destination, false);
            translate(&mut buffer, &mut report, how, |seen| range.lent(seen));
        }
        // The offending packet may have come from another worker's flow.
        let delivered = match self.other_owner(report.dst) {
            Some(owner) => self.hand_over(owner, Arrival::Direct, Parcel::Deliver, &buffer[..len]),
            None if self.outbox.deliver(Exit::Overlay, &buffer[..len]) => Ok(()),
            None => Err(DropReason::OutboxFull),
        };
        match delivered {
            Ok(()) => self.counters.icmp_errors += 1,
            Err(reason) => self.counters.count_drops(reason, 1),
        }
    }

    /// Tells the sender of `offending` behind the tunnel that it came out of.
    pub(super) fn report_to_tunnel(
        &mut self,
        kind: ErrorKind,
        tunnel: TunnelId,
        offending: &[u8],
        now: Instant,
    ) {
        let mut buffer = [0; BUFFER_LEN];
        let Some(from) = self.error_source(offending, Some(tunnel)) else {
            return;
        };
        let Some(len) = error(kind, offending, from, &mut buffer) else {
            return;
        };
        let Some(link) = self.links.get_mut(&tunnel) else {
            return;
        };
        if !link.errors.take(ERRORS, now) {
            self.counters.icmp_errors_limited += 1;
            return;
        }
        let vnet = link.vnet;
        match self.encap(tunnel, vnet, (&mut buffer, len), now) {
            Ok(()) => self.counters.icmp_errors += 1,
            Err(reason) => self.counters.count_drops(reason, 1),
        }
    }

    /// Where an error comes from, `into` a tunnel or to the overlay. The edge has an address in the source
    /// range, which every peer lets in. A site has one inside the tunnel, if it was given one, which the edge
    /// lets in (`Link::is_error_of_far_side`), or else its own.
    fn error_source(&self, offending: &[u8], into: Option<TunnelId>) -> Option<IpAddr> {
        let is_v6 = offending.first().is_some_and(|byte| byte >> 4 == 6);
        let range = |tunnel| self.range_of(self.links.get(&tunnel)?.vnet);
        match (self.config.role, self.config.slice) {
            (Role::Site { address, .. }, _) => {
                let near = into.and_then(|tunnel| self.near_side(tunnel, !is_v6));
                Some(near.unwrap_or(address))
            }
            (Role::Edge, Some(slice)) if is_v6 => Some(slice.router_v6().into()),
            (Role::Edge, Some(slice)) => {
                let range = into.and_then(range).unwrap_or_default();
                Some(range.seen(slice.router()).into())
            }
            (Role::Edge, None) => None,
        }
    }

    /// Where the private network of a vnet sees the source addresses.
    pub(super) fn range_of(&self, vnet: VnetId) -> Option<Range> {
        let guard = crate::fib::pin();
        Some(self.tables.vnet(vnet, &guard)?.range())
    }
}

/// Whether an address can be that of one host in a network, as against a link, a group or nobody.
pub(super) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first < 224 && !v4.is_loopback() && !v4.is_link_local()
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified()
                && !v6.is_loopback()
                && !v6.is_multicast()
                && !v6.is_unicast_link_local()
                && v6.to_ipv4_mapped().is_none()
        }
    }
}

/// A length as a counter takes it.
pub(super) fn widen(len: usize) -> u64 {
    u64::try_from(len).expect("usize is at most 64 bits")
}
