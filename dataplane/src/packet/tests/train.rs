//! Trains against a naive model: every destination gets its datagrams, in order.

use std::collections::HashMap;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::super::*;

fn to(host: u8) -> Way {
    Way::wireguard(SocketAddr::from(([198, 51, 100, host], 51820)))
}

fn send(outbox: &mut Outbox, to: Way, max: usize, datagram: &[u8]) -> bool {
    let Some(room) = outbox.reserve(to, max) else {
        return false;
    };
    assert_eq!(room.len(), max);
    room[..datagram.len()].copy_from_slice(datagram);
    outbox.commit(datagram.len());
    true
}

/// Each train: destination and datagrams.
fn drain(outbox: &mut Outbox) -> Vec<(Way, Vec<Vec<u8>>)> {
    let mut all = Vec::new();
    while let Some(transmit) = outbox.poll_transmit() {
        let Transmit::Underlay {
            way: to,
            segment_size,
            bytes,
        } = transmit
        else {
            panic!("nothing was delivered");
        };
        assert!(bytes.len() <= 65_000);
        let datagrams: Vec<Vec<u8>> = bytes.chunks(segment_size).map(<[u8]>::to_vec).collect();
        assert!(datagrams.len() <= 64);
        all.push((to, datagrams));
    }
    all
}

fn lens(outbox: &mut Outbox) -> Vec<(Way, Vec<usize>)> {
    let lens = |datagrams: Vec<Vec<u8>>| datagrams.iter().map(Vec::len).collect();
    drain(outbox)
        .into_iter()
        .map(|(to, datagrams)| (to, lens(datagrams)))
        .collect()
}

#[test]
fn equal_datagrams_share_a_train_that_a_shorter_one_ends() {
    let mut outbox = Outbox::new();
    for len in [1452, 1452, 96, 1452, 96] {
        assert!(send(&mut outbox, to(1), 1500, &vec![1; len]));
    }
    assert_eq!(
        lens(&mut outbox),
        [(to(1), vec![1452, 1452, 96]), (to(1), vec![1452, 96])]
    );
}

#[test]
fn datagrams_of_two_carriers_or_local_addresses_share_no_train() {
    let mut outbox = Outbox::new();
    let [near, other, far] = [1, 2, 3].map(|host| [198, 51, 100, host].into());
    let ways = [
        Way::raw(Carrier::Esp, near, far),
        Way::raw(Carrier::Gre, near, far),
        Way::raw(Carrier::Esp, other, far),
    ];
    for way in ways.iter().chain(&ways) {
        assert!(send(&mut outbox, *way, 100, &[1; 100]));
    }
    let expected = ways.map(|way| (way, vec![100, 100]));
    assert_eq!(lens(&mut outbox), expected);
}

#[test]
fn a_longer_datagram_moves_to_a_train_of_its_own() {
    let mut outbox = Outbox::new();
    assert!(send(&mut outbox, to(1), 1500, &[1; 96]));
    assert!(send(&mut outbox, to(1), 1500, &[2; 96]));
    assert!(send(&mut outbox, to(1), 1500, &[3; 148]));
    let expected = vec![
        (to(1), vec![vec![1; 96], vec![2; 96]]),
        (to(1), vec![vec![3; 148]]),
    ];
    assert_eq!(drain(&mut outbox), expected);
}

#[test]
fn a_train_is_full_at_64_datagrams_or_65000_bytes() {
    let mut outbox = Outbox::new();
    for _ in 0..65 {
        assert!(send(&mut outbox, to(1), 1500, &[1; 100]));
        assert!(send(&mut outbox, to(2), 1500, &[1; 1477]));
    }
    // 65000 / 1477 = 44.008
    let full = |len, count| vec![len; count];
    let expected = [
        (to(1), full(100, 64)),
        (to(2), full(1477, 44)),
        (to(2), full(1477, 21)),
        (to(1), full(100, 1)),
    ];
    assert_eq!(lens(&mut outbox), expected);
}

#[test]
fn destinations_do_not_disturb_each_others_trains() {
    let mut outbox = Outbox::new();
    for _ in 0..3 {
        assert!(send(&mut outbox, to(1), 1500, &[1; 500]));
        assert!(send(&mut outbox, to(2), 1500, &[2; 700]));
    }
    assert_eq!(
        lens(&mut outbox),
        [(to(1), vec![500; 3]), (to(2), vec![700; 3])]
    );
}

#[test]
fn a_reservation_that_is_not_committed_sends_nothing() {
    let mut outbox = Outbox::new();
    assert!(outbox.reserve(to(1), 1500).is_some());
    assert!(send(&mut outbox, to(2), 1500, &[2; 10]));
    assert!(outbox.reserve(to(2), 1500).is_some());
    assert_eq!(lens(&mut outbox), [(to(2), vec![10])]);
    outbox.commit(9);
    outbox.commit(0);
    assert_eq!(lens(&mut outbox), []);
}

#[test]
fn a_pool_that_is_used_up_refuses_and_recovers() {
    let mut outbox = Outbox::new();
    for _ in 0..2 {
        let taken = (0..200)
            .filter(|&host| send(&mut outbox, to(host), 1500, &[1; 10]))
            .count();
        assert_eq!(taken, 128);
        // What surely fits needs no spare train; what may not fit does.
        assert!(send(&mut outbox, to(0), 10, &[1; 10]));
        assert!(!send(&mut outbox, to(0), 11, &[1; 10]));
        assert_eq!(drain(&mut outbox).len(), 128);
    }
    assert!(outbox.reserve(to(1), 65_001).is_none());
    assert!(send(&mut outbox, to(1), 65_000, &[1; 65_000]));
}

#[test]
#[should_panic(expected = "not longer than its reservation")]
fn a_commit_beyond_the_reservation_is_a_broken_invariant() {
    let mut outbox = Outbox::new();
    assert!(outbox.reserve(to(1), 10).is_some());
    outbox.commit(11);
}

fn len() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1452, 1452, 1452, 96, 32, 1500, 8000])
}

proptest! {
    #[test]
    fn every_destination_gets_its_datagrams_in_order(
        datagrams in prop::collection::vec((0_u8..4, len(), 0_usize..1600), 1..300),
    ) {
        let mut outbox = Outbox::new();
        let mut expected: HashMap<Way, Vec<Vec<u8>>> = HashMap::new();
        for (at, (host, len, spare)) in datagrams.into_iter().enumerate() {
            let datagram = vec![u8::try_from(at % 256).unwrap(); len];
            if send(&mut outbox, to(host), len + spare, &datagram) {
                expected.entry(to(host)).or_default().push(datagram);
            } else {
                // Only a pool that is used up refuses, so there has been much.
                prop_assert!(at > 64);
            }
        }
        let mut seen: HashMap<Way, Vec<Vec<u8>>> = HashMap::new();
        for (to, datagrams) in drain(&mut outbox) {
            seen.entry(to).or_default().extend(datagrams);
        }
        prop_assert_eq!(seen, expected);
    }
}
