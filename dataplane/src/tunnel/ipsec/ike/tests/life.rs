//! An SA from its beginning over its rekeys to its end.

use std::time::Duration;

use proptest::prelude::*;

use crate::tunnel::ipsec::cipher::Transform;
use crate::tunnel::ipsec::ike::dh::Group;
use crate::tunnel::ipsec::ike::{Config, Failure, Identity, Pair, Prf, Times, everything};
use crate::wire::ikev2::payload::Selector;

use super::world::{TUNNEL, Weather, World, config};

#[test]
fn every_algorithm_is_agreed_on_and_carries_packets() {
    let ciphers = [
        Transform::Aes128Gcm16,
        Transform::Aes256Gcm16,
        Transform::Chacha20Poly1305,
        Transform::Aes256CbcSha256,
    ];
    for (at, group) in Group::ALL.into_iter().enumerate() {
        for prf in [Prf::Sha256, Prf::Sha384] {
            let (cipher, has_esn) = (ciphers[at], at % 2 == 0);
            let with = |at: usize| {
                let mut config = config(at);
                config.ike.groups = vec![group];
                config.ike.prfs = vec![prf];
                config.ike.ciphers = vec![cipher];
                config.esp.ciphers = vec![cipher];
                config.esp.groups = vec![group];
                config.esp.esn = vec![has_esn];
                config
            };
            let mut world = World::new(at as u64, [Some(with(0)), Some(with(1))]);
            world.settle();
            assert!(world.is_carrying(), "{group:?} {prf:?} {cipher:?}");
            let status = world.sides[0].endpoint.status(TUNNEL).next().unwrap();
            assert_eq!((status.suite.group, status.suite.prf), (group, prf));
            let (spi, now) = (world.sides[0].sending.unwrap(), world.now);
            world.sides[0].endpoint.rekey_child(TUNNEL, spi, now);
            world.sides[1].endpoint.rekey_ike(TUNNEL, now);
            world.run(Duration::from_secs(20));
            assert!(world.is_carrying() && world.sides[0].sending != Some(spi));
        }
    }
}

#[test]
fn identities_of_every_kind_are_told() {
    let kinds = [
        Identity::Address([192, 0, 2, 1].into()),
        Identity::Address([7_u8; 16].into()),
        Identity::Fqdn("site.example".to_owned()),
        Identity::Mail("ipsec@site.example".to_owned()),
        Identity::KeyId(b"account_tunnel".to_vec()),
    ];
    for kind in kinds {
        let (mut ours, mut theirs) = (config(0), config(1));
        ours.local_id = kind.clone();
        theirs.remote_id = kind;
        let mut world = World::new(1, [Some(ours), Some(theirs)]);
        world.settle();
        assert!(world.is_carrying());
    }
}

#[test]
fn a_group_that_the_responder_does_not_take_costs_one_more_message() {
    let (ours, mut theirs) = (config(0), config(1));
    theirs.ike.groups = vec![Group::P256];
    let mut world = World::new(3, [Some(ours), Some(theirs)]);
    world.settle();
    assert!(world.is_carrying());
    assert_eq!(world.messages, 6, "two for the wrong group, four as ever");
}

#[test]
fn behind_a_nat_packets_go_in_udp_on_the_shared_port() {
    let anywhere = Config {
        remote: None,
        ..config(1)
    };
    let mut world = World::new(4, [Some(config(0)), Some(anywhere)]);
    world.nat = Some([203, 0, 113, 7].into());
    world.settle();
    // Side 0's addresses are changed under way; the marker's port too, so the far port is not 500.
    assert!(world.is_carrying());
    assert_eq!(world.sides[0].is_in_udp, Some(true));
    assert_eq!(world.sides[1].is_in_udp, Some(true));
    let without = |forces_udp| {
        let (mut ours, theirs) = (config(0), config(1));
        ours.forces_udp = forces_udp;
        let mut world = World::new(5, [Some(ours), Some(theirs)]);
        world.settle();
        world.sides.map(|side| side.is_in_udp)
    };
    assert_eq!(without(false), [Some(false), Some(false)]);
    assert_eq!(without(true), [Some(true), Some(true)]);
}

