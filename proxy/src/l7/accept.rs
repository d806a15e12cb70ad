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

use super::Engine;
use crate::counters::Counters;
use crate::listen::Running;

/// Pause after a failed accept: out of file descriptors, the error would come again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all HTTP and HTTPS listeners have in common.
pub(crate) struct Door {
    pub(crate) engine: Arc<Engine>,
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
                enter(
                    stream,
                    client,
                    tls.clone(),
                    Arc::clone(&door),
                    running.clone(),
                );
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
    door: Arc<Door>,
    mut running: Running,
) {
    let Ok(place) = Arc::clone(&door.room).try_acquire_owned() else {
        door.counters.downstream_refused_total.increment();
        return;
    };
    tokio::spawn(async move {
        let shutdown = running.watch();
        let visit = async {
            if let Some(stream) = prepare(stream, client, tls, &door).await {
                door.engine.process_new(stream, &shutdown).await;
            }
        };
        tokio::select! {
            () = visit => {}
            () = running.closed() => {}
        }
        drop(place);
    });
}

/// Sets the socket up and makes the TLS handshake; `None` if the client went wrong.
async fn prepare(
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<Arc<Acceptor>>,
    door: &Door,
) -> Option<Stream> {
    let stream = match prepare_tcp(stream, client) {
        Ok(stream) => stream,
        Err(why) => {
            tracing::debug!(%client, %why, "a connection ended before its first byte");
            return None;
        }
    };
    let Some(acceptor) = tls else {
        return Some(Box::new(stream));
    };
    match tokio::time::timeout(door.handshake, acceptor.tls_handshake(stream)).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(why)) => {
            door.counters.tls_handshake_failed_total.increment();
            tracing::debug!(%client, %why, "a TLS handshake failed");
            None
        }
        Err(_elapsed) => {
            door.counters.tls_handshake_failed_total.increment();
            tracing::debug!(%client, "a TLS handshake took too long");
            None
        }
    }
}

fn prepare_tcp(stream: TcpStream, client: SocketAddr) -> io::Result<L4Stream> {
    let mut stream = L4Stream::from(stream);
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
