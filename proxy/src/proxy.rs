//! A running proxy: starts the rooms on a runtime of its own, and ends them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use controlplane::dns::Authority;
use controlplane::origin;
use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use crate::config::ProxyConfig;
use crate::congestion::Congestion;
use crate::counters::{Counters, CountersSnapshot};
use crate::dns;
use crate::handoff::{Flows, Handoff, Vnets};
use crate::l4;
use crate::l7::{self, Door, Gate, engine};
use crate::listen::{self, BindError, CertificateError, Certificates, Drain, Lanes, Uploaded};
use crate::resolve::Resolver;
use crate::route::{OriginApi, Routes, follow_apps, follow_certificates};

/// Time for tasks to end after they were told to close.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// What the proxy takes from the rest of the edge.
#[derive(Clone)]
pub struct Upstreams {
    /// The router's tables (`dataplane::program::Tables`).
    pub tables: Arc<dyn Vnets>,
    /// Opens connections of vnets without the kernel; `None` if the kernel has them.
    pub flows: Option<Arc<dyn Flows>>,
    /// The device that the kernel's connections of vnets leave by, whatever other way the kernel knows: an
    /// origin may have an address that is this machine's own elsewhere. `None` leaves it to the kernel's routes.
    pub device: Option<String>,
    /// Answers DNS queries; `None` where no DNS is served.
    pub names: Option<Arc<dyn Authority>>,
    /// The revision of the desired state: answers of the Origin API are kept while it stays.
    pub revision: watch::Receiver<u64>,
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// Why a proxy did not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The token for the Origin API cannot be sent.
    #[error("the token for the Origin API has characters that a header may not have")]
    Token,
    /// The location's name is unfit.
    #[error("the location's name {0:?} is not 3 to 8 letters or digits")]
    Colo(String),
    /// Threads or descriptors are missing.
    #[error("cannot start the proxy's threads")]
    Runtime(#[source] std::io::Error),
}

/// A running proxy. Dropped without [`Proxy::shutdown`], it closes everything at once.
#[derive(Debug)]
pub struct Proxy {
    live: Mutex<Option<Live>>,
    counters: Arc<Counters>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    dns: Vec<SocketAddr>,
}

struct Live {
    /// Listens, and carries TCP and UDP apps; HTTP connections are on the door's lanes.
    runtime: Runtime,
    drain: Drain,
    door: Arc<Door>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Proxy {
    /// Binds all sockets, and serves them when this returns.
    ///
    /// # Errors
    /// Says in one sentence what is wrong; nothing is left running.
    pub fn start(config: ProxyConfig, upstreams: Upstreams) -> Result<Self, StartError> {
        check_colo(&config.colo)?;
        // Fails if it was installed before, and then it is the same one.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let api = OriginApi::new(config.origin_api, &config.origin_token)
            .map_err(|_invalid| StartError::Token)?;
        let tls = Tls::new(&config)?;
        let counters = Arc::new(Counters::default());
        let congestion = Congestion::new(config.congestion.as_deref(), &counters);
        let http = bind(&config.http, "http", &congestion)?;
        let https = bind(&config.https, "https", &congestion)?;
        let names = config.dns.iter().map(|at| dns::Bound::new(*at, &counters));
        let names: Vec<dns::Bound> = names.collect::<Result<_, _>>()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("proxy")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let lanes = Lanes::start(config.limits.lanes).map_err(StartError::Runtime)?;
        let dns;
        let (live, http, https) = {
            let _inside = runtime.enter();
            let sockets = (adopt(http)?, adopt(https)?);
            dns = serve_names(names, &config, &upstreams, &counters)?;
            run(
                config,
                upstreams,
                api,
                tls,
                (sockets, lanes),
                (&counters, congestion),
            )
        };
        let (drain, door) = live;
        Ok(Self {
            live: Mutex::new(Some(Live {
                runtime,
                drain,
                door,
            })),
            counters,
            http,
            https,
            dns,
        })
    }

    /// The counters at this moment.
    pub fn counters(&self) -> CountersSnapshot {
        self.counters.snapshot()
    }

    /// The addresses where HTTP is served, with the ports that the system chose for 0.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The addresses where HTTPS is served, with the ports that the system chose for 0.
    pub fn https_addresses(&self) -> &[SocketAddr] {
        &self.https
    }

    /// The addresses where DNS is served, with the ports that the system chose for 0.
    pub fn dns_addresses(&self) -> &[SocketAddr] {
        &self.dns
    }

    /// Stops accepting, lets what runs finish until `deadline`, then closes the rest. Returns
    /// whether all finished by themselves. A second call returns at once.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let live = self
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Live {
            runtime,
            drain,
            door,
        }) = live
        else {
            return true;
        };
        drain.begin();
        let finish = runtime.spawn(async move {
            // Wakes connections that wait for a next request.
            for engine in &door.engines {
                engine.cleanup().await;
            }
            // The lanes end with the door, and with them the HTTP connections that are left.
            drain.finish(deadline, CLOSE_GRACE, || drop(door)).await
        });
        let finished = finish.await.unwrap_or(false);
        // Never blocks: the caller may be a task of another runtime.
        runtime.shutdown_background();
        finished
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let live = self
            .live
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(live) = live {
            live.runtime.shutdown_background();
        }
    }
}

