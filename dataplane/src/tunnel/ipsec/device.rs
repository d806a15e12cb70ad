//! All IPsec tunnels of a worker: the IKE endpoint, the SAs, and what goes into which.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::id::{TunnelId, TunnelMap, VnetId, WorkerId};
use crate::packet::{Carrier, Outbox, Parcel, Way};
use crate::tunnel::{DATAGRAM_LEN_MAX, Decap, Refusal};
use crate::wire::ecn;
use crate::wire::esp::{Datagram, Spi};

use super::config::{Config, Encapsulation, Keying, PutError, StaticKeying};
use super::directory::Directory;
use super::failures::{Failed, Failures};
use super::ike::{Endpoint, Event, Passed, Path, Random, everything};
use super::lifetime::{Lifetime, Phase};
use super::outgoing::{Child, Direction, Traffic};
use super::sa::{Inbound, Keys, Outbound};
use super::status::{ChildStatus, Status};
use super::tunnel::Tunnel;

/// Tunnels of one worker: its endpoint looks at every SA when one of them has something to do, 20 ns
/// each, which is what packets wait.
pub const TUNNELS_MAX: usize = 4096;

/// The ports of IKE (RFC 7296 section 2, RFC 3948).
const PORT: u16 = 500;
const PORT_SHARED: u16 = 4500;

/// A tunnel of a [`Device`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(usize);

/// Owner of the tunnels of one worker with their SAs.
pub struct Device {
    worker: WorkerId,
    endpoint: Endpoint,
    tunnels: Vec<Option<Tunnel>>,
    by_tunnel: TunnelMap<Slot>,
    directory: Directory,
    failures: Failures,
    /// When the endpoint wants to be called; asking it costs a look at every SA.
    timeout: Option<Instant>,
}

impl Device {
    /// A device without tunnels.
    #[must_use]
    pub fn new(worker: WorkerId, random: Random, now: Instant) -> Self {
        Self {
            worker,
            endpoint: Endpoint::new(worker, random, now),
            tunnels: Vec::new(),
            by_tunnel: TunnelMap::default(),
            directory: Directory::default(),
            failures: Failures::default(),
            timeout: None,
        }
    }

