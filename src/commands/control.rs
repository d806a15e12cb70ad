//! `portcullis control`: the API alone, over an edge's data directory while the edge is stopped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::serve::ListenerExt as _;
use controlplane::store::Store;
use controlplane::store::etcd::{self, Etcd};
use controlplane::{ControlPlane, MasterKey, NoNode, NodeStatus, Options, open_store};
use tokio::net::TcpListener;

use super::{backup, enrol, new_token, rekey};
use crate::api_tls::{Certificate, TlsListener};
use crate::{admin, config};

/// Arguments of `portcullis control`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis control --config edge.toml
  portcullis control enrol fra1 fra1.pem --config control.toml        an edge's identity
  portcullis control token --config edge.toml                         a new unrestricted token, when others are lost
  portcullis control rekey --config edge.toml                         another server key, while it is stopped
  portcullis control backup portcullis.backup --config edge.toml      while it runs, or stopped
  portcullis control restore portcullis.backup --config edge.toml     while it is stopped")]
pub(crate) struct Args {
    /// The configuration, the same TOML file that `portcullis edge` reads.
    #[arg(long, env = "PORTCULLIS_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Where objects are kept, instead of what the configuration says: etcd://HOST:PORT[,HOST:PORT...],
    /// or etcds:// over TLS.
    #[arg(long, value_name = "ADDRESS", global = true)]
    store: Option<String>,
    #[command(subcommand)]
    action: Option<Action>,
}

/// What to do beside running.
#[derive(Debug, clap::Subcommand)]
enum Action {
    #[command(flatten)]
    Backup(backup::Action),
    #[command(flatten)]
    Enrol(enrol::Action),
    #[command(flatten)]
    Token(new_token::Action),
    #[command(flatten)]
    Rekey(rekey::Action),
}

/// Opens the control plane that a configuration describes, and says the first token once.
pub(super) fn open(config: &config::Edge) -> anyhow::Result<ControlPlane> {
    let plane = match etcd_config(config)? {
        None => ControlPlane::open(options(config)?)?,
        Some(etcd) => ControlPlane::open_shared(Box::new(Etcd::new(etcd)?), options(config)?)?,
    };
    if let Some(token) = plane.first_token() {
        let path = config.data_dir.join("token");
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("cannot make {}", config.data_dir.display()))?;
        write_secret(&path, &token)?;
        tracing::info!(path = %path.display(), "first start: the API token is in this file");
    }
    Ok(plane)
}

pub(super) fn options(config: &config::Edge) -> anyhow::Result<Options> {
    let router = &config.router;
    if let Some(both) = router
        .direct
        .iter()
        .find(|name| router.ethernet.contains(name))
    {
        anyhow::bail!(
            "[router] direct and ethernet both have {both}: it is a TUN device that is made, or a port \
             that is there"
        );
    }
    Ok(Options {
        data_dir: config.data_dir.clone(),
        key: key(config)?,
        requests_per_sec_max: config.api_requests_per_sec_max(),
        slice: config.slice(),
        edge_addresses: config.proxy.edge_addresses.clone(),
        name_servers: config.dns.name_servers()?,
        dns_listen: config.dns.listen.clone(),
        gre_addresses: config.router.gre.clone(),
        ipsec_addresses: config.router.ipsec.clone(),
        devices: config.router.direct.clone(),
        ports: config.router.ethernet.clone(),
        wireguard_endpoint: config.router.endpoint.clone(),
    })
}

/// The store that a configuration names.
pub(super) fn store(config: &config::Edge) -> anyhow::Result<Box<dyn Store>> {
    Ok(match etcd_config(config)? {
        None => Box::new(open_store(&options(config)?)?),
        Some(etcd) => Box::new(Etcd::open(etcd)?),
    })
}

/// Where the etcd is; `None` when there is none.
fn etcd_config(config: &config::Edge) -> anyhow::Result<Option<etcd::Config>> {
    let Some(address) = &config.store else {
        return Ok(None);
    };
    let mut etcd = etcd::parse(address).map_err(anyhow::Error::msg)?;
    let set = &config.etcd;
    etcd.ca.clone_from(&set.ca);
    etcd.txn_ops = set.max_txn_ops.unwrap_or(etcd.txn_ops);
    etcd.identity = match (&set.certificate, &set.key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => bail!("[etcd] needs certificate and key, or neither"),
    };
    etcd.user = match (&set.user, &set.password_file) {
        (Some(user), Some(path)) => {
            let password = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read password_file {}", path.display()))?;
            Some((user.clone(), password.trim().to_owned()))
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            bail!("[etcd] needs user and password_file, or neither")
        }
    };
    let secret = etcd.ca.is_some() || etcd.identity.is_some();
    if secret && !etcd.has_tls {
        bail!("[etcd] names certificates, and {address} speaks no TLS: write etcds://");
    }
    Ok(Some(etcd))
}

