//! Attacks on an edge while other tunnels carry traffic: what they keep, what is counted.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use dataplane::io::udp::Socket;
use serde_json::json;

use super::attack::{Ammunition, Attacker, Kind};
use super::cases::Load;
use super::drive::{Burst, Offer};
use super::edge::Snapshot;
use super::pair::{Hand, Run, Trial};
use super::peers::Peers;
use super::search::WINDOW;
use super::world::{EDGE, EVIL_NS, SINK};

/// How long and hard an attack is.
#[derive(Clone, Debug, clap::Args)]
pub struct Siege {
    /// Datagrams a second; 0 for as many as can be.
    #[arg(long, default_value_t = 100_000)]
    pub rate: u64,
    /// Milliseconds of each part of a round: in peace, under the same flood to a port that throws
    /// it away, and under attack.
    #[arg(long, default_value_t = 1000)]
    pub millis: u64,
    /// Rounds; the middle one counts.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Tunnels that carry traffic meanwhile.
    #[arg(long, default_value_t = 16)]
    pub peers: usize,
    /// The least share, in percent, that those must keep of what they carry while the same flood
    /// goes to the other port: on a machine that the attacker shares, that is what the attack itself
    /// takes. 0 does not compare.
    #[arg(long, default_value_t = 1)]
    pub share: u64,
}

/// The most packets that an attacker from inside seals beforehand.
const SEALED_MAX: u64 = 200_000;
/// The most memory that an attack may cost the edge for good, in bytes.
const GROWTH_MAX: u64 = 16 << 20;

/// What one round of an attack showed.
struct Round {
    /// Packets a second of the other tunnels, both ways: in peace, with the sink, under attack.
    rates: [u64; 3],
    /// Datagrams that the attacker sent.
    sent: u64,
    /// Those that the edge counted under the kind's reasons.
    counted: u64,
    /// Those of an attacker from inside that came through: once, late, again.
    arrived: [u64; 3],
    /// Bytes.
    growth: u64,
}

impl Round {
    /// Percent.
    fn share(&self) -> u64 {
        self.rates[2] * 100 / self.rates[1].max(1)
    }
}

/// Packets a second both ways.
fn total(run: &Run) -> u64 {
    run.down.rate() + run.up.rate()
}

impl Load {
    /// Attacks, kind by kind.
    ///
    /// # Errors
    /// When the others' share or the edge's memory is not as asked; and those of trials.
    pub fn attacks(&mut self, kinds: &[Kind], siege: &Siege) -> anyhow::Result<()> {
        self.need(siege.peers)?;
        let attacker = Hand::start(EVIL_NS, Attacker::new)?;
        // With the same buffers and offloads as the edge's socket, and never read.
        let bind = |_: &mut super::Overlay| Socket::bind(SocketAddr::V4(SINK));
        let _sink = self.pair.overlay.call(bind)??;
        let mut failed = Vec::new();
        for &kind in kinds {
            let mut rounds = Vec::new();
            for _ in 0..siege.rounds.max(1) {
                rounds.push(self.round(kind, siege, &attacker)?);
            }
            failed.extend(self.judge(kind, siege, rounds));
        }
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
    }

    fn round(
        &mut self,
        kind: Kind,
        siege: &Siege,
        attacker: &Hand<Attacker>,
    ) -> anyhow::Result<Round> {
        // Only who asks for a share needs something to compare with.
        let (mut peace, mut sink) = (0, 0);
        if siege.share > 0 {
            peace = total(&self.pair.run(&trial(siege))?);
            let flood = (kind, attacker, SocketAddr::V4(SINK));
            sink = total(&self.besieged(siege, flood)?.0);
        }
        let before = Snapshot::of(&self.world)?;
        let flood = (kind, attacker, SocketAddr::V4(EDGE));
        let (attack, sent) = self.besieged(siege, flood)?;
        let edge = Snapshot::of(&self.world)?.since(&before);
        let counted = kind.reasons().iter().map(|name| edge.drops.get(*name));
        Ok(Round {
            rates: [peace, sink, total(&attack)],
            sent,
            counted: counted.flatten().sum(),
            arrived: attack.up.meter.outsider(),
            growth: edge.resident,
        })
    }

    /// One trial both ways with an attacker. Returns also what that one sent.
    fn besieged(
        &mut self,
        siege: &Siege,
        (kind, attacker, to): (Kind, &Hand<Attacker>, SocketAddr),
    ) -> anyhow::Result<(Run, u64)> {
        let asked = siege.rate * siege.millis / 1000;
        let burst = Burst {
            trial: self.pair.trial() + 1,
            flow: siege.peers,
            first: 0,
            count: if asked == 0 {
                SEALED_MAX
            } else {
                asked.min(SEALED_MAX)
            },
            size: 0,
            now: 0,
        };
        let world = self.world.clone();
        let make = move |peers: &mut Peers| Ammunition::new(kind, &world, peers, &burst);
        let ammunition = self.pair.peers.call(make)??;
        let (rate, duration) = (siege.rate, Duration::from_millis(siege.millis));
        let running = self.pair.start_trial(&trial(siege))?;
        let firing = attacker.begin(move |evil| evil.fire(&ammunition, to, rate, duration))?;
        let run = running.finish()?;
        Ok((run, firing.recv()??))
    }

    /// Shows the middle round of an attack; what was wrong with it, if anything.
    fn judge(&mut self, kind: Kind, siege: &Siege, mut rounds: Vec<Round>) -> Vec<String> {
        rounds.sort_by_key(Round::share);
        let compared = rounds.iter().filter(|_| siege.share > 0);
        let shares: Vec<u64> = compared.map(Round::share).collect();
        let growth = rounds.iter().map(|round| round.growth).max().unwrap_or(0);
        let round = &rounds[rounds.len() / 2];
        let [received, late, again] = round.arrived;
        self.table.row(&[
            ("attack", json!(kind.name())),
            ("sent", json!(round.sent)),
            ("counted", json!(round.counted)),
            ("arrived", json!(received)),
            ("others packets/s", json!(round.rates[0])),
            ("with sink", json!(round.rates[1])),
            ("attacked", json!(round.rates[2])),
            ("shares %", json!(shares)),
            ("grown KiB", json!(growth >> 10)),
        ]);
        let name = kind.name();
        let mut wrong = Vec::new();
        if round.share() < siege.share {
            wrong.push(format!("{name}: the others keep {} %", round.share()));
        }
        if growth > GROWTH_MAX {
            wrong.push(format!("{name}: the edge grew by {growth} bytes"));
        }
        if round.counted == 0 && !kind.reasons().is_empty() {
            wrong.push(format!("{name}: nothing was counted"));
        }
        if again > 0 || (kind == Kind::Reordered && late == 0) {
            wrong.push(format!(
                "{name}: {received} arrived, {late} late, {again} again"
            ));
        }
        wrong
    }
}

/// The others' traffic: both ways, as fast as comes through.
fn trial(siege: &Siege) -> Trial {
    Trial {
        flows: siege.peers,
        size: 1024,
        burst: 32,
        duration: Duration::from_millis(siege.millis),
        packets_max: u64::MAX,
        down: Offer::Window(WINDOW),
        up: Offer::Window(WINDOW),
    }
}
