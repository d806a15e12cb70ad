//! The maximum segment size of TCP: lowered to what fits a tunnel, in both directions.

use super::checksum;
use super::ip::{Inner, TCP, put_word, word};

const SYN: u8 = 0x02;

/// Options of TCP (RFC 9293 section 3.1).
const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;

/// The largest segment whose packets have `mtu` bytes, with a bare IP header and a bare TCP header (RFC 6691
/// section 2).
#[must_use]
pub fn of_mtu(mtu: u16, version: u8) -> u16 {
    mtu.saturating_sub(if version == 6 { 60 } else { 40 })
}

/// Lowers the MSS that a SYN offers to what fits `mtu`, if it offers more. Where `is_checksum_open`, the
/// checksum is yet to be computed over what stands in the packet, and stays as it is. A SYN without the
/// option means 536 or 1220 (RFC 9293 section 3.7.1), which fits; one behind IPv6 extension headers stays.
pub fn clamp(packet: &mut [u8], mtu: u16, is_checksum_open: bool) {
    if !is_syn(packet) {
        return;
    }
    let Ok(inner) = Inner::parse(packet) else {
        return;
    };
    if inner.protocol != TCP || inner.fragment_offset != 0 {
        return;
    }
    let l4 = &mut packet[inner.l4_offset..inner.total_len];
    if l4.len() < 20 || l4[13] & SYN == 0 {
        return;
    }
    let header_len = usize::from(l4[12] >> 4) * 4;
    if header_len > l4.len() {
        return;
    }
    let Some(at) = find(&l4[..header_len]) else {
        return;
    };
    let max = of_mtu(mtu, inner.version);
    if word(l4, at) <= max {
        return;
    }
    // The option may lie across two words of the checksum. The header ends at a multiple of four.
    let first = at & !1;
    let before = [word(l4, first), second(l4, at)];
    put_word(l4, at, max);
    if !is_checksum_open {
        let sum = checksum::update(word(l4, 16), before[0], word(l4, first));
        let sum = checksum::update(sum, before[1], second(l4, at));
        put_word(l4, 16, sum);
    }
}

/// Whether it looks like one at a glance, which is all that most packets get.
fn is_syn(packet: &[u8]) -> bool {
    let l4_offset = match packet.first() {
        Some(first) if first >> 4 == 4 && packet.get(9) == Some(&TCP) => {
            usize::from(first & 15) * 4
        }
        Some(first) if first >> 4 == 6 && packet.get(6) == Some(&TCP) => 40,
        Some(_) | None => return false,
    };
    packet
        .get(l4_offset + 13)
        .is_some_and(|flags| flags & SYN != 0)
}

/// The word behind the one that an option at an odd place begins in; 0 for one that has a word of its own.
fn second(l4: &[u8], at: usize) -> u16 {
    if at % 2 == 1 { word(l4, at + 1) } else { 0 }
}

