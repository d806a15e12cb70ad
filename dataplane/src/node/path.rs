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

use crate::id::TunnelId;
use crate::packet::Parcel;
use crate::program::VnetTables;
use crate::tunnel::bucket::Rate;
use crate::wire::icmp::{TooBig, too_big};
use crate::wire::ip::{self, Inner};

use super::router::{Arrival, Link};
use super::{Node, Role};

/// When a larger MTU is tried again (RFC 1191 section 6.3, RFC 8201 section 4).
const KEPT_FOR: Duration = Duration::from_secs(600);
/// Reports that are looked at: routers send few, and looking costs a walk over all peers.
const REPORTS: Rate = Rate {
    interval: Duration::from_millis(50),
    burst: 20,
};
/// Every host takes this much (RFC 791 section 3.1: 576; RFC 8200 section 5: 1280).
const FLOOR_V4: u16 = 576;
const FLOOR_V6: u16 = 1280;

/// What is known of a tunnel's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathMtu {
    /// The largest inner packet.
    mtu: u16,
    until: Instant,
}

impl Node {
    /// Takes what a router behind a tunnel says of a TCP packet that an edge's machine sent: it is not for the
    /// kernel, whose memory of paths is one for all vnets. False for anything else.
    pub(super) fn hears_of_path(
        &mut self,
        tables: &VnetTables,
        packet: &[u8],
        inner: &Inner,
        now: Instant,
    ) -> bool {
        let is_icmp = matches!(inner.protocol, ip::ICMP | ip::ICMPV6);
        if !is_icmp || self.config.role != Role::Edge {
            return false;
        }
        let Some(report) = too_big(packet, inner) else {
            return false;
        };
        if report.local != inner.dst || report.protocol != ip::TCP {
            return false;
        }
        if usize::from(report.mtu) < report.len {
            tables.paths().learn(report.remote, report.mtu, now);
            self.counters.path_reports_inside += 1;
        } else {
            self.counters.path_reports_ignored += 1;
        }
        true
    }

    /// Takes what a router of the underlay says of a datagram that is said to be ours.
    pub fn handle_too_big(&mut self, report: &TooBig<'_>, now: Instant) {
        let floor = if report.local.is_ipv4() {
            FLOOR_V4
        } else {
            FLOOR_V6
        };
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
        let until = now + KEPT_FOR;
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
