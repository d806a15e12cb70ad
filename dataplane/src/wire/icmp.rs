//! ICMP and ICMPv6 errors, and when they may not be sent.

use std::net::IpAddr;

use super::checksum::Sum;
use super::ip::{self, Inner, put_word};

/// The longest ICMPv4 error: RFC 1812 section 4.3.2.3.
pub const ERROR_V4_LEN_MAX: usize = 576;
/// The longest ICMPv6 error: the minimum IPv6 MTU (RFC 4443 section 2.4 c).
pub const ERROR_V6_LEN_MAX: usize = 1280;

/// TTL of the errors we send (the recommended default of RFC 1700).
const TTL: u8 = 64;

/// What the sender of the offending packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The TTL ran out here.
    TimeExceeded,
    /// No route to the network.
    NetUnreachable,
    /// The last hop does not reach the host.
    HostUnreachable,
    /// A rule forbids it.
    AdminProhibited,
    /// Longer than the next hop takes.
    PacketTooBig {
        /// What would fit, in bytes of the whole IP packet.
        mtu: u16,
    },
}

impl ErrorKind {
    /// Type, code, and the four bytes behind the checksum (RFC 792, RFC 1191, RFC 1812).
    fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::TimeExceeded => (11, 0, 0),
            Self::NetUnreachable => (3, 0, 0),
            Self::HostUnreachable => (3, 1, 0),
            Self::AdminProhibited => (3, 13, 0),
            Self::PacketTooBig { mtu } => (3, 4, u32::from(mtu)),
        }
    }

    /// Type, code, and the four bytes behind the checksum (RFC 4443 section 3).
    fn v6(self) -> (u8, u8, u32) {
        match self {
            Self::TimeExceeded => (3, 0, 0),
            Self::NetUnreachable => (1, 0, 0),
            Self::HostUnreachable => (1, 3, 0),
            Self::AdminProhibited => (1, 1, 0),
            Self::PacketTooBig { mtu } => (2, 0, u32::from(mtu)),
        }
    }
}

