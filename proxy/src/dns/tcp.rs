//! Queries over TCP (RFC 7766): a length of two bytes before each message.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Server;
use super::limit::network;
use super::message::{Parsed, QUERY_BYTES_MAX, Transport, parse};

/// Pause after an error of the listener, such as no descriptors.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Accepts until the runtime ends.
pub(super) async fn serve(listener: TcpListener, server: Arc<Server>) {
    let open = Arc::new(Open::default());
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(why) => {
                tracing::debug!(%why, "a DNS listener failed to accept");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let limits = &server.limits;
        let seat = open.seat(
            client.ip(),
            limits.connections,
            limits.connections_per_client,
        );
        let Some(seat) = seat else {
            server.counters.dns_tcp_refused_total.increment();
            continue;
        };
        server.counters.dns_tcp_connections_total.increment();
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            if let Err(why) = server.connection(stream).await {
                tracing::trace!(%client, %why, "a DNS connection ended");
            }
            drop(seat);
        });
    }
}

impl Server {
    /// Answers one query after the other until the client is done, silent, or wrong.
    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        let idle = self.limits.idle;
        stream.set_nodelay(true)?;
        for _ in 0..self.limits.queries_per_connection {
            let length = usize::from(timeout(idle, stream.read_u16()).await??);
            if length > QUERY_BYTES_MAX {
                self.counters.dns_malformed_total.increment();
                return Ok(());
            }
            let mut bytes = vec![0; length];
            timeout(idle, stream.read_exact(&mut bytes)).await??;
            self.counters.dns_queries_total.increment();
            let answer = match parse(&bytes) {
                Parsed::Query(query) => query.answer(&*self.authority, Transport::Tcp),
                Parsed::Error(answer) => {
                    self.counters.dns_malformed_total.increment();
                    answer
                }
                Parsed::Silence => {
                    self.counters.dns_malformed_total.increment();
                    return Ok(());
                }
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            timeout(idle, stream.write_all(&framed)).await??;
        }
        Ok(())
    }
}

/// The open connections of a listener, by network.
#[derive(Debug, Default)]
struct Open {
    by_network: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
struct Seat {
    open: Arc<Open>,
    network: IpAddr,
}

impl Open {
    /// A place, if there is one for all and one for this client.
    fn seat(self: &Arc<Self>, client: IpAddr, all: usize, per_client: usize) -> Option<Seat> {
        let network = network(client);
        let mut open = self
            .by_network
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let taken: usize = open.values().sum();
        let own = open.get(&network).copied().unwrap_or(0);
        if taken >= all || own >= per_client {
            return None;
        }
        open.insert(network, own + 1);
        Some(Seat {
            open: Arc::clone(self),
            network,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let open = &self.open.by_network;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}
