//! Ethernet frames, and how neighbours find each other on it: ARP (RFC 826) and NDP (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::ip::{ICMPV6, put_word, word};

/// Bytes of an Ethernet header without a tag.
pub const HEADER_LEN: usize = 14;
/// The longest frame of ARP or NDP that is written: a neighbour solicitation with its option.
pub const MESSAGE_LEN_MAX: usize = HEADER_LEN + 40 + 32;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const TAG: u16 = 0x8100;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Flags of an advertisement (RFC 4861 section 4.4): it was asked for.
const SOLICITED: u8 = 0x40;
/// It replaces what was known.
const OVERRIDE: u8 = 0x20;

/// Every IPv6 node of a link (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names several, or nobody.
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0 || self.0 == [0; 6]
    }

    /// The group of an IPv6 multicast address (RFC 2464 section 7).
    #[must_use]
    pub fn of_group(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

/// The header of a frame.
#[must_use]
pub fn header(to: Mac, from: Mac, ether_type: u16) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..6].copy_from_slice(&to.0);
    header[6..12].copy_from_slice(&from.0);
    put_word(&mut header, 12, ether_type);
    header
}

/// What one neighbour says to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has `target`?
    Who {
        /// Who asks; `None` where it has no address yet and only wants to know whether `target` is
        /// taken (RFC 5227, RFC 4862 section 5.4).
        sender: Option<IpAddr>,
        /// Where the asker is.
        at: Mac,
        /// Who is looked for.
        target: IpAddr,
    },
    /// `target` is at `at`.
    Here {
        /// Who.
        target: IpAddr,
        /// Where.
        at: Mac,
        /// Whether it says that somebody asked; an announcement does not.
        is_answer: bool,
    },
}

/// Reads an ARP packet, which stands behind its Ethernet header. `None`: no well-formed question or
/// answer about IPv4 on Ethernet.
#[must_use]
pub fn parse_arp(packet: &[u8]) -> Option<Message> {
    let packet = packet.first_chunk::<28>()?;
    if packet[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let at = Mac(packet[8..14].try_into().ok()?);
    let v4 = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    if at.is_group() {
        return None;
    }
    let (sender, target) = (v4(14), v4(24));
    match word(packet, 6) {
        1 => Some(Message::Who {
            sender: (!sender.is_unspecified()).then_some(sender.into()),
            at,
            target: target.into(),
        }),
        2 => Some(Message::Here {
            target: sender.into(),
            at,
            is_answer: sender != target,
        }),
        _ => None,
    }
}

/// Reads an IPv6 packet that is a neighbour solicitation or advertisement by the rules of RFC 4861
/// sections 7.1.1 and 7.1.2: hop limit 255, code 0, a right checksum, options that are whole. `from`
/// is the frame's source, for a solicitation that does not say where its sender is. `None`: it is
/// none of these.
#[must_use]
pub fn parse_ndp(packet: &[u8], from: Mac) -> Option<Message> {
    let payload_len = usize::from(word(packet.get(..40)?, 4));
    let packet = packet.get(..40 + payload_len)?;
    let message = &packet[40..];
    if packet[0] >> 4 != 6 || packet[6] != ICMPV6 || packet[7] != 255 || message.len() < 24 {
        return None;
    }
    let v6 = |bytes: &[u8]| {
        bytes
            .first_chunk::<16>()
            .map(|octets| Ipv6Addr::from(*octets))
    };
    let (src, dst) = (v6(&packet[8..])?, v6(&packet[24..])?);
    let sum = Sum::pseudo(src.into(), dst.into(), ICMPV6, message.len());
    if message[1] != 0 || sum.bytes(message).checksum() != 0 {
        return None;
    }
    let target = v6(&message[8..])?;
    if target.is_multicast() {
        return None;
    }
    match message[0] {
        SOLICITATION => {
            let said = option(&message[24..], 1)?;
            let is_nameless = src.is_unspecified();
            let at = said.unwrap_or(from);
            if (is_nameless && said.is_some()) || at.is_group() {
                return None;
            }
            Some(Message::Who {
                sender: (!is_nameless).then_some(src.into()),
                at,
                target: target.into(),
            })
        }
        ADVERTISEMENT => {
            let is_answer = message[4] & SOLICITED != 0;
            if is_answer && dst.is_multicast() {
                return None;
            }
            Some(Message::Here {
                target: target.into(),
                at: option(&message[24..], 2)??,
                is_answer,
            })
        }
        _ => None,
    }
}

/// The link-layer address among options; the outer `None` when they are not whole.
#[expect(
    clippy::option_option,
    reason = "no such option, and options that cannot be, are different answers"
)]
fn option(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        if len == 0 || len > options.len() {
            return None;
        }
        if kind == wanted && len == 8 {
            let mac = Mac(options[2..8].try_into().ok()?);
            if mac.is_group() {
                return None;
            }
            found = Some(mac);
        }
        options = &options[len..];
    }
    options.is_empty().then_some(found)
}

