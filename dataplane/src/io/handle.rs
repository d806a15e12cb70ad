//! The face of a running router: told, looked at, and shut down from here.

use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crossbeam::channel::Sender;

use crate::id::Workers;
use crate::node::TunnelStatus;
use crate::program::{
    Applied, Delta, FibRow, Programmer, ReturnRow, SourceRow, Spec, Tables, TunnelChange,
};
use crate::tunnel;

use super::counters::CountersSnapshot;
use super::devices::Devices;
use super::endpoints::{Endpoint, Endpoints};
use super::line::{GONE, Line};
use super::routes::Installed;
use super::user::Opener;
use super::worker::Command;

/// A running router. Clones are the same router; it is shut down with the last of them.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

/// What the router was started with, and tunnels are made by.
#[derive(Debug)]
pub(super) struct Own {
    /// The devices that direct links have.
    pub(super) devices: Arc<Devices>,
    /// Addresses that have GRE.
    pub(super) gre: Vec<IpAddr>,
}

/// What has to be ended.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) workers: Vec<JoinHandle<()>>,
    pub(super) keepers: Vec<JoinHandle<()>>,
    /// Dropped to end the keeper of devices.
    pub(super) watch: Sender<()>,
    pub(super) kernel: Kernel,
}

/// What a router has of the kernel; nothing with userspace flows.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) installed: Option<Installed>,
    /// Bound to the abstract name that the one router of a network namespace holds.
    pub(super) lock: Option<UnixListener>,
}

impl Kernel {
    /// Gives it back, the name last.
    pub(super) fn take_down(self) {
        if let Some(Err(error)) = self.installed.map(Installed::remove) {
            tracing::warn!(%error, "not everything could be taken down");
        }
        drop(self.lock);
    }
}

#[derive(Debug)]
struct Inner {
    programmer: Arc<Mutex<Programmer>>,
    tables: Arc<Tables>,
    /// One to each worker, in order.
    lines: Vec<Line>,
    endpoints: Arc<Endpoints>,
    own: Own,
    opener: Option<Opener>,
    running: Mutex<Option<Running>>,
}

impl Handle {
    pub(super) fn new(
        (programmer, tables): (Arc<Mutex<Programmer>>, Arc<Tables>),
        lines: Vec<Line>,
        own: Own,
        endpoints: Arc<Endpoints>,
        opener: Option<Opener>,
        running: Running,
    ) -> Self {
        let inner = Inner {
            programmer,
            tables,
            lines,
            own,
            endpoints,
            opener,
            running: Mutex::new(Some(running)),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes the changes. Blocks until the workers have taken them, at most five seconds each for a
    /// tunnel.
    pub fn apply(&self, delta: &Delta) -> Applied {
        self.programmer()
            .apply(delta, &mut |change| self.inner.tell(change))
    }

    /// The revision applied last.
    pub fn spec_revision(&self) -> u64 {
        self.programmer().spec().revision
    }

    /// The delta from what the node is to what it shall be.
    pub fn diff(&self, wanted: &Spec) -> Delta {
        self.programmer().spec().diff(wanted)
    }

    /// What the node is; [`Spec::diff`] from here to the desired state is the next delta.
    pub fn spec(&self) -> Spec {
        self.programmer().spec().clone()
    }

    /// The tables that packets are looked up in.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.inner.tables
    }

    /// All routes.
    pub fn fib(&self) -> Vec<FibRow> {
        self.programmer().fib_rows()
    }

    /// The return table.
    pub fn returns(&self) -> Vec<ReturnRow> {
        self.programmer().return_rows()
    }

    /// The source addresses.
    pub fn sources(&self) -> Vec<SourceRow> {
        self.programmer().source_rows()
    }

    /// All tunnels, by number; without those of a worker that has stopped.
    pub fn tunnels(&self) -> Vec<TunnelStatus> {
        let of_worker = |line: &Line| line.ask(Command::Tunnels).unwrap_or_default();
        let mut all: Vec<_> = self.inner.lines.iter().flat_map(of_worker).collect();
        all.sort_by_key(|status| status.id);
        all
    }

    /// All counters; `None` when a worker has stopped.
    pub fn counters(&self) -> Option<CountersSnapshot> {
        let mut sum = CountersSnapshot::default();
        for line in &self.inner.lines {
            sum += line.ask(Command::Counters)?;
        }
        Some(sum)
    }

    /// What opens userspace flows; `None` when the kernel has the connections.
    pub fn opener(&self) -> Option<Opener> {
        self.inner.opener.clone()
    }

    /// How many workers there are.
    pub fn workers(&self) -> Workers {
        self.inner.tables.workers
    }

    /// Where the peers were heard last.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.inner.endpoints.all()
    }

