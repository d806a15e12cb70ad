//! All WireGuard peers of a worker: finds the peer that a message is for.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use boringtun::noise::{Packet, Tunn};
use boringtun::x25519;

use crate::id::{TunnelId, WorkerId};
use crate::packet::Outbox;
use crate::tunnel::bucket::{Rate, SourceTable};
use crate::tunnel::{DATAGRAM_LEN_MAX, Decap, Event, Refusal, Status};

use super::directory::{Directory, Place};
use super::peer::{DATA_OVERHEAD, Peer};
use super::strangers::Strangers;
use super::{Config, PublicKey};

/// Peers of one worker: the 16 bits that a slot has in a receiver index.
pub const PEERS_MAX: usize = 1 << 16;

/// How often each peer's timers are looked at: boringtun counts in whole seconds.
const TICK: Duration = Duration::from_millis(250);
/// Peers that are looked at in one go: 0.1 ms at 100 ns each, which is what packets wait.
const TICK_PEERS: usize = 1024;

/// Handshake messages from one source: as many as a site with 64 tunnels sends at once, then 20 a second
/// (the kernel's own limit, drivers/net/wireguard/ratelimiter.c).
const HANDSHAKES: Rate = Rate {
    interval: Duration::from_millis(50),
    burst: 64,
};

/// The worker that a message names by its receiver index; `None` for an initiation, which names
/// nobody, and for what is no message. The kernel steers by the same bytes.
#[must_use]
pub fn addressee(datagram: &[u8]) -> Option<WorkerId> {
    const RESPONSE: u8 = 2;
    const COOKIE_REPLY: u8 = 3;
    const DATA: u8 = 4;
    let index_ends_at = match datagram.first()? {
        // The response carries its sender's index first.
        &RESPONSE => 11,
        &COOKIE_REPLY | &DATA => 7,
        _ => return None,
    };
    datagram.get(index_ends_at).copied().map(WorkerId)
}

/// A peer of a [`Device`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u16);

/// Why a tunnel cannot be made as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// Two tunnels cannot share a peer: a handshake names only the two keys.
    #[error("{0} has the same private key and the same peer: give one of them other keys")]
    PeerTaken(TunnelId),
    /// Our own public key, or a point that makes every shared secret known.
    #[error("the peer's public key cannot be used: it is our own or a point of low order")]
    PeerKey,
    /// The worker has [`PEERS_MAX`] peers.
    #[error("this worker has {PEERS_MAX} WireGuard peers, which is all it can have")]
    Full,
}

/// Owner of the peers of one worker and their sessions, with a directory of everybody's.
pub struct Device {
    worker: WorkerId,
    directory: Directory,
    peers: Vec<Option<Peer>>,
    by_tunnel: HashMap<TunnelId, Slot>,
    /// Tunnels of other workers: index of the identity, and the peer's key.
    elsewhere: HashMap<TunnelId, (usize, PublicKey)>,
    sources: SourceTable,
    strangers: Strangers,
    /// Slots with an endpoint to report, each once: never longer than `peers`.
    events: VecDeque<Slot>,
    tick_at: Instant,
    /// The part of the peers that is looked at next, of how many.
    tick_part: (usize, usize),
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("worker", &self.worker)
            .field("peers", &self.by_tunnel.len())
            .finish_non_exhaustive()
    }
}

impl Device {
    /// A device without peers.
    #[must_use]
    pub fn new(worker: WorkerId, now: Instant) -> Self {
        Self {
            worker,
            directory: Directory::default(),
            peers: Vec::new(),
            by_tunnel: HashMap::new(),
            elsewhere: HashMap::new(),
            sources: SourceTable::new(HANDSHAKES),
            strangers: Strangers::default(),
            events: VecDeque::new(),
            tick_at: now,
            tick_part: (0, 1),
        }
    }

