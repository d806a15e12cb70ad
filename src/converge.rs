//! Keeps the router at its desired state: a delta on every change, a full comparison on a timer.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use controlplane::model::Timestamp;
use controlplane::store::Snapshot;
use controlplane::{ControlPlane, NodeStatus, Progress, program};
use dataplane::id::VnetId;
use dataplane::io::Handle;
use dataplane::node::TunnelStatus;
use dataplane::program::Key;
use ipnet::Ipv4Net;
use time::OffsetDateTime;
use tokio::sync::watch;

/// How often the router is compared with the whole desired state.
const RESYNC: Duration = Duration::from_secs(30);

/// What the router has taken, for those who ask.
type Applied = watch::Sender<Progress>;

fn note(applied: &Applied, revision: u64, rejected: Vec<(Key, String)>) {
    for (key, reason) in &rejected {
        tracing::warn!(?key, reason, revision, "an object was refused");
    }
    applied.send_replace(Progress { revision, rejected });
}

/// The program thread.
#[derive(Debug)]
pub(crate) struct Converge {
    applied: Applied,
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Converge {
    /// Brings the router to the newest revision before it returns, then follows in its own thread.
    /// `slice` is the node's own; `applied` is told of each revision that is in the tables.
    pub(crate) fn start(
        plane: &ControlPlane,
        handle: &Handle,
        slice: Ipv4Net,
        applied: Applied,
    ) -> anyhow::Result<Converge> {
        let mut revisions = plane.revision();
        revisions.mark_unchanged();
        let mut known = plane.snapshot();
        compare(&known, slice, handle, &applied);
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .context("cannot start the program thread's timer")?;
        let (plane, handle, seen) = (plane.clone(), handle.clone(), applied.clone());
        let follow = async move {
            let mut resync = tokio::time::interval(RESYNC);
            resync.tick().await;
            loop {
                let is_due = tokio::select! {
                    changed = revisions.changed() => match changed {
                        Ok(()) => false,
                        Err(_) => return,
                    },
                    _ = stopped.changed() => return,
                    _ = resync.tick() => true,
                };
                let newest = plane.snapshot();
                match is_due {
                    true => compare(&newest, slice, &handle, &seen),
                    false => step((&known, &newest), slice, &handle, &seen),
                }
                known = newest;
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
            applied: self.applied.clone(),
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

/// Brings the router from one snapshot to the next. What it refused before is tried again.
fn step(
    (known, newest): (&Snapshot, &Snapshot),
    slice: Ipv4Net,
    handle: &Handle,
    applied: &Applied,
) {
    let refused = applied.borrow().rejected.clone();
    let again = refused.iter().map(|(key, _)| *key);
    let result = handle.apply(&program::delta(known, newest, here(slice), again));
    note(applied, newest.revision, result.rejected);
}

/// Applies the difference between what the router has and what is wanted, of which what it refused
/// before is part, and what ended by time.
fn compare(wanted: &Snapshot, slice: Ipv4Net, handle: &Handle, applied: &Applied) {
    let result = handle.apply(&handle.diff(&program::spec(wanted, here(slice))));
    note(applied, wanted.revision, result.rejected);
}

fn here(slice: Ipv4Net) -> program::Here {
    program::Here {
        slice,
        now: Timestamp::new(OffsetDateTime::now_utc()),
    }
}

/// The router as the API shows it.
#[derive(Debug)]
pub(crate) struct Status {
    applied: Applied,
    handle: Handle,
}

impl NodeStatus for Status {
    fn tunnels(&self) -> Vec<TunnelStatus> {
        self.handle.tunnels()
    }

    fn rejected(&self) -> Vec<(Key, String)> {
        self.applied.borrow().rejected.clone()
    }

    fn sources(&self) -> Vec<(VnetId, IpAddr)> {
        let rows = self.handle.sources().into_iter();
        rows.flat_map(|row| [(row.vnet, row.ipv4.into()), (row.vnet, row.ipv6.into())])
            .collect()
    }

    fn applied_revision(&self) -> u64 {
        self.applied.borrow().revision
    }
}
