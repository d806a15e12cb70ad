//! From a configuration to a running router, or to a sentence that says what to do.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, bounded};
use ipnet::IpNet;
use nix::libc;

use crate::id::{NodeId, VnetId, WorkerId, Workers};
use crate::node::{Node, NodeConfig, Role};
use crate::program::Programmer;
use crate::source::Slice;

use super::endpoints::{Endpoints, Heard};
use super::exchange::{self, Exchange};
use super::handle::{Handle, Line, Running, stop};
use super::port::Port;
use super::routes::{self, Plan, RouteError, Side};
use super::tun::{Tun, TunConfig, TunError};
use super::udp::Socket;
use super::worker::{Lines, Worker};
use super::{clock, steer};

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
    /// How many workers share the work; `None`: one for each core on an edge, and one on a site,
    /// which has one tunnel. A plain TUN has room for one.
    pub workers: Option<Workers>,
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
    /// More workers than /24s.
    #[error(
        "the slice {} has {} /24s, and each worker needs one: start at most that many workers, or give \
         the node a larger slice",
        slice.net(), slice.blocks()
    )]
    Workers {
        /// The slice.
        slice: Slice,
    },
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
    let wanted = workers(&config)?;
    check_listen(&config.listen)?;
    let lock = lock()?;
    let tuns = Tun::open(&config.tun, wanted)?;
    // One queue is one worker.
    let workers = if tuns.len() == 1 {
        Workers::ONE
    } else {
        wanted
    };
    let (name, backend) = (tuns[0].name().to_owned(), tuns[0].backend());
    tracing::info!(
        tun = name,
        backend,
        workers = workers.count(),
        "TUN device open"
    );
    if workers != Workers::ONE {
        steer_overlay(&config.overlay, &tuns[0], workers);
    }
    let programmer = programmer(&config.overlay, workers);
    let (heard, news) = bounded(EVENTS_WAITING);
    let (parts, lines) = assemble(&config, tuns, &programmer, &heard)?;
    drop(heard);
    let installed = routes::install(&plan(&config, &name)).map_err(route_error)?;

    let endpoints = Arc::new(Endpoints::open(config.endpoint_cache));
    // First, because it ends by itself when there is no worker that could tell it anything.
    let keep = Arc::clone(&endpoints);
    let keeper = match spawn("endpoints", move || keep.keep(&news)) {
        Ok(keeper) => keeper,
        Err(error) => return Err(give_up(installed, error)),
    };
    let mut running = Vec::with_capacity(parts.len());
    for (n, worker) in parts.into_iter().enumerate() {
        let run = move || match worker.run() {
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "a packet worker stops"),
        };
        match spawn(&format!("packets-{n}"), run) {
            Ok(thread) => running.push(thread),
            Err(error) => {
                stop(&lines, running);
                return Err(give_up(installed, error));
            }
        }
    }
    let running = Running {
        workers: running,
        keeper,
        installed,
        lock,
    };
    let backend = config.tun.backend;
    Ok(Handle::new(programmer, lines, backend, endpoints, running))
}

/// How many workers are wanted, and can be.
fn workers(config: &RouterConfig) -> Result<Workers, SetupError> {
    match config.overlay {
        Overlay::Site { .. } => Ok(config.workers.unwrap_or(Workers::ONE)),
        Overlay::Edge { slice, .. } => {
            let room = u8::try_from(slice.blocks()).unwrap_or(Workers::MAX);
            match config.workers {
                Some(wanted) if wanted.count() > room => Err(SetupError::Workers { slice }),
                Some(wanted) => Ok(wanted),
                None => {
                    let here = exchange::workers_here();
                    Ok(Workers::new(here.count().min(room)).unwrap_or(Workers::ONE))
                }
            }
        }
    }
}

/// Asks the kernel to give each worker the overlay's packets that are its own. On a site the source
/// says nothing about the tunnel: there the kernel keeps flows together, and that is enough.
fn steer_overlay(overlay: &Overlay, tun: &Tun, workers: Workers) {
    let Overlay::Edge { slice, .. } = overlay else {
        return;
    };
    let steered = steer::by_source(*slice, workers).and_then(|program| tun.steer(&program));
    if let Err(error) = steered {
        tracing::info!(%error, "the TUN spreads packets by flow, and they are handed over");
    }
}

fn programmer(overlay: &Overlay, workers: Workers) -> Programmer {
    match overlay {
        Overlay::Edge { slice, node } => Programmer::new(Some(*slice), *node, workers),
        Overlay::Site { .. } => Programmer::new(None, NodeId(0), workers),
    }
}

/// The workers with all they own, and a line to each.
fn assemble(
    config: &RouterConfig,
    tuns: Vec<Tun>,
    programmer: &Programmer,
    heard: &Sender<Heard>,
) -> Result<(Vec<Worker>, Vec<Line>), SetupError> {
    let workers = programmer.tables().workers;
    let mut ports: Vec<Vec<Port>> = workers.iter().map(|_| Vec::new()).collect();
    for address in &config.listen {
        for (of_worker, socket) in ports.iter_mut().zip(bind(*address, workers)?) {
            of_worker.push(Port::new(socket));
        }
    }
    let mut lines = Vec::new();
    let mut receivers = Vec::new();
    for _ in workers.iter() {
        let (line, receiver) = Line::new().map_err(io::Error::from)?;
        lines.push(line);
        receivers.push(receiver);
    }
    let wakes = lines.iter().map(|line| Arc::clone(&line.wake));
    let exchange = Arc::new(Exchange::new(wakes));
    let wakes = lines.iter().map(|line| Arc::clone(&line.wake));
    let owned = tuns.into_iter().zip(ports);
    let told = receivers.into_iter().zip(wakes);
    let mut all = Vec::new();
    for (worker, ((tun, ports), commands)) in workers.iter().zip(owned.zip(told)) {
        let node = node_config(&config.overlay, worker, workers);
        let node = Node::new(node, Arc::clone(programmer.tables()), clock::now());
        let told = Lines {
            commands,
            exchange: Arc::clone(&exchange),
            heard: heard.clone(),
        };
        all.push(Worker::new(worker, node, tun, ports, told)?);
    }
    Ok((all, lines))
}

fn node_config(overlay: &Overlay, worker: WorkerId, workers: Workers) -> NodeConfig {
    let (slice, node, role) = match overlay {
        Overlay::Edge { slice, node } => (Some(*slice), *node, Role::Edge),
        Overlay::Site { address, .. } => {
            let (vnet, address) = (SITE_VNET, *address);
            (None, NodeId(0), Role::Site { vnet, address })
        }
    };
    NodeConfig {
        slice,
        node,
        worker,
        workers,
        role,
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
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

fn check_listen(listen: &[SocketAddr]) -> Result<(), SetupError> {
    let v4 = listen.iter().filter(|address| address.is_ipv4()).count();
    if listen.is_empty() || v4 > 1 || listen.len() - v4 > 1 {
        return Err(SetupError::Listen(listen.len()));
    }
    // Before anything is made: this says more than that a second router is one too many.
    for address in listen {
        drop(bind(*address, Workers::ONE)?);
    }
    Ok(())
}

fn bind(address: SocketAddr, workers: Workers) -> Result<Vec<Socket>, SetupError> {
    Socket::bind_all(address, workers).map_err(|source| match source.raw_os_error() {
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
