//! Accepts connections and hands them to the HTTP engine, over TLS where that is asked for.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::buffered::Buffered;
use super::engine::Engine;
use crate::counters::Counters;
use crate::listen::{Lanes, Running};

/// Pause after a failed accept: out of file descriptors, the error would come again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all HTTP and HTTPS listeners have in common.
pub(crate) struct Door {
    pub(crate) lanes: Lanes,
    /// One for each lane, with a pool of connections to origins of its own.
    pub(crate) engines: Vec<Arc<Engine>>,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) handshake: Duration,
    pub(crate) counters: Arc<Counters>,
}

/// Accepts until the drain begins; the socket is closed when this returns.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Acceptor>>,
    door: Arc<Door>,
    mut running: Running,
) {
    loop {
        let accepted = tokio::select! {
            () = running.drained() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                door.counters.downstream_connections_total.increment();
                enter(stream, client, tls.clone(), &door, running.clone());
            }
            Err(why) => {
                tracing::warn!(%why, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn enter(
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<Arc<Acceptor>>,
    door: &Door,
    running: Running,
) {
    let room = Arc::clone(&door.room).try_acquire_owned();
    // It belongs to another thread's epoll from here on.
    let (Ok(room), Ok(stream)) = (room, stream.into_std()) else {
        door.counters.downstream_refused_total.increment();
        return;
    };
    let (lane, handle, place) = door.lanes.enter();
    let engine = Arc::clone(&door.engines[lane]);
    let arrival = Arrival {
        client,
        tls,
        handshake: door.handshake,
        counters: Arc::clone(&door.counters),
    };
    handle.spawn(async move {
        // It is told of the drain by pingora, and of the end by its lane, which drops it: to watch
        // for both here would cost each wake-up of the connection.
        let shutdown = running.watch();
        if let Some(stream) = arrival.prepare(stream).await {
            engine.process_new(stream, &shutdown).await;
        }
        drop((running, room, place));
    });
}

/// A connection before its first request. It knows the door's settings and not the door: the lanes
/// must end when the proxy is dropped, whoever is still connected.
struct Arrival {
    client: SocketAddr,
    tls: Option<Arc<Acceptor>>,
    handshake: Duration,
    counters: Arc<Counters>,
}

impl Arrival {
    /// Sets the socket up and makes the TLS handshake; `None` if the client went wrong.
    async fn prepare(self, stream: std::net::TcpStream) -> Option<Stream> {
        let client = self.client;
        let stream = match prepare_tcp(stream, client) {
            Ok(stream) => stream,
            Err(why) => {
                tracing::debug!(%client, %why, "a connection ended before its first byte");
                return None;
            }
        };
        let Some(acceptor) = self.tls else {
            return Some(Box::new(Buffered::new(Box::new(stream))));
        };
        let handshake = acceptor.tls_handshake(stream);
        match tokio::time::timeout(self.handshake, handshake).await {
            Ok(Ok(stream)) => Some(Box::new(Buffered::new(Box::new(stream)))),
            Ok(Err(why)) => {
                self.counters.tls_handshake_failed_total.increment();
                tracing::debug!(%client, %why, "a TLS handshake failed");
                None
            }
            Err(_elapsed) => {
                self.counters.tls_handshake_failed_total.increment();
                tracing::debug!(%client, "a TLS handshake took too long");
                None
            }
        }
    }
}

fn prepare_tcp(stream: std::net::TcpStream, client: SocketAddr) -> io::Result<L4Stream> {
    let mut stream = L4Stream::from(TcpStream::from_std(stream)?);
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    digest
        .peer_addr
        .set(Some(client.into()))
        .map_err(|_set| io::ErrorKind::Other)?;
    stream.set_socket_digest(digest);
    stream.set_nodelay().map_err(io::Error::other)?;
    // The product's probes: a client that vanished is noticed within about a minute.
    let keepalive = TcpKeepalive {
        idle: Duration::from_secs(30),
        interval: Duration::from_secs(10),
        count: 3,
        user_timeout: Duration::from_secs(90),
    };
    stream.set_keepalive(&keepalive).map_err(io::Error::other)?;
    Ok(stream)
}
