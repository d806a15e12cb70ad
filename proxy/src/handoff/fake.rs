//! Vnets for tests: sources and routes as plain maps, on loopback addresses anybody may bind; and
//! userspace flows that are kernel sockets after all.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use dataplane::id::{TunnelId, VnetId};
use dataplane::io::user;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::{Flow, Flows, Vnets};

/// Sources and routes that a test may change at any time.
#[derive(Debug, Default)]
pub(crate) struct FakeVnets {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sources: HashMap<VnetId, IpAddr>,
    routes: Vec<(VnetId, IpAddr)>,
    others: Vec<(VnetId, IpAddr, TunnelId)>,
}

impl FakeVnets {
    pub(crate) fn lease(&self, vnet: u16, source: &str) {
        self.with(|s| s.sources.insert(VnetId(vnet), source.parse().unwrap()));
    }

    pub(crate) fn release(&self, vnet: u16) {
        self.with(|s| s.sources.remove(&VnetId(vnet)));
    }

    pub(crate) fn route(&self, vnet: u16, to: &str) {
        self.with(|s| s.routes.push((VnetId(vnet), to.parse().unwrap())));
    }

    /// What `route` does, behind a tunnel that is not the one numbered like the vnet.
    pub(crate) fn route_by(&self, vnet: u16, to: &str, tunnel: u32) {
        let to = to.parse().unwrap();
        self.with(|s| {
            s.routes.push((VnetId(vnet), to));
            s.others.push((VnetId(vnet), to, TunnelId(tunnel)));
        });
    }

    pub(crate) fn withdraw(&self, vnet: u16) {
        self.with(|s| s.routes.retain(|(id, _)| *id != VnetId(vnet)));
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Vnets for FakeVnets {
    fn source(&self, vnet: VnetId, _to: IpAddr) -> Option<IpAddr> {
        self.with(|s| s.sources.get(&vnet).copied())
    }

    fn owner(&self, source: IpAddr) -> Option<VnetId> {
        self.with(|s| {
            s.sources
                .iter()
                .find(|(_, ip)| **ip == source)
                .map(|(vnet, _)| *vnet)
        })
    }

    fn has_route(&self, vnet: VnetId, to: IpAddr) -> bool {
        self.with(|s| s.routes.contains(&(vnet, to)))
    }

    fn leads_to(&self, vnet: VnetId, to: IpAddr, tunnel: TunnelId) -> bool {
        self.with(|s| {
            let other = s
                .others
                .iter()
                .find(|other| (other.0, other.1) == (vnet, to));
            let behind = other.map_or_else(|| TunnelId(vnet.0.into()), |other| other.2);
            s.routes.contains(&(vnet, to)) && behind == tunnel
        })
    }
}

/// Flows from loopback addresses.
#[derive(Debug, Default)]
pub(crate) struct FakeFlows;

#[async_trait]
impl Flows for FakeFlows {
    async fn tcp(
        &self,
        source: IpAddr,
        to: SocketAddr,
        within: Duration,
    ) -> io::Result<Box<dyn Flow>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = tokio::time::timeout(within, socket.connect(to)).await??;
        Ok(Box::new(FakeFlow(stream)))
    }

    async fn udp(&self, _: IpAddr, _: SocketAddr) -> io::Result<user::Datagrams> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[derive(Debug)]
pub(crate) struct FakeFlow(pub(crate) TcpStream);

impl Flow for FakeFlow {
    fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    fn abort(self: Box<Self>) {
        super::reset(&self.0);
    }
}

impl AsyncRead for FakeFlow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for FakeFlow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
