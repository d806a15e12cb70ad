//! What routers behind the tunnels report: it is of their vnet, and of nobody else's packets.

use std::net::IpAddr;

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};

use super::packet;
use super::world::{EDGE, World, ip};
use crate::node::DropReason;
use crate::packet::{Offload, PartialChecksum, Segmentation};
use crate::wire::checksum::Sum;
use crate::wire::icmp::{ErrorKind, error};

/// A TCP packet of so many bytes that nobody may cut.
fn tcp(source: IpAddr, destination: IpAddr, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let payload = |head: usize| -> Vec<u8> {
        (0..len - head)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect()
    };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
                .tcp(40_000, 80, 7_000, 1_000)
                .ack(1)
                .psh()
                .write(&mut bytes, &payload(40))
                .unwrap();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
                .tcp(40_000, 80, 7_000, 1_000)
                .ack(1)
                .psh()
                .write(&mut bytes, &payload(60))
                .unwrap();
        }
        _ => panic!("one family"),
    }
    bytes
}

/// What a router behind a tunnel says of a packet.
fn too_big(of: &[u8], mtu: u16) -> Vec<u8> {
    let router = if of[0] >> 4 == 4 {
        "10.0.0.1"
    } else {
        "fd00::1"
    };
    let mut out = vec![0; 1280];
    let kind = ErrorKind::PacketTooBig { mtu };
    let len = error(kind, of, ip(router), &mut out).unwrap();
    out.truncate(len);
    out
}

/// The stream that pieces carry, checked: lengths, numbers, checksums, and who says that it is the last.
fn joined(pieces: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        assert!(piece.len() <= mtu, "{} bytes", piece.len());
        let headers = PacketHeaders::from_ip_slice(piece).unwrap();
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
            panic!("no TCP");
        };
        let payload = headers.payload.slice();
        let sum = match headers.net.unwrap() {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                tcp.calc_checksum_ipv4(&ip, payload).unwrap()
            }
            NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(&ip, payload).unwrap(),
            NetHeaders::Arp(_) => panic!("no ARP here"),
        };
        assert_eq!(tcp.checksum, sum);
        assert_eq!(
            tcp.sequence_number,
            7_000 + u32::try_from(stream.len()).unwrap()
        );
        assert_eq!(tcp.psh, at + 1 == pieces.len());
        stream.extend_from_slice(payload);
    }
    stream
}

/// What comes out at site `n` of a packet that the edge sends: one by one, as together they would be joined again.
fn pieces(world: &mut World, n: usize, packet: &[u8]) -> Vec<Vec<u8>> {
    world.edge().send(packet);
    taken(world, n)
}

fn taken(world: &mut World, n: usize) -> Vec<Vec<u8>> {
    let sent = world.edge().sent();
    let site = world.site(n);
    let mut pieces = Vec::new();
    for (to, mut datagram) in sent {
        assert_eq!(to, site.at);
        site.hear(EDGE.parse().unwrap(), &mut datagram);
        site.sent();
        pieces.append(&mut site.overlay);
    }
    pieces
}

fn len_of_headers(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 40 } else { 60 }
}

#[test]
fn what_a_router_of_one_vnet_says_cuts_the_streams_of_that_vnet_only() {
    for (dst, mtu) in [("10.0.0.50", 1000), ("fd00::50", 1300)] {
        let mut world = World::new();
        let whole = tcp(world.source(1, dst), ip(dst), 1400);
        let others = tcp(world.source(2, dst), ip(dst), 1400);
        assert_eq!(world.send(0, &whole)[1].len(), 1);
        // The kernel hears nothing of it.
        let arrived = world.send(1, &too_big(&whole, mtu));
        assert!(arrived[0].is_empty());
        let heard = world.edge().count(|counters| counters.path_reports_inside);
        assert_eq!(heard, 1);
        // All workers know.
        for _ in 0..3 {
            let arrived = pieces(&mut world, 1, &whole);
            assert_eq!(arrived.len(), 2);
            let stream = joined(&arrived, usize::from(mtu));
            assert_eq!(stream, whole[len_of_headers(&whole)..]);
            let arrived = pieces(&mut world, 2, &others);
            assert_eq!(arrived.len(), 1, "the same address in another vnet");
            assert_eq!(arrived[0].len(), 1400);
        }
        let near = if dst.contains(':') {
            "fd00::51"
        } else {
            "10.0.0.51"
        };
        let beside = tcp(world.source(1, dst), ip(near), 1400);
        assert_eq!(pieces(&mut world, 1, &beside).len(), 1, "another host");
    }
}

#[test]
fn a_vnet_cannot_speak_of_anothers_packets() {
    let mut world = World::new();
    let own = tcp(world.source(1, "10.0.0.50"), ip("10.0.0.50"), 1400);
    // Site 2 quotes a packet of vnet 1, to the source address of vnet 1: that address is none of its vnet's.
    let report = too_big(&own, 600);
    world.assert_dropped(2, &report, DropReason::ReturnVnetMismatch);
    // To its own address, about a packet of vnet 1.
    let mut report = report;
    let IpAddr::V4(to) = world.source(2, "10.0.0.50") else {
        panic!("IPv4")
    };
    report[16..20].copy_from_slice(&to.octets());
    super::seal(&mut report);
    ignored(&mut world, 2, &report);
    assert_eq!(pieces(&mut world, 1, &own).len(), 1);
    let others = tcp(world.source(2, "10.0.0.50"), ip("10.0.0.50"), 1400);
    assert_eq!(pieces(&mut world, 2, &others).len(), 1);
}

