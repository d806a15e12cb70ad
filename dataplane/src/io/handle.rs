//! The face of a running router: told, looked at, and shut down from here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;

use crate::id::{TunnelId, Workers};
use crate::node::TunnelStatus;
use crate::program::{
    Applied, Delta, FibRow, Programmer, ReturnRow, SourceRow, Spec, Tables, Tunnel, TunnelChange,
    far_side,
};
use crate::tunnel;
use crate::tunnel::direct::{self, End, Medium};

use super::counters::CountersSnapshot;
use super::endpoints::{Endpoint, Endpoints};
use super::ether::{Ether, index_of};
use super::links::Device;
use super::routes::{self, Installed};
use super::tun::{Tun, TunBackend, TunConfig};
use super::user::Opener;
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

/// The line to one worker.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) commands: Sender<Command>,
    pub(super) wake: Arc<EventFd>,
}

/// What the router was started with, and tunnels are made by.
#[derive(Debug)]
pub(super) struct Own {
    /// How packets cross the devices of direct links: as they cross the TUN.
    pub(super) backend: TunBackend,
    /// Addresses that have GRE.
    pub(super) gre: Vec<IpAddr>,
}

/// What has to be ended.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) workers: Vec<JoinHandle<()>>,
    pub(super) keepers: Vec<JoinHandle<()>>,
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
    /// The devices that direct links have.
    links: Mutex<HashMap<TunnelId, Attached>>,
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
            links: Mutex::default(),
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

    /// Takes ports of direct links again that went and came back. To be called now and then.
    pub fn mend(&self) {
        self.inner.mend();
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

/// The device of a direct link, as it was made or taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attached {
    config: direct::Config,
    ends: Vec<End>,
    /// Of a port the least that it must have; that of a TUN is changed in place.
    mtu: u16,
    /// The number of a port.
    index: Option<u32>,
}

impl Attached {
    /// What a tunnel wants.
    fn of(config: &direct::Config, put: &Tunnel) -> Result<Self, String> {
        let config = config.clone();
        if config.medium == Medium::Tun {
            return Ok(Self {
                config,
                ends: Vec::new(),
                mtu: put.mtu,
                index: None,
            });
        }
        let ends = put.interface.iter().filter_map(|near| {
            let far = far_side(*near)?;
            let near = near.addr();
            Some(End { near, far })
        });
        let ends: Vec<End> = ends.collect();
        if ends.is_empty() {
            let device = &config.device;
            return Err(format!(
                "a link on the port {device} needs an interface address, in a /31 or /30: the other \
                 address of it is the neighbour's"
            ));
        }
        let index = Some(index_of(&config.device)?);
        Ok(Self {
            config,
            ends,
            mtu: put.mtu,
            index,
        })
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
                    self.attach(&self.lines[owner], id, config, put)?;
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
        if matches!(change, TunnelChange::Delete(_)) && self.links().remove(&id).is_some() {
            // A worker that is gone has no device any more.
            let _is_told: bool = self.lines[owner].tell(Command::Link(id, None));
        }
        if let Some(endpoint) = hint {
            // Without it the peer calls in by itself.
            let _is_told: bool = self.lines[owner].tell(Command::Hint(id, endpoint));
        }
        Ok(())
    }

    /// Makes or takes the device of a direct link and gives it to the tunnel's owner, unless that has it.
    fn attach(
        &self,
        owner: &Line,
        id: TunnelId,
        config: &direct::Config,
        put: &Tunnel,
    ) -> Result<(), String> {
        let wanted = Attached::of(config, put)?;
        let mut links = self.links();
        if let Some(known) = links.get(&id)
            && known.config == wanted.config
        {
            match config.medium {
                Medium::Tun => {
                    let raised = routes::raise(&config.device, put.mtu);
                    return raised.map_err(|error| error.to_string());
                }
                Medium::Ethernet { .. } if *known == wanted => return Ok(()),
                Medium::Ethernet { .. } => {}
            }
        }
        let device = self.open(&wanted)?;
        if !owner.tell(Command::Link(id, Some(device))) {
            return Err(GONE.to_owned());
        }
        links.insert(id, wanted);
        Ok(())
    }

    fn open(&self, wanted: &Attached) -> Result<Device, String> {
        let Attached {
            config, ends, mtu, ..
        } = wanted;
        if let Medium::Ethernet { vlan } = config.medium {
            let ether = Ether::open(&config.device, vlan, ends, *mtu)?;
            return Ok(Device::Ether(config.device.clone(), Box::new(ether)));
        }
        let tun = TunConfig {
            name: config.device.clone(),
            mtu: *mtu,
            backend: self.own.backend,
        };
        let mut tuns = Tun::open(&tun, Workers::ONE).map_err(|error| error.to_string())?;
        routes::raise(&config.device, *mtu).map_err(|error| error.to_string())?;
        let tun = tuns.pop().ok_or(GONE)?;
        Ok(Device::Tun(Box::new(tun)))
    }

    /// Takes ports of direct links again that were made anew since they were taken.
    fn mend(&self) {
        let mut links = self.links();
        for (id, attached) in links.iter_mut() {
            let Ok(index) = index_of(&attached.config.device) else {
                continue;
            };
            if attached.index.is_none_or(|known| known == index) {
                continue;
            }
            let wanted = Attached {
                index: Some(index),
                ..attached.clone()
            };
            let owner = usize::from(self.tables.workers.owner(*id).0);
            let device = match self.open(&wanted) {
                Ok(device) => device,
                Err(error) => {
                    tracing::warn!(tunnel = %id, error, "a direct link stays down");
                    continue;
                }
            };
            if self.lines[owner].tell(Command::Link(*id, Some(device))) {
                tracing::info!(tunnel = %id, device = wanted.config.device, "taken again");
                *attached = wanted;
            }
        }
    }

    fn links(&self) -> MutexGuard<'_, HashMap<TunnelId, Attached>> {
        self.links.lock().expect("nobody panics while it is held")
    }

    fn shutdown(&self) {
        let Some(running) = self.running().take() else {
            return;
        };
        let Running {
            workers,
            keepers,
            kernel,
        } = running;
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
