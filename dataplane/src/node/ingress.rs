//! Underlay to overlay: decap, source check, then the return table or another tunnel.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::fib::{Guard, Nexthop};
use crate::id::{TunnelId, VnetId, WorkerId};
use crate::packet::{Carrier, Exit, Offload, Parcel, Segments, Way, may_cut};
use crate::program::VnetTables;
use crate::source::Range;
use crate::tunnel::Decap;
use crate::wire::icmp::ErrorKind;
use crate::wire::ip::{self, Inner};
use crate::wire::translate::{Side, translate};
use crate::wire::{ecn, flow, mss};

use super::router::{Arrival, Place, Sender};
use super::{DropReason, Node, NodeConfig, Role, icmp};

/// Where a packet that passed all checks goes.
enum Verdict {
    Deliver,
    Forward(TunnelId),
    /// To another node.
    Relay(SocketAddr),
    NoRoute,
}

impl Node {
    /// One datagram. `scratch` holds the inner packet while it is here.
    pub(super) fn ingress(
        &mut self,
        way: Way,
        (datagram, arrival): (&mut [u8], Arrival),
        scratch: &mut [u8],
        now: Instant,
        guard: &Guard,
    ) -> Result<(), DropReason> {
        if way.carrier == Carrier::Relay {
            return self.relayed(way, datagram, now, guard);
        }
        if let Some(other) = self.addressee(way, datagram) {
            return self.hand_over(other, arrival, Parcel::Underlay(way), datagram);
        }
        if way.carrier == Carrier::Echo {
            return self.came_past(way, datagram, now);
        }
        let decap = self
            .tunnels
            .decap(way, datagram, scratch, now, &mut self.outbox)?;
        let (tunnel, len) = match decap {
            Decap::Inner { tunnel, len } => (tunnel, len),
            Decap::Control => {
                self.counters.control_rx += 1;
                return Ok(());
            }
            Decap::Elsewhere { tunnel } => {
                let place = self.links.get(&tunnel).map(|link| link.place);
                let Place::At(owner) = place.ok_or(DropReason::Gone)? else {
                    return Err(DropReason::HandoverLoops);
                };
                let parcel = match way.carrier {
                    Carrier::WireGuard => Parcel::Initiation(way.remote, tunnel),
                    Carrier::Ike
                    | Carrier::NatT
                    | Carrier::Esp
                    | Carrier::Gre
                    | Carrier::Echo
                    | Carrier::Relay => Parcel::Underlay(way),
                };
                return self.hand_over(owner, arrival, parcel, datagram);
            }
        };
        self.counters.decap_packets += 1;
        self.counters.decap_bytes += icmp::widen(len);
        let routed = if ecn::apply(&mut scratch[..len], way.class) {
            self.route_inner(tunnel, (scratch, len), now, guard)
        } else {
            Err(DropReason::Congestion)
        };
        if routed.is_err()
            && let Some(link) = self.links.get_mut(&tunnel)
        {
            link.dropped_packets += 1;
        }
        routed
    }

    /// Another worker of this node, if the datagram names one.
    fn addressee(&self, way: Way, datagram: &[u8]) -> Option<WorkerId> {
        let NodeConfig {
            worker, workers, ..
        } = self.config;
        self.tunnels
            .addressee(way, datagram)
            .filter(|other| *other != worker && workers.has(*other))
    }

    /// A handshake initiation for a tunnel of ours that arrived at another worker.
    pub(super) fn initiation(
        &mut self,
        (from, tunnel): (SocketAddr, TunnelId),
        datagram: &[u8],
        scratch: &mut [u8],
    ) -> Result<(), DropReason> {
        let place = self.links.get(&tunnel).map(|link| link.place);
        let handle = match place.ok_or(DropReason::Gone)? {
            Place::Here(handle) => handle,
            Place::At(_) => return Err(DropReason::HandoverLoops),
        };
        self.tunnels
            .initiation(handle, from, datagram, scratch, &mut self.outbox)?;
        self.counters.control_rx += 1;
        Ok(())
    }

