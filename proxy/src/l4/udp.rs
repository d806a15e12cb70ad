//! UDP apps: one session per client address and port, each with a socket of its own to its origin.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::MissedTickBehavior;

use super::plan::{Plan, targets_at};
use super::{Idle, Relay, Wanted};
use crate::handoff::{Datagrams, Way};
use crate::listen::Running;
use crate::resolve::Resolved;

/// Longest payload of a datagram, and the largest that is read.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Datagrams taken from one origin before others have their turn.
const BURST_MAX: usize = 64;

/// Pause after a failed receive, which would fail again at once.
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);

/// The sessions of one listening socket.
struct Sessions {
    downstream: Arc<UdpSocket>,
    plan: Arc<Plan>,
    relay: Arc<Relay>,
    by_client: HashMap<SocketAddr, Session>,
    by_address: HashMap<IpAddr, usize>,
    tasks: JoinSet<SocketAddr>,
    /// What is known of the origin's name, if it has one.
    known: Option<Resolved>,
    /// The question for it that is under way: one at most. Nothing waits for it; what needs a session
    /// meanwhile is dropped, or goes where the name led before.
    asking: JoinSet<Resolved>,
}

/// One client's exchange with one origin.
struct Session {
    upstream: Arc<Datagrams>,
    moved: Arc<AtomicU64>,
    task: AbortHandle,
}

/// Relays until the app is withdrawn or the drain begins: a session has no end that could be waited
/// for, so the drain closes it.
pub(super) async fn serve(
    socket: UdpSocket,
    plan: Arc<Plan>,
    relay: Arc<Relay>,
    mut wanted: Wanted,
    mut running: Running,
) {
    let downstream = Arc::new(socket);
    let mut sessions = Sessions {
        downstream: Arc::clone(&downstream),
        plan,
        relay,
        by_client: HashMap::new(),
        by_address: HashMap::new(),
        tasks: JoinSet::new(),
        known: None,
        asking: JoinSet::new(),
    };
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            () = wanted.withdrawn() => {
                let count = u64::try_from(sessions.by_client.len()).unwrap_or(u64::MAX);
                sessions.relay.counters.udp_withdrawn_total.add(count);
                break;
            }
            () = running.drained() => break,
            Some(ended) = sessions.tasks.join_next_with_id() => match ended {
                Ok((id, client)) => sessions.remove(client, id),
                Err(why) => tracing::error!(%why, "a UDP session broke"),
            },
            Some(answered) = sessions.asking.join_next() => match answered {
                Ok(resolved) => sessions.known = Some(resolved),
                Err(why) => tracing::error!(%why, "the question for a UDP app's origin broke"),
            },
            received = downstream.recv_from(&mut buffer) => match received {
                Ok((length, client)) => sessions.forward(client, &buffer[..length]).await,
                Err(why) => {
                    tracing::debug!(%why, "receiving for a UDP app failed");
                    tokio::time::sleep(RECEIVE_PAUSE).await;
                }
            },
        }
    }
    sessions.tasks.shutdown().await;
}

impl Sessions {
    /// Sends a client's datagram to its origin, over a new session if it has none.
    async fn forward(&mut self, client: SocketAddr, datagram: &[u8]) {
        let counters = &self.relay.counters;
        counters.udp_downstream_datagrams_total.increment();
        let finished = self
            .by_client
            .get(&client)
            .and_then(|session| session.task.is_finished().then(|| session.task.id()));
        if let Some(id) = finished {
            self.remove(client, id);
        }
        if !self.by_client.contains_key(&client) && !self.open(client).await {
            return;
        }
        let Some(session) = self.by_client.get(&client) else {
            return;
        };
        session.moved.fetch_add(1, Ordering::Relaxed);
        // Like any router: what the socket does not take is dropped.
        if session.upstream.try_send(datagram).is_err() {
            self.relay.counters.udp_dropped_total.increment();
        }
    }

