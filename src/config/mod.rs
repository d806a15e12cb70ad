//! The configuration files of `edge`, `control` and `site`: one TOML each, typed, unknown keys refused.

mod ipsec;
mod relay;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use controlplane::model::lease::{self, Terms};
use dataplane::id::Workers;
use dataplane::io::TunBackend;
use dataplane::program::health;
use dataplane::tunnel::wireguard::{PresharedKey, PrivateKey, PublicKey};
use dataplane::tunnel::{direct, gre};
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) use ipsec::SiteIpsec;

/// The largest inner packet of a WireGuard tunnel over a 1500-byte IPv6 underlay (80 bytes of headers).
fn mtu() -> u16 {
    1420
}

fn tun_name() -> String {
    "portcullis0".into()
}

/// `portcullis edge` and `portcullis control`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edge {
    /// Where objects, keys and the first token are kept.
    pub(crate) data_dir: PathBuf,
    /// Where the HTTP API listens.
    pub(crate) api_listen: SocketAddr,
    /// PEM file of the certificate chain with which the API speaks TLS; without it HTTP in clear, which
    /// is for loopback. Both files are read again when they change.
    pub(crate) api_tls_certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub(crate) api_tls_key: Option<PathBuf>,
    /// Requests a second that one token, or one address, may make for long, and five times that at
    /// once; default 1000, 0 is no limit.
    pub(crate) api_requests_per_sec: Option<u32>,
    /// A file with the key that secrets in the store are sealed with, 32 bytes in base64; default
    /// `data_dir/key`, made at the first start. PORTCULLIS_KEY in the environment comes before it.
    pub(crate) key_file: Option<PathBuf>,
    /// Where `portcullis show` asks; default `data_dir/edge.sock`.
    pub(crate) admin_socket: Option<PathBuf>,
    /// This node's part of 100.64.0.0/12; default 100.64.0.0/20. An edge that follows a control plane leases
    /// one.
    pub(crate) slice: Option<ipnet::Ipv4Net>,
    /// Where objects are kept instead of in `data_dir`: `etcd://HOST:PORT[,HOST:PORT…][/PREFIX]`, or
    /// `etcds://` over TLS.
    pub(crate) store: Option<String>,
    /// How to speak to etcd.
    #[serde(default)]
    pub(crate) etcd: Etcd,
    /// `host:port` of the control planes that this edge follows, instead of being one itself.
    #[serde(default)]
    pub(crate) control: Vec<String>,
    /// With `control`: the file that `portcullis control enrol` wrote for this edge.
    pub(crate) identity: Option<PathBuf>,
    /// The edges that follow this control plane.
    #[serde(default)]
    pub(crate) nodes: Nodes,
    /// The packet side.
    #[serde(default)]
    pub(crate) router: Router,
    /// The connection side.
    #[serde(default)]
    pub(crate) proxy: Proxy,
    /// The names.
    #[serde(default)]
    pub(crate) dns: Dns,
}

/// Requests a second of one token or address, for long: far above what people and their tools make,
/// far below what the API can answer.
const API_REQUESTS_PER_SEC: u32 = 1000;

impl Edge {
    /// Requests a second that one token, or one address, may make; `None` is no limit.
    pub(crate) fn api_requests_per_sec_max(&self) -> Option<u32> {
        let rate = self.api_requests_per_sec.unwrap_or(API_REQUESTS_PER_SEC);
        (rate > 0).then_some(rate)
    }

    /// The slice of an edge that leases none.
    pub(crate) fn slice(&self) -> ipnet::Ipv4Net {
        self.slice.unwrap_or_else(|| lease::slice(0))
    }

    /// Where `portcullis show` asks.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.admin_socket
            .clone()
            .unwrap_or_else(|| self.data_dir.join("edge.sock"))
    }
}

/// `[nodes]` of a control plane.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Nodes {
    /// Where edges connect, over TLS with certificates on both sides.
    pub(crate) listen: Vec<SocketAddr>,
    /// How long an edge keeps its slice of the source range without hearing from a control plane; it stops
    /// then. Default a week.
    pub(crate) lease_secs: Option<u64>,
    /// How long nobody has the slice after that. Default an hour.
    pub(crate) quarantine_secs: Option<u64>,
}

impl Nodes {
    /// Shortest lease: half of it is time to prolong it.
    const LEASE_MIN: Duration = Duration::from_secs(2);

