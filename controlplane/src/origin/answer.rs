//! The answers' shapes: the contract between the control plane and the proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dataplane::id::{TunnelId, VnetId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where the requests for one host go: the answer of `GET /origin/v1/hosts/{host}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAnswer {
    /// The zone the host belongs to.
    pub zone_name: String,
    /// The zone's id, 32 hex digits.
    pub zone_id: String,
    /// The account's id, 32 hex digits.
    pub account_id: String,
    /// The origin's IPv4 addresses; may be empty.
    pub ipv4_addresses: Vec<Ipv4Addr>,
    /// The origin's IPv6 addresses; may be empty.
    pub ipv6_addresses: Vec<Ipv6Addr>,
    /// Whether the last hop goes through the private network.
    pub use_private_routing: bool,
    /// The vnet the addresses belong to; `None` unless private.
    pub virtual_network_id: Option<Uuid>,
    /// The same vnet as nodes number it; `None` unless private.
    pub vnet: Option<VnetId>,
    /// The name that has the addresses, where only a resolver of the vnet knows them: then none are above.
    #[serde(default)]
    pub private_name: Option<PrivateName>,
    /// Whether cleartext requests are sent to HTTPS.
    #[serde(default)]
    pub always_use_https: bool,
    /// Seconds that the origin may take to answer; `None` is what the proxy is set to.
    #[serde(default)]
    pub read_timeout_secs: Option<u16>,
    /// The revision of the state that the answer was made from.
    pub revision: u64,
}

/// A name that resolvers behind a tunnel know: of a hostname route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PrivateName {
    /// The account's id, 32 hex digits.
    pub account_id: String,
    /// The hostname route's id.
    pub route_id: Uuid,
    /// What to ask for: lower case, no final dot.
    pub name: String,
    /// Whom to ask, best first: one to three addresses of the vnet.
    pub resolvers: Vec<IpAddr>,
    /// The vnet as nodes number it.
    pub vnet: VnetId,
    /// The tunnel as nodes number it: the resolvers, and what they answer, must be behind it.
    pub tunnel: TunnelId,
}

/// The answer of `GET /origin/v1/apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apps {
    /// The revision of the state that the answer was made from.
    pub revision: u64,
    /// Every layer-4 app, ordered by id.
    pub apps: Vec<App>,
}

/// A layer-4 app: connections to these addresses and ports go to these origins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The app's id, 32 hex digits.
    pub id: String,
    /// The zone's id, 32 hex digits.
    pub zone_id: String,
    /// The name customers give to clients.
    pub hostname: String,
    /// TCP or UDP.
    pub transport: Transport,
    /// The edge's own addresses to listen on.
    pub edge_addresses: Vec<IpAddr>,
    /// The first edge port.
    pub edge_port: u16,
    /// The last edge port; equal to `edge_port` for a single one.
    pub edge_port_end: u16,
    /// Origins with the port that belongs to `edge_port`; several share the load. Empty where
    /// `origin_name` has them, and of an app whose name nothing resolves any more.
    pub origins: Vec<SocketAddr>,
    /// The name that has the origin's addresses, in place of `origins`.
    #[serde(default)]
    pub origin_name: Option<NamedOrigin>,
    /// The last port of each origin; edge port p maps to origin port + (p - `edge_port`).
    pub origin_port_end: u16,
    /// The vnet as nodes number it; `None` is the public Internet.
    pub vnet: Option<VnetId>,
    /// The vnet's id; `None` is the public Internet.
    pub virtual_network_id: Option<Uuid>,
}

/// An origin whose addresses are asked for in its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedOrigin {
    /// The name.
    pub name: PrivateName,
    /// The port that belongs to the first edge port.
    pub port: u16,
    /// Whether its IPv4 addresses are used.
    pub ipv4: bool,
    /// Whether its IPv6 addresses are used.
    pub ipv6: bool,
}

/// The answer of `GET /origin/v1/certificates?etag=ETAG`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// What names this list.
    pub etag: String,
    /// Those that have not expired, the newest last; `None` when they are those of the etag that was asked with.
    pub certificates: Option<Vec<Certificate>>,
}

/// A certificate that a customer brought.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The names that it is served for: those of its zone, `*.` and a domain among them.
    pub names: Vec<String>,
    /// The chain in PEM, the leaf first.
    pub chain: String,
    /// The leaf's key in PEM.
    pub private_key: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Certificate");
        shown.field("names", &self.names).finish_non_exhaustive()
    }
}

/// A layer-4 protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}
