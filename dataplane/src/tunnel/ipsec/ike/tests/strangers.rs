//! Floods, replays and garbage.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use crate::tunnel::ipsec::ike::{COOKIES_FROM, Config, EspOffer, HALF_OPEN_MAX, Path, everything};
use crate::wire::ikev2::payload::{self, Chain, Notify, Payload};
use crate::wire::ikev2::proposal::Protocol;
use crate::wire::ikev2::{Exchange, Header};

use super::super::{notify, suite};
use super::world::{TUNNEL, World, address, config};

/// The first request of side 0, as it is on the wire.
fn first_request(seed: u64) -> Vec<u8> {
    let mut world = World::new(seed, [Some(config(0)), None]);
    let sent = world.sides[0].endpoint.poll_transmit().unwrap();
    sent.bytes
}

/// A responder whose peer comes from anywhere.
fn open_to_all() -> Config {
    Config {
        remote: None,
        ..config(1)
    }
}

fn from(number: u32) -> Path {
    Path {
        local: address(1, 500),
        remote: SocketAddr::new(number.to_be_bytes().into(), 500),
    }
}

/// A request with another SPI: of somebody else.
fn of_another(request: &[u8], number: u32) -> Vec<u8> {
    let mut request = request.to_vec();
    request[..4].copy_from_slice(&(number + 1).to_be_bytes());
    request
}

/// The notification in the only answer; `None` when the answer is an SA.
fn answer(world: &mut World) -> Option<(u16, Vec<u8>)> {
    let sent = world.sides[1].endpoint.poll_transmit().unwrap();
    assert!(world.sides[1].endpoint.poll_transmit().is_none());
    let (_, first, body) = Header::parse(&sent.bytes).unwrap();
    let payloads = payload::parse(first, body).unwrap();
    let cookie = notify::find(&payloads, notify::COOKIE)?;
    Some((cookie.kind, cookie.data.to_vec()))
}

#[test]
fn under_load_a_stranger_first_shows_that_it_is_where_it_says() {
    let request = first_request(1);
    let mut world = World::new(2, [None, Some(open_to_all())]);
    let now = world.now;
    for number in 0..u32::try_from(COOKIES_FROM).unwrap() {
        let request = of_another(&request, number);
        world.sides[1]
            .endpoint
            .handle_datagram(from(number), &request, now);
        assert_eq!(answer(&mut world), None, "answered at once");
    }
    let endpoint = &mut world.sides[1].endpoint;
    endpoint.handle_datagram(from(9999), &request, now);
    assert_eq!(endpoint.counters().cookies, 1);
    assert_eq!(answer(&mut world).unwrap().0, notify::COOKIE);
    // Half-open SAs end; then nobody needs a cookie.
    world.run(Duration::from_secs(31));
    let now = world.now;
    world.sides[1]
        .endpoint
        .handle_datagram(from(9999), &request, now);
    assert_eq!(answer(&mut world), None);
}

#[test]
fn an_initiator_comes_up_through_a_flood() {
    let request = first_request(1);
    let mut world = World::new(2, [Some(config(0)), Some(open_to_all())]);
    let now = world.now;
    for number in 0..3000 {
        let request = of_another(&request, number);
        world.sides[1]
            .endpoint
            .handle_datagram(from(number), &request, now);
        while world.sides[1].endpoint.poll_transmit().is_some() {}
    }
    assert!(world.sides[1].endpoint.counters().cookies > 2000);
    world.settle();
    assert!(world.is_carrying());
    assert_eq!(world.messages, 6, "two of them for the cookie");
    const { assert!(COOKIES_FROM < HALF_OPEN_MAX) };
}

/// The request again, with a cookie before all else (RFC 7296 section 2.6).
fn with_cookie(request: &[u8], cookie: &[u8]) -> Vec<u8> {
    const NOTIFY: u8 = 41;
    let mut notify = vec![request[16], 0];
    notify.extend(u16::try_from(8 + cookie.len()).unwrap().to_be_bytes());
    notify.extend([0, 0]);
    notify.extend(notify::COOKIE.to_be_bytes());
    notify.extend(cookie);
    let mut message = [&request[..28], &notify, &request[28..]].concat();
    message[16] = NOTIFY;
    let len = u32::try_from(message.len()).unwrap();
    message[24..28].copy_from_slice(&len.to_be_bytes());
    message
}

#[test]
fn a_flood_that_sends_its_cookies_back_takes_the_places_that_there_are_and_no_more() {
    let request = first_request(1);
    let mut world = World::new(2, [Some(config(0)), Some(open_to_all())]);
    let now = world.now;
    let places = u32::try_from(HALF_OPEN_MAX).unwrap();
    for number in 0..2 * places {
        let request = of_another(&request, number);
        let endpoint = &mut world.sides[1].endpoint;
        endpoint.handle_datagram(from(number), &request, now);
        if number < places
            && let Some((_, cookie)) = answer(&mut world)
        {
            let endpoint = &mut world.sides[1].endpoint;
            // A cookie is good for its address only.
            let request = with_cookie(&request, &cookie);
            endpoint.handle_datagram(from(number + 9 * places), &request, now);
            assert_eq!(answer(&mut world).unwrap().0, notify::COOKIE);
            let endpoint = &mut world.sides[1].endpoint;
            endpoint.handle_datagram(from(number), &request, now);
            assert_eq!(answer(&mut world), None, "it has a place");
        }
    }
    let endpoint = &world.sides[1].endpoint;
    assert_eq!(endpoint.counters().limited, u64::from(places));
    assert_eq!(endpoint.half_open_count(), HALF_OPEN_MAX);
    // None of them says who it is: in half a minute all places are free again.
    world.run(Duration::from_secs(60));
    assert_eq!(world.sides[1].endpoint.half_open_count(), 0);
    assert!(world.is_carrying(), "who kept asking came through");
}

