//! The world in memory: overlapping networks behind one edge, and none of them ever sees another's.

use std::net::Ipv4Addr;
use std::time::Instant;

use dataplane::id::VnetId;
use testbed::sim::{ORIGIN, World, name};

/// Rounds after which a client that has nothing has waited long enough.
const ROUNDS_MAX: u32 = 20_000;
/// What each client wants to have read: more than a window, so that acknowledgements count.
const WANTED: usize = 200_000;

#[expect(
    clippy::disallowed_methods,
    reason = "boringtun reads this clock, so the world starts there"
)]
fn world(seed: u64, vnets: u16, loss_per_mille: u64) -> World {
    World::new(seed, vnets, loss_per_mille, Instant::now())
}

/// Runs until every client has read enough.
fn run(world: &mut World) {
    let is_done = |world: &World| world.received().all(|received| received.len() >= WANTED);
    for _ in 0..ROUNDS_MAX {
        if is_done(world) {
            break;
        }
        world.round();
    }
    let lengths: Vec<usize> = world.received().map(<[u8]>::len).collect();
    assert!(
        is_done(world),
        "after {ROUNDS_MAX} ms the clients had {lengths:?} of {WANTED} bytes"
    );
}

/// Every client read its own origin's name, over and over, and not a byte else.
fn assert_everybody_got_their_own(world: &World) {
    for (index, received) in world.received().enumerate() {
        let number = u16::try_from(index + 1).expect("a vnet's number");
        let name = name(number);
        let wanted = name.as_bytes().iter().cycle();
        assert!(
            received.iter().eq(wanted.take(received.len())),
            "vnet {number} read another's"
        );
    }
}

#[test]
fn twenty_networks_with_the_same_addresses_never_see_each_other() {
    let mut world = world(11, 20, 0);
    run(&mut world);
    assert_everybody_got_their_own(&world);
    assert_eq!(world.strays(), 0);
}

#[test]
fn lost_datagrams_delay_and_do_not_mix() {
    let mut world = world(12, 3, 10);
    run(&mut world);
    assert_everybody_got_their_own(&world);
    assert_eq!(world.strays(), 0);
}

/// An IPv4 packet with a UDP header and nothing in it.
fn packet(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64).udp(1, 2);
    let mut bytes = Vec::with_capacity(builder.size(0));
    builder
        .write(&mut bytes, &[])
        .expect("a vector takes everything");
    bytes
}

#[test]
fn a_site_cannot_reach_another_vnet_whatever_it_writes_into_its_packets() {
    let mut world = world(13, 2, 0);
    run(&mut world);
    let first = world.source(VnetId(1)).expect("a source");
    let second = world.source(VnetId(2)).expect("a source");
    let stranger = Ipv4Addr::new(192, 0, 2, 1);
    let tries = [
        // (from, to): the attacker sits behind site 2.
        (ORIGIN, first),
        (first, second),
        (second, first),
        (first, first),
        (stranger, second),
        (stranger, first),
        (Ipv4Addr::new(100, 64, 0, 1), second),
        (Ipv4Addr::new(100, 79, 255, 255), second),
    ];
    let before = world.edge().counters().clone();
    for (from, to) in tries {
        world.inject(1, &mut packet(from, to));
    }
    for _ in 0..50 {
        world.round();
    }
    let dropped = world.edge().counters().dropped_total() - before.dropped_total();
    assert!(
        dropped >= tries.len() as u64,
        "only {dropped} of {} were dropped",
        tries.len()
    );
    assert_eq!(world.strays(), 0);
    assert_everybody_got_their_own(&world);
}
