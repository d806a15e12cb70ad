//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4): whole packets, written, read and answered.

use std::net::IpAddr;

use super::checksum::{self, Sum};
use super::ip::{ICMP, ICMPV6, Inner, put_word, word};

/// TTL of the packets we send (the recommended default of RFC 1700).
const TTL: u8 = 64;
/// Type, code, checksum, identifier, sequence.
const HEADER_LEN: usize = 8;

/// Which of the two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wants an answer.
    Request,
    /// Is one.
    Reply,
}

impl Kind {
    fn v4(self) -> u8 {
        match self {
            Self::Request => 8,
            Self::Reply => 0,
        }
    }

    fn v6(self) -> u8 {
        match self {
            Self::Request => 128,
            Self::Reply => 129,
        }
    }
}

/// An echo message. `P` is where its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'p> {
    /// Request or reply.
    pub kind: Kind,
    /// Tells the sender's purposes apart.
    pub id: u16,
    /// Tells its messages apart.
    pub sequence: u16,
    /// Comes back as it was sent.
    pub payload: &'p [u8],
}

impl<'p> Echo<'p> {
    /// Reads the message in `packet`, which `inner` was parsed from. `None` for anything else:
    /// another protocol, type or code, a piece of a datagram, a wrong checksum.
    #[must_use]
    pub fn read(packet: &'p [u8], inner: &Inner) -> Option<Self> {
        if inner.is_fragment {
            return None;
        }
        let message = packet.get(inner.l4_offset..inner.total_len)?;
        let (header, payload) = message.split_at_checked(HEADER_LEN)?;
        let (kind, sum) = match (inner.version, inner.protocol, header[0]) {
            (4, ICMP, 8) => (Kind::Request, Sum::new()),
            (4, ICMP, 0) => (Kind::Reply, Sum::new()),
            (6, ICMPV6, 128) => (Kind::Request, pseudo(inner, message.len())),
            (6, ICMPV6, 129) => (Kind::Reply, pseudo(inner, message.len())),
            _ => return None,
        };
        let is_intact = header[1] == 0 && sum.bytes(message).checksum() == 0;
        is_intact.then(|| Self {
            kind,
            id: word(header, 4),
            sequence: word(header, 6),
            payload,
        })
    }

    /// Reads a reply without its IP header. Its checksum is not looked at: ICMPv6's needs the addresses,
    /// and the kernel checks it.
    #[must_use]
    pub fn reply(message: &'p [u8], is_ipv4: bool) -> Option<Self> {
        let (header, payload) = message.split_at_checked(HEADER_LEN)?;
        let kind = Kind::Reply;
        let wanted = if is_ipv4 { kind.v4() } else { kind.v6() };
        ((header[0], header[1]) == (wanted, 0)).then(|| Self {
            kind,
            id: word(header, 4),
            sequence: word(header, 6),
            payload,
        })
    }

    /// Writes a whole packet into `out`, and returns its length; `None` when the addresses are of
    /// two families, or `out` is too short.
    #[must_use]
    pub fn write(&self, src: IpAddr, dst: IpAddr, out: &mut [u8]) -> Option<usize> {
        let message_len = HEADER_LEN + self.payload.len();
        let header_len = match (src, dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => 20,
            (IpAddr::V6(_), IpAddr::V6(_)) => 40,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let out = out.get_mut(..header_len + message_len)?;
        let (header, message) = out.split_at_mut(header_len);
        header.fill(0);
        message[..HEADER_LEN].fill(0);
        put_word(message, 4, self.id);
        put_word(message, 6, self.sequence);
        message[HEADER_LEN..].copy_from_slice(self.payload);
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                (header[0], header[8], header[9]) = (0x45, TTL, ICMP);
                put_word(header, 2, u16::try_from(header_len + message_len).ok()?);
                header[12..16].copy_from_slice(&src.octets());
                header[16..20].copy_from_slice(&dst.octets());
                let sum = Sum::new().bytes(header).checksum();
                put_word(header, 10, sum);
                message[0] = self.kind.v4();
                let sum = Sum::new().bytes(message).checksum();
                put_word(message, 2, sum);
            }
            (IpAddr::V6(v6_src), IpAddr::V6(v6_dst)) => {
                (header[0], header[6], header[7]) = (0x60, ICMPV6, TTL);
                put_word(header, 4, u16::try_from(message_len).ok()?);
                header[8..24].copy_from_slice(&v6_src.octets());
                header[24..40].copy_from_slice(&v6_dst.octets());
                message[0] = self.kind.v6();
                let sum = Sum::pseudo(src, dst, ICMPV6, message_len);
                put_word(message, 2, sum.bytes(message).checksum());
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        }
        Some(header_len + message_len)
    }
}

/// Makes the request in `packet`, which `inner` was parsed from and [`Echo::read`] took, its own
/// answer.
pub fn answer(packet: &mut [u8], inner: &Inner) {
    let (addresses, len, kind) = match inner.version {
        4 => (12, 4, Kind::Reply.v4()),
        _ => (8, 16, Kind::Reply.v6()),
    };
    let (src, dst) = packet[addresses..addresses + 2 * len].split_at_mut(len);
    src.swap_with_slice(dst);
    if inner.version == 4 {
        packet[8] = TTL;
        put_word(packet, 10, 0);
        let sum = Sum::new().bytes(&packet[..inner.l4_offset]).checksum();
        put_word(packet, 10, sum);
    } else {
        packet[7] = TTL;
    }
    // Swapped addresses sum up the same; of the rest only the type changes.
    let message = &mut packet[inner.l4_offset..];
    let before = word(message, 0);
    message[0] = kind;
    let sum = checksum::update(word(message, 2), before, word(message, 0));
    put_word(message, 2, sum);
}

