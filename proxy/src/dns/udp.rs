//! Queries over UDP: one task for each socket, which answers in the order of arrival.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::Server;
use super::limit::{Limiter, Verdict};
use super::message::{Parsed, QUERY_BYTES_MAX, Transport, parse};

/// Pause after an error of the socket itself, so that a lasting one does not take a core.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Answers until the runtime ends.
pub(super) async fn serve(socket: UdpSocket, server: Arc<Server>) {
    let start = Instant::now();
    let mut limiter = Limiter::new(&server.limits);
    // A longer datagram shows by filling the last byte.
    let mut buffer = [0; QUERY_BYTES_MAX + 1];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(why) => {
                tracing::debug!(%why, "a DNS socket failed to receive");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        server.counters.dns_queries_total.increment();
        let answer = server.datagram(&buffer[..length], client, &mut limiter, start.elapsed());
        // Like any router: what the socket does not take is dropped, and asked for again.
        if let Some(answer) = answer
            && socket.try_send_to(&answer, client).is_err()
        {
            server.counters.dns_dropped_total.increment();
        }
    }
}

impl Server {
    /// The answer to a datagram, if it gets one.
    pub(super) fn datagram(
        &self,
        bytes: &[u8],
        client: SocketAddr,
        limiter: &mut Limiter,
        now: Duration,
    ) -> Option<Vec<u8>> {
        let parsed = match bytes.len() > QUERY_BYTES_MAX || client.port() == 0 {
            true => Parsed::Silence,
            false => parse(bytes),
        };
        if !matches!(parsed, Parsed::Query(_)) {
            self.counters.dns_malformed_total.increment();
        }
        if matches!(parsed, Parsed::Silence) {
            return None;
        }
        let verdict = limiter.check(client.ip(), now);
        if verdict != Verdict::Answer {
            self.counters.dns_limited_total.increment();
        }
        match (parsed, verdict) {
            (Parsed::Silence, _) | (_, Verdict::Drop) => None,
            (Parsed::Error(_), Verdict::Truncate) => None,
            (Parsed::Error(answer), Verdict::Answer) => Some(answer),
            (Parsed::Query(query), Verdict::Truncate) => Some(query.truncated()),
            (Parsed::Query(query), Verdict::Answer) => {
                Some(query.answer(&*self.authority, Transport::Udp))
            }
        }
    }
}
