//! Userspace flows as pingora can pool them: each behind one end of a pair of Unix sockets.
//!
//! Pingora pools what has a file descriptor, and a flow has none. So a task copies between the flow
//! and one end of a socket pair, and pingora has the other end. A pair has no address that another
//! process could connect to. Pingora's end is bound to a name that says which flow is behind it:
//! the check on reuse asks the kernel for it, and not the pool.
//!
//! Pingora 0.9.1 reuses a descriptor only if its peer is the address of the `HttpPeer`, and does not
//! ask when that is 0.0.0.0. The origin's address is therefore in the SNI, which a cleartext peer
//! does not use and the pool's key contains.

use std::hash::BuildHasher as _;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use dataplane::id::VnetId;
use nix::sys::socket::{UnixAddr, bind, getsockname};
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType, OrErr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::user::{Flow, Flows};

/// Bytes copied at one time: a chunk of a flow.
const COPY_BYTES: usize = 16 << 10;

/// Opens the flow behind one `HttpPeer`.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) flows: Arc<dyn Flows>,
    pub(super) vnet: VnetId,
    pub(super) source: IpAddr,
    pub(super) to: SocketAddr,
    pub(super) within: Duration,
}

#[async_trait]
impl Connect for Gateway {
    async fn connect(&self, _: &PeerAddr) -> pingora::Result<Stream> {
        let flow = self.flows.tcp(self.source, self.to, self.within).await;
        let flow = flow.map_err(|why| {
            let kind = kind(&why);
            Error::because(kind, format!("no flow to {}", self.to), why)
        })?;
        let pair = UnixStream::pair().or_err(ErrorType::InternalError, "no socket pair")?;
        let (ours, pingoras) = pair;
        let name = Name {
            vnet: self.vnet,
            local: flow.local_addr(),
            to: self.to,
        };
        name.give(pingoras.as_raw_fd())
            .or_err(ErrorType::InternalError, "no name for a flow")?;
        // It ends with the flow, or with pingora's end, and at the latest with the runtime.
        tokio::spawn(relay(ours, flow));
        Ok(Stream::from(pingoras))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "std's list is open")]
fn kind(error: &io::Error) -> ErrorType {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ErrorType::ConnectNoRoute
        }
        io::ErrorKind::AddrNotAvailable => ErrorType::BindError,
        _ => ErrorType::ConnectError,
    }
}

/// Copies until pingora has closed its end, or the flow is broken.
async fn relay(mut ours: UnixStream, flow: Box<dyn Flow>) {
    let (mut from_origin, mut to_origin) = tokio::io::split(flow);
    let is_clean = {
        let (mut from_pingora, mut to_pingora) = ours.split();
        let up = async {
            copy(&mut from_pingora, &mut to_origin).await?;
            to_origin.shutdown().await
        };
        let down = async {
            copy(&mut from_origin, &mut to_pingora).await?;
            to_pingora.shutdown().await?;
            // Pingora sees the end, and closes.
            std::future::pending().await
        };
        let ended: io::Result<()> = tokio::select! {
            up = up => up,
            down = down => down,
        };
        ended.is_ok()
    };
    if !is_clean {
        from_origin.unsplit(to_origin).abort();
    }
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            len => to.write_all(&buffer[..len]).await?,
        }
    }
}

/// What is behind a descriptor of pingora's, written into its abstract name (unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) vnet: VnetId,
    pub(super) local: Option<SocketAddr>,
    pub(super) to: SocketAddr,
}

/// Secret of this process, number, vnet, and two addresses with ports.
const NAME_LEN: usize = 8 + 8 + 2 + 2 * ADDRESS_LEN;
const ADDRESS_LEN: usize = 16 + 2;

impl Name {
    /// Binds a socket to the name.
    fn give(&self, socket: RawFd) -> nix::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let nowhere = SocketAddr::from(([0; 4], 0));
        let mut name = [0; NAME_LEN];
        name[..8].copy_from_slice(&secret());
        name[8..16].copy_from_slice(&number.to_be_bytes());
        name[16..18].copy_from_slice(&self.vnet.0.to_be_bytes());
        name[18..18 + ADDRESS_LEN].copy_from_slice(&write(self.local.unwrap_or(nowhere)));
        name[18 + ADDRESS_LEN..].copy_from_slice(&write(self.to));
        bind(socket, &UnixAddr::new_abstract(&name)?)
    }

    /// Reads a socket's name; `None` if it is not one that this process gave.
    pub(super) fn of(socket: RawFd) -> Option<Self> {
        let name: UnixAddr = getsockname(socket).ok()?;
        let name: &[u8; NAME_LEN] = name.as_abstract()?.try_into().ok()?;
        let (local, to) = name[18..].split_at(ADDRESS_LEN);
        (name[..8] == secret()).then(|| Self {
            vnet: VnetId(u16::from_be_bytes([name[16], name[17]])),
            local: Some(read(local)),
            to: read(to),
        })
    }
}

