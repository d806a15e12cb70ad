//! Layer 4: TCP and UDP relays for Spectrum apps.
//!
//! In: the list of apps. Out: listening sockets, and flows that are relayed to origins through
//! `handoff`. State: the listeners, owned by the task of [`serve`]; each listener's flows, owned by
//! their tasks. A flow ends with its app, its vnet, its route, its idle limit, or its peers.

mod listeners;
mod plan;
mod tcp;
mod udp;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub(crate) use listeners::serve;

use crate::config::{Limits, ProxyConfig, Timeouts};
use crate::congestion::Congestion;
use crate::counters::Counters;
use crate::handoff::Handoff;
use crate::resolve::Resolver;

/// How often a flow looks at its idle limit, and whether its vnet and route still exist.
const TICK_MAX: Duration = Duration::from_secs(1);

/// What all apps have in common.
#[derive(Debug)]
pub(crate) struct Relay {
    handoff: Arc<Handoff>,
    resolver: Arc<Resolver>,
    counters: Arc<Counters>,
    congestion: Congestion,
    times: Timeouts,
    limits: Limits,
}

impl Relay {
    pub(crate) fn new(
        (handoff, resolver): (Arc<Handoff>, Arc<Resolver>),
        counters: Arc<Counters>,
        congestion: Congestion,
        config: &ProxyConfig,
    ) -> Arc<Self> {
        Arc::new(Self {
            handoff,
            resolver,
            counters,
            congestion,
            times: config.timeouts.clone(),
            limits: config.limits.clone(),
        })
    }
}

/// A flow's or a listener's view of whether its app is still wanted.
#[derive(Clone, Debug)]
struct Wanted(watch::Receiver<bool>);

impl Wanted {
    /// Waits until the app is withdrawn. The end of the list's keeper is not a withdrawal: flows
    /// outlive it while the proxy drains.
    async fn withdrawn(&mut self) {
        if self.0.wait_for(|wanted| !*wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Notices when nothing moved for some time, without reading a clock: it counts its own ticks.
#[derive(Debug)]
struct Idle {
    tick: Duration,
    ticks_max: u128,
    ticks: u128,
    seen: u64,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        let tick = TICK_MAX.min(limit / 4).max(Duration::from_millis(1));
        Self {
            tick,
            ticks_max: limit.as_nanos() / tick.as_nanos(),
            ticks: 0,
            seen: 0,
        }
    }

    /// One tick has passed and `moved` is what moved so far: whether the limit is reached.
    fn is_over(&mut self, moved: u64) -> bool {
        if moved != self.seen {
            self.seen = moved;
            self.ticks = 0;
        } else {
            self.ticks += 1;
        }
        self.ticks >= self.ticks_max
    }
}

#[cfg(test)]
mod tests;
