//! The addresses inside a tunnel: a link of two, of which one is ours (api.md 4.2).

use std::net::IpAddr;

use dataplane::program::far_side;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::model::fields::echo;
use crate::model::{Fields, Refusal, address};

/// Where links inside tunnels may be (api.md 4.2).
const RANGES: [&str; 4] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.240.0/20",
];

/// Where IPv6 links inside tunnels may be: unique local and global unicast (RFC 4193, RFC 4291).
const RANGES6: [&str; 2] = ["fc00::/7", "2000::/3"];

/// Our addresses inside a tunnel, each with the length of the link's prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Ours in IPv4: of a /31 or /30.
    #[serde(default)]
    pub ipv4: Option<Ipv4Net>,
    /// Ours in IPv6: of a /127.
    #[serde(default)]
    pub ipv6: Option<Ipv6Net>,
}

impl Interface {
    /// Reads `interface_address` and `interface_address6`; what is not given stays as it was.
    ///
    /// # Errors
    /// An address of another length or range, or a missing one where `is_required`.
    pub fn read(
        fields: &mut Fields,
        old: Interface,
        is_required: bool,
    ) -> Result<Interface, Refusal> {
        let ipv4 = match (
            fields.is_null("interface_address"),
            fields.string("interface_address", 64)?,
        ) {
            (_, Some(text)) => Some(read_ipv4(fields, &text)?),
            (true, None) => None,
            (false, None) => old.ipv4,
        };
        if is_required {
            fields.required("interface_address", ipv4)?;
        }
        let ipv6 = match (
            fields.is_null("interface_address6"),
            fields.string("interface_address6", 64)?,
        ) {
            (_, Some(text)) if !text.is_empty() => Some(read_ipv6(fields, &text)?),
            (true, None) | (_, Some(_)) => None,
            (false, None) => old.ipv6,
        };
        Ok(Interface { ipv4, ipv6 })
    }

    /// The links, each with our address.
    pub fn links(&self) -> impl Iterator<Item = IpNet> {
        let ipv4 = self.ipv4.map(IpNet::V4);
        ipv4.into_iter().chain(self.ipv6.map(IpNet::V6))
    }

    /// The customer's addresses: where routes lead.
    pub fn customer_sides(&self) -> impl Iterator<Item = IpAddr> {
        self.links().filter_map(far_side)
    }

    /// A link of each that has addresses in common: ours, and the other's.
    pub fn overlap(&self, other: &Interface) -> Option<(IpNet, IpNet)> {
        let all = self
            .links()
            .flat_map(|a| other.links().map(move |b| (a, b)));
        all.into_iter()
            .find(|(a, b)| a.contains(&b.network()) || b.contains(&a.network()))
    }
}

fn read_ipv4(fields: &Fields, text: &str) -> Result<Ipv4Net, Refusal> {
    let name = "interface_address";
    let Ok(net) = text.parse::<Ipv4Net>() else {
        let why = format!(
            "'{}' is not an IPv4 address with a length, such as 10.255.0.0/31.",
            echo(text)
        );
        return Err(fields.refuse(name, why));
    };
    if !matches!(net.prefix_len(), 30 | 31) {
        let why = format!("{net}: the link inside a tunnel is a /31 (or a /30).");
        return Err(fields.refuse(name, why));
    }
    if !RANGES.iter().any(|range| is_within(range, IpNet::V4(net))) {
        let why = format!(
            "{net}: choose from 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 169.254.240.0/20."
        );
        return Err(fields.refuse(name, why));
    }
    match far_side(IpNet::V4(net)) {
        Some(_) => Ok(net),
        None => {
            let why = format!("{net} is not one of the two host addresses of its /30.");
            Err(fields.refuse(name, why))
        }
    }
}

fn read_ipv6(fields: &Fields, text: &str) -> Result<Ipv6Net, Refusal> {
    let name = "interface_address6";
    let Ok(net) = text.parse::<Ipv6Net>() else {
        let why = format!(
            "'{}' is not an IPv6 address with a length, such as fd00::1:0/127.",
            echo(text)
        );
        return Err(fields.refuse(name, why));
    };
    if net.prefix_len() != 127 {
        let why = format!("{net}: the IPv6 link inside a tunnel is a /127.");
        return Err(fields.refuse(name, why));
    }
    let link = IpNet::V6(net);
    if !RANGES6.iter().any(|range| is_within(range, link)) {
        let why = format!("{net}: choose from fc00::/7, or from a global prefix of yours.");
        return Err(fields.refuse(name, why));
    }
    match address::reserved(&link.trunc()) {
        None => Ok(net),
        Some((range, purpose)) => {
            let why = format!("{net} lies inside {range}, which is reserved for {purpose}.");
            Err(fields.refuse(name, why))
        }
    }
}

fn is_within(range: &str, net: IpNet) -> bool {
    let range: IpNet = range
        .parse()
        .expect("the ranges above are written correctly");
    range.contains(&net)
}