type Sockets = Vec<(TcpListener, SocketAddr)>;

/// Starts all tasks on the runtime that is entered.
fn run(
    config: ProxyConfig,
    upstreams: Upstreams,
    api: OriginApi,
    tls: Option<Tls>,
    ((http, https), lanes): ((Sockets, Sockets), Lanes),
    (counters, congestion): (&Arc<Counters>, Congestion),
) -> ((Drain, Arc<Door>), Vec<SocketAddr>, Vec<SocketAddr>) {
    let Upstreams {
        tables,
        flows,
        device,
        names: _,
        revision,
    } = upstreams;
    let drain = Drain::new();
    let handoff = Handoff::new(
        tables,
        config.allow_local_origins,
        congestion.clone(),
        Arc::clone(counters),
    );
    let handoff = Arc::new(handoff.with_flows(flows).with_device(device));
    let patience = config.timeouts.origin_api;
    let routes = Arc::new(Routes::new(
        api.clone(),
        revision.clone(),
        patience,
        &config.limits,
        Arc::clone(counters),
    ));
    let resolver = Arc::new(Resolver::new(&config, &handoff, counters));
    let gate = || Gate::new(&config, (&routes, &resolver), &handoff, counters);
    let pooled = config.limits.pooled.div_ceil(lanes.count());
    let door = Arc::new(Door {
        engines: (0..lanes.count()).map(|_| engine(gate(), pooled)).collect(),
        lanes,
        room: Arc::new(Semaphore::new(config.limits.connections)),
        handshake: config.timeouts.handshake,
        counters: Arc::clone(counters),
    });
    let serve = |sockets: Sockets, tls: Option<&Arc<Acceptor>>| -> Vec<SocketAddr> {
        let start = |(socket, address)| {
            let door = Arc::clone(&door);
            tokio::spawn(l7::serve(socket, tls.cloned(), door, drain.running()));
            address
        };
        sockets.into_iter().map(start).collect()
    };
    let acceptor = tls.as_ref().map(|tls| &tls.acceptor);
    let (http, https) = (serve(http, None), serve(https, acceptor));
    if let Some(tls) = tls {
        let uploaded = Arc::downgrade(&tls.uploaded);
        let publish = move |certificates: Option<&[origin::Certificate]>| {
            let uploaded = uploaded.upgrade();
            if let (Some(uploaded), Some(certificates)) = (&uploaded, certificates) {
                uploaded.replace(certificates);
            }
            uploaded.is_some()
        };
        let (api, revision) = (api.clone(), revision.clone());
        tokio::spawn(follow_certificates(api, revision, patience, publish));
    }
    if config.l4 {
        let (sender, apps) = watch::channel(Vec::new());
        tokio::spawn(follow_apps(api, revision, patience, sender));
        let relay = l4::Relay::new(
            (handoff, resolver),
            Arc::clone(counters),
            congestion,
            &config,
        );
        tokio::spawn(l4::serve(apps, relay, drain.running()));
    }
    ((drain, door), http, https)
}

/// Starts the DNS server on the runtime that is entered.
fn serve_names(
    bound: Vec<dns::Bound>,
    config: &ProxyConfig,
    upstreams: &Upstreams,
    counters: &Arc<Counters>,
) -> Result<Vec<SocketAddr>, StartError> {
    let Some(authority) = upstreams.names.clone() else {
        return Ok(Vec::new());
    };
    let server = Arc::new(dns::Server {
        authority,
        limits: config.dns_limits.clone(),
        counters: Arc::clone(counters),
    });
    let served = bound.into_iter().map(|bound| bound.serve(&server));
    served
        .collect::<Result<_, _>>()
        .map_err(StartError::Runtime)
}

fn check_colo(colo: &str) -> Result<(), StartError> {
    if (3..=8).contains(&colo.len()) && colo.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        Err(StartError::Colo(colo.to_owned()))
    }
}

/// What HTTPS is served with.
struct Tls {
    acceptor: Arc<Acceptor>,
    uploaded: Arc<Uploaded>,
}

impl Tls {
    /// `None` when HTTPS is not served.
    fn new(config: &ProxyConfig) -> Result<Option<Tls>, StartError> {
        if config.https.is_empty() {
            return Ok(None);
        }
        let certificates = match &config.certificates {
            Some(directory) => Certificates::read(directory)?,
            None => Certificates::default(),
        };
        let uploaded = certificates.uploaded();
        let acceptor = Acceptor::from_server_config(certificates.server_config());
        Ok(Some(Tls {
            acceptor: Arc::new(acceptor),
            uploaded,
        }))
    }
}

fn bind(
    addresses: &[SocketAddr],
    purpose: &'static str,
    congestion: &Congestion,
) -> Result<Vec<std::net::TcpListener>, BindError> {
    addresses
        .iter()
        .map(|address| listen::tcp(*address, purpose, congestion))
        .collect()
}

fn adopt(sockets: Vec<std::net::TcpListener>) -> Result<Sockets, StartError> {
    let adopt = |socket: std::net::TcpListener| {
        let socket = TcpListener::from_std(socket)?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    sockets
        .into_iter()
        .map(adopt)
        .collect::<Result<_, _>>()
        .map_err(StartError::Runtime)
}
