//! IPsec through whole nodes: whichever worker a datagram comes to, its owner gets it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::fib::Nexthop;
use crate::id::{TunnelId, VnetId, Workers};
use crate::node::{DropReason, Role};
use crate::packet::{Carrier, Transmit, Way};
use crate::program::health::{Direction, Kind, Rate, Recovery, State};
use crate::program::{Spec, Tunnel, Vnet, health};
use crate::source;
use crate::tunnel;
use crate::tunnel::ipsec::ike::{EspOffer, Identity, IkeOffer, Psk, Times, everything};
use crate::tunnel::ipsec::{Config, Encapsulation, IkeKeying, Keying};

use super::packet;
use super::world::{End, ip, route};

pub(super) const EDGE: &str = "198.51.100.1";
pub(super) const SITE: &str = "198.51.100.9";

pub(super) fn ipsec(vnet: u16, is_edge: bool, remote: Option<&str>, allowed: &str) -> Tunnel {
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
        further: Vec::new(),
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
    spec.vnets.insert(vnet, Vnet::named(name));
    spec.tunnels.insert(TunnelId(7), tunnel);
    for (net, nexthop) in nets {
        route(&mut spec, vnet.0, net, *nexthop);
    }
    let at = if role == Role::Edge { EDGE } else { SITE };
    End::new(SocketAddr::new(ip(at), 0), role, &spec, workers)
}

/// An edge of several workers and a site of one.
pub(super) fn ends(remote: Option<&str>, workers: u8) -> [End; 2] {
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

pub(super) fn pump(ends: &mut [End; 2]) {
    pump_but(ends, &|_| false);
}

/// Delivers everything but what goes by lost ways.
fn pump_but(ends: &mut [End; 2], is_lost: &dyn Fn(Way) -> bool) {
    for _ in 0..50 {
        let mut is_quiet = true;
        for from in 0..2 {
            let from_at = ends[from].at.ip();
            for (way, mut datagram) in sent(&mut ends[from]) {
                is_quiet = false;
                if is_lost(way) {
                    continue;
                }
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

pub(super) fn crosses(ends: &mut [End; 2]) {
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

/// Lets seconds pass.
pub(super) fn run(ends: &mut [End; 2], seconds: u32, is_lost: &dyn Fn(Way) -> bool) {
    for _ in 0..seconds * 10 {
        for end in &mut *ends {
            end.now += Duration::from_millis(100);
            for node in &mut end.crew {
                node.handle_timeout(end.now);
            }
        }
        pump_but(ends, is_lost);
    }
}

/// An edge whose probes of its tunnel have their answers past it.
fn one_way(kind: Kind) -> [End; 2] {
    let mut ends = ends(Some(SITE), 3);
    let mut spec = ends[0].program.spec().clone();
    let tunnel = spec.tunnels.get_mut(&TunnelId(7)).unwrap();
    tunnel.health = Some(health::Config {
        rate: Rate::High,
        kind,
        direction: Direction::Unidirectional,
        target: None,
        recovery: Recovery::DEFAULT,
    });
    ends[0].apply(&spec);
    pump(&mut ends);
    ends
}

fn state(ends: &[End; 2]) -> State {
    ends[0].tunnels()[0].health.as_ref().unwrap().state
}

#[test]
fn answers_of_a_one_way_probe_come_past_the_tunnel_or_not_at_all() {
    for kind in [Kind::Request, Kind::Reply] {
        let mut ends = one_way(kind);
        run(&mut ends, 10, &|_| false);
        assert_eq!(state(&ends), State::Healthy, "{kind:?}");
        let (sent, answered) = (
            ends[0].count(|counters| counters.probes_sent),
            ends[0].count(|counters| counters.probes_answered),
        );
        assert!(sent >= 8 && answered == sent, "{answered} of {sent}");
        let site = ends[1].count(|counters| counters.echoes_answered + counters.probes_reflected);
        assert_eq!(site, sent);
        // Only the way past the tunnel is cut.
        run(&mut ends, 5, &|way| way.carrier == Carrier::Echo);
        assert_eq!(state(&ends), State::Down, "{kind:?}");
        crosses(&mut ends);
    }
}

#[test]
fn a_reply_past_the_tunnel_that_answers_no_probe_is_dropped_and_counted() {
    let mut ends = one_way(Kind::Request);
    run(&mut ends, 3, &|_| false);
    let answered = ends[0].count(|counters| counters.probes_answered);
    let way = Way::raw(Carrier::Echo, ip(EDGE), ip(SITE));
    // An id of worker 0, and of nobody; a payload that names the tunnel under a code of nobody.
    let payload = [&[7; 16][..], &[0, 0, 0, 7]].concat();
    let reply = |id: u8, payload: &[u8]| [&[0, 0, 0, 0, id, 1, 0, 1][..], payload].concat();
    let cases = [
        (reply(0, &payload), DropReason::ProbeForged),
        (reply(77, &payload), DropReason::ProbeForged),
        (reply(0, b"ping"), DropReason::ProbeForged),
        (vec![8, 0, 0, 0, 0, 1, 0, 1], DropReason::Malformed),
        (vec![0, 0, 0], DropReason::Malformed),
    ];
    for (mut message, reason) in cases {
        let before = ends[0].dropped(reason);
        let now = ends[0].now;
        ends[0].next().handle_underlay(way, &mut message, now);
        ends[0].hand_over();
        assert_eq!(ends[0].dropped(reason), before + 1, "{message:?}");
    }
    assert_eq!(ends[0].count(|counters| counters.probes_answered), answered);
}

#[test]
fn what_has_no_outer_address_cannot_be_probed_one_way() {
    let [mut edge, _] = ends(None, 1);
    let mut spec = edge.program.spec().clone();
    let tunnel = spec.tunnels.get_mut(&TunnelId(7)).unwrap();
    tunnel.health = Some(health::Config {
        direction: Direction::Unidirectional,
        ..health::Config::default()
    });
    let delta = edge.program.spec().diff(&spec);
    let applied = edge.program.apply(&delta, &mut |_| Ok(()));
    let (_, why) = &applied.rejected[0];
    assert!(why.to_string().contains("unidirectional"), "{why}");
}