/// Keeps others from taking our names, which would fail our connections.
fn secret() -> [u8; 8] {
    static SECRET: OnceLock<[u8; 8]> = OnceLock::new();
    *SECRET.get_or_init(|| {
        let seeded = std::hash::RandomState::new();
        seeded.hash_one(std::process::id()).to_be_bytes()
    })
}

fn write(address: SocketAddr) -> [u8; ADDRESS_LEN] {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; ADDRESS_LEN];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

fn read(bytes: &[u8]) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[..16]);
    let port = u16::from_be_bytes([bytes[16], bytes[17]]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::handoff::fake::{FakeFlow, FakeFlows};

    const LONG: Duration = Duration::from_secs(20);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A relay: pingora's end, and the origin's.
    async fn relayed() -> (UnixStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let flow = TcpStream::connect(to).await.unwrap();
        let (origin, _) = listener.accept().await.unwrap();
        let (ours, pingoras) = UnixStream::pair().unwrap();
        tokio::spawn(relay(ours, Box::new(FakeFlow(flow))));
        (pingoras, origin)
    }

    #[tokio::test]
    async fn a_name_says_which_flow_is_behind_a_descriptor() {
        for (local, to) in [
            ("100.64.0.2:1024", "10.0.0.50:80"),
            ("[2606:4700:cf1:5000::6440:2]:65535", "[fd00::50]:8080"),
        ] {
            let name = Name {
                vnet: VnetId(7),
                local: Some(address(local)),
                to: address(to),
            };
            let (one, two) = UnixStream::pair().unwrap();
            name.give(one.as_raw_fd()).unwrap();
            assert_eq!(Name::of(one.as_raw_fd()), Some(name));
            assert_eq!(Name::of(two.as_raw_fd()), None);
        }
    }

    #[tokio::test]
    async fn a_name_that_another_process_gave_is_none() {
        let (one, _two) = UnixStream::pair().unwrap();
        let forged = [7; NAME_LEN];
        bind(one.as_raw_fd(), &UnixAddr::new_abstract(&forged).unwrap()).unwrap();
        assert_eq!(Name::of(one.as_raw_fd()), None);
    }

    #[tokio::test]
    async fn nobody_can_connect_to_a_name() {
        let name = Name {
            vnet: VnetId(1),
            local: None,
            to: address("10.0.0.50:80"),
        };
        let (one, _two) = UnixStream::pair().unwrap();
        name.give(one.as_raw_fd()).unwrap();
        let bound = one.local_addr().unwrap();
        let refused = UnixStream::connect_addr(&bound).await;
        assert_eq!(
            refused.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[tokio::test]
    async fn a_flow_ends_when_pingora_closes_its_end() {
        let (mut pingoras, mut origin) = relayed().await;
        pingoras.write_all(b"request").await.unwrap();
        drop(pingoras);
        let mut read = Vec::new();
        let ended = timeout(LONG, origin.read_to_end(&mut read)).await.unwrap();
        ended.unwrap();
        assert_eq!(read, b"request");
        // Nothing holds the connection half open: the next write is answered by a reset.
        let gone = async { while origin.write_all(b"late").await.is_ok() {} };
        timeout(LONG, gone).await.unwrap();
    }

    #[tokio::test]
    async fn the_origins_end_reaches_pingora_behind_its_last_byte() {
        let (mut pingoras, mut origin) = relayed().await;
        let body = vec![7; 1 << 20];
        let write = async {
            origin.write_all(&body).await.unwrap();
            drop(origin);
        };
        let mut read = Vec::new();
        let both = async { tokio::join!(write, pingoras.read_to_end(&mut read)) };
        let ((), ended) = timeout(LONG, both).await.unwrap();
        ended.unwrap();
        assert_eq!(read.len(), body.len());
    }

    #[tokio::test]
    async fn a_gateways_descriptor_names_its_flow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = Gateway {
            flows: Arc::new(FakeFlows),
            vnet: VnetId(3),
            source: IpAddr::from([127, 0, 0, 11]),
            to: listener.local_addr().unwrap(),
            within: LONG,
        };
        let unused = PeerAddr::Inet(address("0.0.0.0:80"));
        let stream = gateway.connect(&unused).await.unwrap();
        let name = Name::of(stream.as_raw_fd()).unwrap();
        assert_eq!((name.vnet, name.to), (VnetId(3), gateway.to));
        assert_eq!(name.local.unwrap().ip(), gateway.source);
    }
}
