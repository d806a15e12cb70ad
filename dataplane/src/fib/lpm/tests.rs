//! Longest-prefix match against a linear scan, alone and under readers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use super::key::Key;
use super::writer::TrieWriter;
use super::*;
use crate::fib::atomic::Ordering;
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

/// Hosts that share hardly a chunk: the number is spread over the high bits.
fn host(number: u32) -> IpNet {
    IpNet::from(IpAddr::V4((number.reverse_bits() | 1).into()))
}

#[test]
fn a_full_table_refuses_and_stays_as_it_was() {
    let mut writer = Writer::new();
    let count = (0..1 << 20)
        .find(|n| writer.insert(host(*n), TunnelId(*n)).is_err())
        .expect("every host takes a chunk of its own");
    assert_eq!(writer.insert(host(count), TunnelId(0)), Err(Full));
    let root = 4 << 16;
    assert!((TABLE_BYTES_MAX * 99 / 100..=TABLE_BYTES_MAX + root).contains(&writer.trie_bytes()));
    let guard = pin();
    for n in 0..=count {
        let answer = writer.table().lookup(host(n).addr(), &guard);
        assert_eq!(answer, (n < count).then_some(TunnelId(n)));
    }
    // Where a prefix is, only its value changes: that takes no room.
    assert_eq!(writer.insert(host(0), TunnelId(7)), Ok(()));
}

#[test]
fn chunks_and_nodes_are_used_again() {
    for is_v6 in [false, true] {
        let address = |n: u32| match (is_v6, host(n).addr()) {
            (true, IpAddr::V4(high)) => IpAddr::V6((u128::from(high.to_bits()) << 96 | 1).into()),
            (_, address) => address,
        };
        let mut writer = Writer::new();
        for n in 0..64 {
            writer.insert(address(n).into(), TunnelId(n)).unwrap();
        }
        // Without reuse the table would be full, or at least grow.
        for n in 0..50_000 {
            let again = address(64 + n % 512);
            let mut tries = 0;
            while writer.insert(again.into(), TunnelId(n)) == Err(Full) {
                tries += 1;
                assert!(tries < 10_000_000, "round {n}: nothing is ever freed");
                std::thread::yield_now();
            }
            let answer = writer.table().lookup(again, &pin());
            assert_eq!(answer, Some(TunnelId(n)));
            assert_eq!(writer.remove(again.into()), Some(TunnelId(n)));
            assert_eq!(writer.table().lookup(again, &pin()), None);
        }
    }
}

#[test]
fn every_address_of_a_small_family_has_its_answer_at_any_time() {
    // 16 bits, strides of 2, skip nodes: every shape that IPv6 can have, and every address tried.
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    let step = (
        any::<u16>(),
        select(vec![0_u8, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 15, 16]),
    );
    let steps = vec(step, 4..60)
        .prop_flat_map(|prefixes| vec((select(prefixes), prop::bool::weighted(0.55)), 150));
    runner
        .run(&steps, |steps| {
            for root in u16::ROOT {
                let mut model = BTreeMap::new();
                let mut writer = TrieWriter::<u16>::new(root).unwrap();
                for (value, ((bits, len), is_put)) in (1..).zip(&steps) {
                    let key = bits.truncated(*len);
                    let covering = |len: u8| {
                        let shorter = |l: &u8| model.contains_key(&(key.truncated(*l), *l));
                        let len = (0..len).rev().find(shorter)?;
                        Some((len, model[&(key.truncated(len), len)]))
                    };
                    if *is_put {
                        writer.insert(key, *len, value).unwrap();
                        model.insert((key, *len), value);
                    } else if model.contains_key(&(key, *len)) {
                        writer.remove(key, *len, covering(*len));
                        model.remove(&(key, *len));
                    }
                    if value % 4 != 0 {
                        continue;
                    }
                    let answers = model_answers(&model);
                    for address in 0..=u16::MAX {
                        let expected = answers[usize::from(address)];
                        prop_assert_eq!(writer.trie().lookup(address), expected, "{}", address);
                    }
                }
                // What is empty again has given everything back.
                for (key, len) in model.keys().rev() {
                    let covering = (0..*len).rev().find_map(|l| {
                        let value = model.get(&(key.truncated(l), l))?;
                        Some((l, *value))
                    });
                    writer.remove(*key, *len, covering);
                }
                let root = &writer.trie().root;
                prop_assert!(root.iter().all(|word| word.load(Ordering::Relaxed) == 0));
            }
            Ok(())
        })
        .unwrap();
}

/// The answer of every address: shorter prefixes first, longer ones over them.
fn model_answers(model: &BTreeMap<(u16, u8), u32>) -> Vec<Option<u32>> {
    let mut answers = vec![None; 1 << 16];
    let mut rows: Vec<_> = model.iter().collect();
    rows.sort_by_key(|((_, len), _)| *len);
    for ((key, len), value) in rows {
        let first = usize::from(*key);
        answers[first..first + (1 << (16 - len))].fill(Some(*value));
    }
    answers
}

/// A generator of numbers that look random and are the same in every run (SplitMix64).
fn scattered(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[test]
fn sparse_ipv6_prefixes_take_memory_by_their_number() {
    let mut writer = Writer::new();
    let prefix = |n: u64| {
        let bits = u128::from(scattered(n) >> 3 | 1 << 61) << 64;
        IpNet::new(IpAddr::V6(bits.into()), 48).unwrap().trunc()
    };
    for n in 0..100_000 {
        let value = TunnelId(u32::try_from(n).unwrap());
        writer.insert(prefix(n), value).unwrap();
    }
    // A skip node of 32 bytes each, and chunks of 64 for what lies close together. A chunk of 1 KiB
    // per byte would take 300 MiB, the least that strides of 8 bits can.
    assert!(writer.trie_bytes() < 8 << 20, "{}", writer.trie_bytes());
    let guard = pin();
    for n in (0..100_000).step_by(97) {
        let expected = TunnelId(u32::try_from(n).unwrap());
        assert_eq!(
            writer.table().lookup(prefix(n).addr(), &guard),
            Some(expected)
        );
    }
    (0..100_000).for_each(|n| assert!(writer.remove(prefix(n)).is_some()));
    assert_eq!(writer.trie_bytes(), 0);
}

#[test]
fn a_table_that_grows_wide_and_narrow_again_keeps_its_answers() {
    let mut writer = Writer::new();
    let prefix = |n: u32| IpNet::new(IpAddr::V4((n << 16 | n >> 4 << 8).into()), 24).unwrap();
    let count = u32::try_from(WIDE_MIN).unwrap() + 1;
    let assert_answers = |writer: &Writer<TunnelId>, held: std::ops::Range<u32>| {
        let guard = pin();
        for n in 0..count {
            let expected = held.contains(&n).then_some(TunnelId(n));
            assert_eq!(writer.table().lookup(prefix(n).addr(), &guard), expected);
        }
    };
    for n in 0..count {
        writer.insert(prefix(n), TunnelId(n)).unwrap();
        if [count - 3, count - 2, count - 1].contains(&n) {
            assert_answers(&writer, 0..n + 1);
        }
    }
    for n in 0..count {
        writer.remove(prefix(n));
        if n % 512 == 1 {
            assert_answers(&writer, n + 1..count);
        }
    }
    assert!(writer.is_empty());
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
