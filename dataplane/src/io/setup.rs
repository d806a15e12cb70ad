//! From a configuration to a running router, or to a sentence that says what to do.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::channel::bounded;
use ipnet::IpNet;
use nix::libc;

use crate::id::{NodeId, VnetId, WorkerId};
use crate::node::{Node, NodeConfig, Role};
use crate::program::Programmer;
use crate::source::Slice;

use super::clock;
use super::endpoints::Endpoints;
use super::handle::{Handle, Line, Running};
use super::port::Port;
use super::routes::{self, Plan, RouteError, Side};
use super::tun::{Tun, TunConfig, TunError};
use super::udp::Socket;
use super::worker::Worker;

/// Smallest MTU of the TUN: IPv6 needs it (RFC 8200, section 5).
const MTU_MIN: u16 = 1280;
/// Largest MTU of the TUN: a jumbo frame.
const MTU_MAX: u16 = 9000;

/// Endpoint changes that may wait for the keeper; one more is lost and counted, and the next of
/// the same peer makes up for it.
const EVENTS_WAITING: usize = 1024;

/// The only vnet of a site.
const SITE_VNET: VnetId = VnetId(1);

/// What a router is to be.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The TUN device.
    pub tun: TunConfig,
    /// Where datagrams are received: one address of each family at most, and they are sent from.
    pub listen: Vec<SocketAddr>,
    /// Which side of the tunnels this machine is.
    pub overlay: Overlay,
    /// File that keeps where peers were heard last; without one, peers without a configured
    /// endpoint are reached when they call in.
    pub endpoint_cache: Option<PathBuf>,
}

/// Which side of the tunnels a machine is.
#[derive(Clone, Debug)]
pub enum Overlay {
    /// Sockets of this machine reach private networks from the addresses of a slice.
    Edge {
        /// The slice.
        slice: Slice,
        /// The node that owns it.
        node: NodeId,
    },
    /// This machine forwards between its LAN and the tunnel.
    Site {
        /// Destinations behind the tunnel.
        routes: Vec<IpNet>,
        /// The TUN's own address.
        address: IpAddr,
    },
}

