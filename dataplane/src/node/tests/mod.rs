//! Two nodes back to back with real handshakes, and an attacker behind each site.

mod isolation;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::*;
use crate::fib::{Nexthop, Nexthops, Weighted};
use crate::id::{NodeId, TunnelId, VnetId, WorkerId};
use crate::packet::{Offload, Transmit};
use crate::program::{Programmer, Route, RouteKey, Spec, Tunnel, Vnet};
use crate::source::{self, Slice};
use crate::tunnel::{self, wireguard};
use crate::wire::checksum::Sum;
use crate::wire::ip::Inner;

const EDGE: &str = "198.51.100.1:51820";

#[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
fn start() -> Instant {
    Instant::now()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The endpoint of site `n`.
fn site_at(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 10 + n], 51820))
}

fn tunnel(vnet: u16, keys: (u8, u8), endpoint: Option<SocketAddr>, allowed: &[&str]) -> Tunnel {
    Tunnel {
        vnet: VnetId(vnet),
        name: format!("keys {keys:?}"),
        mtu: 1420,
        allowed: allowed.iter().map(|net| net.parse().unwrap()).collect(),
        kind: tunnel::Config::WireGuard(wireguard::Config {
            private_key: wireguard::PrivateKey([keys.0; 32]),
            peer: wireguard::PrivateKey([keys.1; 32]).public(),
            preshared_key: None,
            endpoint,
            keepalive: None,
        }),
    }
}

fn route(spec: &mut Spec, vnet: u16, prefix: &str, nexthop: Nexthop) {
    let key = RouteKey {
        vnet: VnetId(vnet),
        prefix: prefix.parse().unwrap(),
    };
    spec.routes.insert(key, Route::from(nexthop));
}

/// A node, the program that feeds its tables, and what came out of it towards the overlay.
struct End {
    node: Node,
    program: Programmer,
    at: SocketAddr,
    now: Instant,
    overlay: Vec<Vec<u8>>,
}

impl End {
    fn new(at: SocketAddr, role: Role, spec: &Spec) -> Self {
        let slice = Slice::new("100.64.0.0/20".parse().unwrap()).unwrap();
        let config = NodeConfig {
            slice: (role == Role::Edge).then_some(slice),
            node: NodeId(0),
            worker: WorkerId(0),
            role,
        };
        let program = Programmer::new(config.slice, config.node);
        let now = start();
        let mut end = Self {
            node: Node::new(config, program.tables().clone(), now),
            program,
            at,
            now,
            overlay: Vec::new(),
        };
        end.apply(spec);
        end
    }

    fn apply(&mut self, spec: &Spec) {
        let delta = self.program.spec().diff(spec);
        let (node, now) = (&mut self.node, self.now);
        let applied = self
            .program
            .apply(&delta, &mut |change| node.apply(change, now));
        assert_eq!(applied.rejected, []);
    }

    fn send(&mut self, packet: &[u8]) {
        let mut packet = packet.to_vec();
        self.node
            .handle_overlay(&mut packet, Offload::NONE, self.now);
    }

    /// What waits to be sent to the underlay; packets for the overlay are kept.
    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(transmit) = self.node.poll_transmit() {
            match transmit {
                Transmit::Underlay {
                    to,
                    segment_size,
                    bytes,
                } => all.extend(bytes.chunks(segment_size).map(|one| (to, one.to_vec()))),
                Transmit::Overlay { packet, .. } => self.overlay.push(packet.to_vec()),
            }
        }
        all
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.node.counters().dropped(reason)
    }
}

/// An edge with sites 1 and 2 in vnets 1 and 2, both of 10.0.0.0/24, and site 3 in vnet 1 too.
struct World {
    ends: Vec<End>,
}

impl World {
    fn new() -> Self {
        let mut spec = Spec::default();
        for vnet in 1..=2 {
            let name = format!("vnet {vnet}");
            spec.vnets.insert(VnetId(vnet), Vnet { name });
        }
        for (n, vnet, net4, net6) in [
            (1, 1, "10.0.0.0/24", "fd00::/64"),
            (2, 2, "10.0.0.0/24", "fd00::/64"),
            (3, 1, "10.3.0.0/24", "fd00:3::/64"),
        ] {
            let id = TunnelId(u32::from(n));
            let allowed = if n == 2 {
                vec!["0.0.0.0/0", "::/0"]
            } else {
                vec![net4, net6]
            };
            spec.tunnels
                .insert(id, tunnel(vnet, (1, 10 + n), None, &allowed));
            for net in [net4, net6] {
                route(&mut spec, vnet, net, Nexthop::Tunnel(id));
            }
        }
        // The worst customer routes the whole Internet into the own tunnel.
        route(&mut spec, 2, "0.0.0.0/0", Nexthop::Tunnel(TunnelId(2)));
        route(&mut spec, 2, "::/0", Nexthop::Tunnel(TunnelId(2)));
        let mut ends = vec![End::new(EDGE.parse().unwrap(), Role::Edge, &spec)];
        ends.extend((1..=3).map(site));
        let mut world = Self { ends };
        world.pump();
        for n in 1..=3 {
            assert!(world.ends[0].node.tunnels(world.ends[0].now)[n - 1].is_up);
        }
        world
    }

    fn edge(&mut self) -> &mut End {
        &mut self.ends[0]
    }

