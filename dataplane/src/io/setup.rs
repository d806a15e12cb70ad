//! From a configuration to a running router, or to a sentence that says what to do.

use std::hash::BuildHasher as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use ipnet::IpNet;
use nix::libc;
use nix::sys::eventfd::EventFd;

use crate::flow;
use crate::id::{NodeId, VnetId, WorkerId, Workers};
use crate::node::{HealthChange, LocalPorts, Node, NodeConfig, ProbeKey, Role};
use crate::packet;
use crate::program::Programmer;
use crate::source::Slice;

use super::devices::Devices;
use super::endpoints::{Endpoints, Heard};
use super::exchange::{self, Exchange};
use super::handle::{Handle, Kernel, Own, Running, stop};
use super::health;
use super::line::Line;
use super::overlay::Face;
use super::routes::{self, Plan, RouteError, Side};
use super::tun::{Tun, TunConfig, TunError};
use super::user::{Carrier, Inbox, Opener};
use super::worker::{Lines, Worker};
use super::{clock, listen, steer};

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
    /// The TUN device; not used by userspace flows.
    pub tun: TunConfig,
    /// How many workers share the work; `None`: one for each core on an edge, and one on a site,
    /// which has one tunnel. A plain TUN has room for one.
    pub workers: Option<Workers>,
    /// Where datagrams are received: one address of each family at most, and they are sent from.
    pub listen: Vec<SocketAddr>,
    /// Addresses for IPsec: UDP ports 500 and 4500, and IP protocol 50. Each is an address of this
    /// machine, none a wildcard: which one a peer talks to is part of what it is known by.
    pub ipsec: Vec<IpAddr>,
    /// Addresses for GRE, IP protocol 47, likewise.
    pub gre: Vec<IpAddr>,
    /// Where other nodes hand over by Geneve what came out of their tunnels for this one; no wildcard. The
    /// network must be one that only nodes share: Geneve authenticates nobody. `None`: nothing is handed
    /// over, either way.
    pub relay: Option<SocketAddr>,
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
    /// Flows of this process reach private networks from the addresses of a slice: no TUN, no
    /// routes, no privileges. Any number of such routers runs in one network namespace.
    Userspace {
        /// The slice.
        slice: Slice,
        /// The node that owns it.
        node: NodeId,
        /// What the flows of each worker may use.
        limits: FlowLimits,
    },
    /// This machine forwards between its LAN and the tunnel.
    Site {
        /// Destinations behind the tunnel.
        routes: Vec<IpNet>,
        /// The TUN's own address.
        address: IpAddr,
    },
}

/// What the flows of one worker may use: [`flow::Config`] says what it means for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Flows at one time.
    pub flows_max: usize,
    /// Bytes that wait in a flow, each way.
    pub buffer_bytes: usize,
}

impl Default for FlowLimits {
    fn default() -> Self {
        let config = flow::Config::new([0; 2]);
        Self {
            flows_max: config.flows_max,
            buffer_bytes: config.buffer_bytes,
        }
    }
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
    /// A wildcard where an address is needed.
    #[error(
        "{0} is a wildcard: IPsec, GRE and relays need the addresses that peers talk to, one by one"
    )]
    Wildcard(IpAddr),
    /// No privilege for raw IP.
    #[error("no permission for raw IP ({0:?}): run as root or with CAP_NET_RAW")]
    RawNotPermitted(packet::Carrier),
    /// A raw socket.
    #[error("raw IP ({carrier:?}) on {address} cannot be had: {source}")]
    Raw {
        /// For what.
        carrier: packet::Carrier,
        /// Where.
        address: IpAddr,
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
    /// Makes the TUN device, binds the sockets, tells the kernel its routes, and starts the workers.
    /// One router per network namespace; [`Handle::shutdown`] belongs into the same one. With
    /// userspace flows it binds the sockets and starts the workers.
    ///
    /// # Errors
    /// [`SetupError`]: a sentence that says what to do. Nothing is left behind.
    pub fn start(config: RouterConfig) -> Result<Handle, SetupError> {
        start(config)
    }
}