#[test]
fn who_is_behind_a_nat_sends_it_a_byte_every_20_seconds_and_nobody_else_does() {
    let anywhere = Config {
        remote: None,
        ..config(1)
    };
    let mut world = World::new(11, [Some(config(0)), Some(anywhere)]);
    world.nat = Some([203, 0, 113, 7].into());
    // A rekey of the IKE SA changes nothing about that.
    world.run(Duration::from_secs(5));
    let now = world.now;
    world.sides[0].endpoint.rekey_ike(TUNNEL, now);
    world.run(Duration::from_secs(605));
    assert!(
        (28..=31).contains(&world.keepalives[1]),
        "{:?}",
        world.keepalives
    );
    assert_eq!(world.keepalives[0], 0);
    assert!(world.is_carrying());
    let mut world = World::pair(12);
    world.run(Duration::from_secs(600));
    assert_eq!(world.keepalives, [0, 0]);
}

/// All IPv4 traffic from or to a network.
fn net(second: u8) -> Vec<Selector> {
    let mut net = everything()[0];
    net.addresses = ([10, second, 0, 0].into(), [10, second, 255, 255].into());
    vec![net]
}

/// Configs with a child for each of three networks of the responder.
fn of_three(at: usize) -> Config {
    let pair = |second| match at {
        0 => (everything(), net(second)),
        _ => (net(second), everything()),
    };
    let (local_ts, remote_ts) = pair(1);
    let further = [2, 3].map(|second| {
        let (local, remote) = pair(second);
        Pair { local, remote }
    });
    Config {
        local_ts,
        remote_ts,
        further: further.to_vec(),
        ..config(at)
    }
}

#[test]
fn an_initiator_asks_for_every_child_and_again_for_one_that_is_gone() {
    let mut world = World::new(4, [Some(of_three(0)), Some(of_three(1))]);
    world.settle();
    let carried = |world: &World, at: usize| {
        let side = &world.sides[at];
        let mut nets: Vec<_> = side.traffic.values().cloned().collect();
        nets.sort_by_key(|(_, remote)| remote[0].addresses);
        nets
    };
    let wanted: Vec<_> = [1, 2, 3].map(|second| (everything(), net(second))).to_vec();
    assert_eq!(carried(&world, 0), wanted);
    assert!(world.sides.iter().all(|side| side.live.len() == 3));
    // All of them are rekeyed, and the IKE SA, and there are three again.
    world.run(Times::default().child * 3);
    assert_eq!(carried(&world, 0), wanted);
    assert!(world.sides.iter().all(|side| side.failures.is_empty()));
    // The responder takes one away; it comes back, and the others stay.
    let before = world.sides[1].live.clone();
    let gone = *before.iter().next().unwrap();
    let now = world.now;
    world.sides[1].endpoint.delete_child(TUNNEL, gone, now);
    world.settle();
    assert_eq!(world.sides[0].live.len(), 2);
    world.run(Duration::from_secs(120));
    assert_eq!(carried(&world, 0), wanted);
    let kept = world.sides[1].live.intersection(&before).count();
    assert_eq!(kept, 2);
}

#[test]
fn a_child_that_the_peer_does_not_want_is_told_and_asked_for_again() {
    let theirs = Config {
        further: Vec::new(),
        ..of_three(1)
    };
    let mut world = World::new(5, [Some(of_three(0)), Some(theirs)]);
    world.settle();
    assert_eq!(world.sides[0].live.len(), 1);
    assert_eq!(
        world.sides[0].failures,
        [Failure::NoTraffic, Failure::NoTraffic]
    );
    world.run(Duration::from_secs(300));
    assert!(world.sides[0].failures.len() > 4);
    assert!(world.is_carrying(), "the first one stays");
}

