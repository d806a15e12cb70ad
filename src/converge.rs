//! Keeps the router at its desired state: a delta on every change, a full comparison on a timer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use controlplane::{ControlPlane, NodeStatus};
use dataplane::id::VnetId;
use dataplane::io::Handle;
use dataplane::node::TunnelStatus;
use dataplane::program::Key;
use tokio::sync::watch;

/// How often what was refused is tried again although nothing changed.
const RESYNC: Duration = Duration::from_secs(30);

/// What the router has taken, for those who ask.
#[derive(Debug, Default)]
struct Applied {
    revision: AtomicU64,
    rejected: Mutex<Vec<(Key, String)>>,
}

/// The program thread.
#[derive(Debug)]
pub(crate) struct Converge {
    applied: Arc<Applied>,
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Converge {
    /// Brings the router to the newest revision before it returns, then follows in its own thread.
    pub(crate) fn start(plane: &ControlPlane, handle: &Handle) -> anyhow::Result<Converge> {
        let applied = Arc::new(Applied::default());
        let mut revisions = plane.revision();
        revisions.mark_unchanged();
        step(plane, handle, &applied);
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .context("cannot start the program thread's timer")?;
        let (plane, handle, seen) = (plane.clone(), handle.clone(), Arc::clone(&applied));
        let follow = async move {
            loop {
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    _ = stopped.changed() => return,
                    () = tokio::time::sleep(RESYNC) => {}
                }
                step(&plane, &handle, &seen);
            }
        };
        let thread = std::thread::Builder::new()
            .name("program".into())
            .spawn(move || runtime.block_on(follow))
            .context("cannot start the program thread")?;
        Ok(Converge {
            applied,
            stop,
            thread,
        })
    }

    /// What the API shows of this node.
    pub(crate) fn status(&self, handle: &Handle) -> Status {
        Status {
            applied: Arc::clone(&self.applied),
            handle: handle.clone(),
        }
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the program thread panicked");
        }
    }
}

/// Applies the difference between what the router has and what is wanted. What it refused before is
/// part of the difference, and so tried again.
fn step(plane: &ControlPlane, handle: &Handle, applied: &Applied) {
    let wanted = plane.spec();
    let result = handle.apply(&handle.spec().diff(&wanted));
    for (key, reason) in &result.rejected {
        tracing::warn!(
            ?key,
            reason,
            revision = wanted.revision,
            "an object was refused"
        );
    }
    *applied
        .rejected
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = result.rejected;
    applied.revision.store(wanted.revision, Ordering::Release);
}

/// The router as the API shows it.
#[derive(Debug)]
pub(crate) struct Status {
    applied: Arc<Applied>,
    handle: Handle,
}

impl NodeStatus for Status {
    fn tunnels(&self) -> Vec<TunnelStatus> {
        self.handle.tunnels()
    }

    fn rejected(&self) -> Vec<(Key, String)> {
        self.applied
            .rejected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn sources(&self) -> Vec<(VnetId, IpAddr)> {
        let rows = self.handle.sources().into_iter();
        rows.flat_map(|row| [(row.vnet, row.ipv4.into()), (row.vnet, row.ipv6.into())])
            .collect()
    }

    fn applied_revision(&self) -> u64 {
        self.applied.revision.load(Ordering::Acquire)
    }
}
