//! One UDP flow: datagrams that wait, each way, and the packets they travel in.

use std::collections::VecDeque;

use super::face::{RecvError, SendError};
use super::header;
use super::link::Frame;
use super::table::Key;
use crate::wire::checksum::Sum;
use crate::wire::ip::{UDP, put_word};

const UDP_HEADER: usize = 8;
/// What a waiting datagram takes besides its bytes.
const DATAGRAM_OVERHEAD: usize = 16;

/// A UDP flow.
pub(super) struct Udp {
    tx: Queue,
    rx: Queue,
    payload_max: usize,
    is_readable_told: bool,
}

impl Udp {
    pub(super) fn new(key: &Key, mtu: u16, buffer_bytes: usize) -> Self {
        Self {
            tx: Queue::new(buffer_bytes),
            rx: Queue::new(buffer_bytes),
            payload_max: usize::from(mtu) - header::len(key.remote.ip()) - UDP_HEADER,
            is_readable_told: false,
        }
    }

    pub(super) fn send(&mut self, datagram: &[u8]) -> Result<usize, SendError> {
        if datagram.len() > self.payload_max {
            return Err(SendError::TooLong(self.payload_max));
        }
        if self.tx.push(datagram) {
            Ok(datagram.len())
        } else {
            Err(SendError::Full)
        }
    }

    /// Takes a payload; false when it is lost.
    pub(super) fn handle(&mut self, payload: &[u8]) -> bool {
        self.rx.push(payload)
    }

    /// True once after something has arrived, until the receiver has found nothing.
    pub(super) fn look(&mut self) -> bool {
        let is_news = !self.is_readable_told && !self.rx.is_empty();
        self.is_readable_told |= is_news;
        is_news
    }

    /// One datagram; what does not fit into `into` is lost.
    pub(super) fn recv(&mut self, into: &mut [u8]) -> Result<usize, RecvError> {
        let received = self.rx.pop(into);
        if self.rx.is_empty() {
            self.is_readable_told = false;
        }
        received.ok_or(RecvError::Empty)
    }

    /// Puts the next packet into the frame, if there is one; whether there are more.
    pub(super) fn emit(&mut self, key: &Key, frame: &mut Frame) -> bool {
        if !self.tx.is_empty() {
            frame.fill(|out| self.write(key, out));
        }
        !self.tx.is_empty()
    }

    pub(super) fn is_done(&self) -> bool {
        self.tx.is_empty()
    }

    fn write(&mut self, key: &Key, out: &mut [u8]) -> usize {
        let (source, to) = (key.local.ip(), key.remote.ip());
        let header = header::len(to);
        let payload = self
            .tx
            .pop(&mut out[header + UDP_HEADER..])
            .expect("the caller has seen a datagram");
        let len = header + UDP_HEADER + payload;
        let packet = &mut out[..len];
        header::write(key, UDP, len, packet);
        let l4 = &mut packet[header..];
        put_word(l4, 0, key.local.port());
        put_word(l4, 2, key.remote.port());
        let l4_len = u16::try_from(l4.len()).expect("a datagram fits the MTU");
        put_word(l4, 4, l4_len);
        put_word(l4, 6, 0);
        let sum = Sum::pseudo(source, to, UDP, l4.len()).bytes(l4);
        put_word(l4, 6, sum.checksum_nonzero());
        len
    }
}

/// Datagrams in order, in memory that is taken with the first of them.
struct Queue {
    bytes: VecDeque<u8>,
    lens: VecDeque<u16>,
    bytes_max: usize,
}

impl Queue {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            lens: VecDeque::new(),
            bytes_max,
        }
    }

    fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    fn push(&mut self, datagram: &[u8]) -> bool {
        let used = self.bytes.len() + self.lens.len() * DATAGRAM_OVERHEAD;
        let Ok(len) = u16::try_from(datagram.len()) else {
            return false;
        };
        if used + datagram.len() + DATAGRAM_OVERHEAD > self.bytes_max {
            return false;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.bytes_max);
            self.lens.reserve_exact(self.bytes_max / DATAGRAM_OVERHEAD);
        }
        self.bytes.extend(datagram);
        self.lens.push_back(len);
        true
    }

    fn pop(&mut self, into: &mut [u8]) -> Option<usize> {
        let len = usize::from(self.lens.pop_front()?);
        let kept = len.min(into.len());
        let (front, back) = self.bytes.as_slices();
        let of_front = kept.min(front.len());
        into[..of_front].copy_from_slice(&front[..of_front]);
        into[of_front..kept].copy_from_slice(&back[..kept - of_front]);
        self.bytes.drain(..len);
        Some(kept)
    }
}