    /// How slices are leased.
    pub(crate) fn terms(&self) -> anyhow::Result<Terms> {
        let default = Terms::default();
        let given = |secs: Option<u64>, default| secs.map_or(default, Duration::from_secs);
        let terms = Terms {
            lease: given(self.lease_secs, default.lease),
            quarantine: given(self.quarantine_secs, default.quarantine),
        };
        anyhow::ensure!(
            terms.lease >= Self::LEASE_MIN,
            "[nodes] lease_secs is at least {}",
            Self::LEASE_MIN.as_secs()
        );
        Ok(terms)
    }
}

/// `[etcd]`: who vouches for it, and who we are to it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Etcd {
    /// PEM file of the authorities of its certificates.
    pub(crate) ca: Option<PathBuf>,
    /// PEM file of our certificate.
    pub(crate) certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub(crate) key: Option<PathBuf>,
    /// Name of a user, when etcd's authentication is on.
    pub(crate) user: Option<String>,
    /// File that holds the user's password.
    pub(crate) password_file: Option<PathBuf>,
    /// How many operations its members take in one transaction, when they were started with
    /// `--max-txn-ops`: a change of more objects at once is refused. Default 128, as etcd's.
    pub(crate) max_txn_ops: Option<usize>,
}

/// `[router]` of an edge.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Router {
    /// Name of the TUN device.
    pub(crate) tun: String,
    /// How packets cross it: `auto`, `offload` or `plain`.
    pub(crate) tun_backend: Backend,
    /// MTU of the TUN device.
    pub(crate) mtu: u16,
    /// Devices that interconnects may have: one is made with its interconnect, and its other side is
    /// moved to where the network is.
    pub(crate) direct: Vec<String>,
    /// Ethernet ports that interconnects may have, whole or by VLAN. They are the router's alone: the
    /// kernel's own stack is kept out of them. Needs CAP_NET_RAW.
    pub(crate) ethernet: Vec<String>,
    /// Packet workers, 1 to 64; default one for each core.
    pub(crate) workers: Option<Workers>,
    /// Connections to private origins are made in this process: no TUN, no privileges.
    pub(crate) userspace: bool,
    /// With `userspace`: connections of each worker; default 8192.
    pub(crate) userspace_flows: Option<usize>,
    /// With `userspace`: bytes that wait in a connection, each way, which is also TCP's window;
    /// default 65536. Connections times twice this is the most memory they take.
    pub(crate) userspace_buffer: Option<usize>,
    /// UDP addresses at which WireGuard peers reach this node.
    pub(crate) listen: Vec<SocketAddr>,
    /// Addresses at which IPsec peers reach this node: UDP ports 500 and 4500, and IP protocol 50.
    pub(crate) ipsec: Vec<IpAddr>,
    /// Addresses at which GRE tunnels end; none without. Needs CAP_NET_RAW.
    pub(crate) gre: Vec<IpAddr>,
    /// Where other edges hand over by Geneve what came out of their tunnels for this one: an address of a
    /// network that only edges share, with its UDP port or 6081; without one nothing is handed over.
    #[serde(deserialize_with = "relay::read")]
    pub(crate) relay: Option<SocketAddr>,
    /// `host:port` printed into peers' ready-made configurations.
    pub(crate) endpoint: Option<String>,
}

impl Default for Router {
    fn default() -> Self {
        let listen = vec![SocketAddr::from(([0, 0, 0, 0], 51820))];
        Router {
            tun: tun_name(),
            tun_backend: Backend::Auto,
            mtu: mtu(),
            direct: Vec::new(),
            ethernet: Vec::new(),
            workers: None,
            userspace: false,
            userspace_flows: None,
            userspace_buffer: None,
            listen,
            ipsec: Vec::new(),
            gre: Vec::new(),
            relay: None,
            endpoint: None,
        }
    }
}

/// How packets cross the TUN device.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    /// Offload where the kernel has it, else plain.
    #[default]
    Auto,
    /// Super-packets with a vnet_hdr, or fail.
    Offload,
    /// One packet a call.
    Plain,
}

impl From<Backend> for TunBackend {
    fn from(backend: Backend) -> TunBackend {
        match backend {
            Backend::Auto => TunBackend::Auto,
            Backend::Offload => TunBackend::Offload,
            Backend::Plain => TunBackend::Plain,
        }
    }
}

