//! A socket with the bounded queue of what it could not take at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use crate::packet::{Carrier, Way};

use super::counters::Counters;
use super::raw;
use super::udp::{self, Sent};

/// Trains that wait for room in the socket's buffer: 16 of 64 KiB, 1 MiB for each socket, two
/// milliseconds at 4 Gb/s. The TUN is not read meanwhile, so the rest waits in its queue.
const QUEUE_TRAINS: usize = 16;

/// A train that waits.
#[derive(Debug)]
struct Train {
    way: Way,
    segment_size: usize,
    bytes: Vec<u8>,
}

/// A socket of the underlay.
#[derive(Debug)]
enum Socket {
    Udp(udp::Socket),
    Raw(raw::Socket),
}

/// A socket and its queue. FIFO: what waits goes before what comes.
#[derive(Debug)]
pub(super) struct Port {
    socket: Socket,
    carrier: Carrier,
    /// Where it is bound.
    local: SocketAddr,
    /// A ring of buffers that are used again and again.
    ring: Vec<Train>,
    head: usize,
    waiting: usize,
    /// Whether the owner is told when the socket has room again; its own note.
    pub(super) is_watched: bool,
}

/// What one read gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Datagrams.
    pub(super) datagrams: usize,
    /// Their bytes.
    pub(super) bytes: usize,
}

impl Port {
    /// A UDP port of this carrier.
    pub(super) fn udp(carrier: Carrier, socket: udp::Socket) -> Self {
        let local = socket.local();
        Self::new(carrier, local, Socket::Udp(socket))
    }

    /// A port of a carrier without UDP.
    pub(super) fn raw(carrier: Carrier, socket: raw::Socket) -> Self {
        let local = SocketAddr::new(socket.local(), 0);
        Self::new(carrier, local, Socket::Raw(socket))
    }

    fn new(carrier: Carrier, local: SocketAddr, socket: Socket) -> Self {
        let empty = || Train {
            way: Way::wireguard(local),
            segment_size: 1,
            bytes: Vec::new(),
        };
        let ring = std::iter::repeat_with(empty).take(QUEUE_TRAINS).collect();
        Self {
            socket,
            carrier,
            local,
            ring,
            head: 0,
            waiting: 0,
            is_watched: false,
        }
    }

    /// Has the kernel send datagrams whole, whatever it has heard of the path: somebody else listens to
    /// that. IKE's own stay as they are: they are short, and may be cut; so may what nodes hand to each other.
    pub(super) fn ignore_kernels_path_mtu(&mut self) {
        let done = match &mut self.socket {
            Socket::Udp(_) if matches!(self.carrier, Carrier::Ike | Carrier::Relay) => Ok(()),
            Socket::Udp(socket) => socket.ignore_kernels_path_mtu(),
            Socket::Raw(socket) => socket.ignore_kernels_path_mtu(),
        };
        if let Err(error) = done {
            tracing::info!(local = %self.local, %error, "the kernel looks after the path's MTU");
        }
    }

    /// Whether what goes this way leaves here.
    pub(super) fn carries(&self, way: &Way) -> bool {
        self.carrier == way.carrier
            && match way.local {
                None => self.local.is_ipv4() == way.remote.is_ipv4(),
                Some(local) => self.local.ip() == local,
            }
    }

