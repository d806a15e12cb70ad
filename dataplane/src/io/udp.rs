//! UDP sockets towards the underlay: trains of datagrams out (GSO) and in (GRO).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sockopt};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, Type};

use crate::id::Workers;
use crate::packet::Carrier;
use crate::wire::icmp::taken_by_all;

use super::steer;
use super::sys::{self, PathMtu};

/// Send and receive buffers that are asked for. 7 MiB is what WireGuard's user-space
/// implementations ask for: about 20 ms at 3 Gb/s.
const BUFFER_BYTES: usize = 7 << 20;

/// `cmsghdr` + `u16`, padded as `CMSG_SPACE` does.
const SEGMENT_CONTROL_BYTES: usize = 24;
/// `CMSG_LEN(2)`: a 16-byte header and the number.
const SEGMENT_CONTROL_LEN: usize = 18;

/// One socket of one worker: bound, non-blocking, of one family.
#[derive(Debug)]
pub struct Socket {
    socket: socket2::Socket,
    local: SocketAddr,
    /// Whether trains still go out in one call.
    is_gso: bool,
    /// Traffic class of what is sent.
    class: u8,
    /// Whether what the device does not take is to be cut from then on.
    is_probing: bool,
    control: Vec<u8>,
}

/// Makes a socket into private networks independent of what the kernel has heard of paths, which may be of another
/// vnet's host with the same address: what does not fit is cut, IPv4 here and on the way, IPv6 here to what every path
/// takes.
///
/// # Errors
/// Those of setsockopt(2).
pub fn forget_paths(socket: &impl AsRawFd, is_ipv4: bool) -> io::Result<()> {
    sys::set_path_mtu(socket, is_ipv4, PathMtu::Cut)?;
    if is_ipv4 {
        return Ok(());
    }
    sys::set_cut_to(socket, taken_by_all(is_ipv4))
}

/// A train of datagrams of one sender.
#[derive(Debug)]
pub struct Received {
    /// Who sent them.
    pub from: SocketAddr,
    /// Bytes read into the caller's buffer.
    pub len: usize,
    /// Length of each datagram but the last, which may be shorter; never 0.
    pub segment_size: usize,
    /// DSCP and ECN, the same of all.
    pub class: u8,
}

/// What became of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// One call took it.
    Whole,
    /// The kernel refused the train; the datagrams went one by one.
    Singly,
    /// The socket's buffer is full from the datagram that begins at this byte on.
    Full {
        /// Where the rest of the train begins.
        from: usize,
    },
}

