//! The ends of tunnels: our addresses inside them, the far sides' addresses, and probes between
//! the two.
//!
//! An interface address is ours on its tunnel only: it is compared with what came out of that very
//! tunnel, and is in no table. So vnets, and tunnels of one vnet, may have the same.
//!
//! The outer addresses of a tunnel are ends too, for probes whose answers come past it: those of the
//! far side are answered past it.

use std::net::IpAddr;
use std::time::Instant;

use crate::fib::Guard;
use crate::id::{TunnelId, VnetId};
use crate::packet::{Carrier, Way};
use crate::program::health::Direction;
use crate::program::{self, far_side, health};
use crate::source;
use crate::wire::echo::{self, Echo, Kind};
use crate::wire::icmp;
use crate::wire::ip::{self, Inner};

use super::health::{Answer, PROBE_LEN_MAX, Path};
use super::ingress::check_source;
use super::router::{Link, Place};
use super::{DropReason, Node};

/// Probes sent in one turn; what is due besides has its turn at once, after what waits meanwhile.
const PROBES_PER_TURN: usize = 64;
/// Of the probes into a tunnel without a session, one in so many is sent: it begins the handshake,
/// which is repeated every five seconds. More would only wait in the tunnel and arrive too late.
const SESSIONLESS: u16 = 5;

/// The inner addresses of one link, or the outer ones of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    near: IpAddr,
    far: IpAddr,
}

impl End {
    /// Whether a packet is for our address, or goes from it to the far side's.
    pub(super) fn has(&self, inner: &Inner) -> bool {
        inner.dst == self.near || (inner.src == self.near && inner.dst == self.far)
    }
}

/// The ends of a tunnel.
pub(super) fn ends_of(tunnel: &program::Tunnel) -> Vec<End> {
    let ends = tunnel.interface.iter();
    ends.filter_map(|near| {
        Some(End {
            near: near.addr(),
            far: far_side(*near)?,
        })
    })
    .collect()
}

/// The outer ends of a tunnel; `None` when its peer may be anywhere, or it has none.
pub(super) fn outer_of(tunnel: &program::Tunnel) -> Option<End> {
    let (near, far) = tunnel.kind.outer()?;
    Some(End { near, far: far? })
}

/// Between which addresses a tunnel is probed whose answers come past it.
fn outer_path(tunnel: &program::Tunnel, config: &health::Config) -> Option<Path> {
    let (near, peer) = tunnel.kind.outer()?;
    let far = config.target.or(peer)?;
    let is_outer = true;
    (near.is_ipv4() == far.is_ipv4()).then_some(Path {
        near,
        far,
        is_outer,
    })
}

impl Link {
    /// Whether a packet is an ICMP error of the tunnel's far side, and goes back to who sent what it is
    /// about: a hop's answer to traceroute, or path MTU discovery. A router sends errors from the interface
    /// that the error leaves by (RFC 1812 section 4.3.2.4), whose address nobody has to route or allow.
    pub(super) fn is_error_of_far_side(&self, packet: &[u8], inner: &Inner) -> bool {
        let is_far = self.ends.iter().any(|end| end.far == inner.src);
        is_far && icmp::quoted_source(packet, inner) == Some(inner.dst)
    }
}

impl Node {
    /// Probes a tunnel of ours as it is configured, or not at all.
    pub(super) fn put_probes(&mut self, id: TunnelId, tunnel: &program::Tunnel, now: Instant) {
        let path = tunnel.health.as_ref().and_then(|config| {
            let path = self.path(tunnel, config)?;
            Some((config, path))
        });
        let is_probed = match path {
            Some(path) => {
                self.prober.put(id, tunnel.vnet, path, now);
                true
            }
            None => {
                self.prober.delete(id);
                false
            }
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.is_probed = is_probed;
        }
    }

