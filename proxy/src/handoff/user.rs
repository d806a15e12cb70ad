//! The userspace back end: flows of the router instead of kernel sockets.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use dataplane::io::user;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};

/// Opens flows from the source addresses of vnets, without the kernel.
#[async_trait]
pub trait Flows: Debug + Send + Sync + 'static {
    /// A connected stream.
    async fn tcp(
        &self,
        source: IpAddr,
        to: SocketAddr,
        within: Duration,
    ) -> io::Result<Box<dyn Flow>>;
    /// Datagrams to and from one address.
    async fn udp(&self, source: IpAddr, to: SocketAddr) -> io::Result<user::Datagrams>;
}

/// A stream of [`Flows`].
pub trait Flow: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin {
    /// The source address and the port that it starts from.
    fn local_addr(&self) -> Option<SocketAddr>;
    /// Breaks it off: the origin sees a reset.
    fn abort(self: Box<Self>);
}

#[async_trait]
impl Flows for user::Opener {
    async fn tcp(
        &self,
        source: IpAddr,
        to: SocketAddr,
        within: Duration,
    ) -> io::Result<Box<dyn Flow>> {
        Ok(Box::new(self.tcp(source, to, within).await?))
    }

    async fn udp(&self, source: IpAddr, to: SocketAddr) -> io::Result<user::Datagrams> {
        self.udp(source, to).await
    }
}

impl Flow for user::Stream {
    fn local_addr(&self) -> Option<SocketAddr> {
        Some(self.local_addr())
    }

    fn abort(self: Box<Self>) {
        (*self).abort();
    }
}

/// A connection to an origin, of either back end.
#[derive(Debug)]
pub enum Upstream {
    /// The kernel's.
    Kernel(TcpStream),
    /// The router's.
    User(Box<dyn Flow>),
}

impl Upstream {
    /// Makes its end a reset.
    pub fn abort(self) {
        match self {
            Self::Kernel(stream) => super::reset(&stream),
            Self::User(flow) => flow.abort(),
        }
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_read(cx, into),
            Self::User(flow) => Pin::new(flow).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::User(flow) => Pin::new(flow).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_flush(cx),
            Self::User(flow) => Pin::new(flow).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::User(flow) => Pin::new(flow).poll_shutdown(cx),
        }
    }
}

/// Datagrams to and from an origin, of either back end.
#[derive(Debug)]
pub enum Datagrams {
    /// The kernel's.
    Kernel(UdpSocket),
    /// The router's.
    User(user::Datagrams),
}

impl Datagrams {
    /// Waits until a first datagram can be sent.
    ///
    /// # Errors
    /// The system's.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Kernel(socket) => socket.writable().await,
            Self::User(_) => Ok(()),
        }
    }

    /// Waits until something can be received.
    ///
    /// # Errors
    /// What ended the flow.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Kernel(socket) => readable(socket).await,
            Self::User(datagrams) => datagrams.readable().await,
        }
    }

    /// Sends one datagram, if there is room.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or why it cannot be sent.
    pub fn try_send(&self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Kernel(socket) => socket.try_send(datagram).map(drop),
            Self::User(datagrams) => datagrams.try_send(datagram),
        }
    }

    /// Receives one datagram, if there is one.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or what ended the flow.
    pub fn try_recv(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(socket) => socket.try_recv(into),
            Self::User(datagrams) => datagrams.try_recv(into),
        }
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Kernel(socket) => socket.local_addr().ok(),
            Self::User(datagrams) => Some(datagrams.local_addr()),
        }
    }
}

/// Waits for a datagram or an ICMP error: the latter makes a socket ready with nothing to read, and
/// `UdpSocket::readable` sleeps on.
async fn readable(socket: &UdpSocket) -> io::Result<()> {
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_readable() {
            return Ok(());
        }
        let reported = || {
            Err(socket
                .take_error()?
                .unwrap_or_else(|| io::ErrorKind::WouldBlock.into()))
        };
        match socket.try_io(Interest::ERROR, reported) {
            Err(none) if none.kind() == io::ErrorKind::WouldBlock => {}
            reported => return reported,
        }
    }
}