fn start(config: RouterConfig) -> Result<Handle, SetupError> {
    listen::check(&config)?;
    let (faces, kernel) = match &config.overlay {
        Overlay::Userspace { .. } => (Faces::Flows(workers(&config)?), None),
        Overlay::Edge { .. } | Overlay::Site { .. } => {
            if !(MTU_MIN..=MTU_MAX).contains(&config.tun.mtu) {
                return Err(SetupError::Mtu(config.tun.mtu));
            }
            let lock = lock()?;
            let tuns = open_tuns(&config)?;
            let name = tuns[0].name().to_owned();
            (Faces::Tuns(tuns), Some((lock, name)))
        }
    };
    let programmer = programmer(&config.overlay, faces.workers());
    let (heard, news) = bounded(EVENTS_WAITING);
    let (told, health) = bounded(health::CHANGES_WAITING);
    let parts = assemble(&config, faces, &programmer, (&heard, &told))?;
    drop((heard, told));
    let kernel = match kernel {
        None => Kernel::default(),
        Some((lock, tun)) => {
            let installed = routes::install(&plan(&config, &tun)).map_err(route_error)?;
            Kernel {
                installed: Some(installed),
                lock: Some(lock),
            }
        }
    };
    run(config, programmer, parts, (news, health), kernel)
}

/// Starts all threads.
fn run(
    config: RouterConfig,
    programmer: Programmer,
    parts: Parts,
    (news, health): (Receiver<Heard>, Receiver<HealthChange>),
    kernel: Kernel,
) -> Result<Handle, SetupError> {
    let endpoints = Arc::new(Endpoints::open(config.endpoint_cache));
    // First, because it ends by itself when there is no worker that could tell it anything.
    let keep = Arc::clone(&endpoints);
    let keeper = match spawn("endpoints", move || keep.keep(&news)) {
        Ok(keeper) => keeper,
        Err(error) => return Err(give_up(kernel, error)),
    };
    let tables = Arc::clone(programmer.tables());
    let programmer = Arc::new(Mutex::new(programmer));
    // Ends with the workers too.
    let told = Arc::clone(&programmer);
    let health = match spawn("health", move || health::keep(&health, &told)) {
        Ok(health) => health,
        Err(error) => return Err(give_up(kernel, error)),
    };
    let workers = tables.workers;
    let devices = Devices::new(workers, parts.lines.clone(), config.tun.backend);
    let devices = Arc::new(devices);
    // Ends when nobody holds `watch` any more.
    let (watch, stopped) = bounded(0);
    let kept = Arc::clone(&devices);
    let ports = match spawn("ports", move || kept.keep(&stopped)) {
        Ok(ports) => ports,
        Err(error) => return Err(give_up(kernel, error)),
    };
    let mut running = Vec::with_capacity(parts.workers.len());
    for (n, worker) in parts.workers.into_iter().enumerate() {
        let run = move || match worker.run() {
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "a packet worker stops"),
        };
        match spawn(&format!("packets-{n}"), run) {
            Ok(thread) => running.push(thread),
            Err(error) => {
                stop(&parts.lines, running);
                return Err(give_up(kernel, error));
            }
        }
    }
    let running = Running {
        workers: running,
        keepers: vec![keeper, health, ports],
        watch,
        kernel,
    };
    let opener =
        (!parts.inboxes.is_empty()).then(|| Opener::new(Arc::clone(&tables), parts.inboxes));
    Ok(Handle::new(
        (programmer, tables),
        parts.lines,
        Own {
            devices,
            gre: config.gre,
        },
        endpoints,
        opener,
        running,
    ))
}

/// What each worker gets for an overlay.
enum Faces {
    Tuns(Vec<Tun>),
    Flows(Workers),
}

impl Faces {
    /// One queue is one worker.
    fn workers(&self) -> Workers {
        match self {
            Self::Tuns(tuns) => {
                let count = u8::try_from(tuns.len()).unwrap_or(Workers::MAX);
                Workers::new(count).unwrap_or(Workers::ONE)
            }
            Self::Flows(workers) => *workers,
        }
    }
}

/// The TUN's queues, one for each worker.
fn open_tuns(config: &RouterConfig) -> Result<Vec<Tun>, SetupError> {
    let wanted = workers(config)?;
    let tuns = Tun::open(&config.tun, wanted)?;
    let workers = if tuns.len() == 1 {
        Workers::ONE
    } else {
        wanted
    };
    let (name, backend) = (tuns[0].name(), tuns[0].backend());
    tracing::info!(
        tun = name,
        backend,
        workers = workers.count(),
        "TUN device open"
    );
    if workers != Workers::ONE {
        steer_overlay(&config.overlay, &tuns[0], workers);
    }
    Ok(tuns)
}

