//! What packets look like behind a tunnel: MSS, fragments, ECN; and GRE tunnels side by side.

use std::net::IpAddr;

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TcpOptionElement, TransportHeader};

use super::packet;
use super::world::{EDGE, End, World, ip, route, site_at, tunnel};
use crate::fib::Nexthop;
use crate::id::{TunnelId, VnetId};
use crate::node::{DropReason, Role};
use crate::packet::{Carrier, Way};
use crate::program::{Spec, Tunnel, Vnet};
use crate::tunnel::{self, gre};
use crate::wire::ecn;

fn syn(src: IpAddr, dst: IpAddr, mss: u16) -> Vec<u8> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) else {
        panic!("IPv4");
    };
    let mut packet = Vec::new();
    PacketBuilder::ipv4(src.octets(), dst.octets(), 64)
        .tcp(1, 2, 3, 4)
        .syn()
        .options(&[TcpOptionElement::MaximumSegmentSize(mss)])
        .unwrap()
        .write(&mut packet, &[])
        .unwrap();
    packet
}

fn mss_of(packet: &[u8]) -> u16 {
    let headers = PacketHeaders::from_ip_slice(packet).unwrap();
    let (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) =
        (headers.net, headers.transport)
    else {
        panic!("TCP over IPv4");
    };
    assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, &[]).unwrap());
    let mss = tcp.options_iterator().find_map(|option| {
        if let Ok(TcpOptionElement::MaximumSegmentSize(mss)) = option {
            Some(mss)
        } else {
            None
        }
    });
    mss.unwrap()
}

#[test]
fn a_syn_offers_what_fits_the_tunnel_in_both_directions() {
    let mut world = World::new();
    let (source, origin) = (world.source(1, "10.0.0.50"), ip("10.0.0.50"));
    // 1420 bytes of MTU, less 40 of headers.
    let arrived = world.send(0, &syn(source, origin, 1460));
    assert_eq!(mss_of(&arrived[1][0]), 1380);
    let arrived = world.send(1, &syn(origin, source, 8960));
    assert_eq!(mss_of(&arrived[0][0]), 1380);
    let arrived = world.send(1, &syn(origin, source, 1000));
    assert_eq!(mss_of(&arrived[0][0]), 1000);
}

#[test]
fn a_packet_that_may_be_cut_arrives_in_pieces_and_another_is_reported() {
    let mut world = World::new();
    let source = world.source(1, "10.0.0.50");
    let long = packet(source, ip("10.0.0.50"), 99, &[7; 2000]);
    let arrived = world.send(0, &long);
    let lens: Vec<usize> = arrived[1].iter().map(Vec::len).collect();
    // The first piece ends at a multiple of eight: 20 + 1400.
    assert_eq!(lens, [1420, 620]);
    assert_eq!(world.edge().count(|counters| counters.fragments), 2);
    let mut whole = long;
    whole[6] = 0x40;
    super::seal(&mut whole);
    let arrived = world.send(0, &whole);
    assert!(arrived[1].is_empty());
    // Fragmentation needed, 1420 bytes would fit (RFC 1191 section 4).
    assert_eq!(arrived[0][0][20..22], [3, 4]);
    assert_eq!(arrived[0][0][26..28], 1420_u16.to_be_bytes());
    assert_eq!(world.edge().dropped(DropReason::TooBig), 1);
}

#[test]
fn between_sites_pieces_are_cut_again_for_a_narrower_tunnel() {
    let mut world = World::new();
    let mut spec = world.edge().program.spec().clone();
    spec.tunnels.get_mut(&TunnelId(3)).unwrap().mtu = 1000;
    world.edge().apply(&spec);
    let long = packet(ip("10.0.0.50"), ip("10.3.0.200"), 99, &[7; 2000]);
    world.site(1).send(&long);
    let came = world.site(1).sent();
    assert_eq!(came.len(), 2);
    for (_, mut datagram) in came {
        world.edge().hear(site_at(1), &mut datagram);
    }
    // 1420 and 620 bytes came out of the first tunnel: 996 and 444 of the one, and the other whole.
    let went = world.edge().sent();
    assert!(went.iter().all(|(to, _)| *to == site_at(3)));
    let padded = [1000, 448, 624].map(|len| len + 32);
    let lens: Vec<usize> = went.iter().map(|(_, datagram)| datagram.len()).collect();
    assert_eq!(lens, padded);
    assert_eq!(world.edge().count(|counters| counters.fragments), 2);
}

