//! What the edge says of itself, and what the system says of it: counters, sources, memory, time.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::world::World;

/// Clock ticks a second in `/proc` (proc(5); the same on every Linux that Rust runs on).
const TICKS: u64 = 100;

/// An edge at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counters of packets and of system calls, by name.
    pub counters: BTreeMap<String, u64>,
    /// Drops, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Processor time so far.
    pub cpu: Duration,
}

impl Snapshot {
    /// Asks the edge.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn of(world: &World) -> anyhow::Result<Self> {
        let shown = show(world, "counters")?;
        let router = &shown["router"];
        let mut counters = numbers(&router["packets"]);
        counters.extend(numbers(&router["io"]));
        Ok(Self {
            counters,
            drops: numbers(&router["drops"]),
            resident: resident(world.edge_pid)?,
            cpu: cpu(world.edge_pid)?,
        })
    }

    /// What has happened since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let less = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            let change = |(name, value): (&String, &u64)| {
                (name.clone(), value - then.get(name).unwrap_or(&0))
            };
            now.iter().map(change).collect()
        };
        Self {
            counters: less(&self.counters, &before.counters),
            drops: less(&self.drops, &before.drops),
            resident: self.resident.saturating_sub(before.resident),
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }

    /// A counter; 0 when there is none of that name.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// How many of one counter came on each of another.
    #[must_use]
    pub fn ratio(&self, of: &str, per: &str) -> f64 {
        self.counter(of) as f64 / self.counter(per).max(1) as f64
    }
}

/// The source addresses of the default vnet, in the order of the edge's workers.
///
/// # Errors
/// When the edge does not answer, or has none.
pub fn sources(world: &World) -> anyhow::Result<Vec<Ipv4Addr>> {
    let shown = show(world, "sources")?;
    let vnets = shown.as_array().context("sources are a list")?;
    let mut found = Vec::new();
    for vnet in vnets.iter().filter(|vnet| vnet["vnet_name"] == "default") {
        found.extend(address(&vnet["ipv4"]));
    }
    ensure!(
        !found.is_empty(),
        "the default vnet has no source address: {shown}"
    );
    Ok(found)
}

fn address(value: &Value) -> Option<Ipv4Addr> {
    value.as_str()?.parse().ok()
}

fn show(world: &World, what: &str) -> anyhow::Result<Value> {
    let answer = Command::new(&world.program)
        .args(["show", what, "--json", "--socket"])
        .arg(&world.admin_socket)
        .output()
        .with_context(|| format!("cannot run {}", world.program.display()))?;
    let complaint = String::from_utf8_lossy(&answer.stderr);
    ensure!(
        answer.status.success(),
        "the edge does not show its {what}: {complaint}"
    );
    Ok(serde_json::from_slice(&answer.stdout)?)
}

fn numbers(of: &Value) -> BTreeMap<String, u64> {
    let entries = of.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
        .collect()
}

fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the edge is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? << 10)
}

fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the edge is gone")?;
    let (_, fields) = stat.rsplit_once(") ").context("no stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}