    /// Makes or changes a tunnel. A changed one begins anew; one that is in another vnet has to be
    /// deleted before.
    ///
    /// # Errors
    /// [`PutError`], and nothing has changed.
    pub fn put(
        &mut self,
        (tunnel, vnet): (TunnelId, VnetId),
        config: &Config,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Slot, PutError> {
        let old = self.by_tunnel.get(&tunnel).copied();
        if let Some(slot) = old
            && self
                .tunnel(slot)
                .is_some_and(|known| known.config == *config)
        {
            return Ok(slot);
        }
        config.check()?;
        if old.is_none() && self.by_tunnel.len() >= TUNNELS_MAX {
            return Err(PutError::Full(TUNNELS_MAX));
        }
        let children = match &config.keying {
            Keying::Ike(ike) => {
                let peer = ike.peer(config);
                let peer = peer.ok_or(PutError::Empty("remote_identities"))?;
                self.endpoint
                    .put(tunnel, peer, now)
                    .map_err(PutError::IdentityTaken)?;
                self.remove_static(old);
                Vec::new()
            }
            Keying::Static(keys) => {
                if let Some(other) = self.directory.rival(tunnel, Spi(keys.spi_in)) {
                    return Err(PutError::SpiTaken(other));
                }
                self.endpoint.delete(tunnel, now);
                self.remove_static(old);
                vec![self.install(tunnel, config, keys, now)?]
            }
        };
        let slot = old.unwrap_or_else(|| self.free());
        let is_up = !children.is_empty();
        self.tunnels[slot.0] = Some(Tunnel {
            id: tunnel,
            vnet,
            config: config.clone(),
            endpoint: config.remote.map(|remote| {
                let way = children.first().map(|child| child.way.remote);
                way.unwrap_or_else(|| SocketAddr::new(remote, PORT))
            }),
            children,
            up_at: is_up.then_some(now),
            heard_at: None,
            rekeys: 0,
            failure: None,
        });
        self.by_tunnel.insert(tunnel, slot);
        self.directory.enter((tunnel, vnet), config, self.worker);
        self.pump(now, out);
        Ok(slot)
    }

    /// The first free place.
    fn free(&mut self) -> Slot {
        let at = self.tunnels.iter().position(Option::is_none);
        Slot(at.unwrap_or_else(|| {
            self.tunnels.push(None);
            self.tunnels.len() - 1
        }))
    }

    /// The SAs of static keys.
    fn install(
        &mut self,
        tunnel: TunnelId,
        config: &Config,
        keys: &StaticKeying,
        now: Instant,
    ) -> Result<Child, PutError> {
        let remote = config
            .remote
            .ok_or(PutError::NoRemote("a tunnel with static keys"))?;
        let of = |spi, key: &[u8]| Keys {
            spi,
            transform: keys.transform,
            key: key.to_vec(),
            has_esn: keys.has_esn,
        };
        let (inward, outward) = (
            of(Spi(keys.spi_in), &keys.key_in),
            of(Spi(keys.spi_out), &keys.key_out),
        );
        let wrong = || PutError::Empty("key_in");
        let outbound = Outbound::new(&outward, Lifetime::forever(), now).ok_or_else(wrong)?;
        let outbound = outbound.with_iv_base(self.endpoint.random());
        let has_check = config.has_replay_protection;
        let inbound =
            Inbound::new(&inward, has_check, Lifetime::forever(), now).ok_or_else(wrong)?;
        let sad = self.endpoint.sad_mut();
        sad.claim(inward.spi)?;
        let is_installed = sad.install(tunnel, inbound);
        assert!(is_installed, "an SPI that was claimed is free for its SA");
        let way = match config.encapsulation {
            Encapsulation::Udp => Way::udp(
                Carrier::NatT,
                config.local,
                SocketAddr::new(remote, PORT_SHARED),
            ),
            Encapsulation::Auto | Encapsulation::Raw => {
                Way::raw(Carrier::Esp, config.local, remote)
            }
        };
        Ok(Child {
            spi_in: inward.spi,
            outbound: Some(outbound),
            sends: true,
            is_due: false,
            way,
            traffic: Traffic {
                local: everything(),
                remote: everything(),
            },
        })
    }

    /// Takes the SAs of static keys down.
    fn remove_static(&mut self, slot: Option<Slot>) {
        let Some(tunnel) = slot.and_then(|slot| self.tunnels[slot.0].as_ref()) else {
            return;
        };
        if let Keying::Static(keys) = &tunnel.config.keying {
            self.endpoint.sad_mut().remove(Spi(keys.spi_in));
        }
    }

    /// Deletes a tunnel with its SAs; the peer is told once.
    pub fn delete(&mut self, slot: Slot, now: Instant, out: &mut Outbox) {
        self.remove_static(Some(slot));
        let Some(tunnel) = self.tunnels.get_mut(slot.0).and_then(Option::take) else {
            return;
        };
        self.by_tunnel.remove(&tunnel.id);
        self.directory.leave(tunnel.id);
        self.endpoint.delete(tunnel.id, now);
        self.pump(now, out);
    }

    /// Notes a tunnel of another worker, for datagrams that arrive here.
    ///
    /// # Errors
    /// [`PutError`], and nothing has changed.
    pub fn put_elsewhere(
        &mut self,
        (tunnel, vnet): (TunnelId, VnetId),
        config: &Config,
        owner: WorkerId,
    ) -> Result<(), PutError> {
        config.check()?;
        match &config.keying {
            Keying::Ike(ike) => {
                let peer = ike.peer(config);
                let peer = peer.ok_or(PutError::Empty("remote_identities"))?;
                self.endpoint.put_elsewhere(tunnel, owner, peer);
            }
            Keying::Static(keys) => {
                if let Some(other) = self.directory.rival(tunnel, Spi(keys.spi_in)) {
                    return Err(PutError::SpiTaken(other));
                }
                self.endpoint.delete_elsewhere(tunnel);
            }
        }
        self.directory.enter((tunnel, vnet), config, owner);
        Ok(())
    }

    /// Forgets a tunnel of another worker.
    pub fn delete_elsewhere(&mut self, tunnel: TunnelId) {
        self.directory.leave(tunnel);
        self.endpoint.delete_elsewhere(tunnel);
    }

    /// The worker that a datagram is for; `None` when it names nobody.
    #[must_use]
    pub fn addressee(&self, way: Way, datagram: &[u8]) -> Option<WorkerId> {
        self.directory.addressee(way, datagram)
    }

    /// Seals an inner packet into the outbox, by the newest child that carries it.
    ///
    /// # Errors
    /// [`Refusal`] when the packet was dropped.
    pub fn encap(
        &mut self,
        slot: Slot,
        inner: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let tunnel = self.tunnels.get_mut(slot.0).and_then(Option::as_mut);
        let tunnel = tunnel.ok_or(Refusal::UnknownPeer)?;
        let mut senders = tunnel
            .children
            .iter_mut()
            .filter(|child| child.sends)
            .peekable();
        if senders.peek().is_none() {
            return Err(Refusal::NoSa);
        }
        let child = senders
            .find(|child| child.traffic.takes(inner, Direction::Out))
            .ok_or(Refusal::OutsideSelectors)?;
        let outbound = child.outbound.as_mut().ok_or(Refusal::NoSa)?;
        let room = outbound.sealed_len(inner.len());
        // DSCP and ECN go outside (RFC 4301 section 5.1.2, RFC 6040 section 4.1).
        let way = Way {
            class: ecn::class(inner),
            ..child.way
        };
        let room = out.reserve(way, room).ok_or(Refusal::OutboxFull)?;
        let len = outbound.seal(inner, now, room)?;
        out.commit(len);
        if !child.is_due && outbound.phase(now) != Phase::Fresh {
            child.is_due = true;
            let (id, spi_in) = (tunnel.id, child.spi_in);
            self.endpoint.rekey_child(id, spi_in, now);
            self.pump(now, out);
        }
        Ok(())
    }

    /// The tunnel that sent the ESP packet that begins with `packet` to `to` lately, and the longest inner
    /// packet of at most `room` bytes of ESP.
    #[must_use]
    pub fn fits(&self, to: SocketAddr, packet: &[u8], room: u16) -> Option<(TunnelId, u16)> {
        let mut tunnels = self.tunnels.iter().flatten();
        tunnels.find_map(|tunnel| Some((tunnel.id, tunnel.fits(to, packet, room)?)))
    }

    /// Takes one datagram, which is overwritten; an inner packet goes to the beginning of `buffer`.
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
        if datagram.len() > DATAGRAM_LEN_MAX {
            return Err(Refusal::Oversized);
        }
        match way.carrier {
            Carrier::Ike => self.message(way, datagram, now, out),
            Carrier::Esp => self.packet(datagram, buffer, now),
            Carrier::NatT => match Datagram::parse(datagram) {
                None => Err(Refusal::Malformed),
                Some(Datagram::Keepalive) => Ok(Decap::Control),
                Some(Datagram::Ike(message)) => self.message(way, message, now, out),
                Some(Datagram::Esp(_)) => self.packet(datagram, buffer, now),
            },
            Carrier::WireGuard | Carrier::Gre | Carrier::Echo | Carrier::Relay => {
                Err(Refusal::Malformed)
            }
        }
    }

