//! Settings of a proxy, with the defaults of the behaviour that it is compatible with.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything a proxy is told at its start.
#[derive(Clone)]
pub struct ProxyConfig {
    /// Where cleartext HTTP is served. An IPv6 wildcard does not include IPv4: name both.
    pub http: Vec<SocketAddr>,
    /// Where HTTPS is served. Needs `certificates`.
    pub https: Vec<SocketAddr>,
    /// Where DNS is served, over UDP and TCP.
    pub dns: Vec<SocketAddr>,
    /// Congestion control of TCP connections to clients and to origins (`bbr`), where the kernel has
    /// it; `None` for the kernel's default.
    pub congestion: Option<String>,
    /// Whether Spectrum apps are served.
    pub l4: bool,
    /// Directory of `NAME.crt` (chain) and `NAME.key` in PEM. NAME is a host name, `*.` and a
    /// domain, or `default`.
    pub certificates: Option<PathBuf>,
    /// Where the Origin API listens, in cleartext HTTP: an address of the same machine.
    pub origin_api: SocketAddr,
    /// Bearer token for the Origin API.
    pub origin_token: String,
    /// The location's name, last part of a ray id: 3 to 8 letters or digits.
    pub colo: String,
    /// The port of HTTP origins: 80. Requests go to origins over cleartext HTTP, also those that
    /// came by HTTPS (the mode `flexible`).
    pub origin_port: u16,
    /// The port of resolvers in private networks: 53.
    pub resolver_port: u16,
    /// Whether a name may lead over the public network to a loopback, link-local or private
    /// address. Only for trying things out on one machine: it lets a record reach the edge itself.
    pub allow_local_origins: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How many things there may be.
    pub limits: Limits,
    /// How much DNS there may be.
    pub dns_limits: DnsLimits,
}

impl ProxyConfig {
    /// Settings that listen nowhere, with defaults for all the rest.
    pub fn new(origin_api: SocketAddr, origin_token: String) -> Self {
        Self {
            http: Vec::new(),
            https: Vec::new(),
            dns: Vec::new(),
            congestion: Some("bbr".to_owned()),
            l4: false,
            certificates: None,
            origin_api,
            origin_token,
            colo: "PCL".to_owned(),
            origin_port: 80,
            resolver_port: 53,
            allow_local_origins: false,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            dns_limits: DnsLimits::default(),
        }
    }
}

impl fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyConfig")
            .field("http", &self.http)
            .field("https", &self.https)
            .field("dns", &self.dns)
            .field("congestion", &self.congestion)
            .field("l4", &self.l4)
            .field("certificates", &self.certificates)
            .field("origin_api", &self.origin_api)
            .field("colo", &self.colo)
            .field("timeouts", &self.timeouts)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Deadlines. The defaults of the first five are those of the product's connection limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to an origin, all its addresses together (522): 19 s.
    pub connect: Duration,
    /// Silence of an origin that owes a response (524): 100 s.
    pub read: Duration,
    /// A write that does not move (524): 30 s.
    pub write: Duration,
    /// A client's connection between two requests: 400 s.
    pub client_keepalive: Duration,
    /// A TCP app's connection or a WebSocket on which nothing moves: 900 s.
    pub idle: Duration,
    /// A UDP session on which nothing moves: 60 s, more than a resolver's or game's longest pause
    /// between packets of one exchange.
    pub udp_idle: Duration,
    /// A pooled connection to an origin: 60 s, below the 65 to 75 s after which common servers
    /// close theirs.
    pub upstream_idle: Duration,
    /// One question to the Origin API: 2 s; it is on the same machine and answers in milliseconds.
    pub origin_api: Duration,
    /// A client's TLS handshake: 10 s, several round trips of a bad mobile link.
    pub handshake: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(19),
            read: Duration::from_secs(100),
            write: Duration::from_secs(30),
            client_keepalive: Duration::from_secs(400),
            idle: Duration::from_secs(900),
            udp_idle: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(60),
            origin_api: Duration::from_secs(2),
            handshake: Duration::from_secs(10),
        }
    }
}

