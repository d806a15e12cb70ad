//! `portcullis control`: the API alone, over an edge's data directory while the edge is stopped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use controlplane::{ControlPlane, MasterKey, NoNode, Options};
use tokio::net::TcpListener;

use crate::api_tls::{Certificate, TlsListener};
use crate::config;

/// Arguments of `portcullis control`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration, the same TOML file that `portcullis edge` reads.
    #[arg(long, env = "PORTCULLIS_CONFIG")]
    config: PathBuf,
}

/// Opens the control plane that a configuration describes, and says the first token once.
pub(super) fn open(config: &config::Edge) -> anyhow::Result<ControlPlane> {
    let plane = ControlPlane::open(Options {
        data_dir: config.data_dir.clone(),
        key: key(config)?,
        requests_per_sec_max: config.api_requests_per_sec_max(),
        slice: config.slice,
        edge_addresses: config.proxy.edge_addresses.clone(),
        name_servers: config.dns.name_servers()?,
        dns_listen: config.dns.listen.clone(),
        wireguard_endpoint: config.router.endpoint.clone(),
    })?;
    if let Some(token) = plane.first_token() {
        let path = config.data_dir.join("token");
        write_secret(&path, &token)?;
        tracing::info!(path = %path.display(), "first start: the API token is in this file");
    }
    Ok(plane)
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

fn write_secret(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
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
    let config: config::Edge = config::read(&args.config)?;
    let plane = open(&config)?;
    super::admin_runtime()?.block_on(async {
        let listener = listen(&config).await?;
        let api = plane.router(Arc::new(NoNode));
        let certificate = certificate(&config)?;
        tracing::info!(api = %config.api_listen, tls = certificate.is_some(), "ready");
        tokio::select! {
            done = serve(listener, certificate, api) => done.context("the API ended"),
            signal = super::stop_signal() => signal,
        }
    })
}

/// The API's certificate, if it has one. An API in clear that others can reach gives its tokens away.
pub(super) fn certificate(config: &config::Edge) -> anyhow::Result<Option<Certificate>> {
    match (&config.api_tls_certificate, &config.api_tls_key) {
        (Some(chain), Some(key)) => Certificate::read(chain, key).map(Some),
        (None, None) => {
            if !config.api_listen.ip().is_loopback() {
                tracing::warn!(api = %config.api_listen, "the API is in clear: give it a certificate");
            }
            Ok(None)
        }
        (Some(_), None) | (None, Some(_)) => {
            anyhow::bail!("give both api_tls_certificate and api_tls_key, or none")
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
            // Taps nothing: axum gives the address of such listeners, and of no others.
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
