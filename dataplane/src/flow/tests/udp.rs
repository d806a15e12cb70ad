//! Datagrams: their bounds, their order, and what ends a flow of them.

use super::*;
use crate::wire::checksum;
use crate::wire::icmp::{ErrorKind, error};

pub(crate) fn answer(packet: &[u8], payload: &[u8]) -> Vec<u8> {
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
        panic!("not UDP");
    };
    let mut out = Vec::new();
    let builder = match sliced.net.unwrap() {
        NetSlice::Ipv4(v4) => {
            PacketBuilder::ipv4(v4.header().destination(), v4.header().source(), 64)
        }
        NetSlice::Ipv6(v6) => {
            PacketBuilder::ipv6(v6.header().destination(), v6.header().source(), 64)
        }
        other => panic!("{other:?}"),
    };
    builder
        .udp(udp.destination_port(), udp.source_port())
        .write(&mut out, payload)
        .unwrap();
    out
}

pub(crate) fn payload(packet: &[u8]) -> Vec<u8> {
    let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
    let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else {
        panic!("not UDP");
    };
    udp.payload().to_vec()
}

#[test]
fn datagrams_go_and_come_in_order() {
    for (source, origin) in [
        ("100.64.0.2", "10.0.0.50:53"),
        ("2606:4700:cf1:5000::6440:2", "[fd00::50]:53"),
    ] {
        let mut bed = bed();
        let flow = bed.connect(Protocol::Udp, source, origin);
        for i in 0..100_u8 {
            assert_eq!(
                bed.flows.send(flow, &vec![i; usize::from(i)]),
                Ok(usize::from(i))
            );
        }
        let sent = bed.take();
        let sizes: Vec<usize> = sent.iter().map(|packet| payload(packet).len()).collect();
        assert_eq!(sizes, (0..100).collect::<Vec<_>>());
        for packet in &sent {
            let back = answer(packet, &payload(packet));
            bed.give(&back);
        }
        assert_eq!(bed.events(), [Happened::Readable]);
        let mut buffer = [0; 2048];
        for i in 0..100 {
            let len = bed.flows.recv(flow, &mut buffer, bed.now).unwrap();
            assert_eq!(
                (len, buffer[0]),
                (i, if i > 0 { u8::try_from(i).unwrap() } else { 0 })
            );
        }
        let end = bed.flows.recv(flow, &mut buffer, bed.now);
        assert_eq!(end, Err(RecvError::Empty));
        bed.flows.release(flow, bed.now);
        bed.drain();
        assert_eq!(bed.flows.counters().open, 0);
    }
}

#[test]
fn a_datagram_fits_one_packet_or_is_refused() {
    for (origin, source, max) in [
        ("10.0.0.50:53", "100.64.0.2", 1420 - 28),
        ("[fd00::50]:53", "2606:4700:cf1:5000::6440:2", 1420 - 48),
    ] {
        let mut bed = bed();
        let flow = bed.connect(Protocol::Udp, source, origin);
        let refused = bed.flows.send(flow, &vec![0; max + 1]);
        assert_eq!(refused, Err(SendError::TooLong(max)));
        bed.flows.send(flow, &vec![0; max]).unwrap();
        assert_eq!(bed.take()[0].len(), 1420);
    }
}

#[test]
fn a_full_buffer_loses_datagrams_and_counts_them() {
    let mut bed = with(|config| config.buffer_bytes = 10_000);
    let flow = bed.connect(Protocol::Udp, "100.64.0.2", "10.0.0.50:53");
    for _ in 0..9 {
        bed.flows.send(flow, &[0; 1000]).unwrap();
    }
    assert_eq!(bed.flows.send(flow, &[0; 1000]), Err(SendError::Full));
    let sent = bed.take();
    assert_eq!(sent.len(), 9);
    for _ in 0..20 {
        let back = answer(&sent[0], &[0; 1000]);
        bed.give(&back);
    }
    assert_eq!(bed.flows.counters().rx_datagrams_lost, 11);
    bed.flows.send(flow, &[0; 1000]).unwrap();
}

#[test]
fn datagrams_that_the_node_has_joined_come_apart() {
    let mut bed = bed();
    let flow = bed.connect(Protocol::Udp, "100.64.0.2", "10.0.0.50:53");
    bed.flows.send(flow, b"?").unwrap();
    let sent = bed.take();
    let joined = answer(&sent[0], &pattern(2500));
    let offload = Offload {
        segmentation: Segmentation::Udp,
        segment_size: 1000,
        checksum: Some(crate::packet::PartialChecksum {
            start: 20,
            offset: 6,
        }),
    };
    bed.flows.handle_packet(&joined, offload, bed.now);
    let mut buffer = [0; 2048];
    let mut lens = Vec::new();
    while let Ok(len) = bed.flows.recv(flow, &mut buffer, bed.now) {
        lens.push(len);
    }
    assert_eq!(lens, [1000, 1000, 500]);
}

#[test]
fn a_refused_port_or_a_missing_route_ends_the_flow() {
    for (source, origin, from, port_code, header) in [
        ("100.64.0.2", "10.0.0.50:53", "100.64.0.1", 3, 20),
        (
            "2606:4700:cf1:5000::6440:2",
            "[fd00::50]:53",
            "2606:4700:cf1:5000::1",
            4,
            40,
        ),
    ] {
        for is_port in [false, true] {
            let mut bed = bed();
            let flow = bed.connect(Protocol::Udp, source, origin);
            bed.flows.send(flow, b"?").unwrap();
            let sent = bed.take();
            let mut out = [0; 1300];
            let len = error(ErrorKind::NetUnreachable, &sent[0], ip(from), &mut out).unwrap();
            if is_port {
                // The code alone, and its part of the checksum (RFC 1624).
                let old = u16::from_be_bytes([out[header], out[header + 1]]);
                out[header + 1] = port_code;
                let new = u16::from_be_bytes([out[header], out[header + 1]]);
                let sum = u16::from_be_bytes([out[header + 2], out[header + 3]]);
                let sum = checksum::update(sum, old, new);
                out[header + 2..header + 4].copy_from_slice(&sum.to_be_bytes());
            }
            bed.give(&out[..len]);
            let ended = if is_port {
                Ended::Refused
            } else {
                Ended::Unreachable
            };
            assert_eq!(bed.events(), [Happened::Ended(ended)]);
            assert_eq!(bed.flows.send(flow, b"?"), Err(SendError::Ended));
            assert_eq!(bed.flows.counters().icmp_errors, 1);
        }
    }
}