fn pseudo(inner: &Inner, len: usize) -> Sum {
    Sum::pseudo(inner.src, inner.dst, ICMPV6, len)
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, PacketBuilder};
    use proptest::prelude::*;

    use super::*;

    const V4: ([u8; 4], [u8; 4]) = ([10, 255, 0, 0], [10, 255, 0, 1]);
    const V6: ([u8; 16], [u8; 16]) = ([0xfd; 16], [0xfe; 16]);

    #[test]
    fn what_is_written_is_read_back_by_etherparse() {
        let echo = Echo {
            kind: Kind::Request,
            id: 7,
            sequence: 9,
            payload: b"sixteen bytes!!!",
        };
        let mut out = [0xee; 100];
        let len = echo.write(V4.0.into(), V4.1.into(), &mut out).unwrap();
        let (ip, message) = etherparse::Ipv4Header::from_slice(&out[..len]).unwrap();
        assert_eq!((ip.source, ip.destination), V4);
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        let message = Icmpv4Slice::from_slice(message).unwrap();
        let Icmpv4Type::EchoRequest(header) = message.icmp_type() else {
            panic!("{message:?}");
        };
        assert_eq!((header.id, header.seq), (7, 9));
        let sum = message.icmp_type().calc_checksum(message.payload());
        assert_eq!(message.checksum(), sum);
        assert_eq!(message.payload(), echo.payload);
        let reply = Echo {
            kind: Kind::Reply,
            ..echo
        };
        let len = reply.write(V6.0.into(), V6.1.into(), &mut out).unwrap();
        let (ip, message) = etherparse::Ipv6Header::from_slice(&out[..len]).unwrap();
        assert_eq!((ip.source, ip.destination), V6);
        let message = Icmpv6Slice::from_slice(message).unwrap();
        assert!(matches!(message.icmp_type(), Icmpv6Type::EchoReply(header) if header.seq == 9));
        assert!(message.is_checksum_valid(V6.0, V6.1));
    }

    #[test]
    fn an_answer_goes_back_with_the_same_payload_and_right_checksums() {
        let echo = Echo {
            kind: Kind::Request,
            id: 7,
            sequence: 9,
            payload: b"odd",
        };
        for (src, dst) in [
            (IpAddr::from(V4.0), IpAddr::from(V4.1)),
            (V6.0.into(), V6.1.into()),
        ] {
            let mut packet = [0; 100];
            let len = echo.write(src, dst, &mut packet).unwrap();
            let packet = &mut packet[..len];
            packet[if src.is_ipv4() { 8 } else { 7 }] = 3;
            if src.is_ipv4() {
                put_word(packet, 10, 0);
                let sum = Sum::new().bytes(&packet[..20]).checksum();
                put_word(packet, 10, sum);
            }
            answer(packet, &Inner::parse(packet).unwrap());
            let inner = Inner::parse(packet).unwrap();
            assert_eq!((inner.src, inner.dst, inner.ttl), (dst, src, 64));
            let kind = Kind::Reply;
            let expected = Echo { kind, ..echo };
            assert_eq!(Echo::read(packet, &inner), Some(expected));
        }
    }

    #[test]
    fn what_etherparse_writes_is_read_and_damage_is_not() {
        let mut packets = [Vec::new(), Vec::new()];
        PacketBuilder::ipv4(V4.0, V4.1, 9)
            .icmpv4_echo_request(1, 2)
            .write(&mut packets[0], b"hello")
            .unwrap();
        PacketBuilder::ipv6(V6.0, V6.1, 9)
            .icmpv6_echo_request(1, 2)
            .write(&mut packets[1], b"hello")
            .unwrap();
        let expected = Echo {
            kind: Kind::Request,
            id: 1,
            sequence: 2,
            payload: b"hello",
        };
        for mut packet in packets {
            let inner = Inner::parse(&packet).unwrap();
            assert_eq!(Echo::read(&packet, &inner), Some(expected));
            for at in inner.l4_offset..packet.len() {
                packet[at] ^= 0x10;
                assert_eq!(Echo::read(&packet, &inner), None, "byte {at}");
                packet[at] ^= 0x10;
            }
            for protocol in [0, 6, 17] {
                let other = Inner { protocol, ..inner };
                assert_eq!(Echo::read(&packet, &other), None);
            }
            let is_fragment = true;
            let piece = Inner {
                is_fragment,
                ..inner
            };
            assert_eq!(Echo::read(&packet, &piece), None);
        }
        let echo = expected;
        assert_eq!(echo.write(V4.0.into(), V6.1.into(), &mut [0; 100]), None);
        assert_eq!(echo.write(V4.0.into(), V4.1.into(), &mut [0; 32]), None);
    }

    proptest! {
        #[test]
        fn random_messages_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 20..100), is_v6: bool,
        ) {
            let len = u16::try_from(bytes.len()).unwrap();
            if is_v6 && bytes.len() >= 40 {
                (bytes[0], bytes[6]) = (0x60, ICMPV6);
                put_word(&mut bytes, 4, len - 40);
            } else {
                (bytes[0], bytes[9]) = (0x45, ICMP);
                put_word(&mut bytes, 2, len);
                put_word(&mut bytes, 6, 0);
                put_word(&mut bytes, 10, 0);
                let sum = Sum::new().bytes(&bytes[..20]).checksum();
                put_word(&mut bytes, 10, sum);
            }
            let inner = Inner::parse(&bytes).unwrap();
            if let Some(echo) = Echo::read(&bytes, &inner) {
                let mut out = [0; 200];
                let len = echo.write(inner.src, inner.dst, &mut out).unwrap();
                prop_assert_eq!(&out[len - echo.payload.len()..len], echo.payload);
            }
        }
    }
}
