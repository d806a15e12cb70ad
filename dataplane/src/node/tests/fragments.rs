//! Pieces of datagrams: none gets where a whole one would not, whatever its neighbours were.

use std::net::IpAddr;

use super::world::{World, ip};
use super::{packet, seal};
use crate::node::DropReason;

/// A piece of a UDP datagram with the identification 9.
fn piece(src: IpAddr, dst: IpAddr, (offset, is_more): (u16, bool), bytes: &[u8]) -> Vec<u8> {
    if src.is_ipv6() {
        let place = (offset | u16::from(is_more)).to_be_bytes();
        let header = [17, 0, place[0], place[1], 0, 0, 0, 9];
        return packet(src, dst, 44, &[&header, bytes].concat());
    }
    let mut piece = packet(src, dst, 17, bytes);
    piece[4..6].copy_from_slice(&9_u16.to_be_bytes());
    let place = (offset / 8) | if is_more { 0x2000 } else { 0 };
    piece[6..8].copy_from_slice(&place.to_be_bytes());
    seal(&mut piece);
    piece
}

/// Pieces as attackers cut them: the first too short for ports or flags (RFC 1858, RFC 7112), the second over
/// the first (RFC 3128, RFC 5722), a first one twice, a last one without others.
const PLACES: [(u16, bool, usize); 6] = [
    (0, true, 0),
    (0, true, 8),
    (0, true, 24),
    (8, true, 64),
    (16, false, 9),
    (0, true, 16),
];

#[test]
fn nobody_adds_a_piece_to_anothers_datagram() {
    for (origin, forged) in [("10.0.0.50", "10.3.0.200"), ("fd00::50", "fd00:3::200")] {
        let mut world = World::new();
        let to = world.source(1, origin);
        for (offset, is_more, len) in PLACES {
            let place = (offset, is_more);
            let own = piece(ip(origin), to, place, &vec![1; len]);
            let arrived = world.send(1, &own);
            assert_eq!(arrived[0].len(), 1, "of a source of its own: {place:?}");
            // All but the hops that are left.
            assert_eq!(arrived[0][0][20..], own[20..]);
            // Another site's source; the right source by another site, which is of the same vnet; and by
            // the other vnet's, which has that very source.
            let other = piece(ip(forged), to, place, &vec![2; len]);
            world.assert_dropped(1, &other, DropReason::SourceNotAllowed);
            let same = piece(ip(origin), to, place, &vec![3; len]);
            world.assert_dropped(3, &same, DropReason::SourceNotAllowed);
            world.assert_dropped(2, &same, DropReason::ReturnVnetMismatch);
        }
    }
}

#[test]
fn pieces_go_from_site_to_site_by_their_own_addresses_and_to_no_other_vnet() {
    for (origin, host, elsewhere) in [
        ("10.0.0.50", "10.3.0.200", "10.9.0.1"),
        ("fd00::50", "fd00:3::200", "fd00:9::1"),
    ] {
        let mut world = World::new();
        // The host is there, and the origin is not.
        let mut spec = world.site(3).program.spec().clone();
        let is_there = |net: &ipnet::IpNet| {
            let origin_net = ["10.0.0.0/24", "fd00::/64"].contains(&net.to_string().as_str());
            net.prefix_len() < net.max_prefix_len() && !origin_net
        };
        spec.routes.retain(|key, _| is_there(&key.prefix));
        world.site(3).apply(&spec);
        for (offset, is_more, len) in PLACES {
            let place = (offset, is_more);
            let sent = piece(ip(origin), ip(host), place, &vec![1; len]);
            let arrived = world.send(1, &sent);
            let counts: Vec<usize> = arrived.iter().map(Vec::len).collect();
            assert_eq!(counts, [0, 0, 0, 1], "{place:?}");
            assert_eq!(arrived[3][0][20..], sent[20..], "{place:?}");
            let lost = piece(ip(origin), ip(elsewhere), place, &vec![1; len]);
            let before = world.edge().dropped(DropReason::NoRoute);
            let arrived = world.send(1, &lost);
            assert!([0, 2, 3].iter().all(|n| arrived[*n].is_empty()));
            assert_eq!(world.edge().dropped(DropReason::NoRoute), before + 1);
        }
    }
}

#[test]
fn a_piece_that_ends_behind_the_longest_packet_is_dropped() {
    for origin in ["10.0.0.50", "fd00::50"] {
        let mut world = World::new();
        let to = world.source(1, origin);
        let death = piece(ip(origin), to, (65_528, false), &[7; 64]);
        // The site's own router has dropped it: an attacker's would not.
        let at_site = world.site(1);
        at_site.send(&death);
        assert_eq!(at_site.dropped(DropReason::Malformed), 1);
    }
}
