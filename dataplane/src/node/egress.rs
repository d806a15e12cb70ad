//! Overlay to underlay: source address to vnet, route, TTL, MTU, split, encap.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use crate::fib::Nexthop;
use crate::id::{TunnelId, VnetId};
use crate::packet::{
    Exit, Fragments, Offload, Parcel, Segmentation, Segments, cut_stream, may_cut,
};
use crate::source::{self, RANGE_V4};
use crate::tunnel::Handle;
use crate::wire::icmp::ErrorKind;
use crate::wire::ip::{self, Inner};
use crate::wire::translate::{Side, translate};
use crate::wire::{flow, mss};

use super::router::{Arrival, Place, Sender};
use super::{DropReason, Node, Role, icmp};

impl Node {
    /// One packet or super-packet from the overlay. Parsed once, routed once, then sent.
    pub(super) fn egress(
        &mut self,
        (packet, offload): (&mut [u8], Offload),
        scratch: &mut [u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let mut inner = Inner::parse(packet)?;
        if is_noise(&inner) {
            return Err(DropReason::LinkLocalNoise);
        }
        let vnet = self.vnet_of_overlay(inner.src)?;
        let guard = crate::fib::pin();
        let tables = self.tables.vnet(vnet, &guard).ok_or(DropReason::Gone)?;
        let range = tables.range();
        if !range.is_plain() {
            // From here on the packet is as the private network sees it.
            let how = (Side::Source, offload.checksum.is_some());
            let seen = |lent: Ipv4Addr| RANGE_V4.contains(&lent).then(|| range.seen(lent));
            translate(packet, &mut inner, how, seen);
        }
        let tunnel = match tables.route(inner.dst, || flow::hash(&inner), &guard) {
            Some(Nexthop::Tunnel(tunnel)) => tunnel,
            Some(Nexthop::Local) => return Err(DropReason::RouteLoops),
            None => {
                self.report_to_overlay(ErrorKind::NetUnreachable, range, packet, now);
                return Err(DropReason::NoRoute);
            }
        };
        let path = tables.paths().fits(inner.dst, now);
        let way = (Sender::Overlay(range, path), (tunnel, vnet));
        self.route_on(way, (packet, offload), scratch, now)
    }

    /// Sends a packet or super-packet on to where its route leads: a hop, if it fits.
    pub(super) fn route_on(
        &mut self,
        (from, to): (Sender, (TunnelId, VnetId)),
        (packet, offload): (&mut [u8], Offload),
        scratch: &mut [u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let (mtu, place) = self.link(to.0, to.1)?;
        if !ip::decrement_ttl(packet) {
            self.report(ErrorKind::TimeExceeded, from, packet, now);
            return Err(DropReason::TtlExceeded);
        }
        let len = Segments::new(packet, offload)?.len_max();
        let cut = match from {
            // Told, the kernel would remember it of the same address in every vnet.
            Sender::Overlay(_, path)
                if self.config.role == Role::Edge && len > usize::from(mtu.min(path)) =>
            {
                cut_stream(packet, offload, mtu.min(path))
            }
            Sender::Overlay(..) | Sender::Tunnel(_) => None,
        };
        let is_long = cut.is_none() && len > usize::from(mtu);
        let offload = cut.unwrap_or(offload);
        if is_long && !may_cut(packet) {
            self.report(ErrorKind::PacketTooBig { mtu }, from, packet, now);
            return Err(DropReason::TooBig);
        }
        mss::clamp(packet, mtu, offload.checksum.is_some());
        match place {
            Place::Here(_) => self.send_into(to, (packet, offload), scratch, now),
            Place::At(owner) => {
                let parcel = Parcel::Encap(to.0, to.1, offload);
                self.hand_over(owner, Arrival::Direct, parcel, packet)
            }
        }
    }

    /// Sends a packet into a tunnel of ours: whole by a device, else cut and encapsulated piece by
    /// piece.
    pub(super) fn send_into(
        &mut self,
        (tunnel, vnet): (TunnelId, VnetId),
        (packet, offload): (&mut [u8], Offload),
        scratch: &mut [u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let mut segments = Segments::new(packet, offload)?;
        let link = self.links.get(&tunnel).ok_or(DropReason::Gone)?;
        let mtu = link.mtu;
        // A device takes what is to be cut only with the checksum to be completed, too.
        let is_for_device =
            offload.segmentation == Segmentation::None || offload.checksum.is_some();
        let is_whole = matches!(link.place, Place::Here(Handle::Direct(_)))
            && is_for_device
            && segments.len_max() <= usize::from(mtu);
        if link.vnet == vnet && is_whole {
            let is_sent = self.deliver_whole(Exit::Link(tunnel), packet, offload);
            let link = self.links.get_mut(&tunnel).ok_or(DropReason::Gone)?;
            if !is_sent {
                link.dropped_packets += 1;
                return Err(DropReason::OutboxFull);
            }
            link.tx.add_all(segments.remaining(), packet.len());
            return Ok(());
        }
        while let Some(len) = segments.next_into(scratch) {
            if let Err(reason) = self.encap_pieces((tunnel, vnet), (scratch, len), mtu, now) {
                // Each piece is a packet of its own: the last one's reason is counted by the caller.
                let left = segments.remaining();
                if left == 0 {
                    return Err(reason);
                }
                self.counters.count_drops(reason, 1);
            }
        }
        Ok(())
    }

    /// Encapsulates one packet, in pieces where it is longer than the tunnel takes.
    pub(super) fn encap_pieces(
        &mut self,
        (tunnel, vnet): (TunnelId, VnetId),
        (packet, len): (&mut [u8], usize),
        mtu: u16,
        now: Instant,
    ) -> Result<(), DropReason> {
        if len <= usize::from(mtu) {
            return self.encap(tunnel, vnet, (packet, len), now);
        }
        let mut fragments = Fragments::new(&packet[..len], mtu)?;
        let mut piece = std::mem::take(&mut self.piece);
        let mut done = Ok(());
        while let Some(len) = fragments.next_into(&mut piece) {
            self.counters.fragments += 1;
            done = self.encap(tunnel, vnet, (&mut piece, len), now);
            if done.is_err() {
                // Without this one the others are of no use.
                break;
            }
        }
        self.piece = piece;
        done
    }

    /// The vnet that a source address was lent to, if it is one of this node's. Which worker's it
    /// is does not matter: a route may have moved to another worker's tunnel since.
    fn vnet_of_overlay(&self, source: IpAddr) -> Result<VnetId, DropReason> {
        match self.config.role {
            Role::Site { vnet, .. } => Ok(vnet),
            Role::Edge => {
                let source = match source {
                    IpAddr::V4(source) => Some(source),
                    IpAddr::V6(source) => source::to_v4(source),
                };
                source
                    .and_then(|source| self.tables.returns.lookup(source))
                    .filter(|owner| owner.node == self.config.node)
                    .map(|owner| owner.vnet)
                    .ok_or(DropReason::SourceNotOurs)
            }
        }
    }
}

/// What a kernel sends on every device of its own accord: router solicitations, multicast reports,
/// neighbour and name discovery.
fn is_noise(inner: &Inner) -> bool {
    !icmp::is_host(inner.src) || !icmp::is_host(inner.dst)
}
