//! What a worker counts.

use std::ops::AddAssign;

use serde::Serialize;

use crate::flow::{self, counters};
use crate::node;

/// All counters of a router, of all its workers together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CountersSnapshot {
    /// What became of packets: `packets` and `drops`, by name.
    #[serde(flatten)]
    pub node: node::CountersSnapshot,
    /// What went through the ports.
    pub io: Counters,
    /// What userspace flows did, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<flow::Counters>,
}

impl AddAssign for CountersSnapshot {
    fn add_assign(&mut self, other: Self) {
        self.node += other.node;
        self.io += other.io;
        if let Some(flows) = other.flows {
            *self.flows.get_or_insert_default() += flows;
        }
    }
}

counters! {
    /// Counts of one worker since it started. Written by the worker alone.
    Counters {
        /// Reads from the TUN that gave a packet or super-packet.
        tun_reads,
        /// Bytes read from the TUN.
        tun_read_bytes,
        /// Reads that gave something that cannot be understood, or failed.
        tun_read_errors,
        /// Writes to the TUN and to direct links.
        tun_writes,
        /// Bytes written to the TUN.
        tun_write_bytes,
        /// Packets or super-packets that the TUN did not take.
        tun_write_errors,
        /// Reads from direct links that gave a packet or super-packet.
        link_reads,
        /// Bytes read from direct links.
        link_read_bytes,
        /// Questions by ARP and NDP where the neighbour of an Ethernet link is.
        neighbour_questions,
        /// Questions, answers and announcements of others on Ethernet links.
        neighbour_heard,
        /// Packets that waited for the neighbour's answer and were dropped because too many did.
        neighbour_queue_full,
        /// Packets whose neighbour did not answer, or whose family the link does not have.
        neighbour_unreachable,
        /// Trains that came in by UDP.
        udp_recvs,
        /// Datagrams in them.
        udp_recv_datagrams,
        /// Bytes in them.
        udp_recv_bytes,
        /// Receive calls that failed: oversized datagrams, ICMP errors that the kernel reports.
        udp_recv_errors,
        /// Trains that went out by UDP.
        udp_sends,
        /// Datagrams in them.
        udp_send_datagrams,
        /// Bytes in them.
        udp_send_bytes,
        /// Trains of several datagrams that went out one by one because the kernel refused them whole.
        udp_trains_refused,
        /// Trains lost on a send error: no route, prohibited by a filter.
        udp_send_errors,
        /// Trains that waited for room in the socket's buffer.
        udp_trains_queued,
        /// Trains dropped because too many waited.
        udp_queue_full,
        /// Trains dropped because no socket has their carrier and the address or family of their way.
        udp_no_socket,
        /// Reads by raw IP that gave packets.
        raw_recvs,
        /// Packets in them.
        raw_recv_packets,
        /// Bytes in them, without IP headers.
        raw_recv_bytes,
        /// Packets that were too long or cut short, and receive calls that failed.
        raw_recv_errors,
        /// Packets that went out by raw IP.
        raw_send_packets,
        /// Bytes in them, without IP headers.
        raw_send_bytes,
        /// Trains lost on a send error, by raw IP.
        raw_send_errors,
        /// Packets lost because too many batches waited for another worker.
        handover_lost,
        /// Changes of an endpoint that nobody was told of because the queue of events was full.
        events_lost,
    }
}
