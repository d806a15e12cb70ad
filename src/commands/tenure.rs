//! From where an edge has its slice of the source range, and until when the slice is its own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use controlplane::model::{Timestamp, lease};
use controlplane::push::{Bundle, Follow, Following};
use controlplane::{ControlPlane, Holding, Progress};
use ipnet::Ipv4Net;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::control;
use crate::config;

/// How often an edge looks whether its slice is still its own: well below any quarantine.
const LEASE_CHECK: Duration = Duration::from_secs(1);

/// From where an edge has its slice.
pub(super) enum Tenure {
    /// Its configuration alone: nobody shares its store.
    Owned,
    /// A lease that it writes itself, into a store that it shares.
    Held(Holding),
    /// A lease of the control plane that it follows.
    Leased(Followed),
}

/// A copy of what a control plane elsewhere has, and the connection that keeps it so.
pub(super) struct Followed {
    pub(super) plane: ControlPlane,
    pub(super) following: Following,
    bundle: Bundle,
}

/// Takes the slice of an edge that is a control plane itself.
pub(super) fn hold(plane: &ControlPlane, config: &config::Edge) -> anyhow::Result<Tenure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.context("cannot read this machine's name")?;
    let holding = plane.hold(name.trim(), relay(config)?, config.nodes.terms()?, now())?;
    Ok(holding.map_or(Tenure::Owned, Tenure::Held))
}

/// Where others' packets come, if that is where others can reach it.
fn relay(config: &config::Edge) -> anyhow::Result<Option<SocketAddr>> {
    if let Some(relay) = config.router.relay {
        let checked = lease::check_relay(relay).map_err(anyhow::Error::msg);
        checked.context("[router] relay is not right")?;
    }
    Ok(config.router.relay)
}

impl Followed {
    pub(super) fn start(
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
        let relay = relay(config)?;
        let bundle = Bundle::read(identity)?;
        let plane = ControlPlane::open_replica(control::options(config)?)?;
        let following = plane.follow(Follow {
            control: config.control.clone(),
            bundle: bundle.clone(),
            progress,
            relay,
        })?;
        tracing::info!(control = ?config.control, revision = plane.snapshot().revision, "follows");
        Ok(Followed {
            plane,
            following,
            bundle,
        })
    }

    /// The slice that is this edge's now: what it had, else it waits for its control plane, or a signal.
    pub(super) async fn slice(&self) -> anyhow::Result<Ipv4Net> {
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

impl Tenure {
    /// Waits until the slice is not this edge's any more: somebody else's connections may then have its
    /// addresses. What the edge has to do for it itself is done meanwhile.
    pub(super) async fn ended(&self, slice: Ipv4Net) -> anyhow::Error {
        let mut said = String::new();
        loop {
            let lease = match self {
                Tenure::Owned => return std::future::pending().await,
                Tenure::Held(holding) => {
                    let failed = prolong(holding).await.err();
                    let why = failed.map_or_else(String::new, |why| format!("{why:#}"));
                    if !why.is_empty() && said != why {
                        tracing::warn!(why, "the slice was not prolonged");
                    }
                    said = why;
                    holding.lease()
                }
                Tenure::Leased(followed) => followed.plane.lease(&followed.bundle),
            };
            match lease {
                Some(lease) if lease.slice != slice => {
                    return anyhow::anyhow!(
                        "this edge's slice is {} now: start it again",
                        lease.slice
                    );
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
}

/// Prolongs it when it is time, off the thread that answers the API.
async fn prolong(holding: &Holding) -> anyhow::Result<()> {
    if !holding.is_due(now()) {
        return Ok(());
    }
    let holding = holding.clone();
    Ok(tokio::task::spawn_blocking(move || holding.prolong(now())).await??)
}

fn now() -> Timestamp {
    Timestamp::new(OffsetDateTime::now_utc())
}
