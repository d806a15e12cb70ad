//! Underlay to overlay: decap, source check, then the return table or another tunnel.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::fib::{Guard, Nexthop};
use crate::id::{TunnelId, VnetId};
use crate::program::VnetTables;
use crate::source;
use crate::tunnel::Decap;
use crate::wire::flow;
use crate::wire::icmp::ErrorKind;
use crate::wire::ip::{self, Inner};

use super::{DropReason, Node, Role, icmp};

/// Where a packet that passed all checks goes.
enum Verdict {
    Deliver,
    Forward(TunnelId),
    NoRoute,
}

impl Node {
    /// One datagram. `scratch` holds the inner packet while it is here.
    pub(super) fn ingress(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        scratch: &mut [u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let decap = self
            .tunnels
            .decap(from, datagram, scratch, now, &mut self.outbox)?;
        let Decap::Inner { tunnel, len } = decap else {
            self.counters.control_rx += 1;
            return Ok(());
        };
        self.counters.decap_packets += 1;
        self.counters.decap_bytes += icmp::widen(len);
        let routed = self.route_inner(tunnel, scratch, len, now);
        if let Some(link) = self.links.get_mut(&tunnel)
            && routed.is_err()
        {
            link.dropped_packets += 1;
        }
        routed
    }

    fn route_inner(
        &mut self,
        tunnel: TunnelId,
        scratch: &mut [u8],
        len: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        let vnet = self.links.get(&tunnel).ok_or(DropReason::Gone)?.vnet;
        let inner = Inner::parse(&scratch[..len])?;
        if !icmp::is_host(inner.src) || !icmp::is_host(inner.dst) {
            return Err(DropReason::NotUnicast);
        }
        let len = inner.total_len;
        let guard = Self::pin();
        let tables = self.tables.vnet(vnet, &guard).ok_or(DropReason::Gone)?;
        check_source(tables, tunnel, inner.src, &guard)?;
        let verdict = self.verdict(tables, vnet, &inner, &guard)?;
        let link = self.links.get_mut(&tunnel).ok_or(DropReason::Gone)?;
        link.rx.add(len);
        match verdict {
            Verdict::Deliver => self.deliver(&scratch[..len]),
            Verdict::Forward(to) if to == tunnel => Err(DropReason::RouteLoops),
            Verdict::Forward(to) => self.forward((tunnel, to), vnet, (scratch, len), now),
            Verdict::NoRoute => {
                self.report_to_tunnel(ErrorKind::NetUnreachable, tunnel, &scratch[..len], now);
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
        if is_edge && source::is_source(inner.dst) {
            self.check_return(vnet, inner.dst)?;
            return Ok(Verdict::Deliver);
        }
        Ok(match tables.route(inner.dst, || flow::hash(inner), guard) {
            Some(Nexthop::Tunnel(to)) => Verdict::Forward(to),
            // An edge has no network of its own behind it: its own services are not for tunnels.
            Some(Nexthop::Local) if is_edge => Verdict::NoRoute,
            Some(Nexthop::Local) => Verdict::Deliver,
            None => Verdict::NoRoute,
        })
    }

    /// The return table must give the destination to this node, and to the tunnel's vnet.
    fn check_return(&self, vnet: VnetId, destination: IpAddr) -> Result<(), DropReason> {
        let destination = match destination {
            IpAddr::V4(destination) => Some(destination),
            IpAddr::V6(destination) => source::to_v4(destination),
        };
        let owner = destination
            .and_then(|destination| self.tables.returns.lookup(destination))
            .ok_or(DropReason::ReturnUnknown)?;
        if owner.vnet != vnet {
            return Err(DropReason::ReturnVnetMismatch);
        }
        if owner.node != self.config.node {
            return Err(DropReason::ReturnOtherNode);
        }
        Ok(())
    }

    fn deliver(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        if !self.outbox.deliver(packet) {
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
        let mtu = self.mtu(to, vnet)?;
        if len > usize::from(mtu) {
            let kind = ErrorKind::PacketTooBig { mtu };
            self.report_to_tunnel(kind, from, &scratch[..len], now);
            return Err(DropReason::TooBig);
        }
        if !ip::decrement_ttl(&mut scratch[..len]) {
            self.report_to_tunnel(ErrorKind::TimeExceeded, from, &scratch[..len], now);
            return Err(DropReason::TtlExceeded);
        }
        self.encap(to, vnet, (scratch, len), now)?;
        self.counters.forwarded_packets += 1;
        Ok(())
    }
}

/// AllowedIPs by longest match over the vnet, and the way back, must both lead to the tunnel.
fn check_source(
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
