//! The connections themselves: a pingora peer, a TCP stream, a UDP socket, each bound as its way says.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::io::udp::forget_paths;
use pingora::connectors::l4::BindTo;
use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::upstreams::peer::HttpPeer;
use pingora::{ErrorType, OrErr as _};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::gateway::Gateway;
use super::{Datagrams, Handoff, Upstream, Way, canonical};
use crate::config::Timeouts;

/// A bit that is set in the group key of every private peer, so that none is 0.
const PRIVATE: u64 = 1 << 63;

impl Handoff {
    /// A cleartext HTTP/1.1 peer for pingora's pool. The deadline for connecting is the caller's.
    pub fn peer(&self, way: Way, to: SocketAddr, connect: Duration, times: &Timeouts) -> HttpPeer {
        let mut peer = match (way, &self.flows) {
            (Way::Private { vnet, source }, Some(flows)) => {
                let gateway = Gateway {
                    flows: Arc::clone(flows),
                    vnet,
                    source,
                    to: canonical(to),
                    within: connect,
                };
                behind(gateway)
            }
            (Way::Public | Way::Private { .. }, _) => self.kernel_peer(way, to),
        };
        peer.group_key = group_key(way);
        let options = &mut peer.options;
        options.connection_timeout = Some(connect);
        options.total_connection_timeout = Some(connect);
        options.read_timeout = Some(times.read);
        options.write_timeout = Some(times.write);
        options.idle_timeout = Some(times.upstream_idle);
        peer
    }

    fn kernel_peer(&self, way: Way, to: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(to, false, String::new());
        let options = &mut peer.options;
        options.bind_to = bind_to(way);
        let congestion = self.congestion.clone();
        let device = self.device_of(way).cloned();
        options.upstream_tcp_sock_tweak_hook = Some(Arc::new(move |socket| {
            // Refused is counted, and no reason not to connect.
            congestion.set(socket);
            let left = leave_by(SockRef::from(socket), device.as_deref());
            left.or_err(
                ErrorType::InternalError,
                "binding to the device of the vnets",
            )
        }));
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(10),
            count: 3,
            user_timeout: Duration::from_secs(90),
        });
        peer
    }

    /// Opens a TCP connection and checks its local address.
    ///
    /// # Errors
    /// The system's, `TimedOut` after `deadline`, or `PermissionDenied` if the check fails.
    pub async fn tcp(&self, way: Way, to: SocketAddr, deadline: Duration) -> io::Result<Upstream> {
        if let (Way::Private { source, .. }, Some(flows)) = (way, &self.flows) {
            let flow = flows.tcp(source, canonical(to), deadline).await?;
            self.check_opened(way, flow.local_addr())?;
            return Ok(Upstream::User(flow));
        }
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        self.congestion.set(&socket);
        self.leave_by(way, SockRef::from(&socket))?;
        if let Way::Private { source, .. } = way {
            bind_late(&socket)?;
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = match tokio::time::timeout(deadline, socket.connect(to)).await {
            Ok(connected) => connected?,
            Err(_elapsed) => return Err(io::ErrorKind::TimedOut.into()),
        };
        self.check_opened(way, stream.local_addr().ok())?;
        stream.set_nodelay(true)?;
        Ok(Upstream::Kernel(stream))
    }

    /// Opens a UDP socket that talks to one address only, and checks its local address.
    ///
    /// # Errors
    /// The system's, or `PermissionDenied` if the check fails.
    pub async fn udp(&self, way: Way, to: SocketAddr) -> io::Result<Datagrams> {
        if let (Way::Private { source, .. }, Some(flows)) = (way, &self.flows) {
            let datagrams = Datagrams::User(flows.udp(source, canonical(to)).await?);
            self.check_opened(way, datagrams.local_addr())?;
            return Ok(datagrams);
        }
        let from = match (way, to) {
            (Way::Private { source, .. }, _) => SocketAddr::new(source, 0),
            (Way::Public, SocketAddr::V4(_)) => SocketAddr::from(([0; 4], 0)),
            (Way::Public, SocketAddr::V6(_)) => SocketAddr::from(([0; 16], 0)),
        };
        let socket = UdpSocket::bind(from).await?;
        self.leave_by(way, SockRef::from(&socket))?;
        if matches!(way, Way::Private { .. }) {
            forget_paths(&socket, to.is_ipv4())?;
        }
        socket.connect(to).await?;
        let datagrams = Datagrams::Kernel(socket);
        self.check_opened(way, datagrams.local_addr())?;
        Ok(datagrams)
    }

    /// The device that a connection must leave by.
    fn device_of(&self, way: Way) -> Option<&Arc<str>> {
        match way {
            Way::Public => None,
            Way::Private { .. } => self.device.as_ref(),
        }
    }

    fn leave_by(&self, way: Way, socket: SockRef<'_>) -> io::Result<()> {
        let device = self.device_of(way);
        leave_by(socket, device.map(|device| &**device))
    }

    fn check_opened(&self, way: Way, local: Option<SocketAddr>) -> io::Result<()> {
        self.check(way, local)
            .map_err(|refused| io::Error::new(io::ErrorKind::PermissionDenied, refused))
    }
}

/// A peer whose connections are userspace flows. `gateway.rs` says why it looks like this.
fn behind(gateway: Gateway) -> HttpPeer {
    let nowhere = SocketAddr::from(([0; 4], gateway.to.port()));
    let mut peer = HttpPeer::new(nowhere, false, gateway.to.to_string());
    peer.options.custom_l4 = Some(Arc::new(gateway));
    peer
}

/// Makes the coming close a reset: the other side shall not take it for a regular end.
pub(crate) fn reset(stream: &TcpStream) {
    if let Err(why) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%why, "a connection ends without a reset");
    }
}

/// The pool's key for a way. Pingora keeps connections of different keys apart; `bind_to` is not
/// part of its own key. The vnet and the low half of its source (the IPv4 source is in the low 32
/// bits of the IPv6 one) make keys of different vnets or leases differ.
fn group_key(way: Way) -> u64 {
    match way {
        Way::Public => 0,
        Way::Private { vnet, source } => {
            PRIVATE | u64::from(vnet.0) << 32 | u64::from(low_half(source))
        }
    }
}

fn low_half(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    }
}

fn bind_to(way: Way) -> Option<BindTo> {
    match way {
        Way::Public => None,
        Way::Private { source, .. } => {
            let mut bind = BindTo::default();
            bind.addr = Some(SocketAddr::new(source, 0));
            Some(bind)
        }
    }
}

/// Has the kernel use this device, past its table of local addresses: an origin in a vnet may have one that this
/// machine has, and it is not this machine.
fn leave_by(socket: SockRef<'_>, device: Option<&str>) -> io::Result<()> {
    match device {
        Some(device) => socket.bind_device(Some(device.as_bytes())),
        None => Ok(()),
    }
}

/// Lets the kernel choose the port when it knows the destination (IP_BIND_ADDRESS_NO_PORT, ip(7)),
/// so that one source address serves 64k connections per origin and not in all.
fn bind_late(socket: &TcpSocket) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::socket::setsockopt(
        socket,
        nix::sys::socket::sockopt::IpBindAddressNoPort,
        &true,
    )?;
    Ok(())
}
