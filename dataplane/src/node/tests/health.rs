//! Probes through real tunnels, what they do to flows, and who can fake them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::world::{End, World, ip, site_at, tunnel};
use super::{packet, seal};
use crate::fib::{Candidate, Candidates, Nexthop};
use crate::id::{LOOKUPS, TunnelId, VnetId, WorkerId};
use crate::node::{DropReason, Reason};
use crate::packet::Offload;
use crate::program::health::{Config, Direction, Kind, Rate, Recovery, State};
use crate::program::{RouteKey, Spec};
use crate::wire::echo::{self, Echo};
use crate::wire::ip::Inner;

const RECOVERY: Recovery = Recovery {
    up_after: 3,
    clean_secs: 5,
    clean_secs_max: 60,
};

fn config(kind: Kind) -> Config {
    Config {
        rate: Rate::High,
        kind,
        direction: Direction::Bidirectional,
        target: None,
        recovery: RECOVERY,
    }
}

/// Tunnels of all vnets with the same interface addresses, at both ends.
fn world(kind: Kind, near: &str, far: &str) -> World {
    probed(World::new(), kind, near, far)
}

fn probed(mut world: World, kind: Kind, near: &str, far: &str) -> World {
    let mut spec = world.edge().program.spec().clone();
    for tunnel in spec.tunnels.values_mut() {
        tunnel.interface = vec![near.parse().unwrap()];
        tunnel.health = Some(config(kind));
    }
    world.edge().apply(&spec);
    for n in 1..=3 {
        let mut spec = world.site(n).program.spec().clone();
        let tunnel = spec.tunnels.get_mut(&TunnelId(1)).unwrap();
        tunnel.interface = vec![far.parse().unwrap()];
        world.site(n).apply(&spec);
    }
    world
}

fn v4(kind: Kind) -> World {
    world(kind, "10.255.0.0/31", "10.255.0.1/31")
}

/// Lets time pass, with these ends cut off; the edge's program hears of health as it changes.
fn run(world: &mut World, millis: u64, dead: &[usize]) {
    for _ in 0..millis / 50 {
        for end in &mut world.ends {
            end.now += Duration::from_millis(50);
            let now = end.now;
            end.crew
                .iter_mut()
                .for_each(|node| node.handle_timeout(now));
        }
        deliver(world, dead);
        let edge = world.edge();
        for node in &mut edge.crew {
            while let Some(change) = node.poll_health() {
                edge.program.set_health(&[(change.tunnel, change.state)]);
            }
        }
    }
}

fn deliver(world: &mut World, dead: &[usize]) {
    loop {
        let mut is_quiet = true;
        for n in 0..world.ends.len() {
            let from = world.ends[n].at;
            for (to, mut datagram) in world.ends[n].sent() {
                is_quiet = false;
                let to = world.ends.iter().position(|end| end.at == to).unwrap();
                if !dead.contains(&n) && !dead.contains(&to) {
                    world.ends[to].hear(from, &mut datagram);
                }
            }
        }
        if is_quiet {
            return;
        }
    }
}

fn states(world: &mut World) -> Vec<State> {
    let tunnels = world.edge().tunnels().into_iter();
    let health = tunnels.map(|tunnel| tunnel.health.unwrap().state);
    health.collect()
}

fn assert_nothing_came_out(world: &World) {
    assert!(world.ends.iter().all(|end| end.overlay.is_empty()));
}

