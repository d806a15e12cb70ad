//! Whose a datagram is: the tunnels of all workers, as far as datagrams can be told apart by them.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::id::{TunnelId, VnetId, WorkerId};
use crate::packet::{Carrier, Way};
use crate::wire::esp::{Datagram, Header, Spi};

use super::config::{Config, Keying};

/// The worker of peers that come from anywhere: see [`Config::owner`].
const ANYWHERE: WorkerId = WorkerId(0);

/// Where tunnels of this node belong. Cardinality: one per worker, with the same in it.
#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: HashMap<TunnelId, Entry>,
    /// Owners by the peer's address, and how many tunnels have it.
    remotes: HashMap<IpAddr, (WorkerId, usize)>,
    /// Owners by SPIs that operators chose: their first byte names nobody.
    spis: HashMap<u32, (WorkerId, TunnelId)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    vnet: VnetId,
    remote: Option<IpAddr>,
    spi: Option<Spi>,
}

impl Directory {
    /// The other tunnel that receives on this SPI.
    pub(super) fn rival(&self, tunnel: TunnelId, spi: Spi) -> Option<TunnelId> {
        let (_, other) = self.spis.get(&spi.0)?;
        (*other != tunnel).then_some(*other)
    }

    /// Notes a tunnel, in place of what it was.
    pub(super) fn enter(
        &mut self,
        (tunnel, vnet): (TunnelId, VnetId),
        config: &Config,
        owner: WorkerId,
    ) {
        self.leave(tunnel);
        let spi = match &config.keying {
            Keying::Static(keys) => Some(Spi(keys.spi_in)),
            Keying::Ike(_) => None,
        };
        let remote = config.remote;
        if let Some(remote) = remote {
            let (at, count) = self.remotes.entry(remote).or_insert((owner, 0));
            (*at, *count) = (owner, *count + 1);
        }
        if let Some(spi) = spi {
            self.spis.insert(spi.0, (owner, tunnel));
        }
        self.entries.insert(tunnel, Entry { vnet, remote, spi });
    }

    /// Forgets a tunnel.
    pub(super) fn leave(&mut self, tunnel: TunnelId) {
        let Some(entry) = self.entries.remove(&tunnel) else {
            return;
        };
        if let Some(remote) = entry.remote
            && let Some((_, count)) = self.remotes.get_mut(&remote)
        {
            *count -= 1;
            if *count == 0 {
                self.remotes.remove(&remote);
            }
        }
        if let Some(spi) = entry.spi {
            self.spis.remove(&spi.0);
        }
    }

    /// The only vnet that somebody at this address can mean: every tunnel whose peer may be there is in
    /// it. `None` when there are several, or none.
    pub(super) fn only_vnet(&self, remote: IpAddr) -> Option<VnetId> {
        let may_be_there = |entry: &&Entry| entry.remote.is_none_or(|known| known == remote);
        let mut vnets = self.entries.values().filter(may_be_there);
        let first = vnets.next()?.vnet;
        vnets.all(|entry| entry.vnet == first).then_some(first)
    }

    /// The worker that a datagram is for; `None` when it names nobody. The kernel steers by the same
    /// bytes, but for first requests and for SPIs that operators chose.
    pub(super) fn addressee(&self, way: Way, datagram: &[u8]) -> Option<WorkerId> {
        match way.carrier {
            Carrier::Ike => self.of_ike(way, datagram),
            Carrier::NatT => match Datagram::parse(datagram)? {
                Datagram::Keepalive => None,
                Datagram::Ike(message) => self.of_ike(way, message),
                Datagram::Esp(packet) => self.of_esp(packet),
            },
            Carrier::Esp => self.of_esp(datagram),
            Carrier::WireGuard | Carrier::Gre | Carrier::Echo | Carrier::Relay => None,
        }
    }

    fn of_esp(&self, packet: &[u8]) -> Option<WorkerId> {
        let spi = Header::parse(packet)?.spi;
        if !self.spis.is_empty()
            && let Some((owner, _)) = self.spis.get(&spi.0)
        {
            return Some(*owner);
        }
        super::sad::addressee(packet)
    }

    /// By our SPI. A first request has none: by where it comes from.
    fn of_ike(&self, way: Way, message: &[u8]) -> Option<WorkerId> {
        let (header, ..) = crate::wire::ikev2::Header::parse(message).ok()?;
        let ours = if header.is_initiator {
            header.responder_spi
        } else {
            header.initiator_spi
        };
        if ours != 0 {
            return Some(WorkerId(ours.to_be_bytes()[0]));
        }
        let owner = self.remotes.get(&way.remote.ip());
        Some(owner.map_or(ANYWHERE, |(owner, _)| *owner))
    }
}
