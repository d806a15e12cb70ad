//! What is learned of the paths behind the tunnels, and of the path under each: the MTU that routers report (RFC
//! 1191, RFC 8201).
//!
//! Behind a tunnel it is of the vnet, and concerns nobody else. Under it, it is of the tunnel, as far as a router
//! of the underlay shows a datagram that was sent lately.
//!
//! Anybody can write such a report. So it counts only where it quotes what the owner of the tunnel knows to
//! have sent, and what was longer than what is said to fit. What fits is never less than every host has to
//! take, and forgotten after ten minutes.

use std::time::{Duration, Instant};

use crate::fib::Guard;
use crate::id::TunnelId;
use crate::packet::Parcel;
use crate::program::{PATH_KEPT_FOR, VnetTables};
use crate::tunnel::bucket::Rate;
use crate::wire::icmp::{TooBig, says_too_big, taken_by_all, too_big};
use crate::wire::ip::{self, Inner};

use super::router::{Arrival, Link};
use super::{Node, Role};

/// Reports that are looked at: routers send few, and looking costs a walk over all peers.
const REPORTS: Rate = Rate {
    interval: Duration::from_millis(50),
    burst: 20,
};

/// What is known of a tunnel's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathMtu {
    /// The largest inner packet.
    mtu: u16,
    until: Instant,
}

impl Node {
    /// Keeps from an edge's kernel what the vnet's routers say of packets that were too long, whatever they are about:
    /// its memory of paths is one for all vnets. Learns from those about TCP, if they came `out_of` the tunnel of a host
    /// that they speak of, or by another edge. False for any other packet.
    pub(super) fn hears_of_path(
        &mut self,
        tables: &VnetTables,
        out_of: Option<TunnelId>,
        (packet, inner): (&[u8], &Inner),
        now: Instant,
        guard: &Guard,
    ) -> bool {
        if self.config.role != Role::Edge || !says_too_big(packet, inner) {
            return false;
        }
        let may_speak = |host| match out_of {
            Some(tunnel) => tables.is_allowed(host, tunnel, guard),
            None => tables.is_behind_tunnel(host, guard),
        };
        let report = too_big(packet, inner).filter(|report| {
            report.local == inner.dst
                && report.protocol == ip::TCP
                && usize::from(report.mtu) < report.len
                && may_speak(report.remote)
        });
        if let Some(report) = report {
            tables.paths().learn(report.remote, report.mtu, now);
            self.counters.path_reports_inside += 1;
        } else {
            self.counters.path_reports_ignored += 1;
        }
        true
    }

    /// Takes what a router of the underlay says of a datagram that is said to be ours.
    pub fn handle_too_big(&mut self, report: &TooBig<'_>, now: Instant) {
        let floor = taken_by_all(report.local.is_ipv4());
        let is_possible = report.mtu >= floor && usize::from(report.mtu) < report.len;
        if !is_possible || !self.path_reports.take(REPORTS, now) {
            self.counters.path_reports_ignored += 1;
            return;
        }
        let Some((tunnel, mtu)) = self.tunnels.fits(report) else {
            // Another worker's, perhaps: all of them hear it.
            self.counters.path_reports_ignored += 1;
            return;
        };
        self.counters.path_reports += 1;
        self.set_path(tunnel, mtu, now);
        for other in self.config.workers.iter() {
            if other != self.config.worker {
                let parcel = Parcel::PathMtu(tunnel, mtu);
                // The next report comes with the next datagram that is too long.
                let _lost = self.hand_over(other, Arrival::Direct, parcel, &[]);
            }
        }
    }

    /// Notes what fits into a tunnel.
    pub(super) fn set_path(&mut self, tunnel: TunnelId, mtu: u16, now: Instant) {
        let Some(link) = self.links.get_mut(&tunnel) else {
            return;
        };
        let until = now + PATH_KEPT_FOR;
        link.path = Some(PathMtu { mtu, until });
        link.fit();
        self.path_due = Some(self.path_due.map_or(until, |due| due.min(until)));
    }

    /// Forgets what is old.
    pub(super) fn forget_paths(&mut self, now: Instant) {
        if self.path_due.is_none_or(|due| now < due) {
            return;
        }
        for link in self.links.values_mut() {
            if link.path.is_some_and(|path| path.until <= now) {
                link.path = None;
                link.fit();
            }
        }
        let rest = self.links.values().filter_map(|link| link.path);
        self.path_due = rest.map(|path| path.until).min();
    }
}

impl Link {
    /// Brings the MTU to what is configured and what the path takes.
    pub(super) fn fit(&mut self) {
        let path = self.path.map_or(u16::MAX, |path| path.mtu);
        self.mtu = self.mtu_configured.min(path);
    }
}
