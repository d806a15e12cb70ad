//! Between nodes: what comes out of a tunnel here for a source address of another node goes there, once.
//!
//! The other node takes it by Geneve, with the vnet's number as the network's. It looks at everything again
//! that it can know: that a node sent it, that the address is its own and of that vnet, that the vnet has a
//! tunnel where such a packet comes from. What came by Geneve is delivered here or dropped: so two nodes
//! that disagree about a slice send nothing to and fro.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use crate::fib::Guard;
use crate::id::VnetId;
use crate::packet::{Carrier, Offload, Segments, Way};
use crate::program::VnetTables;
use crate::source;
use crate::wire::ecn;
use crate::wire::geneve::{self, Header};
use crate::wire::icmp::quoted_source;
use crate::wire::ip::Inner;

use super::{DropReason, Node, icmp};

impl Node {
    /// Whether a source address was lent to `vnet` by this node; false when it was lent to nobody.
    pub(super) fn is_lent_to(&self, vnet: VnetId, address: Ipv4Addr) -> Result<bool, DropReason> {
        let Some(owner) = self.tables.returns.lookup(address) else {
            return Ok(false);
        };
        if owner.vnet != vnet {
            return Err(DropReason::ReturnVnetMismatch);
        }
        if owner.node != self.config.node {
            return Err(DropReason::ReturnOtherNode);
        }
        Ok(true)
    }

    /// The relay of the node that lends a source address which this one does not.
    pub(super) fn relay_of(
        &self,
        address: Ipv4Addr,
        guard: &Guard,
    ) -> Result<SocketAddr, DropReason> {
        let relays = self.tables.relays(guard);
        let relay = relays.and_then(|relays| relays.of(address));
        let to = relay.ok_or(DropReason::ReturnUnknown)?.address;
        let is_reached = |own: IpAddr| own.is_ipv4() == to.is_ipv4();
        let has_way = self.config.relay.is_some_and(is_reached);
        has_way.then_some(to).ok_or(DropReason::ReturnOtherNode)
    }

    /// Sends a packet that came out of a tunnel of `vnet` to another node's relay.
    pub(super) fn relay(
        &mut self,
        to: SocketAddr,
        vnet: VnetId,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let local = self.config.relay.ok_or(DropReason::ReturnOtherNode)?;
        let way = Way {
            class: ecn::class(packet),
            ..Way::udp(Carrier::Relay, local, to)
        };
        let header = Header {
            vni: vnet.0.into(),
            is_ipv6: packet.first().is_some_and(|first| first >> 4 == 6),
        };
        let len = geneve::HEADER_LEN + packet.len();
        let room = self.outbox.reserve(way, len);
        let room = room.ok_or(DropReason::OutboxFull)?;
        header.write(room);
        room[geneve::HEADER_LEN..].copy_from_slice(packet);
        self.outbox.commit(len);
        self.counters.relay_tx_packets += 1;
        self.counters.relay_tx_bytes += icmp::widen(packet.len());
        Ok(())
    }

    /// [`Node::relay`] of a packet or super-packet from a direct link, piece by piece.
    pub(super) fn relay_pieces(
        &mut self,
        to: SocketAddr,
        vnet: VnetId,
        (packet, offload): (&[u8], Offload),
        scratch: &mut [u8],
    ) -> Result<(), DropReason> {
        let mut segments = Segments::new(packet, offload)?;
        if segments.len_max() > scratch.len() {
            return Err(DropReason::TooBig);
        }
        while let Some(len) = segments.next_into(scratch) {
            if let Err(reason) = self.relay(to, vnet, &scratch[..len]) {
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

    /// Takes what another node handed over, or a stranger forged.
    pub(super) fn relayed(
        &mut self,
        way: Way,
        datagram: &mut [u8],
        now: Instant,
        guard: &Guard,
    ) -> Result<(), DropReason> {
        let relays = self.tables.relays(guard);
        if !relays.is_some_and(|relays| relays.send_from(way.remote)) {
            return Err(DropReason::RelayStranger);
        }
        let read = Header::parse(datagram);
        let (header, at) = read.map_err(|_malformed| DropReason::DatagramMalformed)?;
        let packet = &mut datagram[at..];
        let inner = Inner::parse(packet)?;
        if header.is_ipv6 != (inner.version == 6) {
            return Err(DropReason::DatagramMalformed);
        }
        if !icmp::is_host(inner.src) || !icmp::is_host(inner.dst) {
            return Err(DropReason::NotUnicast);
        }
        let packet = &mut packet[..inner.total_len];
        let tables = self.check_relayed(header.vni, &inner, packet, guard)?;
        if self.hears_of_path(tables, None, (packet, &inner), now, guard) {
            return Ok(());
        }
        self.config.admit(packet, &inner)?;
        if !ecn::apply(packet, way.class) {
            return Err(DropReason::Congestion);
        }
        self.counters.relay_rx_packets += 1;
        self.counters.relay_rx_bytes += icmp::widen(packet.len());
        self.deliver(packet, &inner)
    }

    /// The destination must be ours and of the vnet that the other node says; and packets from the source
    /// must come out of some tunnel of that vnet.
    fn check_relayed<'g>(
        &self,
        vni: u32,
        inner: &Inner,
        packet: &[u8],
        guard: &'g Guard,
    ) -> Result<&'g VnetTables, DropReason> {
        let address = lent(inner.dst).ok_or(DropReason::RelayNotOurs)?;
        // A number that no vnet has is not the destination's either.
        let vnet = u16::try_from(vni).map_or(VnetId(0), VnetId);
        if !self.is_lent_to(vnet, address)? {
            let is_ours = self
                .config
                .slice
                .is_some_and(|own| own.net().contains(&address));
            return Err(if is_ours {
                DropReason::ReturnUnknown
            } else {
                DropReason::RelayNotOurs
            });
        }
        let tables = self.tables.vnet(vnet, guard).ok_or(DropReason::Gone)?;
        // The far side of a tunnel sends errors from an address that nobody routes: the other node knows
        // the tunnel, here it must be about a packet of the destination's.
        let is_error = quoted_source(packet, inner) == Some(inner.dst);
        let is_possible =
            tables.is_behind_tunnel(inner.src, guard) || (is_error && !tables.is_source(inner.src));
        is_possible
            .then_some(tables)
            .ok_or(DropReason::SourceNotRouted)
    }
}

/// The lent address that a destination is, or stands for: between nodes it is as it was lent.
fn lent(destination: IpAddr) -> Option<Ipv4Addr> {
    match destination {
        IpAddr::V4(destination) => Some(destination),
        IpAddr::V6(destination) => source::to_v4(destination),
    }
}