/// Nothing of it comes to the kernel, and nothing is learnt.
fn ignored(world: &mut World, n: usize, report: &[u8]) {
    let before = world.edge().count(|counters| counters.path_reports_ignored);
    let arrived = world.send(n, report);
    assert!(arrived.iter().all(Vec::is_empty), "{arrived:?}");
    let after = world.edge().count(|counters| counters.path_reports_ignored);
    assert_eq!(after, before + 1);
    assert_eq!(
        world.edge().count(|counters| counters.path_reports_inside),
        0
    );
}

/// The kernel believes far more than is true: pings that were never sent, other codes, quotations of pieces.
#[test]
fn whatever_a_report_is_about_the_kernel_does_not_hear_it() {
    for dst in ["10.0.0.50", "fd00::50"] {
        let mut world = World::new();
        let source = world.source(1, dst);
        let whole = tcp(source, ip(dst), 1400);
        let is_v4 = whole[0] >> 4 == 4;
        let icmp = if is_v4 { (1, 0) } else { (58, 129) };
        for (protocol, first) in [icmp, (17, 7), (99, 7)] {
            let about = packet(source, ip(dst), protocol, &[first; 1380]);
            ignored(&mut world, 1, &too_big(&about, 1290));
        }
        let mut damaged = too_big(&whole, 1290);
        damaged[100] ^= 1;
        ignored(&mut world, 1, &damaged);
        // Not longer than what is said to fit: nothing that a router would say.
        let short = tcp(source, ip(dst), 900);
        ignored(&mut world, 1, &too_big(&short, 1290));
        let mut odd = too_big(&whole, 1290);
        if is_v4 {
            // About a later piece, which has no ports.
            odd[28 + 7] = 1;
        } else {
            // The kernel does not look at the code.
            odd[41] = 1;
        }
        ignored(&mut world, 1, &odd);
        assert_eq!(pieces(&mut world, 1, &whole).len(), 1);
    }
}

/// Another site of the same vnet does not know the way to a host that it has not got.
#[test]
fn a_site_speaks_of_its_own_hosts_only() {
    let mut world = World::new();
    let whole = tcp(world.source(1, "10.0.0.50"), ip("10.0.0.50"), 1400);
    let mut report = too_big(&whole, 1000);
    report[12..16].copy_from_slice(&[10, 3, 0, 1]);
    super::seal(&mut report);
    ignored(&mut world, 3, &report);
    assert_eq!(pieces(&mut world, 1, &whole).len(), 1);
}

#[test]
fn a_range_of_the_vnets_own_changes_nothing() {
    let mut world = World::new();
    world.place(1, "10.240.0.0/12");
    let lent = world.source(1, "10.0.0.50");
    let whole = tcp(lent, ip("10.0.0.50"), 1400);
    let as_seen = pieces(&mut world, 1, &whole).remove(0);
    assert!(world.send(1, &too_big(&as_seen, 1000))[0].is_empty());
    assert_eq!(
        world.edge().count(|counters| counters.path_reports_inside),
        1
    );
    let arrived = pieces(&mut world, 1, &whole);
    assert_eq!(arrived.len(), 2);
    assert_eq!(joined(&arrived, 1000), whole[40..]);
    assert_eq!(arrived[0][12..16], as_seen[12..16]);
}

/// As the kernel gives it: 8000 bytes to be cut into segments, with only the pseudo-header's sum. The address is
/// exchanged, the pieces are smaller than was asked for, and they leave by another worker.
#[test]
fn a_super_packet_is_cut_smaller_than_the_kernel_asked() {
    for range in ["100.64.0.0/12", "10.240.0.0/12"] {
        let mut world = World::new();
        world.place(1, range);
        let lent = world.source(1, "10.0.0.50");
        let one = pieces(&mut world, 1, &tcp(lent, ip("10.0.0.50"), 1400)).remove(0);
        world.send(1, &too_big(&one, 1000));
        let mut long = tcp(lent, ip("10.0.0.50"), 8040);
        let l4_len = long.len() - 20;
        let sum = Sum::pseudo(lent, ip("10.0.0.50"), 6, l4_len).folded();
        long[36..38].copy_from_slice(&sum.to_be_bytes());
        let offload = Offload {
            segmentation: Segmentation::Tcp,
            segment_size: 1380,
            checksum: Some(PartialChecksum {
                start: 20,
                offset: 16,
            }),
        };
        for _ in 0..3 {
            let (edge, mut packet) = (world.edge(), long.clone());
            let now = edge.now;
            edge.next().handle_overlay(&mut packet, offload, now);
            let arrived = taken(&mut world, 1);
            assert_eq!(arrived.len(), 9, "8000 bytes, 960 in each");
            assert_eq!(joined(&arrived, 1000), long[40..]);
        }
    }
}

/// What does not fit the tunnel itself is cut, too, in place of telling the kernel, which would remember it for the
/// same address of all vnets.
#[test]
fn a_stream_that_does_not_fit_the_tunnel_is_cut() {
    let mut world = World::new();
    let whole = tcp(world.source(1, "10.0.0.50"), ip("10.0.0.50"), 1460);
    let arrived = pieces(&mut world, 1, &whole);
    assert_eq!(arrived.len(), 2);
    assert_eq!(joined(&arrived, 1420), whole[40..]);
    assert!(world.edge().overlay.is_empty());
    // A site's hosts are told: they have paths of their own.
    let sites = tcp(ip("10.0.0.50"), world.source(1, "10.0.0.50"), 1460);
    let arrived = world.send(1, &sites);
    assert_eq!(arrived[1].len(), 1);
    assert_eq!(arrived[1][0][20..22], [3, 4]);
    assert!(arrived[0].is_empty());
}
