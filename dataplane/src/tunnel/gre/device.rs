//! All GRE tunnels of a worker: finds the tunnel that a packet is for.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::id::TunnelId;
use crate::packet::{Carrier, Outbox, Way};
use crate::tunnel::{DATAGRAM_LEN_MAX, Decap, Refusal, Status};
use crate::wire::ecn;
use crate::wire::gre::{self, Header};
use crate::wire::icmp::TooBig;

use super::keepalive::{self, INNER_LEN_MAX, Watch};
use super::recent::Recent;
use super::{Config, Keepalive};

/// Tunnels of one worker: as many as it has WireGuard peers.
pub const TUNNELS_MAX: usize = 1 << 16;

/// Keepalives that go out in one go: each takes a train of its own, and there are 128.
const DUE_MAX: usize = 64;

/// A peer that begins to count anew is lost to RFC 2890 for up to 2^31 packets. When nothing else came for
/// this long it is believed: a packet that came late is not that late.
const RESTART_AFTER: Duration = Duration::from_secs(3);

/// A tunnel of a [`Device`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

/// Why a tunnel cannot be made as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// A packet names a tunnel by nothing else.
    #[error(
        "{0} has the same local and remote address and the same key_rx: give one of them another key"
    )]
    NameTaken(TunnelId),
    /// One outer header, one family.
    #[error("local is {0} and remote {1}: both are IPv4 addresses, or both IPv6")]
    Families(IpAddr, IpAddr),
    /// Not an address of one host, or both the same.
    #[error("remote is {0}: give the address of one other host")]
    Remote(IpAddr),
    /// A TTL of 0 goes nowhere.
    #[error("ttl is 0: give 1 to 255")]
    Ttl,
    /// No time between keepalives, or none may go unanswered.
    #[error("keepalive: interval_secs and retries are at least 1")]
    Keepalive,
    /// The worker has [`TUNNELS_MAX`] tunnels.
    #[error("this worker has {TUNNELS_MAX} GRE tunnels, which is all it can have")]
    Full,
}

/// What names a tunnel: our address, the peer's, the key that packets must have.
type Name = (IpAddr, IpAddr, Option<u32>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here(Slot),
    At(TunnelId),
}

#[derive(Debug)]
struct Tunnel {
    id: TunnelId,
    config: Config,
    /// The number of the next packet.
    sequence_tx: u32,
    /// The number of the last packet taken, and when that was; `None` before the first.
    sequence_rx: Option<(u32, Instant)>,
    watch: Option<Watch>,
    recent: Recent,
}

/// Owner of the GRE tunnels of one worker, with a directory of everybody's.
#[derive(Debug, Default)]
pub struct Device {
    names: HashMap<Name, Place>,
    /// The name looked up last: a train of one sender looks up once.
    last: Option<(Name, Place)>,
    tunnels: Vec<Option<Tunnel>>,
    /// Names of the tunnels of other workers.
    elsewhere: HashMap<TunnelId, Name>,
    /// When keepalives are due, each tunnel that has them once.
    due: BTreeSet<(Instant, Slot)>,
}

impl Device {
    /// Makes or changes a tunnel. Where its two addresses and keys stay, its sequence numbers go on.
    ///
    /// # Errors
    /// [`PutError`], and nothing has changed.
    pub fn put(&mut self, id: TunnelId, config: &Config, now: Instant) -> Result<Slot, PutError> {
        check(config)?;
        self.check_name(id, config)?;
        let old = self.slot_of(id);
        let slot = match old {
            Some(slot) => slot,
            None => self.free()?,
        };
        let before = old.and_then(|slot| self.remove(slot));
        let numbers = before
            .as_ref()
            .filter(|before| name(&before.config) == name(config))
            .map(|before| (before.sequence_tx, before.sequence_rx));
        // RFC 2890 section 2.2: the first packet has number 0.
        let (sequence_tx, sequence_rx) = numbers.unwrap_or((0, None));
        let kept = before.filter(|before| before.config.keepalive == config.keepalive);
        let watch = match (config.keepalive, kept.and_then(|kept| kept.watch)) {
            (Some(_), Some(watch)) => Some(watch),
            (Some(keepalive), None) => Some(Watch::new(keepalive, now)),
            (None, _) => None,
        };
        if let Some(watch) = &watch {
            self.due.insert((watch.due, slot));
        }
        self.tunnels[usize::from(slot.0)] = Some(Tunnel {
            id,
            config: config.clone(),
            sequence_tx,
            sequence_rx,
            watch,
            recent: Recent::default(),
        });
        self.enter(name(config), Place::Here(slot));
        Ok(slot)
    }