    fn route_inner(
        &mut self,
        tunnel: TunnelId,
        (scratch, len): (&mut [u8], usize),
        now: Instant,
        guard: &Guard,
    ) -> Result<(), DropReason> {
        let mut link = self.links.get_mut(&tunnel).ok_or(DropReason::Gone)?;
        let (vnet, mtu) = (link.vnet, link.mtu);
        let mut inner = Inner::parse(&scratch[..len])?;
        if link.may_end(&inner) {
            let whole = (&mut *scratch, inner.total_len);
            if let Some(done) = self.at_end(tunnel, whole, &inner, now, guard) {
                return done;
            }
            link = self.links.get_mut(&tunnel).ok_or(DropReason::Gone)?;
        }
        if !icmp::is_host(inner.src) || !icmp::is_host(inner.dst) {
            return Err(DropReason::NotUnicast);
        }
        let len = inner.total_len;
        let tables = self.tables.vnet(vnet, guard).ok_or(DropReason::Gone)?;
        if let Err(reason) = check_source(tables, tunnel, inner.src, guard)
            && !link.is_error_of_far_side(&scratch[..len], &inner)
        {
            return Err(reason);
        }
        link.rx.add(len);
        mss::clamp(&mut scratch[..len], mtu, false);
        let verdict = self.verdict(tables, vnet, &inner, guard)?;
        if matches!(verdict, Verdict::Deliver)
            && self.hears_of_path(tables, Some(tunnel), (&scratch[..len], &inner), now, guard)
        {
            return Ok(());
        }
        self.take_in(
            &verdict,
            tables.range(),
            (&mut scratch[..len], &mut inner),
            false,
        )?;
        match verdict {
            Verdict::Deliver => self.deliver(&scratch[..len], &inner),
            Verdict::Forward(to) if to == tunnel => Err(DropReason::RouteLoops),
            Verdict::Forward(to) => self.forward((tunnel, to), vnet, (scratch, len), now),
            Verdict::Relay(to) => self.relay(to, vnet, &scratch[..len]),
            Verdict::NoRoute => {
                self.report_to_tunnel(ErrorKind::NetUnreachable, tunnel, &scratch[..len], now);
                Err(DropReason::NoRoute)
            }
        }
    }

