//! A tunnel as its device keeps it: its children, and which of them packets go out by.

use std::net::SocketAddr;
use std::time::Instant;

use crate::id::{TunnelId, VnetId};
use crate::packet::{Carrier, Way};
use crate::wire::esp::Spi;

use super::config::Config;
use super::ike::{self, Path};
use super::outgoing::{Child, Traffic};
use super::sa::Outbound;

/// A tunnel.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) id: TunnelId,
    pub(super) vnet: VnetId,
    pub(super) config: Config,
    /// Those that packets go out by first, the newest of them first.
    pub(super) children: Vec<Child>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) up_at: Option<Instant>,
    pub(super) heard_at: Option<Instant>,
    pub(super) rekeys: u64,
    pub(super) failure: Option<String>,
}

impl Tunnel {
    /// A child came up, which may be the one to send by.
    pub(super) fn child_up(&mut self, up: ike::ChildUp, now: Instant) {
        let Some(outbound) = Outbound::new(&up.outbound, up.lifetime, now) else {
            return;
        };
        let Path { local, remote } = up.path;
        let way = if up.is_in_udp {
            Way::udp(Carrier::NatT, local.ip(), remote)
        } else {
            Way::raw(Carrier::Esp, local.ip(), remote.ip())
        };
        self.children.push(Child {
            spi_in: up.spi_in,
            outbound: Some(outbound),
            sends: false,
            is_due: false,
            way,
            traffic: Traffic {
                local: up.local_ts,
                remote: up.remote_ts,
            },
        });
        self.failure = None;
        if up.sends {
            self.send_by(up.spi_in);
        }
    }

    /// A child comes first from here on.
    pub(super) fn send_by(&mut self, spi_in: Spi) {
        let Some(at) = self
            .children
            .iter()
            .position(|child| child.spi_in == spi_in)
        else {
            return;
        };
        let mut child = self.children.remove(at);
        let is_successor = self
            .children
            .iter()
            .any(|other| other.sends && other.traffic == child.traffic);
        self.rekeys += u64::from(is_successor && !child.sends);
        child.sends = true;
        self.children.insert(0, child);
    }

    /// What fits into `room` bytes of ESP, if a child sent what begins with `packet` to `to` lately.
    pub(super) fn fits(&self, to: SocketAddr, packet: &[u8], room: u16) -> Option<u16> {
        let senders = self.children.iter().filter(|child| child.way.remote == to);
        let mut senders = senders.filter_map(|child| child.outbound.as_ref());
        senders
            .find(|outbound| outbound.has_sealed(packet))?
            .fits(room)
    }

    /// A child is gone.
    pub(super) fn child_down(&mut self, spi_in: Spi) {
        let mut children = self.children.iter_mut();
        if let Some(child) = children.find(|child| child.spi_in == spi_in) {
            // Late packets still come in by it.
            (child.outbound, child.sends) = (None, false);
        }
    }
}