    /// Deletes a tunnel.
    pub fn delete(&mut self, slot: Slot) {
        let _deleted = self.remove(slot);
    }

    /// Notes a tunnel of another worker, for packets that arrive here.
    ///
    /// # Errors
    /// [`PutError`], and nothing has changed.
    pub fn put_elsewhere(&mut self, id: TunnelId, config: &Config) -> Result<(), PutError> {
        check(config)?;
        self.check_name(id, config)?;
        self.delete_elsewhere(id);
        self.elsewhere.insert(id, name(config));
        self.enter(name(config), Place::At(id));
        Ok(())
    }

    /// Forgets a tunnel of another worker.
    pub fn delete_elsewhere(&mut self, id: TunnelId) {
        if let Some(name) = self.elsewhere.remove(&id) {
            self.leave(name);
        }
    }

    /// Encapsulates a packet, whose first byte says its family.
    ///
    /// # Errors
    /// [`Refusal`] when the packet was dropped.
    pub fn encap(&mut self, slot: Slot, packet: &[u8], out: &mut Outbox) -> Result<(), Refusal> {
        let tunnel = self.tunnels.get_mut(usize::from(slot.0));
        let tunnel = tunnel.and_then(Option::as_mut);
        tunnel.ok_or(Refusal::UnknownPeer)?.send(packet, out)
    }

    /// Decapsulates a packet between `local` and `remote`, which begins with its GRE header, into `buffer`
    /// ([`DATAGRAM_LEN_MAX`] bytes). See `Tunnels::decap`.
    ///
    /// # Errors
    /// [`Refusal`] when the packet was dropped.
    pub fn decap(
        &mut self,
        (local, remote): (IpAddr, IpAddr),
        packet: &[u8],
        buffer: &mut [u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<Decap, Refusal> {
        if packet.len() > DATAGRAM_LEN_MAX {
            return Err(Refusal::Oversized);
        }
        let (header, at) = Header::parse(packet).map_err(|malformed| match malformed {
            gre::Malformed::Checksum => Refusal::Checksum,
            gre::Malformed::Truncated | gre::Malformed::Version | gre::Malformed::Routing => {
                Refusal::Malformed
            }
        })?;
        let slot = match self.find((local, remote, header.key))? {
            Place::Here(slot) => slot,
            Place::At(tunnel) => return Ok(Decap::Elsewhere { tunnel }),
        };
        let tunnel = self.tunnels[usize::from(slot.0)].as_mut();
        let tunnel = tunnel.expect("the directory names tunnels that are");
        tunnel.admit(&header, now)?;
        let payload = &packet[at..];
        if header.protocol == gre::KEEPALIVE {
            if let Some(watch) = &mut tunnel.watch {
                watch.answered();
            }
            return Ok(Decap::Control);
        }
        check_payload(header.protocol, payload)?;
        if let Some(answer) = keepalive::answer_wanted(payload, (local, remote)) {
            tunnel.answer(answer, out)?;
            return Ok(Decap::Control);
        }
        buffer[..payload.len()].copy_from_slice(payload);
        Ok(Decap::Inner {
            tunnel: tunnel.id,
            len: payload.len(),
        })
    }

    /// The tunnel that sent the packet that a router reports lately, and the longest inner packet of at
    /// most `room` bytes of GRE.
    #[must_use]
    pub fn fits(&self, report: &TooBig<'_>, room: u16) -> Option<(TunnelId, u16)> {
        let ends = (report.local, report.remote);
        let tunnels = self.tunnels.iter().flatten();
        let mut tunnels = tunnels.filter(|one| (one.config.local, one.config.remote) == ends);
        tunnels.find_map(|tunnel| {
            let header_len = tunnel.header(gre::IPV4).len();
            let inner = report.payload.get(header_len..)?;
            let len = u16::try_from(header_len).ok()?;
            let fits = room.checked_sub(len)?;
            tunnel.recent.has(inner).then_some((tunnel.id, fits))
        })
    }

    /// When [`Device::handle_timeout`] wants to be called; `None` when no tunnel has keepalives.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Sends the keepalives that are due.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        for _ in 0..DUE_MAX {
            let Some((due, slot)) = self.due.first().copied().filter(|(due, _)| *due <= now) else {
                return;
            };
            self.due.remove(&(due, slot));
            let tunnel = self.tunnels[usize::from(slot.0)].as_mut();
            let Some(tunnel) = tunnel else { continue };
            // One that found no room counts as sent: the next one is in order.
            let _refused = tunnel.keep_alive(out);
            if let Some(watch) = &mut tunnel.watch {
                watch.sent(now);
                self.due.insert((watch.due, slot));
            }
        }
    }

