//! Raw IP sockets towards the underlay: one protocol, one local address, many packets with one call.
//!
//! The kernel writes the IP headers of what is sent, and puts fragments together. Of what is received,
//! headers are taken off here. Every raw socket of a protocol gets a copy of every packet: the
//! program of [`super::steer`] lets each worker have only its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Type};

use crate::id::{WorkerId, Workers};
use crate::packet::{Carrier, Way};
use crate::tunnel::DATAGRAM_LEN_MAX;
use crate::wire::ecn;

use super::steer;
use super::sys::{self, PathMtu};
use super::udp::{Sent, set_buffers};

/// The system's own TTL (`net.ipv4.ip_default_ttl`).
const TTL: u32 = 64;
/// Packets of one receive call, each with its part of the worker's super-buffer.
const PACKETS_MAX: usize = 7;
/// An IPv4 header with all its options, and the longest datagram behind it.
const PACKET_BYTES: usize = 60 + DATAGRAM_LEN_MAX;

/// The protocol number of a carrier without UDP.
const fn protocol(carrier: Carrier, is_ipv4: bool) -> Option<i32> {
    match carrier {
        Carrier::Esp => Some(50),
        Carrier::Gre => Some(47),
        Carrier::Echo => Some(if is_ipv4 { 1 } else { 58 }),
        Carrier::WireGuard | Carrier::Ike | Carrier::NatT | Carrier::Relay => None,
    }
}

/// One raw socket of one worker.
#[derive(Debug)]
pub(super) struct Socket {
    socket: socket2::Socket,
    carrier: Carrier,
    local: IpAddr,
    /// Traffic class and TTL of what is sent.
    marks: (u8, u8),
    /// Whether what the device does not take is to be cut from then on.
    is_probing: bool,
}

/// What one receive call gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// Packets that were handed on.
    pub(super) packets: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// Packets that were too long, or had no header to take off.
    pub(super) errors: usize,
}

impl Socket {
    /// Opens one socket for each worker. Of GRE packets, which name no worker, the first gets all.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2): `EPERM` without `CAP_NET_RAW`, `EADDRNOTAVAIL`.
    pub(super) fn open_all(
        carrier: Carrier,
        local: IpAddr,
        workers: Workers,
    ) -> io::Result<Vec<Self>> {
        let open = |worker| Self::open(carrier, local, (worker, workers));
        workers.iter().map(open).collect()
    }

    fn open(
        carrier: Carrier,
        local: IpAddr,
        (worker, workers): (WorkerId, Workers),
    ) -> io::Result<Self> {
        let protocol = protocol(carrier, local.is_ipv4()).ok_or(io::ErrorKind::InvalidInput)?;
        let address = SocketAddr::new(local, 0);
        let (domain, kind) = (Domain::for_address(address), Type::RAW);
        let socket = socket2::Socket::new(domain, kind, Some(Protocol::from(protocol)))?;
        // Before it is bound: nothing that is not the worker's gets in.
        steer::by_spi_of_packet(&socket, carrier, local.is_ipv4(), (worker, workers))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        set_buffers(&socket)?;
        Ok(Self {
            socket,
            carrier,
            local,
            marks: (0, 0),
            is_probing: false,
        })
    }

    /// The address that it is bound to.
    pub(super) fn local(&self) -> IpAddr {
        self.local
    }

    /// Never has packets cut, whatever the kernel has heard of the path, as long as the device takes them.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(super) fn ignore_kernels_path_mtu(&mut self) -> io::Result<()> {
        sys::set_path_mtu(&self.socket, self.local.is_ipv4(), PathMtu::Probe)?;
        self.is_probing = true;
        Ok(())
    }

    /// Reads packets into `buffer`, and hands each on, without its IP header.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits.
    pub(super) fn recv(
        &mut self,
        buffer: &mut [u8],
        mut each: impl FnMut(Way, &mut [u8]),
    ) -> io::Result<Received> {
        let mut arrived = [(0, None); PACKETS_MAX];
        let count = sys::recv_each(&self.socket, buffer, PACKET_BYTES, &mut arrived)?;
        let mut received = Received::default();
        let packets = buffer.chunks_mut(PACKET_BYTES);
        for (packet, (len, from)) in packets.zip(&arrived[..count]) {
            let packet = packet.get_mut(..*len);
            let class = packet.as_deref().map_or(0, |packet| self.class_of(packet));
            let payload = packet.and_then(|packet| without_header(packet, self.local.is_ipv4()));
            let (Some(payload), Some(from)) = (payload, from) else {
                received.errors += 1;
                continue;
            };
            received.packets += 1;
            received.bytes += payload.len();
            let way = Way {
                class,
                ..Way::raw(self.carrier, self.local, from.ip())
            };
            each(way, payload);
        }
        Ok(received)
    }

    /// Sends `train`: packets of `segment_size` bytes without their IP header, the last may be
    /// shorter.
    ///
    /// # Errors
    /// Those of sendmmsg(2) about the destination; the rest of the train is lost.
    pub(super) fn send(
        &mut self,
        way: &Way,
        segment_size: usize,
        train: &[u8],
    ) -> io::Result<Sent> {
        self.mark(way)?;
        let to = SockAddr::from(way.remote);
        let segment_size = segment_size.max(1);
        let mut from = 0;
        while from < train.len() {
            match sys::send_each(&self.socket, &to, segment_size, &train[from..]) {
                Ok(packets) => from += packets * segment_size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Sent::Full { from });
                }
                Err(error) if self.is_probing && error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    // The device's own MTU is less than a packet: whoever configured that has them cut.
                    self.is_probing = false;
                    sys::set_path_mtu(&self.socket, self.local.is_ipv4(), PathMtu::Cut)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Sent::Whole)
    }
}

impl Socket {
    /// What the outer header of a packet that came says. That of IPv6 is not given along.
    fn class_of(&self, packet: &[u8]) -> u8 {
        if self.local.is_ipv4() {
            ecn::class(packet)
        } else {
            0
        }
    }

    /// Has the headers of what is sent next say what the way says. A call only where that changes.
    fn mark(&mut self, way: &Way) -> io::Result<()> {
        let marks = (way.class, way.ttl);
        if marks == self.marks {
            return Ok(());
        }
        let ttl = match way.ttl {
            0 => TTL,
            ttl => u32::from(ttl),
        };
        if self.local.is_ipv4() {
            self.socket.set_tos_v4(way.class.into())?;
            self.socket.set_ttl_v4(ttl)?;
        } else {
            self.socket.set_tclass_v6(way.class.into())?;
            self.socket.set_unicast_hops_v6(ttl)?;
        }
        self.marks = marks;
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What is behind the IP header. The kernel gives that of IPv4 along, and takes off that of IPv6 (raw(7)).
fn without_header(packet: &mut [u8], is_ipv4: bool) -> Option<&mut [u8]> {
    if !is_ipv4 {
        return Some(packet);
    }
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    packet.get_mut(header_len.max(20)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_an_ipv4_header_are_taken_off_with_it() {
        let mut packet = [0; 28];
        packet[0] = 0x46;
        packet[24] = 7;
        assert_eq!(
            without_header(&mut packet, true).unwrap(),
            [7, 0, 0, 0],
            "24 bytes of header"
        );
        assert_eq!(without_header(&mut packet[..23], true), None);
        assert_eq!(without_header(&mut [], true), None);
        assert_eq!(without_header(&mut [9], false).unwrap(), [9]);
    }
}