/// How many workers are wanted, and can be.
fn workers(config: &RouterConfig) -> Result<Workers, SetupError> {
    match config.overlay {
        Overlay::Site { .. } => Ok(config.workers.unwrap_or(Workers::ONE)),
        Overlay::Edge { slice, .. } | Overlay::Userspace { slice, .. } => {
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
        Overlay::Edge { slice, node } | Overlay::Userspace { slice, node, .. } => {
            Programmer::new(Some(*slice), *node, workers)
        }
        Overlay::Site { .. } => Programmer::new(None, NodeId(0), workers),
    }
}

/// The workers, and how each is spoken to.
struct Parts {
    workers: Vec<Worker>,
    lines: Vec<Line>,
    /// Of workers with userspace flows.
    inboxes: Vec<Arc<Inbox>>,
}

/// The workers with all they own.
fn assemble(
    config: &RouterConfig,
    faces: Faces,
    programmer: &Programmer,
    (heard, health): (&Sender<Heard>, &Sender<HealthChange>),
) -> Result<Parts, SetupError> {
    let workers = programmer.tables().workers;
    let ports = listen::ports(config, workers)?;
    let mut lines = Vec::new();
    let mut receivers = Vec::new();
    for _ in workers.iter() {
        let (line, receiver) = Line::new().map_err(io::Error::from)?;
        lines.push(line);
        receivers.push(receiver);
    }
    let wakes = || lines.iter().map(|line| Arc::clone(&line.wake));
    let exchange = Arc::new(Exchange::new(wakes()));
    let (faces, inboxes) = match faces {
        Faces::Tuns(tuns) => (tuns.into_iter().map(Face::Tun).collect(), Vec::new()),
        Faces::Flows(_) => flows(&config.overlay, wakes()),
    };
    let owned = faces.into_iter().zip(ports);
    let told = receivers.into_iter().zip(wakes());
    let mut all = Vec::new();
    for (worker, ((face, ports), commands)) in workers.iter().zip(owned.zip(told)) {
        let node = NodeConfig {
            local_ports: local_ports(config),
            relay: config.relay.map(|address| address.ip()),
            ..node_config(&config.overlay, worker, workers)
        };
        let mut node = Node::new(node, Arc::clone(programmer.tables()), clock::now());
        if let Face::Flows(_) = face {
            node.deliver_by_owner();
        }
        let told = Lines {
            commands,
            exchange: Arc::clone(&exchange),
            heard: heard.clone(),
            health: health.clone(),
        };
        all.push(Worker::new(worker, node, face, ports, told)?);
    }
    Ok(Parts {
        workers: all,
        lines,
        inboxes,
    })
}

/// Userspace flows for each worker, and where they are asked for.
fn flows(
    overlay: &Overlay,
    wakes: impl Iterator<Item = Arc<EventFd>>,
) -> (Vec<Face>, Vec<Arc<Inbox>>) {
    let limits = match overlay {
        Overlay::Userspace { limits, .. } => *limits,
        Overlay::Edge { .. } | Overlay::Site { .. } => FlowLimits::default(),
    };
    let of_worker = |wake| {
        let inbox = Inbox::new(limits.flows_max, wake);
        let config = flow::Config {
            flows_max: limits.flows_max,
            buffer_bytes: limits.buffer_bytes,
            ..flow::Config::new([random(), random()])
        };
        let carrier = Carrier::new(config, Arc::clone(&inbox), clock::now());
        (Face::Flows(Box::new(carrier)), inbox)
    };
    wakes.map(of_worker).unzip()
}

/// A number that nobody can guess: std seeds its hashers from the system's random numbers.
fn random() -> u64 {
    std::hash::RandomState::new().hash_one(clock::now())
}

fn node_config(overlay: &Overlay, worker: WorkerId, workers: Workers) -> NodeConfig {
    let (slice, node, role) = match overlay {
        Overlay::Edge { slice, node } | Overlay::Userspace { slice, node, .. } => {
            (Some(*slice), *node, Role::Edge)
        }
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
        probe_key: ProbeKey(probe_key()),
        local_ports: None,
        relay: None,
    }
}

/// What may enter the machine by UDP; `None` where the overlay is not its stack. What it listens on itself is for
/// the underlay alone.
fn local_ports(config: &RouterConfig) -> Option<LocalPorts> {
    let Overlay::Edge { .. } = config.overlay else {
        return None;
    };
    let own = config.listen.iter().chain(&config.relay);
    let own = own.map(SocketAddr::port).chain(listen::IKE_PORTS);
    let own = own.map(|port| port..=port);
    Some(LocalPorts {
        range: routes::local_ports(),
        kept: own.chain(routes::reserved_ports()).collect(),
    })
}

/// A secret of a worker's own.
fn probe_key() -> [u8; 32] {
    let mut key = [0; 32];
    for eight in key.chunks_mut(8) {
        eight.copy_from_slice(&random().to_be_bytes());
    }
    key
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work)
}

fn give_up(kernel: Kernel, error: io::Error) -> SetupError {
    kernel.take_down();
    SetupError::Worker(error)
}

fn plan(config: &RouterConfig, tun: &str) -> Plan {
    let side = match &config.overlay {
        Overlay::Edge { slice, .. } | Overlay::Userspace { slice, .. } => Side::Edge {
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