    /// What the tunnel shows of itself; a deleted one is down.
    #[must_use]
    pub fn status(&self, slot: Slot) -> Status {
        let tunnel = self.tunnels.get(usize::from(slot.0));
        tunnel
            .and_then(Option::as_ref)
            .map_or_else(Status::default, |tunnel| Status {
                endpoint: Some((tunnel.config.remote, 0).into()),
                since_handshake: None,
                is_up: tunnel.watch.as_ref().is_none_or(|watch| watch.is_up),
            })
    }

    fn find(&mut self, name: Name) -> Result<Place, Refusal> {
        if let Some((last, place)) = self.last
            && last == name
        {
            return Ok(place);
        }
        let place = *self.names.get(&name).ok_or(Refusal::NameUnknown)?;
        self.last = Some((name, place));
        Ok(place)
    }

    fn check_name(&self, id: TunnelId, config: &Config) -> Result<(), PutError> {
        let Some(place) = self.names.get(&name(config)) else {
            return Ok(());
        };
        let other = match *place {
            Place::At(other) => other,
            Place::Here(slot) => {
                let tunnel = self.tunnels[usize::from(slot.0)].as_ref();
                tunnel.expect("the directory names tunnels that are").id
            }
        };
        if other == id {
            return Ok(());
        }
        Err(PutError::NameTaken(other))
    }

    fn slot_of(&self, id: TunnelId) -> Option<Slot> {
        let of_id = |tunnel: &Option<Tunnel>| tunnel.as_ref().is_some_and(|one| one.id == id);
        let at = self.tunnels.iter().position(of_id)?;
        u16::try_from(at).ok().map(Slot)
    }

    fn free(&mut self) -> Result<Slot, PutError> {
        let at = self.tunnels.iter().position(Option::is_none);
        let at = at.unwrap_or(self.tunnels.len());
        let slot = u16::try_from(at).map_err(|_full| PutError::Full)?;
        if at == self.tunnels.len() {
            self.tunnels.push(None);
        }
        Ok(Slot(slot))
    }

    fn remove(&mut self, slot: Slot) -> Option<Tunnel> {
        let tunnel = self.tunnels.get_mut(usize::from(slot.0))?.take()?;
        if let Some(watch) = &tunnel.watch {
            self.due.remove(&(watch.due, slot));
        }
        self.leave(name(&tunnel.config));
        Some(tunnel)
    }

    fn enter(&mut self, name: Name, place: Place) {
        self.names.insert(name, place);
        self.last = None;
    }

    fn leave(&mut self, name: Name) {
        self.names.remove(&name);
        self.last = None;
    }
}

impl Tunnel {
    /// Puts a header before a packet.
    fn send(&mut self, packet: &[u8], out: &mut Outbox) -> Result<(), Refusal> {
        let protocol = match packet.first().map(|byte| byte >> 4) {
            Some(4) => gre::IPV4,
            Some(6) => gre::IPV6,
            Some(_) | None => return Err(Refusal::NotIp),
        };
        let header = self.header(protocol);
        let at = header.len();
        self.recent.note(packet);
        let room = self.reserve(ecn::class(packet), at + packet.len(), out)?;
        room[at..].copy_from_slice(packet);
        header.write(room);
        out.commit(at + packet.len());
        self.sequence_tx = self.sequence_tx.wrapping_add(1);
        Ok(())
    }

