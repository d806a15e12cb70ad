//! Splitting against packets that etherparse makes one by one.

use proptest::prelude::*;

use super::super::*;
use super::{L4, Packet, assert_valid, drain_segments};
use crate::wire::ip::{Malformed, put_word};

fn tso(size: u16) -> Offload {
    Offload {
        segmentation: Segmentation::Tcp,
        segment_size: size,
        checksum: None,
    }
}

fn uso(size: u16) -> Offload {
    Offload {
        segmentation: Segmentation::Udp,
        segment_size: size,
        checksum: None,
    }
}

fn l4_of(packet: &Packet) -> usize {
    if packet.is_v6 { 40 } else { 20 }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn only_the_last_segment_keeps_fin_and_psh_and_only_the_first_cwr() {
    let packet = Packet::tcp(100, "AFPEC", &payload(25));
    let segments = drain_segments(Segments::new(&packet.bytes(), tso(10)).unwrap());
    let flags: Vec<u8> = segments.iter().map(|segment| segment[33]).collect();
    assert_eq!(flags, [0xd0, 0x50, 0x59]); // ACK, ECE; CWR first; FIN and PSH last
}

#[test]
fn a_partial_checksum_is_completed_as_the_kernel_would() {
    for is_v6 in [false, true] {
        for l4 in [L4::Udp, Packet::tcp(5, "A", &[]).l4] {
            let whole = Packet {
                is_v6,
                l4,
                ..Packet::tcp(5, "A", &payload(333))
            };
            let expected = whole.bytes();
            let (start, offset) = (l4_of(&whole), if whole.l4 == L4::Udp { 6 } else { 16 });
            let mut packet = expected.clone();
            let inner = crate::wire::ip::Inner::parse(&packet).unwrap();
            let len = packet.len() - start;
            let pseudo =
                crate::wire::checksum::Sum::pseudo(inner.src, inner.dst, inner.protocol, len);
            put_word(&mut packet, start + offset, pseudo.folded());
            let checksum = Some(PartialChecksum {
                start: u16::try_from(start).unwrap(),
                offset: u16::try_from(offset).unwrap(),
            });
            let segments = Segments::new(
                &packet,
                Offload {
                    checksum,
                    ..Offload::NONE
                },
            )
            .unwrap();
            assert_eq!(drain_segments(segments), [expected]);
        }
    }
}

#[test]
fn a_packet_without_anything_left_to_do_loses_only_its_padding() {
    let expected = Packet::udp(1, &payload(50)).bytes();
    let mut padded = expected.clone();
    padded.extend([0; 6]);
    let segments = Segments::new(&padded, Offload::NONE).unwrap();
    assert_eq!(drain_segments(segments), [expected]);
}

#[test]
fn a_slice_that_is_too_short_loses_nothing() {
    let packet = Packet::udp(1, &payload(100)).bytes();
    let mut segments = Segments::new(&packet, uso(60)).unwrap();
    assert_eq!(segments.len_max(), 88);
    assert_eq!(segments.next_into(&mut [0; 87]), None);
    assert_eq!(segments.remaining(), 2);
    assert_eq!(segments.next_into(&mut [0; 88]), Some(88));
    assert_eq!(segments.next_into(&mut [0; 88]), Some(68));
    assert_eq!(segments.next_into(&mut [0; 88]), None);
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    let packet = Packet::udp(1, &[0, 0]).bytes();
    // Two bytes that are the checksum of all others make the sum all ones, its complement zero.
    let mut super_packet = Packet::udp(1, &[packet[26], packet[27], 5]).bytes();
    put_word(&mut super_packet, 26, 0);
    let segments = drain_segments(Segments::new(&super_packet, uso(2)).unwrap());
    assert_eq!(segments[0][26..28], [0xff, 0xff]);
    assert_valid(&segments[0]);
}

#[test]
fn metadata_that_does_not_fit_the_packet_is_refused() {
    let udp = Packet::udp(1, &payload(100)).bytes();
    let mut tcp = Packet::tcp(1, "A", &payload(100)).bytes();
    let refused = |packet: &[u8], offload| Segments::new(packet, offload).unwrap_err();
    assert_eq!(refused(&udp, tso(10)), Malformed::Offload);
    assert_eq!(refused(&tcp, uso(10)), Malformed::Offload);
    assert_eq!(refused(&tcp, tso(0)), Malformed::Offload);
    let checksum = Some(PartialChecksum {
        start: 120,
        offset: 7,
    });
    assert_eq!(
        refused(
            &udp,
            Offload {
                checksum,
                ..Offload::NONE
            }
        ),
        Malformed::Offload
    );
    tcp[32] = 0x40; // a TCP header of 16 bytes
    assert_eq!(refused(&tcp, tso(10)), Malformed::Offload);
}

proptest! {
    #[test]
    fn tcp_segments_equal_packets_made_one_by_one(
        is_v6 in any::<bool>(), id in any::<u16>(), seq in any::<u32>(),
        flags in prop::sample::select(vec!["A", "AP", "AF", "APF", "AEC", "APEC"]),
        options in (0_usize..=10).prop_map(|words| vec![1_u8; words * 4]),
        len in 0_usize..9000, size in 1_u16..1500, garbage in any::<u16>(),
    ) {
        let size = size.max(u16::try_from(len / 100).unwrap());
        let with = |id, seq, flags, payload: &[u8]| {
            let l4 = L4::Tcp { seq, ack: 1, window: 2, flags, options: options.clone() };
            let base = Packet::tcp(0, "", payload);
            Packet { is_v6, id, l4, ..base }
        };
        let data = payload(len);
        let mut packet = with(id, seq, flags, &data).bytes();
        let l4 = if is_v6 { 40 } else { 20 };
        // The kernel leaves only a pseudo-header sum there: nobody may build on it.
        put_word(&mut packet, l4 + 16, garbage);
        let segments = drain_segments(Segments::new(&packet, tso(size)).unwrap());

        let mut chunks: Vec<&[u8]> = data.chunks(usize::from(size)).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        prop_assert_eq!(segments.len(), chunks.len());
        let mut seq = seq;
        for (at, (segment, chunk)) in segments.iter().zip(&chunks).enumerate() {
            let is_last = at + 1 == chunks.len();
            let has = |flag| flags.contains(flag);
            let (psh, fin) = (has('P') && is_last, has('F') && is_last);
            let flags = match (has('C') && at == 0, has('E'), psh, fin) {
                (true, _, true, _) => "AECP",
                (true, _, false, _) => "AEC",
                (false, true, true, _) => "AEP",
                (false, true, false, _) => "AE",
                (false, false, true, true) => "APF",
                (false, false, true, false) => "AP",
                (false, false, false, true) => "AF",
                (false, false, false, false) => "A",
            };
            let id = id.wrapping_add(u16::try_from(at).unwrap());
            prop_assert_eq!(segment, &with(id, seq, flags, chunk).bytes());
            seq = seq.wrapping_add(u32::try_from(chunk.len()).unwrap());
        }
    }

    #[test]
    fn udp_segments_equal_datagrams_made_one_by_one(
        is_v6 in any::<bool>(), id in any::<u16>(), len in 1_usize..9000, size in 1_u16..1500,
    ) {
        let data = payload(len);
        let packet = Packet { is_v6, ..Packet::udp(id, &data) }.bytes();
        let segments = drain_segments(Segments::new(&packet, uso(size)).unwrap());
        let expected: Vec<Vec<u8>> = (0_u16..)
            .zip(data.chunks(usize::from(size)))
            .map(|(at, chunk)| Packet { is_v6, ..Packet::udp(id.wrapping_add(at), chunk) }.bytes())
            .collect();
        for segment in &segments {
            assert_valid(segment);
        }
        prop_assert_eq!(segments, expected);
    }

    #[test]
    fn random_bytes_and_metadata_never_panic(
        mut packet in prop::collection::vec(any::<u8>(), 0..300),
        is_udp in any::<bool>(), is_v6 in any::<bool>(), header in any::<[u8; VNET_HDR_LEN]>(),
        gso_type in prop::sample::select(vec![0_u8, 1, 4, 5]), small in any::<bool>(),
    ) {
        super::coalesce::patch_headers(&mut packet, is_v6, is_udp);
        let mut header = header;
        header[1] = gso_type;
        if small {
            for at in [5, 7, 9] {
                header[at] = 0;
            }
        }
        if let Ok(offload) = Offload::decode(&header)
            && let Ok(segments) = Segments::new(&packet, offload)
        {
            drain_segments(segments);
        }
    }
}

proptest! {
    /// Whatever a stream's packet or super-packet was to be cut into, and however small: the same stream.
    #[test]
    fn a_stream_may_come_in_smaller_pieces(
        len in 0_usize..4000,
        size in proptest::option::of(1_u16..2000),
        mtu in 100_u16..2000,
        is_v6: bool,
    ) {
        let packet = Packet { is_v6, ..Packet::tcp(100, "APF", &payload(len)) };
        let bytes = packet.bytes();
        let before = size.map_or(Offload::NONE, tso);
        let offload = cut_stream(&bytes, before, mtu).unwrap();
        prop_assert_eq!(offload.segmentation, Segmentation::Tcp);
        let segments = drain_segments(Segments::new(&bytes, offload).unwrap());
        let l4 = l4_of(&packet);
        let head = l4 + usize::from(bytes[l4 + 12] >> 4) * 4;
        let mut stream = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            prop_assert!(segment.len() <= usize::from(mtu));
            assert_valid(segment);
            let is_last = at + 1 == segments.len();
            prop_assert_eq!(segment[l4 + 13] & 0x09 != 0, is_last);
            stream.extend_from_slice(&segment[head..]);
        }
        prop_assert_eq!(stream, payload(len));
    }
}

#[test]
fn what_is_no_stream_or_has_its_place_in_it_is_not_cut() {
    for flags in ["S", "R", "U"] {
        let packet = Packet::tcp(1, flags, &payload(100)).bytes();
        assert_eq!(cut_stream(&packet, Offload::NONE, 100), None, "{flags}");
    }
    let datagram = Packet::udp(1, &payload(100)).bytes();
    assert_eq!(cut_stream(&datagram, Offload::NONE, 100), None);
    let mut piece = Packet::tcp(1, "A", &payload(100)).bytes();
    put_word(&mut piece, 6, 0x2000);
    assert_eq!(cut_stream(&piece, Offload::NONE, 100), None);
    let stream = Packet::tcp(1, "A", &payload(100)).bytes();
    assert_eq!(
        cut_stream(&stream, Offload::NONE, 40),
        None,
        "no room for a byte"
    );
}