/// Where the number of the MSS option stands in a TCP header.
fn find(header: &[u8]) -> Option<usize> {
    let mut at = 20;
    while at < header.len() {
        match header[at] {
            END => return None,
            NOTHING => at += 1,
            kind => {
                let len = usize::from(*header.get(at + 1)?);
                if len < 2 || at + len > header.len() {
                    return None;
                }
                if kind == MSS && len == 4 {
                    return Some(at + 2);
                }
                at += len;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TcpOptionElement, TransportHeader};
    use proptest::prelude::*;

    use super::*;

    fn syn(options: &[u8], is_v6: bool) -> Vec<u8> {
        let mut packet = Vec::new();
        if is_v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 64)
                .tcp(1, 2, 3, 4)
                .syn()
                .options_raw(options)
                .unwrap()
                .write(&mut packet, &[])
                .unwrap();
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                .tcp(1, 2, 3, 4)
                .syn()
                .options_raw(options)
                .unwrap()
                .write(&mut packet, &[])
                .unwrap();
        }
        packet
    }

    fn clamped(mut packet: Vec<u8>, mtu: u16) -> Vec<u8> {
        clamp(&mut packet, mtu, false);
        packet
    }

    /// What etherparse reads: the MSS, if the checksum is right too.
    fn mss(packet: &[u8]) -> Option<u16> {
        let headers = PacketHeaders::from_ip_slice(packet).unwrap();
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
            panic!("no TCP");
        };
        let expected = if let Some(NetHeaders::Ipv4(ip, _)) = headers.net {
            tcp.calc_checksum_ipv4_raw(ip.source, ip.destination, &[])
        } else if let Some(NetHeaders::Ipv6(ip, _)) = headers.net {
            tcp.calc_checksum_ipv6_raw(ip.source, ip.destination, &[])
        } else {
            panic!("no IP");
        };
        assert_eq!(tcp.checksum, expected.unwrap());
        tcp.options_iterator().find_map(|option| {
            if let Ok(TcpOptionElement::MaximumSegmentSize(mss)) = option {
                Some(mss)
            } else {
                None
            }
        })
    }

    #[test]
    fn gre_over_1500_bytes_of_ethernet_leaves_1436_bytes_for_ipv4_and_1416_for_ipv6() {
        let option = [2, 4, 0x05, 0xb4, 1, 3, 3, 7];
        assert_eq!(mss(&clamped(syn(&option, false), 1476)), Some(1436));
        assert_eq!(mss(&clamped(syn(&option, true), 1476)), Some(1416));
    }

    #[test]
    fn what_offers_less_or_nothing_or_is_no_syn_stays_as_it_is() {
        let less = syn(&[2, 4, 0x05, 0x00], false);
        assert_eq!(clamped(less.clone(), 1476), less);
        let nothing = syn(&[4, 2, 1, 1], false);
        assert_eq!(clamped(nothing.clone(), 600), nothing);
        let mut data = syn(&[2, 4, 0x05, 0xb4], false);
        data[20 + 13] = 0x10;
        assert_eq!(clamped(data.clone(), 600), data);
        // A later fragment, whose bytes only look like a SYN.
        let mut piece = syn(&[2, 4, 0x05, 0xb4], false);
        piece[7] = 9;
        let sum = checksum::update(word(&piece, 10), 0x4000, word(&piece, 6));
        put_word(&mut piece, 10, sum);
        assert!(Inner::parse(&piece).unwrap().fragment_offset != 0);
        assert_eq!(clamped(piece.clone(), 600), piece);
    }

    #[test]
    fn an_open_checksum_stays_open() {
        let mut packet = syn(&[2, 4, 0x05, 0xb4], false);
        let sum = word(&packet, 20 + 16);
        clamp(&mut packet, 1400, true);
        assert_eq!(word(&packet, 20 + 22), 1360);
        assert_eq!(word(&packet, 20 + 16), sum);
    }

    proptest! {
        #[test]
        fn wherever_the_option_stands_the_checksum_is_what_etherparse_computes(
            pads in 0_usize..5, offered in 1_u16.., mtu in 576_u16..9000, is_v6: bool,
        ) {
            let mut options = vec![1; pads];
            options.extend([2, 4]);
            options.extend(offered.to_be_bytes());
            let expected = offered.min(of_mtu(mtu, if is_v6 { 6 } else { 4 }));
            prop_assert_eq!(mss(&clamped(syn(&options, is_v6), mtu)), Some(expected));
        }

        #[test]
        fn random_headers_never_panic(
            mut rest in prop::collection::vec(any::<u8>(), 20..80), mtu: u16,
        ) {
            rest[13] |= SYN;
            let mut packet = Vec::new();
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                .write(&mut packet, etherparse::IpNumber::TCP, &rest)
                .unwrap();
            let len = packet.len();
            prop_assert_eq!(clamped(packet, mtu).len(), len);
        }
    }
}