/// `[proxy]` of an edge.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Proxy {
    /// Addresses that take plain HTTP.
    pub(crate) http: Vec<SocketAddr>,
    /// Addresses that take HTTPS.
    pub(crate) https: Vec<SocketAddr>,
    /// Public addresses of this edge: for TCP and UDP apps, and for `GET /ips`.
    pub(crate) edge_addresses: Vec<IpAddr>,
    /// Congestion control of TCP connections, where the kernel has it: default `bbr`; `system` for
    /// the kernel's default.
    pub(crate) congestion: Option<String>,
    /// Directory of `NAME.crt` and `NAME.key`.
    pub(crate) certificates: Option<PathBuf>,
    /// Threads that serve HTTP and HTTPS, 1 to 255; default one for every two cores.
    pub(crate) lanes: Option<NonZeroU8>,
    /// Seconds to reach an origin before 522.
    pub(crate) connect_timeout_secs: Option<u64>,
    /// Seconds to wait for an origin's answer before 524.
    pub(crate) read_timeout_secs: Option<u64>,
}

/// `[dns]` of an edge.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Dns {
    /// Where questions are answered, UDP and TCP: addresses of this machine with port 53. A wildcard
    /// works where the machine has one address.
    pub(crate) listen: Vec<SocketAddr>,
    /// The names by which the world knows this edge's DNS servers: NS of every zone.
    pub(crate) name_servers: Vec<String>,
}

impl Dns {
    /// The names in their one form.
    pub(crate) fn name_servers(&self) -> anyhow::Result<Vec<String>> {
        if !self.listen.is_empty() && self.name_servers.is_empty() {
            anyhow::bail!(
                "[dns] listen needs name_servers: the names that the domains' registrars are told"
            );
        }
        let normal = |name: &String| {
            controlplane::model::host_name::normal(name)
                .map_err(|why| anyhow::anyhow!("[dns] name_servers: {why}"))
        };
        self.name_servers.iter().map(normal).collect()
    }
}

/// `portcullis site`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Site {
    /// Where `portcullis show` asks.
    pub(crate) admin_socket: PathBuf,
    /// The packet side.
    pub(crate) router: SiteRouter,
    /// The tunnel to the edge, or:
    pub(crate) wireguard: Option<SiteWireGuard>,
    /// the tunnel to the edge.
    pub(crate) ipsec: Option<SiteIpsec>,
    /// Or this.
    pub(crate) gre: Option<SiteGre>,
    /// Networks behind TUN devices that this router makes: of containers, virtual machines,
    /// namespaces.
    #[serde(default)]
    pub(crate) direct: Vec<SiteDirect>,
}

/// `[[direct]]` of a site.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteDirect {
    /// Name of the device: a TUN device, whose other side is moved to where the network is, or with
    /// `ethernet` an Ethernet port that is there.
    pub(crate) device: String,
    /// Whether it is an Ethernet port.
    #[serde(default)]
    pub(crate) ethernet: bool,
    /// Of an Ethernet port the VLAN that is meant, 1 to 4094; default: frames without a tag.
    pub(crate) vlan: Option<u16>,
    /// This router's addresses on the link, at most one of each family, with its net (/31 or /30, /127 or
    /// /126): the other address of it is the neighbour's. An Ethernet port needs one.
    #[serde(default)]
    pub(crate) interface: Vec<ipnet::IpNet>,
    /// How the link is probed; default: not at all.
    pub(crate) health: Option<health::Config>,
    /// What is reached by it, and may send from it.
    pub(crate) prefixes: Vec<ipnet::IpNet>,
}

impl SiteDirect {
    /// What its device is.
    pub(crate) fn medium(&self) -> anyhow::Result<direct::Medium> {
        if self.vlan.is_some_and(|vlan| !direct::VLANS.contains(&vlan)) {
            anyhow::bail!(
                "[[direct]] vlan of {} is a number from 1 to 4094",
                self.device
            );
        }
        match (self.ethernet, self.vlan) {
            (true, vlan) => Ok(direct::Medium::Ethernet { vlan }),
            (false, None) => Ok(direct::Medium::Tun),
            (false, Some(_)) => anyhow::bail!(
                "[[direct]] {} has a vlan, and TUN devices have none: say ethernet = true",
                self.device
            ),
        }
    }
}

