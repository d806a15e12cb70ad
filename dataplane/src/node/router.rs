//! The node: its face towards the driver, and what it owns.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use crate::id::{NodeId, TunnelId, TunnelMap, VnetId, WorkerId, Workers};
use crate::packet::{Batch, Exit, Offload, Outbox, Parcel, Transmit, Way};
use crate::program::{self, Tables, TunnelChange};
use crate::source::{Range, Slice};
use crate::tunnel::bucket::Bucket;
use crate::tunnel::{DATAGRAM_LEN_MAX, Event, Handle, Tunnels, ipsec};
use crate::wire::icmp::ErrorKind;
use crate::wire::ip::{self, Inner};

use super::ends::{End, ends_of, outer_of};
use super::entry::LocalPorts;
use super::health::{HealthChange, ProbeKey, Prober};
use super::path::PathMtu;
use super::{Counters, DropReason, TunnelStatus, icmp};

/// Inner packets a tunnel may be configured for: every IPv4 host takes 576 bytes (RFC 791), and
/// [`DATAGRAM_LEN_MAX`] holds 9000 with any encapsulation.
const MTU_RANGE: RangeInclusive<u16> = 576..=9000;

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its part of the source range; `None` on a site.
    pub slice: Option<Slice>,
    /// Its number.
    pub node: NodeId,
    /// The worker that owns this part of it.
    pub worker: WorkerId,
    /// How many workers there are, each with a part.
    pub workers: Workers,
    /// Which end of tunnels it is.
    pub role: Role,
    /// The secret of its probes.
    pub probe_key: ProbeKey,
    /// On an edge whose overlay is the machine's own stack, which only answers may enter then. `None`: the overlay
    /// itself drops what is of no flow, or the machine is a site.
    pub local_ports: Option<LocalPorts>,
    /// Our address for what nodes hand to each other; `None`: nothing is handed over.
    pub relay: Option<IpAddr>,
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

/// One worker's part of a router: give it packets, datagrams, batches of other workers and the time,
/// and after each batch take everything from `poll_transmit`, then `poll_handover`, then
/// `poll_event`, then wait no longer than `poll_timeout`.
#[derive(Debug)]
pub struct Node {
    pub(super) config: NodeConfig,
    pub(super) tables: Arc<Tables>,
    pub(super) tunnels: Tunnels,
    pub(super) links: TunnelMap<Link>,
    pub(super) outbox: Outbox,
    pub(super) counters: Counters,
    pub(super) overlay_errors: Bucket,
    pub(super) prober: Prober,
    pub(super) path_reports: Bucket,
    /// When something that is known of a path is to be forgotten.
    pub(super) path_due: Option<Instant>,
    /// Whether the overlay of each worker takes only packets for its own source addresses.
    pub(super) is_delivered_by_owner: bool,
    passage: Passage,
    /// One packet between splitter and tunnel, or between tunnel and overlay.
    scratch: Box<[u8]>,
    /// A fragment between cutter and tunnel.
    pub(super) piece: Box<[u8]>,
}

/// A tunnel as the node knows it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) place: Place,
    pub(super) vnet: VnetId,
    /// The largest packet: what is configured, or less where the path takes less.
    pub(super) mtu: u16,
    pub(super) mtu_configured: u16,
    pub(super) path: Option<PathMtu>,
    pub(super) errors: Bucket,
    pub(super) tx: Count,
    pub(super) rx: Count,
    pub(super) dropped_packets: u64,
    pub(super) ends: Vec<End>,
    /// The outer ends, if both are known.
    pub(super) outer: Option<End>,
    pub(super) is_probed: bool,
    name: String,
    kind: &'static str,
}

/// Whose a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// This worker's.
    Here(Handle),
    /// Another worker's.
    At(WorkerId),
}

/// How a packet came to this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// By its own port.
    Direct,
    /// By another worker, which took this one for the owner. It is not handed on.
    HandedOver,
}

/// Whether the packet in hand may leave from the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// No: it is not in one.
    Closed,
    /// Yes.
    Open,
    /// It does, by this device and this long.
    Taken(Exit, usize),
}

/// Who sent a packet, and hears of it when it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// A socket of this machine, seen in the private network by an address of this range. What it sends as TCP is
    /// cut to this many bytes, which fit the path behind the tunnel.
    Overlay(Range, u16),
    /// A private network.
    Tunnel(TunnelId),
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    packets: u64,
    bytes: u64,
}

impl Link {
    /// Whether a packet that came out may be for the tunnel's own end, or an answer to a probe. For
    /// most packets this is all that ends cost.
    pub(super) fn may_end(&self, inner: &Inner) -> bool {
        let is_echo = matches!(inner.protocol, ip::ICMP | ip::ICMPV6);
        let is_probed = self.is_probed || self.outer.is_some();
        (is_probed && is_echo) || self.ends.iter().any(|end| end.has(inner))
    }
}

