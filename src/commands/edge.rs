//! `portcullis edge`: control plane, router and proxy of one node, started and stopped in order.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use controlplane::model::{Timestamp, lease};
use controlplane::push::{Bundle, Follow, Following};
use controlplane::{ControlPlane, Progress};
use dataplane::id::{NodeId, Workers};
use dataplane::io::{FlowLimits, Handle, Overlay, Router, RouterConfig, TunConfig};
use dataplane::source::Slice;
use ipnet::Ipv4Net;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxy::handoff::Flows;
use proxy::{Proxy, ProxyConfig, Upstreams};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::control;
use crate::converge::Converge;
use crate::{admin, config};

/// Arguments of `portcullis edge`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration, a TOML file; README shows one.
    #[arg(long, env = "PORTCULLIS_CONFIG")]
    config: PathBuf,
    /// Packet workers, 1 to 64, instead of what the configuration says; without either, one for
    /// each core. A tunnel belongs to one of them.
    #[arg(long, value_name = "COUNT", value_parser = workers)]
    workers: Option<Workers>,
    /// Runs without root, TUN device or CAP_NET_ADMIN: the connections to private origins are made
    /// in this process instead of the kernel. For containers, shared machines and trying things
    /// out. It costs recovery from loss (no SACK, no BBR: a lossy or long path is much slower),
    /// and memory of the process for each connection. Also `userspace = true` under `[router]`.
    #[arg(long)]
    userspace: bool,
    /// Where objects are kept, instead of what the configuration says: etcd://HOST:PORT[,HOST:PORT...],
    /// or etcds:// over TLS.
    #[arg(long, value_name = "ADDRESS")]
    store: Option<String>,
    /// A control plane to follow, instead of being one: HOST:PORT of its `[nodes] listen`. Of several over
    /// one store, the first that answers.
    #[arg(long, value_name = "HOST:PORT")]
    control: Vec<String>,
    /// With --control: the file that `portcullis control enrol` wrote for this edge.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

fn workers(text: &str) -> Result<Workers, String> {
    let count = text.parse().ok().and_then(Workers::new);
    count.ok_or_else(|| format!("give 1 to {}", Workers::MAX))
}

/// How often an edge looks whether its slice is still its own: well below any quarantine.
const LEASE_CHECK: Duration = Duration::from_secs(1);

/// How long requests under way may take after SIGTERM. Service managers send SIGKILL after 90 s.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs until a signal. Order of start: objects, packets, API, connections; of stop: the reverse.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut config: config::Edge = config::read(&args.config)?;
    config.router.workers = args.workers.or(config.router.workers);
    config.router.userspace |= args.userspace;
    config.store = args.store.clone().or(config.store);
    if !args.control.is_empty() {
        config.control.clone_from(&args.control);
    }
    config.identity = args.identity.clone().or(config.identity);
    raise_descriptors();
    let applied = watch::Sender::default();
    let runtime = super::admin_runtime()?;
    let (plane, following) = match config.control.is_empty() {
        true => (own(&config)?, None),
        false => {
            let followed = Followed::start(&config, applied.subscribe())?;
            config.slice = Some(runtime.block_on(followed.slice())?);
            (followed.plane.clone(), Some(followed))
        }
    };
    let handle = Router::start(router_config(&config)?)?;
    let converge = Converge::start(&plane, &handle, applied)?;
    if let Some(followed) = &following {
        let handle = handle.clone();
        followed
            .following
            .report(Arc::new(move || handle.tunnels()));
    }
    let served = runtime.block_on(async {
        tokio::select! {
            served = serve(&config, &plane, &handle, &converge) => served,
            why = lease_ended(following.as_ref(), config.slice()) => Err(why),
        }
    });
    drop(following);
    converge.stop();
    handle.shutdown();
    served
}

/// The control plane inside this process.
fn own(config: &config::Edge) -> anyhow::Result<ControlPlane> {
    if config.identity.is_some() {
        bail!("an identity is of no use without a control plane to follow: --control HOST:PORT");
    }
    if !config.nodes.listen.is_empty() {
        bail!("[nodes] listen is of `portcullis control`: an edge serves no other edges");
    }
    control::open(config)
}

/// A copy of what a control plane elsewhere has, and the connection that keeps it so.
struct Followed {
    plane: ControlPlane,
    bundle: Bundle,
    following: Following,
}

impl Followed {
    fn start(
        config: &config::Edge,
        progress: watch::Receiver<Progress>,
    ) -> anyhow::Result<Followed> {
        if config.store.is_some() {
            bail!(
                "an edge that follows a control plane has no store: leave out `store` or `control`"
            );
        }
        if config.slice.is_some() {
            bail!("an edge that follows a control plane leases its slice: leave out `slice`");
        }
        let identity = config.identity.as_ref().context(
            "say who this edge is: --identity FILE, which `portcullis control enrol` writes",
        )?;
        let bundle = Bundle::read(identity)?;
        let plane = ControlPlane::open_replica(control::options(config)?)?;
        let following = plane.follow(Follow {
            control: config.control.clone(),
            bundle: bundle.clone(),
            progress,
        })?;
        tracing::info!(control = ?config.control, revision = plane.snapshot().revision, "follows");
        Ok(Followed {
            plane,
            bundle,
            following,
        })
    }

