//! What a control plane needs to know to start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::keys::MasterKey;

/// What a control plane needs to know to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the store lives; made when it does not exist.
    pub data_dir: PathBuf,
    /// The key of the store's secrets and of tokens; `None` is the one in `data_dir/key`, made when
    /// the store is new.
    pub key: Option<MasterKey>,
    /// Requests a second that one token, or one address, may make for long; `None` is no limit.
    pub requests_per_sec_max: Option<u32>,
    /// The edge's slice of the source range.
    pub slice: Ipv4Net,
    /// The edge's own addresses: where layer-4 apps may listen.
    pub edge_addresses: Vec<IpAddr>,
    /// The names of the DNS servers of every zone; none when the edge serves no DNS.
    pub name_servers: Vec<String>,
    /// Where the edge itself serves DNS.
    pub dns_listen: Vec<SocketAddr>,
    /// The edge's addresses for GRE; empty: it takes none.
    pub gre_addresses: Vec<IpAddr>,
    /// The edge's addresses for IPsec; empty: it takes none.
    pub ipsec_addresses: Vec<IpAddr>,
    /// TUN devices that become direct links.
    pub devices: Vec<String>,
    /// Ethernet ports that become direct links, whole or by VLAN.
    pub ports: Vec<String>,
    /// `host:port` that goes into the peers' WireGuard configurations; `None` leaves a placeholder.
    pub wireguard_endpoint: Option<String>,
}