    fn site(&mut self, n: usize) -> &mut End {
        &mut self.ends[n]
    }

    fn pump(&mut self) {
        loop {
            let mut is_quiet = true;
            for n in 0..self.ends.len() {
                let from = self.ends[n].at;
                for (to, mut datagram) in self.ends[n].sent() {
                    is_quiet = false;
                    if let Some(end) = self.ends.iter_mut().find(|end| end.at == to) {
                        end.node.handle_underlay(from, &mut datagram, end.now);
                    }
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Sends `packet` from end `n` and gives what arrived at each end's overlay.
    fn send(&mut self, n: usize, packet: &[u8]) -> Vec<Vec<Vec<u8>>> {
        self.ends[n].send(packet);
        self.pump();
        let ends = self.ends.iter_mut();
        ends.map(|end| std::mem::take(&mut end.overlay)).collect()
    }

    /// The source address of a vnet, in the family of `like`.
    fn source(&self, vnet: u16, like: &str) -> IpAddr {
        let sources = &self.ends[0].program.tables().sources;
        let v4 = sources.of(VnetId(vnet)).unwrap();
        if like.contains(':') {
            source::to_v6(v4).into()
        } else {
            v4.into()
        }
    }

    fn assert_dropped(&mut self, n: usize, packet: &[u8], reason: DropReason) {
        let before = self.edge().dropped(reason);
        let arrived = self.send(n, packet);
        let after = self.edge().dropped(reason);
        assert_eq!(after, before + 1, "{reason:?}");
        assert!(arrived.iter().all(Vec::is_empty), "{arrived:?}");
    }
}

/// A site that lets its own machine send whatever it likes.
fn site(n: u8) -> End {
    let mut spec = Spec::default();
    spec.vnets.insert(VnetId(1), Vnet { name: "own".into() });
    let all = ["0.0.0.0/0", "::/0"];
    let edge = Some(EDGE.parse().unwrap());
    spec.tunnels
        .insert(TunnelId(1), tunnel(1, (10 + n, 1), edge, &all));
    for net in all {
        route(&mut spec, 1, net, Nexthop::Tunnel(TunnelId(1)));
    }
    for net in ["10.0.0.0/24", "10.3.0.0/24", "fd00::/64", "fd00:3::/64"] {
        route(&mut spec, 1, net, Nexthop::Local);
    }
    // Attackers' packets go out whatever their destination: a more specific route than the LAN's.
    for net in ["10.0.0.200/32", "10.3.0.200/32", "fd00:3::200/128"] {
        route(&mut spec, 1, net, Nexthop::Tunnel(TunnelId(1)));
    }
    let role = Role::Site {
        vnet: VnetId(1),
        address: ip("10.0.0.1"),
    };
    End::new(site_at(n), role, &spec)
}

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
fn flows_share_the_tunnels_of_a_route_and_may_come_back_by_any_of_them() {
    let mut world = World::new();
    let mut spec = world.edge().program.spec().clone();
    let (one, three) = (TunnelId(1), TunnelId(3));
    for id in [one, three] {
        let tunnel = spec.tunnels.get_mut(&id).unwrap();
        tunnel.allowed.push("10.0.0.0/24".parse().unwrap());
        tunnel.allowed.dedup();
    }
    let members = [one, three].map(|id| Weighted {
        nexthop: Nexthop::Tunnel(id),
        weight: 1,
    });
    let shared = spec
        .routes
        .iter_mut()
        .find(|(key, _)| key.vnet == VnetId(1) && key.prefix == "10.0.0.0/24".parse().unwrap());
    shared.unwrap().1.nexthops = Nexthops::new(members.to_vec()).unwrap();
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
        if let Some(others) = route.nexthops.without(Nexthop::Tunnel(three)) {
            route.nexthops = others;
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
    edge.node
        .handle_underlay(site_at(1), &mut datagram, edge.now);
    let out = edge.sent();
    assert_eq!(out[0].0, site_at(3));
    assert_eq!(edge.node.counters().forwarded_packets, 1);
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
    let big = packet(src, ip("10.0.0.50"), 99, &[0; 1401]);
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
    let mut world = World::new();
    let sent = packet(world.source(1, "."), ip("192.0.2.9"), 99, b"");
    for _ in 0..1000 {
        world.edge().send(&sent);
    }
    let counters = world.edge().node.counters();
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
fn a_tunnel_that_moves_to_another_vnet_loses_its_sessions() {
    let mut world = World::new();
    let edge = world.edge();
    let (id, now) = (TunnelId(3), edge.now);
    let moved = tunnel(2, (1, 13), None, &["10.3.0.0/24"]);
    edge.node
        .apply(crate::program::TunnelChange::Put(id, moved), now)
        .unwrap();
    assert!(!edge.node.tunnels(now)[2].is_up);
    assert_eq!(edge.node.tunnels(now)[2].vnet, VnetId(2));
}

#[test]
fn an_mtu_out_of_range_is_refused_by_name() {
    let mut world = World::new();
    let edge = world.edge();
    let mut small = tunnel(1, (1, 50), None, &[]);
    small.mtu = 575;
    let put = crate::program::TunnelChange::Put(TunnelId(9), small);
    let refused = edge.node.apply(put, edge.now).unwrap_err();
    assert!(refused.starts_with("mtu is 575"), "{refused}");
    assert_eq!(edge.node.tunnels(edge.now).len(), 3);
}
