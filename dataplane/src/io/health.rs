//! From the workers' probes to the tables: the thread that tells the programmer of changed health.

use std::sync::Mutex;

use crossbeam::channel::Receiver;

use crate::node::HealthChange;
use crate::program::Programmer;
use crate::program::health::State;

/// Changes that may wait for the thread. A worker whose change does not fit keeps it, and tries
/// again.
pub(super) const CHANGES_WAITING: usize = 1024;

/// Changes that are made together: a group of several tunnels that go down at once is rewritten
/// once.
const BATCH: usize = 256;

/// Tells the programmer until all workers have ended.
pub(super) fn keep(changes: &Receiver<HealthChange>, programmer: &Mutex<Programmer>) {
    while let Ok(first) = changes.recv() {
        let mut batch = vec![first];
        batch.extend(changes.try_iter().take(BATCH - 1));
        // After a panic of whoever programs there is nothing to go on with.
        let Ok(mut programmer) = programmer.lock() else {
            return;
        };
        batch.iter().for_each(|change| log(&programmer, change));
        let states: Vec<_> = batch
            .iter()
            .map(|change| (change.tunnel, change.state))
            .collect();
        let groups = programmer.set_health(&states);
        if groups > 0 {
            tracing::info!(groups, "flows take other tunnels");
        }
    }
}

fn log(programmer: &Programmer, change: &HealthChange) {
    let Some(tunnel) = programmer.spec().tunnels.get(&change.tunnel) else {
        return;
    };
    let (id, vnet, name) = (change.tunnel, tunnel.vnet, &tunnel.name);
    let state = change.state.name();
    let reason = change.reason.map_or("", |reason| reason.text());
    match change.state {
        State::Unknown => tracing::debug!(tunnel = %id, name, %vnet, "the tunnel is probed"),
        State::Healthy => tracing::info!(tunnel = %id, name, %vnet, state, reason, "tunnel health"),
        State::Degraded | State::Down => {
            tracing::warn!(tunnel = %id, name, %vnet, state, reason, "tunnel health");
        }
    }
}