#[test]
fn both_kinds_are_answered_in_both_families_by_tunnels_with_the_same_addresses() {
    for kind in [Kind::Request, Kind::Reply] {
        for (near, far) in [
            ("10.255.0.0/31", "10.255.0.1/31"),
            ("169.254.240.2/30", "169.254.240.1/30"),
            ("fd00:ffff::/127", "fd00:ffff::1/127"),
        ] {
            let mut world = world(kind, near, far);
            run(&mut world, 3000, &[]);
            assert_eq!(states(&mut world), [State::Healthy; 3], "{kind:?} {near}");
            let answered = world.edge().count(|counters| counters.probes_answered);
            let sent = world.edge().count(|counters| counters.probes_sent);
            assert!((6..=12).contains(&answered) && sent == answered);
            for n in 1..=3 {
                let (echoed, reflected) = world.site(n).crew.iter().fold((0, 0), |sum, node| {
                    let counters = node.counters();
                    let (answered, reflected) =
                        (counters.echoes_answered, counters.probes_reflected);
                    (sum.0 + answered, sum.1 + reflected)
                });
                match kind {
                    Kind::Request => assert!(echoed >= 2 && reflected == 0),
                    Kind::Reply => assert!(reflected >= 2 && echoed == 0),
                }
            }
            assert_nothing_came_out(&world);
        }
    }
}

/// Where one flow per port out of this worker ends: at which site.
fn ends_of_flows(world: &mut World, worker: u8) -> BTreeMap<u16, usize> {
    let sources = &world.edge().program.tables().sources;
    let source: IpAddr = sources.at(VnetId(1), WorkerId(worker)).unwrap().into();
    let mut ends = BTreeMap::new();
    for port in 0..64_u16 {
        let header = [&port.to_be_bytes()[..], &[0, 80, 0, 8, 0, 0]].concat();
        let mut sent = packet(source, ip("10.0.0.50"), 17, &header);
        let now = world.edge().now;
        world.edge().crew[usize::from(worker)].handle_overlay(&mut sent, Offload::NONE, now);
        deliver(world, &[]);
        let arrived = world
            .ends
            .iter_mut()
            .map(|end| std::mem::take(&mut end.overlay).len());
        let arrived: Vec<_> = arrived.collect();
        if let Some(end) = arrived.iter().position(|packets| *packets == 1) {
            ends.insert(port, end);
        }
    }
    ends
}

fn lead_to(world: &mut World, priorities: [(u32, u32); 2]) {
    let mut spec = world.edge().program.spec().clone();
    for id in [1, 3] {
        let tunnel = spec.tunnels.get_mut(&TunnelId(id)).unwrap();
        tunnel.allowed.push("10.0.0.0/24".parse().unwrap());
        tunnel.allowed.dedup();
    }
    let members = priorities.map(|(id, priority)| Candidate {
        priority,
        ..Nexthop::Tunnel(TunnelId(id)).into()
    });
    let key = RouteKey {
        vnet: VnetId(1),
        prefix: "10.0.0.0/24".parse().unwrap(),
    };
    let candidates = Candidates::new(members.to_vec()).unwrap();
    spec.routes.get_mut(&key).unwrap().candidates = candidates;
    world.edge().apply(&spec);
}

#[test]
fn a_dead_tunnel_hands_its_flows_to_the_next_priority_and_gets_them_back_when_healthy() {
    let mut world = v4(Kind::Request);
    lead_to(&mut world, [(1, 100), (3, 200)]);
    run(&mut world, 2000, &[]);
    assert!(ends_of_flows(&mut world, 0).values().all(|end| *end == 1));
    run(&mut world, 3500, &[1]);
    assert_eq!(
        states(&mut world),
        [State::Down, State::Healthy, State::Healthy]
    );
    // Also from the source of the worker that owns the dead tunnel, and of any other.
    for worker in 0..3 {
        let ends = ends_of_flows(&mut world, worker);
        assert!(
            ends.len() == 64 && ends.values().all(|end| *end == 3),
            "{ends:?}"
        );
    }
    // What comes back by the dead tunnel all the same is from where the route leads.
    let back = packet(ip("10.0.0.50"), world.source(1, "."), 17, &[0; 8]);
    world.site(1).send(&back);
    deliver(&mut world, &[]);
    assert_eq!(std::mem::take(&mut world.edge().overlay).len(), 1);
    // Back, but not trusted yet: three answers, then five seconds without failure.
    run(&mut world, 3500, &[]);
    assert_eq!(states(&mut world)[0], State::Degraded);
    assert!(ends_of_flows(&mut world, 0).values().all(|end| *end == 3));
    run(&mut world, 4000, &[]);
    assert_eq!(states(&mut world)[0], State::Healthy);
    assert!(ends_of_flows(&mut world, 0).values().all(|end| *end == 1));
    let shown = world.edge().tunnels()[0].health.clone().unwrap();
    let reasons: Vec<_> = shown.transitions.iter().map(|one| one.reason).collect();
    let expected = [
        Reason::Clean,
        Reason::Answers,
        Reason::NoAnswers,
        Reason::FirstAnswer,
    ];
    assert_eq!(reasons, expected);
    // Both dead: the last resort is used, never none.
    run(&mut world, 3500, &[1, 3]);
    assert_eq!(
        states(&mut world),
        [State::Down, State::Healthy, State::Down]
    );
    assert!(ends_of_flows(&mut world, 0).values().all(|end| *end == 1));
}

