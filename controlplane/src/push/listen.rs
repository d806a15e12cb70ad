//! Where nodes connect. What a stranger can cost is bounded before anybody knows who he is.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::fleet::Fleet;
use super::frame::{FROM_NODE_BYTES_MAX, Reader};
use super::identity::{self, IdentityError};
use super::lease::{self, Holder, Relay};
use super::session::{self, End, RESYNC_EVERY, Session};
use crate::model::Timestamp;
use crate::model::lease::Terms;
use crate::model::node::Node;
use crate::store::Objects;

/// Connections of which nobody knows yet whose they are: some kilobytes each.
const STRANGERS_MAX: usize = 128;

/// The same, from one address. All nodes may be behind one, and start at once.
pub(super) const STRANGERS_PER_ADDRESS_MAX: usize = 64;

/// From the connection to the first message.
const GREETED_WITHIN: Duration = Duration::from_secs(5);

/// How often old snapshots are looked at.
const REMEMBER_EVERY: Duration = Duration::from_secs(30);

/// How often leases are looked at: often enough for short ones, and seldom enough for a thousand nodes.
const PROLONG_MIN: Duration = Duration::from_millis(500);
const PROLONG_MAX: Duration = Duration::from_secs(60);

/// Why nodes are not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// An address cannot be used.
    #[error(
        "cannot listen for nodes on {address}: another process holds it, or it is not this machine's"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There are no certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The thread did not start.
    #[error("cannot start the thread that serves nodes")]
    Thread(#[source] std::io::Error),
}

/// A control plane's listener: a thread with a runtime of its own, so that nodes and the API do not
/// wait for each other. It ends when this is dropped.
#[derive(Debug)]
pub struct Listening {
    fleet: Fleet,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listening {
    /// Listens on these addresses and serves nodes.
    ///
    /// # Errors
    /// When an address cannot be used, or the authority cannot be made.
    pub fn start(
        objects: Arc<Objects>,
        listen: &[SocketAddr],
        terms: Terms,
    ) -> Result<Listening, ListenError> {
        Listening::with(objects, listen, terms, RESYNC_EVERY)
    }

    /// The same, with another time between two full steps.
    pub(super) fn with(
        objects: Arc<Objects>,
        listen: &[SocketAddr],
        terms: Terms,
        resync_every: Duration,
    ) -> Result<Listening, ListenError> {
        let authority = identity::authority(&objects, now())?;
        let acceptor = TlsAcceptor::from(identity::server(&authority)?);
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for address in listen {
            let unusable = |source| ListenError::Bind {
                address: *address,
                source,
            };
            let socket = TcpListener::bind(address).map_err(unusable)?;
            socket.set_nonblocking(true).map_err(unusable)?;
            addresses.push(socket.local_addr().map_err(unusable)?);
            sockets.push(socket);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ListenError::Thread)?;
        let fleet = Fleet::new(objects);
        let door = Arc::new(Door {
            fleet: fleet.clone(),
            acceptor,
            terms,
            resync_every,
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            by_address: Mutex::default(),
        });
        let (stop, mut stopped) = watch::channel(false);
        let kept = fleet.clone();
        let thread = std::thread::Builder::new().name("nodes".into());
        let thread = thread.spawn(move || {
            runtime.block_on(async move {
                for socket in sockets {
                    tokio::spawn(accept(socket, Arc::clone(&door)));
                }
                tokio::spawn(prolong(kept.clone(), terms));
                tokio::spawn(remember(kept));
                // An error is the end as well.
                let _is_told = stopped.wait_for(|is| *is).await;
            });
        });
        Ok(Listening {
            fleet,
            addresses,
            stop,
            thread: Some(thread.map_err(ListenError::Thread)?),
        })
    }

    /// What is known of the nodes.
    pub fn fleet(&self) -> Fleet {
        self.fleet.clone()
    }

    /// Where it listens, in the order that was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that serves nodes panicked");
        }
    }
}

