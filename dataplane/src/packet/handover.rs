//! What one worker hands to another: packets with what is known of them, in batches.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::id::{TunnelId, VnetId, WorkerId, Workers};

use super::{Offload, Way};

/// Parcels of one batch: handing over 32 packets at once costs 2.7 ns each, one by one 113 ns
/// (measured between two cores); a GRO train has up to 64.
pub const PARCELS_MAX: usize = 64;
/// Bytes of one batch: a super-packet of 64 KiB always finds room in an empty one.
const BATCH_BYTES: usize = 128 << 10;
/// Batches of one worker, wherever they are: 4 MiB, touched as they are used. As many as a turn
/// can fill twice.
pub const BATCHES_MAX: usize = 32;

/// What a packet in a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parcel {
    /// A datagram for a session of the receiver.
    Underlay(Way),
    /// A WireGuard initiation of the peer of a tunnel of the receiver. It passed the gate.
    Initiation(SocketAddr, TunnelId),
    /// An IKE message, without the marker of the shared port, of an SA that went to the receiver.
    Ike(Way),
    /// An IKE SA whose peer is that of a tunnel of the receiver.
    IkeSa(Way),
    /// An inner packet for a source address of the receiver. It passed all checks.
    Deliver,
    /// A packet or super-packet of a vnet, routed and ready for a tunnel of the receiver.
    Encap(TunnelId, VnetId, Offload),
    /// No packet: the path under a tunnel takes inner packets of this many bytes.
    PathMtu(TunnelId, u16),
}

/// Packets on their way to another worker. It belongs to the worker that made it, and goes back.
#[derive(Debug)]
pub struct Batch {
    home: WorkerId,
    bytes: Box<[u8]>,
    len: usize,
    parcels: Vec<(Parcel, usize)>,
}

impl Batch {
    fn new(home: WorkerId) -> Self {
        Self {
            home,
            bytes: vec![0; BATCH_BYTES].into_boxed_slice(),
            len: 0,
            parcels: Vec::with_capacity(PARCELS_MAX),
        }
    }

    /// The worker that it goes back to.
    #[must_use]
    pub fn home(&self) -> WorkerId {
        self.home
    }

    /// How many packets are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parcels.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// The packets in the order they were put in. They may be overwritten.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Parcel, &mut [u8])> {
        let mut rest = &mut self.bytes[..self.len];
        self.parcels.iter().map(move |(parcel, len)| {
            let (packet, behind) = std::mem::take(&mut rest).split_at_mut(*len);
            rest = behind;
            (*parcel, packet)
        })
    }

    fn takes(&self, len: usize) -> bool {
        self.parcels.len() < PARCELS_MAX && len <= self.bytes.len() - self.len
    }

    fn push(&mut self, parcel: Parcel, packet: &[u8]) {
        self.bytes[self.len..][..packet.len()].copy_from_slice(packet);
        self.len += packet.len();
        self.parcels.push((parcel, packet.len()));
    }

    fn clear(&mut self) {
        self.len = 0;
        self.parcels.clear();
    }
}

/// What a worker has to hand to others, in a fixed number of batches. Cardinality: one per worker.
#[derive(Debug)]
pub(super) struct Handovers {
    free: Vec<Batch>,
    /// The batch of each worker that may grow.
    open: Vec<Option<Batch>>,
    /// Those that may not, oldest first: for each worker they go before the open one.
    full: VecDeque<(WorkerId, Batch)>,
}

impl Handovers {
    /// Batches of `home`; none when it is the only worker.
    pub(super) fn new(home: WorkerId, workers: Workers) -> Self {
        let count = if workers == Workers::ONE {
            0
        } else {
            BATCHES_MAX
        };
        Self {
            free: std::iter::repeat_with(|| Batch::new(home))
                .take(count)
                .collect(),
            open: workers.iter().map(|_| None).collect(),
            full: VecDeque::with_capacity(count),
        }
    }

    /// False when all batches are under way, or there is no such worker.
    pub(super) fn push(&mut self, to: WorkerId, parcel: Parcel, packet: &[u8]) -> bool {
        let Some(open) = self.open.get_mut(usize::from(to.0)) else {
            return false;
        };
        if open.as_ref().is_none_or(|batch| !batch.takes(packet.len())) {
            let Some(fresh) = self.free.pop() else {
                return false;
            };
            if let Some(full) = open.replace(fresh) {
                self.full.push_back((to, full));
            }
        }
        match open {
            Some(batch) if batch.takes(packet.len()) => {
                batch.push(parcel, packet);
                true
            }
            Some(_) | None => false,
        }
    }

    pub(super) fn pop(&mut self) -> Option<(WorkerId, Batch)> {
        if let Some(full) = self.full.pop_front() {
            return Some(full);
        }
        let mut open = (0..).map(WorkerId).zip(&mut self.open);
        open.find_map(|(to, open)| {
            let batch = open.take_if(|batch| !batch.is_empty())?;
            Some((to, batch))
        })
    }

    pub(super) fn give_back(&mut self, mut batch: Batch) {
        batch.clear();
        self.free.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Workers {
        Workers::new(2).unwrap()
    }

    fn to_one(n: u32) -> Parcel {
        Parcel::Encap(TunnelId(n), VnetId(1), Offload::NONE)
    }

    #[test]
    fn packets_come_out_in_the_order_they_went_in_whatever_their_size() {
        let mut out = Handovers::new(WorkerId(0), two());
        let sizes = (0..200_usize).map(|n| n * 331 % 3000 + 1);
        for (n, size) in (0..).zip(sizes.clone()) {
            let byte = u8::try_from(n % 251).unwrap();
            assert!(out.push(WorkerId(1), to_one(n), &vec![byte; size]));
        }
        let mut got = Vec::new();
        while let Some((to, mut batch)) = out.pop() {
            assert_eq!((to, batch.home()), (WorkerId(1), WorkerId(0)));
            assert!(batch.len() <= PARCELS_MAX);
            got.extend(batch.iter_mut().map(|(parcel, p)| (parcel, p[0], p.len())));
            out.give_back(batch);
        }
        let want: Vec<_> = (0..)
            .zip(sizes)
            .map(|(n, size)| (to_one(n), u8::try_from(n % 251).unwrap(), size))
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn when_all_batches_are_under_way_packets_are_refused_until_one_comes_back() {
        let mut out = Handovers::new(WorkerId(0), two());
        let super_packet = vec![0; 65_535];
        let mut under_way = Vec::new();
        for _ in 0..BATCHES_MAX {
            assert!(out.push(WorkerId(1), to_one(1), &super_packet));
            under_way.push(out.pop().unwrap().1);
        }
        assert!(!out.push(WorkerId(1), to_one(1), &[1]));
        out.give_back(under_way.pop().unwrap());
        assert!(out.push(WorkerId(1), to_one(1), &[1]));
    }

    #[test]
    fn nobody_can_be_handed_anything_by_the_only_worker_or_beyond_the_last() {
        let mut alone = Handovers::new(WorkerId(0), Workers::ONE);
        assert!(!alone.push(WorkerId(0), to_one(1), &[1]));
        let mut out = Handovers::new(WorkerId(0), two());
        assert!(!out.push(WorkerId(2), to_one(1), &[1]));
        assert!(!out.push(WorkerId(1), to_one(1), &[0; BATCH_BYTES + 1]));
    }
}