    /// Whether all workers work. They stop by themselves when their TUN device is deleted.
    pub fn is_running(&self) -> bool {
        let running = self.inner.running();
        running
            .as_ref()
            .is_some_and(|running| !running.workers.iter().any(JoinHandle::is_finished))
    }

    /// Stops the workers, and removes the device, routes, rules and switches. Blocks until all is
    /// gone. A second call finds nothing to do.
    pub fn shutdown(&self) {
        self.inner.shutdown();
    }

    fn programmer(&self) -> MutexGuard<'_, Programmer> {
        self.inner
            .programmer
            .lock()
            .expect("a panic while programming leaves tables half written")
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running
            .lock()
            .expect("nobody panics while starting or stopping")
    }

    /// Tells every worker of one tunnel, its owner first, and that one where its peer was heard
    /// last. What one of them refuses, none of them has.
    fn tell(&self, change: TunnelChange) -> Result<(), String> {
        let id = change.id();
        let owner = match &change {
            TunnelChange::Put(_, put) => put.kind.owner(id, self.tables.workers),
            TunnelChange::Delete(_) => self.tables.workers.owner(id),
        };
        let owner = usize::from(owner.0);
        let hint = match &change {
            TunnelChange::Put(_, put) => match &put.kind {
                tunnel::Config::WireGuard(config) => {
                    let known = self.endpoints.put(id, config.peer);
                    known.filter(|_| config.endpoint.is_none())
                }
                tunnel::Config::Direct(config) => {
                    self.own.devices.attach(id, config, put)?;
                    None
                }
                tunnel::Config::IpSec(_) => None,
                tunnel::Config::Gre(config) => {
                    check_local("gre", config.local, &self.own.gre)?;
                    None
                }
            },
            TunnelChange::Delete(_) => {
                self.endpoints.delete(id);
                None
            }
        };
        let others = (0..self.lines.len()).filter(|line| *line != owner);
        for line in std::iter::once(owner).chain(others) {
            let done = self.lines[line].ask(|answer| Command::Apply(change.clone(), answer));
            if let Err(refused) = done.unwrap_or_else(|| Err(GONE.to_owned())) {
                if line != owner {
                    let delete = |answer| Command::Apply(TunnelChange::Delete(id), answer);
                    let _is_undone = self.lines[owner].ask(delete);
                }
                return Err(refused);
            }
        }
        if matches!(change, TunnelChange::Delete(_)) {
            self.own.devices.detach(id);
        }
        if let Some(endpoint) = hint {
            // Without it the peer calls in by itself.
            let _is_told: bool = self.lines[owner].tell(Command::Hint(id, endpoint));
        }
        Ok(())
    }

    fn shutdown(&self) {
        let Some(running) = self.running().take() else {
            return;
        };
        let Running {
            workers,
            keepers,
            watch,
            kernel,
        } = running;
        drop(watch);
        stop(&self.lines, workers);
        keepers.into_iter().for_each(join);
        kernel.take_down();
    }
}

/// A tunnel by raw IP is between addresses that the router listens on.
fn check_local(key: &str, local: IpAddr, listened: &[IpAddr]) -> Result<(), String> {
    if listened.contains(&local) {
        return Ok(());
    }
    Err(format!(
        "local is {local}, where this router does not listen: add it to {key} under [router], and \
         restart"
    ))
}

/// Stops workers, and waits until they have.
pub(super) fn stop(lines: &[Line], workers: Vec<JoinHandle<()>>) {
    for line in lines {
        // A worker that is gone needs not be told.
        let _is_told = line.tell(Command::Stop);
    }
    for worker in workers {
        join(worker);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the router panicked");
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}
