//! What `portcullis-load` measures in peace: sweeps over sizes and peers, and the long run.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::drive::Offer;
use super::edge::Snapshot;
use super::pair::{Pair, Trial, Way};
use super::search::{self, Direction, SIZES, WINDOW};
use super::table::{Cell, Table};
use super::world::World;

/// Which sizes, how many peers, how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Sweep {
    /// Numbers of WireGuard peers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256])]
    pub peers: Vec<usize>,
    /// Bytes of inner packets.
    #[arg(long, value_delimiter = ',', default_values_t = SIZES)]
    pub sizes: Vec<usize>,
    /// Packets of one peer in a row: 32 as a bulk sender's kernel gives them, 1 for single packets.
    #[arg(long, value_delimiter = ',', default_values_t = [32])]
    pub bursts: Vec<u64>,
    /// Milliseconds of a trial.
    #[arg(long, default_value_t = 500)]
    pub millis: u64,
}

/// A load with its world.
#[derive(Debug)]
pub struct Load {
    /// Both ends.
    pub pair: Pair,
    /// Where they are.
    pub world: World,
    /// Where results go.
    pub table: Table,
}

/// Packets of a soak's flow in a row, and bytes of one.
const SOAK: (u64, usize) = (32, 64);
/// The longest soak: 10^8 packets take minutes.
const SOAK_TIME_MAX: Duration = Duration::from_secs(3600);

/// Median, 99th and 99.9th percentile.
fn latency(way: Option<&Way>) -> [Cell; 3] {
    let micros = |n| way.map_or(0, |way| way.meter.latency.per_mille(n).as_micros());
    let cell = |n| json!(u64::try_from(micros(n)).unwrap_or(u64::MAX));
    [
        ("p50 us", cell(500)),
        ("p99 us", cell(990)),
        ("p99.9 us", cell(999)),
    ]
}

impl Load {
    /// Fails unless the world has so many peers, and one more for an attacker.
    ///
    /// # Errors
    /// When it has not.
    pub fn need(&self, peers: usize) -> anyhow::Result<()> {
        let there = self.world.peer_keys.len();
        ensure!(
            (1..there).contains(&peers),
            "--peers is from 1 to {}",
            there - 1
        );
        Ok(())
    }

    fn each(
        &mut self,
        sweep: &Sweep,
        mut one: impl FnMut(&mut Self, Direction, &Trial) -> anyhow::Result<Vec<Cell>>,
    ) -> anyhow::Result<()> {
        for &flows in &sweep.peers {
            self.need(flows)?;
            let sizes = sweep.sizes.iter();
            for (&size, &burst) in sizes.flat_map(|s| sweep.bursts.iter().map(move |b| (s, b))) {
                let trial = Trial {
                    flows,
                    size,
                    burst,
                    duration: Duration::from_millis(sweep.millis),
                    packets_max: u64::MAX,
                    down: Offer::Silence,
                    up: Offer::Silence,
                };
                for direction in Direction::ALL {
                    let mut cells = vec![
                        ("direction", json!(direction.name())),
                        ("peers", json!(flows)),
                        ("size", json!(size)),
                        ("burst", json!(burst)),
                    ];
                    cells.extend(one(self, direction, &trial)?);
                    self.table.row(&cells);
                }
            }
        }
        Ok(())
    }

    /// Sends as fast as comes through.
    ///
    /// # Errors
    /// Those of trials.
    pub fn bulk(&mut self, sweep: &Sweep) -> anyhow::Result<()> {
        self.each(sweep, |load, direction, trial| {
            let before = Snapshot::of(&load.world)?;
            let window = Offer::Window(WINDOW.max(trial.burst * 4));
            let way = search::run(&mut load.pair, direction, window, trial)?;
            let edge = Snapshot::of(&load.world)?.since(&before);
            let cost = edge.cpu.as_nanos() / u128::from(way.meter.received().max(1));
            let mut cells = vec![
                ("packets/s", json!(way.rate())),
                ("Gb/s", json!(way.gigabits())),
                ("lost", json!(way.lost())),
                ("reordered", json!(way.meter.reordered())),
                ("duplicates", json!(way.meter.duplicates())),
            ];
            cells.extend(latency(Some(&way)));
            let (sends, recvs) = ("udp_sends", "udp_recvs");
            cells.push((
                "packets/send",
                json!(edge.ratio("udp_send_datagrams", sends)),
            ));
            cells.push((
                "packets/recv",
                json!(edge.ratio("udp_recv_datagrams", recvs)),
            ));
            cells.push(("edge ns/packet", json!(u64::try_from(cost)?)));
            Ok(cells)
        })
    }

    /// Searches zero-loss rates.
    ///
    /// # Errors
    /// Those of trials.
    pub fn search(&mut self, sweep: &Sweep) -> anyhow::Result<()> {
        self.each(sweep, |load, direction, trial| {
            let found = search::search(&mut load.pair, direction, trial)?;
            let gigabits = found.best.as_ref().map_or(0.0, Way::gigabits);
            let mut cells = vec![
                ("packets/s without loss", json!(found.zero_loss)),
                ("Gb/s", json!(gigabits)),
                ("capacity packets/s", json!(found.capacity)),
            ];
            cells.extend(latency(found.best.as_ref()));
            Ok(cells)
        })
    }

    /// Sends very many small packets both ways at once.
    ///
    /// # Errors
    /// When a packet came after a later one of its tunnel, or twice; and those of trials.
    pub fn soak(&mut self, packets: u64, peers: usize) -> anyhow::Result<()> {
        self.need(peers)?;
        let window = Offer::Window(WINDOW);
        let run = self.pair.run(&Trial {
            flows: peers,
            size: SOAK.1,
            burst: SOAK.0,
            duration: SOAK_TIME_MAX,
            packets_max: packets / 2,
            down: window,
            up: window,
        })?;
        let mut wrong = 0;
        for (direction, way) in [(Direction::Down, &run.down), (Direction::Up, &run.up)] {
            let meter = &way.meter;
            wrong += meter.reordered() + meter.duplicates();
            self.table.row(&[
                ("direction", json!(direction.name())),
                ("peers", json!(peers)),
                ("sent", json!(way.sent)),
                ("received", json!(meter.received())),
                ("lost", json!(way.lost())),
                ("reordered", json!(meter.reordered())),
                ("duplicates", json!(meter.duplicates())),
                ("packets/s", json!(way.rate())),
            ]);
        }
        ensure!(wrong == 0, "{wrong} packets out of order or twice");
        Ok(())
    }
}
