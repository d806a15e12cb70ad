//! Loom's models of publication and reclamation: every interleaving up to a number of preemptions, with
//! every value that the orderings allow a load to see.
//!
//! What runs is the code of this module and of crossbeam-epoch, with loom's atomics. Not loom's,
//! so taken as correct: std's `OnceLock`, `Mutex` and `Arc`, and crossbeam's queue of free blocks.
//! The trie is that of IPv6 over addresses of 16 bits, four words a chunk.

use std::sync::Arc;

use ipnet::Ipv4Net;
use loom::model::Builder;
use loom::thread;

use super::atomic::{AtomicU32, Ordering};
use super::lpm::{Model, ModelWriter};
use super::publish::{Published, pin};
use super::return_table::{Owner, Writer};
use crate::id::{NodeId, VnetId, WorkerId};

/// Runs a model over all interleavings with at most this many preemptions.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(model);
}

/// A value that is written without any ordering of its own, and says when it is dropped.
struct Tracked {
    number: AtomicU32,
    is_gone: Arc<AtomicU32>,
}

impl Tracked {
    fn new(number: u32) -> Self {
        let tracked = Self {
            number: AtomicU32::new(0),
            is_gone: Arc::new(AtomicU32::new(0)),
        };
        tracked.number.store(number, Ordering::Relaxed);
        tracked
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.is_gone.store(1, Ordering::Relaxed);
    }
}

/// Makes the collector advance as far as it can.
fn collect() {
    for _ in 0..3 {
        pin().flush();
    }
}

#[test]
fn a_published_value_is_whole_and_outlives_its_readers() {
    explore(2, || {
        let place = Arc::new(Published::new(Tracked::new(1)));
        let writer = thread::spawn({
            let place = place.clone();
            move || {
                place.store(Some(Tracked::new(2)));
                collect();
            }
        });
        let guard = pin();
        let seen = place.load(&guard).expect("there is a value at any time");
        let number = seen.number.load(Ordering::Relaxed);
        assert!([1, 2].contains(&number), "a value in the making: {number}");
        let is_gone = seen.is_gone.clone();
        assert_eq!(is_gone.load(Ordering::Relaxed), 0, "freed under a guard");
        drop(guard);
        writer.join().expect("the writer ends");
    });
}

/// Two prefixes that part in a chunk: one stays, one goes.
fn parted() -> (ModelWriter, Model) {
    let mut writer = ModelWriter::new();
    writer.insert(STAYS, 1);
    writer.insert(GOES, 2);
    let table = writer.table();
    (writer, table)
}

const STAYS: (u16, u8) = (0x1100, 8);
const GOES: (u16, u8) = (0x1180, 9);

/// What a reader may see while [`GOES`] goes or comes.
fn read(table: &Model) {
    let guard = pin();
    assert_eq!(table.lookup(0x1101), Some(1));
    let answer = table.lookup(0x1181);
    assert!([Some(1), Some(2)].contains(&answer), "{answer:?}");
    drop(guard);
}

#[test]
fn look_ups_survive_a_node_that_becomes_a_chunk() {
    explore(2, || {
        let mut writer = ModelWriter::new();
        writer.insert(STAYS, 1);
        let table = writer.table();
        let reader = thread::spawn(move || read(&table));
        writer.insert(GOES, 2);
        reader.join().expect("the reader ends");
    });
}

#[test]
fn look_ups_survive_a_chunk_that_is_folded_and_used_again() {
    explore(1, || {
        let (mut writer, table) = parted();
        let reader = thread::spawn(move || read(&table));
        // The chunk is folded into a node, and both places are used again for something else.
        writer.remove(GOES, Some((8, 1)));
        collect();
        writer.insert((0x2200, 8), 3);
        writer.insert((0x2280, 12), 4);
        reader.join().expect("the reader ends");
    });
}

#[test]
fn a_24_that_splits_says_the_old_or_the_new_owner() {
    explore(2, || {
        let owner = |vnet| Owner {
            vnet: VnetId(vnet),
            node: NodeId(1),
            worker: WorkerId(0),
        };
        let net = |text: &str| text.parse::<Ipv4Net>().expect("a prefix");
        let mut writer = Writer::new();
        writer
            .set(net("100.64.1.0/24"), owner(1))
            .expect("inside of the range");
        let table = writer.table().clone();
        let reader = thread::spawn(move || {
            let vnet = |host| {
                let address = std::net::Ipv4Addr::new(100, 64, 1, host);
                table.lookup(address).map(|owner| owner.vnet.0)
            };
            assert_eq!(vnet(1), Some(1), "its neighbour's change is not its own");
            let answer = vnet(2);
            assert!([Some(1), Some(2)].contains(&answer), "{answer:?}");
        });
        writer
            .set(net("100.64.1.2/32"), owner(2))
            .expect("inside of the range");
        reader.join().expect("the reader ends");
    });
}
