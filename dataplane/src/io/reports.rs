//! What routers of the underlay report: ICMP "fragmentation needed" and ICMPv6 "packet too big".
//!
//! The kernel hears them too, and believes whoever quotes two addresses and ports. Where this socket is
//! there, the sockets of tunnels do not ask it ([`super::port::Port::ignore_kernels_path_mtu`]): the node
//! looks closer ([`crate::node::Node::handle_too_big`]). Every worker has a copy of every report, and
//! knows those about its own tunnels.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Type};

use crate::wire::icmp::TooBig;

use super::steer;

/// Bytes that are read of a report: more than any router has to quote (RFC 1812 section 4.3.2.3, RFC 4443
/// section 2.4 c).
pub(super) const REPORT_BYTES: usize = 1500;

/// A raw ICMP socket of one family, non-blocking.
#[derive(Debug)]
pub(super) struct Reports {
    socket: socket2::Socket,
    is_v4: bool,
}

impl Reports {
    /// Opens one for each family that the system has.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub(super) fn open_all() -> io::Result<Vec<Self>> {
        let mut all = vec![Self::open(true)?];
        // A kernel without IPv6 has no underlay of it either.
        all.extend(Self::open(false));
        Ok(all)
    }

    fn open(is_v4: bool) -> io::Result<Self> {
        let (domain, protocol) = if is_v4 {
            (Domain::IPV4, Protocol::ICMPV4)
        } else {
            (Domain::IPV6, Protocol::ICMPV6)
        };
        let socket = socket2::Socket::new(domain, Type::RAW, Some(protocol))?;
        steer::only_too_big(&socket, is_v4)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, is_v4 })
    }

    /// Reads the next report. `Ok(None)`: what came is none.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits.
    pub(super) fn recv<'a>(
        &self,
        buffer: &'a mut [u8; REPORT_BYTES],
    ) -> io::Result<Option<TooBig<'a>>> {
        let len = (&self.socket).read(buffer)?;
        let message = &buffer[..len];
        Ok(if self.is_v4 {
            TooBig::parse_v4(message)
        } else {
            TooBig::parse_v6(message)
        })
    }
}

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