impl Count {
    pub(super) fn add(&mut self, len: usize) {
        self.add_all(1, len);
    }

    pub(super) fn add_all(&mut self, packets: usize, len: usize) {
        self.packets += icmp::widen(packets);
        self.bytes += icmp::widen(len);
    }
}

impl Node {
    /// A node without tunnels. All memory that packets need is allocated here.
    #[must_use]
    pub fn new(config: NodeConfig, tables: Arc<Tables>, now: Instant) -> Self {
        let prober = Prober::new(config.worker, &config.probe_key);
        Self {
            tunnels: Tunnels::new(config.worker, now),
            outbox: Outbox::of(config.worker, config.workers),
            config,
            tables,
            links: TunnelMap::default(),
            counters: Counters::default(),
            overlay_errors: Bucket::default(),
            prober,
            path_reports: Bucket::default(),
            path_due: None,
            is_delivered_by_owner: false,
            passage: Passage::Closed,
            scratch: vec![0; DATAGRAM_LEN_MAX].into_boxed_slice(),
            piece: vec![0; DATAGRAM_LEN_MAX].into_boxed_slice(),
        }
    }

    /// Has packets for a source address delivered by the worker that lends it, as its userspace
    /// flows need it. A TUN takes them from any worker.
    pub fn deliver_by_owner(&mut self) {
        self.is_delivered_by_owner = true;
    }

    /// Makes, changes or deletes a tunnel. One that moves to another vnet or other keys loses its
    /// sessions and what waits in it; any other change keeps them.
    ///
    /// # Errors
    /// A sentence for the operator, and nothing has changed.
    pub fn apply(&mut self, change: TunnelChange, now: Instant) -> Result<(), String> {
        match change {
            TunnelChange::Put(id, tunnel) => self.put(id, *tunnel, now),
            TunnelChange::Delete(id) => {
                self.delete(id, now);
                Ok(())
            }
        }
    }

    /// Says where a tunnel's peer was heard last, before a restart. Without a configured endpoint
    /// and before the peer is heard again, the handshake begins there.
    pub fn hint_endpoint(&mut self, id: TunnelId, endpoint: SocketAddr, now: Instant) {
        if let Some(Place::Here(handle)) = self.links.get(&id).map(|link| link.place) {
            self.tunnels
                .hint_endpoint(handle, endpoint, now, &mut self.outbox);
        }
    }

    /// Takes a packet that the overlay wants sent. It is overwritten.
    pub fn handle_overlay(&mut self, packet: &mut [u8], offload: Offload, now: Instant) {
        self.counters.overlay_rx += 1;
        let mut scratch = std::mem::take(&mut self.scratch);
        let done = self.egress((packet, offload), &mut scratch, now);
        self.count(done);
        self.scratch = scratch;
    }

    /// Takes a datagram from the underlay.
    pub fn handle_underlay(&mut self, way: Way, datagram: &mut [u8], now: Instant) {
        let segment_size = datagram.len();
        self.handle_train(way, (datagram, segment_size), now);
    }

    /// Takes datagrams that came by one way: `segment_size` bytes each, the last may be shorter.
    pub fn handle_train(
        &mut self,
        way: Way,
        (train, segment_size): (&mut [u8], usize),
        now: Instant,
    ) {
        let guard = crate::fib::pin();
        let mut scratch = std::mem::take(&mut self.scratch);
        for datagram in train.chunks_mut(segment_size.max(1)) {
            self.counters.underlay_rx += 1;
            let datagram = (datagram, Arrival::Direct);
            let done = self.ingress(way, datagram, &mut scratch, now, &guard);
            self.count(done);
        }
        self.scratch = scratch;
    }

    /// Takes a packet or super-packet that came in by the device of a direct link. It is overwritten.
    /// Where it leaves whole by another device and nothing waits before it, it is not copied: the
    /// caller sends that many bytes of it there, before anything else.
    #[must_use = "the packet is lost unless it is sent there"]
    pub fn handle_link(
        &mut self,
        tunnel: TunnelId,
        (packet, offload): (&mut [u8], Offload),
        now: Instant,
    ) -> Option<(Exit, usize)> {
        self.counters.link_rx += 1;
        let mut scratch = std::mem::take(&mut self.scratch);
        self.passage = Passage::Open;
        let done = self.link_ingress(tunnel, (packet, offload), &mut scratch, now);
        self.count(done);
        self.scratch = scratch;
        match std::mem::replace(&mut self.passage, Passage::Closed) {
            Passage::Taken(exit, len) => Some((exit, len)),
            Passage::Open | Passage::Closed => None,
        }
    }