#[test]
fn of_two_equals_only_the_dead_ones_flows_move_and_they_come_back() {
    let mut world = v4(Kind::Reply);
    lead_to(&mut world, [(1, 100), (3, 100)]);
    run(&mut world, 2000, &[]);
    let before = ends_of_flows(&mut world, 0);
    let at = |ends: &BTreeMap<u16, usize>, site| ends.values().filter(|end| **end == site).count();
    assert!(at(&before, 1) > 16 && at(&before, 3) > 16);
    run(&mut world, 3500, &[3]);
    let during = ends_of_flows(&mut world, 0);
    assert_eq!(at(&during, 1), 64, "those of site 1 stay, the others come");
    run(&mut world, 12_000, &[]);
    assert_eq!(ends_of_flows(&mut world, 0), before);
    // A tunnel that is probed no longer has no penalty.
    run(&mut world, 3500, &[3]);
    assert_eq!(at(&ends_of_flows(&mut world, 0), 1), 64);
    let mut spec = world.edge().program.spec().clone();
    spec.tunnels.get_mut(&TunnelId(3)).unwrap().health = None;
    world.edge().apply(&spec);
    assert_eq!(ends_of_flows(&mut world, 0), before);
    assert_eq!(world.edge().tunnels()[2].health, None);
}

#[test]
fn a_target_is_probed_from_the_vnets_own_source_address_without_an_interface() {
    let mut world = World::new();
    let mut spec = world.edge().program.spec().clone();
    for tunnel in spec.tunnels.values_mut() {
        let target = Some(ip("10.0.0.50"));
        let kind = Kind::Request;
        tunnel.health = Some(Config {
            target,
            ..config(kind)
        });
    }
    world.edge().apply(&spec);
    run(&mut world, 1000, &[]);
    // The origin behind site 1 answers, as its own kernel would; that behind site 2 does not.
    let asked = std::mem::take(&mut world.site(1).overlay);
    let inner = Inner::parse(&asked[0]).unwrap();
    assert_eq!(inner.src, world.source(1, "."));
    // From another range as soon as the vnet has chosen it.
    world.place(1, "10.240.0.0/12");
    run(&mut world, 1000, &[]);
    let asked = std::mem::take(&mut world.site(1).overlay);
    let mut asked = asked.into_iter().next().unwrap();
    let inner = Inner::parse(&asked).unwrap();
    assert_eq!(inner.src.to_string(), "10.240.0.2");
    echo::answer(&mut asked, &inner);
    // Another ping from the same address is not the prober's: a program of the edge waits for it.
    let inner = Inner::parse(&asked).unwrap();
    let of_program = Echo {
        id: 1,
        payload: b"ping",
        ..Echo::read(&asked, &inner).unwrap()
    };
    let mut other = [0; 64];
    let len = of_program.write(inner.src, inner.dst, &mut other).unwrap();
    world.site(1).send(&asked);
    world.site(1).send(&other[..len]);
    deliver(&mut world, &[]);
    assert_eq!(states(&mut world)[..2], [State::Healthy, State::Unknown]);
    let delivered = std::mem::take(&mut world.edge().overlay);
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0][28..], *b"ping");
}