    fn header(&self, protocol: u16) -> Header {
        Header {
            protocol,
            is_checksummed: self.config.is_checksummed,
            key: self.config.key_tx,
            sequence: self.config.is_sequenced.then_some(self.sequence_tx),
        }
    }

    fn keep_alive(&mut self, out: &mut Outbox) -> Result<(), Refusal> {
        let answer = Header {
            protocol: gre::KEEPALIVE,
            is_checksummed: self.config.is_checksummed,
            key: self.config.key_rx,
            // What the peer sends back has no place among what it sends.
            sequence: None,
        };
        let mut packet = [0; INNER_LEN_MAX];
        let way_back = (self.config.remote, self.config.local);
        let len = keepalive::write(&answer, way_back, &mut packet);
        self.send(&packet[..len], out)
    }

    /// Sends back what the peer made ready.
    fn answer(&self, answer: &[u8], out: &mut Outbox) -> Result<(), Refusal> {
        self.reserve(0, answer.len(), out)?.copy_from_slice(answer);
        out.commit(answer.len());
        Ok(())
    }

    fn reserve<'a>(
        &self,
        class: u8,
        len: usize,
        out: &'a mut Outbox,
    ) -> Result<&'a mut [u8], Refusal> {
        let way = Way {
            class,
            ttl: self.config.ttl,
            ..Way::raw(Carrier::Gre, self.config.local, self.config.remote)
        };
        out.reserve(way, len).ok_or(Refusal::OutboxFull)
    }

    /// Whether the packet is one for this tunnel, and in its turn (RFC 2890 section 2.2).
    fn admit(&mut self, header: &Header, now: Instant) -> Result<(), Refusal> {
        if self.config.is_checksummed && !header.is_checksummed {
            return Err(Refusal::Checksum);
        }
        // A packet without a number is in sequence, says the RFC.
        let Some(sequence) = header.sequence.filter(|_| self.config.is_sequenced) else {
            return Ok(());
        };
        // Less than or equal: from the last one back to the 2^31 - 1 before it. Before the first packet the
        // RFC says 2^32 - 1, as if both ends began at the same time; here any number is the first.
        let is_late = self.sequence_rx.is_some_and(|(last, taken_at)| {
            last.wrapping_sub(sequence) < 1 << 31 && now < taken_at + RESTART_AFTER
        });
        if is_late {
            return Err(Refusal::Replay);
        }
        self.sequence_rx = Some((sequence, now));
        Ok(())
    }
}

fn name(config: &Config) -> Name {
    (config.local, config.remote, config.key_rx)
}

fn check(config: &Config) -> Result<(), PutError> {
    let (local, remote) = (config.local, config.remote);
    if local.is_ipv4() != remote.is_ipv4() {
        return Err(PutError::Families(local, remote));
    }
    let is_broadcast = remote == IpAddr::from([255; 4]);
    if remote.is_unspecified() || remote.is_multicast() || is_broadcast || remote == local {
        return Err(PutError::Remote(remote));
    }
    if config.ttl == 0 {
        return Err(PutError::Ttl);
    }
    if let Some(Keepalive {
        interval_secs,
        retries,
    }) = config.keepalive
        && (interval_secs == 0 || retries == 0)
    {
        return Err(PutError::Keepalive);
    }
    Ok(())
}

/// The payload is an IP packet of the family that the header names, and whole.
fn check_payload(protocol: u16, payload: &[u8]) -> Result<(), Refusal> {
    let [first, _, a, b, c, d, ..] = *payload else {
        return Err(Refusal::NotIp);
    };
    let len = match (protocol, first >> 4) {
        (gre::IPV4, 4) => usize::from(u16::from_be_bytes([a, b])),
        (gre::IPV6, 6) => 40 + usize::from(u16::from_be_bytes([c, d])),
        _ => return Err(Refusal::NotIp),
    };
    if len > payload.len() {
        return Err(Refusal::NotIp);
    }
    Ok(())
}
