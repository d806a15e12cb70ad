//! `portcullis edge`: control plane, router and proxy of one node, started and stopped in order.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use controlplane::ControlPlane;
use controlplane::model::lease;
use dataplane::id::{NodeId, Workers};
use dataplane::io::{FlowLimits, Handle, Overlay, Router, RouterConfig, TunConfig};
use dataplane::source::Slice;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxy::handoff::Flows;
use proxy::{Proxy, ProxyConfig, Upstreams};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::control;
use super::tenure::{self, Followed, Tenure};
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
    let (plane, tenure) = match config.control.is_empty() {
        true => own(&config)?,
        false => {
            let followed = Followed::start(&config, applied.subscribe())?;
            config.slice = Some(runtime.block_on(followed.slice())?);
            (followed.plane.clone(), Tenure::Leased(followed))
        }
    };
    let handle = Router::start(router_config(&config)?)?;
    let converge = Converge::start(&plane, &handle, config.slice(), applied)?;
    if let Tenure::Leased(followed) = &tenure {
        let handle = handle.clone();
        followed
            .following
            .report(Arc::new(move || handle.tunnels()));
    }
    let served = runtime.block_on(async {
        tokio::select! {
            served = serve(&config, &plane, &handle, &converge) => served,
            why = tenure.ended(config.slice()) => Err(why),
        }
    });
    drop(tenure);
    converge.stop();
    handle.shutdown();
    served
}

/// The control plane inside this process, and the slice that is its configuration's.
fn own(config: &config::Edge) -> anyhow::Result<(ControlPlane, Tenure)> {
    if config.identity.is_some() {
        bail!("an identity is of no use without a control plane to follow: --control HOST:PORT");
    }
    if !config.nodes.listen.is_empty() {
        bail!("[nodes] listen is of `portcullis control`: an edge serves no other edges");
    }
    let plane = control::open(config)?;
    let tenure = tenure::hold(&plane, config)?;
    Ok((plane, tenure))
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
        device: handle.opener().is_none().then(|| config.router.tun.clone()),
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
        shown = shown.merge(admin::tokens(plane.clone()));
    }
    let uses = config.control.is_empty().then(|| {
        let plane = plane.clone();
        tokio::spawn(async move { control::keep_uses(&plane).await })
    });
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
    if let Some(uses) = uses {
        uses.abort();
        control::keep_uses_once(plane).await;
    }
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
        relay: config.router.relay,
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