    /// Makes or changes a peer. New keys or a new keepalive make a new peer in its place, which
    /// begins a handshake where the old one was heard; anything else keeps the session.
    ///
    /// # Errors
    /// [`PutError`], and nothing has changed.
    pub fn put(
        &mut self,
        tunnel: TunnelId,
        config: &Config,
        mtu: u16,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Slot, PutError> {
        let ours = config.private_key.public();
        self.check(tunnel, config, ours)?;
        let old = self.by_tunnel.get(&tunnel).copied();
        if let Some(peer) = old.and_then(|slot| self.peer_mut(slot))
            && is_same_session(&peer.config, config)
        {
            peer.mtu = mtu;
            let is_moved = config.endpoint.is_some() && config.endpoint != peer.config.endpoint;
            peer.config.clone_from(config);
            if is_moved {
                peer.endpoint = config.endpoint;
                peer.initiate(now, out);
            }
            return Ok(old.expect("found above"));
        }
        let learned = old.and_then(|slot| {
            let peer = self.peer(slot)?;
            let is_moved = config.endpoint.is_some() && config.endpoint != peer.config.endpoint;
            (!is_moved && peer.config.peer == config.peer).then_some(peer.endpoint)?
        });
        if let Some(slot) = old {
            self.delete(slot);
        }
        let slot = self.insert(tunnel, config, mtu)?;
        let peer = self.peer_mut(slot).expect("inserted above");
        peer.endpoint = learned.or(config.endpoint);
        peer.initiate(now, out);
        Ok(slot)
    }

    /// Deletes a peer with its sessions and queue, and its identity if no other uses it.
    pub fn delete(&mut self, slot: Slot) {
        let Some(peer) = self.peers[usize::from(slot.0)].take() else {
            return;
        };
        self.events.retain(|other| *other != slot);
        self.by_tunnel.remove(&peer.tunnel);
        self.directory.leave(peer.identity, peer.config.peer);
    }

    /// Notes a peer of another worker, for initiations that arrive here.
    ///
    /// # Errors
    /// [`PutError`], and nothing has changed.
    pub fn put_elsewhere(&mut self, tunnel: TunnelId, config: &Config) -> Result<(), PutError> {
        let ours = config.private_key.public();
        let place = Place::At(tunnel);
        match self.directory.place(ours, config.peer) {
            Some(known) if known == place => return Ok(()),
            Some(other) => return Err(PutError::PeerTaken(self.tunnel_at(other))),
            None => {}
        }
        self.delete_elsewhere(tunnel);
        let identity = self
            .directory
            .enter(&config.private_key, config.peer, place);
        self.elsewhere.insert(tunnel, (identity, config.peer));
        Ok(())
    }

    /// Forgets a peer of another worker.
    pub fn delete_elsewhere(&mut self, tunnel: TunnelId) {
        if let Some((identity, peer)) = self.elsewhere.remove(&tunnel) {
            self.directory.leave(identity, peer);
        }
    }

    /// Begins a handshake with where the peer was before a restart, unless an endpoint is
    /// configured or the peer has been heard.
    pub fn hint_endpoint(
        &mut self,
        slot: Slot,
        endpoint: SocketAddr,
        now: Instant,
        out: &mut Outbox,
    ) {
        if let Some(peer) = self.peer_mut(slot)
            && peer.endpoint.is_none()
        {
            peer.endpoint = Some(endpoint);
            peer.initiate(now, out);
        }
    }

    /// Encapsulates the first `len` bytes of `buffer` for a peer. See `Tunnels::encap`.
    ///
    /// # Errors
    /// [`Refusal`] when the packet was dropped.
    pub fn encap(
        &mut self,
        slot: Slot,
        buffer: &mut [u8],
        len: usize,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        self.peer_mut(slot)
            .ok_or(Refusal::UnknownPeer)?
            .encap(buffer, len, now, out)
    }

    /// Takes one datagram. See `Tunnels::decap`.
    ///
    /// # Errors
    /// [`Refusal`] when the datagram was dropped.
    pub fn decap(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Decap, Refusal> {
        if datagram.len() > DATAGRAM_LEN_MAX {
            return Err(Refusal::Oversized);
        }
        let packet = Tunn::parse_incoming_packet(datagram).map_err(|_error| Refusal::Malformed)?;
        let is_data = matches!(packet, Packet::PacketData(_));
        if !is_data && !self.may_shake_hands(from, now) {
            return Err(Refusal::HandshakeLimited);
        }
        let (slot, before, decap) = match &packet {
            Packet::PacketData(data) => {
                let (slot, peer) = self.peer_by_index(data.receiver_idx)?;
                let before = peer.endpoint;
                (slot, before, peer.data(from, datagram, buffer, now, out)?)
            }
            Packet::HandshakeInit(_) => {
                let slot = match self.directory.initiator(from, datagram, &packet, out)? {
                    Place::Here(slot) => slot,
                    Place::At(tunnel) => return Ok(Decap::Elsewhere { tunnel }),
                };
                return self.initiation(slot, from, datagram, buffer, out);
            }
            Packet::HandshakeResponse(response) => {
                let (slot, peer) = self.peer_by_index(response.receiver_idx)?;
                let identity = peer.identity;
                self.directory.pass_gate(identity, from, datagram, out)?;
                let peer = self.peer_mut(slot).expect("found above");
                let before = peer.endpoint;
                let decap = peer.response(from, datagram, buffer, now, out)?;
                (slot, before, decap)
            }
            Packet::PacketCookieReply(reply) => {
                let (_, peer) = self.peer_by_index(reply.receiver_idx)?;
                return peer.cookie(datagram, buffer);
            }
        };
        if before != Some(from) {
            self.report(slot);
        }
        Ok(decap)
    }

    /// Takes an initiation that is known to name this peer, and passed the gate.
    ///
    /// # Errors
    /// [`Refusal`] when the datagram was dropped.
    pub fn initiation(
        &mut self,
        slot: Slot,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
        out: &mut Outbox,
    ) -> Result<Decap, Refusal> {
        let peer = self.peer_mut(slot).ok_or(Refusal::UnknownPeer)?;
        let before = peer.endpoint;
        let decap = peer.initiation(from, datagram, buffer, out)?;
        if before != Some(from) {
            self.report(slot);
        }
        Ok(decap)
    }

    /// The tunnel that sent the data message that begins with `message` to `to` lately, and the longest
    /// packet whose message has at most `room` bytes.
    #[must_use]
    pub fn fits(&self, to: SocketAddr, message: &[u8], room: u16) -> Option<(TunnelId, u16)> {
        let mut peers = self.peers.iter().flatten();
        let peer = peers.find(|peer| peer.endpoint == Some(to) && peer.has_sent(message))?;
        // Padding goes up to a multiple of 16.
        Some((peer.tunnel, room.checked_sub(DATA_OVERHEAD)? & !15))
    }

    /// When the timers are to be looked at; `None` without peers.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.by_tunnel.is_empty()).then_some(self.tick_at)
    }

    /// Looks at the timers of the next part of the peers, if it is time. `given_up` hears how many
    /// packets of a tunnel waited for a session in vain.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut Outbox,
        given_up: &mut dyn FnMut(TunnelId, u64),
    ) {
        if now < self.tick_at {
            return;
        }
        let (part, parts) = match self.tick_part {
            (0, _) => {
                self.directory.reset();
                (0, self.peers.len().div_ceil(TICK_PEERS).max(1))
            }
            under_way => under_way,
        };
        self.tick_part = ((part + 1) % parts, parts);
        self.tick_at = now + TICK / u32::try_from(parts).unwrap_or(1);
        for peer in self.peers.iter_mut().skip(part).step_by(parts).flatten() {
            peer.handle_timeout(now, out);
            let packets = std::mem::take(&mut peer.given_up_packets);
            if packets > 0 {
                given_up(peer.tunnel, packets);
            }
        }
    }

