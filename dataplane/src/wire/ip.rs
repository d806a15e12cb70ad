//! One parse of an inner IP packet, and the TTL.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{self, Sum};

/// ICMP over IPv4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// Generic Routing Encapsulation.
pub const GRE: u8 = 47;
/// Protocol number of ESP.
pub const ESP: u8 = 50;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// Extension headers that are walked before a packet counts as malformed. RFC 8200 section 4.1
/// names seven; more is an attack on the walker.
const EXTENSIONS_MAX: usize = 8;

/// The longest IPv4 packet, and the longest IPv6 payload.
const PACKET_LEN_MAX: usize = 65_535;

/// Why bytes are not an IP packet that can be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the headers say.
    #[error("fewer bytes than the headers say")]
    Truncated,
    /// Neither IPv4 nor IPv6.
    #[error("neither IPv4 nor IPv6")]
    Version,
    /// A header length that cannot be, or a piece that ends behind the longest packet.
    #[error("a header length that cannot be, or a piece that ends behind the longest packet")]
    HeaderLength,
    /// The IPv4 header checksum is wrong.
    #[error("the IPv4 header checksum is wrong")]
    Checksum,
    /// Too long a chain of IPv6 extension headers.
    #[error("too long a chain of IPv6 extension headers")]
    Extensions,
    /// The offload metadata does not fit the packet.
    #[error("the offload metadata does not fit the packet")]
    Offload,
}

/// What one parse of an IP packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// 4 or 6.
    pub version: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The upper-layer protocol, past IPv6 extension headers.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Where the upper layer begins, in bytes from the start of the packet.
    pub l4_offset: usize,
    /// Length of the packet by its own header; bytes behind it are padding.
    pub total_len: usize,
    /// Whether this is a piece of a datagram: its first or a later one.
    pub is_fragment: bool,
    /// Position of the piece in its datagram, in bytes; 0 for the first piece and for whole
    /// datagrams.
    pub fragment_offset: u16,
    /// Source and destination port of TCP or UDP; `None` for others, later pieces, and cut headers.
    pub ports: Option<(u16, u16)>,
}

impl Inner {
    /// Reads the headers of `packet`, which may carry padding behind its end.
    ///
    /// # Errors
    /// [`Malformed`] when version, lengths, IHL, header checksum or extension headers do not hold.
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let mut inner = match packet.first().map(|byte| byte >> 4) {
            None => return Err(Malformed::Truncated),
            Some(4) => parse_v4(packet)?,
            Some(6) => parse_v6(packet)?,
            Some(_) => return Err(Malformed::Version),
        };
        if inner.fragment_offset == 0
            && matches!(inner.protocol, TCP | UDP)
            && let Some(ports) = packet[inner.l4_offset..inner.total_len].first_chunk::<4>()
        {
            let [s0, s1, d0, d1] = *ports;
            inner.ports = Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])));
        }
        Ok(inner)
    }
}

fn parse_v4(packet: &[u8]) -> Result<Inner, Malformed> {
    let head: &[u8; 20] = packet.first_chunk().ok_or(Malformed::Truncated)?;
    let header_len = usize::from(head[0] & 0x0f) * 4;
    let total_len = usize::from(word(head, 2));
    if header_len < 20 || total_len < header_len {
        return Err(Malformed::HeaderLength);
    }
    if packet.len() < total_len {
        return Err(Malformed::Truncated);
    }
    if Sum::new().bytes(&packet[..header_len]).checksum() != 0 {
        return Err(Malformed::Checksum);
    }
    let fragment = word(head, 6);
    let fragment_offset = (fragment & 0x1fff) << 3;
    // A piece that ends behind the longest packet is an attack on whoever puts it together.
    if usize::from(fragment_offset) + total_len > PACKET_LEN_MAX {
        return Err(Malformed::HeaderLength);
    }
    Ok(Inner {
        version: 4,
        src: Ipv4Addr::new(head[12], head[13], head[14], head[15]).into(),
        dst: Ipv4Addr::new(head[16], head[17], head[18], head[19]).into(),
        protocol: head[9],
        ttl: head[8],
        l4_offset: header_len,
        total_len,
        is_fragment: fragment & 0x3fff != 0,
        fragment_offset,
        ports: None,
    })
}

