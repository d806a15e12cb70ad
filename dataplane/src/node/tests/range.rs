//! Vnets that chose where they see the source addresses: each sees its own range and nothing of the others'.

use std::net::IpAddr;

use etherparse::{PacketBuilder, PacketHeaders, TransportHeader};

use super::packet;
use super::world::{World, ip, route};
use crate::fib::Nexthop;
use crate::id::{TunnelId, VnetId};
use crate::node::DropReason;
use crate::packet::{Offload, PartialChecksum, Segmentation};
use crate::program::health::Config;
use crate::source::Range;
use crate::wire::checksum::Sum;
use crate::wire::icmp::{ErrorKind, error, quoted_source};
use crate::wire::ip::{self as wire, Inner};

const ORIGIN: &str = "10.0.0.50";
/// Vnet 1's. Vnet 2 stays as it is.
const RANGE: &str = "10.240.0.0/12";

fn world() -> World {
    let mut world = World::new();
    world.place(1, RANGE);
    world
}

/// How vnet 1 sees a lent address.
fn seen(lent: IpAddr) -> IpAddr {
    let IpAddr::V4(lent) = lent else {
        return lent;
    };
    Range::new(RANGE.parse().unwrap())
        .unwrap()
        .seen(lent)
        .into()
}

fn udp(from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        panic!("IPv4");
    };
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64).udp(1000, 53);
    builder.write(&mut packet, payload).unwrap();
    packet
}

/// Whether header and UDP checksum are what another implementation computes.
fn assert_whole(packet: &[u8]) {
    let headers = PacketHeaders::from_ip_slice(packet).unwrap();
    let Some(etherparse::NetHeaders::Ipv4(header, _)) = headers.net else {
        panic!("IPv4");
    };
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    if let Some(TransportHeader::Udp(udp)) = headers.transport {
        let payload = headers.payload.slice();
        let sum = udp.calc_checksum_ipv4(&header, payload).unwrap();
        assert_eq!(udp.checksum, sum);
    }
}

#[test]
fn a_private_network_sees_the_range_it_chose_and_its_answers_come_back() {
    let mut world = world();
    let lent = world.source(1, ORIGIN);
    let arrived = world.send(0, &udp(lent, ip(ORIGIN), b"hello"));
    let [got] = &arrived[1][..] else {
        panic!("{arrived:?}");
    };
    assert_whole(got);
    assert_eq!(Inner::parse(got).unwrap().src, seen(lent));
    assert!(seen(lent).to_string().starts_with("10.240."));
    let arrived = world.send(1, &udp(ip(ORIGIN), seen(lent), b"hello too"));
    let [got] = &arrived[0][..] else {
        panic!("{arrived:?}");
    };
    assert_whole(got);
    assert_eq!(Inner::parse(got).unwrap().dst, lent);
    // IPv6, and the other vnet, are as they were.
    for (vnet, origin) in [(1, "fd00::50"), (2, ORIGIN)] {
        let source = world.source(vnet, origin);
        let arrived = world.send(0, &packet(source, ip(origin), 99, b""));
        let got = &arrived[usize::from(vnet)][0];
        assert_eq!(Inner::parse(got).unwrap().src, source);
        let back = packet(ip(origin), source, 99, b"");
        assert_eq!(world.send(usize::from(vnet), &back)[0].len(), 1);
    }
}

#[test]
fn neither_the_plain_range_nor_anothers_address_is_answered_from_there() {
    let mut world = world();
    let (own, other) = (world.source(1, ORIGIN), world.source(2, ORIGIN));
    let out = |to| packet(ip(ORIGIN), to, 99, b"");
    // By the names that others have for them they are addresses like any, and nobody routes them.
    for plain in [own, other] {
        let arrived = world.send(1, &out(plain));
        let lens: Vec<_> = arrived.iter().map(Vec::len).collect();
        assert_eq!(lens, [0, 1, 0, 0], "only the sender is told");
    }
    assert_eq!(world.edge().dropped(DropReason::NoRoute), 2);
    world.assert_dropped(1, &out(seen(other)), DropReason::ReturnVnetMismatch);
    world.assert_dropped(1, &out(ip("10.240.0.200")), DropReason::ReturnUnknown);
    // The other vnet does not know the range: a private address like any.
    let before = world.edge().dropped(DropReason::RouteLoops);
    let arrived = world.send(2, &out(seen(own)));
    assert!(arrived.iter().all(Vec::is_empty), "{arrived:?}");
    assert_eq!(world.edge().dropped(DropReason::RouteLoops), before + 1);
}

