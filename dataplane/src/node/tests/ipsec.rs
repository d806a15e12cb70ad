//! IPsec through whole nodes: whichever worker a datagram comes to, its owner gets it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::fib::Nexthop;
use crate::id::{TunnelId, VnetId, Workers};
use crate::node::{DropReason, Role};
use crate::packet::{Carrier, Transmit, Way};
use crate::program::{Spec, Tunnel, Vnet};
use crate::source;
use crate::tunnel;
use crate::tunnel::ipsec::ike::{EspOffer, Identity, IkeOffer, Psk, Times, everything};
use crate::tunnel::ipsec::{Config, Encapsulation, IkeKeying, Keying};

use super::packet;
use super::world::{End, ip, route};

const EDGE: &str = "198.51.100.1";
const SITE: &str = "198.51.100.9";

fn ipsec(vnet: u16, is_edge: bool, remote: Option<&str>, allowed: &str) -> Tunnel {
    let names = [
        ("edge.example", "site.example"),
        ("site.example", "edge.example"),
    ];
    let (us, them) = names[usize::from(!is_edge)];
    let keying = IkeKeying {
        psk: Psk(b"a key of both".to_vec()),
        local_identity: us.parse::<Identity>().unwrap(),
        remote_identities: vec![them.parse().unwrap()],
        is_initiator: !is_edge,
        ike: IkeOffer::default(),
        esp: EspOffer::default(),
        local_traffic: everything(),
        remote_traffic: everything(),
        times: Times {
            child: Duration::from_secs(20),
            ..Times::default()
        },
    };
    Tunnel {
        vnet: VnetId(vnet),
        name: us.to_owned(),
        mtu: 1400,
        allowed: vec![allowed.parse().unwrap()],
        interface: Vec::new(),
        health: None,
        kind: tunnel::Config::IpSec(Config {
            local: ip(if is_edge { EDGE } else { SITE }),
            remote: remote.map(ip),
            keying: Keying::Ike(Box::new(keying)),
            encapsulation: Encapsulation::Udp,
            has_replay_protection: true,
        }),
    }
}

fn end(role: Role, tunnel: Tunnel, nets: &[(&str, Nexthop)], workers: u8) -> End {
    let (vnet, mut spec) = (tunnel.vnet, Spec::default());
    let name = "net".to_owned();
    spec.vnets.insert(vnet, Vnet { name });
    spec.tunnels.insert(TunnelId(7), tunnel);
    for (net, nexthop) in nets {
        route(&mut spec, vnet.0, net, *nexthop);
    }
    let at = if role == Role::Edge { EDGE } else { SITE };
    End::new(SocketAddr::new(ip(at), 0), role, &spec, workers)
}

/// An edge of several workers and a site of one.
fn ends(remote: Option<&str>, workers: u8) -> [End; 2] {
    let through = Nexthop::Tunnel(TunnelId(7));
    let edge = end(
        Role::Edge,
        ipsec(1, true, remote, "10.0.0.0/24"),
        &[("10.0.0.0/24", through)],
        workers,
    );
    let role = Role::Site {
        vnet: VnetId(1),
        address: ip("10.0.0.1"),
    };
    let nets = [("0.0.0.0/0", through), ("10.0.0.0/24", Nexthop::Local)];
    let site = end(role, ipsec(1, false, Some(EDGE), "0.0.0.0/0"), &nets, 1);
    [edge, site]
}

fn sent(end: &mut End) -> Vec<(Way, Vec<u8>)> {
    end.hand_over();
    let mut all = Vec::new();
    for node in &mut end.crew {
        while let Some(transmit) = node.poll_transmit() {
            match transmit {
                Transmit::Underlay {
                    way,
                    segment_size,
                    bytes,
                } => all.extend(bytes.chunks(segment_size).map(|one| (way, one.to_vec()))),
                Transmit::Device { packet, .. } => end.overlay.push(packet.to_vec()),
            }
        }
    }
    all
}

