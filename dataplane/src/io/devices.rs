//! The devices of direct links: made or taken for their tunnels, and taken again when a port comes back.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::id::{TunnelId, Workers};
use crate::program::{Tunnel, far_side};
use crate::tunnel::direct::{self, End, Medium};

use super::ether::{Ether, index_of};
use super::line::{GONE, Line};
use super::links::Device;
use super::routes;
use super::tun::{Tun, TunBackend, TunConfig};
use super::worker::Command;

/// How often ports are looked for that went: one system call for each port that has links, and a lost one
/// is back within this time of its return.
const LOOK: Duration = Duration::from_millis(500);

/// The devices that direct links have. Cardinality: one per router.
#[derive(Debug)]
pub(super) struct Devices {
    workers: Workers,
    lines: Vec<Line>,
    /// How packets cross a TUN device: as they cross the router's own.
    backend: TunBackend,
    attached: Mutex<HashMap<TunnelId, Attached>>,
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

impl Devices {
    /// None yet.
    pub(super) fn new(workers: Workers, lines: Vec<Line>, backend: TunBackend) -> Self {
        Self {
            workers,
            lines,
            backend,
            attached: Mutex::default(),
        }
    }

    /// Makes or takes the device of a direct link and gives it to the tunnel's owner, unless that has it.
    ///
    /// # Errors
    /// A sentence: why it cannot be had.
    pub(super) fn attach(
        &self,
        id: TunnelId,
        config: &direct::Config,
        put: &Tunnel,
    ) -> Result<(), String> {
        let wanted = Attached::of(config, put)?;
        let mut attached = self.attached();
        if let Some(known) = attached.get(&id)
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
        if !self.owner(id).tell(Command::Link(id, Some(device))) {
            return Err(GONE.to_owned());
        }
        attached.insert(id, wanted);
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
            backend: self.backend,
        };
        let mut tuns = Tun::open(&tun, Workers::ONE).map_err(|error| error.to_string())?;
        routes::raise(&config.device, *mtu).map_err(|error| error.to_string())?;
        let tun = tuns.pop().ok_or(GONE)?;
        Ok(Device::Tun(Box::new(tun)))
    }

    /// Lets the device of a tunnel go, if it has one.
    pub(super) fn detach(&self, id: TunnelId) {
        if self.attached().remove(&id).is_some() {
            // A worker that is gone has no device any more.
            let _is_told: bool = self.owner(id).tell(Command::Link(id, None));
        }
    }

    /// Takes ports again that went and came back, until the other end of `stop` is gone.
    pub(super) fn keep(&self, stop: &Receiver<()>) {
        let mut told = HashMap::new();
        while stop.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            self.mend(&mut told);
        }
    }

    /// Takes ports of direct links again that were made anew since they were taken. What cannot be taken is
    /// said once, not twice a second.
    fn mend(&self, told: &mut HashMap<TunnelId, String>) {
        let mut attached = self.attached();
        let mut indexes = HashMap::new();
        for (id, link) in attached.iter_mut() {
            let Some(known) = link.index else { continue };
            let device = link.config.device.clone();
            let look = |device: &String| index_of(device).ok();
            let Some(index) = *indexes.entry(device).or_insert_with_key(look) else {
                continue;
            };
            if known == index {
                continue;
            }
            let wanted = Attached {
                index: Some(index),
                ..link.clone()
            };
            let device = match self.open(&wanted) {
                Ok(device) => device,
                Err(error) => {
                    if told.get(id) != Some(&error) {
                        tracing::warn!(tunnel = %id, error, "a direct link stays down");
                        told.insert(*id, error);
                    }
                    continue;
                }
            };
            if self.owner(*id).tell(Command::Link(*id, Some(device))) {
                tracing::info!(tunnel = %id, device = wanted.config.device, "taken again");
                told.remove(id);
                *link = wanted;
            }
        }
        told.retain(|id, _| attached.contains_key(id));
    }

    fn owner(&self, id: TunnelId) -> &Line {
        &self.lines[usize::from(self.workers.owner(id).0)]
    }

    fn attached(&self) -> MutexGuard<'_, HashMap<TunnelId, Attached>> {
        self.attached
            .lock()
            .expect("nobody panics while it is held")
    }
}