    /// An ESP packet.
    fn packet(
        &mut self,
        packet: &mut [u8],
        buffer: &mut [u8],
        now: Instant,
    ) -> Result<Decap, Refusal> {
        let opened = self.endpoint.open(packet, now)?;
        let inner = &packet[opened.inner];
        let slot = self.by_tunnel.get(&opened.tunnel);
        let tunnel = slot.and_then(|slot| self.tunnels[slot.0].as_mut());
        let tunnel = tunnel.ok_or(Refusal::UnknownPeer)?;
        tunnel.heard_at = Some(now);
        let mut children = tunnel.children.iter();
        let is_carried = children
            .find(|child| child.spi_in == opened.spi)
            .is_some_and(|child| child.traffic.takes(inner, Direction::In));
        if !is_carried {
            return Err(Refusal::OutsideSelectors);
        }
        let len = inner.len();
        buffer[..len].copy_from_slice(inner);
        Ok(Decap::Inner {
            tunnel: opened.tunnel,
            len,
        })
    }

    /// Takes an IKE SA that another worker passed on. Its peer named a tunnel of this one.
    ///
    /// # Errors
    /// [`Refusal`] when the datagram it came with has no local address.
    pub fn take_over(
        &mut self,
        way: Way,
        sa: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let path = Path::of(way).ok_or(Refusal::Malformed)?;
        self.endpoint.take_over(path, sa, now);
        self.pump(now, out);
        Ok(())
    }

