//! Longest-prefix match against a linear scan, alone and under readers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::fib::pin;
use crate::fib::under_readers::assert_explained;

/// A prefix comes, or changes its value, or goes.
type Update = (IpNet, bool);
/// The naive table.
type Model = BTreeMap<IpNet, TunnelId>;

/// Octets that make neighbours, nested prefixes and long common beginnings.
const OCTETS: [u8; 6] = [0, 1, 10, 127, 128, 255];

fn prefix_v4() -> impl Strategy<Value = IpNet> {
    (vec(select(&OCTETS[..]), 4), 0_u8..=32).prop_map(|(octets, len)| {
        let octets: [u8; 4] = octets.try_into().unwrap();
        IpNet::new(Ipv4Addr::from(octets).into(), len)
            .unwrap()
            .trunc()
    })
}

fn prefix_v6() -> impl Strategy<Value = IpNet> {
    (vec(select(&OCTETS[..2]), 16), 0_u8..=128).prop_map(|(octets, len)| {
        let octets: [u8; 16] = octets.try_into().unwrap();
        IpNet::new(Ipv6Addr::from(octets).into(), len)
            .unwrap()
            .trunc()
    })
}

/// Updates of a few prefixes again and again; many enough for a trie, few enough for a line at
/// times.
fn updates(
    prefix: impl Strategy<Value = IpNet>,
    count: usize,
) -> impl Strategy<Value = Vec<Update>> {
    vec(prefix, 4..40)
        .prop_flat_map(move |prefixes| vec((select(prefixes), prop::bool::weighted(0.6)), count))
}

/// First and last address of each prefix, and their neighbours outside.
fn probes(updates: &[Update]) -> Vec<IpAddr> {
    let mut probes: Vec<_> = updates
        .iter()
        .flat_map(|(prefix, _)| match prefix {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|bits| IpAddr::V4(bits.into()))
            }
            IpNet::V6(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|bits| IpAddr::V6(bits.into()))
            }
        })
        .collect();
    probes.sort();
    probes.dedup();
    probes
}

fn scan(model: &Model, address: IpAddr) -> Option<TunnelId> {
    model
        .iter()
        .filter(|(prefix, _)| prefix.contains(&address))
        .max_by_key(|(prefix, _)| prefix.prefix_len())
        .map(|(_, value)| *value)
}

/// Makes update number `index`; its number is the value, so that no two look alike.
fn update_model(model: &mut Model, index: usize, (prefix, is_put): Update) -> Option<TunnelId> {
    if is_put {
        model.insert(prefix, TunnelId(index.try_into().unwrap()))
    } else {
        model.remove(&prefix)
    }
}

fn update(writer: &mut Writer<TunnelId>, index: usize, (prefix, is_put): Update) {
    if is_put {
        let value = TunnelId(index.try_into().unwrap());
        writer.insert(prefix, value).unwrap();
    } else {
        writer.remove(prefix);
    }
}

fn assert_equals_a_scan(updates: &[Update]) {
    let (mut writer, mut model) = (Writer::new(), Model::new());
    let probes = probes(updates);
    for (index, step) in updates.iter().enumerate() {
        update(&mut writer, index, *step);
        update_model(&mut model, index, *step);
        let guard = pin();
        for probe in &probes {
            let answer = writer.table().lookup(*probe, &guard);
            assert_eq!(
                answer,
                scan(&model, *probe),
                "{probe} after {index}: {step:?}"
            );
        }
        assert!(
            writer
                .iter()
                .eq(model.iter().map(|(prefix, value)| (*prefix, *value)))
        );
    }
}

fn assert_explained_under_readers(updates: &[Update]) {
    let (mut writer, mut model) = (Writer::new(), Model::new());
    let probes = probes(updates);
    let answers = |model: &Model| probes.iter().map(|probe| scan(model, *probe)).collect();
    let mut states: Vec<Vec<_>> = vec![answers(&model)];
    for (index, step) in updates.iter().enumerate() {
        update_model(&mut model, index, *step);
        states.push(answers(&model));
    }
    let table = writer.table().clone();
    assert_explained(
        &states,
        |index| update(&mut writer, index, updates[index]),
        |probe| table.lookup(probes[probe], &pin()),
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ipv4_look_ups_equal_a_linear_scan(updates in updates(prefix_v4(), 200)) {
        assert_equals_a_scan(&updates);
    }

    #[test]
    fn ipv6_look_ups_equal_a_linear_scan(updates in updates(prefix_v6(), 200)) {
        assert_equals_a_scan(&updates);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn ipv4_readers_see_only_what_an_update_explains(updates in updates(prefix_v4(), 1000)) {
        assert_explained_under_readers(&updates);
    }

    #[test]
    fn ipv6_readers_see_only_what_an_update_explains(updates in updates(prefix_v6(), 1000)) {
        assert_explained_under_readers(&updates);
    }
}

fn host(number: u32) -> IpNet {
    // Spread over the high bits, so that hosts share hardly a chunk.
    let bits = u128::from(number.reverse_bits()) << 96 | 1;
    IpNet::from(IpAddr::V6(bits.into()))
}

#[test]
fn a_full_table_refuses_and_stays_as_it_was() {
    let mut writer = Writer::new();
    let count = (0..CHUNKS_MAX)
        .find(|n| writer.insert(host(*n), TunnelId(*n)).is_err())
        .expect("every host takes a chunk of its own");
    assert_eq!(writer.insert(host(count), TunnelId(0)), Err(Full));
    let guard = pin();
    for n in 0..=count {
        let answer = writer.table().lookup(host(n).addr(), &guard);
        assert_eq!(answer, (n < count).then_some(TunnelId(n)));
    }
}

#[test]
fn chunks_are_used_again() {
    let mut writer = Writer::new();
    for n in 0..64 {
        writer.insert(host(n), TunnelId(n)).unwrap();
    }
    // Each round takes about a dozen chunks: without reuse the table is full after 5000.
    for n in 0..20_000 {
        let again = host(64 + n % 512);
        let mut tries = 0;
        while writer.insert(again, TunnelId(n)) == Err(Full) {
            tries += 1;
            assert!(tries < 10_000_000, "round {n}: nothing is ever freed");
            std::thread::yield_now();
        }
        assert_eq!(
            writer.table().lookup(again.addr(), &pin()),
            Some(TunnelId(n))
        );
        assert_eq!(writer.remove(again), Some(TunnelId(n)));
        assert_eq!(writer.table().lookup(again.addr(), &pin()), None);
    }
}

#[test]
fn next_hops_survive_their_words() {
    for nexthop in [
        Nexthop::Local,
        Nexthop::Tunnel(TunnelId(0)),
        Nexthop::Tunnel(TUNNEL_MAX),
    ] {
        assert_eq!(Nexthop::from_word(nexthop.to_word()), nexthop);
    }
}