fn pump(ends: &mut [End; 2]) {
    for _ in 0..50 {
        let mut is_quiet = true;
        for from in 0..2 {
            let from_at = ends[from].at.ip();
            for (way, mut datagram) in sent(&mut ends[from]) {
                is_quiet = false;
                let to = &mut ends[1 - from];
                assert_eq!(way.remote.ip(), to.at.ip());
                let way = Way {
                    remote: SocketAddr::new(from_at, way.remote.port()),
                    local: Some(to.at.ip()),
                    ..way
                };
                let now = to.now;
                to.next().handle_underlay(way, &mut datagram, now);
            }
        }
        if is_quiet {
            return;
        }
    }
    panic!("they never stop talking");
}

fn crosses(ends: &mut [End; 2]) {
    let source: IpAddr = ends[0]
        .program
        .tables()
        .sources
        .of(VnetId(1))
        .unwrap()
        .into();
    assert!(source::is_source(source));
    let (there, back) = (
        packet(source, ip("10.0.0.50"), 99, b"there"),
        packet(ip("10.0.0.50"), source, 99, b"back"),
    );
    for (from, sent) in [(0, there), (1, back)] {
        ends[from].send(&sent);
        pump(ends);
        let got = ends[1 - from].overlay.pop().expect("it arrives");
        assert_eq!(got[20..], sent[20..]);
    }
}

#[test]
fn a_tunnel_of_any_worker_comes_up_and_carries_packets_whoever_hears_them() {
    for (remote, workers) in [(Some(SITE), 3), (None, 3), (Some(SITE), 4), (Some(SITE), 1)] {
        let mut ends = ends(remote, workers);
        pump(&mut ends);
        for _ in 0..12 {
            crosses(&mut ends);
        }
        let status = ends[0].tunnels();
        assert_eq!(status.len(), 1, "one worker owns it");
        assert!(status[0].is_up);
        let ipsec = status[0].ipsec.as_ref().unwrap();
        assert_eq!((ipsec.children.len(), &ipsec.failure), (1, &None));
        let dropped = ends[0].count(|counters| counters.dropped_total());
        assert_eq!(dropped, 0);
    }
}

#[test]
fn rekeys_go_on_whichever_worker_hears_them() {
    let mut ends = ends(Some(SITE), 3);
    pump(&mut ends);
    for _ in 0..100 {
        for end in &mut ends {
            end.now += Duration::from_secs(1);
            for node in &mut end.crew {
                node.handle_timeout(end.now);
            }
        }
        pump(&mut ends);
        crosses(&mut ends);
    }
    let rekeys = ends[0].tunnels()[0].ipsec.as_ref().unwrap().rekeys;
    assert!(rekeys >= 4, "{rekeys}");
    assert_eq!(ends[0].count(|counters| counters.dropped_total()), 0);
}

#[test]
fn a_packet_that_no_sa_knows_is_counted_by_the_worker_that_it_names() {
    let [mut edge, _] = ends(Some(SITE), 3);
    let workers = Workers::new(3).unwrap();
    for worker in workers.iter() {
        let way = Way::udp(Carrier::NatT, ip(EDGE), SocketAddr::new(ip(SITE), 4500));
        let mut packet = [&[worker.0, 1, 1, 1][..], &[7; 60]].concat();
        let now = edge.now;
        edge.crew[0].handle_underlay(way, &mut packet, now);
        edge.hand_over();
        let counters = edge.crew[usize::from(worker.0)].counters();
        assert_eq!(counters.dropped(DropReason::IndexUnknown), 1);
    }
}

#[test]
fn a_tunnel_whose_peer_moves_to_another_address_goes_to_the_worker_of_that() {
    let [mut edge, _] = ends(Some(SITE), 4);
    let owner = |edge: &End| {
        let mut crew = edge.crew.iter();
        crew.position(|node| !node.tunnels(edge.now).is_empty())
    };
    let first = owner(&edge).unwrap();
    let mut seen = [false; 4];
    for host in 10..40 {
        let remote = format!("198.51.100.{host}");
        let mut spec = edge.program.spec().clone();
        let tunnel = ipsec(1, true, Some(&remote), "10.0.0.0/24");
        spec.tunnels.insert(TunnelId(7), tunnel);
        edge.apply(&spec);
        assert_eq!(edge.tunnels().len(), 1);
        seen[owner(&edge).unwrap()] = true;
    }
    assert!(first < 4 && seen == [true; 4], "{first} {seen:?}");
}
