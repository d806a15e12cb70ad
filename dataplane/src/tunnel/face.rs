//! The one face: dispatches to the device that owns a tunnel's kind.

use std::net::SocketAddr;
use std::time::Instant;

use crate::id::{TunnelId, VnetId, WorkerId};
use crate::packet::{Carrier, Exit, Outbox, Parcel, Way};
use crate::wire::icmp::TooBig;
use crate::wire::ip;

use super::{Config, Decap, Event, Refusal, Status, gre, ipsec, wireguard};

/// Every tunnel of one worker.
#[derive(Debug)]
pub struct Tunnels {
    wireguard: wireguard::Device,
    ipsec: ipsec::Device,
    gre: gre::Device,
}

/// Why a tunnel cannot be made as configured.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// A WireGuard peer.
    #[error(transparent)]
    WireGuard(#[from] wireguard::PutError),
    /// An IPsec tunnel.
    #[error(transparent)]
    IpSec(#[from] ipsec::PutError),
    /// A GRE tunnel.
    #[error(transparent)]
    Gre(#[from] gre::PutError),
}

/// A tunnel as its device knows it: found once when it is put, good until it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    /// A peer of the WireGuard device.
    WireGuard(wireguard::Slot),
    /// A direct link: the tunnel's number is its device's.
    Direct(TunnelId),
    /// A tunnel of the IPsec device.
    IpSec(ipsec::Slot),
    /// A tunnel of the GRE device.
    Gre(gre::Slot),
}

impl Tunnels {
    /// No tunnels.
    #[must_use]
    pub fn new(worker: WorkerId, now: Instant) -> Self {
        Self {
            wireguard: wireguard::Device::new(worker, now),
            ipsec: ipsec::Device::new(worker, Box::new(system_random), now),
            gre: gre::Device::default(),
        }
    }

    /// Makes or changes a tunnel. What did not change is kept, sessions included.
    ///
    /// # Errors
    /// [`PutError`], and nothing has changed.
    pub fn put(
        &mut self,
        (tunnel, vnet): (TunnelId, VnetId),
        config: &Config,
        mtu: u16,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Handle, PutError> {
        Ok(match config {
            Config::WireGuard(config) => {
                Handle::WireGuard(self.wireguard.put(tunnel, config, mtu, now, out)?)
            }
            Config::Direct(_) => Handle::Direct(tunnel),
            Config::IpSec(config) => {
                Handle::IpSec(self.ipsec.put((tunnel, vnet), config, now, out)?)
            }
            Config::Gre(config) => Handle::Gre(self.gre.put(tunnel, config, now)?),
        })
    }

    /// Notes a tunnel of another worker, for messages that only this note can tell apart.
    ///
    /// # Errors
    /// [`PutError`], and nothing has changed.
    pub fn put_elsewhere(
        &mut self,
        (tunnel, vnet): (TunnelId, VnetId),
        config: &Config,
        owner: WorkerId,
    ) -> Result<(), PutError> {
        match config {
            Config::WireGuard(config) => self.wireguard.put_elsewhere(tunnel, config)?,
            Config::Direct(_) => {}
            Config::IpSec(config) => {
                self.ipsec.put_elsewhere((tunnel, vnet), config, owner)?;
            }
            Config::Gre(config) => self.gre.put_elsewhere(tunnel, config)?,
        }
        Ok(())
    }

    /// Forgets a tunnel of another worker.
    pub fn delete_elsewhere(&mut self, tunnel: TunnelId) {
        self.wireguard.delete_elsewhere(tunnel);
        self.ipsec.delete_elsewhere(tunnel);
        self.gre.delete_elsewhere(tunnel);
    }

    /// Deletes a tunnel with its sessions and whatever waits in it.
    pub fn delete(&mut self, handle: Handle, now: Instant, out: &mut Outbox) {
        match handle {
            Handle::WireGuard(slot) => self.wireguard.delete(slot),
            Handle::Direct(_) => {}
            Handle::IpSec(slot) => self.ipsec.delete(slot, now, out),
            Handle::Gre(slot) => self.gre.delete(slot),
        }
    }

    /// Says where the peer was before a restart. Ignored when the tunnel knows better.
    pub fn hint_endpoint(
        &mut self,
        handle: Handle,
        endpoint: SocketAddr,
        now: Instant,
        out: &mut Outbox,
    ) {
        match handle {
            Handle::WireGuard(slot) => self.wireguard.hint_endpoint(slot, endpoint, now, out),
            Handle::Direct(_) | Handle::IpSec(_) | Handle::Gre(_) => {}
        }
    }

    /// Encapsulates the first `len` bytes of `buffer`; the bytes behind are free for padding.
    /// Without a session the packet waits, and a handshake begins.
    ///
    /// # Errors
    /// [`Refusal`] when the packet was dropped.
    pub fn encap(
        &mut self,
        handle: Handle,
        buffer: &mut [u8],
        len: usize,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        match handle {
            Handle::WireGuard(slot) => self.wireguard.encap(slot, buffer, len, now, out),
            Handle::Direct(tunnel) => {
                let is_queued = out.deliver(Exit::Link(tunnel), &buffer[..len]);
                is_queued.then_some(()).ok_or(Refusal::OutboxFull)
            }
            Handle::IpSec(slot) => self.ipsec.encap(slot, &buffer[..len], now, out),
            Handle::Gre(slot) => self.gre.encap(slot, &buffer[..len], out),
        }
    }

    /// The worker that a datagram names; `None` when any of them can tell.
    #[must_use]
    pub fn addressee(&self, way: Way, datagram: &[u8]) -> Option<WorkerId> {
        match way.carrier {
            Carrier::WireGuard => wireguard::addressee(datagram),
            Carrier::Ike | Carrier::NatT | Carrier::Esp => self.ipsec.addressee(way, datagram),
            Carrier::Gre | Carrier::Relay => None,
            // The identifier of a probe begins with its worker.
            Carrier::Echo => datagram.get(4).map(|worker| WorkerId(*worker)),
        }
    }

    /// Decapsulates `datagram`, which may be overwritten, into `buffer` ([`super::DATAGRAM_LEN_MAX`]
    /// bytes).
    ///
    /// # Errors
    /// [`Refusal`] when the datagram was dropped.
    pub fn decap(
        &mut self,
        way: Way,
        datagram: &mut [u8],
        buffer: &mut [u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Decap, Refusal> {
        match way.carrier {
            Carrier::WireGuard => self.wireguard.decap(way.remote, datagram, buffer, now, out),
            Carrier::Ike | Carrier::NatT | Carrier::Esp => {
                self.ipsec.decap(way, datagram, buffer, now, out)
            }
            Carrier::Gre => {
                let local = way.local.ok_or(Refusal::NameUnknown)?;
                let addresses = (local, way.remote.ip());
                self.gre.decap(addresses, datagram, buffer, now, out)
            }
            // It is about a tunnel, or came out of another node's, and is in none.
            Carrier::Echo | Carrier::Relay => Err(Refusal::Malformed),
        }
    }

    /// Takes a datagram that another worker found to be a handshake initiation for this tunnel.
    ///
    /// # Errors
    /// [`Refusal`] when the datagram was dropped.
    pub fn initiation(
        &mut self,
        handle: Handle,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
        out: &mut Outbox,
    ) -> Result<Decap, Refusal> {
        match handle {
            Handle::WireGuard(slot) => self.wireguard.initiation(slot, from, datagram, buffer, out),
            Handle::Direct(_) | Handle::IpSec(_) | Handle::Gre(_) => Err(Refusal::UnknownPeer),
        }
    }

    /// Takes what another worker passed on of a conversation that began there ([`Parcel::Ike`],
    /// [`Parcel::IkeSa`]).
    ///
    /// # Errors
    /// [`Refusal`] when it was dropped.
    pub fn passed(
        &mut self,
        parcel: Parcel,
        bytes: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        match parcel {
            Parcel::Ike(way) => self.ipsec.message(way, bytes, now, out).map(|_| ()),
            Parcel::IkeSa(way) => self.ipsec.take_over(way, bytes, now, out),
            Parcel::Underlay(_)
            | Parcel::Initiation(..)
            | Parcel::Deliver
            | Parcel::Encap(..)
            | Parcel::PathMtu(..) => Err(Refusal::Malformed),
        }
    }

    /// The tunnel that sent the datagram that a router reports, if one of ours did lately, and the longest
    /// inner packet that fits what the router says.
    #[must_use]
    pub fn fits(&self, report: &TooBig<'_>) -> Option<(TunnelId, u16)> {
        let outer_len = if report.local.is_ipv4() { 20 } else { 40 };
        let room = report.mtu.checked_sub(outer_len)?;
        match report.protocol {
            ip::GRE => self.gre.fits(report, room),
            ip::ESP => self
                .ipsec
                .fits(SocketAddr::new(report.remote, 0), report.payload, room),
            ip::UDP => {
                let (ports, payload) = report.payload.split_at_checked(8)?;
                let room = room.checked_sub(8)?;
                let port = u16::from_be_bytes([ports[2], ports[3]]);
                let to = SocketAddr::new(report.remote, port);
                let found = self.wireguard.fits(to, payload, room);
                found.or_else(|| self.ipsec.fits(to, payload, room))
            }
            _ => None,
        }
    }

    /// When [`Tunnels::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let all = [
            self.wireguard.poll_timeout(),
            self.ipsec.poll_timeout(),
            self.gre.poll_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    /// Retries, rekeys, keepalives, expiry. `given_up` hears how many packets of a tunnel waited for
    /// a session in vain.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut Outbox,
        given_up: &mut dyn FnMut(TunnelId, u64),
    ) {
        self.wireguard.handle_timeout(now, out, given_up);
        self.ipsec.handle_timeout(now, out);
        self.gre.handle_timeout(now, out);
    }

    /// The next event; at most one of a kind waits per tunnel.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.wireguard.poll_event()
    }

    /// The next IKE failure for the node's log.
    pub fn poll_failure(&mut self) -> Option<ipsec::Failed> {
        self.ipsec.poll_failure()
    }

    /// What the tunnel shows of itself.
    #[must_use]
    pub fn status(&self, handle: Handle, now: Instant) -> Status {
        match handle {
            Handle::WireGuard(slot) => self.wireguard.status(slot, now),
            Handle::Direct(_) => Status {
                is_up: true,
                ..Status::default()
            },
            Handle::IpSec(slot) => self.ipsec.status(slot, now).0,
            Handle::Gre(slot) => self.gre.status(slot),
        }
    }

    /// What an IPsec tunnel shows besides.
    #[must_use]
    pub fn ipsec_status(&self, handle: Handle, now: Instant) -> Option<ipsec::Status> {
        match handle {
            Handle::IpSec(slot) => Some(self.ipsec.status(slot, now).1),
            Handle::WireGuard(_) | Handle::Direct(_) | Handle::Gre(_) => None,
        }
    }
}

/// Randomness of the system.
///
/// # Panics
/// When the system has none: no key could be made.
fn system_random(bytes: &mut [u8]) {
    let random = ring::rand::SystemRandom::new();
    let filled = ring::rand::SecureRandom::fill(&random, bytes);
    assert!(filled.is_ok(), "the system gives randomness");
}