/// Writes the error about `offending`, from our address `from`, as a whole IP packet into `out`
/// ([`ERROR_V6_LEN_MAX`] bytes always suffice), and returns its length. `None` when no error may be
/// sent: the packet is malformed, an ICMP error itself, a later fragment, from or to no single host
/// (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e), of another family than `from`, or `out` is
/// too short.
#[must_use]
pub fn error(kind: ErrorKind, offending: &[u8], from: IpAddr, out: &mut [u8]) -> Option<usize> {
    let inner = Inner::parse(offending).ok()?;
    if !may_report(kind, offending, &inner) {
        return None;
    }
    let offending = &offending[..inner.total_len];
    match (from, inner.src) {
        (IpAddr::V4(_), IpAddr::V4(_)) => write_v4(kind, offending, from, inner.src, out),
        (IpAddr::V6(_), IpAddr::V6(_)) => write_v6(kind, offending, from, inner.src, out),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// Whether the packet is an ICMP error or a redirect: what no error is sent about.
/// `packet` is what `inner` was parsed from. A message cut before its type counts as one.
#[must_use]
pub fn is_error(packet: &[u8], inner: &Inner) -> bool {
    let kind = packet[..inner.total_len].get(inner.l4_offset).copied();
    match (inner.version, inner.protocol) {
        (4, ip::ICMP) => matches!(kind, None | Some(3 | 4 | 5 | 11 | 12)),
        (6, ip::ICMPV6) => matches!(kind, None | Some(0..=127 | 137)),
        _ => false,
    }
}

/// The packet that every host and every link of a path takes, in bytes: 576 (RFC 791 section 3.1), and 1280 of IPv6
/// (RFC 8200 section 5).
#[must_use]
pub fn taken_by_all(is_ipv4: bool) -> u16 {
    if is_ipv4 { 576 } else { 1280 }
}

/// What a router of the path says of a packet that did not fit its next link (RFC 1191 section 4, RFC 4443
/// section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig<'a> {
    /// Who sent that packet.
    pub local: IpAddr,
    /// For whom it was.
    pub remote: IpAddr,
    /// Its upper-layer protocol.
    pub protocol: u8,
    /// Its length in bytes, as its own header says.
    pub len: usize,
    /// What would have fit.
    pub mtu: u16,
    /// What is quoted of it, behind its IP header.
    pub payload: &'a [u8],
}

impl<'a> TooBig<'a> {
    /// Reads a whole IPv4 packet. `None`: it is no such message, or damaged, or quotes a later fragment.
    #[must_use]
    pub fn parse_v4(packet: &'a [u8]) -> Option<Self> {
        let inner = Inner::parse(packet).ok()?;
        let message = packet.get(inner.l4_offset..inner.total_len)?;
        let is_whole = inner.version == 4 && !inner.is_fragment && inner.protocol == ip::ICMP;
        if !is_whole || !message.starts_with(&[3, 4]) || message.len() < 8 {
            return None;
        }
        if Sum::new().bytes(message).checksum() != 0 {
            return None;
        }
        let (said, quoted) = (ip::word(message, 6), &message[8..]);
        let head: &[u8; 20] = quoted.first_chunk()?;
        let header_len = usize::from(head[0] & 0x0f) * 4;
        let len = usize::from(ip::word(head, 2));
        if head[0] >> 4 != 4 || header_len < 20 || ip::word(head, 6) & 0x1fff != 0 {
            return None;
        }
        let address =
            |at: usize| IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Some(Self {
            local: address(12),
            remote: address(16),
            protocol: head[9],
            len,
            mtu: if said == 0 { plateau(len) } else { said },
            payload: quoted.get(header_len..)?,
        })
    }

    /// Reads an ICMPv6 message whose checksum has been checked.
    #[must_use]
    pub fn parse_v6(message: &'a [u8]) -> Option<Self> {
        if !message.starts_with(&[2, 0]) {
            return None;
        }
        let said = message.get(4..8)?.first_chunk::<4>()?;
        let said = u16::try_from(u32::from_be_bytes(*said)).unwrap_or(u16::MAX);
        let quoted = &message[8..];
        let head: &[u8; 40] = quoted.first_chunk()?;
        let address = |at: usize| {
            let octets: Option<&[u8; 16]> = head[at..].first_chunk();
            octets.map(|octets| IpAddr::from(*octets))
        };
        // Ours have no extension headers.
        (head[0] >> 4 == 6).then_some(Self {
            local: address(8)?,
            remote: address(24)?,
            protocol: head[6],
            len: 40 + usize::from(ip::word(head, 4)),
            mtu: said,
            payload: &quoted[40..],
        })
    }
}

/// Whether a packet, or its first piece, would have a kernel believe that one of its own was too long, whatever it
/// quotes: IPv4 type 3, code 4, and IPv6 type 2 of any code.
#[must_use]
pub fn says_too_big(packet: &[u8], inner: &Inner) -> bool {
    let message = packet.get(inner.l4_offset..inner.total_len);
    let Some(message) = message.filter(|_| inner.fragment_offset == 0) else {
        return false;
    };
    match (inner.version, inner.protocol) {
        (4, ip::ICMP) => message.starts_with(&[3, 4]),
        (6, ip::ICMPV6) => message.starts_with(&[2]),
        _ => false,
    }
}

/// What a packet out of a private network says of one that did not fit, if it says that.
#[must_use]
pub fn too_big<'a>(packet: &'a [u8], inner: &Inner) -> Option<TooBig<'a>> {
    if inner.version == 4 {
        return TooBig::parse_v4(packet);
    }
    let message = packet.get(inner.l4_offset..inner.total_len)?;
    if inner.is_fragment || inner.protocol != ip::ICMPV6 {
        return None;
    }
    let sum = Sum::pseudo(inner.src, inner.dst, ip::ICMPV6, message.len()).bytes(message);
    (sum.checksum() == 0).then(|| TooBig::parse_v6(message))?
}