    /// One packet or super-packet from the device of a direct link: what came out of a tunnel, but
    /// for the tunnel.
    pub(super) fn link_ingress(
        &mut self,
        tunnel: TunnelId,
        (packet, offload): (&mut [u8], Offload),
        scratch: &mut [u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let mut link = self.links.get_mut(&tunnel).ok_or(DropReason::Gone)?;
        let (vnet, mtu) = (link.vnet, link.mtu);
        let mut inner = Inner::parse(packet)?;
        let guard = crate::fib::pin();
        if link.may_end(&inner) {
            let whole = (&mut *packet, inner.total_len);
            if let Some(done) = self.at_end(tunnel, whole, &inner, now, &guard) {
                return done;
            }
            link = self.links.get_mut(&tunnel).ok_or(DropReason::Gone)?;
        }
        if !icmp::is_host(inner.src) || !icmp::is_host(inner.dst) {
            return Err(DropReason::LinkLocalNoise);
        }
        let packets = Segments::new(packet, offload)?.remaining();
        let packet = &mut packet[..inner.total_len];
        let tables = self.tables.vnet(vnet, &guard).ok_or(DropReason::Gone)?;
        if let Err(reason) = check_source(tables, tunnel, inner.src, &guard)
            && !link.is_error_of_far_side(packet, &inner)
        {
            return Err(reason);
        }
        link.rx.add_all(packets, packet.len());
        mss::clamp(packet, mtu, offload.checksum.is_some());
        let verdict = self.verdict(tables, vnet, &inner, &guard)?;
        if matches!(verdict, Verdict::Deliver)
            && self.hears_of_path(tables, Some(tunnel), (packet, &inner), now, &guard)
        {
            return Ok(());
        }
        let is_open = offload.checksum.is_some();
        self.take_in(&verdict, tables.range(), (packet, &mut inner), is_open)?;
        match verdict {
            Verdict::Deliver => {
                if !self.deliver_whole(Exit::Overlay, packet, offload) {
                    return Err(DropReason::OutboxFull);
                }
                self.counters.delivered_packets += icmp::widen(packets);
                self.counters.delivered_bytes += icmp::widen(packet.len());
                Ok(())
            }
            Verdict::Forward(to) if to == tunnel => Err(DropReason::RouteLoops),
            Verdict::Forward(to) => {
                let way = (Sender::Tunnel(tunnel), (to, vnet));
                self.route_on(way, (packet, offload), scratch, now)?;
                self.counters.forwarded_packets += icmp::widen(packets);
                Ok(())
            }
            Verdict::Relay(to) => self.relay_pieces(to, vnet, (packet, offload), scratch),
            Verdict::NoRoute => {
                self.report_to_tunnel(ErrorKind::NetUnreachable, tunnel, packet, now);
                Err(DropReason::NoRoute)
            }
        }
    }

    fn verdict(
        &self,
        tables: &VnetTables,
        vnet: VnetId,
        inner: &Inner,
        guard: &Guard,
    ) -> Result<Verdict, DropReason> {
        let is_edge = self.config.role == Role::Edge;
        if tables.is_source(inner.dst) {
            let address = tables.lent(inner.dst);
            let address = address.ok_or(DropReason::ReturnUnknown)?;
            return if self.is_lent_to(vnet, address)? {
                Ok(Verdict::Deliver)
            } else {
                self.relay_of(address, guard).map(Verdict::Relay)
            };
        }
        Ok(match tables.route(inner.dst, || flow::hash(inner), guard) {
            Some(Nexthop::Tunnel(to)) => Verdict::Forward(to),
            // An edge has no network of its own behind it: its own services are not for tunnels.
            Some(Nexthop::Local) if is_edge => Verdict::NoRoute,
            Some(Nexthop::Local) => Verdict::Deliver,
            None => Verdict::NoRoute,
        })
    }

    /// What is for a source address is from here on for the lent one, and must be an answer; whatever goes on
    /// inside the vnet stays as it is.
    fn take_in(
        &self,
        verdict: &Verdict,
        range: Range,
        (packet, inner): (&mut [u8], &mut Inner),
        is_open: bool,
    ) -> Result<(), DropReason> {
        match verdict {
            Verdict::Deliver => self.config.admit(packet, inner)?,
            // The other node judges by its own ports.
            Verdict::Relay(_) => {}
            Verdict::Forward(_) | Verdict::NoRoute => return Ok(()),
        }
        if !range.is_plain() {
            let how = (Side::Destination, is_open);
            translate(packet, inner, how, |seen| range.lent(seen));
        }
        Ok(())
    }

    /// Gives a packet that passed all checks to the overlay.
    pub(super) fn deliver(&mut self, packet: &[u8], inner: &Inner) -> Result<(), DropReason> {
        if let Some(owner) = self.other_owner(inner.dst) {
            return self.hand_over(owner, Arrival::Direct, Parcel::Deliver, packet);
        }
        if !self.outbox.deliver_parsed(Exit::Overlay, packet, inner) {
            return Err(DropReason::OutboxFull);
        }
        self.counters.delivered_packets += 1;
        self.counters.delivered_bytes += icmp::widen(packet.len());
        Ok(())
    }

    /// Private network to private network, inside one vnet.
    fn forward(
        &mut self,
        (from, to): (TunnelId, TunnelId),
        vnet: VnetId,
        (scratch, len): (&mut [u8], usize),
        now: Instant,
    ) -> Result<(), DropReason> {
        let (mtu, _) = self.link(to, vnet)?;
        if len > usize::from(mtu) && !may_cut(&scratch[..len]) {
            let kind = ErrorKind::PacketTooBig { mtu };
            self.report_to_tunnel(kind, from, &scratch[..len], now);
            return Err(DropReason::TooBig);
        }
        if !ip::decrement_ttl(&mut scratch[..len]) {
            self.report_to_tunnel(ErrorKind::TimeExceeded, from, &scratch[..len], now);
            return Err(DropReason::TtlExceeded);
        }
        mss::clamp(&mut scratch[..len], mtu, false);
        self.encap_pieces((to, vnet), (scratch, len), mtu, now)?;
        self.counters.forwarded_packets += 1;
        Ok(())
    }
}

/// AllowedIPs by longest match over the vnet, and the way back, must both lead to the tunnel.
pub(super) fn check_source(
    tables: &VnetTables,
    tunnel: TunnelId,
    source: IpAddr,
    guard: &Guard,
) -> Result<(), DropReason> {
    if !tables.is_allowed(source, tunnel, guard) {
        return Err(DropReason::SourceNotAllowed);
    }
    if !tables.leads_to(source, tunnel, guard) {
        return Err(DropReason::SourceNotRouted);
    }
    Ok(())
}
