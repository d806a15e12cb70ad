//! Two nodes back to back with real handshakes, and an attacker behind each site.

mod health;
mod ipsec;
mod path;
mod paths;
mod entry;
mod errors;
mod fragments;
mod hygiene;
mod isolation;
mod range;
mod relay;
mod rivals;
mod workers;
mod world;

use std::net::IpAddr;

use super::*;
use crate::fib::{Candidate, Candidates, Nexthop};
use crate::id::{TunnelId, VnetId};
use crate::wire::checksum::Sum;
use crate::wire::ip::Inner;

use world::{EDGE, World, ip, site_at, tunnel};

/// A packet with a right header checksum.
fn packet(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes = vec![0; 20];
            bytes[0] = 0x45;
            let len = u16::try_from(20 + payload.len()).unwrap();
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            (bytes[8], bytes[9]) = (64, protocol);
            bytes[12..16].copy_from_slice(&src.octets());
            bytes[16..20].copy_from_slice(&dst.octets());
            seal(&mut bytes);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes = vec![0; 40];
            bytes[0] = 0x60;
            let len = u16::try_from(payload.len()).unwrap();
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            (bytes[6], bytes[7]) = (protocol, 64);
            bytes[8..24].copy_from_slice(&src.octets());
            bytes[24..40].copy_from_slice(&dst.octets());
        }
        _ => panic!("one family"),
    }
    bytes.extend_from_slice(payload);
    bytes
}

