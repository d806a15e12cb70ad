//! The node: its face towards the driver, and what it owns.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crate::fib::Guard;
use crate::id::{NodeId, TunnelId, VnetId, WorkerId};
use crate::packet::{Offload, Outbox, Transmit};
use crate::program::{self, Tables, TunnelChange};
use crate::source::Slice;
use crate::tunnel::bucket::Bucket;
use crate::tunnel::{DATAGRAM_LEN_MAX, Event, Handle, Tunnels};

use super::{Counters, DropReason, TunnelStatus, icmp};

/// Inner packets a tunnel may be configured for: every IPv4 host takes 576 bytes (RFC 791), and
/// [`DATAGRAM_LEN_MAX`] holds 9000 with any encapsulation.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 576..=9000;

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its part of the source range; `None` on a site.
    pub slice: Option<Slice>,
    /// Its number.
    pub node: NodeId,
    /// The worker that owns it.
    pub worker: WorkerId,
    /// Which end of tunnels it is.
    pub role: Role,
}

/// Which end of tunnels a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The edge: many vnets, told apart by source address.
    Edge,
    /// A private network: one vnet.
    Site {
        /// Its vnet.
        vnet: VnetId,
        /// Where its ICMP errors come from; none are sent in the other family.
        address: IpAddr,
    },
}

/// A router: give it packets, datagrams and the time, and after each batch take everything from
/// `poll_transmit`, then `poll_event`, then wait no longer than `poll_timeout`.
#[derive(Debug)]
pub struct Node {
    pub(super) config: NodeConfig,
    pub(super) tables: Arc<Tables>,
    pub(super) tunnels: Tunnels,
    pub(super) links: HashMap<TunnelId, Link>,
    pub(super) outbox: Outbox,
    pub(super) counters: Counters,
    pub(super) overlay_errors: Bucket,
    /// One packet between splitter and tunnel, or between tunnel and overlay.
    scratch: Box<[u8]>,
}

/// A tunnel as the node knows it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) handle: Handle,
    pub(super) vnet: VnetId,
    pub(super) mtu: u16,
    pub(super) errors: Bucket,
    pub(super) tx: Count,
    pub(super) rx: Count,
    pub(super) dropped_packets: u64,
    /// Of `Status::given_up_packets`, how many are in the counters.
    given_up_seen: u64,
    name: String,
    kind: &'static str,
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    packets: u64,
    bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += icmp::widen(len);
    }
}

impl Node {
    /// A node without tunnels. All memory that packets need is allocated here.
    #[must_use]
    pub fn new(config: NodeConfig, tables: Arc<Tables>, now: Instant) -> Self {
        Self {
            tunnels: Tunnels::new(config.worker, now),
            config,
            tables,
            links: HashMap::new(),
            outbox: Outbox::new(),
            counters: Counters::default(),
            overlay_errors: Bucket::default(),
            scratch: vec![0; DATAGRAM_LEN_MAX].into_boxed_slice(),
        }
    }

    /// Makes, changes or deletes a tunnel. One that moves to another vnet or other keys loses its
    /// sessions and what waits in it; any other change keeps them.
    ///
    /// # Errors
    /// A sentence for the operator, and nothing has changed.
    pub fn apply(&mut self, change: TunnelChange, now: Instant) -> Result<(), String> {
        match change {
            TunnelChange::Put(id, tunnel) => self.put(id, tunnel, now),
            TunnelChange::Delete(id) => {
                if let Some(link) = self.links.remove(&id) {
                    self.tunnels.delete(link.handle);
                }
                Ok(())
            }
        }
    }

    /// Says where a tunnel's peer was heard last, before a restart. Without a configured endpoint
    /// and before the peer is heard again, the handshake begins there.
    pub fn hint_endpoint(&mut self, id: TunnelId, endpoint: SocketAddr, now: Instant) {
        if let Some(link) = self.links.get(&id) {
            self.tunnels
                .hint_endpoint(link.handle, endpoint, now, &mut self.outbox);
        }
    }

    /// Takes a packet that the overlay wants sent. It is overwritten.
    pub fn handle_overlay(&mut self, packet: &mut [u8], offload: Offload, now: Instant) {
        self.counters.overlay_rx += 1;
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Err(reason) = self.egress(packet, offload, &mut scratch, now) {
            self.counters.count_drops(reason, 1);
        }
        self.scratch = scratch;
    }

