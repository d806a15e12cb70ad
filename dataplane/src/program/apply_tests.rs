//! Tests only: any sequence of desired states against a naive model of what a node may accept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::fib::{Candidate, Candidates, Nexthop, pin};
use crate::id::{NodeId, TunnelId, VnetId, WorkerId, Workers};
use crate::source::Slice;
use crate::tunnel;
use crate::tunnel::wireguard::{self, PrivateKey, PublicKey};

/// Prefixes that nest, overlap between vnets, and touch the source range from outside and inside.
const PREFIXES: [&str; 9] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.0.128/25",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "100.64.0.0/24",
    "::/0",
    "fd00::/8",
];
const PROBES: [&str; 9] = [
    "10.0.0.50",
    "10.0.0.200",
    "10.9.9.9",
    "192.168.1.1",
    "100.64.0.2",
    "100.90.0.1",
    "8.8.8.8",
    "fd00::1",
    "2606:4700:cf1:5000::100.64.0.2",
];
const VNETS: std::ops::Range<u16> = 0..5;

fn net(prefix: &str) -> IpNet {
    prefix.parse().unwrap()
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn tunnel(vnet: u16, allowed: &[&str]) -> Tunnel {
    Tunnel {
        vnet: VnetId(vnet),
        name: String::new(),
        mtu: 1420,
        allowed: allowed.iter().map(|prefix| net(prefix)).collect(),
        interface: Vec::new(),
        health: None,
        kind: tunnel::Config::WireGuard(wireguard::Config {
            private_key: PrivateKey([1; 32]),
            peer: PublicKey([2; 32]),
            preshared_key: None,
            endpoint: None,
            keepalive: None,
        }),
    }
}

fn to(tunnel: u32) -> Route {
    Route::from(Nexthop::Tunnel(TunnelId(tunnel)))
}

/// A route over several tunnels of equal weight.
fn over(tunnels: &[u32]) -> Route {
    let members = tunnels
        .iter()
        .map(|id| Candidate::from(Nexthop::Tunnel(TunnelId(*id))));
    Route {
        candidates: Candidates::new(members.collect()).unwrap(),
    }
}

fn key(vnet: u16, prefix: &str) -> RouteKey {
    RouteKey {
        vnet: VnetId(vnet),
        prefix: net(prefix),
    }
}

fn spec(vnets: &[u16], tunnels: &[(u32, Tunnel)], routes: &[(RouteKey, Route)]) -> Spec {
    let vnet = |id: &u16| (VnetId(*id), Vnet::named(format!("v{id}")));
    Spec {
        revision: 1,
        vnets: vnets.iter().map(vnet).collect(),
        tunnels: tunnels
            .iter()
            .map(|(id, t)| (TunnelId(*id), t.clone()))
            .collect(),
        routes: routes.iter().cloned().collect(),
        relays: Vec::new(),
    }
}

fn edge() -> Programmer {
    let slice = Slice::new("100.64.0.0/20".parse().unwrap()).unwrap();
    Programmer::new(Some(slice), NodeId(3), Workers::ONE)
}

/// Goes to `target`, with a worker that takes everything.
fn go(programmer: &mut Programmer, target: &Spec) -> BTreeMap<Key, String> {
    let delta = programmer.spec().diff(target);
    let applied = programmer.apply(&delta, &mut |_| Ok(()));
    assert_eq!(applied.revision, target.revision);
    applied.rejected.into_iter().collect()
}

fn specs() -> impl Strategy<Value = Spec> {
    let name = select(vec!["a", "b"]).prop_map(Vnet::named);
    let prefixes = PREFIXES.to_vec();
    let tunnel = (
        VNETS,
        subsequence(prefixes.clone(), 0..4),
        select(vec![1420, 575]),
    )
        .prop_map(|(vnet, allowed, mtu)| Tunnel {
            mtu,
            ..tunnel(vnet, &allowed)
        });
    let route = prop_oneof![
        9 => (1_u32..7).prop_map(to),
        9 => btree_set(1_u32..7, 2..4)
            .prop_map(|tunnels| over(&tunnels.into_iter().collect::<Vec<_>>())),
        1 => Just(Route::from(Nexthop::Local)),
    ];
    let route_key = (VNETS, select(prefixes)).prop_map(|(vnet, prefix)| key(vnet, prefix));
    (
        btree_map(VNETS.prop_map(VnetId), name, 1..5),
        btree_map((1_u32..7).prop_map(TunnelId), tunnel, 0..6),
        btree_map(route_key, route, 0..24),
    )
        .prop_map(|(vnets, tunnels, routes)| Spec {
            revision: 0,
            vnets,
            tunnels,
            routes,
            relays: Vec::new(),
        })
}

/// What may be: each object of `target`, or the former one of `before` where the new is refused.
fn accepted(before: &Spec, target: &Spec) -> Spec {
    let is_reserved = |prefix: &IpNet| *prefix == net("100.64.0.0/24");
    let mut spec = Spec {
        revision: target.revision,
        ..Spec::default()
    };
    spec.vnets = target.vnets.clone();
    spec.vnets.remove(&VnetId(0));
    for (id, wanted) in &target.tunnels {
        let candidates = [Some(wanted), before.tunnels.get(id)];
        let mut candidates = candidates.into_iter().flatten();
        let fine = candidates.find(|tunnel| {
            spec.vnets.contains_key(&tunnel.vnet)
                && tunnel.mtu == 1420
                && !tunnel.allowed.iter().any(is_reserved)
        });
        if let Some(fine) = fine {
            spec.tunnels.insert(*id, fine.clone());
        }
    }
    for (key, wanted) in &target.routes {
        let is_fine = |member: &Candidate| match member.nexthop {
            Nexthop::Local => false,
            Nexthop::Tunnel(id) => {
                let tunnel = spec.tunnels.get(&id);
                !is_reserved(&key.prefix) && tunnel.is_some_and(|tunnel| tunnel.vnet == key.vnet)
            }
        };
        let is_wanted_fine = wanted.candidates.iter().all(|member| is_fine(&member));
        let former = before.routes.get(key);
        // A former route goes on over those of its tunnels that stay.
        let candidate = if is_wanted_fine { Some(wanted) } else { former };
        let members = candidate.map(|route| route.candidates.iter().filter(is_fine).collect());
        if let Some(candidates) = members.and_then(|members| Candidates::new(members).ok()) {
            spec.routes.insert(*key, Route { candidates });
        }
    }
    spec
}

/// Objects of `target` that are not so in `spec`.
fn missing(spec: &Spec, target: &Spec) -> BTreeSet<Key> {
    let delta = spec.diff(target);
    delta.changes.iter().map(Change::key).collect()
}

fn longest<T>(rows: impl Iterator<Item = (IpNet, T)>, address: IpAddr) -> Option<T> {
    let range = [net("100.64.0.0/12"), net("2606:4700:cf1:5000::/64")];
    if range.iter().any(|range| range.contains(&address)) {
        return None;
    }
    rows.filter(|(prefix, _)| prefix.contains(&address))
        .max_by_key(|(prefix, _)| prefix.prefix_len())
        .map(|(_, value)| value)
}

fn ids() -> impl Iterator<Item = TunnelId> {
    (1..7).map(TunnelId)
}

fn id_of(member: Candidate) -> TunnelId {
    match member.nexthop {
        Nexthop::Tunnel(id) => id,
        Nexthop::Local => panic!("an edge has no network of its own"),
    }
}

/// The tunnels that flows of all buckets take.
fn routed_by_hash(vnet: &VnetTables, probe: IpAddr) -> BTreeSet<TunnelId> {
    let guard = pin();
    let flows = (0..=u8::MAX).map(|n| u32::from(n) << 24);
    flows
        .filter_map(|flow| vnet.route(probe, || flow, &guard))
        .map(|nexthop| id_of(nexthop.into()))
        .collect()
}

fn assert_tables_say(tables: &Tables, spec: &Spec) {
    let guard = pin();
    let mut addresses = BTreeSet::new();
    for vnet in VNETS.map(VnetId) {
        let found = tables.vnet(vnet, &guard);
        assert_eq!(
            found.map(VnetTables::name),
            spec.vnets.get(&vnet).map(|v| v.name.as_str())
        );
        let source = tables.sources.of(vnet);
        assert_eq!(source.is_some(), found.is_some());
        if let Some(source) = source {
            let owner = tables.returns.lookup(source).unwrap();
            assert_eq!(
                (owner.vnet, owner.node, owner.worker),
                (vnet, NodeId(3), WorkerId(0))
            );
            assert_eq!(tables.sources.vnet(source.into()), Some(vnet));
            assert!(addresses.insert(source), "two vnets share {source}");
        }
        for probe in PROBES.map(ip) {
            let routes = spec.routes.iter().filter(|(key, _)| key.vnet == vnet);
            let expected: BTreeSet<_> = longest(
                routes
                    .map(|(key, route)| (key.prefix, route.candidates.iter().map(id_of).collect())),
                probe,
            )
            .unwrap_or_default();
            let (routed, hashed) = found.map_or_else(Default::default, |v| {
                let is_routed = |id: &TunnelId| v.leads_to(probe, *id, &guard);
                (
                    ids().filter(is_routed).collect::<BTreeSet<_>>(),
                    routed_by_hash(v, probe),
                )
            });
            assert_eq!(routed, expected, "{vnet} {probe}");
            assert_eq!(hashed, expected, "{vnet} {probe}");
            let tunnels = spec
                .tunnels
                .iter()
                .filter(|(_, tunnel)| tunnel.vnet == vnet);
            let mut claims: BTreeMap<IpNet, BTreeSet<TunnelId>> = BTreeMap::new();
            for (id, prefix) in tunnels.flat_map(|(id, t)| t.allowed.iter().map(move |p| (id, p))) {
                claims.entry(*prefix).or_default().insert(*id);
            }
            let expected = longest(claims.into_iter(), probe).unwrap_or_default();
            let is_allowed =
                |id: &TunnelId| found.is_some_and(|v| v.is_allowed(probe, *id, &guard));
            let allowed: BTreeSet<_> = ids().filter(is_allowed).collect();
            assert_eq!(allowed, expected, "{vnet} {probe}");
        }
    }
    let all = (0..=u8::MAX).map(|host| Ipv4Addr::new(100, 64, 0, host));
    let owned = all.filter(|address| tables.returns.lookup(*address).is_some());
    assert!(
        owned.eq(addresses.iter().copied()),
        "a source without a vnet has an owner"
    );
}

/// No route and no source check may lead to a tunnel that the worker has in another vnet.
fn assert_isolated(tables: &Tables, worker: &BTreeMap<TunnelId, Tunnel>) {
    let guard = pin();
    for vnet in VNETS.map(VnetId) {
        let Some(found) = tables.vnet(vnet, &guard) else {
            continue;
        };
        for probe in PROBES.map(ip) {
            let foreign = |id| worker.get(&id).is_some_and(|tunnel| tunnel.vnet != vnet);
            for id in ids().filter(|id| foreign(*id)) {
                let is_routed = found.leads_to(probe, id, &guard);
                assert!(!is_routed, "{vnet} routes {probe} into a foreign {id}");
                let is_allowed = found.is_allowed(probe, id, &guard);
                assert!(!is_allowed, "{vnet} accepts {probe} from a foreign {id}");
            }
            for id in routed_by_hash(found, probe) {
                assert!(
                    !foreign(id),
                    "{vnet} sends flows to {probe} into a foreign {id}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn any_desired_state_is_reached_but_for_what_must_be_refused(
        targets in vec(specs(), 1..8),
    ) {
        let mut programmer = edge();
        let tables = programmer.tables().clone();
        let mut worker = BTreeMap::new();
        for (revision, mut target) in (1..).zip(targets) {
            target.revision = revision;
            let before = programmer.spec().clone();
            let applied = programmer.apply(&before.diff(&target), &mut |change| {
                match change {
                    TunnelChange::Put(id, tunnel) => worker.insert(id, *tunnel),
                    TunnelChange::Delete(id) => worker.remove(&id),
                };
                assert_isolated(&tables, &worker);
                Ok(())
            });
            let expected = accepted(&before, &target);
            prop_assert_eq!(programmer.spec(), &expected);
            prop_assert_eq!(&worker, &expected.tunnels);
            let rejected: BTreeSet<_> = applied.rejected.iter().map(|(key, _)| *key).collect();
            prop_assert_eq!(rejected, missing(&expected, &target));
            assert_isolated(&tables, &worker);
            assert_tables_say(&tables, &expected);
            prop_assert_eq!(programmer.fib_rows().len(), expected.routes.len());
        }
    }
}

#[test]
fn a_route_into_a_tunnel_of_another_vnet_is_refused_and_the_rest_goes_on() {
    let mut programmer = edge();
    let routes = [
        (key(1, "10.0.0.0/8"), to(2)),
        (key(2, "10.0.0.0/8"), to(2)),
        (key(9, "10.0.0.0/8"), to(2)),
    ];
    let tunnels = [(2, tunnel(2, &["10.0.0.0/8"])), (9, tunnel(9, &[]))];
    let rejected = go(&mut programmer, &spec(&[1, 2], &tunnels, &routes));
    let reason = |key| rejected[&key].as_str();
    assert_eq!(
        reason(Key::Route(routes[0].0)),
        "tunnel2 belongs to vnet2, and packets never cross from one virtual network into another"
    );
    assert_eq!(
        reason(Key::Route(routes[2].0)),
        "vnet9 does not exist on this node"
    );
    assert_eq!(
        reason(Key::Tunnel(TunnelId(9))),
        "vnet9 does not exist on this node"
    );
    assert_eq!(rejected.len(), 3);
    let tables = programmer.tables();
    assert_eq!(tables.route(VnetId(1), ip("10.0.0.50")), None);
    assert_eq!(
        tables.route(VnetId(2), ip("10.0.0.50")),
        to(2).candidates.single()
    );
}

#[test]
fn a_tunnel_of_another_vnet_enters_no_group() {
    let mut programmer = edge();
    let prefix = key(1, "10.0.0.0/8");
    let tunnels = [
        (1, tunnel(1, &[])),
        (2, tunnel(1, &[])),
        (3, tunnel(2, &[])),
    ];
    // Slipped in among good ones, at first and by a change of a group that is in use.
    let bad = spec(&[1, 2], &tunnels, &[(prefix, over(&[1, 2, 3]))]);
    let good = spec(&[1, 2], &tunnels, &[(prefix, over(&[1, 2]))]);
    let reason =
        "tunnel3 belongs to vnet2, and packets never cross from one virtual network into another";
    let tunnels_of = |programmer: &Programmer| {
        let guard = pin();
        let vnet = programmer.tables().vnet(VnetId(1), &guard).unwrap();
        let mut found = routed_by_hash(vnet, ip("10.0.0.50"));
        found.extend(ids().filter(|id| vnet.leads_to(ip("10.0.0.50"), *id, &guard)));
        found
    };
    assert_eq!(go(&mut programmer, &bad)[&Key::Route(prefix)], reason);
    assert!(tunnels_of(&programmer).is_empty());
    assert!(go(&mut programmer, &good).is_empty());
    assert_eq!(go(&mut programmer, &bad)[&Key::Route(prefix)], reason);
    assert_eq!(
        tunnels_of(&programmer),
        BTreeSet::from([TunnelId(1), TunnelId(2)])
    );
    // A member that moves to another vnet is out of the group before its worker hears of it.
    let moved = [
        (1, tunnel(1, &[])),
        (2, tunnel(2, &[])),
        (3, tunnel(2, &[])),
    ];
    let delta = programmer
        .spec()
        .diff(&spec(&[1, 2], &moved, &[(prefix, over(&[1, 2]))]));
    let tables = programmer.tables().clone();
    let applied = programmer.apply(&delta, &mut |_| {
        let guard = pin();
        let vnet = tables.vnet(VnetId(1), &guard).unwrap();
        assert!(!vnet.leads_to(ip("10.0.0.50"), TunnelId(2), &guard));
        Ok(())
    });
    assert_eq!(applied.rejected.len(), 1);
    assert_eq!(tunnels_of(&programmer), BTreeSet::from([TunnelId(1)]));
    assert_eq!(programmer.spec().routes[&prefix], to(1));
}

#[test]
fn what_the_worker_refuses_enters_no_table_and_its_routes_are_refused() {
    let mut programmer = edge();
    let target = spec(
        &[1],
        &[(1, tunnel(1, &["10.0.0.0/8"]))],
        &[(key(1, "10.0.0.0/8"), to(1))],
    );
    let delta = programmer.spec().diff(&target);
    let applied = programmer.apply(&delta, &mut |_| Err("no room".into()));
    let expected = [
        (
            Key::Tunnel(TunnelId(1)),
            "the worker refused it: no room".to_owned(),
        ),
        (
            Key::Route(key(1, "10.0.0.0/8")),
            "tunnel1 does not exist on this node".to_owned(),
        ),
    ];
    assert_eq!(applied.rejected, expected);
    let guard = pin();
    let vnet = programmer.tables().vnet(VnetId(1), &guard).unwrap();
    assert!(!vnet.is_allowed(ip("10.0.0.50"), TunnelId(1), &guard));
    assert!(!vnet.leads_to(ip("10.0.0.50"), TunnelId(1), &guard));
    // The next delta tries again.
    assert!(go(&mut programmer, &target).is_empty());
    assert_eq!(programmer.spec(), &target);
}

#[test]
fn a_tunnel_leaves_the_tables_before_and_enters_them_after_the_worker_is_told() {
    let mut programmer = edge();
    let tables = programmer.tables().clone();
    let full = spec(
        &[1],
        &[(1, tunnel(1, &["10.0.0.0/8"]))],
        &[(key(1, "10.0.0.0/8"), to(1))],
    );
    for target in [&full, &spec(&[1], &[], &[])] {
        let delta = programmer.spec().diff(target);
        let mut told = 0;
        programmer.apply(&delta, &mut |_| {
            let guard = pin();
            let vnet = tables.vnet(VnetId(1), &guard).unwrap();
            assert!(!vnet.is_allowed(ip("10.0.0.50"), TunnelId(1), &guard));
            assert!(!vnet.leads_to(ip("10.0.0.50"), TunnelId(1), &guard));
            told += 1;
            Ok(())
        });
        assert_eq!(told, 1);
    }
}

#[test]
fn a_route_that_moves_off_a_deleted_tunnel_is_never_missing() {
    let mut programmer = edge();
    let (one, two) = (tunnel(1, &[]), tunnel(1, &[]));
    let narrow = key(1, "10.0.0.0/24");
    let wide = (key(1, "10.0.0.0/8"), to(2));
    let tunnels = [(1, one), (2, two.clone())];
    go(
        &mut programmer,
        &spec(&[1], &tunnels, &[(narrow, to(1)), wide]),
    );
    let tables = programmer.tables().clone();
    let look = || tables.route(VnetId(1), ip("10.0.0.50"));
    for (id, nexthop_at_deletion) in [(2, to(2)), (3, to(2))] {
        // First to a tunnel that is there, then to one that comes as the old one goes.
        let target = spec(&[1], &[(id, two.clone())], &[(narrow, to(id))]);
        let delta = programmer.spec().diff(&target);
        let applied = programmer.apply(&delta, &mut |change| {
            if let TunnelChange::Delete(_) = change {
                assert_eq!(look(), nexthop_at_deletion.candidates.single());
            }
            Ok(())
        });
        assert_eq!(applied.rejected, []);
        assert_eq!(look(), to(id).candidates.single());
    }
}

#[test]
fn changes_in_a_senseless_order_leave_no_route_to_a_tunnel_that_is_gone() {
    let mut programmer = edge();
    let route = key(1, "10.0.0.0/8");
    go(
        &mut programmer,
        &spec(&[1], &[(1, tunnel(1, &[]))], &[(route, to(1))]),
    );
    let delta = Delta {
        revision: 2,
        changes: vec![
            Change::PutRoute(route, to(1)),
            Change::DeleteTunnel(TunnelId(1)),
        ],
        relays: None,
    };
    let applied = programmer.apply(&delta, &mut |_| Ok(()));
    assert_eq!(applied.rejected.len(), 1);
    assert_eq!(applied.rejected[0].0, Key::Route(route));
    assert_eq!(programmer.tables().route(VnetId(1), ip("10.0.0.1")), None);
    assert!(programmer.spec().routes.is_empty());
}

#[test]
fn a_site_routes_the_source_range_and_delivers_its_own_network() {
    let mut programmer = Programmer::new(None, NodeId(0), Workers::ONE);
    let local = Route::from(Nexthop::Local);
    let target = spec(
        &[1],
        &[(1, tunnel(1, &["100.64.0.0/12"]))],
        &[
            (key(1, "100.64.0.0/12"), to(1)),
            (key(1, "10.0.0.0/24"), local),
        ],
    );
    assert!(go(&mut programmer, &target).is_empty());
    let guard = pin();
    let vnet = programmer.tables().vnet(VnetId(1), &guard).unwrap();
    let route = |to| vnet.route(ip(to), || 0, &guard);
    assert_eq!(route("100.64.0.2"), to(1).candidates.single());
    assert!(vnet.is_allowed(ip("100.64.0.2"), TunnelId(1), &guard));
    assert_eq!(route("10.0.0.50"), Some(Nexthop::Local));
    assert!(programmer.source_rows().is_empty());
}

#[test]
fn an_interface_that_is_no_link_and_a_health_check_that_cannot_be_are_refused_by_field() {
    let mut programmer = edge();
    let with = |interface: &[&str], health: &str| Tunnel {
        interface: interface.iter().map(|near| near.parse().unwrap()).collect(),
        health: serde_json::from_str(health).unwrap(),
        ..tunnel(1, &[])
    };
    let good = [
        "10.255.0.0/31",
        "fd00::/127",
        "10.255.0.5/30",
        "fd00::1/126",
    ];
    for (tunnel, words) in [
        (with(&["10.255.0.1/24"], "null"), "interface 10.255.0.1/24"),
        (with(&["10.255.0.4/30"], "null"), "interface 10.255.0.4/30"),
        (with(&[&good[..], &good[..1]].concat(), "null"), "at most 4"),
        (
            with(&good, r#"{"recovery":{"up_after":0}}"#),
            "health.recovery.up_after",
        ),
        (with(&[], "{}"), "health needs two addresses"),
        (
            with(&[], r#"{"target":"224.0.0.1"}"#),
            "health.target 224.0.0.1",
        ),
    ] {
        let rejected = go(&mut programmer, &spec(&[1], &[(1, tunnel)], &[]));
        let reason = &rejected[&Key::Tunnel(TunnelId(1))];
        assert!(reason.contains(words), "{reason}");
    }
    for fine in [
        with(&good, r#"{"rate":"low"}"#),
        with(&[], r#"{"target":"10.0.0.1"}"#),
    ] {
        assert!(go(&mut programmer, &spec(&[1], &[(1, fine)], &[])).is_empty());
    }
}
