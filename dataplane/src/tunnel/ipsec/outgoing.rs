//! The child SAs of a tunnel as they are used: which packet takes which, and what may come out of each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::Way;
use crate::wire::esp::Spi;
use crate::wire::ikev2::payload::Selector;
use crate::wire::ip::Inner;

use super::sa::Outbound;

/// A child SA.
#[derive(Debug)]
pub(super) struct Child {
    /// Its name: the SPI that we receive on.
    pub(super) spi_in: Spi,
    /// The direction that sends; `None` once the child is gone and only late packets are taken.
    pub(super) outbound: Option<Outbound>,
    /// Whether packets go out by it.
    pub(super) sends: bool,
    /// Whether a successor has been asked for.
    pub(super) is_due: bool,
    pub(super) way: Way,
    pub(super) traffic: Traffic,
}

/// What a child carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Traffic {
    /// Of our side.
    pub(super) local: Vec<Selector>,
    /// Of the peer's.
    pub(super) remote: Vec<Selector>,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Out,
    In,
}

impl Traffic {
    /// Whether an inner packet belongs to it (RFC 4301 sections 5.1 and 5.2).
    pub(super) fn takes(&self, packet: &[u8], direction: Direction) -> bool {
        let Some((src, dst)) = addresses(packet) else {
            return false;
        };
        let (local, remote) = match direction {
            Direction::Out => (src, dst),
            Direction::In => (dst, src),
        };
        let has_all = |selectors: &[Selector], address| {
            let mut selectors = selectors.iter();
            selectors.any(|selector| is_whole(selector) && is_in(selector, address))
        };
        if has_all(&self.local, local) && has_all(&self.remote, remote) {
            return true;
        }
        let is_plain = |selectors: &[Selector]| selectors.iter().all(is_whole);
        if is_plain(&self.local) && is_plain(&self.remote) {
            return false;
        }
        Inner::parse(packet).is_ok_and(|inner| self.takes_parsed(&inner, direction))
    }

    fn takes_parsed(&self, inner: &Inner, direction: Direction) -> bool {
        // Ports of other protocols than TCP and UDP, and of later pieces, are opaque: only a
        // selector of all ports has them (RFC 4301 section 4.4.1.1).
        let (src_port, dst_port) = match inner.ports {
            Some((src, dst)) => (Some(src), Some(dst)),
            None => (None, None),
        };
        let (src, dst) = ((inner.src, src_port), (inner.dst, dst_port));
        let (local, remote) = match direction {
            Direction::Out => (src, dst),
            Direction::In => (dst, src),
        };
        let fits = |selectors: &[Selector], (address, port): (IpAddr, Option<u16>)| {
            selectors.iter().any(|selector| {
                let (first, last) = selector.ports;
                let is_port = match port {
                    Some(port) => (first..=last).contains(&port),
                    None => selector.ports == (0, u16::MAX),
                };
                let is_protocol = selector.protocol == 0 || selector.protocol == inner.protocol;
                is_port && is_protocol && is_in(selector, address)
            })
        };
        fits(&self.local, local) && fits(&self.remote, remote)
    }
}

fn is_whole(selector: &Selector) -> bool {
    selector.protocol == 0 && selector.ports == (0, u16::MAX)
}

fn is_in(selector: &Selector, address: IpAddr) -> bool {
    let (first, last) = selector.addresses;
    // Families never mix: an IPv4 address is less than every IPv6 address.
    first <= address && address <= last
}

fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let at = |from: usize| Some(Ipv4Addr::from(*packet.get(from..)?.first_chunk::<4>()?));
            Some((at(12)?.into(), at(16)?.into()))
        }
        6 => {
            let at = |from: usize| Some(Ipv6Addr::from(*packet.get(from..)?.first_chunk::<16>()?));
            Some((at(8)?.into(), at(24)?.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: [u8; 4], last: [u8; 4]) -> Selector {
        Selector {
            protocol: 0,
            ports: (0, u16::MAX),
            addresses: (first.into(), last.into()),
        }
    }

    /// A UDP packet from 10.1.0.7 port 53 to 10.2.0.9 port 99 (RFC 791, RFC 768), checksums left out
    /// where nobody looks.
    fn packet(protocol: u8) -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 1, 0, 7, 10, 2, 0, 9, 0, 53, 0, 99,
            0, 8, 0, 0,
        ];
        let words = packet[..20].chunks(2);
        let sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// RFC 4301 section 7: ports of a later piece cannot be known, and those of the first may be of another
    /// datagram.
    #[test]
    fn pieces_of_a_datagram_need_a_selector_of_all_ports() {
        let (near, far) = (
            range([10, 1, 0, 0], [10, 1, 0, 255]),
            range([10, 2, 0, 9], [10, 2, 0, 9]),
        );
        let dns = Selector {
            protocol: 17,
            ports: (53, 53),
            ..near
        };
        let udp = Selector {
            ports: (0, u16::MAX),
            ..dns
        };
        let piece = |place: u16, len: usize| {
            let mut piece = packet(17);
            piece.truncate(len);
            piece[3] = u8::try_from(len).unwrap();
            piece[6..8].copy_from_slice(&place.to_be_bytes());
            piece[10..12].fill(0);
            let words = piece[..20].chunks(2);
            let sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
            let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            piece[10..12].copy_from_slice(&sum.to_be_bytes());
            piece
        };
        let takes = |local: Selector, piece: &[u8]| {
            let (local, remote) = (vec![local], vec![far]);
            Traffic { local, remote }.takes(piece, Direction::Out)
        };
        // The first, whole enough for its ports; one that is not; one over its ports; a later one.
        for (place, len, fits_dns) in [
            (0x2000, 28, true),
            (0x2000, 22, false),
            (0x2001, 28, false),
            (0x0002, 28, false),
        ] {
            let piece = piece(place, len);
            assert_eq!(takes(dns, &piece), fits_dns, "{place:x} {len}");
            assert!(takes(udp, &piece) && takes(near, &piece));
        }
    }

    #[test]
    fn addresses_protocol_and_ports_decide_each_way() {
        let (near, far) = (
            range([10, 1, 0, 0], [10, 1, 0, 255]),
            range([10, 2, 0, 9], [10, 2, 0, 9]),
        );
        let traffic = |local: Selector, remote: Selector| Traffic {
            local: vec![range([192, 0, 2, 0], [192, 0, 2, 0]), local],
            remote: vec![remote],
        };
        let whole = traffic(near, far);
        assert!(whole.takes(&packet(17), Direction::Out));
        assert!(!whole.takes(&packet(17), Direction::In));
        assert!(traffic(far, near).takes(&packet(17), Direction::In));
        let dns = Selector {
            protocol: 17,
            ports: (53, 53),
            ..near
        };
        assert!(traffic(dns, far).takes(&packet(17), Direction::Out));
        assert!(!traffic(dns, far).takes(&packet(6), Direction::Out));
        let other = Selector {
            ports: (54, 99),
            ..dns
        };
        assert!(!traffic(other, far).takes(&packet(17), Direction::Out));
        // A protocol without ports does not fit a selector that names some.
        let some_port = Selector {
            protocol: 0,
            ports: (53, 53),
            ..near
        };
        assert!(!traffic(some_port, far).takes(&packet(47), Direction::Out));
        assert!(!whole.takes(&[], Direction::Out));
        assert!(!whole.takes(&[0x45; 19], Direction::Out));
        assert!(!whole.takes(&[0x60; 40], Direction::Out), "another family");
    }
}