/// Bounds on what strangers can make the proxy hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads that serve HTTP and HTTPS connections, each those that it took: [`lanes`].
    pub lanes: usize,
    /// Open client connections of HTTP and HTTPS together: 32,768, half of the ports and file
    /// descriptors of a machine with 65,536, since each may hold one towards an origin.
    pub connections: usize,
    /// Host names in the route cache: 65,536 of at most 253 bytes, about 30 MB.
    pub cached_hosts: usize,
    /// Questions to the Origin API at one time: 64, so that a flood of made-up names queues here
    /// and not in the control plane.
    pub origin_api_concurrent: usize,
    /// Names of private networks whose addresses are kept: 16,384 of some 400 bytes with their key.
    pub resolved_names: usize,
    /// Names of private networks that are asked for at one time: 256, each with two sockets.
    pub resolving: usize,
    /// The same of one account: 32, so that one with a dead resolver leaves seats to the others.
    pub resolving_per_account: usize,
    /// Pooled connections to origins, of all lanes together: 4,096; each costs a descriptor and an origin's patience.
    pub pooled: usize,
    /// Sockets that listen for apps: 4,096, a port range of some size on a few addresses.
    pub app_listeners: usize,
    /// Open connections of one TCP listener: 8,192, each with two descriptors and 32 KiB.
    pub tcp_connections: usize,
    /// Sessions of one UDP listener: 8,192, each with a descriptor and a task.
    pub udp_sessions: usize,
    /// Sessions of one UDP listener for one client address: 512, a large NAT's worth.
    pub udp_sessions_per_client: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lanes: lanes(std::thread::available_parallelism().map_or(1, usize::from)),
            connections: 32_768,
            cached_hosts: 65_536,
            origin_api_concurrent: 64,
            resolved_names: 16_384,
            resolving: 256,
            resolving_per_account: 32,
            pooled: 4_096,
            app_listeners: 4_096,
            tcp_connections: 8_192,
            udp_sessions: 8_192,
            udp_sessions_per_client: 512,
        }
    }
}

/// Bounds of the DNS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsLimits {
    /// Answers over UDP to one network (IPv4 /24, IPv6 /56) a second: 200, several times what a busy
    /// resolver asks one zone's server for; at 1,232 bytes at most 2 Mb/s towards a forged source.
    pub answers_per_second: u32,
    /// Answers that a network may save up: 400, two seconds' worth.
    pub answers_burst: u32,
    /// Open TCP connections of one listener: 512, each a descriptor and a few KiB.
    pub connections: usize,
    /// Open TCP connections of one network: 32.
    pub connections_per_client: usize,
    /// Queries of one TCP connection, after which the client opens the next: 1,000.
    pub queries_per_connection: usize,
    /// Silence of a client that owes a query, the rest of it, or room for its answer: 10 s
    /// (RFC 7766, section 6.2.3 wants "a few seconds").
    pub idle: Duration,
}

impl Default for DnsLimits {
    fn default() -> Self {
        Self {
            answers_per_second: 200,
            answers_burst: 400,
            connections: 512,
            connections_per_client: 32,
            queries_per_connection: 1_000,
            idle: Duration::from_secs(10),
        }
    }
}

/// Lanes that suit a machine: one for every two cores, at least one. The packets of a private
/// origin's connection take about as much time as its requests, and more lanes than that only take
/// turns: with two lanes on two cores a request cost a fifth more, most of it changes of thread
/// (docs/performance.md).
fn lanes(cores: usize) -> usize {
    (cores / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_cores_have_a_lane_and_one_core_has_one() {
        assert_eq!([1, 2, 3, 4, 16].map(lanes), [1, 1, 1, 2, 8]);
    }
}
