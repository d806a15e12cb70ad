//! What a node has to send: trains for the underlay, super-packets for devices.

use std::fmt;

use crate::id::{TunnelId, WorkerId, Workers};
use crate::wire::ip::Inner;

use super::coalesce::Coalescer;
use super::handover::{Batch, Handovers, Parcel};
use super::train::Trains;
use super::{Offload, Way};

/// One thing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit<'a> {
    /// Datagrams of one length each (the last may be shorter): by UDP, one send with `UDP_SEGMENT`.
    Underlay {
        /// How and where they go.
        way: Way,
        /// Length of each datagram but the last.
        segment_size: usize,
        /// The datagrams, one behind the other.
        bytes: &'a [u8],
    },
    /// A packet for a TUN device.
    Device {
        /// Which.
        exit: Exit,
        /// What is left to do on it.
        offload: Offload,
        /// The packet, from its IP header.
        packet: &'a [u8],
    },
}

/// The device that a packet leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The overlay's.
    Overlay,
    /// That of a direct link.
    Link(TunnelId),
}

/// What a node has to send, in fixed pools. Nothing is allocated after [`Outbox::new`].
/// Cardinality: one per worker, owned by its node.
pub struct Outbox {
    trains: Trains,
    devices: Coalescer,
    handovers: Handovers,
}

impl Outbox {
    /// An empty outbox of the only worker, with all its memory (about 15 MiB, touched as it is used).
    #[must_use]
    pub fn new() -> Self {
        Self::of(WorkerId(0), Workers::ONE)
    }

    /// An empty outbox of one of several workers: 4 MiB more.
    #[must_use]
    pub fn of(worker: WorkerId, workers: Workers) -> Self {
        Self {
            trains: Trains::new(),
            devices: Coalescer::new(),
            handovers: Handovers::new(worker, workers),
        }
    }

    /// How many datagrams of this length leave with one call.
    #[must_use]
    pub const fn segments_of_train(datagram_len: usize) -> usize {
        super::train::segments_of_train(datagram_len)
    }

    /// Room for a datagram of at most `max` bytes at the end of the train for `way`. `None` when the
    /// pool is used up or `max` is above 65,000: the caller drops and counts. A reservation that
    /// is not committed costs nothing.
    pub fn reserve(&mut self, way: Way, max: usize) -> Option<&mut [u8]> {
        self.trains.reserve(way, max)
    }

    /// Sends the first `len` bytes of what [`Outbox::reserve`] gave last. Without a reservation, or
    /// with a length of zero, nothing is sent.
    ///
    /// # Panics
    /// When `len` is more than was reserved.
    pub fn commit(&mut self, len: usize) {
        self.trains.commit(len);
    }

    /// Queues an inner packet for a device, together with others of its flow if it can be.
    /// False when there is no room, or it is no IP packet: the caller drops and counts.
    #[must_use]
    pub fn deliver(&mut self, exit: Exit, packet: &[u8]) -> bool {
        self.devices.push(exit, packet)
    }

    /// [`Outbox::deliver`] of a packet whose parse the caller has.
    #[must_use]
    pub fn deliver_parsed(&mut self, exit: Exit, packet: &[u8], inner: &Inner) -> bool {
        self.devices.push_parsed(exit, packet, inner)
    }

    /// Whether no packet for a device waits.
    #[must_use]
    pub fn has_nothing_for_devices(&self) -> bool {
        self.devices.len() == 0
    }

    /// Queues a packet for another worker. False when that many are under way already, or there is
    /// no such worker: the caller drops and counts.
    #[must_use]
    pub fn hand_over(&mut self, to: WorkerId, parcel: Parcel, packet: &[u8]) -> bool {
        self.handovers.push(to, parcel, packet)
    }

    /// The next batch for another worker; `None` when there is none. It comes back by
    /// [`Outbox::give_back`].
    pub fn poll_handover(&mut self) -> Option<(WorkerId, Batch)> {
        self.handovers.pop()
    }

    /// Takes a batch back whose [`Batch::home`] is this outbox's worker.
    pub fn give_back(&mut self, batch: Batch) {
        self.handovers.give_back(batch);
    }

    /// Queues a packet that is one super-packet already, or has a checksum left to complete.
    /// False when there is no room, or it is no IP packet: the caller drops and counts.
    #[must_use]
    pub fn deliver_super(&mut self, exit: Exit, packet: &[u8], offload: Offload) -> bool {
        self.devices.push_super(exit, packet, offload)
    }

    /// The next thing to send, in order for each destination and each flow; `None` when there is
    /// nothing. What has been given cannot grow any more: call it at the end of a batch.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        if self.trains.len() > 0 {
            let (way, segment_size, bytes) = self.trains.pop()?;
            return Some(Transmit::Underlay {
                way,
                segment_size,
                bytes,
            });
        }
        let (exit, offload, packet) = self.devices.pop()?;
        Some(Transmit::Device {
            exit,
            offload,
            packet,
        })
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("trains", &self.trains.len())
            .field("devices", &self.devices.len())
            .finish()
    }
}