    /// The slice that is this edge's now: what it had, else it waits for its control plane, or a signal.
    async fn slice(&self) -> anyhow::Result<Ipv4Net> {
        let mut revisions = self.plane.revision();
        let held = async {
            loop {
                match self.plane.lease(&self.bundle) {
                    Some(lease) if lease.is_held(now()) => return lease.slice,
                    Some(lease) => tracing::info!(until = ?lease.until, "the lease has ended"),
                    None => tracing::info!("waits for its control plane"),
                }
                // The plane is ours too, so the sender lives.
                let _is_open = revisions.changed().await;
            }
        };
        tokio::select! {
            slice = held => Ok(slice),
            signal = super::stop_signal() => {
                signal?;
                bail!("stopped before a control plane answered")
            }
        }
    }
}

/// Waits until the slice is not this edge's any more: somebody else's connections may then have its addresses.
async fn lease_ended(followed: Option<&Followed>, slice: Ipv4Net) -> anyhow::Error {
    let Some(followed) = followed else {
        return std::future::pending().await;
    };
    loop {
        match followed.plane.lease(&followed.bundle) {
            Some(lease) if lease.slice != slice => {
                return anyhow::anyhow!("this edge's slice is {} now: start it again", lease.slice);
            }
            Some(lease) if lease.is_held(now()) => {}
            Some(_) | None => {
                return anyhow::anyhow!(
                    "the lease of {slice} has ended, and no control plane has prolonged it"
                );
            }
        }
        tokio::time::sleep(LEASE_CHECK).await;
    }
}

fn now() -> Timestamp {
    Timestamp::new(OffsetDateTime::now_utc())
}

/// A connection takes two descriptors, and the proxy's limits assume the hard limit: the soft one is
/// often 1024, for the sake of `select`, which nothing here uses.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(
    config: &config::Edge,
    plane: &ControlPlane,
    handle: &Handle,
    converge: &Converge,
) -> anyhow::Result<()> {
    let listener = control::listen(config).await?;
    let api = plane.router(Arc::new(converge.status(handle)));
    let certificate = control::certificate(config)?;
    // The proxy asks in clear, by loopback: its token does not leave the machine.
    let mut inner = None;
    let origin_api = match certificate {
        Some(_) => {
            let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = own.local_addr()?;
            inner = Some(tokio::spawn(control::serve(own, None, api.clone())));
            address
        }
        None => config.api_listen,
    };
    let api = tokio::spawn(control::serve(listener, certificate, api));
    let upstreams = Upstreams {
        tables: handle.tables().clone(),
        flows: handle
            .opener()
            .map(|opener| Arc::new(opener) as Arc<dyn Flows>),
        names: Some(Arc::new(plane.clone())),
        revision: plane.revision(),
    };
    let proxy = Arc::new(Proxy::start(
        proxy_config(config, origin_api, plane),
        upstreams,
    )?);
    let shown = Arc::clone(&proxy);
    let extra: admin::Extra = Arc::new(move || serde_json::json!(shown.counters()));
    let mut shown = admin::shown(handle.clone(), Some(extra));
    if config.control.is_empty() {
        shown = shown.merge(admin::backups(plane.clone()));
    }
    admin::serve(&config.admin_socket(), shown)?;
    tracing::info!(api = %config.api_listen, slice = %config.slice(), "ready");
    let ended = tokio::select! {
        signal = super::stop_signal() => signal,
        failed = super::router_failed(handle) => Err(failed),
    };
    if !proxy.shutdown(DRAIN).await {
        tracing::warn!(?DRAIN, "connections were cut at the end of the drain");
    }
    api.abort();
    if let Some(inner) = inner {
        inner.abort();
    }
    ended
}

fn router_config(config: &config::Edge) -> anyhow::Result<RouterConfig> {
    let slice = Slice::new(config.slice()).context("slice")?;
    Ok(RouterConfig {
        tun: TunConfig {
            name: config.router.tun.clone(),
            mtu: config.router.mtu,
            backend: config.router.tun_backend.into(),
        },
        workers: config.router.workers,
        listen: config.router.listen.clone(),
        ipsec: config.router.ipsec.clone(),
        gre: config.router.gre.clone(),
        overlay: overlay(&config.router, slice),
        endpoint_cache: Some(config.data_dir.join("endpoints.json")),
    })
}

fn overlay(router: &config::Router, slice: Slice) -> Overlay {
    let node = NodeId(lease::number(slice.net()));
    if !router.userspace {
        return Overlay::Edge { slice, node };
    }
    let default = FlowLimits::default();
    Overlay::Userspace {
        slice,
        node,
        limits: FlowLimits {
            flows_max: router.userspace_flows.unwrap_or(default.flows_max),
            buffer_bytes: router.userspace_buffer.unwrap_or(default.buffer_bytes),
        },
    }
}

fn proxy_config(
    config: &config::Edge,
    origin_api: SocketAddr,
    plane: &ControlPlane,
) -> ProxyConfig {
    let mut proxy = ProxyConfig::new(origin_api, plane.origin_token());
    proxy.http.clone_from(&config.proxy.http);
    proxy.https.clone_from(&config.proxy.https);
    proxy.dns.clone_from(&config.dns.listen);
    proxy.certificates.clone_from(&config.proxy.certificates);
    if let Some(name) = &config.proxy.congestion {
        proxy.congestion = (name != "system").then(|| name.clone());
    }
    if let Some(lanes) = config.proxy.lanes {
        proxy.limits.lanes = lanes.get().into();
    }
    proxy.l4 = !config.proxy.edge_addresses.is_empty();
    if let Some(secs) = config.proxy.connect_timeout_secs {
        proxy.timeouts.connect = Duration::from_secs(secs);
    }
    if let Some(secs) = config.proxy.read_timeout_secs {
        proxy.timeouts.read = Duration::from_secs(secs);
    }
    proxy
}