impl Socket {
    /// Binds. An address in use is `EADDRINUSE`: neither port nor address is shared.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn bind(local: SocketAddr) -> io::Result<Self> {
        let socket = open(local)?;
        socket.bind(&local.into())?;
        Self::ready(socket, local)
    }

    /// Binds one socket for each worker to the same address, which nobody else may have. The kernel
    /// steers each message to the worker that it names; where it refuses to, by a hash.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn bind_all(
        carrier: Carrier,
        local: SocketAddr,
        workers: Workers,
    ) -> io::Result<Vec<Self>> {
        if workers == Workers::ONE {
            return Ok(vec![Self::bind(local)?]);
        }
        // Sockets of one user may share an address when all say so: one that does not finds out
        // whether somebody has it, and which port is free.
        let probe = open(local)?;
        probe.bind(&local.into())?;
        let local = probe.local_addr()?.as_socket().unwrap_or(local);
        drop(probe);
        let mut sockets: Vec<Self> = Vec::with_capacity(workers.count().into());
        for _ in workers.iter() {
            let socket = open(local)?;
            socket.set_reuse_port(true)?;
            socket.bind(&local.into())?;
            if sockets.is_empty()
                && let Err(error) = steer(&socket, carrier)
            {
                tracing::info!(%local, %error, "datagrams are spread by hash, and handed over");
            }
            sockets.push(Self::ready(socket, local)?);
        }
        Ok(sockets)
    }

    fn ready(socket: socket2::Socket, local: SocketAddr) -> io::Result<Self> {
        set_buffers(&socket)?;
        // A kernel without GRO (before 5.0) gives datagrams one by one, which is as right.
        if let Err(error) = nix::sys::socket::setsockopt(&socket, sockopt::UdpGroSegment, &true) {
            tracing::debug!(%local, %error, "no UDP_GRO");
        }
        // 0 is "no segmentation by default": asks only whether the kernel knows the option.
        let is_gso = nix::sys::socket::setsockopt(&socket, sockopt::UdpGsoSegment, &0).is_ok();
        let local = socket.local_addr()?.as_socket().unwrap_or(local);
        if local.is_ipv4() {
            socket.set_recv_tos_v4(true)?;
        } else {
            socket.set_recv_tclass_v6(true)?;
        }
        Ok(Self {
            socket,
            local,
            is_gso,
            class: 0,
            is_probing: false,
            control: cmsg_space!(i32, i32),
        })
    }

    /// The address in use.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether trains still go out in one call.
    pub fn is_gso(&self) -> bool {
        self.is_gso
    }

    /// Reads one train into `buffer`, which should have 65,535 bytes.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits; everything else is about one datagram or is passing.
    pub fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut self.control[..]), flags)?;
        if message.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(Errno::EMSGSIZE.into());
        }
        let len = message.bytes;
        let mut segment_size = len.max(1);
        let mut class = 0;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(size) = control {
                segment_size = usize::try_from(size).unwrap_or(len).clamp(1, len.max(1));
            } else if let ControlMessageOwned::Ipv4Tos(tos) = control {
                class = tos;
            } else if let ControlMessageOwned::Ipv6TClass(tclass) = control {
                class = u8::try_from(tclass).unwrap_or(0);
            }
        }
        let from = message
            .address
            .as_ref()
            .and_then(address)
            .ok_or(Errno::EAFNOSUPPORT)?;
        Ok(Received {
            from,
            len,
            segment_size,
            class,
        })
    }

    /// Has the headers of what is sent next say this. A call only where it changes.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn mark(&mut self, class: u8) -> io::Result<()> {
        if class == self.class {
            return Ok(());
        }
        if self.local.is_ipv4() {
            self.socket.set_tos_v4(class.into())?;
        } else {
            self.socket.set_tclass_v6(class.into())?;
        }
        self.class = class;
        Ok(())
    }

    /// Never has datagrams cut, whatever the kernel has heard of the path, as long as the device takes them.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(super) fn ignore_kernels_path_mtu(&mut self) -> io::Result<()> {
        sys::set_path_mtu(&self.socket, self.local.is_ipv4(), PathMtu::Probe)?;
        self.is_probing = true;
        Ok(())
    }

    /// Has datagrams cut where they are too long, here and on the way.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(super) fn cut_always(&self) -> io::Result<()> {
        sys::set_path_mtu(&self.socket, self.local.is_ipv4(), PathMtu::Cut)
    }

    /// The device's own MTU is less than a datagram: whoever configured that has them cut.
    fn let_cut(&mut self) -> io::Result<()> {
        self.is_probing = false;
        tracing::info!(local = %self.local, "datagrams are longer than the device's MTU, and are cut");
        self.cut_always()
    }

    /// Sends `train`: datagrams of `segment_size` bytes, the last may be shorter.
    ///
    /// # Errors
    /// Those of sendmsg(2) about the destination; the rest of the train is lost.
    pub fn send(&mut self, to: SocketAddr, segment_size: usize, train: &[u8]) -> io::Result<Sent> {
        let to = SockAddr::from(to);
        let segment_size = segment_size.max(1);
        if train.len() <= segment_size {
            return self.send_singly(&to, segment_size, train, Sent::Whole);
        }
        let size = u16::try_from(segment_size).map_err(|_large| Errno::EMSGSIZE)?;
        if !self.is_gso {
            return self.send_singly(&to, segment_size, train, Sent::Singly);
        }
        let control = segment_control(size);
        let parts = [IoSlice::new(train)];
        let message = MsgHdr::new()
            .with_addr(&to)
            .with_buffers(&parts)
            .with_control(&control);
        match self.socket.sendmsg(&message, libc::MSG_DONTWAIT) {
            Ok(_) => Ok(Sent::Whole),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Full { from: 0 }),
            Err(error) => match error.raw_os_error() {
                Some(libc::EIO) => {
                    self.give_up_trains();
                    self.send_singly(&to, segment_size, train, Sent::Singly)
                }
                // A datagram is larger than this path's MTU: the kernel fragments one, not a train.
                Some(libc::EINVAL | libc::EMSGSIZE) => {
                    self.send_singly(&to, segment_size, train, Sent::Singly)
                }
                _ => Err(error),
            },
        }
    }

    /// The device cannot complete checksums (udp(7)), which no other train will change.
    fn give_up_trains(&mut self) {
        self.is_gso = false;
        tracing::info!(local = %self.local, "the device takes no UDP trains: sending singly");
    }

    fn send_singly(
        &mut self,
        to: &SockAddr,
        segment_size: usize,
        train: &[u8],
        done: Sent,
    ) -> io::Result<Sent> {
        for (index, datagram) in train.chunks(segment_size).enumerate() {
            let mut sent = self.socket.send_to(datagram, to);
            if self.is_probing
                && let Err(error) = &sent
                && error.raw_os_error() == Some(libc::EMSGSIZE)
            {
                self.let_cut()?;
                sent = self.socket.send_to(datagram, to);
            }
            match sent {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Sent::Full {
                        from: index * segment_size,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn steer(socket: &socket2::Socket, carrier: Carrier) -> io::Result<()> {
    match carrier {
        Carrier::WireGuard => steer::by_receiver_index(socket),
        Carrier::Ike
        | Carrier::NatT
        | Carrier::Esp
        | Carrier::Gre
        | Carrier::Echo
        | Carrier::Relay => steer::by_spi(socket, carrier),
    }
}

fn open(local: SocketAddr) -> io::Result<socket2::Socket> {
    let socket =
        socket2::Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Asks for big buffers: past the system's limit with `CAP_NET_ADMIN`, up to it without.
pub(super) fn set_buffers(socket: &socket2::Socket) -> io::Result<()> {
    use nix::sys::socket::setsockopt;
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        socket.set_send_buffer_size(BUFFER_BYTES)?;
    }
    Ok(())
}

/// The control message `UDP_SEGMENT`, laid out as cmsg(3) says for a 64-bit `cmsghdr`. Written by
/// hand because the libraries' builders allocate on every send.
fn segment_control(size: u16) -> [u8; SEGMENT_CONTROL_BYTES] {
    const {
        assert!(
            size_of::<libc::cmsghdr>() == 16,
            "64-bit Linux: length, level, type"
        )
    };
    let mut control = [0; SEGMENT_CONTROL_BYTES];
    control[..8].copy_from_slice(&SEGMENT_CONTROL_LEN.to_ne_bytes());
    control[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    control[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    control[16..18].copy_from_slice(&size.to_ne_bytes());
    control
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::new(IpAddr::V4(v4.ip()), v4.port()));
    }
    let v6 = storage.as_sockaddr_in6()?;
    Some(SocketAddr::V6((*v6).into()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn recv_all(socket: &mut Socket, want: usize) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        let mut buffer = vec![0; 65_535];
        while got.len() < want {
            let mut wait = [nix::poll::PollFd::new(
                socket.as_fd(),
                nix::poll::PollFlags::POLLIN,
            )];
            assert_ne!(
                nix::poll::poll(&mut wait, 1000_u16).unwrap(),
                0,
                "nothing arrived"
            );
            let train = socket.recv(&mut buffer).unwrap();
            got.extend(
                buffer[..train.len]
                    .chunks(train.segment_size)
                    .map(<[u8]>::to_vec),
            );
        }
        got
    }

    fn train(segments: u8, size: usize, last: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (1..segments).flat_map(|n| vec![n; size]).collect();
        bytes.extend(vec![segments; last]);
        bytes
    }

    #[test]
    fn a_train_arrives_as_the_datagrams_it_was_made_of() {
        let mut a = Socket::bind(LOOPBACK).unwrap();
        let mut b = Socket::bind(LOOPBACK).unwrap();
        let bytes = train(40, 1452, 77);
        assert_eq!(a.send(b.local(), 1452, &bytes).unwrap(), Sent::Whole);
        let want: Vec<Vec<u8>> = bytes.chunks(1452).map(<[u8]>::to_vec).collect();
        assert_eq!(recv_all(&mut b, 40), want);
    }

    #[test]
    fn where_the_device_takes_no_trains_they_go_singly_and_arrive_all_the_same() {
        let mut a = Socket::bind(LOOPBACK).unwrap();
        let mut b = Socket::bind(LOOPBACK).unwrap();
        a.give_up_trains();
        assert!(!a.is_gso());
        let bytes = train(5, 100, 3);
        assert_eq!(a.send(b.local(), 100, &bytes).unwrap(), Sent::Singly);
        assert_eq!(recv_all(&mut b, 5).concat(), bytes);
    }

    #[test]
    fn two_sockets_on_one_port_are_refused() {
        let a = Socket::bind(LOOPBACK).unwrap();
        let error = Socket::bind(a.local()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // The wildcard overlaps as well.
        let wildcard = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), a.local().port());
        assert!(Socket::bind(wildcard).is_err());
    }

    #[test]
    fn a_single_datagram_needs_no_train() {
        let mut a = Socket::bind(LOOPBACK).unwrap();
        let mut b = Socket::bind(LOOPBACK).unwrap();
        assert_eq!(a.send(b.local(), 1, &[7]).unwrap(), Sent::Whole);
        assert_eq!(recv_all(&mut b, 1), vec![vec![7]]);
    }
}
