//! A layer-4 (Spectrum) app: ports of the edge, and the origins behind them.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fields::echo;
use super::origin_dns::OriginDns;
use super::{Fields, HexId, Refusal, Resource, Timestamp, address, host_name};

/// Code of a field that is wrong in a way that no other code names.
pub const INVALID: u32 = 11_003;
/// Exactly one kind of origin.
pub const ONE_ORIGIN_KIND: u32 = 11_000;
/// An origin address that does not parse.
pub const BAD_ORIGIN: u32 = 11_002;
/// `dns.type` and `edge_ips.type` do not fit.
pub const DNS_TYPE: u32 = 11_004;
/// The protocol is not carried.
pub const PROTOCOL: u32 = 13_002;

/// Most origins of one app: a bound for the proxy's choice, far above the product's own pages.
const ORIGINS_MAX: usize = 64;

/// TCP or UDP, by the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The word in `protocol` and in origins.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

impl FromStr for Transport {
    type Err = ();

    fn from_str(s: &str) -> Result<Transport, ()> {
        match s {
            "tcp" => Ok(Transport::Tcp),
            "udp" => Ok(Transport::Udp),
            _ => Err(()),
        }
    }
}

/// Ports from `first` to `last`, both included; never 0, never backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last; equal to `first` for a single port.
    pub last: u16,
}

impl Ports {
    /// How many ports follow the first.
    pub fn span(self) -> u16 {
        self.last - self.first
    }

    /// Whether the two share a port.
    pub fn overlaps(self, other: Ports) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for Ports {
    type Err = ();

    fn from_str(s: &str) -> Result<Ports, ()> {
        let (first, last) = s.split_once('-').unwrap_or((s, s));
        let port = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u16>().ok().filter(|&port| port != 0).ok_or(()),
            false => Err(()),
        };
        let ports = Ports {
            first: port(first)?,
            last: port(last)?,
        };
        if ports.first <= ports.last {
            Ok(ports)
        } else {
            Err(())
        }
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// An address and the ports that the edge's ports map to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The address.
    pub ip: IpAddr,
    /// The ports; as many as at the edge.
    pub ports: Ports,
}

/// Which of the edge's addresses an app listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum EdgeIps {
    /// Those of the edge, by family: `all`, `ipv4` or `ipv6`.
    Dynamic {
        /// The family.
        connectivity: Connectivity,
    },
    /// These.
    Static {
        /// The addresses.
        ips: Vec<IpAddr>,
    },
}

/// An address family of the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connectivity {
    /// Both.
    All,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl EdgeIps {
    /// The addresses, of those that the edge has.
    pub fn of(&self, edge: &[IpAddr]) -> Vec<IpAddr> {
        let is_meant = |ip: &IpAddr| match self {
            EdgeIps::Static { ips } => ips.contains(ip),
            EdgeIps::Dynamic { connectivity } => match connectivity {
                Connectivity::All => true,
                Connectivity::Ipv4 => ip.is_ipv4(),
                Connectivity::Ipv6 => ip.is_ipv6(),
            },
        };
        edge.iter().copied().filter(is_meant).collect()
    }
}

/// A layer-4 app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its id.
    pub id: HexId,
    /// The zone its name is in.
    pub zone_id: HexId,
    /// TCP or UDP.
    pub transport: Transport,
    /// The edge's ports.
    pub ports: Ports,
    /// The name customers give to clients.
    pub hostname: String,
    /// Where to; several share the load. Empty with `origin_dns`.
    pub origins: Vec<Origin>,
    /// The name that has the origin's addresses, in place of `origins`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_dns: Option<OriginDns>,
    /// The vnet the one origin is in; `None` is the public Internet.
    pub virtual_network_id: Option<Uuid>,
    /// Where the edge listens.
    pub edge_ips: EdgeIps,
    /// When it was made.
    pub created_on: Timestamp,
    /// When it last changed.
    pub modified_on: Timestamp,
}