    /// Opens a session; whether there is one afterwards.
    async fn open(&mut self, client: SocketAddr) -> bool {
        let Relay {
            counters, limits, ..
        } = &*self.relay;
        let of_address = self.by_address.get(&client.ip()).copied().unwrap_or(0);
        if self.by_client.len() >= limits.udp_sessions
            || of_address >= limits.udp_sessions_per_client
        {
            counters.udp_refused_total.increment();
            return false;
        }
        let targets = self.targets(client.ip());
        let counters = &self.relay.counters;
        let Some((upstream, way, to)) = connect(targets, &self.plan, &self.relay).await else {
            counters.udp_failed_total.increment();
            return false;
        };
        counters.udp_sessions_total.increment();
        let upstream = Arc::new(upstream);
        let moved = Arc::new(AtomicU64::new(0));
        let exchange = Exchange {
            client,
            downstream: Arc::clone(&self.downstream),
            upstream: Arc::clone(&upstream),
            way,
            to,
            moved: Arc::clone(&moved),
            relay: Arc::clone(&self.relay),
        };
        let task = self.tasks.spawn(exchange.run());
        self.by_client.insert(
            client,
            Session {
                upstream,
                moved,
                task,
            },
        );
        *self.by_address.entry(client.ip()).or_default() += 1;
        true
    }

    /// The origins to try for a client, best first; asks for those of a name when it is time to.
    fn targets(&mut self, client: IpAddr) -> Vec<SocketAddr> {
        let Some(named) = &self.plan.named else {
            return self.plan.targets(client);
        };
        let resolver = &self.relay.resolver;
        let is_fresh = self.known.as_ref().is_some_and(Resolved::is_fresh);
        if !is_fresh && self.asking.is_empty() {
            let (resolver, name) = (Arc::clone(resolver), named.name.clone());
            self.asking
                .spawn(async move { resolver.resolved(&name).await });
        }
        let known = self.known.as_ref();
        let usable = known.and_then(|known| resolver.usable(&named.name, known).ok());
        usable.map_or_else(Vec::new, |usable| targets_at(named, &usable, client))
    }

    /// Forgets a session, unless the client has a newer one.
    fn remove(&mut self, client: SocketAddr, id: Id) {
        if self
            .by_client
            .get(&client)
            .is_none_or(|session| session.task.id() != id)
        {
            return;
        }
        self.by_client.remove(&client);
        if let Some(count) = self.by_address.get_mut(&client.ip()) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&client.ip());
            }
        }
    }
}

/// A socket to the first origin that there is a way to.
async fn connect(
    targets: Vec<SocketAddr>,
    plan: &Plan,
    relay: &Relay,
) -> Option<(Datagrams, Way, SocketAddr)> {
    for target in targets {
        let Ok(way) = relay.handoff.way(plan.network, target.ip()) else {
            continue;
        };
        match relay.handoff.udp(way, target).await {
            // Until the runtime has once seen a new socket writable, `try_send` drops all it is given.
            Ok(socket) if socket.writable().await.is_ok() => return Some((socket, way, target)),
            Ok(_) => continue,
            Err(why) => tracing::debug!(app = %plan.app, %target, %why, "no socket to an origin"),
        }
    }
    None
}

/// The way back of a session: only datagrams of its origin, only to its client.
struct Exchange {
    client: SocketAddr,
    downstream: Arc<UdpSocket>,
    upstream: Arc<Datagrams>,
    way: Way,
    to: SocketAddr,
    moved: Arc<AtomicU64>,
    relay: Arc<Relay>,
}

impl Exchange {
    /// Runs until nothing moves any more, or the vnet or route is gone. Returns the client.
    async fn run(self) -> SocketAddr {
        let mut idle = Idle::new(self.relay.times.udp_idle);
        let mut ticks = tokio::time::interval(idle.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ready = self.upstream.readable() => {
                    if ready.and_then(|()| self.take()).is_err() {
                        // An ICMP error: the next datagram opens a session anew.
                        self.relay.counters.udp_failed_total.increment();
                        return self.client;
                    }
                }
                _ = ticks.tick() => {
                    if !self.relay.handoff.is_open(self.way, self.to.ip()) {
                        self.relay.counters.udp_withdrawn_total.increment();
                        return self.client;
                    }
                    if idle.is_over(self.moved.load(Ordering::Relaxed)) {
                        return self.client;
                    }
                }
            }
        }
    }

    /// Passes on what has arrived. The buffer is on the stack: thousands of sessions wait without
    /// one.
    fn take(&self) -> io::Result<()> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let counters = &self.relay.counters;
        for _ in 0..BURST_MAX {
            let length = match self.upstream.try_recv(&mut buffer) {
                Ok(length) => length,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            };
            self.moved.fetch_add(1, Ordering::Relaxed);
            counters.udp_upstream_datagrams_total.increment();
            if self
                .downstream
                .try_send_to(&buffer[..length], self.client)
                .is_err()
            {
                counters.udp_dropped_total.increment();
            }
        }
        Ok(())
    }
}