    /// The next peer that moved.
    pub fn poll_event(&mut self) -> Option<Event> {
        let slot = self.events.pop_front()?;
        let peer = self.peer_mut(slot)?;
        peer.is_reported = false;
        Some(Event::EndpointChanged {
            tunnel: peer.tunnel,
            endpoint: peer.endpoint?,
        })
    }

    /// What the peer shows of itself; a deleted one is down.
    #[must_use]
    pub fn status(&self, slot: Slot, now: Instant) -> Status {
        self.peer(slot).map_or_else(Status::default, |peer| Status {
            endpoint: peer.endpoint,
            since_handshake: peer.since_handshake(now),
            is_up: peer.is_up(),
        })
    }

    fn check(&self, tunnel: TunnelId, config: &Config, ours: PublicKey) -> Result<(), PutError> {
        // A point of low order gives the same secret with every key: zero (RFC 7748 section 6.1).
        let secret = x25519::StaticSecret::from(config.private_key.0);
        let shared = secret.diffie_hellman(&x25519::PublicKey::from(config.peer.0));
        if ours == config.peer || !shared.was_contributory() {
            return Err(PutError::PeerKey);
        }
        let taken = self.directory.place(ours, config.peer);
        if let Some(other) = taken.map(|place| self.tunnel_at(place))
            && other != tunnel
        {
            return Err(PutError::PeerTaken(other));
        }
        if self.by_tunnel.len() >= PEERS_MAX && !self.by_tunnel.contains_key(&tunnel) {
            return Err(PutError::Full);
        }
        Ok(())
    }