/// The edge's probe of site 1, as the site's network saw it: without an interface of its own.
fn stolen_probe(world: &mut World) -> Vec<u8> {
    let mut spec = world.site(1).program.spec().clone();
    spec.tunnels
        .get_mut(&TunnelId(1))
        .unwrap()
        .interface
        .clear();
    super::world::route(&mut spec, 1, "10.255.0.1/32", Nexthop::Local);
    world.site(1).apply(&spec);
    run(world, 1000, &[]);
    std::mem::take(&mut world.site(1).overlay).remove(0)
}

#[test]
fn nobody_answers_for_another_tunnel_and_forged_answers_are_counted() {
    let mut world = v4(Kind::Request);
    let probe = stolen_probe(&mut world);
    let inner = Inner::parse(&probe).unwrap();
    let mut answer = probe;
    echo::answer(&mut answer, &inner);
    let states = states(&mut world);
    assert_eq!(states, [State::Unknown, State::Healthy, State::Healthy]);
    // By the other site of the same vnet, and by the one of another.
    for n in [3, 2] {
        bare_site(&mut world, n);
        world.assert_dropped(n, &answer, DropReason::ProbeForged);
    }
    // With another code, out of the right tunnel.
    let parsed = Inner::parse(&answer).unwrap();
    let echo = Echo::read(&answer, &parsed).unwrap();
    let payload = &[0; 16];
    let mut forged = [0; 64];
    let len = Echo { payload, ..echo }
        .write(parsed.src, parsed.dst, &mut forged)
        .unwrap();
    world.assert_dropped(1, &forged[..len], DropReason::ProbeForged);
    assert_eq!(
        world.edge().tunnels()[0].health.as_ref().unwrap().state,
        State::Unknown
    );
    assert!(world.send(1, &answer).iter().all(Vec::is_empty));
    assert_eq!(
        world.edge().tunnels()[0].health.as_ref().unwrap().state,
        State::Healthy
    );
    world.assert_dropped(1, &answer, DropReason::ProbeLate);
}

/// A site whose machine may send from and to interface addresses itself.
fn bare_site(world: &mut World, n: usize) {
    let mut spec = world.site(n).program.spec().clone();
    spec.tunnels
        .get_mut(&TunnelId(1))
        .unwrap()
        .interface
        .clear();
    world.site(n).apply(&spec);
}

#[test]
fn our_interface_address_answers_echo_on_its_own_tunnel_and_nothing_else() {
    let mut world = v4(Kind::Request);
    let mut spec: Spec = world.edge().program.spec().clone();
    spec.tunnels.get_mut(&TunnelId(3)).unwrap().interface = vec!["10.255.0.8/31".parse().unwrap()];
    world.edge().apply(&spec);
    for n in 1..=3 {
        bare_site(&mut world, n);
        let mut spec = world.site(n).program.spec().clone();
        super::world::route(&mut spec, 1, "10.255.0.1/32", Nexthop::Local);
        world.site(n).apply(&spec);
    }
    let (near, far) = (ip("10.255.0.0"), ip("10.255.0.1"));
    let ping = Echo {
        kind: echo::Kind::Request,
        id: 77,
        sequence: 1,
        payload: b"are you there?",
    };
    let asked = |from: IpAddr| {
        let mut bytes = [0; 64];
        let len = ping.write(from, near, &mut bytes).unwrap();
        bytes[..len].to_vec()
    };
    // From the far side, and from the network behind it.
    for from in [far, ip("10.0.0.50")] {
        let arrived = world.send(1, &asked(from));
        let answer = &arrived[1][0];
        let inner = Inner::parse(answer).unwrap();
        assert_eq!((inner.src, inner.dst), (near, from));
        let kind = echo::Kind::Reply;
        assert_eq!(Echo::read(answer, &inner), Some(Echo { kind, ..ping }));
        assert!(arrived[0].is_empty() && arrived[2].is_empty() && arrived[3].is_empty());
    }
    let answered = world.edge().count(|counters| counters.echoes_answered);
    assert_eq!(answered, 2);
    // A stranger to the tunnel is not answered, nor is anything but an echo.
    world.assert_dropped(1, &asked(ip("192.0.2.1")), DropReason::SourceNotAllowed);
    let tcp = packet(far, near, 6, &[0; 20]);
    world.assert_dropped(1, &tcp, DropReason::InterfaceClosed);
    // On another tunnel of the vnet the address is nobody's.
    let before = world.edge().dropped(DropReason::NoRoute);
    world.send(3, &asked(ip("10.3.0.50")));
    assert_eq!(world.edge().dropped(DropReason::NoRoute), before + 1);
    // Nor may anybody send from it.
    let mut spec = world.site(1).program.spec().clone();
    spec.routes
        .retain(|key, _| key.prefix != "10.255.0.1/32".parse().unwrap());
    world.site(1).apply(&spec);
    let spoofed = packet(near, far, 17, &[0; 8]);
    world.assert_dropped(1, &spoofed, DropReason::SourceNotAllowed);
}