#[test]
fn a_peer_that_moved_behind_its_nat_is_followed() {
    let anywhere = Config {
        remote: None,
        ..config(1)
    };
    let mut world = World::new(4, [Some(config(0)), Some(anywhere)]);
    world.nat = Some([203, 0, 113, 7].into());
    world.settle();
    world.nat = Some([203, 0, 113, 99].into());
    world.run(Duration::from_secs(31));
    let status = world.sides[1].endpoint.status(TUNNEL).next().unwrap();
    assert_eq!(
        status.path.remote.ip(),
        std::net::IpAddr::from([203, 0, 113, 99])
    );
}

/// Asks for a rekey of the child from the sides in `who`, at once, and carries packets all the
/// while.
fn rekeys_without_loss(seed: u64, who: &[usize], ike: bool, weather: Weather) {
    let mut world = World::pair(seed);
    world.settle();
    world.weather = weather;
    let before = world.sides.each_ref().map(|side| side.sending);
    let now = world.now;
    for &at in who {
        let spi = world.sides[at].sending.unwrap();
        if ike {
            world.sides[at].endpoint.rekey_ike(TUNNEL, now);
        } else {
            world.sides[at].endpoint.rekey_child(TUNNEL, spi, now);
        }
    }
    let until = world.now + Duration::from_secs(150);
    loop {
        while world.step() {
            assert!(world.is_carrying(), "seed {seed}: a packet was lost");
        }
        if !world.tick(until) {
            break;
        }
        assert!(world.is_carrying(), "seed {seed}: a packet was lost");
    }
    for (side, before) in world.sides.iter().zip(before) {
        assert_eq!(side.failures, []);
        assert_eq!(side.live.len(), 1, "seed {seed}: one child is left");
        assert_eq!(side.sending == before, ike, "seed {seed}");
        assert_eq!(
            side.endpoint.status(TUNNEL).count(),
            1,
            "seed {seed}: one IKE SA is left"
        );
    }
}

#[test]
fn a_rekey_loses_no_packet() {
    for who in [&[0][..], &[1], &[0, 1], &[1, 0]] {
        for seed in 0..20 {
            rekeys_without_loss(seed, who, false, Weather::default());
            rekeys_without_loss(seed, who, true, Weather::default());
        }
    }
}

#[test]
fn a_rekey_in_bad_weather_loses_no_packet() {
    let weather = Weather {
        lost: 10,
        doubled: 10,
        turned: 20,
    };
    for who in [&[0][..], &[1], &[0, 1]] {
        for seed in 100..130 {
            rekeys_without_loss(seed, who, false, weather);
            rekeys_without_loss(seed, who, true, weather);
        }
    }
}

#[test]
fn a_long_authentication_goes_in_fragments_in_any_weather() {
    let with = |at: usize| {
        let mut config = config(at);
        config.local_ts = (0..60)
            .map(|net| Selector {
                protocol: 0,
                ports: (0, 65535),
                addresses: (
                    [10, u8::try_from(at).unwrap(), net, 0].into(),
                    [10, 9, net, 9].into(),
                ),
            })
            .collect();
        let long = Identity::KeyId(vec![b'k'; 1500]);
        if at == 0 {
            config.local_id = long;
        } else {
            config.remote_id = long;
        }
        config
    };
    let weathers = [0, 15].map(|lost| Weather {
        lost,
        doubled: 2 * lost,
        turned: 2 * lost,
    });
    for (seed, weather) in (0..20).flat_map(|seed| weathers.map(|weather| (seed, weather))) {
        let mut world = World::new(seed, [Some(with(0)), Some(with(1))]);
        world.weather = weather;
        world.run(Duration::from_secs(200));
        if weather.lost == 0 {
            assert!(world.messages > 6, "{}", world.messages);
        }
        assert!(world.is_carrying(), "seed {seed}");
    }
}

#[test]
fn a_rekey_takes_the_group_that_the_peer_wants() {
    let (mut ours, mut theirs) = (config(0), config(1));
    ours.esp.groups = vec![Group::X25519, Group::P256];
    theirs.esp.groups = vec![Group::P256];
    let mut world = World::new(1, [Some(ours), Some(theirs)]);
    world.settle();
    let (spi, now) = (world.sides[0].sending.unwrap(), world.now);
    world.sides[0].endpoint.rekey_child(TUNNEL, spi, now);
    world.settle();
    assert!(world.is_carrying() && world.sides[0].sending != Some(spi));
}

