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

use super::identity::{Gate, Identity};
use super::peer::Peer;
use super::{Config, PublicKey};

/// Peers of one worker: the 16 bits that a slot has in a receiver index.
pub const PEERS_MAX: usize = 1 << 16;

/// How often boringtun's timers are looked at: they count in whole seconds.
const TICK: Duration = Duration::from_millis(250);

/// Handshake messages from one source: as many as a site with 64 tunnels sends at once, then 20 a second
/// (the kernel's own limit, drivers/net/wireguard/ratelimiter.c).
const HANDSHAKES: Rate = Rate {
    interval: Duration::from_millis(50),
    burst: 64,
};

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

/// Owner of the peers of one worker, their identities and sessions.
pub struct Device {
    worker: WorkerId,
    identities: Vec<Option<Identity>>,
    peers: Vec<Option<Peer>>,
    /// By our public key and the peer's.
    by_keys: HashMap<(PublicKey, PublicKey), Slot>,
    by_tunnel: HashMap<TunnelId, Slot>,
    sources: SourceTable,
    /// Slots with an endpoint to report, each once: never longer than `peers`.
    events: VecDeque<Slot>,
    tick_at: Instant,
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
            identities: Vec::new(),
            peers: Vec::new(),
            by_keys: HashMap::new(),
            by_tunnel: HashMap::new(),
            sources: SourceTable::new(HANDSHAKES),
            events: VecDeque::new(),
            tick_at: now,
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
        let slot = self.insert(tunnel, config, mtu, ours)?;
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
        let place = &mut self.identities[peer.identity];
        let identity = place.as_mut().expect("a peer has its identity");
        self.by_keys.remove(&(identity.public(), peer.config.peer));
        identity.peers -= 1;
        if identity.peers == 0 {
            *place = None;
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
        if !is_data && !self.sources.take(from.ip(), now) {
            return Err(Refusal::HandshakeLimited);
        }
        let (slot, before, decap) = match &packet {
            Packet::PacketData(data) => {
                let (slot, peer) = self.peer_by_index(data.receiver_idx)?;
                let before = peer.endpoint;
                (slot, before, peer.data(from, datagram, buffer, now, out)?)
            }
            Packet::HandshakeInit(_) => {
                let slot = self.initiator(from, datagram, &packet, out)?;
                let peer = self.peer_mut(slot).expect("the map names peers that are");
                let before = peer.endpoint;
                let decap = peer.initiation(from, datagram, buffer, out)?;
                (slot, before, decap)
            }
            Packet::HandshakeResponse(response) => {
                let (slot, peer) = self.peer_by_index(response.receiver_idx)?;
                let identity = peer.identity;
                self.pass_gate(identity, from, datagram, out)?;
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

    /// When the timers are to be looked at; `None` without peers.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.by_tunnel.is_empty()).then_some(self.tick_at)
    }

    /// Looks at the timers of all peers, if it is time.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if now < self.tick_at {
            return;
        }
        self.tick_at = now + TICK;
        for identity in self.identities.iter().flatten() {
            identity.reset();
        }
        for peer in self.peers.iter_mut().flatten() {
            peer.handle_timeout(now, out);
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
            given_up_packets: peer.given_up_packets,
        })
    }

    fn check(&self, tunnel: TunnelId, config: &Config, ours: PublicKey) -> Result<(), PutError> {
        // A point of low order gives the same secret with every key: zero (RFC 7748 section 6.1).
        let secret = x25519::StaticSecret::from(config.private_key.0);
        let shared = secret.diffie_hellman(&x25519::PublicKey::from(config.peer.0));
        if ours == config.peer || !shared.was_contributory() {
            return Err(PutError::PeerKey);
        }
        let taken = self.by_keys.get(&(ours, config.peer));
        if let Some(other) = taken.and_then(|slot| self.peer(*slot))
            && other.tunnel != tunnel
        {
            return Err(PutError::PeerTaken(other.tunnel));
        }
        if self.by_tunnel.len() >= PEERS_MAX && !self.by_tunnel.contains_key(&tunnel) {
            return Err(PutError::Full);
        }
        Ok(())
    }

    fn insert(
        &mut self,
        tunnel: TunnelId,
        config: &Config,
        mtu: u16,
        ours: PublicKey,
    ) -> Result<Slot, PutError> {
        let at = free(&mut self.peers);
        let slot = Slot(u16::try_from(at).map_err(|_error| PutError::Full)?);
        let identity_at = self
            .identities
            .iter()
            .position(|place| place.as_ref().is_some_and(|one| one.public() == ours))
            .unwrap_or_else(|| free(&mut self.identities));
        let place = &mut self.identities[identity_at];
        let identity = place.get_or_insert_with(|| Identity::new(&config.private_key));
        identity.peers += 1;
        let index = u32::from(self.worker.0) << 16 | u32::from(slot.0);
        let peer = Peer::new(tunnel, config, mtu, index, (identity_at, identity));
        self.peers[at] = Some(peer);
        self.by_keys.insert((ours, config.peer), slot);
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

    /// The peer that an initiation names, if one of our identities lets it in.
    fn initiator(
        &self,
        from: SocketAddr,
        datagram: &[u8],
        packet: &Packet<'_>,
        out: &mut Outbox,
    ) -> Result<Slot, Refusal> {
        for (at, place) in self.identities.iter().enumerate() {
            let Some(identity) = place else { continue };
            match self.pass_gate(at, from, datagram, out) {
                Ok(()) => {
                    let peer = identity.initiator(packet)?;
                    let slot = self.by_keys.get(&(identity.public(), peer));
                    return slot.copied().ok_or(Refusal::UnknownPeer);
                }
                Err(Refusal::UnknownIdentity) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::UnknownIdentity)
    }

    fn pass_gate(
        &self,
        identity: usize,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let identity = self.identities[identity].as_ref();
        let identity = identity.ok_or(Refusal::UnknownIdentity)?;
        match identity.gate(from, datagram)? {
            Gate::Open => Ok(()),
            Gate::NotOurs => Err(Refusal::UnknownIdentity),
            Gate::Cookie(reply) => {
                let room = out.reserve(from, reply.len()).ok_or(Refusal::OutboxFull)?;
                room[..reply.len()].copy_from_slice(&reply);
                out.commit(reply.len());
                Err(Refusal::CookieSent)
            }
        }
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
fn free<T>(places: &mut Vec<Option<T>>) -> usize {
    let at = places.iter().position(Option::is_none);
    at.unwrap_or_else(|| {
        places.push(None);
        places.len() - 1
    })
}
