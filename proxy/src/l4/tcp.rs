//! TCP apps: accept, connect to an origin, copy both ways with half-close.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::plan::{Plan, targets_at};
use super::{Idle, Relay, Wanted};
use crate::counters::Counter;
use crate::handoff::{Upstream, Way, reset};
use crate::listen::Running;

/// Origins tried for one connection.
const CONNECTS_MAX: usize = 2;

/// Bytes read at one time in one direction: half of a TSO super-packet, two of which a connection
/// may hold.
const COPY_BYTES: usize = 32 << 10;

/// Pause after a failed accept: out of file descriptors, the error would come again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the app is withdrawn or the drain begins; the flows go on by themselves.
pub(super) async fn serve(
    listener: TcpListener,
    plan: Arc<Plan>,
    relay: Arc<Relay>,
    mut wanted: Wanted,
    mut running: Running,
) {
    let room = Arc::new(Semaphore::new(relay.limits.tcp_connections));
    loop {
        let accepted = tokio::select! {
            () = wanted.withdrawn() => return,
            () = running.drained() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                tracing::warn!(app = %plan.app, %why, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        relay.counters.tcp_connections_total.increment();
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            relay.counters.tcp_refused_total.increment();
            reset(&stream);
            continue;
        };
        let (plan, relay) = (Arc::clone(&plan), Arc::clone(&relay));
        let (mut wanted, mut running) = (wanted.clone(), running.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = flow(stream, client, &plan, &relay) => {}
                () = wanted.withdrawn() => relay.counters.tcp_withdrawn_total.increment(),
                () = running.closed() => {}
            }
            drop(place);
        });
    }
}

async fn flow(mut client: TcpStream, address: SocketAddr, plan: &Plan, relay: &Relay) {
    let Some((origin, way, to)) = connect(address, plan, relay).await else {
        relay.counters.tcp_failed_total.increment();
        reset(&client);
        return;
    };
    if let Err(why) = client.set_nodelay(true) {
        tracing::debug!(%address, %why, "the client is gone");
    }
    let moved = AtomicU64::new(0);
    let counters = &relay.counters;
    let (mut from_origin, mut to_origin) = tokio::io::split(origin);
    let ended = {
        let (mut from_client, mut to_client) = client.split();
        let up = &counters.tcp_downstream_bytes_total;
        let down = &counters.tcp_upstream_bytes_total;
        let copies = async {
            tokio::try_join!(
                copy(&mut from_client, &mut to_origin, &moved, up),
                copy(&mut from_origin, &mut to_client, &moved, down),
            )
        };
        tokio::select! {
            copied = copies => copied.map(|_| ()),
            counter = watch(way, to, &moved, relay) => {
                counter.increment();
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    };
    if ended.is_err() {
        reset(&client);
        from_origin.unsplit(to_origin).abort();
    }
}

/// Connects to the first origin that takes the connection in time.
async fn connect(
    client: SocketAddr,
    plan: &Plan,
    relay: &Relay,
) -> Option<(Upstream, Way, SocketAddr)> {
    let targets = match &plan.named {
        None => plan.targets(client.ip()),
        Some(named) => match relay.resolver.addresses(&named.name).await {
            Ok(addresses) => targets_at(named, &addresses, client.ip()),
            Err(why) => {
                tracing::debug!(app = %plan.app, name = named.name.name, %why, "an origin has no address");
                return None;
            }
        },
    };
    let tries = targets.len().min(CONNECTS_MAX);
    let deadline = relay.times.connect / u32::try_from(tries.max(1)).unwrap_or(1);
    for target in targets.into_iter().take(tries) {
        let way = match relay.handoff.way(plan.network, target.ip()) {
            Ok(way) => way,
            Err(why) => {
                tracing::debug!(app = %plan.app, %target, %why, "the hand-off was refused");
                continue;
            }
        };
        match relay.handoff.tcp(way, target, deadline).await {
            Ok(origin) => return Some((origin, way, target)),
            Err(why) => {
                tracing::debug!(app = %plan.app, %target, %why, "an origin took no connection");
            }
        }
    }
    None
}

/// Copies one direction to its end, and passes the end on.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &AtomicU64,
    counter: &Counter,
) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        moved.fetch_add(1, Ordering::Relaxed);
        counter.add(u64::try_from(length).expect("a usize is not longer than a u64"));
    }
}

/// Ends when the flow has to; returns the counter of the reason.
async fn watch<'a>(way: Way, to: SocketAddr, moved: &AtomicU64, relay: &'a Relay) -> &'a Counter {
    let mut idle = Idle::new(relay.times.idle);
    loop {
        tokio::time::sleep(idle.tick).await;
        if !relay.handoff.is_open(way, to.ip()) {
            return &relay.counters.tcp_withdrawn_total;
        }
        if idle.is_over(moved.load(Ordering::Relaxed)) {
            return &relay.counters.tcp_idle_closed_total;
        }
    }
}