#[test]
fn nobody_behind_a_tunnel_sends_from_the_range() {
    let mut world = world();
    // The worst customer: everything is allowed and routed.
    let mut spec = world.edge().program.spec().clone();
    let tunnel = spec.tunnels.get_mut(&TunnelId(1)).unwrap();
    tunnel.allowed.push("0.0.0.0/0".parse().unwrap());
    route(&mut spec, 1, "0.0.0.0/0", Nexthop::Tunnel(TunnelId(1)));
    world.edge().apply(&spec);
    let own = world.source(1, ORIGIN);
    for from in [seen(own), ip("10.240.0.1"), ip("10.255.255.1")] {
        let forged = packet(from, seen(own), 99, b"");
        world.assert_dropped(1, &forged, DropReason::SourceNotAllowed);
    }
    // Nor are addresses of the range routed into it.
    let to = packet(own, ip("10.240.0.99"), 99, b"");
    let arrived = world.send(0, &to);
    let lens: Vec<_> = arrived.iter().map(Vec::len).collect();
    assert_eq!(lens, [1, 0, 0, 0], "only the sender is told");
    assert_eq!(world.edge().dropped(DropReason::NoRoute), 1);
}

#[test]
fn errors_name_in_each_network_what_it_knows() {
    let mut world = world();
    let lent = world.source(1, ORIGIN);
    // A router of the private network about a packet of ours.
    let about = udp(seen(lent), ip(ORIGIN), &[7; 64]);
    let mut out = [0; 1280];
    let len = error(ErrorKind::HostUnreachable, &about, ip("10.0.0.1"), &mut out).unwrap();
    let arrived = world.send(1, &out[..len]);
    let got = &arrived[0][0];
    assert_whole(got);
    let inner = Inner::parse(got).unwrap();
    assert_eq!((inner.dst, quoted_source(got, &inner)), (lent, Some(lent)));
    assert_eq!(Sum::new().bytes(&got[20..]).checksum(), 0);
    // The edge about a packet of its own machine: too long, and without a route.
    let mut long = udp(lent, ip(ORIGIN), &[7; 1450]);
    long[6] = 0x40;
    super::seal(&mut long);
    for (sent, kind) in [(long, 4), (udp(lent, ip("192.0.2.1"), b""), 0)] {
        let arrived = world.send(0, &sent);
        let got = &arrived[0][0];
        let inner = Inner::parse(got).unwrap();
        assert_eq!((got[20], got[21]), (3, kind));
        assert_eq!((inner.dst, quoted_source(got, &inner)), (lent, Some(lent)));
        assert_eq!(Sum::new().bytes(&got[20..]).checksum(), 0);
    }
    // The edge as a hop of the private network's own packets.
    let ttl = super::with_ttl(packet(ip(ORIGIN), ip("10.3.0.200"), 99, b""), 2);
    let arrived = world.send(1, &ttl);
    let inner = Inner::parse(&arrived[1][0]).unwrap();
    assert_eq!((inner.src, inner.dst), (ip("10.240.0.1"), ip(ORIGIN)));
    // A socket of this machine is not there: what it is about is what the private network sent.
    let about = udp(ip(ORIGIN), lent, &[7; 32]);
    let len = error(ErrorKind::AdminProhibited, &about, lent, &mut out).unwrap();
    let arrived = world.send(0, &out[..len]);
    let got = &arrived[1][0];
    assert_eq!(Inner::parse(got).unwrap().src, seen(lent));
    assert_eq!(Inner::parse(&got[28..]).unwrap().dst, seen(lent));
    assert_eq!(Sum::new().bytes(&got[20..]).checksum(), 0);
}

#[test]
fn a_super_packet_with_an_open_checksum_leaves_in_whole_pieces() {
    let mut world = world();
    let lent = world.source(1, ORIGIN);
    let mut long = udp(lent, ip(ORIGIN), &[7; 3000]);
    let l4_len = long.len() - 20;
    let sum = Sum::pseudo(lent, ip(ORIGIN), wire::UDP, l4_len).folded();
    long[26..28].copy_from_slice(&sum.to_be_bytes());
    let offload = Offload {
        segmentation: Segmentation::Udp,
        segment_size: 1000,
        checksum: Some(PartialChecksum {
            start: 20,
            offset: 6,
        }),
    };
    let edge = world.edge();
    let now = edge.now;
    edge.next().handle_overlay(&mut long, offload, now);
    world.pump();
    let got = std::mem::take(&mut world.site(1).overlay);
    // The site puts together again only what has right checksums.
    let [whole] = &got[..] else {
        panic!("{} pieces", got.len());
    };
    let inner = Inner::parse(whole).unwrap();
    assert_eq!((inner.src, inner.total_len), (seen(lent), 20 + l4_len));
}

