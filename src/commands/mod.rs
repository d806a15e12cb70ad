//! One file per subcommand: read the configuration, start the rooms, wait, stop them in order.

mod objects;

mod apply;
mod audit;
mod new_token;
mod rekey;
mod token;
pub(crate) mod backup;
pub(crate) mod control;
pub(crate) mod ctl;
pub(crate) mod edge;
pub(crate) mod enrol;
pub(crate) mod show;
pub(crate) mod site;
mod tenure;

use std::time::Duration;

use anyhow::Context as _;
use dataplane::io::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// The runtime of the API, the admin socket and the wait for signals: one thread is enough, and
/// nothing of the proxy runs on it.
fn admin_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the admin runtime")
}

/// Waits for SIGTERM or SIGINT.
async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
    }
    Ok(())
}

/// Waits until the packet side has stopped by itself, as it does when its TUN device is deleted.
async fn router_failed(handle: &Handle) -> anyhow::Error {
    while handle.is_running() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    anyhow::anyhow!("the router stopped: its TUN device is gone; the log says more")
}
