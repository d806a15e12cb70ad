//! A UDP socket with the bounded queue of what it could not take at once.

use std::io;
use std::net::SocketAddr;

use super::counters::Counters;
use super::udp::{Sent, Socket};

/// Trains that wait for room in the socket's buffer: 16 of 64 KiB, 1 MiB for each socket, two
/// milliseconds at 4 Gb/s. The TUN is not read meanwhile, so the rest waits in its queue.
const QUEUE_TRAINS: usize = 16;

/// A train that waits.
#[derive(Debug)]
struct Train {
    to: SocketAddr,
    segment_size: usize,
    bytes: Vec<u8>,
}

/// A UDP socket and its queue. FIFO: what waits goes before what comes.
#[derive(Debug)]
pub(super) struct Port {
    socket: Socket,
    /// A ring of buffers that are used again and again.
    ring: Vec<Train>,
    head: usize,
    waiting: usize,
    /// Whether the owner is told when the socket has room again; its own note.
    pub(super) is_watched: bool,
}

impl Port {
    pub(super) fn new(socket: Socket) -> Self {
        let empty = || Train {
            to: socket.local(),
            segment_size: 1,
            bytes: Vec::new(),
        };
        let ring = std::iter::repeat_with(empty).take(QUEUE_TRAINS).collect();
        Self {
            socket,
            ring,
            head: 0,
            waiting: 0,
            is_watched: false,
        }
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.socket.local()
    }

    /// Whether trains wait: then the owner asks to be told when the socket can be written.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting != 0
    }

    /// Sends a train, or queues it.
    pub(super) fn send(
        &mut self,
        to: SocketAddr,
        segment_size: usize,
        train: &[u8],
        counters: &mut Counters,
    ) {
        let from = if self.is_waiting() {
            0
        } else {
            let sent = self.socket.send(to, segment_size, train);
            match count(sent, segment_size, train, counters) {
                Some(from) => from,
                None => return,
            }
        };
        self.queue(to, segment_size, &train[from..], counters);
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self, counters: &mut Counters) {
        while self.waiting != 0 {
            let train = &mut self.ring[self.head];
            let sent = self.socket.send(train.to, train.segment_size, &train.bytes);
            if let Some(from) = count(sent, train.segment_size, &train.bytes, counters) {
                train.bytes.drain(..from);
                return;
            }
            train.bytes.clear();
            self.head = (self.head + 1) % QUEUE_TRAINS;
            self.waiting -= 1;
        }
    }

    fn queue(&mut self, to: SocketAddr, segment_size: usize, rest: &[u8], counters: &mut Counters) {
        if self.waiting == QUEUE_TRAINS {
            counters.udp_queue_full += 1;
            return;
        }
        let tail = (self.head + self.waiting) % QUEUE_TRAINS;
        let train = &mut self.ring[tail];
        train.to = to;
        train.segment_size = segment_size;
        // Grows to the longest train once, then is used again.
        train.bytes.clear();
        train.bytes.extend_from_slice(rest);
        self.waiting += 1;
        counters.udp_trains_queued += 1;
    }
}

/// Counts what a send did. `Some(from)`: the socket is full, what begins at `from` has to wait.
fn count(
    sent: io::Result<Sent>,
    segment_size: usize,
    train: &[u8],
    counters: &mut Counters,
) -> Option<usize> {
    let (done, rest) = match sent {
        Ok(Sent::Whole) => (train.len(), None),
        Ok(Sent::Singly) => {
            counters.udp_trains_refused += 1;
            (train.len(), None)
        }
        Ok(Sent::Full { from }) => (from, Some(from)),
        Err(_unreachable_or_prohibited) => {
            counters.udp_send_errors += 1;
            return None;
        }
    };
    if done != 0 {
        counters.udp_sends += 1;
        counters.udp_send_datagrams += as_count(done.div_ceil(segment_size.max(1)));
        counters.udp_send_bytes += as_count(done);
    }
    rest
}

/// A length as a count; 64-bit machines lose nothing.
pub(super) fn as_count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn port() -> Port {
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Port::new(Socket::bind(loopback).unwrap())
    }

    #[test]
    fn what_waits_leaves_in_the_order_it_came_and_the_queue_is_bounded() {
        let (mut a, mut b) = (port(), port());
        let mut counters = Counters::default();
        for n in 0..20_u8 {
            a.queue(b.local(), 100, &[n; 10], &mut counters);
        }
        assert_eq!(
            (counters.udp_trains_queued, counters.udp_queue_full),
            (16, 4)
        );
        a.flush(&mut counters);
        assert!(!a.is_waiting());
        assert_eq!((counters.udp_sends, counters.udp_send_bytes), (16, 160));
        let mut buffer = [0; 2048];
        let mut firsts = Vec::new();
        while let Ok(train) = b.socket().recv(&mut buffer) {
            firsts.extend(buffer[..train.len].chunks(train.segment_size).map(|d| d[0]));
        }
        assert_eq!(firsts, (0..16).collect::<Vec<u8>>());
    }

    #[test]
    fn a_send_that_fails_is_counted_and_does_not_wait() {
        let mut a = port();
        let mut counters = Counters::default();
        let nowhere = "255.255.255.255:9".parse().unwrap();
        a.send(nowhere, 10, &[0; 10], &mut counters);
        assert_eq!(counters.udp_send_errors, 1);
        assert!(!a.is_waiting());
    }
}