#[test]
fn who_moved_away_may_own_what_is_lent_to_others() {
    let mut world = world();
    let mut spec = world.edge().program.spec().clone();
    let tunnel = spec.tunnels.get_mut(&TunnelId(1)).unwrap();
    tunnel.allowed.push("100.64.0.0/16".parse().unwrap());
    route(&mut spec, 1, "100.64.0.0/16", Nexthop::Tunnel(TunnelId(1)));
    world.edge().apply(&spec);
    let mut spec = world.site(1).program.spec().clone();
    route(&mut spec, 1, "100.64.0.0/16", Nexthop::Local);
    world.site(1).apply(&spec);
    let (own, other) = (world.source(1, ORIGIN), world.source(2, ORIGIN));
    // Hosts of the private network that have the lent addresses themselves.
    for host in [own, other] {
        let arrived = world.send(0, &udp(own, host, b"hello"));
        let [got] = &arrived[1][..] else {
            panic!("{arrived:?}");
        };
        let inner = Inner::parse(got).unwrap();
        assert_eq!((inner.src, inner.dst), (seen(own), host));
        let arrived = world.send(1, &udp(host, seen(own), b"hello too"));
        let [got] = &arrived[0][..] else {
            panic!("{arrived:?}");
        };
        assert_whole(got);
        let inner = Inner::parse(got).unwrap();
        assert_eq!((inner.src, inner.dst), (host, own));
    }
    // The other vnet did not move: there it is nobody's to own.
    let packet = packet(other, own, 99, b"");
    world.assert_dropped(2, &packet, DropReason::SourceNotAllowed);
}

#[test]
fn a_range_that_changes_takes_effect_at_once_and_others_lend_the_same_numbers() {
    let mut world = world();
    let lent = world.source(1, ORIGIN);
    for range in ["172.16.0.0/12", "100.80.0.0/12", "100.64.0.0/12"] {
        world.place(1, range);
        assert_eq!(world.source(1, ORIGIN), lent, "sockets stay bound");
        let arrived = world.send(0, &udp(lent, ip(ORIGIN), b""));
        let from = Inner::parse(&arrived[1][0]).unwrap().src;
        let net: ipnet::IpNet = range.parse().unwrap();
        assert!(net.contains(&from), "{from} of {range}");
        assert_eq!(world.send(1, &udp(ip(ORIGIN), from, b""))[0].len(), 1);
        let rows = world.edge().program.source_rows();
        let row = rows.iter().find(|row| row.vnet == VnetId(1)).unwrap();
        assert!(net.contains(&IpAddr::from(row.seen_ipv4)));
        // The one before is nobody's, and a route inside of the new one is refused.
        let old = packet(ip(ORIGIN), seen(lent), 99, b"");
        assert!(world.send(1, &old)[0].is_empty());
    }
}

/// Where the workers do not take it of one tunnel, the others are told all the same, and it is tried again.
#[test]
fn every_tunnel_that_is_probed_from_a_source_address_is_told_of_a_new_range_until_it_is() {
    let mut world = World::new();
    let mut spec = world.edge().program.spec().clone();
    for tunnel in spec.tunnels.values_mut() {
        tunnel.health = Some(Config {
            target: Some(ip(ORIGIN)),
            ..Config::default()
        });
    }
    world.edge().apply(&spec);
    let range = Range::new(RANGE.parse().unwrap()).unwrap();
    spec.vnets.get_mut(&VnetId(1)).unwrap().range = range;
    let program = &mut world.edge().program;
    for is_refused in [true, false] {
        let delta = program.spec().diff(&spec);
        let mut told = Vec::new();
        let applied = program.apply(&delta, &mut |change| {
            told.push(change.id());
            match is_refused && change.id() == TunnelId(1) {
                true => Err("the device is away".to_owned()),
                false => Ok(()),
            }
        });
        assert_eq!(told, [TunnelId(1), TunnelId(3)], "those of vnet 1");
        assert_eq!(applied.rejected.len(), usize::from(is_refused));
    }
    assert!(program.spec().diff(&spec).changes.is_empty());
}
