//! What a worker counts.

use serde::Serialize;

use crate::node;

/// All counters of a router.
#[derive(Clone, Debug, Serialize)]
pub struct CountersSnapshot {
    /// What became of packets: `packets` and `drops`, by name.
    #[serde(flatten)]
    pub node: node::CountersSnapshot,
    /// What went through the ports.
    pub io: Counters,
}

/// Counts of one worker since it started. Written by the worker alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Reads from the TUN that gave a packet or super-packet.
    pub tun_reads: u64,
    /// Bytes read from the TUN.
    pub tun_read_bytes: u64,
    /// Reads that gave something that cannot be understood, or failed.
    pub tun_read_errors: u64,
    /// Writes to the TUN.
    pub tun_writes: u64,
    /// Bytes written to the TUN.
    pub tun_write_bytes: u64,
    /// Packets or super-packets that the TUN did not take.
    pub tun_write_errors: u64,
    /// Trains that came in by UDP.
    pub udp_recvs: u64,
    /// Datagrams in them.
    pub udp_recv_datagrams: u64,
    /// Bytes in them.
    pub udp_recv_bytes: u64,
    /// Receive calls that failed: oversized datagrams, ICMP errors that the kernel reports.
    pub udp_recv_errors: u64,
    /// Trains that went out by UDP.
    pub udp_sends: u64,
    /// Datagrams in them.
    pub udp_send_datagrams: u64,
    /// Bytes in them.
    pub udp_send_bytes: u64,
    /// Trains of several datagrams that went out one by one because the kernel refused them whole.
    pub udp_trains_refused: u64,
    /// Trains lost on a send error: no route, prohibited by a filter.
    pub udp_send_errors: u64,
    /// Trains that waited for room in the socket's buffer.
    pub udp_trains_queued: u64,
    /// Trains dropped because too many waited.
    pub udp_queue_full: u64,
    /// Trains dropped because no socket has the address family of their endpoint.
    pub udp_no_socket: u64,
    /// Changes of an endpoint that nobody was told of because the queue of events was full.
    pub events_lost: u64,
}
