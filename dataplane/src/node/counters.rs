//! What a node counts: plain numbers of the one worker that owns it.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::DropReason;

/// Counters of one node. They only grow, and start at zero with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Super-packets and packets read from the overlay.
    pub overlay_rx: u64,
    /// Datagrams read from the underlay.
    pub underlay_rx: u64,
    /// Super-packets and packets read from direct links.
    pub link_rx: u64,
    /// Handshake and keepalive messages among them.
    pub control_rx: u64,
    /// Inner packets that went into a tunnel, from either side.
    pub encap_packets: u64,
    /// Their bytes.
    pub encap_bytes: u64,
    /// Inner packets that came out of a tunnel, before any check.
    pub decap_packets: u64,
    /// Their bytes.
    pub decap_bytes: u64,
    /// Packets that came out of a tunnel and went to the overlay.
    pub delivered_packets: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Packets that came out of one tunnel and went into another.
    pub forwarded_packets: u64,
    /// Packets that came out of a tunnel and went to another node, whose source address they are for.
    pub relay_tx_packets: u64,
    /// Their bytes.
    pub relay_tx_bytes: u64,
    /// Packets that another node sent so, and that passed all checks.
    pub relay_rx_packets: u64,
    /// Their bytes.
    pub relay_rx_bytes: u64,
    /// Packets and datagrams handed to another worker.
    pub handed_over: u64,
    /// Packets and datagrams that another worker handed over.
    pub handed_in: u64,
    /// Fragments that packets longer than a tunnel's MTU were cut into.
    pub fragments: u64,
    /// ICMP errors that were sent.
    pub icmp_errors: u64,
    /// ICMP errors that were not sent because there were too many.
    pub icmp_errors_limited: u64,
    /// Probes that went into tunnels.
    pub probes_sent: u64,
    /// Probes that could not be sent, because the tunnel had no session or no room.
    pub probes_unsent: u64,
    /// Answers to probes.
    pub probes_answered: u64,
    /// Probes of far sides that were sent back to them.
    pub probes_reflected: u64,
    /// Echo requests to our interface addresses that were answered.
    pub echoes_answered: u64,
    /// Reports of the underlay that a datagram of ours was too long, which lowered a tunnel's MTU.
    pub path_reports: u64,
    /// Reports out of private networks that a TCP packet of this machine's was too long there, which are believed.
    pub path_reports_inside: u64,
    /// Such reports that were of no datagram that was sent lately, said nothing possible, or were too many; and
    /// those out of private networks that were about anything but TCP to the network that they came from.
    pub path_reports_ignored: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            overlay_rx: 0,
            underlay_rx: 0,
            link_rx: 0,
            control_rx: 0,
            encap_packets: 0,
            encap_bytes: 0,
            decap_packets: 0,
            decap_bytes: 0,
            delivered_packets: 0,
            delivered_bytes: 0,
            forwarded_packets: 0,
            relay_tx_packets: 0,
            relay_tx_bytes: 0,
            relay_rx_packets: 0,
            relay_rx_bytes: 0,
            handed_over: 0,
            handed_in: 0,
            fragments: 0,
            icmp_errors: 0,
            icmp_errors_limited: 0,
            probes_sent: 0,
            probes_unsent: 0,
            probes_answered: 0,
            probes_reflected: 0,
            echoes_answered: 0,
            path_reports: 0,
            path_reports_inside: 0,
            path_reports_ignored: 0,
            drops: [0; DropReason::ALL.len()],
        }
    }
}

impl Counters {
    /// How many packets were dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// How many packets were dropped at all.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().sum()
    }

    pub(super) fn count_drops(&mut self, reason: DropReason, packets: u64) {
        self.drops[reason as usize] += packets;
    }

    /// A copy with names, for `show counters` and metrics.
    #[must_use]
    pub fn snapshot(&self) -> CountersSnapshot {
        let named = [
            ("overlay_rx_packets", self.overlay_rx),
            ("underlay_rx_datagrams", self.underlay_rx),
            ("link_rx_packets", self.link_rx),
            ("control_rx_datagrams", self.control_rx),
            ("encap_packets", self.encap_packets),
            ("encap_bytes", self.encap_bytes),
            ("decap_packets", self.decap_packets),
            ("decap_bytes", self.decap_bytes),
            ("delivered_packets", self.delivered_packets),
            ("delivered_bytes", self.delivered_bytes),
            ("forwarded_packets", self.forwarded_packets),
            ("relay_tx_packets", self.relay_tx_packets),
            ("relay_tx_bytes", self.relay_tx_bytes),
            ("relay_rx_packets", self.relay_rx_packets),
            ("relay_rx_bytes", self.relay_rx_bytes),
            ("handed_over", self.handed_over),
            ("handed_in", self.handed_in),
            ("fragments", self.fragments),
            ("icmp_errors", self.icmp_errors),
            ("icmp_errors_limited", self.icmp_errors_limited),
            ("probes_sent", self.probes_sent),
            ("probes_unsent", self.probes_unsent),
            ("probes_answered", self.probes_answered),
            ("probes_reflected", self.probes_reflected),
            ("echoes_answered", self.echoes_answered),
            ("path_reports", self.path_reports),
            ("path_reports_inside", self.path_reports_inside),
            ("path_reports_ignored", self.path_reports_ignored),
        ];
        CountersSnapshot {
            packets: named.map(|(name, value)| (name.to_owned(), value)).into(),
            drops: DropReason::ALL
                .iter()
                .map(|reason| (reason.name().to_owned(), self.dropped(*reason)))
                .collect(),
        }
    }
}

/// [`Counters`] at one moment, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersSnapshot {
    /// What passed.
    pub packets: BTreeMap<String, u64>,
    /// What did not, by [`DropReason::name`]; every reason is there.
    pub drops: BTreeMap<String, u64>,
}

impl AddAssign for CountersSnapshot {
    fn add_assign(&mut self, other: Self) {
        for (mine, theirs) in [
            (&mut self.packets, other.packets),
            (&mut self.drops, other.drops),
        ] {
            for (name, count) in theirs {
                *mine.entry(name).or_default() += count;
            }
        }
    }
}
