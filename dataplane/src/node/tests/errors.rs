//! ICMP errors from the ends of tunnels: those of a far side pass, and nothing else of it does.

use std::net::IpAddr;

use super::packet;
use super::world::{World, ip, route};
use crate::fib::Nexthop;
use crate::id::TunnelId;
use crate::node::DropReason;
use crate::wire::icmp::{ErrorKind, error};
use crate::wire::ip::Inner;

const FAR: &str = "10.255.0.1";
const FAR_V6: &str = "fd00:255::1";

/// Tunnels of all vnets with the same addresses inside, at the edge only.
fn world() -> World {
    let mut world = World::new();
    let mut spec = world.edge().program.spec().clone();
    for tunnel in spec.tunnels.values_mut() {
        let near = ["10.255.0.0/31", "fd00:255::/127"];
        tunnel.interface = near.map(|net| net.parse().unwrap()).to_vec();
    }
    world.edge().apply(&spec);
    world
}

/// What a router at `from` says about a packet from `source` to `origin`.
fn said(kind: ErrorKind, from: &str, source: IpAddr, origin: &str) -> Vec<u8> {
    let about = packet(source, ip(origin), 17, &[7; 64]);
    let mut out = [0; 1280];
    let len = error(kind, &about, ip(from), &mut out).unwrap();
    out[..len].to_vec()
}

#[test]
fn a_far_sides_errors_reach_who_sent_the_packet_in_both_families() {
    let mut world = world();
    for (far, origin) in [(FAR, "10.0.0.50"), (FAR_V6, "fd00::50")] {
        for kind in [
            ErrorKind::TimeExceeded,
            ErrorKind::HostUnreachable,
            ErrorKind::AdminProhibited,
        ] {
            // The same addresses in the other vnet, by its own tunnel.
            for (site, vnet) in [(1, 1), (2, 2)] {
                let source = world.source(vnet, origin);
                let error = said(kind, far, source, origin);
                let arrived = world.send(site, &error);
                assert_eq!(arrived[0].len(), 1, "{kind:?} {far}");
                let inner = Inner::parse(&arrived[0][0]).unwrap();
                assert_eq!((inner.src, inner.dst), (ip(far), source));
            }
        }
    }
}

#[test]
fn an_error_about_anothers_packet_or_by_anothers_address_does_not_pass() {
    let mut world = world();
    let (own, other) = (world.source(1, "10.0.0.50"), world.source(2, "10.0.0.50"));
    let ttl = ErrorKind::TimeExceeded;
    // Not our neighbour; the router's own end is nobody's to send from.
    for from in ["10.255.0.2", "192.0.2.1", "10.255.0.0"] {
        let error = said(ttl, from, own, "10.0.0.50");
        world.assert_dropped(1, &error, DropReason::SourceNotAllowed);
    }
    // For an address of the other vnet.
    let error = said(ttl, FAR, other, "10.0.0.50");
    world.assert_dropped(1, &error, DropReason::ReturnVnetMismatch);
    // To somebody else than it is about.
    let mut error = said(ttl, FAR, other, "10.0.0.50");
    let IpAddr::V4(to) = own else { panic!("IPv4") };
    error[16..20].copy_from_slice(&to.octets());
    super::seal(&mut error);
    world.assert_dropped(1, &error, DropReason::SourceNotAllowed);
    // No error at all.
    let datagram = packet(ip(FAR), own, 17, &[7; 64]);
    world.assert_dropped(1, &datagram, DropReason::SourceNotAllowed);
    // A redirect would have the sender go elsewhere.
    let mut redirect = said(ttl, FAR, own, "10.0.0.50");
    redirect[20] = 5;
    world.assert_dropped(1, &redirect, DropReason::SourceNotAllowed);
}

/// What its first piece says need not be what is put together in the end.
#[test]
fn a_piece_of_an_error_is_no_error_of_the_far_side() {
    let mut world = world();
    let source = world.source(1, "10.0.0.50");
    for place in [0x2000_u16, 0x0001, 0x2001] {
        let mut piece = said(ErrorKind::TimeExceeded, FAR, source, "10.0.0.50");
        piece[6..8].copy_from_slice(&place.to_be_bytes());
        super::seal(&mut piece);
        world.assert_dropped(1, &piece, DropReason::SourceNotAllowed);
    }
    let source = world.source(1, "fd00::50");
    let whole = said(ErrorKind::TimeExceeded, FAR_V6, source, "fd00::50");
    let first = [&[58, 0, 0, 1, 0, 0, 0, 9][..], &whole[40..]].concat();
    let piece = packet(ip(FAR_V6), source, 44, &first);
    world.assert_dropped(1, &piece, DropReason::SourceNotAllowed);
}

#[test]
fn a_site_says_so_from_its_address_inside_the_tunnel() {
    let mut world = world();
    let mut spec = world.site(1).program.spec().clone();
    spec.tunnels.get_mut(&TunnelId(1)).unwrap().interface = vec!["10.255.0.1/31".parse().unwrap()];
    // It has nowhere to send a packet on to.
    spec.routes.clear();
    route(&mut spec, 1, "100.64.0.0/12", Nexthop::Tunnel(TunnelId(1)));
    world.site(1).apply(&spec);
    let source = world.source(1, "10.0.0.99");
    let arrived = world.send(0, &packet(source, ip("10.0.0.99"), 17, &[7; 8]));
    assert_eq!(arrived[0].len(), 1);
    let inner = Inner::parse(&arrived[0][0]).unwrap();
    assert_eq!((inner.src, inner.dst), (ip(FAR), source));
}