/// Why a router does not start; each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The MTU.
    #[error("the TUN's MTU is {0}: give {MTU_MIN} to {MTU_MAX}")]
    Mtu(u16),
    /// No address to listen on, or two of one family.
    #[error("listen on one IPv4 address, one IPv6 address, or one of each: {0} were given")]
    Listen(usize),
    /// The port is taken.
    #[error(
        "another process, perhaps a second portcullis, holds UDP port {port} ({address}): stop it, \
         or choose another port",
        port = .0.port(), address = .0.ip()
    )]
    PortInUse(SocketAddr),
    /// The address is not here.
    #[error("{0} is not an address of this machine: listen on one that is, or on 0.0.0.0 or [::]")]
    NoSuchAddress(IpAddr),
    /// Another router has this namespace's routes.
    #[error(
        "another portcullis routes in this network namespace: stop it, or give this one a \
         namespace of its own"
    )]
    SecondRouter,
    /// A socket.
    #[error("UDP {address} cannot be bound: {source}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No privilege for the kernel's routes.
    #[error("no permission for '{0}': run as root or with CAP_NET_ADMIN")]
    NotPermitted(String),
    /// The kernel's routes.
    #[error("the kernel refused a route or a switch: {0}")]
    Routes(#[source] RouteError),
    /// Threads, epoll, eventfd.
    #[error("the packet worker cannot start: {0}")]
    Worker(#[from] io::Error),
}

/// Starts routers.
#[derive(Debug)]
pub struct Router;

impl Router {
    /// Makes the TUN device, binds the sockets, tells the kernel its routes, and starts the worker.
    /// One router per network namespace; [`Handle::shutdown`] belongs into the same one.
    ///
    /// # Errors
    /// [`SetupError`]: a sentence that says what to do. Nothing is left behind.
    pub fn start(config: RouterConfig) -> Result<Handle, SetupError> {
        start(config)
    }
}

fn start(config: RouterConfig) -> Result<Handle, SetupError> {
    if !(MTU_MIN..=MTU_MAX).contains(&config.tun.mtu) {
        return Err(SetupError::Mtu(config.tun.mtu));
    }
    let ports = bind_all(&config.listen)?;
    let lock = lock()?;
    let tun = Tun::open(&config.tun)?;
    tracing::info!(tun = tun.name(), backend = tun.backend(), "TUN device open");

    let (slice, node_id, role) = match &config.overlay {
        Overlay::Edge { slice, node } => (Some(*slice), *node, Role::Edge),
        Overlay::Site { address, .. } => (
            None,
            NodeId(0),
            Role::Site {
                vnet: SITE_VNET,
                address: *address,
            },
        ),
    };
    let programmer = Programmer::new(slice, node_id);
    let node = NodeConfig {
        slice,
        node: node_id,
        worker: WorkerId(0),
        role,
    };
    let node = Node::new(node, Arc::clone(programmer.tables()), clock::now());

    let plan = plan(&config, tun.name());
    let (line, commands) = Line::new().map_err(io::Error::from)?;
    let (heard, news) = bounded(EVENTS_WAITING);
    let worker = Worker::new(node, tun, ports, (commands, Arc::clone(&line.wake)), heard)?;
    let installed = routes::install(&plan).map_err(route_error)?;

    let endpoints = Arc::new(Endpoints::open(config.endpoint_cache));
    // First, because it ends by itself when there is no worker that could tell it anything.
    let keep = Arc::clone(&endpoints);
    let keeper = match spawn("endpoints", move || keep.keep(&news)) {
        Ok(keeper) => keeper,
        Err(error) => return Err(give_up(installed, error)),
    };
    let worker = spawn("packets-0", move || match worker.run() {
        Ok(()) => {}
        Err(error) => tracing::error!(%error, "the packet worker stops"),
    });
    match worker {
        Ok(worker) => {
            let running = Running {
                worker,
                keeper,
                installed,
                lock,
            };
            Ok(Handle::new(programmer, line, endpoints, running))
        }
        Err(error) => Err(give_up(installed, error)),
    }
}

fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work)
}

fn give_up(installed: routes::Installed, error: io::Error) -> SetupError {
    if let Err(error) = installed.remove() {
        tracing::warn!(%error, "not everything could be taken down");
    }
    SetupError::Worker(error)
}

fn plan(config: &RouterConfig, tun: &str) -> Plan {
    let side = match &config.overlay {
        Overlay::Edge { slice, .. } => Side::Edge {
            sources: vec![slice.net().into(), slice.net_v6().into()],
        },
        Overlay::Site { routes, address } => Side::Site {
            routes: routes.clone(),
            address: *address,
        },
    };
    Plan {
        tun: tun.to_owned(),
        mtu: config.tun.mtu,
        side,
    }
}

fn bind_all(listen: &[SocketAddr]) -> Result<Vec<Port>, SetupError> {
    let v4 = listen.iter().filter(|address| address.is_ipv4()).count();
    if listen.is_empty() || v4 > 1 || listen.len() - v4 > 1 {
        return Err(SetupError::Listen(listen.len()));
    }
    listen.iter().map(|address| bind(*address)).collect()
}

fn bind(address: SocketAddr) -> Result<Port, SetupError> {
    Socket::bind(address)
        .map(Port::new)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => SetupError::PortInUse(address),
            Some(libc::EADDRNOTAVAIL) => SetupError::NoSuchAddress(address.ip()),
            _ => SetupError::Socket { address, source },
        })
}

/// The name is abstract (unix(7)), so it belongs to the network namespace, and is free again when
/// the process is gone, however it went.
fn lock() -> Result<UnixListener, SetupError> {
    let name = std::os::unix::net::SocketAddr::from_abstract_name("portcullis-router")?;
    match UnixListener::bind_addr(&name) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(SetupError::SecondRouter),
        Err(error) => Err(error.into()),
    }
}

fn route_error(error: RouteError) -> SetupError {
    match error.source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => SetupError::NotPermitted(error.step),
        _ => SetupError::Routes(error),
    }
}