#[test]
fn probes_into_a_tunnel_without_a_session_begin_its_handshake_and_do_not_pile_up() {
    let mut world = v4(Kind::Request);
    let mut spec = world.edge().program.spec().clone();
    let mut lonely = tunnel(1, (1, 99), Some(site_at(9)), &[]);
    lonely.interface = vec!["10.255.0.2/31".parse().unwrap()];
    lonely.health = Some(config(Kind::Request));
    spec.tunnels.insert(TunnelId(4), lonely);
    world.edge().apply(&spec);
    let edge: &mut End = world.edge();
    let mut initiations = 0;
    for _ in 0..600 {
        edge.now += Duration::from_millis(50);
        let now = edge.now;
        edge.crew
            .iter_mut()
            .for_each(|node| node.handle_timeout(now));
        let sent = edge.sent();
        initiations += sent.iter().filter(|(to, _)| *to == site_at(9)).count();
    }
    assert!(initiations >= 1);
    let shown = edge.tunnels()[3].clone();
    let health = shown.health.unwrap();
    assert_eq!(health.state, State::Down);
    assert!(health.probes_sent >= 28, "{health:?}");
    assert!(
        shown.tx_packets <= health.probes_sent / 4,
        "{shown:?}",
        shown = shown.tx_packets
    );
}

#[test]
fn a_reply_probe_whose_ttl_ran_out_is_not_sent_back() {
    let mut world = v4(Kind::Reply);
    run(&mut world, 1000, &[]);
    bare_site(&mut world, 1);
    // From the edge's address to the far side's: the edge would route it back.
    let reply = Echo {
        kind: echo::Kind::Reply,
        id: 1,
        sequence: 1,
        payload: b"",
    };
    let mut bytes = [0; 64];
    let len = reply
        .write(ip("10.255.0.0"), ip("10.255.0.1"), &mut bytes)
        .unwrap();
    bytes[8] = 2;
    let mut bytes = bytes[..len].to_vec();
    seal(&mut bytes);
    // The site's own egress took one hop.
    world.assert_dropped(1, &bytes, DropReason::TtlExceeded);
}

#[test]
fn a_packet_out_of_a_tunnel_costs_one_look_up_by_tunnel_also_where_the_tunnel_is_probed() {
    for is_probed in [false, true] {
        let mut world = World::of(1);
        if is_probed {
            world = probed(world, Kind::Request, "10.255.0.0/31", "10.255.0.1/31");
            run(&mut world, 3000, &[]);
            assert_eq!(states(&mut world), [State::Healthy; 3]);
        }
        let from = world.site(1).at;
        let back = packet(ip("10.0.0.50"), world.source(1, "10.0.0.50"), 99, b"");
        world.site(1).send(&back);
        let (_, mut datagram) = world.site(1).sent().remove(0);
        let before = LOOKUPS.get();
        world.edge().hear(from, &mut datagram);
        assert_eq!(LOOKUPS.get() - before, 1, "probed: {is_probed}");
        assert!(world.edge().sent().is_empty());
        assert_eq!(world.edge().overlay.len(), 1);
    }
}