#[test]
fn congestion_outside_shows_inside_or_the_packet_is_dropped() {
    let mut world = World::new();
    let source = world.source(1, "10.0.0.50");
    for (inner, expected) in [(ecn::ECT_0, Some(ecn::CE)), (ecn::NOT_ECT, None)] {
        let mut sent = packet(ip("10.0.0.50"), source, 99, b"");
        sent[1] = inner;
        super::seal(&mut sent);
        world.site(1).send(&sent);
        let (_, mut datagram) = world.site(1).sent().remove(0);
        let way = Way {
            class: ecn::CE,
            ..Way::wireguard(site_at(1))
        };
        let now = world.edge().now;
        world.edge().crew[0].handle_underlay(way, &mut datagram, now);
        let sent = world.edge().sent();
        assert!(sent.is_empty());
        let got = world.edge().overlay.pop();
        assert_eq!(got.map(|packet| packet[1]), expected);
    }
    assert_eq!(world.edge().dropped(DropReason::Congestion), 1);
}

const OURS: &str = "198.51.100.1";
const THEIRS: &str = "198.51.100.20";

fn gre_tunnel(vnet: u16, key: u32) -> Tunnel {
    Tunnel {
        name: format!("key {key}"),
        mtu: 1476,
        kind: tunnel::Config::Gre(gre::Config {
            local: ip(OURS),
            remote: ip(THEIRS),
            key_tx: Some(key),
            key_rx: Some(key),
            is_checksummed: false,
            is_sequenced: false,
            keepalive: None,
            ttl: gre::TTL_DEFAULT,
        }),
        ..tunnel(vnet, (1, 2), None, &["10.0.0.0/24"])
    }
}

/// An edge of three workers with two vnets behind one GRE router, told apart by the keys 1 and 2.
fn one_router_for_two_vnets() -> End {
    let mut spec = Spec::default();
    for vnet in 1..=2 {
        let name = format!("vnet {vnet}");
        spec.vnets.insert(VnetId(vnet), Vnet::named(name));
        let id = TunnelId(vnet.into());
        spec.tunnels.insert(id, gre_tunnel(vnet, vnet.into()));
        route(&mut spec, vnet, "10.0.0.0/24", Nexthop::Tunnel(id));
    }
    End::new(EDGE.parse().unwrap(), Role::Edge, &spec, 3)
}

fn in_gre(key: u8, packet: &[u8]) -> Vec<u8> {
    [&[0x20, 0, 0x08, 0x00, 0, 0, 0, key][..], packet].concat()
}

fn hear(edge: &mut End, mut datagram: Vec<u8>) -> Vec<Vec<u8>> {
    let (way, now) = (Way::raw(Carrier::Gre, ip(OURS), ip(THEIRS)), edge.now);
    // The first worker's socket has all of GRE.
    edge.crew[0].handle_underlay(way, &mut datagram, now);
    assert!(edge.sent().is_empty());
    std::mem::take(&mut edge.overlay)
}

#[test]
fn two_vnets_behind_one_gre_router_stay_apart_by_their_keys() {
    let mut edge = one_router_for_two_vnets();
    let sources: Vec<IpAddr> = (1..=2)
        .map(|vnet| {
            edge.program
                .tables()
                .sources
                .of(VnetId(vnet))
                .unwrap()
                .into()
        })
        .collect();
    for (key, source) in (1_u8..).zip(&sources) {
        let sent = packet(*source, ip("10.0.0.50"), 99, b"there");
        edge.send(&sent);
        let out = edge.sent();
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].1[..8], in_gre(key, &[]));
        let back = packet(ip("10.0.0.50"), *source, 99, b"back");
        assert_eq!(
            hear(&mut edge, in_gre(key, &back)),
            std::slice::from_ref(&back)
        );
        // The other vnet's key.
        assert!(hear(&mut edge, in_gre(3 - key, &back)).is_empty());
        assert_eq!(edge.dropped(DropReason::ReturnVnetMismatch), u64::from(key));
        // No key, or nobody's.
        let bare = [&[0, 0, 0x08, 0x00][..], &back].concat();
        assert!(hear(&mut edge, bare).is_empty());
        assert!(hear(&mut edge, in_gre(9, &back)).is_empty());
        assert_eq!(edge.dropped(DropReason::GreNameUnknown), u64::from(key) * 2);
    }
}

#[test]
fn a_tunnel_between_the_addresses_and_key_of_another_is_refused() {
    let mut edge = one_router_for_two_vnets();
    let mut spec = edge.program.spec().clone();
    spec.tunnels.insert(TunnelId(3), gre_tunnel(2, 1));
    let delta = edge.program.spec().diff(&spec);
    let (crew, now) = (&mut edge.crew, edge.now);
    let applied = edge.program.apply(&delta, &mut |change| {
        crew.iter_mut()
            .try_for_each(|node| node.apply(change.clone(), now))
    });
    assert!(applied.rejected[0].1.contains("key_rx"), "{applied:?}");
}