    /// Takes a packet that did not reach the neighbour of a direct link because that is not there: its
    /// sender is told.
    pub fn handle_refused(&mut self, tunnel: TunnelId, packet: &[u8], now: Instant) {
        if let Some(link) = self.links.get_mut(&tunnel) {
            link.dropped_packets += 1;
            let vnet = link.vnet;
            self.report_to_source(ErrorKind::HostUnreachable, vnet, packet, now);
        }
        self.counters
            .count_drops(DropReason::NeighbourUnreachable, 1);
    }

    /// Sends a packet whole by a device: past the outbox if it may, else by it. False when that is
    /// full.
    pub(super) fn deliver_whole(&mut self, exit: Exit, packet: &[u8], offload: Offload) -> bool {
        if self.passage == Passage::Open && self.outbox.has_nothing_for_devices() {
            self.passage = Passage::Taken(exit, packet.len());
            return true;
        }
        self.outbox.deliver_super(exit, packet, offload)
    }

    /// Takes what another worker handed over.
    pub fn handle_batch(&mut self, batch: &mut Batch, now: Instant) {
        let guard = crate::fib::pin();
        let mut scratch = std::mem::take(&mut self.scratch);
        for (parcel, packet) in batch.iter_mut() {
            self.counters.handed_in += 1;
            let done = match parcel {
                Parcel::Underlay(way) => {
                    let datagram = (packet, Arrival::HandedOver);
                    self.ingress(way, datagram, &mut scratch, now, &guard)
                }
                Parcel::Ike(_) | Parcel::IkeSa(_) => {
                    let done = self.tunnels.passed(parcel, packet, now, &mut self.outbox);
                    self.counters.control_rx += u64::from(done.is_ok());
                    done.map_err(DropReason::from)
                }
                Parcel::Initiation(from, tunnel) => {
                    self.initiation((from, tunnel), packet, &mut scratch)
                }
                Parcel::Encap(tunnel, vnet, offload) => match self.link(tunnel, vnet) {
                    Ok((_, Place::Here(_))) => {
                        self.send_into((tunnel, vnet), (packet, offload), &mut scratch, now)
                    }
                    Ok((_, Place::At(_))) => Err(DropReason::HandoverLoops),
                    Err(reason) => Err(reason),
                },
                Parcel::Deliver => {
                    let is_taken = self.outbox.deliver(Exit::Overlay, packet);
                    is_taken.then_some(()).ok_or(DropReason::OutboxFull)
                }
                Parcel::PathMtu(tunnel, mtu) => {
                    self.set_path(tunnel, mtu, now);
                    Ok(())
                }
            };
            self.count(done);
        }
        self.scratch = scratch;
    }

