//! The face of a running router: told, looked at, and shut down from here.

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;

use crate::node::TunnelStatus;
use crate::program::{
    Applied, Delta, FibRow, Programmer, ReturnRow, SourceRow, Spec, Tables, TunnelChange,
};
use crate::tunnel;

use super::counters::CountersSnapshot;
use super::endpoints::{Endpoint, Endpoints};
use super::routes::Installed;
use super::worker::Command;

/// How long an answer of the worker may take. A turn of it is milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Commands that may wait for a worker; who comes then waits for room.
pub(super) const COMMANDS_WAITING: usize = 256;

/// What a caller hears when there is no worker to do it.
const GONE: &str = "the packet worker has stopped: see its last log line, and restart portcullis";

/// A running router. Clones are the same router; it is shut down with the last of them.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

/// The line to a worker.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) commands: Sender<Command>,
    pub(super) wake: Arc<EventFd>,
}

/// What has to be ended.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) worker: JoinHandle<()>,
    pub(super) keeper: JoinHandle<()>,
    pub(super) installed: Installed,
    /// Bound to the abstract name that the one router of a network namespace holds.
    pub(super) lock: UnixListener,
}

#[derive(Debug)]
struct Inner {
    programmer: Mutex<Programmer>,
    tables: Arc<Tables>,
    line: Line,
    endpoints: Arc<Endpoints>,
    running: Mutex<Option<Running>>,
}

impl Handle {
    pub(super) fn new(
        programmer: Programmer,
        line: Line,
        endpoints: Arc<Endpoints>,
        running: Running,
    ) -> Self {
        let tables = Arc::clone(programmer.tables());
        let inner = Inner {
            programmer: Mutex::new(programmer),
            tables,
            line,
            endpoints,
            running: Mutex::new(Some(running)),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes the changes. Blocks until the worker has taken them, at most five seconds a tunnel.
    pub fn apply(&self, delta: &Delta) -> Applied {
        let Inner {
            line, endpoints, ..
        } = &*self.inner;
        self.programmer()
            .apply(delta, &mut |change| tell(line, endpoints, change))
    }

    /// The revision applied last.
    pub fn spec_revision(&self) -> u64 {
        self.programmer().spec().revision
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

    /// All tunnels; none when the worker has stopped.
    pub fn tunnels(&self) -> Vec<TunnelStatus> {
        self.inner.line.ask(Command::Tunnels).unwrap_or_default()
    }

    /// All counters; `None` when the worker has stopped.
    pub fn counters(&self) -> Option<CountersSnapshot> {
        self.inner.line.ask(Command::Counters)
    }

    /// Where the peers were heard last.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.inner.endpoints.all()
    }

    /// Whether the worker works. It stops by itself when its TUN device is deleted.
    pub fn is_running(&self) -> bool {
        let running = self.inner.running();
        running
            .as_ref()
            .is_some_and(|running| !running.worker.is_finished())
    }

    /// Stops the worker, and removes the device, routes, rules and switches. Blocks until all is
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

    fn shutdown(&self) {
        let Some(running) = self.running().take() else {
            return;
        };
        let Running {
            worker,
            keeper,
            installed,
            lock,
        } = running;
        // A worker that is gone needs not be told.
        let _is_told = self.line.tell(Command::Stop);
        for thread in [worker, keeper] {
            if thread.join().is_err() {
                tracing::error!("a thread of the router panicked");
            }
        }
        if let Err(error) = installed.remove() {
            tracing::warn!(%error, "not everything could be taken down");
        }
        drop(lock);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Line {
    pub(super) fn new() -> nix::Result<(Self, Receiver<Command>)> {
        use nix::sys::eventfd::EfdFlags;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (commands, receiver) = bounded(COMMANDS_WAITING);
        Ok((Self { commands, wake }, receiver))
    }

    /// False when nobody listens.
    fn tell(&self, command: Command) -> bool {
        let is_sent = self.commands.send_timeout(command, ANSWER_WITHIN).is_ok();
        // Only a counter at its maximum refuses, and then the worker is awake.
        is_sent && self.wake.write(1).is_ok()
    }

    /// `None` when nobody answers.
    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = bounded(1);
        if !self.tell(question(answer)) {
            return None;
        }
        answered.recv_timeout(ANSWER_WITHIN).ok()
    }
}

/// Tells the worker of one tunnel, and where its peer was heard last.
fn tell(line: &Line, endpoints: &Endpoints, change: TunnelChange) -> Result<(), String> {
    let hint = match &change {
        TunnelChange::Put(id, put) => {
            let tunnel::Config::WireGuard(config) = &put.kind;
            let known = endpoints.put(*id, config.peer);
            known
                .filter(|_| config.endpoint.is_none())
                .map(|known| (*id, known))
        }
        TunnelChange::Delete(id) => {
            endpoints.delete(*id);
            None
        }
    };
    let answer = line.ask(|answer| Command::Apply(change, answer));
    answer.unwrap_or_else(|| Err(GONE.to_owned()))?;
    if let Some((id, endpoint)) = hint {
        // Without it the peer calls in by itself.
        let _is_told: bool = line.tell(Command::Hint(id, endpoint));
    }
    Ok(())
}