impl App {
    /// The app that a body describes.
    ///
    /// # Errors
    /// A field that is wrong, missing or not carried, with the documented code (api.md 5.3).
    pub fn read(
        mut fields: Fields,
        id: HexId,
        zone_id: HexId,
        now: Timestamp,
    ) -> Result<App, Refusal> {
        let (transport, ports) = read_protocol(&mut fields)?;
        let (hostname, dns_type) = read_dns(&mut fields)?;
        let edge_ips = read_edge_ips(&mut fields, &dns_type)?;
        let virtual_network_id = read_vnet(&mut fields)?;
        let is_private = virtual_network_id.is_some();
        let texts = read_origin_texts(&mut fields, is_private)?;
        let origin_dns = match texts.is_empty() {
            true => Some(OriginDns::read(&mut fields, ports)?),
            false => {
                fields.ignore(&["origin_port"]);
                None
            }
        };
        refuse_uncarried(&mut fields)?;
        fields.ignore(&["id", "created_on", "modified_on"]);
        fields.finish()?;
        let mut origins = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let origin = parse_origin(text, transport).map_err(|why| {
                Refusal::invalid(BAD_ORIGIN, why).at(&format!("origin_direct/{index}"))
            })?;
            origins.push(origin);
        }
        if origin_dns.is_none() {
            check_origins(&origins, ports, is_private)?;
        }
        Ok(App {
            id,
            zone_id,
            transport,
            ports,
            hostname,
            origins,
            origin_dns,
            virtual_network_id,
            edge_ips,
            created_on: now,
            modified_on: now,
        })
    }

    /// The origins' ports: all have the same.
    pub fn origin_ports(&self) -> Option<Ports> {
        let named = self.origin_dns.as_ref().map(|origin| origin.ports);
        named.or_else(|| self.origins.first().map(|origin| origin.ports))
    }

    /// The origin addresses with the port that belongs to the first edge port.
    pub fn origin_sockets(&self) -> Vec<SocketAddr> {
        let socket = |origin: &Origin| SocketAddr::new(origin.ip, origin.ports.first);
        self.origins.iter().map(socket).collect()
    }
}

impl Resource for App {
    const KIND: &'static str = "spectrum_app";
    const ON_NODES: bool = true;
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}

fn read_protocol(fields: &mut Fields) -> Result<(Transport, Ports), Refusal> {
    let text = fields.string("protocol", 32)?;
    let text = fields.required("protocol", text)?;
    let parsed = text
        .split_once('/')
        .and_then(|(transport, ports)| Some((transport.parse().ok()?, ports.parse().ok()?)));
    parsed.ok_or_else(|| {
        let why = format!(
            "'{}' is not tcp/PORT, udp/PORT or a range such as tcp/1000-2000.",
            echo(&text)
        );
        Refusal::invalid(PROTOCOL, why).at("protocol")
    })
}

fn read_dns(fields: &mut Fields) -> Result<(String, String), Refusal> {
    let dns = fields.object("dns")?;
    let mut dns = fields.required("dns", dns)?;
    let name = dns.string("name", host_name::NAME_LEN_MAX + 1)?;
    let name = dns.required("name", name)?;
    let name = host_name::normal(&name).map_err(|why| dns.refuse("name", why))?;
    let kind = dns
        .string("type", 16)?
        .unwrap_or_else(|| "CNAME".to_owned());
    if !matches!(kind.as_str(), "CNAME" | "ADDRESS") {
        return Err(dns.refuse("type", "'dns.type' must be CNAME or ADDRESS."));
    }
    dns.finish()?;
    Ok((name, kind))
}

fn read_edge_ips(fields: &mut Fields, dns_type: &str) -> Result<EdgeIps, Refusal> {
    let edge_ips = match fields.object("edge_ips")? {
        None => EdgeIps::Dynamic {
            connectivity: Connectivity::All,
        },
        Some(mut edge) => {
            let kind = edge
                .string("type", 16)?
                .unwrap_or_else(|| "dynamic".to_owned());
            let connectivity = edge.string("connectivity", 16)?;
            let ips = edge.strings("ips", 64)?.unwrap_or_default();
            let edge_ips = match (kind.as_str(), connectivity.as_deref()) {
                ("dynamic", None | Some("all")) => EdgeIps::Dynamic {
                    connectivity: Connectivity::All,
                },
                ("dynamic", Some("ipv4")) => EdgeIps::Dynamic {
                    connectivity: Connectivity::Ipv4,
                },
                ("dynamic", Some("ipv6")) => EdgeIps::Dynamic {
                    connectivity: Connectivity::Ipv6,
                },
                ("dynamic", Some(_)) => {
                    return Err(
                        edge.refuse("connectivity", "'connectivity' must be all, ipv4 or ipv6.")
                    );
                }
                ("static", _) => EdgeIps::Static {
                    ips: parse_ips(&edge, &ips)?,
                },
                _ => return Err(edge.refuse("type", "'edge_ips.type' must be dynamic or static.")),
            };
            edge.finish()?;
            edge_ips
        }
    };
    let wanted = match edge_ips {
        EdgeIps::Dynamic { .. } => "CNAME",
        EdgeIps::Static { .. } => "ADDRESS",
    };
    if dns_type != wanted {
        let why = format!("These edge_ips need dns.type {wanted}, not {dns_type}.");
        return Err(Refusal::invalid(DNS_TYPE, why).at("dns/type"));
    }
    Ok(edge_ips)
}

fn parse_ips(edge: &Fields, texts: &[String]) -> Result<Vec<IpAddr>, Refusal> {
    if texts.is_empty() {
        return Err(edge.refuse("ips", "Static edge_ips need at least one address in 'ips'."));
    }
    let parse = |(index, text): (usize, &String)| {
        let why = || {
            edge.refuse(
                &format!("ips/{index}"),
                format!("'{}' is not an IP address.", echo(text)),
            )
        };
        text.parse().ok().ok_or_else(why)
    };
    texts.iter().enumerate().map(parse).collect()
}