    /// Between which addresses a tunnel is probed: those of its interface, or from our own source
    /// address of the vnet to the target.
    fn path(&self, tunnel: &program::Tunnel, config: &health::Config) -> Option<Path> {
        if config.direction == Direction::Unidirectional {
            return outer_path(tunnel, config);
        }
        let is_outer = false;
        let is_of_family = |end: &End| {
            config
                .target
                .is_none_or(|far| far.is_ipv4() == end.near.is_ipv4())
        };
        if let Some(end) = ends_of(tunnel).into_iter().find(is_of_family) {
            let far = config.target.unwrap_or(end.far);
            return Some(Path {
                near: end.near,
                far,
                is_outer,
            });
        }
        let far = config.target?;
        let near = self.tables.sources.at(tunnel.vnet, self.config.worker)?;
        let near = match far {
            IpAddr::V4(_) => self.range_of(tunnel.vnet)?.seen(near).into(),
            IpAddr::V6(_) => source::to_v6(near).into(),
        };
        Some(Path {
            near,
            far,
            is_outer,
        })
    }

    /// Sends the probes that are due.
    pub(super) fn send_probes(&mut self, now: Instant) {
        for _ in 0..PROBES_PER_TURN {
            let mut buffer = [0; PROBE_LEN_MAX];
            let Some((tunnel, vnet, sequence, len)) = self.prober.poll_probe(now, &mut buffer)
            else {
                return;
            };
            let place = self.links.get(&tunnel).map(|link| link.place);
            let is_ready = match place {
                Some(Place::Here(handle)) => self.tunnels.status(handle, now).is_up,
                Some(Place::At(_)) | None => false,
            };
            let is_worth_it = is_ready || sequence % SESSIONLESS == 0;
            match is_worth_it.then(|| self.encap(tunnel, vnet, (&mut buffer, len), now)) {
                Some(Ok(())) => self.counters.probes_sent += 1,
                // It is not answered, and that is what counts.
                Some(Err(_)) | None => self.counters.probes_unsent += 1,
            }
        }
    }

    /// Takes the first `len` bytes of `buffer`, a packet out of a tunnel that has ends or is probed,
    /// if they are for its end; `None` when they are to be routed on.
    pub(super) fn at_end(
        &mut self,
        tunnel: TunnelId,
        (buffer, len): (&mut [u8], usize),
        inner: &Inner,
        now: Instant,
        guard: &Guard,
    ) -> Option<Result<(), DropReason>> {
        let link = self.links.get(&tunnel)?;
        let (vnet, is_probed) = (link.vnet, link.is_probed);
        let end = link.ends.iter().find(|end| end.near == inner.dst).copied();
        let is_back = End {
            near: inner.src,
            far: inner.dst,
        };
        let outer = link.outer.filter(|outer| is_between(outer, inner));
        let is_back = link.ends.contains(&is_back);
        let echo = Echo::read(&buffer[..len], inner);
        if let (Some(outer), Some(echo)) = (outer, &echo)
            && (echo.kind == Kind::Request) == (inner.dst == outer.near)
        {
            return Some(self.answer_past(outer, (buffer, len), inner));
        }
        let Some(end) = end else {
            if is_back {
                let kind = echo.map(|echo| echo.kind);
                return Some(self.reflect((tunnel, vnet), (buffer, len), kind, now));
            }
            let echo = echo.filter(|echo| is_probed && echo.kind == Kind::Reply)?;
            // A program of this machine may ping from the same source address: what is no answer to
            // a probe is for it.
            let done = self.probe_answered(tunnel, inner, &echo, now);
            return (done != Err(DropReason::ProbeForged)).then_some(done);
        };
        let Some(echo) = echo else {
            return Some(Err(DropReason::InterfaceClosed));
        };
        if echo.kind == Kind::Reply {
            return Some(self.probe_answered(tunnel, inner, &echo, now));
        }
        if inner.src != end.far
            && let Err(reason) = self.is_from(vnet, tunnel, inner.src, guard)
        {
            return Some(Err(reason));
        }
        echo::answer(&mut buffer[..len], inner);
        self.counters.echoes_answered += 1;
        Some(self.encap(tunnel, vnet, (buffer, len), now))
    }