    /// Takes a datagram from the underlay.
    pub fn handle_underlay(&mut self, from: SocketAddr, datagram: &mut [u8], now: Instant) {
        self.counters.underlay_rx += 1;
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Err(reason) = self.ingress(from, datagram, &mut scratch, now) {
            self.counters.count_drops(reason, 1);
        }
        self.scratch = scratch;
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tunnels.handle_timeout(now, &mut self.outbox);
        for link in self.links.values_mut() {
            let given_up = self.tunnels.status(link.handle, now).given_up_packets;
            let new = given_up.saturating_sub(link.given_up_seen);
            link.given_up_seen = given_up;
            link.dropped_packets += new;
            self.counters.count_drops(DropReason::SessionGivenUp, new);
        }
    }

    /// When [`Node::handle_timeout`] wants to be called; `None` when nothing is ever due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tunnels.poll_timeout()
    }

    /// The next thing to send. Call it at the end of a batch, until it gives `None`.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.outbox.poll_transmit()
    }

    /// The next event, or `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.tunnels.poll_event()
    }

    /// What has been counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All tunnels as they are, by number.
    #[must_use]
    pub fn tunnels(&self, now: Instant) -> Vec<TunnelStatus> {
        let mut all: Vec<_> = self
            .links
            .iter()
            .map(|(id, link)| self.status(*id, link, now))
            .collect();
        all.sort_by_key(|status| status.id);
        all
    }

    fn status(&self, id: TunnelId, link: &Link, now: Instant) -> TunnelStatus {
        let status = self.tunnels.status(link.handle, now);
        TunnelStatus {
            id,
            vnet: link.vnet,
            name: link.name.clone(),
            kind: link.kind,
            endpoint: status.endpoint,
            last_handshake_secs: status.since_handshake.map(|since| since.as_secs()),
            is_up: status.is_up,
            tx_packets: link.tx.packets,
            tx_bytes: link.tx.bytes,
            rx_packets: link.rx.packets,
            rx_bytes: link.rx.bytes,
            dropped_packets: link.dropped_packets,
        }
    }

    fn put(&mut self, id: TunnelId, tunnel: program::Tunnel, now: Instant) -> Result<(), String> {
        if !MTU_RANGE.contains(&tunnel.mtu) {
            let (min, max) = (MTU_RANGE.start(), MTU_RANGE.end());
            return Err(format!(
                "mtu is {}: it lies between {min} and {max}",
                tunnel.mtu
            ));
        }
        // What waits in a tunnel, or travels under its keys, belongs to the vnet it was sent in.
        if let Some(link) = self.links.get(&id)
            && link.vnet != tunnel.vnet
            && let Some(link) = self.links.remove(&id)
        {
            self.tunnels.delete(link.handle);
        }
        let handle = self
            .tunnels
            .put(id, &tunnel.kind, tunnel.mtu, now, &mut self.outbox)
            .map_err(|error| error.to_string())?;
        let kind = tunnel.kind.kind();
        let link = self.links.entry(id).or_insert_with(|| Link {
            handle,
            vnet: tunnel.vnet,
            mtu: tunnel.mtu,
            errors: Bucket::default(),
            tx: Count::default(),
            rx: Count::default(),
            dropped_packets: 0,
            given_up_seen: 0,
            name: String::new(),
            kind,
        });
        if link.handle != handle || self.tunnels.status(handle, now).given_up_packets == 0 {
            link.given_up_seen = 0;
        }
        (link.handle, link.kind, link.mtu, link.name) = (handle, kind, tunnel.mtu, tunnel.name);
        Ok(())
    }

    /// Encapsulates `len` bytes of `buffer` into a tunnel that is known to belong to `vnet`.
    pub(super) fn encap(
        &mut self,
        id: TunnelId,
        vnet: VnetId,
        (buffer, len): (&mut [u8], usize),
        now: Instant,
    ) -> Result<(), DropReason> {
        let link = self.links.get_mut(&id).ok_or(DropReason::Gone)?;
        if link.vnet != vnet {
            return Err(DropReason::TunnelVnetMismatch);
        }
        let sent = self
            .tunnels
            .encap(link.handle, buffer, len, now, &mut self.outbox);
        if let Err(refusal) = sent {
            link.dropped_packets += 1;
            return Err(refusal.into());
        }
        link.tx.add(len);
        self.counters.encap_packets += 1;
        self.counters.encap_bytes += icmp::widen(len);
        Ok(())
    }

    /// The MTU of a tunnel, if it belongs to `vnet`.
    pub(super) fn mtu(&self, id: TunnelId, vnet: VnetId) -> Result<u16, DropReason> {
        let link = self.links.get(&id).ok_or(DropReason::Gone)?;
        if link.vnet != vnet {
            return Err(DropReason::TunnelVnetMismatch);
        }
        Ok(link.mtu)
    }

    /// Pins the tables for one packet or super-packet.
    pub(super) fn pin() -> Guard {
        crate::fib::pin()
    }
}