/// What a connection meets.
struct Door {
    fleet: Fleet,
    acceptor: TlsAcceptor,
    terms: Terms,
    resync_every: Duration,
    strangers: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A stranger's place at the door.
struct Stranger {
    door: Arc<Door>,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Door {
    /// A place for one more stranger, unless there are too many.
    fn stranger(self: &Arc<Door>, address: IpAddr) -> Option<Stranger> {
        let permit = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        let mut by_address = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_default();
        if *count >= STRANGERS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Stranger {
            door: Arc::clone(self),
            address,
            _permit: permit,
        })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let by_address = self.door.by_address.lock();
        let mut by_address = by_address.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Keeps snapshots for nodes that come again.
async fn remember(fleet: Fleet) {
    let mut revisions = fleet.objects().revision();
    loop {
        fleet.remember(fleet.objects().snapshot());
        // Snapshots grow old without changes as well.
        let changed = tokio::time::timeout(REMEMBER_EVERY, revisions.changed()).await;
        if let Ok(Err(_)) = changed {
            return;
        }
    }
}

/// Prolongs the leases of nodes that are connected.
async fn prolong(fleet: Fleet, terms: Terms) {
    let mut every = tokio::time::interval((terms.lease / 8).clamp(PROLONG_MIN, PROLONG_MAX));
    loop {
        every.tick().await;
        let snapshot = fleet.objects().snapshot();
        for node in fleet.connected() {
            if let Some(node) = snapshot.nodes.get(&node)
                && let Err(why) = grant(&fleet, Holder::node(node, Relay::Unsaid), terms).await
            {
                tracing::warn!(node = node.name, why, "a node's slice was not prolonged");
            }
        }
    }
}

/// Gives a node its slice, off the thread that serves nodes.
async fn grant(fleet: &Fleet, holder: Holder, terms: Terms) -> Result<(), String> {
    let fleet = fleet.clone();
    let granted = tokio::task::spawn_blocking(move || {
        let granted = lease::grant(fleet.objects(), &holder, now(), terms);
        granted.map_err(|why| format!("no slice of the source range: {why}"))
    });
    granted.await.unwrap_or_else(|why| Err(why.to_string()))
}

fn now() -> Timestamp {
    Timestamp::new(OffsetDateTime::now_utc())
}

async fn accept(socket: TcpListener, door: Arc<Door>) {
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "nodes are not served");
            return;
        }
    };
    loop {
        match socket.accept().await {
            Ok((stream, address)) => match door.stranger(address.ip()) {
                Some(stranger) => _ = tokio::spawn(serve(stream, address, stranger)),
                None => tracing::debug!(%address, "too many strangers at the nodes' door"),
            },
            Err(error) => {
                // Descriptors are short: they come back as connections end.
                tracing::warn!(%error, "a node's connection was not taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, address: SocketAddr, stranger: Stranger) {
    let door = Arc::clone(&stranger.door);
    let greeted = tokio::time::timeout(GREETED_WITHIN, greet(&door, stream)).await;
    let (session, node) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(why)) => {
            tracing::info!(%address, why, "a connection for nodes was refused");
            return;
        }
        Err(_) => {
            tracing::info!(%address, "a connection for nodes did not say who it is in time");
            return;
        }
    };
    drop(stranger);
    let Greeted {
        reader,
        writer,
        has,
    } = session;
    let name = node.name;
    tracing::info!(node = name, %address, "a node is connected");
    let session = Session {
        place: door.fleet.enter(&name, address),
        certificate_sha256: node.certificate_sha256,
        resync_every: door.resync_every,
    };
    let end = session.run(reader, writer, has).await;
    tracing::info!(node = name, %address, why = %end, "a node's connection ended");
}

struct Greeted {
    reader: Reader<tokio::io::ReadHalf<TlsStream<TcpStream>>>,
    writer: tokio::io::WriteHalf<TlsStream<TcpStream>>,
    has: Option<(uuid::Uuid, u64)>,
}

/// TLS, the certificate, the first message.
async fn greet(door: &Door, stream: TcpStream) -> Result<(Greeted, Node), String> {
    stream.set_nodelay(true).map_err(|why| why.to_string())?;
    let accepted = door.acceptor.accept(stream).await;
    let stream = accepted.map_err(|why| why.to_string())?;
    let (_, tls) = stream.get_ref();
    let shown = tls.peer_certificates().and_then(|chain| chain.first());
    let fingerprint = shown.map(|certificate| Node::fingerprint(certificate));
    let snapshot = door.fleet.objects().snapshot();
    let mut nodes = snapshot.nodes.iter();
    let known = nodes.find(|node| Some(&node.certificate_sha256) == fingerprint.as_ref());
    let (reader, mut writer) = tokio::io::split(stream);
    let Some(node) = known else {
        let reason = "this certificate is no node's: it was deleted, or enrolled again";
        // Told if it listens; refused in any case.
        let _is_told = session::refuse(&mut writer, reason).await;
        return Err(reason.to_owned());
    };
    let mut reader = Reader::new(reader, FROM_NODE_BYTES_MAX);
    let greeted = match session::greeting(&mut reader, GREETED_WITHIN).await {
        Ok(greeting) => {
            let holder = Holder::node(node, Relay::Said(greeting.relay));
            let granted = grant(&door.fleet, holder, door.terms).await;
            granted.map(|()| greeting.has).map_err(End::Refused)
        }
        Err(why) => Err(why),
    };
    match greeted {
        Ok(has) => {
            let greeted = Greeted {
                reader,
                writer,
                has,
            };
            Ok((greeted, (**node).clone()))
        }
        Err(End::Refused(reason)) => {
            let _is_told = session::refuse(&mut writer, &reason).await;
            Err(reason)
        }
        Err(why) => Err(why.to_string()),
    }
}
