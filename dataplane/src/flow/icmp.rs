//! ICMP errors about our own packets: which flow, and what it means for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::face::{Ended, Protocol};
use super::table::Key;
use crate::wire::checksum::Sum;
use crate::wire::ip::{ICMP, ICMPV6, Inner, TCP, UDP};

/// Type 3 of ICMP (RFC 792) and 1 of ICMPv6 (RFC 4443): destination unreachable.
const UNREACHABLE_V4: u8 = 3;
const UNREACHABLE_V6: u8 = 1;
/// The codes that mean the port: nobody listens there.
const PORT_V4: u8 = 3;
const PORT_V6: u8 = 4;
/// Fragmentation needed: about one packet, not about the way.
const TOO_BIG_V4: u8 = 4;
/// Bytes of the error before the packet that it quotes.
const HEADER: usize = 8;

/// The flow that an error is about, and how it ends; `None` for everything else. An error counts
/// only if it was sent to the address that its quoted packet came from.
pub(super) fn verdict(packet: &[u8], inner: &Inner) -> Option<(Key, Ended)> {
    let message = &packet[inner.l4_offset..inner.total_len];
    let sum = match inner.protocol {
        ICMP => Sum::new(),
        ICMPV6 => Sum::pseudo(inner.src, inner.dst, ICMPV6, message.len()),
        _ => return None,
    };
    if inner.is_fragment || message.len() < HEADER || sum.bytes(message).checksum() != 0 {
        return None;
    }
    let is_v4 = inner.protocol == ICMP;
    let (kind, code) = (message[0], message[1]);
    let ended = match (is_v4, kind, code) {
        (true, UNREACHABLE_V4, TOO_BIG_V4) => return None,
        (true, UNREACHABLE_V4, PORT_V4) | (false, UNREACHABLE_V6, PORT_V6) => Ended::Refused,
        (true, UNREACHABLE_V4, _) | (false, UNREACHABLE_V6, _) => Ended::Unreachable,
        _ => return None,
    };
    let key = quoted(&message[HEADER..], is_v4)?;
    (key.local.ip() == inner.dst).then_some((key, ended))
}

/// The flow of a packet of ours of which only the beginning is there.
fn quoted(packet: &[u8], is_v4: bool) -> Option<Key> {
    let (protocol, source, to, header) = if is_v4 {
        let head: &[u8; 20] = packet.first_chunk()?;
        let source = Ipv4Addr::new(head[12], head[13], head[14], head[15]);
        let to = Ipv4Addr::new(head[16], head[17], head[18], head[19]);
        let header = usize::from(head[0] & 0x0f) * 4;
        (head[9], IpAddr::V4(source), IpAddr::V4(to), header)
    } else {
        let head: &[u8; 40] = packet.first_chunk()?;
        let octets = |at: usize| {
            let octets: [u8; 16] = head[at..at + 16].try_into().expect("sixteen bytes");
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        (head[6], octets(8), octets(24), 40)
    };
    let protocol = match protocol {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ => return None,
    };
    let [s0, s1, d0, d1] = *packet.get(header..)?.first_chunk::<4>()?;
    Some(Key {
        protocol,
        local: SocketAddr::new(source, u16::from_be_bytes([s0, s1])),
        remote: SocketAddr::new(to, u16::from_be_bytes([d0, d1])),
    })
}