fn seal(bytes: &mut [u8]) {
    bytes[10..12].fill(0);
    let sum = Sum::new().bytes(&bytes[..20]).checksum();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn with_ttl(mut bytes: Vec<u8>, ttl: u8) -> Vec<u8> {
    bytes[8] = ttl;
    seal(&mut bytes);
    bytes
}

#[test]
fn the_source_address_decides_which_10_0_0_50_is_meant() {
    for dst in ["10.0.0.50", "fd00::50"] {
        for vnet in 1..=2 {
            let mut world = World::new();
            let sent = packet(world.source(vnet, dst), ip(dst), 99, b"hello");
            let arrived = world.send(0, &sent);
            for (n, packets) in arrived.iter().enumerate() {
                assert_eq!(
                    packets.len(),
                    usize::from(n == usize::from(vnet)),
                    "end {n}"
                );
            }
            let got = &arrived[usize::from(vnet)][0];
            let inner = Inner::parse(got).unwrap();
            assert_eq!((inner.ttl, inner.dst), (63, ip(dst)));
            let back = packet(ip(dst), world.source(vnet, dst), 99, b"hello too");
            assert_eq!(world.send(usize::from(vnet), &back)[0].len(), 1);
        }
    }
}

#[test]
fn the_overlay_sends_only_from_addresses_that_were_lent() {
    for src in ["192.0.2.1", "100.64.0.200", "100.65.0.2", "10.0.0.50"] {
        let sent = packet(ip(src), ip("10.0.0.50"), 99, b"");
        World::new().assert_dropped(0, &sent, DropReason::SourceNotOurs);
    }
    let sent = packet(ip("fd00::1"), ip("fd00::50"), 99, b"");
    World::new().assert_dropped(0, &sent, DropReason::SourceNotOurs);
}

#[test]
fn a_links_own_noise_is_dropped_by_its_own_name() {
    for (src, dst) in [
        ("fe80::1", "ff02::2"),
        ("::", "ff02::16"),
        ("100.64.0.2", "224.0.0.251"),
        ("100.64.0.2", "255.255.255.255"),
    ] {
        let sent = packet(ip(src), ip(dst), 99, b"");
        World::new().assert_dropped(0, &sent, DropReason::LinkLocalNoise);
    }
}

#[test]
fn sources_that_belong_to_nobody_there_arrive_nowhere() {
    let mut world = World::new();
    for (n, src) in [
        (1, "10.3.0.7"),
        (1, "192.0.2.1"),
        (3, "10.0.0.50"),
        (1, "fd00:3::7"),
    ] {
        let to = world.source(1, src);
        let sent = packet(ip(src), to, 99, b"");
        world.assert_dropped(n, &sent, DropReason::SourceNotAllowed);
    }
}

#[test]
fn source_addresses_of_the_edge_cannot_come_out_of_a_tunnel() {
    let mut world = World::new();
    for n in 1..=3 {
        for like in ["10.0.0.1", "fd00::1"] {
            let (one, two) = (world.source(1, like), world.source(2, like));
            for (src, dst) in [(one, two), (two, one), (one, one), (two, two)] {
                let sent = packet(src, dst, 99, b"");
                world.assert_dropped(n, &sent, DropReason::SourceNotAllowed);
            }
        }
    }
}

#[test]
fn an_answer_cannot_go_to_another_vnet() {
    let mut world = World::new();
    for src in ["10.0.0.50", "fd00::50"] {
        for (n, vnet) in [(1, 2), (2, 1)] {
            let dst = world.source(vnet, src);
            let mut sent = packet(ip(src), dst, 99, b"");
            world.assert_dropped(n, &sent, DropReason::ReturnVnetMismatch);
            // Neither in pieces, nor wrapped.
            if src.contains('.') {
                sent[6] = 0x20;
                seal(&mut sent);
                world.assert_dropped(n, &sent, DropReason::ReturnVnetMismatch);
                sent[6..8].copy_from_slice(&[0, 9]);
                seal(&mut sent);
                world.assert_dropped(n, &sent, DropReason::ReturnVnetMismatch);
            }
        }
    }
    for dst in ["100.64.0.1", "100.64.0.250", "100.79.255.255"] {
        let sent = packet(ip("10.0.0.50"), ip(dst), 99, b"");
        world.assert_dropped(1, &sent, DropReason::ReturnUnknown);
    }
}

#[test]
fn only_the_outer_of_two_ip_headers_is_looked_at_and_the_inner_stays_wrapped() {
    let mut world = World::new();
    let (one, two) = (world.source(1, "."), world.source(2, "."));
    let hidden = packet(two, ip("10.0.0.50"), 99, b"");
    let sent = packet(ip("10.0.0.50"), one, 4, &hidden);
    let arrived = world.send(1, &sent);
    // But for the hop that the site's own egress took.
    assert_eq!(arrived[0], [with_ttl(sent, 63)]);
    assert!(arrived[1..].iter().all(Vec::is_empty));
}

#[test]
fn an_icmp_error_about_somebody_elses_flow_stays_in_its_vnet() {
    let mut world = World::new();
    let (one, two) = (world.source(1, "."), world.source(2, "."));
    let quoted = packet(two, ip("10.0.0.50"), 17, &[0; 8]);
    let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
    let sent = packet(ip("10.0.0.50"), two, 1, &error);
    world.assert_dropped(1, &sent, DropReason::ReturnVnetMismatch);
    let sent = packet(ip("10.0.0.50"), one, 1, &error);
    let arrived = world.send(1, &sent);
    assert!(arrived[1..].iter().all(Vec::is_empty));
}

#[test]
fn sites_of_one_vnet_reach_each_other_and_pay_a_hop() {
    let mut world = World::new();
    let sent = packet(ip("10.0.0.50"), ip("10.3.0.50"), 99, b"site to site");
    // From site 1's own stack 10.3.0.50 is local: only addresses of the attack go out.
    let sent = [&sent[..16], &[10, 3, 0, 200], &sent[20..]].concat();
    let mut sent = sent;
    seal(&mut sent);
    world.site(1).send(&sent);
    let (to, mut datagram) = world.site(1).sent().remove(0);
    assert_eq!(to, EDGE.parse().unwrap());
    let edge = world.edge();
    edge.hear(site_at(1), &mut datagram);
    let out = edge.sent();
    assert_eq!(out[0].0, site_at(3));
    assert_eq!(edge.count(|counters| counters.forwarded_packets), 1);
}

#[test]
fn a_site_cannot_reach_a_network_of_another_vnet() {
    let mut world = World::new();
    let before = world.edge().dropped(DropReason::NoRoute);
    let sent = packet(ip("10.0.0.50"), ip("192.0.2.9"), 99, b"");
    let arrived = world.send(1, &sent);
    assert_eq!(world.edge().dropped(DropReason::NoRoute), before + 1);
    // It is told so, by the edge's router address, and nobody else hears of it.
    assert_eq!(arrived[1].len(), 1);
    let told = Inner::parse(&arrived[1][0]).unwrap();
    assert_eq!((told.src, told.dst), (ip("100.64.0.1"), ip("10.0.0.50")));
    assert_eq!(arrived[1][0][20..22], [3, 0]);
    assert!(arrived[0].is_empty() && arrived[2].is_empty() && arrived[3].is_empty());
}

#[test]
fn the_overlay_hears_of_a_ttl_that_ran_out_a_missing_route_and_a_small_mtu() {
    let mut world = World::new();
    let src = world.source(1, ".");
    let plain = packet(src, ip("10.0.0.50"), 99, b"");
    let lost = packet(src, ip("192.0.2.9"), 99, b"");
    let mut big = packet(src, ip("10.0.0.50"), 99, &[0; 1401]);
    big[6] = 0x40;
    seal(&mut big);
    for (sent, reason, kind) in [
        (with_ttl(plain, 1), DropReason::TtlExceeded, [11, 0, 0, 0]),
        (lost, DropReason::NoRoute, [3, 0, 0, 0]),
        (big, DropReason::TooBig, [3, 4, 0x05, 0x8c]),
    ] {
        let arrived = world.send(0, &sent);
        assert_eq!(world.edge().dropped(reason), 1);
        let told = &arrived[0][0];
        assert_eq!([told[20], told[21], told[26], told[27]], kind, "{reason:?}");
        assert_eq!(Inner::parse(told).unwrap().src, ip("100.64.0.1"));
        assert!(arrived[1..].iter().all(Vec::is_empty));
    }
}

#[test]
fn icmp_errors_are_limited() {
    let mut world = World::of(1);
    let sent = packet(world.source(1, "."), ip("192.0.2.9"), 99, b"");
    for _ in 0..1000 {
        world.edge().send(&sent);
    }
    let counters = world.edge().crew[0].counters();
    assert_eq!(counters.icmp_errors, 50);
    assert_eq!(counters.icmp_errors_limited, 950);
    assert_eq!(counters.dropped(DropReason::NoRoute), 1000);
}

#[test]
fn a_deleted_route_and_a_deleted_tunnel_stop_traffic_of_their_vnet_only() {
    let mut world = World::new();
    let one = packet(world.source(1, "."), ip("10.0.0.50"), 99, b"");
    let two = packet(world.source(2, "."), ip("10.0.0.50"), 99, b"");
    let mut spec = world.edge().program.spec().clone();
    spec.routes.retain(|key, _| key.vnet != VnetId(1));
    world.edge().apply(&spec);
    assert!(world.send(0, &one)[1].is_empty());
    assert_eq!(world.send(0, &two)[2].len(), 1);
    spec.tunnels.remove(&TunnelId(1));
    world.edge().apply(&spec);
    let back = packet(ip("10.0.0.50"), world.source(1, "."), 99, b"");
    world.assert_dropped(1, &back, DropReason::IndexUnknown);
    assert_eq!(world.send(0, &two)[2].len(), 1);
}

#[test]
fn flows_share_the_tunnels_of_a_route_and_may_come_back_by_any_of_them() {
    let mut world = World::new();
    let mut spec = world.edge().program.spec().clone();
    let (one, three) = (TunnelId(1), TunnelId(3));
    for id in [one, three] {
        let tunnel = spec.tunnels.get_mut(&id).unwrap();
        tunnel.allowed.push("10.0.0.0/24".parse().unwrap());
        tunnel.allowed.dedup();
    }
    let members = [one, three].map(|id| Candidate::from(Nexthop::Tunnel(id)));
    let shared = spec
        .routes
        .iter_mut()
        .find(|(key, _)| key.vnet == VnetId(1) && key.prefix == "10.0.0.0/24".parse().unwrap());
    shared.unwrap().1.candidates = Candidates::new(members.to_vec()).unwrap();
    world.edge().apply(&spec);
    let source = world.source(1, ".");
    let mut ends = std::collections::BTreeMap::new();
    for port in 0..64_u16 {
        let mut datagram = vec![0; 8];
        datagram[..2].copy_from_slice(&port.to_be_bytes());
        let arrived = [(); 2].map(|()| {
            let sent = packet(source, ip("10.0.0.50"), 17, &datagram);
            let arrived = world.send(0, &sent);
            arrived
                .iter()
                .position(|packets| packets.len() == 1)
                .unwrap()
        });
        assert_eq!(arrived[0], arrived[1], "a flow stays on its tunnel");
        *ends.entry(arrived[0]).or_insert(0) += 1;
    }
    assert_eq!(ends.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert!(ends.values().all(|flows| *flows > 16), "{ends:?}");
    let back = packet(ip("10.0.0.50"), source, 17, &[0; 8]);
    assert_eq!(world.send(1, &back)[0].len(), 1);
    assert_eq!(world.send(3, &back)[0].len(), 1);
    // The other vnet's tunnel is no member, whatever it claims to be.
    world.assert_dropped(2, &back, DropReason::ReturnVnetMismatch);
    // A member that leaves the route may not send from it any more, and all flows arrive.
    spec.routes.values_mut().for_each(|route| {
        if let Some(others) = route.candidates.without(Nexthop::Tunnel(three)) {
            route.candidates = others;
        }
    });
    world.edge().apply(&spec);
    world.assert_dropped(3, &back, DropReason::SourceNotRouted);
    for port in 0..64_u16 {
        let sent = packet(
            source,
            ip("10.0.0.50"),
            17,
            &[port.to_be_bytes(), [0; 2]].concat(),
        );
        assert_eq!(world.send(0, &sent)[1].len(), 1);
    }
}

#[test]
fn a_tunnel_that_moves_to_another_vnet_loses_its_sessions() {
    let mut world = World::new();
    let edge = world.edge();
    let (id, now) = (TunnelId(3), edge.now);
    let moved = tunnel(2, (1, 13), None, &["10.3.0.0/24"]);
    for node in &mut edge.crew {
        let put = crate::program::TunnelChange::Put(id, Box::new(moved.clone()));
        node.apply(put, now).unwrap();
    }
    assert!(!edge.tunnels()[2].is_up);
    assert_eq!(edge.tunnels()[2].vnet, VnetId(2));
}

#[test]
fn an_mtu_out_of_range_is_refused_by_name() {
    let mut world = World::new();
    let edge = world.edge();
    let mut small = tunnel(1, (1, 50), None, &[]);
    small.mtu = 575;
    let put = crate::program::TunnelChange::Put(TunnelId(9), Box::new(small));
    let now = edge.now;
    for node in &mut edge.crew {
        let refused = node.apply(put.clone(), now).unwrap_err();
        assert!(refused.starts_with("mtu is 575"), "{refused}");
    }
    assert_eq!(edge.tunnels().len(), 3);
}
