//! Trains: datagrams of one size for one way, side by side in one buffer.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Way;

/// Datagrams of one train: `UDP_MAX_SEGMENTS` of linux/udp.h was 64 before 6.9, and is 128 since.
pub(super) const SEGMENTS_MAX: usize = 64;
/// Bytes of one train: below the 65,507 of one UDP payload, with room for options.
pub(super) const TRAIN_BYTES_MAX: usize = 65_000;
/// Segments of a super-packet whose datagrams, of `datagram_len` bytes each, make one whole train. One
/// that is longer leaves a short train behind.
pub(super) const fn segments_of_train(datagram_len: usize) -> usize {
    let fit = TRAIN_BYTES_MAX / datagram_len;
    if fit < SEGMENTS_MAX {
        fit
    } else {
        SEGMENTS_MAX
    }
}

/// Trains at one time. A batch reads at most 16 super-buffers or 64 segments from each source, so
/// this is twice the destinations that a batch from the overlay can name. Buffers are used last in,
/// first out: those that are never needed are never touched.
pub(super) const TRAINS_MAX: usize = 128;
/// Room behind the end of a full train, so that a reservation need not know its size.
const SLACK: usize = 2048;
const BUFFER_LEN: usize = TRAIN_BYTES_MAX + SLACK;

/// All trains of an outbox. Cardinality: one per worker.
pub(super) struct Trains {
    slab: Vec<u8>,
    trains: Vec<Train>,
    /// Trains that hold something, oldest first.
    queue: VecDeque<usize>,
    free: Vec<usize>,
    reserved: Option<Reserved>,
}

#[derive(Clone, Copy)]
struct Train {
    way: Way,
    segment_size: usize,
    len: usize,
    segments: usize,
    is_closed: bool,
}

#[derive(Clone, Copy)]
struct Reserved {
    way: Way,
    max: usize,
    /// The train it lies in; `None` for the next free one.
    train: Option<usize>,
}

impl Train {
    fn new(way: Way) -> Self {
        Self {
            way,
            segment_size: 0,
            len: 0,
            segments: 0,
            is_closed: false,
        }
    }

    fn takes(&self, len: usize) -> bool {
        !self.is_closed && len <= self.segment_size && self.len + len <= TRAIN_BYTES_MAX
    }

    fn append(&mut self, len: usize) {
        if self.segments == 0 {
            self.segment_size = len;
        }
        self.len += len;
        self.segments += 1;
        self.is_closed = len < self.segment_size || self.segments == SEGMENTS_MAX;
    }
}

impl Trains {
    pub(super) fn new() -> Self {
        let nowhere = Way::wireguard(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        Self {
            slab: vec![0; TRAINS_MAX * BUFFER_LEN],
            trains: vec![Train::new(nowhere); TRAINS_MAX],
            queue: VecDeque::with_capacity(TRAINS_MAX),
            free: (0..TRAINS_MAX).rev().collect(),
            reserved: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn reserve(&mut self, way: Way, max: usize) -> Option<&mut [u8]> {
        self.reserved = None;
        if max > TRAIN_BYTES_MAX {
            return None;
        }
        // Only the newest train of a way may grow, or datagrams would overtake each other.
        let newest = self
            .queue
            .iter()
            .rev()
            .copied()
            .find(|&index| self.trains[index].way.has_ends_of(&way));
        let open = newest.filter(|&index| {
            let train = &self.trains[index];
            // What turns out not to fit moves to a free train, so there has to be one.
            let fits = train.takes(max) || !self.free.is_empty();
            train.way == way && !train.is_closed && train.len + max <= BUFFER_LEN && fits
        });
        let start = match open {
            Some(index) => index * BUFFER_LEN + self.trains[index].len,
            None => self.free.last()? * BUFFER_LEN,
        };
        self.reserved = Some(Reserved {
            way,
            max,
            train: open,
        });
        Some(&mut self.slab[start..start + max])
    }

    pub(super) fn commit(&mut self, len: usize) {
        let Some(reserved) = self.reserved.take() else {
            return;
        };
        assert!(
            len <= reserved.max,
            "a commit is not longer than its reservation"
        );
        if len == 0 {
            return;
        }
        let index = match reserved.train {
            Some(index) if self.trains[index].takes(len) => index,
            moved_from => {
                let index = self.free.pop().expect("a reservation keeps a train free");
                if let Some(old) = moved_from {
                    let from = old * BUFFER_LEN + self.trains[old].len;
                    self.slab.copy_within(from..from + len, index * BUFFER_LEN);
                }
                self.trains[index] = Train::new(reserved.way);
                self.queue.push_back(index);
                index
            }
        };
        self.trains[index].append(len);
    }

    /// The oldest train: its way, its segment size, its bytes. Its buffer is free again as
    /// soon as the caller lets go of it.
    pub(super) fn pop(&mut self) -> Option<(Way, usize, &[u8])> {
        self.reserved = None;
        let index = self.queue.pop_front()?;
        self.free.push(index);
        let train = &self.trains[index];
        let start = index * BUFFER_LEN;
        Some((
            train.way,
            train.segment_size,
            &self.slab[start..start + train.len],
        ))
    }
}