    fn insert(&mut self, tunnel: TunnelId, config: &Config, mtu: u16) -> Result<Slot, PutError> {
        let at = free(&mut self.peers);
        let slot = Slot(u16::try_from(at).map_err(|_error| PutError::Full)?);
        let place = Place::Here(slot);
        let identity_at = self
            .directory
            .enter(&config.private_key, config.peer, place);
        let identity = self.directory.identity(identity_at);
        let identity = identity.expect("entered above");
        let index = u32::from(self.worker.0) << 16 | u32::from(slot.0);
        let peer = Peer::new(tunnel, config, mtu, index, (identity_at, identity));
        self.peers[at] = Some(peer);
        self.by_tunnel.insert(tunnel, slot);
        self.events.reserve(self.peers.len());
        Ok(slot)
    }

    fn peer(&self, slot: Slot) -> Option<&Peer> {
        self.peers.get(usize::from(slot.0))?.as_ref()
    }

    fn peer_mut(&mut self, slot: Slot) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(slot.0))?.as_mut()
    }

    fn peer_by_index(&mut self, index: u32) -> Result<(Slot, &mut Peer), Refusal> {
        let [_, low, high, worker] = index.to_le_bytes();
        let slot = Slot(u16::from_le_bytes([low, high]));
        let is_ours = worker == self.worker.0;
        let peer = self.peer_mut(slot).filter(|_| is_ours);
        peer.map(|peer| (slot, peer)).ok_or(Refusal::IndexUnknown)
    }

    fn tunnel_at(&self, place: Place) -> TunnelId {
        match place {
            Place::At(tunnel) => tunnel,
            Place::Here(slot) => {
                let peer = self.peer(slot).expect("the directory names peers that are");
                peer.tunnel
            }
        }
    }

    /// Whether a handshake message is within its source's limit, and within that of strangers.
    fn may_shake_hands(&mut self, from: SocketAddr, now: Instant) -> bool {
        let peers = self.peers.iter().flatten();
        let addresses = peers.filter_map(|peer| peer.endpoint.map(|at| at.ip()));
        let identities = self.directory.identities();
        self.sources.take(from.ip(), now)
            && self.strangers.admit(from.ip(), identities, addresses, now)
    }

    fn report(&mut self, slot: Slot) {
        if let Some(peer) = self.peer_mut(slot)
            && !std::mem::replace(&mut peer.is_reported, true)
        {
            self.events.push_back(slot);
        }
    }
}

/// Whether a session under the one configuration may go on under the other.
fn is_same_session(old: &Config, new: &Config) -> bool {
    old.private_key == new.private_key
        && old.peer == new.peer
        && old.preshared_key == new.preshared_key
        && old.keepalive == new.keepalive
}

/// The first free place, made if there is none.
pub(super) fn free<T>(places: &mut Vec<Option<T>>) -> usize {
    let at = places.iter().position(Option::is_none);
    at.unwrap_or_else(|| {
        places.push(None);
        places.len() - 1
    })
}