/// The MTU to try below a length, where the router does not say one (RFC 1191 section 7.1).
fn plateau(len: usize) -> u16 {
    const PLATEAUS: [u16; 4] = [8166, 4352, 2002, 1492];
    let mut lower = PLATEAUS.into_iter();
    lower.find(|mtu| usize::from(*mtu) < len).unwrap_or(1006)
}

/// Who sent the packet that an ICMP error is about: the source that its quotation has. `None`: no error
/// about a packet's fate (a redirect is none), a piece of one (no router cuts them), or its quotation is
/// too short to say.
#[must_use]
pub fn quoted_source(packet: &[u8], inner: &Inner) -> Option<IpAddr> {
    if inner.is_fragment {
        return None;
    }
    let message = packet.get(inner.l4_offset..inner.total_len)?;
    let (kind, quoted) = (*message.first()?, message.get(8..)?);
    match (inner.version, inner.protocol) {
        (4, ip::ICMP) if matches!(kind, 3 | 11 | 12) => {
            let head: &[u8; 20] = quoted.first_chunk()?;
            let is_v4 = head[0] >> 4 == 4;
            is_v4.then(|| IpAddr::from([head[12], head[13], head[14], head[15]]))
        }
        (6, ip::ICMPV6) if matches!(kind, 1..=4) => {
            let head: &[u8; 40] = quoted.first_chunk()?;
            let source: [u8; 16] = head[8..24].try_into().ok()?;
            (head[0] >> 4 == 6).then(|| IpAddr::from(source))
        }
        _ => None,
    }
}

fn may_report(kind: ErrorKind, offending: &[u8], inner: &Inner) -> bool {
    if inner.fragment_offset != 0 || is_error(offending, inner) || !is_host(inner.src) {
        return false;
    }
    match inner.dst {
        IpAddr::V4(_) => is_host(inner.dst),
        // Path MTU discovery works for multicast too (RFC 4443 section 2.4 e.3).
        IpAddr::V6(dst) => !dst.is_multicast() || matches!(kind, ErrorKind::PacketTooBig { .. }),
    }
}

/// Whether an address can name one host of another machine.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[0] != 0 && !a.is_loopback() && a.octets()[0] < 224,
        IpAddr::V6(a) => !a.is_unspecified() && !a.is_loopback() && !a.is_multicast(),
    }
}

fn write_v4(
    kind: ErrorKind,
    offending: &[u8],
    from: IpAddr,
    to: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    let quoted = &offending[..offending.len().min(ERROR_V4_LEN_MAX - 28)];
    let total_len = 28 + quoted.len();
    let out = out.get_mut(..total_len)?;
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        return None;
    };
    let (icmp_type, code, rest) = kind.v4();
    out[..20].fill(0);
    out[0] = 0x45;
    // Precedence "internetwork control": RFC 1812 section 4.3.2.5.
    out[1] = 0xc0;
    put_word(
        out,
        2,
        u16::try_from(total_len).expect("at most ERROR_V4_LEN_MAX"),
    );
    // Never fragmented, so the identification may be zero (RFC 6864 section 4.1).
    put_word(out, 6, 0x4000);
    out[8] = TTL;
    out[9] = ip::ICMP;
    out[12..16].copy_from_slice(&from.octets());
    out[16..20].copy_from_slice(&to.octets());
    let sum = Sum::new().bytes(&out[..20]).checksum();
    put_word(out, 10, sum);
    write_message(&mut out[20..], (icmp_type, code, rest), quoted, Sum::new());
    Some(total_len)
}

