//! Where inner packets for this machine go and come from: a TUN device, or flows of our own.

use std::time::Instant;

use crate::node::Node;
use crate::packet::Offload;

use super::clock;
use super::counters::Counters;
use super::port::as_count;
use super::tun::Tun;
use super::user::Carrier;

/// What flows may give the node before it sends: as many bytes as a batch of the TUN has at most.
const BATCH_BYTES: usize = 1 << 20;
/// The same in packets, most of which are short: about half a millisecond of work.
const BATCH_PACKETS: usize = 256;

/// One worker's overlay.
#[derive(Debug)]
pub(super) enum Face {
    /// A queue of the TUN: the kernel has the connections.
    Tun(Tun),
    /// The connections are here.
    Flows(Box<Carrier>),
}

impl Face {
    /// Takes a packet for this machine.
    pub(super) fn send(&mut self, packet: &[u8], offload: Offload, counters: &mut Counters) {
        match self {
            Self::Tun(tun) => match tun.send(packet, offload) {
                Ok(writes) => {
                    counters.tun_writes += as_count(writes);
                    counters.tun_write_bytes += as_count(packet.len());
                }
                Err(_not_taken) => counters.tun_write_errors += 1,
            },
            Self::Flows(carrier) => carrier.handle_packet(packet, offload, clock::now()),
        }
    }

    /// Lets flows act on what they were told and given, and gives what they send to the node, one
    /// batch of it. True when something was done, so that there may be more.
    pub(super) fn act(&mut self, node: &mut Node) -> bool {
        let Self::Flows(carrier) = self else {
            return false;
        };
        let now = clock::now();
        let (mut bytes, mut packets) = (0, 0);
        while bytes < BATCH_BYTES && packets < BATCH_PACKETS {
            let Some((packet, offload)) = carrier.poll_transmit(now) else {
                break;
            };
            bytes += packet.len();
            packets += 1;
            node.handle_overlay(packet, offload, now);
        }
        carrier.tell(now) || packets > 0
    }

    /// Does what tasks want of flows. True when they want more than fits a turn.
    pub(super) fn serve(&mut self, node: &Node) -> bool {
        let Self::Flows(carrier) = self else {
            return false;
        };
        let mtu = |source, to| node.mtu_towards(source, to);
        carrier.serve(&mtu, clock::now())
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Tun(_) => None,
            Self::Flows(carrier) => carrier.poll_timeout(),
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Self::Flows(carrier) = self {
            carrier.handle_timeout(now);
        }
    }

    /// What flows have counted.
    pub(super) fn counters(&self) -> Option<crate::flow::Counters> {
        match self {
            Self::Tun(_) => None,
            Self::Flows(carrier) => Some(carrier.counters()),
        }
    }
}
