//! Keeps the listening sockets equal to the list of apps.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use controlplane::origin::{App, Transport};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::plan::{Place, Plan, plans};
use super::{Relay, Wanted, tcp, udp};
use crate::listen::{self, BindError, Running};

/// After which time a socket that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How long a withdrawn listener may take to close its socket before its successor binds.
const CLOSE: Duration = Duration::from_secs(1);

struct Listener {
    plan: Plan,
    wanted: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Follows the list until the drain begins. A listener whose plan stays is not touched; one whose
/// plan changes or goes is closed together with its flows.
pub(crate) async fn serve(
    mut apps: watch::Receiver<Vec<App>>,
    relay: Arc<Relay>,
    mut running: Running,
) {
    let mut listeners = BTreeMap::new();
    loop {
        let (wanted, left_out) = plans(&apps.borrow_and_update(), relay.limits.app_listeners);
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "sockets of apps are taken twice or beyond the bound"
            );
        }
        let missing = adjust(&mut listeners, wanted, &relay, &running).await;
        tokio::select! {
            () = running.drained() => return,
            changed = apps.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if missing > 0 => {}
        }
    }
}

/// Closes and opens what has to be; returns how many sockets could not be bound.
async fn adjust(
    listeners: &mut BTreeMap<Place, Listener>,
    mut wanted: BTreeMap<Place, Plan>,
    relay: &Arc<Relay>,
    running: &Running,
) -> usize {
    let (stay, go): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(listeners)
        .into_iter()
        .partition(|(place, listener)| {
            wanted.get(place) == Some(&listener.plan) && !listener.task.is_finished()
        });
    *listeners = stay;
    wanted.retain(|place, _| !listeners.contains_key(place));
    for listener in go.values() {
        listener.wanted.send_replace(false);
    }
    for listener in go.into_values() {
        // Late: the new bind fails, and is tried again.
        tokio::time::timeout(CLOSE, listener.task).await.ok();
    }
    let mut missing = 0;
    for (place, plan) in wanted {
        match open(place, &plan, relay, running) {
            Ok((wanted, task)) => {
                let listener = Listener { plan, wanted, task };
                listeners.insert(place, listener);
            }
            Err(why) => {
                relay.counters.app_listen_failed_total.increment();
                tracing::warn!(app = %plan.app, %why, "an app cannot be served");
                missing += 1;
            }
        }
    }
    missing
}

/// Why a socket does not listen.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the runtime does not take the socket")]
    Register(#[from] io::Error),
}

type Opened = (watch::Sender<bool>, JoinHandle<()>);

fn open(
    (transport, address): (Transport, SocketAddr),
    plan: &Plan,
    relay: &Arc<Relay>,
    running: &Running,
) -> Result<Opened, OpenError> {
    let sender = watch::Sender::new(true);
    let wanted = Wanted(sender.subscribe());
    let (plan, relay) = (Arc::new(plan.clone()), Arc::clone(relay));
    let running = running.clone();
    let task = match transport {
        Transport::Tcp => {
            let socket =
                TcpListener::from_std(listen::tcp(address, "a TCP app", &relay.congestion)?)?;
            tokio::spawn(tcp::serve(socket, plan, relay, wanted, running))
        }
        Transport::Udp => {
            let socket = UdpSocket::from_std(listen::udp(address, "a UDP app")?)?;
            tokio::spawn(udp::serve(socket, plan, relay, wanted, running))
        }
    };
    Ok((sender, task))
}
