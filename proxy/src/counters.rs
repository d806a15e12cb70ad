//! What the proxy counts: one relaxed atomic each, and a snapshot that can be printed.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($name:ident: $help:literal,)+) => {
        /// Every counter of a running proxy.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $help] pub $name: Counter,)+
        }

        /// The counters at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct CountersSnapshot {
            $(#[doc = $help] pub $name: u64,)+
        }

        impl Counters {
            /// Reads all counters, one after the other.
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.value(),)+ }
            }
        }
    };
}

counters! {
    downstream_connections_total: "Connections accepted on the HTTP and HTTPS listeners.",
    downstream_refused_total: "Connections closed at once because the proxy was full.",
    tls_handshake_failed_total: "TLS handshakes that failed or took too long.",
    requests_total: "HTTP requests with a readable header.",
    error_pages_total: "Requests answered with an error page of ours.",
    upstream_new_total: "HTTP requests that opened a connection to an origin.",
    upstream_reused_total: "HTTP requests that went over a pooled connection.",
    upstream_failed_total: "Attempts to connect to an origin that failed.",
    handoff_no_route_total: "Hand-offs refused: the vnet is gone or has no route to the address.",
    handoff_prohibited_total: "Hand-offs refused: a public name points to a private address.",
    handoff_wrong_source_total: "Connections refused: the local address is not of the vnet.",
    origin_api_lookups_total: "Questions to the Origin API.",
    origin_api_failed_total: "Questions to the Origin API without a usable answer.",
    route_cache_hits_total: "Host names answered from the cache.",
    resolve_queries_total: "Questions to resolvers in private networks.",
    resolve_failed_total: "Names of private networks for which no resolver gave an address.",
    resolve_refused_total: "Uses of a private name of which an address is not behind its tunnel.",
    tcp_connections_total: "TCP connections accepted for Spectrum apps.",
    tcp_refused_total: "TCP connections closed at once because the app was full.",
    tcp_failed_total: "TCP connections closed because no origin took them.",
    tcp_idle_closed_total: "TCP connections closed because nothing moved.",
    tcp_withdrawn_total: "TCP connections closed because their app, vnet or route went away.",
    tcp_downstream_bytes_total: "Bytes that clients of TCP apps sent.",
    tcp_upstream_bytes_total: "Bytes that origins of TCP apps sent.",
    udp_sessions_total: "UDP sessions opened for Spectrum apps.",
    udp_refused_total: "Datagrams dropped because a bound on sessions was reached.",
    udp_failed_total: "Datagrams dropped because no origin could be reached.",
    udp_dropped_total: "Datagrams dropped because a socket did not take them.",
    udp_withdrawn_total: "UDP sessions closed because their app, vnet or route went away.",
    udp_downstream_datagrams_total: "Datagrams that clients of UDP apps sent.",
    udp_upstream_datagrams_total: "Datagrams that origins of UDP apps sent.",
    congestion_refused_total: "Sockets that the kernel did not give the configured congestion control.",
    dns_queries_total: "Messages to the DNS server, over UDP and TCP.",
    dns_malformed_total: "Messages to the DNS server that were no query.",
    dns_limited_total: "Queries over UDP beyond the rate of their network.",
    dns_dropped_total: "Answers over UDP that the socket did not take.",
    dns_tcp_connections_total: "TCP connections to the DNS server.",
    dns_tcp_refused_total: "TCP connections to the DNS server closed at once because it was full.",
    app_listen_failed_total: "Attempts to listen for an app that failed.",
}
