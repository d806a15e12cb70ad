//! Another IPv4 address in a packet, without state: the address, every checksum that covers it, and the
//! quotation inside an ICMP error (RFC 7915 section 4, between IPv4 and IPv4).
//!
//! Checksums are updated (RFC 1624), not computed: one that was wrong stays wrong. That of a quoted TCP or UDP
//! header is left, as nobody can check it over the part that is quoted.

use std::net::Ipv4Addr;

use super::checksum;
use super::ip::{self, Inner, put_word, word};

/// Where the IPv4 header has its checksum.
const CHECKSUM: usize = 10;

/// Which address of a packet is translated. In the quotation of an ICMP error it is the other one: that is a
/// packet of the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

impl Side {
    fn at(self) -> usize {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// Replaces an address by what `map` says, if it says anything. `inner` is what the packet was parsed as, and
/// has the new address then. Where `is_checksum_open`, the checksum of TCP and UDP is that of the pseudo header
/// alone, yet to be completed. An IPv6 packet stays as it is.
pub fn translate(
    packet: &mut [u8],
    inner: &mut Inner,
    (side, is_checksum_open): (Side, bool),
    map: impl Fn(Ipv4Addr) -> Option<Ipv4Addr>,
) {
    if inner.version != 4 {
        return;
    }
    let packet = &mut packet[..inner.total_len];
    let l4 = inner.l4_offset;
    if let Some((old, new)) = replace(packet, side, &map) {
        match side {
            Side::Source => inner.src = new.into(),
            Side::Destination => inner.dst = new.into(),
        }
        let at = match inner.protocol {
            ip::TCP => Some(l4 + 16),
            ip::UDP => Some(l4 + 6),
            _ => None,
        };
        let at = at.filter(|at| inner.fragment_offset == 0 && at + 2 <= packet.len());
        if let Some(at) = at {
            let is_udp = inner.protocol == ip::UDP;
            let sum = over_pseudo_header(word(packet, at), (is_udp, is_checksum_open), old, new);
            put_word(packet, at, sum);
        }
    }
    let quotes = matches!(packet.get(l4), Some(3 | 4 | 5 | 11 | 12));
    if inner.protocol == ip::ICMP && inner.fragment_offset == 0 && quotes {
        let quoted = packet.get_mut(l4 + 8..).unwrap_or_default();
        if quoted.len() >= 20 && quoted[0] >> 4 == 4 {
            // The ones-complement sum of a header that is updated stays the same, so the message's does.
            replace(quoted, side.other(), &map);
        }
    }
}

/// Replaces an address in an IPv4 header; what was there, and what is now.
fn replace(
    header: &mut [u8],
    side: Side,
    map: impl Fn(Ipv4Addr) -> Option<Ipv4Addr>,
) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let octets: &mut [u8; 4] = header[side.at()..].first_chunk_mut()?;
    let old = Ipv4Addr::from(*octets);
    let new = map(old)?;
    *octets = new.octets();
    let sum = updated(word(header, CHECKSUM), old, new);
    put_word(header, CHECKSUM, sum);
    Some((old, new))
}

/// The checksum of TCP or UDP after an address of the pseudo header has changed.
fn over_pseudo_header(
    sum: u16,
    (is_udp, is_open): (bool, bool),
    old: Ipv4Addr,
    new: Ipv4Addr,
) -> u16 {
    if is_open {
        // The bare sum, not its complement.
        return !updated(!sum, old, new);
    }
    match updated(sum, old, new) {
        // Without a checksum (RFC 768).
        _ if is_udp && sum == 0 => 0,
        0 if is_udp => 0xffff,
        updated => updated,
    }
}

fn updated(sum: u16, old: Ipv4Addr, new: Ipv4Addr) -> u16 {
    let (old, new) = (old.octets(), new.octets());
    [0, 2].into_iter().fold(sum, |sum, at| {
        checksum::update(sum, word(&old, at), word(&new, at))
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use etherparse::{PacketBuilder, icmpv4};
    use proptest::prelude::*;

    use super::super::checksum::Sum;
    use super::*;

    const LENT: Ipv4Addr = Ipv4Addr::new(100, 64, 16, 2);
    const SEEN: Ipv4Addr = Ipv4Addr::new(10, 240, 16, 2);
    const FAR: [u8; 4] = [192, 168, 0, 9];

    fn out(address: Ipv4Addr) -> Option<Ipv4Addr> {
        (address == LENT).then_some(SEEN)
    }

    fn back(address: Ipv4Addr) -> Option<Ipv4Addr> {
        (address == SEEN).then_some(LENT)
    }

    fn run(
        mut packet: Vec<u8>,
        how: (Side, bool),
        map: impl Fn(Ipv4Addr) -> Option<Ipv4Addr>,
    ) -> Vec<u8> {
        let mut inner = Inner::parse(&packet).unwrap();
        translate(&mut packet, &mut inner, how, map);
        assert_eq!(
            Inner::parse(&packet),
            Ok(inner),
            "header and what is said of it"
        );
        packet
    }

    fn tcp(from: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4(from.octets(), FAR, 9).tcp(1, 2, 3, 4);
        builder.write(&mut packet, payload).unwrap();
        packet
    }

    fn udp(from: Ipv4Addr, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4(from.octets(), to, 9).udp(1, 2);
        builder.write(&mut packet, payload).unwrap();
        packet
    }

    fn unreachable(from: [u8; 4], to: Ipv4Addr, quoted: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let why = icmpv4::DestUnreachableHeader::Port;
        let builder = PacketBuilder::ipv4(from, to.octets(), 9)
            .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(why));
        builder.write(&mut packet, quoted).unwrap();
        packet
    }

    proptest! {
        /// An independent writer makes the packet that is expected.
        #[test]
        fn tcp_and_udp_are_as_if_written_with_the_other_address(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let how = (Side::Source, false);
            prop_assert_eq!(run(tcp(LENT, &payload), how, out), tcp(SEEN, &payload));
            prop_assert_eq!(run(udp(LENT, FAR, &payload), how, out), udp(SEEN, FAR, &payload));
            let how = (Side::Destination, false);
            let from = Ipv4Addr::from(FAR);
            let (came, wanted) = (udp(from, SEEN.octets(), &payload), udp(from, LENT.octets(), &payload));
            prop_assert_eq!(run(came, how, back), wanted);
        }

        #[test]
        fn an_open_checksum_is_that_of_the_new_pseudo_header(len in 0_usize..200, is_tcp: bool) {
            let payload = vec![7; len];
            let open = |from: Ipv4Addr| {
                let (mut packet, protocol, at) = if is_tcp {
                    (tcp(from, &payload), ip::TCP, 36)
                } else {
                    (udp(from, FAR, &payload), ip::UDP, 26)
                };
                let l4_len = packet.len() - 20;
                let sum = Sum::pseudo(from.into(), FAR.into(), protocol, l4_len).folded();
                put_word(&mut packet, at, sum);
                packet
            };
            let done = run(open(LENT), (Side::Source, true), out);
            prop_assert_eq!(done, open(SEEN));
        }

        #[test]
        fn an_icmp_error_and_what_it_quotes_change_together(
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            // From the private network, about a packet of ours; and the other way round.
            let came = unreachable(FAR, SEEN, &udp(SEEN, FAR, &payload));
            let done = run(came, (Side::Destination, false), back);
            prop_assert_eq!(Sum::new().bytes(&done[20..]).checksum(), 0);
            prop_assert_eq!(&done[16..20], &LENT.octets());
            let quoted = Inner::parse(&done[28..]).unwrap();
            prop_assert_eq!(quoted.src, IpAddr::from(LENT));
            let far = Ipv4Addr::from(FAR);
            let sent = unreachable(LENT.octets(), far, &udp(far, LENT.octets(), &payload));
            let done = run(sent, (Side::Source, false), out);
            prop_assert_eq!(Sum::new().bytes(&done[20..]).checksum(), 0);
            prop_assert_eq!(Inner::parse(&done[28..]).unwrap().dst, IpAddr::from(SEEN));
        }

        #[test]
        fn no_bytes_make_it_panic(
            mut packet in proptest::collection::vec(any::<u8>(), 20..80), open: bool,
            protocol in prop::sample::select(vec![1_u8, 6, 17, 47]),
        ) {
            let len = u16::try_from(packet.len()).unwrap();
            packet[0] = 0x45 + packet[0] % 3;
            packet[9] = protocol;
            put_word(&mut packet, 2, len);
            put_word(&mut packet, CHECKSUM, 0);
            let header = (usize::from(packet[0] & 15) * 4).min(packet.len());
            let sum = Sum::new().bytes(&packet[..header]).checksum();
            put_word(&mut packet, CHECKSUM, sum);
            if let Ok(mut inner) = Inner::parse(&packet) {
                let how = (Side::Source, open);
                translate(&mut packet, &mut inner, how, |_| Some(SEEN));
                prop_assert_eq!(Inner::parse(&packet), Ok(inner));
            }
        }
    }

    #[test]
    fn udp_without_a_checksum_stays_so_and_later_pieces_have_none() {
        let how = (Side::Source, false);
        let mut bare = udp(LENT, FAR, &[1, 2, 3]);
        put_word(&mut bare, 26, 0);
        assert_eq!(word(&run(bare, how, out), 26), 0);
        let mut piece = udp(LENT, FAR, &[0xaa; 16]);
        put_word(&mut piece, 6, 3);
        put_word(&mut piece, CHECKSUM, 0);
        let sum = Sum::new().bytes(&piece[..20]).checksum();
        put_word(&mut piece, CHECKSUM, sum);
        assert_eq!(run(piece.clone(), how, out)[20..], piece[20..]);
    }

    #[test]
    fn an_address_outside_of_the_map_stays() {
        let packet = tcp(Ipv4Addr::new(10, 0, 0, 1), &[1]);
        assert_eq!(run(packet.clone(), (Side::Source, false), out), packet);
    }
}