    fn probe_answered(
        &mut self,
        tunnel: TunnelId,
        inner: &Inner,
        echo: &Echo<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.answered((tunnel, (inner.src, inner.dst)), echo, now)
    }

    fn answered(
        &mut self,
        (tunnel, ends): (TunnelId, (IpAddr, IpAddr)),
        echo: &Echo<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        match self.prober.handle_reply(tunnel, ends, echo, now) {
            Answer::InTime => {
                self.counters.probes_answered += 1;
                Ok(())
            }
            Answer::Late => Err(DropReason::ProbeLate),
            Answer::Forged => Err(DropReason::ProbeForged),
        }
    }

    /// Answers a probe of the far side from its outer end to ours, or sends one of the reply kind, from
    /// ours to its, on its way: past the tunnel, as any router of the Internet would.
    fn answer_past(
        &mut self,
        outer: End,
        (buffer, len): (&mut [u8], usize),
        inner: &Inner,
    ) -> Result<(), DropReason> {
        let is_request = inner.dst == outer.near;
        if is_request {
            echo::answer(&mut buffer[..len], inner);
        }
        let message = &buffer[inner.l4_offset..len];
        let way = Way::raw(Carrier::Echo, outer.near, outer.far);
        let room = self.outbox.reserve(way, message.len());
        room.ok_or(DropReason::OutboxFull)?.copy_from_slice(message);
        self.outbox.commit(message.len());
        if is_request {
            self.counters.echoes_answered += 1;
        } else {
            self.counters.probes_reflected += 1;
        }
        Ok(())
    }

    /// Takes an echo reply that came past the tunnels: the answer to a probe, or nobody's.
    pub(super) fn came_past(
        &mut self,
        way: Way,
        message: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let echo = Echo::reply(message, way.remote.is_ipv4()).ok_or(DropReason::Malformed)?;
        let near = way.local.ok_or(DropReason::ProbeForged)?;
        let tunnel = self.prober.asked_past(&echo);
        let tunnel = tunnel.ok_or(DropReason::ProbeForged)?;
        self.answered((tunnel, (way.remote.ip(), near)), &echo, now)
    }

    /// Sends back what the far side sent from our address to its own: a probe of the reply kind,
    /// which wants to be routed. Anything else has no business with our address.
    fn reflect(
        &mut self,
        (tunnel, vnet): (TunnelId, VnetId),
        (buffer, len): (&mut [u8], usize),
        kind: Option<Kind>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if kind != Some(Kind::Reply) {
            return Err(DropReason::SourceNotAllowed);
        }
        if !ip::decrement_ttl(&mut buffer[..len]) {
            return Err(DropReason::TtlExceeded);
        }
        self.counters.probes_reflected += 1;
        self.encap(tunnel, vnet, (buffer, len), now)
    }

    /// Our own address inside a tunnel, of this family.
    pub(super) fn near_side(&self, tunnel: TunnelId, is_v4: bool) -> Option<IpAddr> {
        let mut ends = self.links.get(&tunnel)?.ends.iter();
        let end = ends.find(|end| end.near.is_ipv4() == is_v4)?;
        Some(end.near)
    }

    fn is_from(
        &self,
        vnet: VnetId,
        tunnel: TunnelId,
        source: IpAddr,
        guard: &Guard,
    ) -> Result<(), DropReason> {
        let tables = self.tables.vnet(vnet, guard).ok_or(DropReason::Gone)?;
        check_source(tables, tunnel, source, guard)
    }
}

/// Whether a packet goes from one of these ends to the other.
fn is_between(ends: &End, inner: &Inner) -> bool {
    [(ends.near, ends.far), (ends.far, ends.near)].contains(&(inner.src, inner.dst))
}
