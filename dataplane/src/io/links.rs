//! The devices of a worker's direct links.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::id::TunnelId;
use crate::packet::Offload;

use super::appetite::Appetite;
use super::clock;
use super::counters::Counters;
use super::ether::Ether;
use super::port::as_count;
use super::tun::Tun;

/// The device of a direct link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) device: Device,
    pub(super) appetite: Appetite,
}

/// What packets of a link cross.
#[derive(Debug)]
pub(super) enum Device {
    /// A TUN device, whose other side is the network's.
    Tun(Box<Tun>),
    /// An Ethernet port or VLAN of this name, with the neighbour's address.
    Ether(String, Box<Ether>),
}

impl Device {
    /// Reads one packet or super-packet, as [`Tun::recv`].
    pub(super) fn recv(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        counters: &mut Counters,
    ) -> io::Result<(usize, Offload)> {
        match self {
            Self::Tun(tun) => tun.recv(buffer),
            Self::Ether(_, ether) => ether.recv(buffer, now, counters),
        }
    }

    /// Whether it is of use after epoll has reported an error of it. A TUN reports one when its
    /// namespace went, and took it along.
    pub(super) fn survives_error(&self) -> bool {
        match self {
            Self::Tun(_) => false,
            Self::Ether(name, ether) => {
                ether.note_error(name);
                true
            }
        }
    }

    fn send(
        &mut self,
        (packet, offload): (&[u8], Offload),
        counters: &mut Counters,
    ) -> io::Result<usize> {
        match self {
            Self::Tun(tun) => tun.send(packet, offload),
            Self::Ether(_, ether) => ether.send((packet, offload), clock::now(), counters),
        }
    }

    fn ether(&mut self) -> Option<&mut Ether> {
        match self {
            Self::Tun(_) => None,
            Self::Ether(_, ether) => Some(ether),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(tun) => tun.as_fd(),
            Self::Ether(_, ether) => ether.as_fd(),
        }
    }
}

/// The devices of all direct links of one worker, by tunnel.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<TunnelId, Link>);

impl Links {
    /// Takes a device in, in place of the tunnel's former one.
    pub(super) fn attach(
        &mut self,
        epoll: &Epoll,
        tunnel: TunnelId,
        device: Device,
    ) -> nix::Result<()> {
        self.detach(tunnel);
        epoll.add(&device, EpollEvent::new(EpollFlags::EPOLLIN, token(tunnel)))?;
        let appetite = Appetite::FIRST;
        self.0.insert(tunnel, Link { device, appetite });
        Ok(())
    }

    /// When [`Links::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = |link: &Link| match &link.device {
            Device::Tun(_) => None,
            Device::Ether(_, ether) => ether.poll_timeout(),
        };
        self.0.values().filter_map(due).min()
    }

    /// Asks for neighbours again, or gives them up.
    pub(super) fn handle_timeout(&mut self, now: Instant, counters: &mut Counters) {
        for link in self.0.values_mut() {
            if let Some(ether) = link.device.ether() {
                ether.handle_timeout(now, counters);
            }
        }
    }

    /// Hands on every packet that did not reach its neighbour.
    pub(super) fn each_refused(&mut self, mut each: impl FnMut(TunnelId, &[u8])) {
        for (tunnel, link) in &mut self.0 {
            let Some(ether) = link.device.ether() else {
                continue;
            };
            while let Some(packet) = ether.poll_refused() {
                each(*tunnel, &packet);
                ether.give_back(packet);
            }
        }
    }

    /// Lets a device go; epoll forgets it with its last descriptor.
    pub(super) fn detach(&mut self, tunnel: TunnelId) {
        self.0.remove(&tunnel);
    }

    /// Sends a packet by the device of a link.
    pub(super) fn send(
        &mut self,
        tunnel: TunnelId,
        (packet, offload): (&[u8], Offload),
        counters: &mut Counters,
    ) {
        let sent = match self.get(tunnel) {
            Some(link) => link.device.send((packet, offload), counters),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        match sent {
            Ok(writes) => {
                counters.tun_writes += as_count(writes);
                counters.tun_write_bytes += as_count(packet.len());
            }
            Err(_not_taken) => counters.tun_write_errors += 1,
        }
    }

    pub(super) fn get(&mut self, tunnel: TunnelId) -> Option<&mut Link> {
        self.0.get_mut(&tunnel)
    }
}

/// Tokens of direct links lie above all others.
const FIRST: u64 = 1 << 32;

fn token(tunnel: TunnelId) -> u64 {
    FIRST | u64::from(tunnel.0)
}

/// The tunnel that a token is of, if it is a direct link's.
pub(super) fn tunnel_of(token: u64) -> Option<TunnelId> {
    let number = u32::try_from(token & (FIRST - 1)).expect("masked to 32 bits");
    (token >= FIRST).then_some(TunnelId(number))
}