#[test]
fn one_source_cannot_send_first_requests_without_end() {
    let request = first_request(1);
    let mut world = World::new(2, [None, Some(open_to_all())]);
    let now = world.now;
    for number in 0..200 {
        let request = of_another(&request, number);
        world.sides[1]
            .endpoint
            .handle_datagram(from(5), &request, now);
    }
    assert_eq!(world.sides[1].endpoint.counters().limited, 200 - 64);
}

#[test]
fn everything_that_was_ever_said_changes_nothing_when_it_is_said_again() {
    let mut world = World::pair(3);
    let mut said = Vec::new();
    let spin = |world: &mut World, said: &mut Vec<_>| {
        while world.step() {
            said.extend(world.wire.iter().cloned());
        }
    };
    spin(&mut world, &mut said);
    let (spi, now) = (world.sides[0].sending.unwrap(), world.now);
    world.sides[0].endpoint.rekey_child(TUNNEL, spi, now);
    spin(&mut world, &mut said);
    let children = world.sides.each_ref().map(|side| side.live.clone());
    assert!(said.len() > 4);
    for _ in 0..3 {
        world.wire.extend(said.iter().cloned());
        world.settle();
    }
    assert_eq!(
        world.sides.each_ref().map(|side| side.live.clone()),
        children
    );
    assert!(world.is_carrying());
    assert!(world.sides.iter().all(|side| side.failures.is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn bent_messages_never_panic_and_never_bring_up_a_child(
        seed in 0_u64..4, which in 0_usize..6,
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut world = World::pair(seed);
        for _ in 0..which {
            world.step();
        }
        let now = world.now;
        let Some((at, path, bytes)) = world.wire.front().cloned() else { return Ok(()) };
        let mut bent = bytes;
        for (at, byte) in bends {
            let at = at.index(bent.len());
            bent[at] = byte;
        }
        if let Some(cut) = cut {
            bent.truncate(cut.index(bent.len()));
            let len = u32::try_from(bent.len()).unwrap();
            if let Some(field) = bent.get_mut(24..28) {
                field.copy_from_slice(&len.to_be_bytes());
            }
        }
        world.sides[at].endpoint.handle_datagram(path, &bent, now);
        while world.sides[at].endpoint.poll_event().is_some() {}
        world.run(Duration::from_secs(400));
        prop_assert!(world.sides[0].endpoint.status(TUNNEL).count() <= 2);
    }

    #[test]
    fn a_peer_that_is_known_may_say_anything_and_breaks_nothing_but_its_own(
        exchange in prop::sample::select(vec![35_u8, 36, 37, 200]),
        is_rekey: bool,
        bends in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<u8>()), 0..6),
        times in 1_usize..5,
    ) {
        let mut world = World::pair(6);
        world.settle();
        let mut chain = Chain::new();
        if is_rekey {
            let spi = world.sides[0].sending.unwrap().0.to_be_bytes();
            chain.push(&Payload::Notify(Notify {
                protocol: Protocol::ESP,
                spi: &spi,
                kind: notify::REKEY_SA,
                data: &[],
            }));
        }
        let offer = suite::offer_esp(&EspOffer::default(), true, &[1, 2, 3, 4]);
        chain.push(&Payload::Sa(offer)).push(&Payload::Nonce(&[9; 32]));
        chain.push(&Payload::TsI(everything())).push(&Payload::TsR(everything()));
        chain.push(&Payload::Delete { protocol: Protocol::ESP, spis: &[5, 6, 7, 8], spi_len: 4 });
        for _ in 0..times {
            let (mut first, mut bytes) = (chain.first(), chain.bytes().to_vec());
            for (at, byte) in &bends {
                let at = at.index(bytes.len() + 1);
                *bytes.get_mut(at).unwrap_or(&mut first) = *byte;
            }
            let (bent, now) = (Chain::raw(first, bytes), world.now);
            let endpoint = &mut world.sides[0].endpoint;
            endpoint.say(TUNNEL, Exchange(exchange), &bent, now);
            world.settle();
        }
        prop_assert!(world.sides[1].live.len() <= 1 + times);
        // Whatever it deleted, it asks for again.
        world.run(Duration::from_secs(600));
        prop_assert!(world.sides[1].endpoint.status(TUNNEL).count() >= 1);
    }

    #[test]
    fn garbage_never_panics(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), is_framed: bool,
    ) {
        let mut world = World::pair(1);
        world.settle();
        if is_framed && bytes.len() >= 28 {
            let len = u32::try_from(bytes.len()).unwrap();
            bytes[24..28].copy_from_slice(&len.to_be_bytes());
            bytes[17] = 0x20;
            bytes[18] = 34 + bytes[18] % 4;
            bytes[16] = 33 + bytes[16] % 22;
        }
        let (path, now) = (from(7), world.now);
        world.sides[1].endpoint.handle_datagram(path, &bytes, now);
        prop_assert!(world.is_carrying());
    }
}