fn write_v6(
    kind: ErrorKind,
    offending: &[u8],
    from: IpAddr,
    to: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    let quoted = &offending[..offending.len().min(ERROR_V6_LEN_MAX - 48)];
    let payload_len = 8 + quoted.len();
    let out = out.get_mut(..40 + payload_len)?;
    let (IpAddr::V6(from_v6), IpAddr::V6(to_v6)) = (from, to) else {
        return None;
    };
    out[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    put_word(
        out,
        4,
        u16::try_from(payload_len).expect("at most ERROR_V6_LEN_MAX"),
    );
    out[6] = ip::ICMPV6;
    out[7] = TTL;
    out[8..24].copy_from_slice(&from_v6.octets());
    out[24..40].copy_from_slice(&to_v6.octets());
    let pseudo = Sum::pseudo(from, to, ip::ICMPV6, payload_len);
    write_message(&mut out[40..], kind.v6(), quoted, pseudo);
    Some(40 + payload_len)
}

fn write_message(out: &mut [u8], head: (u8, u8, u32), quoted: &[u8], pseudo: Sum) {
    out[0] = head.0;
    out[1] = head.1;
    put_word(out, 2, 0);
    out[4..8].copy_from_slice(&head.2.to_be_bytes());
    out[8..].copy_from_slice(quoted);
    let sum = pseudo.bytes(out).checksum();
    put_word(out, 2, sum);
}

#[cfg(test)]
mod tests {
    use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
    use etherparse::icmpv6::DestUnreachableCode;
    use etherparse::{
        Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, Ipv4Header, Ipv6Header, PacketBuilder,
    };
    use proptest::prelude::*;

    use super::*;

    const KINDS: [ErrorKind; 5] = [
        ErrorKind::TimeExceeded,
        ErrorKind::NetUnreachable,
        ErrorKind::HostUnreachable,
        ErrorKind::AdminProhibited,
        ErrorKind::PacketTooBig { mtu: 1380 },
    ];
    const ROUTER: [u8; 4] = [100, 64, 0, 1];
    const CLIENT: [u8; 4] = [10, 0, 0, 50];
    const ROUTER_V6: [u8; 16] = [0x26, 0x06, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const CLIENT_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    fn udp_v4(src: [u8; 4], dst: [u8; 4], len: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(src, dst, 9)
            .udp(1, 2)
            .write(&mut packet, &vec![7; len])
            .unwrap();
        packet
    }

    fn udp_v6(dst: [u8; 16], len: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(CLIENT_V6, dst, 9)
            .udp(1, 2)
            .write(&mut packet, &vec![7; len])
            .unwrap();
        packet
    }

    fn report(kind: ErrorKind, offending: &[u8], from: impl Into<IpAddr>) -> Option<Vec<u8>> {
        let mut out = [0xee; ERROR_V6_LEN_MAX];
        error(kind, offending, from.into(), &mut out).map(|len| out[..len].to_vec())
    }

    #[test]
    fn a_routers_report_says_whose_packet_was_too_big_and_how_it_begins() {
        let kind = ErrorKind::PacketTooBig { mtu: 1380 };
        let offending = udp_v4(CLIENT, [10, 9, 9, 9], 1400);
        let mut packet = report(kind, &offending, ROUTER).unwrap();
        let read = TooBig::parse_v4(&packet).unwrap();
        let ends = (IpAddr::from(CLIENT), IpAddr::from([10, 9, 9, 9]));
        assert_eq!((read.local, read.remote), ends);
        assert_eq!((read.protocol, read.len, read.mtu), (ip::UDP, 1428, 1380));
        assert_eq!(read.payload, &offending[20..ERROR_V4_LEN_MAX - 28]);
        for at in 0..packet.len() {
            packet[at] ^= 0x10;
            assert_eq!(TooBig::parse_v4(&packet), None, "byte {at}");
            packet[at] ^= 0x10;
        }
        // An old router does not say what fits (RFC 1191 section 5).
        for (len, mtu) in [(1400, 1006), (1500, 1492), (9000, 8166)] {
            let old = udp_v4(CLIENT, [10, 9, 9, 9], len);
            let old = report(ErrorKind::PacketTooBig { mtu: 0 }, &old, ROUTER).unwrap();
            assert_eq!(TooBig::parse_v4(&old).unwrap().mtu, mtu);
        }
        let offending = udp_v6(ROUTER_V6, 1400);
        let packet = report(kind, &offending, ROUTER_V6).unwrap();
        let read = TooBig::parse_v6(&packet[40..]).unwrap();
        assert_eq!(read.local, IpAddr::from(CLIENT_V6));
        assert_eq!((read.protocol, read.len, read.mtu), (ip::UDP, 1448, 1380));
        assert_eq!(read.payload, &offending[40..ERROR_V6_LEN_MAX - 48]);
        let other = report(ErrorKind::TimeExceeded, &offending, ROUTER_V6).unwrap();
        assert_eq!(TooBig::parse_v6(&other[40..]), None);
    }

    proptest! {
        #[test]
        fn random_reports_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120),
            len in 0..120_usize,
        ) {
            let _v6 = TooBig::parse_v6(&bytes);
            if bytes.len() >= 28 {
                bytes[..2].copy_from_slice(&[2, 0]);
                let _v6 = TooBig::parse_v6(&bytes);
                bytes[20..22].copy_from_slice(&[3, 4]);
                bytes[22..24].fill(0);
                let sum = Sum::new().bytes(&bytes[20..]).checksum();
                put_word(&mut bytes, 22, sum);
                let total = bytes.len();
                bytes[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 9, ip::ICMP]);
                put_word(&mut bytes, 2, u16::try_from(total).unwrap());
                bytes[10..12].fill(0);
                let sum = Sum::new().bytes(&bytes[..20]).checksum();
                put_word(&mut bytes, 10, sum);
                let _v4 = TooBig::parse_v4(&bytes);
                let _cut = TooBig::parse_v4(&bytes[..len.min(total)]);
            }
        }
    }

    #[test]
    fn every_v4_error_is_read_back_by_etherparse() {
        use DestUnreachableHeader as Unreachable;
        let offending = udp_v4(CLIENT, [10, 9, 9, 9], 1400);
        let expected = [
            Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
            Icmpv4Type::DestinationUnreachable(Unreachable::Network),
            Icmpv4Type::DestinationUnreachable(Unreachable::Host),
            Icmpv4Type::DestinationUnreachable(Unreachable::FilterProhibited),
            Icmpv4Type::DestinationUnreachable(Unreachable::FragmentationNeeded {
                next_hop_mtu: 1380,
            }),
        ];
        for (kind, expected) in KINDS.into_iter().zip(expected) {
            let packet = report(kind, &offending, ROUTER).unwrap();
            let (ip, message) = Ipv4Header::from_slice(&packet).unwrap();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!((ip.source, ip.destination), (ROUTER, CLIENT));
            assert_eq!(usize::from(ip.total_len), packet.len());
            let message = Icmpv4Slice::from_slice(message).unwrap();
            assert_eq!(message.icmp_type(), expected);
            assert_eq!(
                message.checksum(),
                expected.calc_checksum(message.payload())
            );
            assert_eq!(packet.len(), 576);
            assert_eq!(message.payload(), &offending[..576 - 28]);
        }
    }

    #[test]
    fn every_v6_error_is_read_back_by_etherparse() {
        let offending = udp_v6([0xfd; 16], 1400);
        let expected = [
            Icmpv6Type::TimeExceeded(etherparse::icmpv6::TimeExceededCode::HopLimitExceeded),
            Icmpv6Type::DestinationUnreachable(DestUnreachableCode::NoRoute),
            Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Address),
            Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Prohibited),
            Icmpv6Type::PacketTooBig { mtu: 1380 },
        ];
        for (kind, expected) in KINDS.into_iter().zip(expected) {
            let packet = report(kind, &offending, ROUTER_V6).unwrap();
            let (ip, message) = Ipv6Header::from_slice(&packet).unwrap();
            assert_eq!((ip.source, ip.destination), (ROUTER_V6, CLIENT_V6));
            assert_eq!(usize::from(ip.payload_length), message.len());
            let message = Icmpv6Slice::from_slice(message).unwrap();
            assert_eq!(message.icmp_type(), expected);
            assert!(message.is_checksum_valid(ROUTER_V6, CLIENT_V6));
            assert_eq!(packet.len(), 1280);
            assert_eq!(message.payload(), &offending[..1280 - 48]);
        }
    }

    #[test]
    fn a_short_packet_is_quoted_whole_without_its_padding() {
        let mut offending = udp_v4(CLIENT, [10, 9, 9, 9], 10);
        offending.extend([0; 10]);
        let packet = report(ErrorKind::TimeExceeded, &offending, ROUTER).unwrap();
        assert_eq!(packet[28..], offending[..38]);
    }

    #[test]
    fn no_error_is_sent_about_an_icmp_error_but_about_an_echo_request() {
        for kind in KINDS {
            let first = report(kind, &udp_v4(CLIENT, ROUTER, 9), [10, 7, 7, 7]).unwrap();
            assert_eq!(report(kind, &first, ROUTER), None);
            let first = report(kind, &udp_v6([0xfd; 16], 9), ROUTER_V6).unwrap();
            assert_eq!(report(kind, &first, CLIENT_V6), None);
            let mut echo = Vec::new();
            let builder = PacketBuilder::ipv4(CLIENT, ROUTER, 9).icmpv4_echo_request(1, 2);
            builder.write(&mut echo, &[1, 2, 3]).unwrap();
            assert!(report(kind, &echo, ROUTER).is_some());
        }
    }

    #[test]
    fn no_error_goes_to_or_about_what_is_no_single_host() {
        let kind = ErrorKind::NetUnreachable;
        let strange: [[u8; 4]; 5] = [
            [0; 4],
            [127, 0, 0, 1],
            [224, 0, 0, 5],
            [255; 4],
            [240, 0, 0, 1],
        ];
        for address in strange {
            assert_eq!(report(kind, &udp_v4(address, CLIENT, 9), ROUTER), None);
            assert_eq!(report(kind, &udp_v4(CLIENT, address, 9), ROUTER), None);
        }
    }

    #[test]
    fn only_packet_too_big_is_sent_about_ipv6_multicast() {
        let mut group = [0; 16];
        (group[0], group[1]) = (0xff, 0x0e);
        let offending = udp_v6(group, 9);
        assert_eq!(report(ErrorKind::TimeExceeded, &offending, ROUTER_V6), None);
        assert!(report(ErrorKind::PacketTooBig { mtu: 1280 }, &offending, ROUTER_V6).is_some());
    }

    #[test]
    fn no_error_is_sent_about_a_later_fragment() {
        let mut offending = udp_v4(CLIENT, [10, 9, 9, 9], 100);
        (offending[6], offending[7]) = (0x00, 0x10);
        put_word(&mut offending, 10, 0);
        let sum = Sum::new().bytes(&offending[..20]).checksum();
        put_word(&mut offending, 10, sum);
        assert!(Inner::parse(&offending).unwrap().is_fragment);
        assert_eq!(report(ErrorKind::TimeExceeded, &offending, ROUTER), None);
    }

    #[test]
    fn an_error_needs_an_address_of_the_same_family_and_room() {
        let offending = udp_v4(CLIENT, [10, 9, 9, 9], 100);
        assert_eq!(report(ErrorKind::TimeExceeded, &offending, ROUTER_V6), None);
        let from = IpAddr::from(ROUTER);
        assert_eq!(
            error(ErrorKind::TimeExceeded, &offending, from, &mut [0; 100]),
            None
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            first in prop::sample::select(vec![0x45_u8, 0x60, 0x00]),
            mut bytes in prop::collection::vec(any::<u8>(), 0..120),
            kind in prop::sample::select(KINDS.to_vec()),
            room in 0_usize..1300,
        ) {
            if bytes.len() >= 40 {
                bytes[0] = first;
                let len = u16::try_from(bytes.len()).unwrap();
                put_word(&mut bytes, 2, len);
                put_word(&mut bytes, 10, 0);
                let sum = Sum::new().bytes(&bytes[..20]).checksum();
                put_word(&mut bytes, 10, sum);
                if first == 0x60 {
                    put_word(&mut bytes, 4, len - 40);
                }
            }
            let mut out = vec![0; room];
            for from in [IpAddr::from(ROUTER), IpAddr::from(ROUTER_V6)] {
                let len = error(kind, &bytes, from, &mut out);
                prop_assert!(len.is_none_or(|len| len <= room));
            }
        }
    }
}