/// Writes the frame that asks for `target`, and returns its length: to everybody, or to where it was
/// last. 0 for two families.
pub fn write_question(
    out: &mut [u8; MESSAGE_LEN_MAX],
    (from, mac): (IpAddr, Mac),
    target: IpAddr,
    to: Option<Mac>,
) -> usize {
    match (from, target) {
        (IpAddr::V4(from), IpAddr::V4(target)) => {
            let to = to.unwrap_or(Mac::BROADCAST);
            out[..HEADER_LEN].copy_from_slice(&header(to, mac, ARP));
            write_arp(out, 1, (from, mac), (target, Mac([0; 6])))
        }
        (IpAddr::V6(from), IpAddr::V6(target)) => {
            let group = solicited_node(target);
            let (dst, to) = match to {
                Some(to) => (target, to),
                None => (group, Mac::of_group(group)),
            };
            out[..HEADER_LEN].copy_from_slice(&header(to, mac, IPV6));
            write_ndp(out, (SOLICITATION, 0), (from, dst), target, (1, mac))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    }
}

/// Writes the frame that tells whoever asked, from the address `to` if it has one, that `target` is
/// at `mac`, and returns its length. 0 for two families.
pub fn write_answer(
    out: &mut [u8; MESSAGE_LEN_MAX],
    (target, mac): (IpAddr, Mac),
    (to, to_mac): (Option<IpAddr>, Mac),
) -> usize {
    match (target, to) {
        (IpAddr::V4(target), Some(IpAddr::V4(_)) | None) => {
            let to = match to {
                Some(IpAddr::V4(to)) => to,
                Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
            };
            out[..HEADER_LEN].copy_from_slice(&header(to_mac, mac, ARP));
            write_arp(out, 2, (target, mac), (to, to_mac))
        }
        (IpAddr::V6(target), Some(IpAddr::V6(to))) => {
            out[..HEADER_LEN].copy_from_slice(&header(to_mac, mac, IPV6));
            let kind = (ADVERTISEMENT, SOLICITED | OVERRIDE);
            write_ndp(out, kind, (target, to), target, (2, mac))
        }
        // Who has no address yet hears it with all others (RFC 4861 section 7.2.4).
        (IpAddr::V6(_), None) => write_announcement(out, (target, mac)),
        (IpAddr::V4(_), Some(IpAddr::V6(_))) | (IpAddr::V6(_), Some(IpAddr::V4(_))) => 0,
    }
}

/// Writes the frame that tells everybody that `target` is at `mac`, and returns its length: an ARP
/// announcement (RFC 5227 section 2.3), an unsolicited advertisement (RFC 4861 section 7.2.6).
pub fn write_announcement(out: &mut [u8; MESSAGE_LEN_MAX], (target, mac): (IpAddr, Mac)) -> usize {
    match target {
        IpAddr::V4(target) => {
            out[..HEADER_LEN].copy_from_slice(&header(Mac::BROADCAST, mac, ARP));
            write_arp(out, 1, (target, mac), (target, Mac([0; 6])))
        }
        IpAddr::V6(target) => {
            let to = Mac::of_group(ALL_NODES);
            out[..HEADER_LEN].copy_from_slice(&header(to, mac, IPV6));
            let ends = (target, ALL_NODES);
            write_ndp(out, (ADVERTISEMENT, OVERRIDE), ends, target, (2, mac))
        }
    }
}

fn write_arp(
    out: &mut [u8; MESSAGE_LEN_MAX],
    operation: u8,
    (sender, sender_mac): (Ipv4Addr, Mac),
    (target, target_mac): (Ipv4Addr, Mac),
) -> usize {
    let out = &mut out[HEADER_LEN..];
    out[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    out[8..14].copy_from_slice(&sender_mac.0);
    out[14..18].copy_from_slice(&sender.octets());
    out[18..24].copy_from_slice(&target_mac.0);
    out[24..28].copy_from_slice(&target.octets());
    HEADER_LEN + 28
}

fn write_ndp(
    out: &mut [u8; MESSAGE_LEN_MAX],
    (kind, flags): (u8, u8),
    (src, dst): (Ipv6Addr, Ipv6Addr),
    target: Ipv6Addr,
    (option, mac): (u8, Mac),
) -> usize {
    let out = &mut out[HEADER_LEN..];
    out[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    out[8..24].copy_from_slice(&src.octets());
    out[24..40].copy_from_slice(&dst.octets());
    let message = &mut out[40..72];
    message[..8].copy_from_slice(&[kind, 0, 0, 0, flags, 0, 0, 0]);
    message[8..24].copy_from_slice(&target.octets());
    message[24..26].copy_from_slice(&[option, 1]);
    message[26..32].copy_from_slice(&mac.0);
    let sum = Sum::pseudo(src.into(), dst.into(), ICMPV6, message.len());
    let sum = sum.bytes(message).checksum();
    put_word(message, 2, sum);
    HEADER_LEN + 72
}

/// The group that a host listens to for its address (RFC 4291 section 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = [u16::from(a) | 0xff00, u16::from_be_bytes([b, c])];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, low[0], low[1])
}

#[cfg(test)]
mod tests {
    use etherparse::{ArpPacketSlice, Icmpv6Slice, Ipv6HeaderSlice};
    use proptest::prelude::*;

    use super::*;

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEM: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_question_by_arp_is_read_by_etherparse_and_by_us() {
        let mut out = [0; MESSAGE_LEN_MAX];
        let len = write_question(&mut out, (ip("10.8.0.0"), US), ip("10.8.0.1"), None);
        assert_eq!(
            out[..14],
            [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6]
        );
        let arp = ArpPacketSlice::from_slice(&out[14..len]).unwrap();
        assert_eq!(arp.operation(), etherparse::ArpOperation::REQUEST);
        assert_eq!(arp.sender_hw_addr(), US.0);
        assert_eq!(arp.sender_protocol_addr(), [10, 8, 0, 0]);
        assert_eq!(arp.target_protocol_addr(), [10, 8, 0, 1]);
        let read = Message::Who {
            sender: Some(ip("10.8.0.0")),
            at: US,
            target: ip("10.8.0.1"),
        };
        assert_eq!(parse_arp(&out[14..len]), Some(read));
    }

    #[test]
    fn an_answer_by_arp_goes_to_who_asked_and_an_announcement_to_all() {
        let mut out = [0; MESSAGE_LEN_MAX];
        let ours = (ip("10.8.0.0"), US);
        for asker in [Some(ip("10.8.0.1")), None] {
            let len = write_answer(&mut out, ours, (asker, THEM));
            assert_eq!(out[..6], THEM.0);
            let arp = ArpPacketSlice::from_slice(&out[14..len]).unwrap();
            assert_eq!(arp.operation(), etherparse::ArpOperation::REPLY);
            assert_eq!(arp.target_hw_addr(), THEM.0);
            let (target, at) = ours;
            let is_answer = true;
            let read = Message::Here {
                target,
                at,
                is_answer,
            };
            assert_eq!(parse_arp(&out[14..len]), Some(read));
        }
        let len = write_announcement(&mut out, ours);
        assert_eq!(out[..6], Mac::BROADCAST.0);
        let arp = ArpPacketSlice::from_slice(&out[14..len]).unwrap();
        assert_eq!(arp.sender_protocol_addr(), arp.target_protocol_addr());
        assert_eq!(write_answer(&mut out, ours, (Some(ip("::1")), THEM)), 0);
    }

    #[test]
    fn ndp_has_right_checksums_groups_and_hop_limits() {
        let mut out = [0; MESSAGE_LEN_MAX];
        let (ours, theirs) = (ip("fd00:8::"), ip("fd00:8::1:2345:6789"));
        let len = write_question(&mut out, (ours, US), theirs, None);
        // RFC 4291 section 2.7.1, RFC 2464 section 7.
        assert_eq!(out[..6], [0x33, 0x33, 0xff, 0x45, 0x67, 0x89]);
        let check = |frame: &[u8], dst: &str| {
            let header = Ipv6HeaderSlice::from_slice(&frame[14..54]).unwrap();
            assert_eq!(IpAddr::from(header.destination_addr()), ip(dst));
            assert_eq!(header.hop_limit(), 255);
            let message = Icmpv6Slice::from_slice(&frame[54..]).unwrap();
            assert!(message.is_checksum_valid(header.source(), header.destination()));
        };
        check(&out[..len], "ff02::1:ff45:6789");
        let read = Message::Who {
            sender: Some(ours),
            at: US,
            target: theirs,
        };
        assert_eq!(parse_ndp(&out[14..len], THEM), Some(read));
        let here = |is_answer| Message::Here {
            target: ours,
            at: US,
            is_answer,
        };
        let len = write_answer(&mut out, (ours, US), (Some(theirs), THEM));
        check(&out[..len], "fd00:8::1:2345:6789");
        assert_eq!(parse_ndp(&out[14..len], THEM), Some(here(true)));
        let len = write_answer(&mut out, (ours, US), (None, THEM));
        assert_eq!(out[..6], [0x33, 0x33, 0, 0, 0, 1]);
        check(&out[..len], "ff02::1");
        assert_eq!(parse_ndp(&out[14..len], THEM), Some(here(false)));
    }

    #[test]
    fn who_asks_by_ndp_without_saying_where_is_where_the_frame_is_from() {
        let mut out = [0; MESSAGE_LEN_MAX];
        write_question(&mut out, (ip("fd00:8::1"), THEM), ip("fd00:8::"), Some(US));
        // Without its option, with a checksum for that: RFC 4861 section 4.3 allows it where one is asked alone.
        let mut packet = out[14..14 + 64].to_vec();
        put_word(&mut packet, 4, 24);
        put_word(&mut packet, 42, 0);
        let sum = Sum::pseudo(ip("fd00:8::1"), ip("fd00:8::"), ICMPV6, 24);
        let sum = sum.bytes(&packet[40..]).checksum();
        put_word(&mut packet, 42, sum);
        let read = Message::Who {
            sender: Some(ip("fd00:8::1")),
            at: THEM,
            target: ip("fd00:8::"),
        };
        assert_eq!(parse_ndp(&packet, THEM), Some(read));
        assert_eq!(parse_ndp(&packet, Mac::BROADCAST), None);
    }

    #[test]
    fn what_came_through_a_router_or_is_damaged_is_no_message() {
        let mut out = [0; MESSAGE_LEN_MAX];
        let theirs = (Some(ip("fd00:8::1")), THEM);
        let len = write_answer(&mut out, (ip("fd00:8::"), US), theirs);
        for at in 14..len {
            // The flow label means nothing here, and is not covered.
            if (15..18).contains(&at) {
                continue;
            }
            let mut wrong = out;
            wrong[at] ^= 0x10;
            assert_eq!(parse_ndp(&wrong[14..len], THEM), None, "byte {at}");
        }
        assert_eq!(parse_ndp(&out[14..len - 1], THEM), None);
        let theirs = (Some(ip("10.8.0.1")), THEM);
        let len = write_answer(&mut out, (ip("10.8.0.0"), US), theirs);
        assert_eq!(parse_arp(&out[14..len - 1]), None);
        for at in 14..20 {
            let mut wrong = out;
            wrong[at] ^= 0x10;
            assert_eq!(parse_arp(&wrong[14..len]), None, "byte {at}");
        }
        // Nobody is at a group's address.
        out[22] |= 1;
        assert_eq!(parse_arp(&out[14..len]), None);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _arp = parse_arp(&bytes);
            let _ndp = parse_ndp(&bytes, US);
            if bytes.len() >= 64 {
                bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, ICMPV6, 255]);
                let len = bytes.len() - 40;
                put_word(&mut bytes, 4, u16::try_from(len).unwrap());
                let _ndp = parse_ndp(&bytes, US);
                let _option = option(&bytes[64..], 1);
            }
        }
    }
}
