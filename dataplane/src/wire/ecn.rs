//! Explicit congestion notification through a tunnel: RFC 6040, normal mode.
//!
//! The traffic class is one byte: six bits DSCP, two bits ECN. An encapsulator copies the ECN field to the
//! outer header (section 4.1), [`class`] reads it. Tunnels are pipes for DSCP (RFC 2983 section 3.1): the
//! inner one is what the sender said, and comes out as it went in.

use super::checksum;
use super::ip::{put_word, word};

/// Not a capable transport.
pub const NOT_ECT: u8 = 0;
/// Capable, codepoint 1.
pub const ECT_1: u8 = 1;
/// Capable, codepoint 0.
pub const ECT_0: u8 = 2;
/// Congestion experienced.
pub const CE: u8 = 3;

/// The ECN field of a traffic class.
pub const MASK: u8 = 3;

/// The traffic class of an IP packet of either family; 0 of what is none.
#[must_use]
pub fn class(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        [first, second, ..] if first >> 4 == 4 => *second,
        _ => 0,
    }
}

/// The ECN field of the inner header after decapsulation (RFC 6040 section 4.2, figure 4). `None`: the
/// packet is to be dropped, because its transport cannot hear that there was congestion.
#[must_use]
pub fn decap(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) | (CE, _) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// Writes into a decapsulated packet what its outer header says of congestion. False: drop it.
#[must_use]
pub fn apply(packet: &mut [u8], outer: u8) -> bool {
    if outer & MASK == NOT_ECT {
        return true;
    }
    let inner = class(packet);
    let Some(ecn) = decap(inner, outer) else {
        return false;
    };
    if ecn != inner & MASK {
        set(packet, ecn);
    }
    true
}

/// Sets the ECN field, and keeps the header checksum of IPv4 right.
fn set(packet: &mut [u8], ecn: u8) {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & !(MASK << 4) | ecn << 4;
    } else if packet.len() >= 20 {
        let old = word(packet, 0);
        packet[1] = packet[1] & !MASK | ecn;
        let sum = checksum::update(word(packet, 10), old, word(packet, 0));
        put_word(packet, 10, sum);
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Header, Ipv6Header, PacketBuilder};

    use super::*;

    /// Figure 4 of RFC 6040: rows are the inner field, columns the outer, in the order Not-ECT, ECT(0),
    /// ECT(1), CE.
    const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
        (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
        (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
        (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];

    #[test]
    fn a_decapsulated_packet_has_the_field_of_figure_4_and_its_own_dscp() {
        for (inner, row) in FIGURE_4 {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                assert_eq!(decap(inner, outer), expected, "{inner} in {outer}");
                for mut packet in [v4(0xb8 | inner), v6(0xb8 | inner)] {
                    assert_eq!(apply(&mut packet, outer), expected.is_some());
                    let left = 0xb8 | expected.unwrap_or(inner);
                    assert_eq!(class(&packet), left);
                    if packet[0] == 0x45 {
                        let (header, _) = Ipv4Header::from_slice(&packet).unwrap();
                        assert_eq!(header.dscp.value() << 2 | header.ecn.value(), left);
                        assert_eq!(header.header_checksum, header.calc_header_checksum());
                    } else {
                        let (header, _) = Ipv6Header::from_slice(&packet).unwrap();
                        assert_eq!(header.traffic_class, left);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_packet_has_no_class() {
        assert_eq!([class(&[]), class(&[0x45]), class(&[0x15, 3])], [0, 0, 0]);
    }

    fn v4(class: u8) -> Vec<u8> {
        let mut header = Ipv4Header::new(0, 64, 17.into(), [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        header.dscp = (class >> 2).try_into().unwrap();
        header.ecn = (class & 3).try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        header.to_bytes().to_vec()
    }

    fn v6(class: u8) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 64)
            .udp(1, 2)
            .write(&mut packet, &[])
            .unwrap();
        packet[0] = 0x60 | class >> 4;
        packet[1] = class << 4;
        packet
    }
}
