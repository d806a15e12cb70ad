//! The edge's machine takes answers out of tunnels, and nothing that begins there.

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::super::{DropReason, LocalPorts, NodeConfig, ProbeKey, Role};
use super::packet;
use super::world::ip;
use crate::id::{NodeId, WorkerId, Workers};
use crate::wire::icmp::{ErrorKind, error};
use crate::wire::ip::Inner;

fn admits(bytes: &[u8]) -> bool {
    let config = NodeConfig {
        slice: None,
        node: NodeId(0),
        worker: WorkerId(0),
        workers: Workers::new(1).unwrap(),
        role: Role::Edge,
        probe_key: ProbeKey([0; 32]),
        local_ports: Some(LocalPorts {
            range: 32_768..=60_999,
            kept: vec![51_820..=51_820, 40_000..=40_002],
        }),
        relay: None,
    };
    let inner = Inner::parse(bytes).unwrap();
    let admitted = config.admit(bytes, &inner);
    assert!(matches!(admitted, Ok(()) | Err(DropReason::NotAskedFor)));
    admitted.is_ok()
}

/// A TCP packet with these flags, in IPv4 and in IPv6.
fn tcp(flags: u8) -> [Vec<u8>; 2] {
    let mut l4 = vec![0; 20];
    (l4[12], l4[13]) = (0x50, flags);
    [
        packet(ip("10.0.0.50"), ip("100.64.0.2"), 6, &l4),
        packet(ip("fd00::50"), ip("2606:4700:cf1:5000::6440:2"), 6, &l4),
    ]
}

/// A piece of a datagram, at this place.
fn piece(protocol: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = packet(ip("10.0.0.50"), ip("100.64.0.2"), protocol, payload);
    bytes[6..8].copy_from_slice(&(0x2000 | (offset / 8)).to_be_bytes());
    super::seal(&mut bytes);
    bytes
}

#[test]
fn a_connection_does_not_begin_at_the_edge() {
    let (fin, syn, rst, psh, ack) = (0x01, 0x02, 0x04, 0x08, 0x10);
    for answer in [syn | ack, ack, psh | ack, fin | ack, rst, rst | ack] {
        assert!(
            tcp(answer).iter().all(|packet| admits(packet)),
            "{answer:#x}"
        );
    }
    // Also with what Linux takes for a SYN besides: ECN (RFC 3168), urgent, push, FIN.
    for beginning in [syn, syn | 0xc0, syn | 0x20, syn | psh, syn | fin, syn | rst] {
        assert!(
            !tcp(beginning).iter().any(|packet| admits(packet)),
            "{beginning:#x}"
        );
    }
    let mut v6 = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 64)
        .tcp(1000, 40_000, 3, 4)
        .syn()
        .write(&mut v6, b"")
        .unwrap();
    assert!(!admits(&v6), "as another writer makes it");
}

/// RFC 1858 and RFC 3128: the flags in a second piece, or over those of the first.
#[test]
fn pieces_do_not_hide_how_a_connection_begins() {
    assert!(!admits(&piece(6, 0, &[0; 8])), "its flags come later");
    assert!(
        !admits(&piece(6, 8, &[0; 24])),
        "over the first one's flags"
    );
    let mut whole = [0; 24];
    whole[13] = 0x10;
    assert!(admits(&piece(6, 0, &whole)));
    assert!(admits(&piece(6, 24, &[0; 24])));
    // Without its first piece a datagram is never put together.
    assert!(admits(&piece(17, 8, &[0; 24])));
    assert!(!admits(&piece(17, 0, &[0, 53, 0, 53, 0, 8, 0, 0])));
}

#[test]
fn datagrams_go_to_ports_that_sockets_get_by_chance_and_other_protocols_nowhere() {
    let udp = |port: u16| {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 50], [100, 64, 0, 2], 64).udp(53, port);
        builder.write(&mut packet, b"answer").unwrap();
        packet
    };
    for (port, is_admitted) in [
        (32_768, true),
        (60_999, true),
        (40_003, true),
        (53, false),
        (61_000, false),
        // Of its own tunnels, and one that no socket gets by chance.
        (51_820, false),
        (40_001, false),
    ] {
        assert_eq!(admits(&udp(port)), is_admitted, "{port}");
    }
    let of = |protocol| packet(ip("10.0.0.50"), ip("100.64.0.2"), protocol, &[0; 64]);
    assert!(admits(&of(1)));
    for protocol in [0, 2, 4, 33, 41, 47, 50, 51, 89, 99, 115, 132, 136, 255] {
        assert!(!admits(&of(protocol)), "{protocol}");
    }
}

/// The kernel looks for the socket by what is quoted, whoever the error is for.
#[test]
fn an_error_is_about_a_packet_of_the_address_that_it_is_for() {
    for (own, other, origin) in [
        ("100.64.0.2", "100.64.0.3", "10.0.0.50"),
        (
            "2606:4700:cf1:5000::6440:2",
            "2606:4700:cf1:5000::6440:3",
            "fd00::50",
        ),
    ] {
        let about = |source| {
            let sent = packet(ip(source), ip(origin), 17, &[7; 64]);
            let mut out = [0; 1280];
            let mut error_of = |kind| {
                let len = error(kind, &sent, ip(origin), &mut out).unwrap();
                let mut bytes = out[..len].to_vec();
                let at = if bytes[0] >> 4 == 4 { 16..20 } else { 24..40 };
                let to = packet(ip(origin), ip(own), 1, &[])[at.clone()].to_vec();
                bytes[at].copy_from_slice(&to);
                if bytes[0] >> 4 == 4 {
                    super::seal(&mut bytes);
                }
                bytes
            };
            let kinds = [
                ErrorKind::HostUnreachable,
                ErrorKind::TimeExceeded,
                ErrorKind::PacketTooBig { mtu: 1300 },
            ];
            kinds.map(&mut error_of)
        };
        assert!(about(own).iter().all(|error| admits(error)), "{own}");
        assert!(!about(other).iter().any(|error| admits(error)), "{other}");
        for error in about(own) {
            let head = if error[0] >> 4 == 4 { 28 } else { 48 };
            let mut cut = error[..head + 8].to_vec();
            if cut[0] >> 4 == 4 {
                cut[2..4].copy_from_slice(&36_u16.to_be_bytes());
                super::seal(&mut cut);
            } else {
                cut[4..6].copy_from_slice(&16_u16.to_be_bytes());
            }
            assert!(!admits(&cut), "it does not say whose packet it was");
        }
    }
}

proptest! {
    /// Whatever pieces TCP comes in: one that Linux would put together to a SYN has one that is refused.
    #[test]
    fn no_way_of_cutting_brings_a_syn_in(cut in 1_usize..5, is_over: bool) {
        let mut syn = [0_u8; 40];
        (syn[12], syn[13]) = (0x50, 0x02);
        let at = cut * 8;
        let first = piece(6, 0, &syn[..at]);
        let from = if is_over { at - 8 } else { at };
        let second = piece(6, u16::try_from(from).unwrap(), &syn[from..]);
        prop_assert!(!admits(&first) || !admits(&second));
    }
}