    fn count(&mut self, done: Result<(), DropReason>) {
        if let Err(reason) = done {
            self.counters.count_drops(reason, 1);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (links, counters) = (&mut self.links, &mut self.counters);
        let mut given_up = |tunnel, packets| {
            counters.count_drops(DropReason::SessionGivenUp, packets);
            if let Some(link) = links.get_mut(&tunnel) {
                link.dropped_packets += packets;
            }
        };
        self.tunnels
            .handle_timeout(now, &mut self.outbox, &mut given_up);
        self.send_probes(now);
        self.forget_paths(now);
    }

    /// When [`Node::handle_timeout`] wants to be called; `None` when nothing is ever due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let all = [
            self.tunnels.poll_timeout(),
            self.prober.poll_timeout(),
            self.path_due,
        ];
        all.into_iter().flatten().min()
    }

    /// The next thing to send. Call it at the end of a batch, until it gives `None`.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.outbox.poll_transmit()
    }

    /// The next batch for another worker, or `None`. It comes back by [`Node::give_back`].
    pub fn poll_handover(&mut self) -> Option<(WorkerId, Batch)> {
        self.outbox.poll_handover()
    }

    /// Takes a batch back that [`Node::poll_handover`] gave.
    pub fn give_back(&mut self, batch: Batch) {
        self.outbox.give_back(batch);
    }

    /// The next event, or `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.tunnels.poll_event()
    }

    /// The next IKE failure for the log, or `None`.
    pub fn poll_failure(&mut self) -> Option<ipsec::Failed> {
        self.tunnels.poll_failure()
    }

    /// The next tunnel whose health has changed since it was told, or `None`.
    pub fn poll_health(&mut self) -> Option<HealthChange> {
        self.prober.poll_change()
    }

    /// Says that a change of [`Node::poll_health`] could not be passed on: it will come again.
    pub fn health_untold(&mut self, change: &HealthChange) {
        self.prober.untold(change.tunnel);
    }

    /// What has been counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All tunnels of this worker as they are, by number.
    #[must_use]
    pub fn tunnels(&self, now: Instant) -> Vec<TunnelStatus> {
        let mut all: Vec<_> = self
            .links
            .iter()
            .filter_map(|(id, link)| self.status(*id, link, now))
            .collect();
        all.sort_by_key(|status| status.id);
        all
    }

    fn status(&self, id: TunnelId, link: &Link, now: Instant) -> Option<TunnelStatus> {
        let Place::Here(handle) = link.place else {
            return None;
        };
        let status = self.tunnels.status(handle, now);
        Some(TunnelStatus {
            id,
            vnet: link.vnet,
            name: link.name.clone(),
            kind: link.kind,
            endpoint: status.endpoint,
            last_handshake_secs: status.since_handshake.map(|since| since.as_secs()),
            is_up: status.is_up,
            mtu: link.mtu,
            tx_packets: link.tx.packets,
            tx_bytes: link.tx.bytes,
            rx_packets: link.rx.packets,
            rx_bytes: link.rx.bytes,
            dropped_packets: link.dropped_packets,
            ipsec: self.tunnels.ipsec_status(handle, now),
            health: self.prober.status(id, now),
        })
    }

    fn delete(&mut self, id: TunnelId, now: Instant) {
        self.prober.delete(id);
        match self.links.remove(&id).map(|link| link.place) {
            Some(Place::Here(handle)) => self.tunnels.delete(handle, now, &mut self.outbox),
            Some(Place::At(_)) => self.tunnels.delete_elsewhere(id),
            None => {}
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
        let owner = tunnel.kind.owner(id, self.config.workers);
        let is_here = owner == self.config.worker;
        let kind = tunnel.kind.kind();
        // What waits in a tunnel, or travels under its keys, belongs to the vnet it was sent in. One
        // that goes to another worker or device leaves nothing behind.
        let is_another = |link: &Link| {
            let is_moved = matches!(link.place, Place::Here(_)) != is_here;
            link.vnet != tunnel.vnet || link.kind != kind || is_moved
        };
        if self.links.get(&id).is_some_and(is_another) {
            self.delete(id, now);
        }
        let place = if is_here {
            self.tunnels
                .put(
                    (id, tunnel.vnet),
                    &tunnel.kind,
                    tunnel.mtu,
                    now,
                    &mut self.outbox,
                )
                .map(Place::Here)
        } else {
            self.tunnels
                .put_elsewhere((id, tunnel.vnet), &tunnel.kind, owner)
                .map(|()| Place::At(owner))
        };
        let place = place.map_err(|error| error.to_string())?;
        let link = self.links.entry(id).or_insert_with(|| Link {
            place,
            vnet: tunnel.vnet,
            mtu: tunnel.mtu,
            mtu_configured: tunnel.mtu,
            path: None,
            errors: Bucket::default(),
            tx: Count::default(),
            rx: Count::default(),
            dropped_packets: 0,
            ends: Vec::new(),
            outer: None,
            is_probed: false,
            name: String::new(),
            kind,
        });
        (link.place, link.kind, link.mtu_configured) = (place, kind, tunnel.mtu);
        link.fit();
        (link.ends, link.outer) = (ends_of(&tunnel), outer_of(&tunnel));
        link.name.clone_from(&tunnel.name);
        if owner == self.config.worker {
            self.put_probes(id, &tunnel, now);
        }
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
        let handle = match link.place {
            Place::Here(handle) => handle,
            Place::At(owner) => {
                let parcel = Parcel::Encap(id, vnet, Offload::NONE);
                return self.hand_over(owner, Arrival::Direct, parcel, &buffer[..len]);
            }
        };
        let sent = self
            .tunnels
            .encap(handle, buffer, len, now, &mut self.outbox);
        if let Err(refusal) = sent {
            link.dropped_packets += 1;
            return Err(refusal.into());
        }
        link.tx.add(len);
        self.counters.encap_packets += 1;
        self.counters.encap_bytes += icmp::widen(len);
        Ok(())
    }

    /// MTU and place of a tunnel, if it belongs to `vnet`.
    pub(super) fn link(&self, id: TunnelId, vnet: VnetId) -> Result<(u16, Place), DropReason> {
        let link = self.links.get(&id).ok_or(DropReason::Gone)?;
        if link.vnet != vnet {
            return Err(DropReason::TunnelVnetMismatch);
        }
        Ok((link.mtu, link.place))
    }

    /// Gives a packet to the worker that can go on with it.
    pub(super) fn hand_over(
        &mut self,
        to: WorkerId,
        arrival: Arrival,
        parcel: Parcel,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        if arrival == Arrival::HandedOver {
            return Err(DropReason::HandoverLoops);
        }
        if !self.outbox.hand_over(to, parcel, packet) {
            return Err(DropReason::HandoverFull);
        }
        self.counters.handed_over += 1;
        Ok(())
    }
}