#[test]
fn a_rekey_that_the_peer_refuses_is_told() {
    let (ours, mut theirs) = (config(0), config(1));
    theirs.esp.groups = vec![Group::P256];
    let mut world = World::new(1, [Some(ours), Some(theirs)]);
    world.settle();
    let (spi, now) = (world.sides[0].sending.unwrap(), world.now);
    world.sides[0].endpoint.rekey_child(TUNNEL, spi, now);
    world.settle();
    assert!(world.is_carrying(), "the old one stands");
    let told = |side: usize| {
        matches!(
            world.sides[side].failures[..],
            [Failure::NoProposal { what: "ESP", .. }]
        )
    };
    assert!(told(0) && told(1));
}

#[test]
fn a_child_that_cannot_be_rekeyed_ends_and_everything_begins_anew() {
    let (mut ours, mut theirs) = (config(0), config(1));
    ours.esp.groups = vec![Group::X25519];
    theirs.esp.groups = vec![Group::P256];
    let mut world = World::new(1, [Some(ours), Some(theirs)]);
    world.settle();
    let first = world.sides[0].sending;
    world.run(Duration::from_secs(2 * 3600));
    assert!(world.is_carrying());
    assert_ne!(world.sides[0].sending, first);
    assert!(world.sides[0].ups > 1);
}

#[test]
fn a_day_of_timers_passes_with_every_rekey_and_no_failure() {
    let mut world = World::pair(7);
    world.settle();
    for _ in 0..24 * 6 {
        world.run(Duration::from_secs(600));
        assert!(world.is_carrying());
    }
    for side in &world.sides {
        assert_eq!(side.failures, []);
        // An hour each, less up to a tenth.
        assert!((24..=30).contains(&side.children), "{}", side.children);
        assert!(side.live.len() == 1 && side.outbound.len() == 1);
    }
    assert!(world.sides[0].endpoint.sad_mut().len() <= 2, "no SPI leaks");
}

#[test]
fn a_dead_peer_is_noticed_and_called_again() {
    let mut world = World::pair(8);
    world.settle();
    world.weather.lost = 100;
    world.run(Duration::from_secs(30 + 64));
    assert_eq!(world.sides[0].failures, [Failure::Unreachable]);
    assert!(world.sides[0].live.is_empty());
    world.weather.lost = 0;
    world.run(Duration::from_secs(120));
    assert!(world.is_carrying());
    // The responder heard that this is the only SA now.
    assert_eq!(world.sides[1].endpoint.status(TUNNEL).count(), 1);
    assert_eq!(world.sides[1].live.len(), 1);
}

#[test]
fn a_deleted_tunnel_is_gone_on_both_sides() {
    let mut world = World::pair(9);
    world.settle();
    let now = world.now;
    world.sides[1].endpoint.delete(TUNNEL, now);
    world.settle();
    assert!(world.sides.iter().all(|side| side.live.is_empty()));
    assert_eq!(world.sides[0].failures, [Failure::ClosedByPeer]);
    assert_eq!(world.sides[1].failures, [Failure::Deleted]);
}

#[test]
fn both_sides_that_begin_at_once_come_up() {
    let (ours, mut theirs) = (config(0), config(1));
    theirs.initiates = true;
    for seed in 0..10 {
        let mut world = World::new(seed, [Some(ours.clone()), Some(theirs.clone())]);
        world.weather.turned = 30;
        world.run(Duration::from_secs(120));
        assert!(world.is_carrying(), "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn an_sa_comes_up_in_any_weather(
        seed: u64, lost in 0_u64..40, doubled in 0_u64..30, turned in 0_u64..50,
    ) {
        let mut world = World::pair(seed);
        world.weather = Weather { lost, doubled, turned };
        world.run(Duration::from_secs(300));
        world.weather = Weather::default();
        // At worst one side gives the other up now, whose own probe begins 30 s later, is given up after 64 s, and
        // whose first try may have to wait.
        world.run(Duration::from_secs(240));
        prop_assert!(world.is_carrying());
    }
}
