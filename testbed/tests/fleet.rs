//! Two hundred tunnels with loss, deaths, restarts and moves: no packet ever reaches a wrong vnet.

use std::time::Instant;

use testbed::sim::fleet::{Fleet, MEANT, Settings};

/// Half a minute of the fleet's clock, in which everything happens.
const ROUNDS: u32 = 600;
/// Twelve seconds of calm: answers in a row, and a time without failure.
const CALM: u32 = 240;

#[expect(
    clippy::disallowed_methods,
    reason = "boringtun reads this clock, so the fleet starts there"
)]
fn fleet(seed: u64) -> Fleet {
    let settings = Settings {
        seed,
        tunnels: 200,
        vnets: 40,
        loss_per_mille: 30,
        packets: 25,
    };
    Fleet::new(settings, Instant::now())
}

fn run(seed: u64) {
    let mut fleet = fleet(seed);
    fleet.run(ROUNDS);
    fleet.rest(CALM);
    let misled = fleet.misled();
    let unhealthy = fleet.unhealthy();
    let report = fleet.report();
    assert!(report.leaks.is_empty(), "seed {seed}: {:?}", report.leaks);
    // Enough must have happened, or the run proves nothing.
    assert!(report.at_sites > 2_000, "seed {seed}: {report:?}");
    assert!(report.between_sites > 200, "seed {seed}: {report:?}");
    assert!(report.at_edge > 2_000, "seed {seed}: {report:?}");
    assert!(report.downs > 10, "seed {seed}: {report:?}");
    assert!(report.failovers > 20, "seed {seed}: {report:?}");
    assert!(report.upheavals > 10, "seed {seed}: {report:?}");
    for reason in MEANT {
        let count = report.drops.drops[reason.name()];
        assert!(count > 20, "seed {seed}: {reason:?} {count}");
    }
    assert!(unhealthy.is_empty(), "seed {seed}: {unhealthy:?}");
    assert!(misled.is_empty(), "seed {seed}: {misled:?}");
}

#[test]
fn no_packet_of_two_hundred_tunnels_comes_out_in_another_vnet() {
    run(1);
}

#[test]
fn nor_with_another_seed() {
    run(0x5eed);
}
