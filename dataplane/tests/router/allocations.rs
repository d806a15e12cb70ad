//! Counts what this program asks of the heap, and shows that packets ask nothing of it.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::namespaces::{packets, pair};
use crate::role;
use crate::world::{ORIGIN, SOURCE, World};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Heap operations of this process so far, of all its threads.
pub(crate) fn operations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.deallocations + stats.reallocations
}

/// What asking and answering costs, and a handshake that falls into the time. A packet's share is
/// less than a hundredth.
pub(crate) const OPERATIONS_MAX: u64 = 50;

#[test]
fn a_bulk_transfer_asks_nothing_of_the_heap() {
    let world = World::new(1500);
    for backend in ["offload", "plain"] {
        let (mut edge, mut site) = pair(&world, backend);
        let mut origin = world.start("site", "origin", &[]);
        origin.line("ready");
        let transfer = || {
            let ends = [("PC_FROM", SOURCE), ("PC_TO", ORIGIN)];
            let mut client = world.start("edge", "client", &ends);
            assert_eq!(client.line("done"), role::BULK.to_string());
        };
        transfer();
        let sent_before = packets(&edge.ask("counters"), "encap_packets");
        let mut heap = || [&mut edge, &mut site].map(|end| end.ask("heap").parse::<u64>().unwrap());
        let before = heap();
        transfer();
        let after = heap();
        let sent = packets(&edge.ask("counters"), "encap_packets") - sent_before;
        assert!(sent > 5_000, "{sent} packets say little");
        for (before, after) in before.into_iter().zip(after) {
            let operations = after - before;
            assert!(
                operations < OPERATIONS_MAX,
                "{operations} heap operations for {sent} packets"
            );
        }
        edge.stop();
        site.stop();
    }
}
