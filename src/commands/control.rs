//! `portcullis control`: the API alone, over an edge's data directory while the edge is stopped.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use controlplane::{ControlPlane, NoNode, Options};

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
        let server = axum::serve(listener, plane.router(Arc::new(NoNode)));
        tracing::info!(api = %config.api_listen, "ready");
        tokio::select! {
            done = server.into_future() => done.context("the API ended"),
            signal = super::stop_signal() => signal,
        }
    })
}

/// Opens the API's socket.
pub(super) async fn listen(config: &config::Edge) -> anyhow::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(config.api_listen).await.with_context(|| {
        format!(
            "cannot listen for the API on {}: another process, perhaps a second portcullis, holds it, \
             or the address is not this machine's",
            config.api_listen
        )
    })
}
