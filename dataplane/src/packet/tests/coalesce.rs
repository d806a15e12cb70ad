//! Coalescing: what goes in comes out, cut by the splitter, in order; and what can join does.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::*;
use super::{L4, Packet, assert_valid, drain_overlay};
use crate::wire::checksum::Sum;
use crate::wire::ip::{Inner, put_word, word};

/// Makes random bytes pass for an IP packet often enough to reach what lies behind.
pub(super) fn patch_headers(packet: &mut [u8], is_v6: bool, is_udp: bool) {
    let Ok(len) = u16::try_from(packet.len()) else {
        return;
    };
    let protocol = if is_udp { 17 } else { 6 };
    if is_v6 && len >= 40 {
        packet[0] = 0x60;
        packet[6] = protocol;
        put_word(packet, 4, len - 40);
    } else if !is_v6 && len >= 20 {
        packet[0] = 0x45;
        packet[9] = protocol;
        put_word(packet, 2, len);
        put_word(packet, 6, 0x4000);
        put_word(packet, 10, 0);
        let sum = Sum::new().bytes(&packet[..20]).checksum();
        put_word(packet, 10, sum);
    }
}

fn deliver_all(packets: &[Packet]) -> Vec<(Segmentation, Vec<Vec<u8>>)> {
    let mut outbox = Outbox::new();
    for packet in packets {
        assert!(outbox.deliver(Exit::Overlay, &packet.bytes()));
    }
    drain_overlay(&mut outbox)
}

/// How many packets each super-packet holds.
fn sizes(packets: &[Packet]) -> Vec<usize> {
    deliver_all(packets)
        .iter()
        .map(|(_, segments)| segments.len())
        .collect()
}

