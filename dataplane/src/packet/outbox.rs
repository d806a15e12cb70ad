//! What a node has to send: trains for the underlay, super-packets for the overlay.

use std::net::SocketAddr;

use super::Offload;

/// One thing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit<'a> {
    /// Datagrams of one length each (the last may be shorter), for one UDP send with `UDP_SEGMENT`.
    Underlay {
        /// Where they go.
        to: SocketAddr,
        /// Length of each datagram but the last.
        segment_size: usize,
        /// The datagrams, one behind the other.
        bytes: &'a [u8],
    },
    /// A packet for the TUN.
    Overlay {
        /// What is left to do on it.
        offload: Offload,
        /// The packet, from its IP header.
        packet: &'a [u8],
    },
}

/// What a node has to send, in fixed pools. Nothing is allocated after [`Outbox::new`].
#[derive(Debug, Default)]
pub struct Outbox {
    scratch: Vec<u8>,
}

impl Outbox {
    /// An empty outbox with all its memory (about 10 MiB, touched as it is used).
    #[must_use]
    pub fn new() -> Self {
        Self {
            scratch: vec![0; 65536],
        }
    }

    /// Room for a datagram of at most `max` bytes at the end of the train for `to`. `None` when the
    /// pool is used up: the caller drops and counts. A reservation that is not committed costs nothing.
    pub fn reserve(&mut self, _to: SocketAddr, max: usize) -> Option<&mut [u8]> {
        self.scratch.get_mut(..max)
    }

    /// Sends the first `len` bytes of what [`Outbox::reserve`] gave last. Without a reservation
    /// nothing happens.
    pub fn commit(&mut self, _len: usize) {}

    /// Queues an inner packet for the overlay, together with others of its flow if it can be.
    /// False when there is no room: the caller drops and counts.
    #[must_use]
    pub fn deliver(&mut self, _packet: &[u8]) -> bool {
        false
    }

    /// Queues a packet that is one super-packet already, or has a checksum left to complete.
    /// False when there is no room: the caller drops and counts.
    #[must_use]
    pub fn deliver_super(&mut self, _packet: &[u8], _offload: Offload) -> bool {
        false
    }

    /// The next thing to send, in order for each destination; `None` when there is nothing. Each
    /// call ends what it gives: call it at the end of a batch.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        None
    }
}
