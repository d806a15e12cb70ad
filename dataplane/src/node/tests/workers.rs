//! Several workers are one node: what comes to a wrong one goes to the owner, in order, and once.

use super::world::{End, World, ip, site_at};
use super::{packet, seal};
use crate::id::{TunnelId, VnetId, WorkerId};
use crate::node::DropReason;
use crate::packet::{Exit, Offload, Outbox, Parcel, Transmit, Way};

/// Gives the edge's worker `n` a packet from the overlay.
fn send_by(edge: &mut End, n: usize, packet: &[u8]) {
    let mut packet = packet.to_vec();
    edge.crew[n].handle_overlay(&mut packet, Offload::NONE, edge.now);
}

/// A batch with one parcel, as a worker that errs would make it.
fn handed(edge: &mut End, to: usize, parcel: Parcel, packet: &[u8]) {
    let mut out = Outbox::of(WorkerId(0), edge.program.tables().workers);
    assert!(out.hand_over(WorkerId(1), parcel, packet));
    let (_, mut batch) = out.poll_handover().unwrap();
    edge.crew[to].handle_batch(&mut batch, edge.now);
}

#[test]
fn each_worker_shows_its_own_tunnels_and_together_they_show_all() {
    let mut world = World::new();
    let edge = world.edge();
    for (n, node) in edge.crew.iter().enumerate() {
        let shown = node.tunnels(edge.now);
        assert_eq!(shown.len(), 1);
        assert_eq!(usize::try_from(shown[0].id.0).unwrap(), n + 1);
    }
    assert!(edge.tunnels().iter().all(|tunnel| tunnel.is_up));
}

#[test]
fn a_packet_for_a_foreign_tunnel_is_handed_over_once_and_its_owners_own_is_not() {
    let mut world = World::new();
    let sent = packet(world.source(2, "."), ip("10.0.0.50"), 99, b"");
    let edge = world.edge();
    let before = edge.count(|counters| counters.handed_over);
    send_by(edge, 1, &sent);
    assert_eq!(edge.count(|counters| counters.handed_over), before);
    send_by(edge, 0, &sent);
    assert_eq!(edge.count(|counters| counters.handed_over), before + 1);
    let out = edge.sent();
    assert_eq!(out.len(), 2);
    assert!(out.iter().all(|(to, _)| *to == site_at(2)));
}

#[test]
fn packets_of_a_tunnel_keep_their_order_on_the_way_through_another_worker() {
    let mut world = World::new();
    let source = world.source(2, ".");
    for n in 0..300_u16 {
        let sent = packet(source, ip("10.0.0.50"), 99, &n.to_be_bytes());
        send_by(world.edge(), 2, &sent);
    }
    world.pump();
    let got = std::mem::take(&mut world.site(2).overlay);
    let got: Vec<_> = got
        .iter()
        .map(|packet| u16::from_be_bytes([packet[20], packet[21]]))
        .collect();
    assert_eq!(got, (0..300).collect::<Vec<_>>());
}

#[test]
fn what_was_handed_over_wrongly_is_dropped_and_not_handed_on() {
    let mut world = World::new();
    let sent = packet(world.source(1, "."), ip("10.0.0.50"), 99, b"");
    let edge = world.edge();
    let encap = Parcel::Encap(TunnelId(1), VnetId(1), Offload::NONE);
    handed(edge, 1, encap, &sent);
    assert_eq!(edge.dropped(DropReason::HandoverLoops), 1);
    // A data message whose index names worker 2.
    let datagram = [&[4, 0, 0, 0, 1, 0, 0, 2][..], &[0; 40]].concat();
    handed(
        edge,
        1,
        Parcel::Underlay(Way::wireguard(site_at(3))),
        &datagram,
    );
    assert_eq!(edge.dropped(DropReason::HandoverLoops), 2);
    let initiation = Parcel::Initiation(site_at(3), TunnelId(3));
    handed(edge, 1, initiation, &[1; 148]);
    assert_eq!(edge.dropped(DropReason::HandoverLoops), 3);
    assert!(edge.crew[1].poll_handover().is_none());
}

#[test]
fn a_worker_does_not_trust_another_about_the_vnet_of_a_tunnel() {
    let mut world = World::new();
    let sent = packet(ip("10.0.0.9"), ip("10.0.0.50"), 99, b"");
    let edge = world.edge();
    handed(
        edge,
        1,
        Parcel::Encap(TunnelId(2), VnetId(1), Offload::NONE),
        &sent,
    );
    assert_eq!(edge.dropped(DropReason::TunnelVnetMismatch), 1);
    assert!(edge.sent().is_empty());
    handed(
        edge,
        1,
        Parcel::Encap(TunnelId(9), VnetId(1), Offload::NONE),
        &sent,
    );
    assert_eq!(edge.dropped(DropReason::Gone), 1);
}

#[test]
fn sites_of_one_vnet_whose_tunnels_have_different_owners_reach_each_other() {
    let mut world = World::new();
    let mut sent = packet(ip("10.0.0.50"), ip("10.3.0.200"), 99, b"site to site");
    seal(&mut sent);
    world.site(1).send(&sent);
    let (_, mut datagram) = world.site(1).sent().remove(0);
    let now = world.edge().now;
    let edge = world.edge();
    edge.crew[0].handle_underlay(Way::wireguard(site_at(1)), &mut datagram, now);
    let out = edge.sent();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].0, site_at(3));
    assert_eq!(edge.tunnels()[2].tx_packets, 1);
}

#[test]
fn a_peer_that_roams_during_a_handshake_through_another_worker_is_followed() {
    let mut world = World::new();
    // A new site 2 process on another address: its initiation comes to a worker that is not its own.
    let keys = super::world::site(2);
    let moved = "203.0.113.9:4000".parse().unwrap();
    world.ends[2] = keys;
    world.ends[2].at = moved;
    for _ in 0..6 {
        world.pump();
    }
    assert_eq!(world.edge().tunnels()[1].endpoint, Some(moved));
    let sent = packet(world.source(2, "."), ip("10.0.0.50"), 99, b"");
    assert_eq!(world.send(0, &sent)[2].len(), 1);
}

#[test]
fn what_is_for_a_userspace_flow_reaches_the_worker_that_lends_its_address() {
    let mut world = World::new();
    let edge = world.edge();
    let sources = &edge.program.tables().sources;
    let source = sources.at(VnetId(1), WorkerId(1)).unwrap().into();
    // Nobody routes it: the error is for the flow, which is worker 1's.
    let lost = packet(source, ip("192.0.2.1"), 99, b"");
    send_by(edge, 0, &lost);
    let node = &mut edge.crew[0];
    assert!(node.poll_transmit().is_some(), "a TUN takes it anywhere");
    assert!(node.poll_handover().is_none());
    node.deliver_by_owner();
    send_by(edge, 0, &lost);
    assert!(edge.crew[0].poll_transmit().is_none());
    let (to, mut batch) = edge.crew[0].poll_handover().unwrap();
    assert_eq!(to, WorkerId(1));
    let owner = &mut edge.crew[1];
    owner.handle_batch(&mut batch, edge.now);
    let Some(Transmit::Device { exit, packet, .. }) = owner.poll_transmit() else {
        panic!("nothing for the flow");
    };
    assert_eq!(exit, Exit::Overlay);
    assert_eq!(ip_of(&packet[16..20]), source);
}

fn ip_of(octets: &[u8]) -> std::net::IpAddr {
    let octets: [u8; 4] = octets.try_into().unwrap();
    octets.into()
}