    /// An IKE message. What the endpoint did not do it counts.
    ///
    /// # Errors
    /// [`Refusal`] when the message was dropped.
    pub fn message(
        &mut self,
        way: Way,
        message: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Decap, Refusal> {
        let path = Path::of(way).ok_or(Refusal::Malformed)?;
        let before = self.endpoint.counters();
        self.endpoint.handle_datagram(path, message, now);
        let after = self.endpoint.counters();
        let strangers = self.failures.strangers();
        self.pump(now, out);
        let grown = [
            (before.limited, after.limited, Refusal::HandshakeLimited),
            (before.cookies, after.cookies, Refusal::CookieSent),
            (before.forged, after.forged, Refusal::Invalid),
            (before.unknown, after.unknown, Refusal::IndexUnknown),
            (strangers, self.failures.strangers(), Refusal::UnknownPeer),
        ];
        match grown.iter().find(|(before, after, _)| before != after) {
            Some((.., refusal)) => Err(*refusal),
            None => Ok(Decap::Control),
        }
    }

    /// When the endpoint wants to be called; `None` without IKE SAs.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// Retransmissions, rekeys, questions, ends.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if self.timeout.is_none_or(|at| now < at) {
            return;
        }
        let (tunnels, by_tunnel) = (&self.tunnels, &self.by_tunnel);
        self.endpoint
            .hear(|id| tunnels[by_tunnel.get(&id)?.0].as_ref()?.heard_at);
        self.endpoint.handle_timeout(now);
        self.pump(now, out);
        let sad = self.endpoint.sad();
        for tunnel in self.tunnels.iter_mut().flatten() {
            let is_wanted =
                |child: &Child| child.outbound.is_some() || sad.get(child.spi_in).is_some();
            tunnel.children.retain(is_wanted);
        }
    }

    /// What the tunnel shows of itself; a deleted one is down.
    #[must_use]
    pub fn status(&self, slot: Slot, now: Instant) -> (crate::tunnel::Status, Status) {
        let Some(tunnel) = self.tunnel(slot) else {
            return Default::default();
        };
        let children = tunnel.children.iter().filter_map(|child| {
            let outbound = child.outbound.as_ref()?;
            let inbound = self.endpoint.sad().get(child.spi_in)?;
            Some(ChildStatus {
                spi_in: child.spi_in.to_string(),
                spi_out: outbound.spi().to_string(),
                transform: outbound.transform(),
                sends: child.sends,
                is_in_udp: child.way.carrier == Carrier::NatT,
                tx_packets: outbound.meter().packets(),
                rx_packets: inbound.meter().packets(),
            })
        });
        let children: Vec<_> = children.collect();
        let common = crate::tunnel::Status {
            endpoint: tunnel.endpoint,
            since_handshake: tunnel.up_at.map(|at| now.saturating_duration_since(at)),
            is_up: children.iter().any(|child| child.sends),
        };
        let ike = self.endpoint.status(tunnel.id).map(|ike| ike.suite.into());
        let status = Status {
            ike: ike.collect(),
            children,
            rekeys: tunnel.rekeys,
            failure: tunnel.failure.clone(),
        };
        (common, status)
    }

    fn tunnel(&self, slot: Slot) -> Option<&Tunnel> {
        self.tunnels.get(slot.0)?.as_ref()
    }

    fn tunnel_mut(&mut self, id: TunnelId) -> Option<&mut Tunnel> {
        let slot = *self.by_tunnel.get(&id)?;
        self.tunnels.get_mut(slot.0)?.as_mut()
    }

    /// Takes what the endpoint has to tell and to send, and asks when it wants to be called.
    fn pump(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(event) = self.endpoint.poll_event() {
            self.note(event, now);
        }
        while let Some((to, path, passed)) = self.endpoint.poll_passed() {
            let (parcel, bytes) = match passed {
                Passed::Message(bytes) => (Parcel::Ike(path.way()), bytes),
                Passed::Sa(bytes) => (Parcel::IkeSa(path.way()), bytes),
            };
            // What finds no room is lost like on the way: the peer says it again, or begins anew.
            let _is_lost = !out.hand_over(to, parcel, &bytes);
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            // What finds no room is lost like on the way, and sent again.
            let len = transmit.bytes.len();
            if let Some(room) = out.reserve(transmit.path.way(), len) {
                room.copy_from_slice(&transmit.bytes);
                out.commit(len);
            }
        }
        self.timeout = self.endpoint.poll_timeout();
    }

    fn note(&mut self, event: Event, now: Instant) {
        match event {
            Event::Up { tunnel, path } => {
                if let Some(tunnel) = self.tunnel_mut(tunnel) {
                    tunnel.up_at = Some(now);
                    tunnel.endpoint = Some(path.remote);
                }
            }
            Event::ChildUp(up) => {
                if let Some(tunnel) = self.tunnel_mut(up.tunnel) {
                    tunnel.child_up(*up, now);
                }
            }
            Event::Send { tunnel, spi_in } => {
                if let Some(tunnel) = self.tunnel_mut(tunnel) {
                    tunnel.send_by(spi_in);
                }
            }
            Event::ChildDown { tunnel, spi_in } => {
                if let Some(tunnel) = self.tunnel_mut(tunnel) {
                    tunnel.child_down(spi_in);
                }
            }
            Event::Moved { tunnel, path } => {
                if let Some(tunnel) = self.tunnel_mut(tunnel) {
                    tunnel.endpoint = Some(path.remote);
                    let children = tunnel.children.iter_mut();
                    for child in children.filter(|child| child.way.carrier == Carrier::NatT) {
                        child.way.remote = path.remote;
                    }
                }
            }
            Event::Down { tunnel, failure } => {
                if let Some(tunnel) = self.tunnel_mut(tunnel) {
                    // What went wrong before the peer closed the SA says more than that it did.
                    tunnel.failure.get_or_insert_with(|| failure.to_string());
                }
            }
            Event::Failed {
                tunnel,
                remote,
                failure,
            } => {
                let told = self.failures.take(tunnel, remote, &failure, now);
                match tunnel {
                    Some(tunnel) => {
                        if let Some(tunnel) = self.tunnel_mut(tunnel) {
                            tunnel.failure = Some(failure.to_string());
                        }
                    }
                    None if told => self.tell(remote.ip(), &failure.of_nobody()),
                    None => {}
                }
            }
        }
    }

    /// Notes what happened to somebody without a name on the tunnels that he can have meant, if they are
    /// all of one vnet, whatever worker they are of, and have nothing better to show.
    fn tell(&mut self, from: IpAddr, failure: &str) {
        let Some(vnet) = self.directory.only_vnet(from) else {
            return;
        };
        let may_be = |tunnel: &&mut Tunnel| {
            let remote = tunnel.config.remote;
            tunnel.vnet == vnet && remote.is_none_or(|remote| remote == from)
        };
        let tunnels = self.tunnels.iter_mut().flatten().filter(may_be);
        for tunnel in tunnels.filter(|tunnel| tunnel.children.is_empty()) {
            tunnel.failure = Some(failure.to_owned());
        }
    }

    /// The next failure for the log of whoever runs the node.
    pub fn poll_failure(&mut self) -> Option<Failed> {
        self.failures.poll()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("worker", &self.worker)
            .field("tunnels", &self.by_tunnel.len())
            .finish_non_exhaustive()
    }
}