    /// Whether trains wait: then the owner asks to be told when the socket can be written.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting != 0
    }

    /// Reads once: a train by UDP, a few packets by raw IP. Each is handed on with its way and the
    /// size of its datagrams. Reads that failed are counted, and gave nothing.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits.
    pub(super) fn recv(
        &mut self,
        buffer: &mut [u8],
        counters: &mut Counters,
        mut each: impl FnMut(Way, &mut [u8], usize),
    ) -> io::Result<Read> {
        match &mut self.socket {
            Socket::Udp(socket) => {
                let train = match socket.recv(buffer) {
                    Ok(train) => train,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    Err(_about_one_datagram) => {
                        counters.udp_recv_errors += 1;
                        return Ok(Read::default());
                    }
                };
                let (bytes, datagrams) = (train.len, train.len.div_ceil(train.segment_size));
                counters.udp_recvs += 1;
                counters.udp_recv_bytes += as_count(bytes);
                counters.udp_recv_datagrams += as_count(datagrams);
                let way = Way {
                    remote: train.from,
                    carrier: self.carrier,
                    local: own_address(self.carrier, self.local),
                    class: train.class,
                    ttl: 0,
                };
                each(way, &mut buffer[..bytes], train.segment_size);
                Ok(Read { datagrams, bytes })
            }
            Socket::Raw(socket) => {
                let one = |way, packet: &mut [u8]| each(way, packet, packet.len());
                let received = match socket.recv(buffer, one) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                    Err(_passing) => {
                        counters.raw_recv_errors += 1;
                        return Ok(Read::default());
                    }
                };
                counters.raw_recvs += 1;
                counters.raw_recv_packets += as_count(received.packets);
                counters.raw_recv_bytes += as_count(received.bytes);
                counters.raw_recv_errors += as_count(received.errors);
                Ok(Read {
                    datagrams: received.packets,
                    bytes: received.bytes,
                })
            }
        }
    }

    /// Sends a train, or queues it.
    pub(super) fn send(
        &mut self,
        way: &Way,
        segment_size: usize,
        train: &[u8],
        counters: &mut Counters,
    ) {
        let from = if self.is_waiting() {
            0
        } else {
            match self.socket.send(way, segment_size, train, counters) {
                Some(from) => from,
                None => return,
            }
        };
        self.queue(way, segment_size, &train[from..], counters);
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self, counters: &mut Counters) {
        while self.waiting != 0 {
            let train = &mut self.ring[self.head];
            let sent = self
                .socket
                .send(&train.way, train.segment_size, &train.bytes, counters);
            if let Some(from) = sent {
                train.bytes.drain(..from);
                return;
            }
            train.bytes.clear();
            self.head = (self.head + 1) % QUEUE_TRAINS;
            self.waiting -= 1;
        }
    }

    fn queue(&mut self, way: &Way, segment_size: usize, rest: &[u8], counters: &mut Counters) {
        if self.waiting == QUEUE_TRAINS {
            counters.udp_queue_full += 1;
            return;
        }
        let tail = (self.head + self.waiting) % QUEUE_TRAINS;
        let train = &mut self.ring[tail];
        train.way = *way;
        train.segment_size = segment_size;
        // Grows to the longest train once, then is used again.
        train.bytes.clear();
        train.bytes.extend_from_slice(rest);
        self.waiting += 1;
        counters.udp_trains_queued += 1;
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Udp(socket) => socket.as_fd(),
            Socket::Raw(socket) => socket.as_fd(),
        }
    }
}

impl Socket {
    /// Sends and counts. `Some(from)`: the socket is full, what begins at `from` has to wait.
    fn send(
        &mut self,
        way: &Way,
        segment_size: usize,
        train: &[u8],
        counters: &mut Counters,
    ) -> Option<usize> {
        match self {
            Self::Udp(socket) => {
                let marked = socket.mark(way.class);
                let sent = marked.and_then(|()| socket.send(way.remote, segment_size, train));
                count(sent, segment_size, train, counters)
            }
            Self::Raw(socket) => {
                let sent = socket.send(way, segment_size, train);
                count_raw(sent, segment_size, train, counters)
            }
        }
    }
}

/// The local address that a way is told apart by. A WireGuard peer may come to any that we have.
fn own_address(carrier: Carrier, local: SocketAddr) -> Option<IpAddr> {
    match carrier {
        Carrier::WireGuard => None,
        Carrier::Ike
        | Carrier::NatT
        | Carrier::Esp
        | Carrier::Gre
        | Carrier::Echo
        | Carrier::Relay => Some(local.ip()),
    }
}

/// Counts what a send by raw IP did, as [`count`] does.
fn count_raw(
    sent: io::Result<Sent>,
    segment_size: usize,
    train: &[u8],
    counters: &mut Counters,
) -> Option<usize> {
    let (done, rest) = match sent {
        Ok(Sent::Whole | Sent::Singly) => (train.len(), None),
        Ok(Sent::Full { from }) => (from, Some(from)),
        Err(_unreachable_or_prohibited) => {
            counters.raw_send_errors += 1;
            return None;
        }
    };
    counters.raw_send_packets += as_count(done.div_ceil(segment_size.max(1)));
    counters.raw_send_bytes += as_count(done);
    rest
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
        Port::udp(Carrier::WireGuard, udp::Socket::bind(loopback).unwrap())
    }

    #[test]
    fn what_waits_leaves_in_the_order_it_came_and_the_queue_is_bounded() {
        let (mut a, mut b) = (port(), port());
        let mut counters = Counters::default();
        for n in 0..20_u8 {
            a.queue(&Way::wireguard(b.local), 100, &[n; 10], &mut counters);
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
        let mut each = |way: Way, train: &mut [u8], segment_size: usize| {
            assert_eq!(way, Way::wireguard(a.local));
            firsts.extend(train.chunks(segment_size).map(|datagram| datagram[0]));
        };
        while b.recv(&mut buffer, &mut counters, &mut each).is_ok() {}
        assert_eq!(firsts, (0..16).collect::<Vec<u8>>());
    }

    #[test]
    fn a_send_that_fails_is_counted_and_does_not_wait() {
        let mut a = port();
        let mut counters = Counters::default();
        let nowhere = "255.255.255.255:9".parse().unwrap();
        a.send(&Way::wireguard(nowhere), 10, &[0; 10], &mut counters);
        assert_eq!(counters.udp_send_errors, 1);
        assert!(!a.is_waiting());
    }
}