fn read_vnet(fields: &mut Fields) -> Result<Option<Uuid>, Refusal> {
    let Some(text) = fields.string("virtual_network_id", 256)? else {
        return Ok(None);
    };
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_why| {
        let why = format!("virtual_network_id must be a UUID, not '{}'.", echo(&text));
        Refusal::invalid(11_045, why).at("virtual_network_id")
    })
}

fn read_origin_texts(fields: &mut Fields, is_private: bool) -> Result<Vec<String>, Refusal> {
    let texts = fields.strings("origin_direct", 128)?.unwrap_or_default();
    let others = ["origin_dns", "origin_worker_id"]
        .into_iter()
        .find(|name| fields.has(name));
    match (texts.is_empty(), others) {
        (false, None) => Ok(texts),
        (true, Some("origin_dns")) if !is_private && !fields.has("origin_worker_id") => Ok(texts),
        (true, _) if is_private => Err(Refusal::invalid(
            11_041,
            "An app with a virtual network needs origin_direct.",
        )
        .at("origin_direct")),
        (true, None) => Err(Refusal::invalid(
            ONE_ORIGIN_KIND,
            "An app needs origin_direct or origin_dns.",
        )
        .at("origin_direct")),
        (false, Some(other)) => Err(Refusal::invalid(
            ONE_ORIGIN_KIND,
            format!("An app has exactly one kind of origin: origin_direct or {other}, not both."),
        )
        .at(other)),
        (true, Some(other)) => Err(Refusal::invalid(
            ONE_ORIGIN_KIND,
            format!("'{other}' is not carried here: give origin_direct."),
        )
        .at(other)),
    }
}

/// Fields with a value that would do nothing here are refused; their neutral values are taken.
fn refuse_uncarried(fields: &mut Fields) -> Result<(), Refusal> {
    for (name, neutral) in [
        ("traffic_type", "direct"),
        ("proxy_protocol", "off"),
        ("tls", "off"),
    ] {
        if let Some(value) = fields.string(name, 32)?
            && value != neutral
        {
            let why = format!(
                "'{name}': '{}' is not carried here, only '{neutral}'.",
                echo(&value)
            );
            return Err(fields.refuse(name, why));
        }
    }
    for name in ["ip_firewall", "argo_smart_routing"] {
        if fields.boolean(name)? == Some(true) {
            return Err(fields.refuse(name, format!("'{name}' is not carried here.")));
        }
    }
    Ok(())
}

fn parse_origin(text: &str, transport: Transport) -> Result<Origin, String> {
    let form = format!("{}://ADDRESS:PORT", transport.name());
    let wrong = || format!("'{}' is not {form}, with IPv6 in brackets.", echo(text));
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    if scheme.parse() != Ok(transport) {
        return Err(format!(
            "'{}' must begin with {}://, as the protocol does.",
            echo(text),
            transport.name()
        ));
    }
    let (host, ports) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let ports = ports.parse().map_err(|()| wrong())?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ip = address::parse_origin(bare.unwrap_or(host))?;
    if ip.is_ipv6() != bare.is_some() {
        return Err(wrong());
    }
    Ok(Origin { ip, ports })
}

fn check_origins(origins: &[Origin], edge: Ports, is_private: bool) -> Result<(), Refusal> {
    let at = "origin_direct";
    if is_private && origins.len() != 1 {
        return Err(Refusal::invalid(
            11_042,
            "An app with a virtual network has exactly one origin.",
        )
        .at(at));
    }
    let has_range = edge.span() != 0 || origins.iter().any(|origin| origin.ports.span() != 0);
    if is_private && has_range {
        return Err(Refusal::invalid(
            11_043,
            "An app with a virtual network has one port, not a range.",
        )
        .at(at));
    }
    if origins.len() > ORIGINS_MAX {
        return Err(Refusal::invalid(
            BAD_ORIGIN,
            format!("An app has at most {ORIGINS_MAX} origins."),
        )
        .at(at));
    }
    let first = origins.first().map(|origin| origin.ports);
    if origins
        .iter()
        .any(|origin| origin.ports.span() != edge.span() || Some(origin.ports) != first)
    {
        let why = "Every origin must have the same ports, and as many as the edge.";
        return Err(Refusal::invalid(BAD_ORIGIN, why).at(at));
    }
    match origins.iter().find(|origin| address::is_private(origin.ip)) {
        Some(origin) if !is_private => {
            let why = format!(
                "{} is a private address: name its virtual_network_id.",
                origin.ip
            );
            Err(Refusal::invalid(BAD_ORIGIN, why).at(at))
        }
        Some(_) | None => Ok(()),
    }
}
