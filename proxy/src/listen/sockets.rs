//! Listening sockets, and sentences about why there is none.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::congestion::Congestion;

/// Connections that the kernel completes before we accept them: what somaxconn of Linux 5.4 and
/// later allows.
const BACKLOG: i32 = 4096;

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the address.
    #[error("cannot listen on {0} for {1}: port {port} is in use; stop the other program (another edge?) or choose another port", port = .0.port())]
    InUse(SocketAddr, &'static str),
    /// The port is below 1024 and the process has no right to it.
    #[error(
        "cannot listen on {0} for {1}: no permission; run as root or with CAP_NET_BIND_SERVICE"
    )]
    NoPermission(SocketAddr, &'static str),
    /// The address is not one of this machine.
    #[error("cannot listen on {0} for {1}: {ip} is not an address of this machine", ip = .0.ip())]
    NotLocal(SocketAddr, &'static str),
    /// Something else.
    #[error("cannot listen on {0} for {1}")]
    Other(SocketAddr, &'static str, #[source] io::Error),
}

impl BindError {
    fn new(address: SocketAddr, purpose: &'static str, why: io::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the system's list is open")]
        match why.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address, purpose),
            io::ErrorKind::PermissionDenied => Self::NoPermission(address, purpose),
            io::ErrorKind::AddrNotAvailable => Self::NotLocal(address, purpose),
            _ => Self::Other(address, purpose, why),
        }
    }
}

/// A TCP socket that listens, non-blocking; what it accepts has the given congestion control.
/// `purpose` is a word for the error.
///
/// # Errors
/// Says which address cannot be listened on, and why.
pub(crate) fn tcp(
    address: SocketAddr,
    purpose: &'static str,
    congestion: &Congestion,
) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // Connections of a predecessor in TIME_WAIT do not hold the port; listeners still do.
        socket.set_reuse_address(true)?;
        congestion.set(&socket);
        prepare(&socket, address)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|why| BindError::new(address, purpose, why))
}

/// A UDP socket, non-blocking. `purpose` is a word for the error.
///
/// # Errors
/// Says which address cannot be listened on, and why.
pub(crate) fn udp(address: SocketAddr, purpose: &'static str) -> Result<UdpSocket, BindError> {
    let bind = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        prepare(&socket, address)?;
        Ok(socket.into())
    };
    bind().map_err(|why| BindError::new(address, purpose, why))
}

fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())
}
