//! Look-ups: longest-prefix match against three crates, with and without a writer, the return table,
//! and the source address of a vnet.
//!
//! One operation is one look-up. Keys are spread evenly over all prefixes, none depends on another's
//! answer, and there are a million of them, so that no table is small because the keys are few.
//! Before anything is timed, every subject must give the same answer to every key.

#![expect(
    clippy::print_stderr,
    reason = "a benchmark says what criterion has no column for"
)]

mod subjects;
mod tables;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use dataplane::fib::{lpm, pin};
use dataplane::id::TunnelId;
use dataplane::io::clock;
use ipnet::IpNet;

use subjects::{Address, Ours, Peers, Random, Subject, keys, prefixes};

/// Look-ups under one guard: a batch of packets.
const BATCH: usize = 64;
/// Keys that one measured iteration looks up, of all that there are.
const TURN: usize = 1 << 14;
/// Updates of the concurrent writer in a millisecond: 100,000 a second.
const UPDATES_PER_MS: u32 = 100;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    family::<std::net::Ipv4Addr>(&mut criterion, "v4");
    family::<std::net::Ipv6Addr>(&mut criterion, "v6");
    tables::returns(&mut criterion);
    tables::sources(&mut criterion);
    criterion.final_summary();
}

fn family<A: Address>(criterion: &mut Criterion, name: &str) {
    for (count, size) in [(1000, "1k"), (100_000, "100k"), (1_000_000, "1M")] {
        let prefixes = prefixes::<A>(count);
        let keys = keys(&prefixes);
        let mut ours = Ours::build(&prefixes);
        let mib = ours.writer.trie_bytes() as f64 / f64::from(1 << 20);
        eprintln!("lpm/{name} {size}: {mib:.1} MiB of tries");
        let mut group = criterion.benchmark_group(format!("lpm/{name}"));
        group.throughput(Throughput::Elements(TURN as u64));
        // Peers one after the other, so that only two tables are in memory at a time.
        A::with_peers(
            &prefixes,
            &mut Measured {
                group: &mut group,
                size,
                keys: &keys,
                ours: &ours,
            },
        );
        measure(&mut group, size, &keys, &ours);
        group.finish();
        let mut group =
            criterion.benchmark_group(format!("lpm/{name} under 100k updates a second"));
        group.throughput(Throughput::Elements(TURN as u64));
        with_writer(&mut ours, &prefixes, |table| {
            measure(&mut group, size, &keys, table)
        });
        group.finish();
        if count == 1_000_000 {
            tables::routes(criterion, name, &prefixes, &keys);
        }
    }
}

/// Times a subject over all keys in turn.
fn measure<A: Address, S: Subject<A>>(group: &mut Group<'_>, size: &str, keys: &[A], subject: &S) {
    let mut turns = keys.chunks_exact(TURN).cycle();
    group.bench_function(BenchmarkId::new(S::NAME, size), |b| {
        b.iter(|| {
            let turn = turns.next().expect("a cycle has no end");
            let mut sum = 0_u32;
            for batch in turn.chunks(BATCH) {
                let guard = pin();
                for key in batch {
                    sum = sum.wrapping_add(subject.find(*key, &guard));
                }
            }
            black_box(sum)
        });
    });
}

/// Checks a peer against ours, then times it.
struct Measured<'a, 'c, A: Address> {
    group: &'a mut Group<'c>,
    size: &'a str,
    keys: &'a [A],
    ours: &'a Ours<A>,
}

impl<A: Address> Peers<A> for Measured<'_, '_, A> {
    fn peer<S: Subject<A>>(&mut self, peer: &S) {
        let guard = pin();
        for key in self.keys {
            let (ours, theirs) = (self.ours.find(*key, &guard), peer.find(*key, &guard));
            assert_eq!(ours, theirs, "{key:?}: {} disagrees", S::NAME);
        }
        measure(self.group, self.size, self.keys, peer);
    }
}

/// Runs `read` while another thread takes prefixes out and puts them back.
fn with_writer<A: Address>(ours: &mut Ours<A>, prefixes: &[(A, u8)], read: impl FnOnce(&Ours<A>)) {
    let (is_over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let table = ours.writer.table().clone();
    let reader = Ours {
        writer: lpm::Writer::new(),
        table,
        family: ours.family,
    };
    let start = clock::now();
    thread::scope(|scope| {
        let writer = &mut ours.writer;
        scope.spawn(|| {
            let mut random = Random::new(7);
            let mut due = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                for _ in 0..UPDATES_PER_MS / 2 {
                    let (address, len) = prefixes[random.below(prefixes.len())];
                    let prefix = IpNet::new(address.into(), len).expect("a length that it had");
                    if let Some(value) = writer.remove(prefix) {
                        let back = TunnelId(value.0 ^ 1);
                        writer.insert(prefix, back).expect("the room that it had");
                    }
                }
                done.fetch_add(u64::from(UPDATES_PER_MS), Ordering::Relaxed);
                due += Duration::from_millis(1);
                // A writer that was kept waiting catches up.
                while let Some(wait) = due.checked_sub(clock::now() - start)
                    && !is_over.load(Ordering::Relaxed)
                {
                    thread::park_timeout(wait);
                }
            }
        });
        read(&reader);
        is_over.store(true, Ordering::Relaxed);
    });
    let rate = done.load(Ordering::Relaxed) as f64 / (clock::now() - start).as_secs_f64();
    eprintln!("    the writer made {rate:.0} updates a second");
}

/// Shares a table that was built.
fn shared<V: lpm::Value>(writer: &lpm::Writer<V>) -> Arc<lpm::Table<V>> {
    writer.table().clone()
}
