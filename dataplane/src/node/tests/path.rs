//! What routers of the underlay report, and what strangers would like us to believe.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::packet;
use super::world::{World, ip, site_at};
use crate::wire::icmp::TooBig;

/// The UDP header and the beginning of the datagram, as a router quotes it.
fn quoted(to: SocketAddr, datagram: &[u8]) -> Vec<u8> {
    let ports = [51820_u16.to_be_bytes(), to.port().to_be_bytes()].concat();
    [&ports[..], &[0; 4], &datagram[..16]].concat()
}

fn report(to: SocketAddr, len: usize, mtu: u16, payload: &[u8]) -> TooBig<'_> {
    TooBig {
        local: ip("198.51.100.1"),
        remote: to.ip(),
        protocol: 17,
        len: 28 + len,
        mtu,
        payload,
    }
}

/// Every worker hears every report.
fn hear(world: &mut World, report: &TooBig<'_>) {
    let edge = world.edge();
    let now = edge.now;
    for node in &mut edge.crew {
        node.handle_too_big(report, now);
    }
    edge.hand_over();
}

/// A packet of 1400 bytes that nobody may cut.
fn whole(source: IpAddr) -> Vec<u8> {
    let mut packet = packet(source, ip("10.0.0.50"), 99, &[7; 1380]);
    packet[6] = 0x40;
    super::seal(&mut packet);
    packet
}

/// Sends a packet of 1400 bytes into site 1's tunnel: the datagram that it becomes.
fn sent(world: &mut World) -> Vec<u8> {
    let source = world.source(1, "10.0.0.50");
    world.edge().send(&whole(source));
    let mut sent = world.edge().sent();
    assert_eq!(sent.len(), 1);
    let (to, datagram) = sent.remove(0);
    assert_eq!(to, site_at(1));
    datagram
}

/// What the sender of a packet of 1400 bytes is told, three times: each worker has its turn.
fn told(world: &mut World) -> Vec<Option<u16>> {
    let source = world.source(1, "10.0.0.50");
    let mut all = Vec::new();
    for _ in 0..3 {
        let arrived = world.send(0, &whole(source));
        let error = arrived[0].first().map(|error| {
            assert_eq!(error[20..22], [3, 4]);
            u16::from_be_bytes([error[26], error[27]])
        });
        assert_eq!(error.is_none(), arrived[1].len() == 1);
        all.push(error);
    }
    all
}

fn later(world: &mut World, secs: u64) {
    let edge = world.edge();
    edge.now += Duration::from_secs(secs);
    let now = edge.now;
    for node in &mut edge.crew {
        node.forget_paths(now);
    }
}

#[test]
fn a_router_that_quotes_our_datagram_lowers_the_mtu_for_all_workers_for_ten_minutes() {
    let mut world = World::new();
    let datagram = sent(&mut world);
    assert_eq!(told(&mut world), [None; 3]);
    let payload = quoted(site_at(1), &datagram);
    hear(
        &mut world,
        &report(site_at(1), datagram.len(), 1300, &payload),
    );
    // 1300 less 20 of IPv4, 8 of UDP and 32 of WireGuard, down to its padding.
    assert_eq!(told(&mut world), [Some(1232); 3]);
    assert_eq!(world.edge().count(|counters| counters.path_reports), 1);
    // A change of the tunnel that has nothing to do with it does not undo it.
    let mut spec = world.edge().program.spec().clone();
    for tunnel in spec.tunnels.values_mut() {
        tunnel.name.push('!');
    }
    world.edge().apply(&spec);
    assert_eq!(told(&mut world), [Some(1232); 3]);
    later(&mut world, 599);
    assert_eq!(told(&mut world), [Some(1232); 3]);
    later(&mut world, 1);
    assert_eq!(told(&mut world), [None; 3]);
}

#[test]
fn a_report_of_what_was_not_sent_or_cannot_be_changes_nothing() {
    let mut world = World::new();
    let datagram = sent(&mut world);
    let payload = quoted(site_at(1), &datagram);
    let len = datagram.len();
    let damaged = |at: usize| {
        let mut payload = payload.clone();
        payload[8 + at] ^= 0x40;
        payload
    };
    // The type, the receiver index, the counter: one of the future, one of long ago is what a guess is.
    let [kind, index, counter] = [0, 4, 11].map(damaged);
    let other = quoted(site_at(2), &datagram);
    for report in [
        report(site_at(1), len, 68, &payload),
        report(site_at(1), len, 0, &payload),
        report(site_at(1), len, 575, &payload),
        // It would have fit.
        report(site_at(1), len, 1500, &payload),
        report(site_at(1), 500, 600, &payload),
        report(site_at(1), len, 1300, &kind),
        report(site_at(1), len, 1300, &index),
        report(site_at(1), len, 1300, &counter),
        report(site_at(1), len, 1300, &payload[..20]),
        report(site_at(1), len, 1300, &[]),
        // For somebody else.
        report(site_at(2), len, 1300, &other),
        TooBig {
            protocol: 47,
            ..report(site_at(1), len, 1300, &payload)
        },
    ] {
        hear(&mut world, &report);
        world.edge().now += Duration::from_secs(1);
    }
    assert_eq!(told(&mut world), [None; 3]);
    assert_eq!(world.edge().count(|counters| counters.path_reports), 0);
    assert_eq!(
        world.edge().count(|counters| counters.path_reports_ignored),
        36
    );
}