fn parse_v6(packet: &[u8]) -> Result<Inner, Malformed> {
    let head: &[u8; 40] = packet.first_chunk().ok_or(Malformed::Truncated)?;
    let total_len = 40 + usize::from(word(head, 4));
    if packet.len() < total_len {
        return Err(Malformed::Truncated);
    }
    let octets = |at: usize| {
        let octets: [u8; 16] = head[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut inner = Inner {
        version: 6,
        src: octets(8),
        dst: octets(24),
        protocol: head[6],
        ttl: head[7],
        l4_offset: 40,
        total_len,
        is_fragment: false,
        fragment_offset: 0,
        ports: None,
    };
    walk_extensions(&packet[..total_len], &mut inner)?;
    Ok(inner)
}

/// Moves `protocol` and `l4_offset` past the extension headers (RFC 8200 section 4).
fn walk_extensions(packet: &[u8], inner: &mut Inner) -> Result<(), Malformed> {
    for _ in 0..EXTENSIONS_MAX {
        let rest = &packet[inner.l4_offset..];
        let unit_len = match inner.protocol {
            0 | 43 | 60 => 8,
            // Authentication header: counted in words of four, less two (RFC 4302 section 2.2).
            51 => 4,
            44 => {
                let head: &[u8; 8] = rest.first_chunk().ok_or(Malformed::Truncated)?;
                inner.protocol = head[0];
                inner.fragment_offset = word(head, 2) & 0xfff8;
                inner.is_fragment = word(head, 2) & 0xfff9 != 0;
                inner.l4_offset += 8;
                // As of IPv4 (RFC 8200 section 4.5).
                let len = inner.total_len - inner.l4_offset;
                if usize::from(inner.fragment_offset) + len > PACKET_LEN_MAX {
                    return Err(Malformed::HeaderLength);
                }
                if inner.fragment_offset != 0 {
                    return Ok(());
                }
                continue;
            }
            _ => return Ok(()),
        };
        let head: &[u8; 2] = rest.first_chunk().ok_or(Malformed::Truncated)?;
        let base_units = if inner.protocol == 51 { 2 } else { 1 };
        let len = (usize::from(head[1]) + base_units) * unit_len;
        if rest.len() < len {
            return Err(Malformed::Truncated);
        }
        inner.protocol = head[0];
        inner.l4_offset += len;
    }
    Err(Malformed::Extensions)
}

/// Takes one hop off a packet that [`Inner::parse`] accepted, and keeps its header checksum right.
/// False, and nothing changed, when the packet may not be forwarded any more.
#[must_use]
pub fn decrement_ttl(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 && packet[8] > 1 => {
            let old = word(packet, 8);
            packet[8] -= 1;
            let sum = checksum::update(word(packet, 10), old, word(packet, 8));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            true
        }
        Some(6) if packet.len() >= 40 && packet[7] > 1 => {
            packet[7] -= 1;
            true
        }
        _ => false,
    }
}

/// The big-endian number at `at`. The caller has checked the length.
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Writes a big-endian number at `at`. The caller has checked the length.
pub(crate) fn put_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{IpNumber, Ipv4Header, PacketBuilder, PacketHeaders};
    use proptest::prelude::*;

    use super::*;

    /// The example of an IPv4 header that Wikipedia sums up by hand; its checksum is b861.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    fn datagram() -> Vec<u8> {
        let mut packet = HEADER.to_vec();
        packet.extend([0x00, 0x35, 0xe9, 0x7c, 0x00, 0x5f, 0x00, 0x00]);
        packet.resize(0x73, 0);
        packet
    }

    fn v6_with_extensions(chain: &[u8], first: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(chain.len()).unwrap().to_be_bytes());
        packet.extend([first, 64]);
        packet.extend([0x20; 32]);
        packet.extend(chain);
        packet
    }

    #[test]
    fn a_known_header_is_read_as_it_is() {
        let mut padded = datagram();
        padded.extend([0; 9]);
        let inner = Inner::parse(&padded).unwrap();
        assert_eq!(inner.src, IpAddr::from([192, 168, 0, 1]));
        assert_eq!(inner.dst, IpAddr::from([192, 168, 0, 199]));
        assert_eq!((inner.version, inner.ttl, inner.protocol), (4, 64, UDP));
        assert_eq!((inner.l4_offset, inner.total_len), (20, 0x73));
        assert_eq!(inner.ports, Some((53, 59772)));
        assert!(!inner.is_fragment);
    }

    #[test]
    fn headers_that_contradict_their_packet_are_malformed() {
        let with = |at: usize, value: u8| {
            let mut packet = datagram();
            packet[at] = value;
            Inner::parse(&packet)
        };
        assert_eq!(Inner::parse(&[]), Err(Malformed::Truncated));
        assert_eq!(Inner::parse(&datagram()[..0x72]), Err(Malformed::Truncated));
        assert_eq!(with(0, 0x55), Err(Malformed::Version));
        assert_eq!(with(0, 0x44), Err(Malformed::HeaderLength));
        assert_eq!(with(3, 19), Err(Malformed::HeaderLength));
        assert_eq!(with(2, 0x01), Err(Malformed::Truncated));
        assert_eq!(with(8, 63), Err(Malformed::Checksum));
        assert_eq!(Inner::parse(&[0x60; 39]), Err(Malformed::Truncated));
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut header =
            Ipv4Header::new(16, 64, IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        header.dont_fragment = false;
        header.fragment_offset = 185.try_into().unwrap();
        let mut packet = Vec::new();
        header.write(&mut packet).unwrap();
        packet.extend([0xaa; 16]);
        let inner = Inner::parse(&packet).unwrap();
        assert!(inner.is_fragment);
        assert_eq!((inner.fragment_offset, inner.ports), (1480, None));
    }

    #[test]
    fn a_piece_that_ends_behind_the_longest_packet_is_malformed() {
        let v4 = |offset: u16, len: u8| {
            let mut packet = datagram();
            packet.truncate(usize::from(len));
            (packet[3], packet[8]) = (len, 64);
            packet[6..8].copy_from_slice(&(offset / 8).to_be_bytes());
            packet[10..12].fill(0);
            let sum = Sum::new().bytes(&packet[..20]).checksum();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            Inner::parse(&packet).map(|inner| inner.is_fragment)
        };
        // The last piece of the longest packet: 65,535 bytes with its header (RFC 791 section 3.1).
        assert_eq!(v4(65_512, 23), Ok(true));
        assert_eq!(v4(65_512, 24), Err(Malformed::HeaderLength));
        assert_eq!(v4(65_528, 40), Err(Malformed::HeaderLength));
        let v6 = |offset: u16, len: usize| {
            let mut chain = vec![17, 0];
            chain.extend(offset.to_be_bytes());
            chain.extend([0, 0, 0, 9]);
            chain.resize(8 + len, 0);
            Inner::parse(&v6_with_extensions(&chain, 44)).map(|inner| inner.fragment_offset)
        };
        // RFC 8200 section 4.5: the payload would exceed 65,535 bytes.
        assert_eq!(v6(65_528, 7), Ok(65_528));
        assert_eq!(v6(65_528, 8), Err(Malformed::HeaderLength));
    }

    /// RFC 7112 section 5: the whole chain up to the upper layer is in the first piece.
    #[test]
    fn a_first_piece_whose_header_chain_goes_on_in_the_next_is_malformed() {
        let mut chain = vec![60, 0, 0, 1, 0, 0, 0, 9];
        chain.extend([6, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            Inner::parse(&v6_with_extensions(&chain, 44)),
            Err(Malformed::Truncated)
        );
        chain.extend([0; 8]);
        let inner = Inner::parse(&v6_with_extensions(&chain, 44)).unwrap();
        assert_eq!((inner.protocol, inner.ports), (TCP, None));
    }

    #[test]
    fn extension_headers_are_walked_to_the_upper_layer() {
        let mut chain = vec![60, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, 8 bytes
        chain.extend([51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // destination options, 16
        chain.extend([44, 4]); // authentication header, (4 + 2) * 4 bytes
        chain.extend([0; 22]);
        chain.extend([17, 0, 0, 1, 0, 0, 0, 9]); // first fragment
        chain.extend([0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0]);
        let inner = Inner::parse(&v6_with_extensions(&chain, 0)).unwrap();
        assert_eq!(
            (inner.protocol, inner.l4_offset),
            (UDP, 40 + 8 + 16 + 24 + 8)
        );
        assert_eq!(inner.ports, Some((0x1234, 0x5678)));
        assert!(inner.is_fragment);
    }

    #[test]
    fn endless_or_cut_extension_chains_are_malformed() {
        let endless = v6_with_extensions(&[60, 0, 0, 0, 0, 0, 0, 0].repeat(20), 60);
        assert_eq!(Inner::parse(&endless), Err(Malformed::Extensions));
        let cut = v6_with_extensions(&[60, 1, 0, 0, 0, 0, 0, 0], 60);
        assert_eq!(Inner::parse(&cut), Err(Malformed::Truncated));
        assert_eq!(
            Inner::parse(&v6_with_extensions(&[], 44)),
            Err(Malformed::Truncated)
        );
    }

    #[test]
    fn a_packet_with_one_hop_left_is_not_forwarded() {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 1)
            .udp(1, 2)
            .write(&mut packet, &[])
            .unwrap();
        let before = packet.clone();
        assert!(!decrement_ttl(&mut packet));
        assert_eq!(packet, before);
        packet[7] = 2;
        assert!(decrement_ttl(&mut packet));
        assert_eq!(packet[7], 1);
        assert!(!decrement_ttl(&mut []));
    }

    proptest! {
        #[test]
        fn a_decremented_ttl_keeps_the_checksum_that_etherparse_computes(
            src in any::<[u8; 4]>(), dst in any::<[u8; 4]>(), ttl in 2_u8.., id in any::<u16>(),
        ) {
            let mut header = Ipv4Header::new(0, ttl, IpNumber::UDP, src, dst).unwrap();
            header.identification = id;
            header.header_checksum = header.calc_header_checksum();
            let mut packet = header.to_bytes().to_vec();
            prop_assert!(decrement_ttl(&mut packet));
            let (after, _) = Ipv4Header::from_slice(&packet).unwrap();
            prop_assert_eq!(after.time_to_live, ttl - 1);
            prop_assert_eq!(after.header_checksum, after.calc_header_checksum());
        }

        #[test]
        fn random_bytes_never_panic(
            first in prop::sample::select(vec![0x45_u8, 0x46, 0x4f, 0x60, 0x00, 0x70]),
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            fix in any::<bool>(),
        ) {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            if fix && bytes.len() >= 40 {
                let len = u16::try_from(bytes.len()).unwrap();
                let (at, len) = if first >> 4 == 4 { (2, len) } else { (4, len - 40) };
                put_word(&mut bytes, at, len);
                // Next headers that are walked come up often.
                bytes[6] = [0, 43, 44, 51, 60, 6][usize::from(bytes[6] % 6)];
                if first == 0x45 {
                    put_word(&mut bytes, 10, 0);
                    let sum = Sum::new().bytes(&bytes[..20]).checksum();
                    put_word(&mut bytes, 10, sum);
                }
            }
            if let Ok(inner) = Inner::parse(&bytes) {
                prop_assert!(inner.l4_offset <= inner.total_len);
                prop_assert!(inner.total_len <= bytes.len());
                if let Ok(seen) = PacketHeaders::from_ip_slice(&bytes)
                    && let Some(etherparse::NetHeaders::Ipv4(ip, _)) = seen.net
                {
                    prop_assert_eq!(inner.src, IpAddr::from(ip.source));
                    prop_assert_eq!(inner.protocol, ip.protocol.0);
                }
            }
            let before = bytes.clone();
            prop_assert!(decrement_ttl(&mut bytes) || bytes == before);
        }
    }
}