/// The server's key, where it is not the one in the data directory.
fn key(config: &config::Edge) -> anyhow::Result<Option<MasterKey>> {
    if let Ok(text) = std::env::var("PORTCULLIS_KEY") {
        return text.parse().map(Some).context("PORTCULLIS_KEY");
    }
    let Some(path) = &config.key_file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read key_file {}", path.display()))?;
    let key = text.parse();
    key.map(Some)
        .with_context(|| format!("key_file {}", path.display()))
}

fn follows_nobody(config: &config::Edge) -> anyhow::Result<()> {
    if config.control.is_empty() {
        return Ok(());
    }
    bail!("`control` is of edges: a control plane follows none, it shares a store with others")
}

pub(super) fn write_secret(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .with_context(|| format!("cannot write {}", path.display()))
}

/// Runs until a signal.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = args
        .config
        .as_ref()
        .context("say which configuration: --config FILE")?;
    let mut config: config::Edge = config::read(path)?;
    config.store = args.store.clone().or(config.store);
    if let Some(action) = &args.action {
        return match action {
            Action::Backup(action) => backup::run(action, &config),
            Action::Enrol(action) => enrol::run(action, &config),
            Action::Token(action) => new_token::run(action, &config),
            Action::Rekey(action) => rekey::run(action, &config),
        };
    }
    follows_nobody(&config)?;
    let plane = open(&config)?;
    let nodes = match config.nodes.listen.is_empty() {
        true => None,
        false => Some(plane.serve_nodes(&config.nodes.listen, config.nodes.terms()?)?),
    };
    let status: Arc<dyn NodeStatus> = match &nodes {
        Some(nodes) => Arc::new(nodes.fleet()),
        None => Arc::new(NoNode),
    };
    super::admin_runtime()?.block_on(async {
        let listener = listen(&config).await?;
        let certificate = certificate(&config)?;
        let api = plane.router(status);
        let admin = admin::backups(plane.clone()).merge(admin::enrolments(plane.clone()));
        let admin = admin.merge(admin::tokens(plane.clone()));
        admin::serve(&config.admin_socket(), admin)?;
        tracing::info!(api = %config.api_listen, tls = certificate.is_some(), "ready");
        let ended = tokio::select! {
            done = serve(listener, certificate, api) => done.context("the API ended"),
            signal = super::stop_signal() => signal,
            () = keep_uses(&plane) => Ok(()),
        };
        keep_uses_once(&plane).await;
        ended
    })
}

/// How often it is written down when tokens were last used: what a crash may forget.
const USES_KEPT_EVERY: Duration = Duration::from_secs(300);

/// Writes down when tokens were last used, from time to time, without an end.
pub(super) async fn keep_uses(plane: &ControlPlane) {
    loop {
        tokio::time::sleep(USES_KEPT_EVERY).await;
        keep_uses_once(plane).await;
    }
}

/// The same, once.
pub(super) async fn keep_uses_once(plane: &ControlPlane) {
    let plane = plane.clone();
    let kept = tokio::task::spawn_blocking(move || plane.keep_uses()).await;
    if let Ok(Err(why)) = kept {
        let error = &why as &dyn std::error::Error;
        tracing::warn!(error, "when tokens were last used is not written down");
    }
}

/// The API's certificate, if it has one. An API in clear that others can reach gives its tokens away.
pub(super) fn certificate(config: &config::Edge) -> anyhow::Result<Option<Certificate>> {
    match (&config.api_tls_certificate, &config.api_tls_key) {
        (Some(chain), Some(key)) => Certificate::read(chain, key).map(Some),
        (None, None) => {
            if !config.api_listen.ip().is_loopback() {
                let api = config.api_listen;
                tracing::warn!(%api, "the API is in clear and gives tokens away: set api_tls_certificate");
            }
            Ok(None)
        }
        (Some(_), None) | (None, Some(_)) => {
            bail!("api_tls_certificate and api_tls_key go together: give both, or neither")
        }
    }
}

/// Serves the API, which is told where each request comes from.
pub(super) async fn serve(
    listener: TcpListener,
    certificate: Option<Certificate>,
    api: axum::Router,
) -> std::io::Result<()> {
    let api = api.into_make_service_with_connect_info::<SocketAddr>();
    match certificate {
        None => axum::serve(listener, api).await,
        Some(certificate) => {
            let listener = TlsListener::start(listener, certificate)?;
            // Taps nothing: axum tells the address of such listeners, and of no others.
            axum::serve(listener.tap_io(|_| {}), api).await
        }
    }
}

/// Opens the API's socket.
pub(super) async fn listen(config: &config::Edge) -> anyhow::Result<TcpListener> {
    TcpListener::bind(config.api_listen).await.with_context(|| {
        format!(
            "cannot listen for the API on {}: another process, perhaps a second portcullis, holds it, \
             or the address is not this machine's",
            config.api_listen
        )
    })
}