/// A train of the stream: each piece with its flags, from sequence number and identification 9.
fn stream(pieces: &[(&'static str, usize)]) -> Vec<Packet> {
    let mut seq = u32::MAX - 1000;
    let mut packets = Vec::new();
    for (id, &(flags, len)) in (9..).zip(pieces) {
        packets.push(Packet {
            id,
            ..Packet::tcp(seq, flags, &vec![3; len])
        });
        seq = seq.wrapping_add(u32::try_from(len).unwrap());
    }
    packets
}

#[test]
fn a_stream_becomes_one_super_packet_with_a_partial_checksum() {
    for is_v6 in [false, true] {
        let mut packets = stream(&[("A", 1000); 4]);
        packets.extend(
            stream(&[
                ("A", 1000),
                ("A", 1000),
                ("A", 1000),
                ("A", 1000),
                ("AP", 7),
            ])
            .pop(),
        );
        let mut outbox = Outbox::new();
        for packet in &mut packets {
            packet.is_v6 = is_v6;
            assert!(outbox.deliver(Exit::Overlay, &packet.bytes()));
        }
        let Some(Transmit::Device {
            offload, packet, ..
        }) = outbox.poll_transmit()
        else {
            panic!("something was delivered");
        };
        let l4: u16 = if is_v6 { 40 } else { 20 };
        let checksum = Some(PartialChecksum {
            start: l4,
            offset: 16,
        });
        let expected = Offload {
            segmentation: Segmentation::Tcp,
            segment_size: 1000,
            checksum,
        };
        assert_eq!(offload, expected);
        // Completed as one packet, it is valid: so the field held the pseudo-header sum.
        let whole = Offload {
            checksum,
            ..Offload::NONE
        };
        let mut out = vec![0; packet.len()];
        let len = Segments::new(packet, whole)
            .unwrap()
            .next_into(&mut out)
            .unwrap();
        assert_valid(&out[..len]);
        assert_eq!(len, usize::from(l4) + 32 + 4007);
        assert_eq!(outbox.poll_transmit(), None);
    }
}

#[test]
fn datagrams_of_one_size_become_one_super_packet_that_a_shorter_one_ends() {
    let udp = |id, len: usize| Packet::udp(id, &vec![1; len]);
    let packets = [udp(5, 900), udp(6, 900), udp(7, 20), udp(8, 20), udp(9, 30)];
    let all = deliver_all(&packets);
    assert_eq!(all[0].0, Segmentation::Udp);
    assert_eq!(sizes(&packets), [3, 1, 1]);
    let expected: Vec<Vec<u8>> = packets.iter().map(Packet::bytes).collect();
    assert_eq!(
        all.into_iter()
            .flat_map(|(_, segments)| segments)
            .collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn a_super_packet_holds_at_most_64_segments_and_65535_bytes() {
    assert_eq!(sizes(&stream(&[("A", 100); 130])), [64, 64, 2]);
    // (65535 - 52) / 1448 = 45.2
    assert_eq!(sizes(&stream(&[("A", 1448); 50])), [45, 5]);
}

#[test]
fn push_and_fin_end_a_train_and_other_flags_never_join() {
    assert_eq!(
        sizes(&stream(&[("A", 50), ("AP", 50), ("A", 50), ("A", 50)])),
        [2, 2]
    );
    assert_eq!(sizes(&stream(&[("A", 50), ("AF", 50)])), [2]);
    for flags in ["AS", "AR", "AU", "AC", "P"] {
        assert_eq!(
            sizes(&stream(&[("A", 50), (flags, 50), ("A", 50), ("A", 50)])),
            [1, 1, 2]
        );
    }
    assert_eq!(sizes(&stream(&[("A", 50), ("AE", 50), ("AE", 50)])), [1, 2]);
}

#[test]
fn a_bare_ack_ends_the_super_packet_of_its_flow() {
    assert_eq!(
        sizes(&stream(&[
            ("A", 50),
            ("A", 50),
            ("A", 0),
            ("A", 50),
            ("A", 50)
        ])),
        [2, 1, 2]
    );
}

#[test]
fn a_packet_that_differs_in_a_header_field_does_not_join() {
    type Change = fn(&mut Packet);
    let tcp: [(&str, Change); 8] = [
        ("ack", |p| {
            if let L4::Tcp { ack, .. } = &mut p.l4 {
                *ack += 1
            }
        }),
        ("window", |p| {
            if let L4::Tcp { window, .. } = &mut p.l4 {
                *window += 1
            }
        }),
        ("options", |p| {
            if let L4::Tcp { options, .. } = &mut p.l4 {
                options[11] = 0
            }
        }),
        ("fewer options", |p| {
            if let L4::Tcp { options, .. } = &mut p.l4 {
                options.truncate(8)
            }
        }),
        ("gap", |p| {
            if let L4::Tcp { seq, .. } = &mut p.l4 {
                *seq += 1
            }
        }),
        ("ttl", |p| p.ttl -= 1),
        ("df", |p| p.has_df = false),
        ("longer", |p| p.payload.push(0)),
    ];
    for (name, change) in tcp {
        let mut packets = stream(&[("A", 50), ("A", 50), ("A", 50)]);
        change(&mut packets[2]);
        assert_eq!(sizes(&packets), [2, 1], "{name}");
    }
    let mut packets = stream(&[("A", 50), ("A", 50), ("A", 50)]);
    for packet in &mut packets {
        packet.has_df = false;
    }
    packets[2].id += 1;
    assert_eq!(sizes(&packets), [2, 1], "identification without DF");
}

#[test]
fn a_constant_identification_joins_under_df() {
    let mut packets = stream(&[("A", 50), ("A", 50), ("A", 50)]);
    for packet in &mut packets {
        packet.id = 0;
    }
    assert_eq!(sizes(&packets), [3]);
}

#[test]
fn a_different_tos_does_not_join() {
    let mut outbox = Outbox::new();
    for (at, packet) in stream(&[("A", 50), ("A", 50), ("A", 50)])
        .iter()
        .enumerate()
    {
        let mut bytes = packet.bytes();
        bytes[1] = if at == 2 { 3 } else { 0 }; // congestion experienced
        put_word(&mut bytes, 10, 0);
        let sum = Sum::new().bytes(&bytes[..20]).checksum();
        put_word(&mut bytes, 10, sum);
        assert!(outbox.deliver(Exit::Overlay, &bytes));
    }
    let sizes: Vec<usize> = drain_overlay(&mut outbox)
        .iter()
        .map(|(_, s)| s.len())
        .collect();
    assert_eq!(sizes, [2, 1]);
}

#[test]
fn a_different_traffic_class_flow_label_or_hop_limit_does_not_join() {
    for at in [1, 3, 7] {
        let mut outbox = Outbox::new();
        for (number, packet) in stream(&[("A", 50), ("A", 50), ("A", 50)])
            .into_iter()
            .enumerate()
        {
            let mut bytes = Packet {
                is_v6: true,
                ..packet
            }
            .bytes();
            bytes[at] ^= if number == 2 { 0x20 } else { 0 };
            assert!(outbox.deliver(Exit::Overlay, &bytes));
        }
        let sizes: Vec<usize> = drain_overlay(&mut outbox)
            .iter()
            .map(|(_, s)| s.len())
            .collect();
        assert_eq!(sizes, [2, 1], "byte {at}");
    }
}

#[test]
fn what_has_been_given_does_not_grow_any_more() {
    let packets = stream(&[("A", 50), ("A", 50), ("A", 50)]);
    let mut outbox = Outbox::new();
    for packet in &packets {
        assert!(outbox.deliver(Exit::Overlay, &packet.bytes()));
        let alone = vec![(Segmentation::None, vec![packet.bytes()])];
        assert_eq!(drain_overlay(&mut outbox), alone);
    }
}

#[test]
fn a_wrong_or_absent_checksum_travels_alone_and_untouched() {
    let mut outbox = Outbox::new();
    let mut expected = Vec::new();
    for (at, packet) in (0..).zip(stream(&[("A", 50); 3]).iter().chain(&[
        Packet::udp(1, &[9; 40]),
        Packet::udp(2, &[9; 40]),
        Packet::udp(3, &[9; 40]),
    ])) {
        let mut bytes = packet.bytes();
        match at {
            1 => bytes[70] ^= 1,
            4 => put_word(&mut bytes, 26, 0),
            _ => {}
        }
        assert!(outbox.deliver(Exit::Overlay, &bytes));
        expected.push((Segmentation::None, vec![bytes]));
    }
    assert_eq!(drain_overlay(&mut outbox), expected);
}

#[test]
fn a_later_fragment_is_not_overtaken() {
    let udp: Vec<Vec<u8>> = (0..5).map(|id| Packet::udp(id, &[9; 40]).bytes()).collect();
    let mut fragment = udp[4].clone();
    put_word(&mut fragment, 6, 100);
    put_word(&mut fragment, 10, 0);
    let sum = Sum::new().bytes(&fragment[..20]).checksum();
    put_word(&mut fragment, 10, sum);
    let mut outbox = Outbox::new();
    for packet in [&udp[0], &udp[1], &fragment, &udp[2], &udp[3]] {
        assert!(outbox.deliver(Exit::Overlay, packet));
    }
    let sizes: Vec<usize> = drain_overlay(&mut outbox)
        .iter()
        .map(|(_, s)| s.len())
        .collect();
    assert_eq!(sizes, [2, 1, 2]);
}

#[test]
fn a_ready_super_packet_keeps_its_place_and_its_metadata() {
    let mut outbox = Outbox::new();
    let packets = stream(&[("A", 50), ("A", 50), ("A", 400), ("A", 50)]);
    let offload = Offload {
        segmentation: Segmentation::Tcp,
        segment_size: 100,
        checksum: None,
    };
    assert!(outbox.deliver(Exit::Overlay, &packets[0].bytes()));
    assert!(outbox.deliver(Exit::Overlay, &packets[1].bytes()));
    assert!(outbox.deliver_super(Exit::Overlay, &packets[2].bytes(), offload));
    assert!(outbox.deliver(Exit::Overlay, &packets[3].bytes()));
    let sizes: Vec<usize> = drain_overlay(&mut outbox)
        .iter()
        .map(|(_, s)| s.len())
        .collect();
    assert_eq!(sizes, [2, 4, 1]);
}

#[test]
fn more_flows_than_buffers_go_alone_and_a_full_queue_refuses() {
    let mut outbox = Outbox::new();
    let flow = |port| Packet {
        port,
        ..Packet::udp(1, &[9; 40])
    };
    for _ in 0..3 {
        let taken: Vec<u16> = (0..3000)
            .filter(|&port| outbox.deliver(Exit::Overlay, &flow(port).bytes()))
            .collect();
        assert_eq!(taken, (0..2048).collect::<Vec<u16>>());
        let all = drain_overlay(&mut outbox);
        let expected: Vec<_> = taken
            .iter()
            .map(|&port| (Segmentation::None, vec![flow(port).bytes()]))
            .collect();
        assert_eq!(all, expected);
    }
    assert!(!outbox.deliver(Exit::Overlay, &[0x45; 3]));
}

/// What a sender may do next on one of its flows.
fn step() -> impl Strategy<Value = (u16, bool, bool, &'static str, usize, u16, bool)> {
    let flags = prop::sample::select(vec!["A", "A", "A", "A", "AP", "AF", "AE", "AU", "AS"]);
    let len = prop::sample::select(vec![100_usize, 100, 100, 100, 99, 40, 0, 1, 1400]);
    let id_step = prop::sample::select(vec![1_u16, 1, 1, 1, 1, 2]);
    (
        0..3_u16,
        any::<bool>(),
        any::<bool>(),
        flags,
        len,
        id_step,
        prop::bool::weighted(0.05),
    )
}

proptest! {
    #[test]
    fn cutting_what_was_joined_gives_back_every_flow_as_it_came(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut outbox = Outbox::new();
        let mut next = HashMap::new();
        let mut expected: HashMap<_, Vec<Vec<u8>>> = HashMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            let (port, is_v6, is_udp, flags, len, id_step, has_gap) = step;
            let start = (65_530_u16, u32::MAX - 500);
            let (id, seq) = next.entry((port, is_v6, is_udp)).or_insert(start);
            let payload: Vec<u8> =
                (at..at + len).map(|b| u8::try_from(b % 256).unwrap()).collect();
            let base = match is_udp {
                true => Packet::udp(*id, &payload),
                false => Packet::tcp(*seq, flags, &payload),
            };
            let bytes = Packet { port, is_v6, id: *id, ..base }.bytes();
            *id = id.wrapping_add(id_step);
            *seq = seq.wrapping_add(u32::try_from(len).unwrap() + u32::from(has_gap));
            prop_assert!(outbox.deliver(Exit::Overlay, &bytes));
            expected.entry(flow_of(&bytes)).or_default().push(bytes);
        }
        let mut seen: HashMap<_, Vec<Vec<u8>>> = HashMap::new();
        for (_, segments) in drain_overlay(&mut outbox) {
            for segment in segments {
                assert_valid(&segment);
                seen.entry(flow_of(&segment)).or_default().push(segment);
            }
        }
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn random_bytes_never_panic(
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..120), any::<[bool; 3]>()),
            1..40,
        ),
    ) {
        let mut outbox = Outbox::new();
        for (mut packet, [is_v6, is_udp, has_sum]) in packets {
            patch_headers(&mut packet, is_v6, is_udp);
            if has_sum {
                fix_l4(&mut packet, is_udp);
            }
            let is_ip = Inner::parse(&packet).is_ok();
            prop_assert_eq!(outbox.deliver(Exit::Overlay, &packet), is_ip);
        }
        while outbox.poll_transmit().is_some() {}
    }
}

fn fix_l4(packet: &mut [u8], is_udp: bool) {
    let Ok(inner) = Inner::parse(packet) else {
        return;
    };
    let l4 = &mut packet[inner.l4_offset..];
    let at = if is_udp { 6 } else { 16 };
    if l4.len() < at + 2 {
        return;
    }
    let len = u16::try_from(l4.len()).unwrap();
    if is_udp {
        put_word(l4, 4, len);
    } else {
        (l4[12], l4[13]) = (0x50, 0x10);
    }
    put_word(l4, at, 0);
    let sum = Sum::pseudo(inner.src, inner.dst, inner.protocol, l4.len())
        .bytes(l4)
        .checksum();
    put_word(l4, at, sum);
}

fn flow_of(packet: &[u8]) -> (u8, u8, u16) {
    let inner = Inner::parse(packet).unwrap();
    (
        inner.version,
        inner.protocol,
        word(packet, inner.l4_offset + 2),
    )
}