/// `[router]` of a site.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteRouter {
    #[serde(default = "tun_name")]
    pub(crate) tun: String,
    #[serde(default)]
    pub(crate) tun_backend: Backend,
    /// Largest inner packet; default 1420 with WireGuard, 1400 with IPsec, 1476 with GRE, less 4 each
    /// for key, checksum and sequence number.
    pub(crate) mtu: Option<u16>,
    /// UDP addresses to send from; default any port on every address.
    #[serde(default)]
    pub(crate) listen: Vec<SocketAddr>,
    /// Source of this router's own ICMP errors.
    pub(crate) address: IpAddr,
    /// Prefixes behind this machine that the edge may reach.
    pub(crate) lan: Vec<ipnet::IpNet>,
    /// This side's addresses inside the tunnel, for probes: a /31, /30, /127 or /126 of which the
    /// edge has the other address.
    #[serde(default)]
    pub(crate) interface: Vec<ipnet::IpNet>,
    /// How this side probes the edge; default not at all.
    pub(crate) health: Option<health::Config>,
}

/// `[wireguard]` of a site.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteWireGuard {
    /// This side's key, or:
    pub(crate) private_key: Option<PrivateKey>,
    /// a file that holds it.
    pub(crate) private_key_file: Option<PathBuf>,
    /// The edge's key, as `GET …/wireguard_tunnels/{id}` prints it.
    pub(crate) peer_public_key: PublicKey,
    pub(crate) preshared_key: Option<PresharedKey>,
    /// The edge.
    pub(crate) endpoint: SocketAddr,
    /// Seconds between keepalives.
    #[serde(default = "keepalive")]
    pub(crate) keepalive: u16,
    /// What is reached through the edge; default 100.64.0.0/12 and the IPv6 source range.
    pub(crate) routes: Option<Vec<ipnet::IpNet>>,
}

/// `[gre]` of a site.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteGre {
    /// This side's address, on which GRE is taken.
    pub(crate) local: IpAddr,
    /// The edge's.
    pub(crate) remote: IpAddr,
    /// The key of both directions; default none. Or:
    pub(crate) key: Option<u32>,
    /// that of what is sent,
    pub(crate) key_tx: Option<u32>,
    /// and that of what comes.
    pub(crate) key_rx: Option<u32>,
    /// Packets are sent with a checksum, and must have one.
    #[serde(default)]
    pub(crate) checksum: bool,
    /// Packets are numbered, and late ones are dropped.
    #[serde(default)]
    pub(crate) sequence: bool,
    /// Seconds between keepalives; default none are sent. The edge's are answered in any case.
    pub(crate) keepalive_secs: Option<u16>,
    /// Keepalives without an answer after which the tunnel counts as down.
    #[serde(default = "retries")]
    pub(crate) keepalive_retries: u8,
    /// TTL of the outer header.
    #[serde(default = "ttl")]
    pub(crate) ttl: u8,
    /// What is reached through the edge; default 100.64.0.0/12 and the IPv6 source range.
    pub(crate) routes: Option<Vec<ipnet::IpNet>>,
}

fn retries() -> u8 {
    3
}

fn ttl() -> u8 {
    gre::TTL_DEFAULT
}

impl SiteGre {
    /// The tunnel as the router has it.
    pub(crate) fn tunnel(&self) -> anyhow::Result<gre::Config> {
        if self.key.is_some() && (self.key_tx.is_some() || self.key_rx.is_some()) {
            anyhow::bail!("[gre] has either key, or key_tx and key_rx");
        }
        Ok(gre::Config {
            local: self.local,
            remote: self.remote,
            key_tx: self.key.or(self.key_tx),
            key_rx: self.key.or(self.key_rx),
            is_checksummed: self.checksum,
            is_sequenced: self.sequence,
            keepalive: self.keepalive_secs.map(|interval_secs| gre::Keepalive {
                interval_secs,
                retries: self.keepalive_retries,
            }),
            ttl: self.ttl,
        })
    }
}

/// Keeps a NAT binding open: 25 s is what WireGuard's own documentation advises.
fn keepalive() -> u16 {
    25
}

impl SiteWireGuard {
    /// This side's key, from wherever it is.
    pub(crate) fn private_key(&self) -> anyhow::Result<PrivateKey> {
        match (&self.private_key, &self.private_key_file) {
            (Some(key), None) => Ok(*key),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read private_key_file {}", path.display()))?;
                text.trim()
                    .parse()
                    .with_context(|| format!("{} holds no key", path.display()))
            }
            (None, None) | (Some(_), Some(_)) => {
                anyhow::bail!("[wireguard] needs either private_key or private_key_file")
            }
        }
    }
}

/// Reads a configuration file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not right", path.display()))
}
