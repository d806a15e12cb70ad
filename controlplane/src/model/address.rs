//! Address ranges with a meaning: private, reserved, impossible; and strict prefixes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::fields::echo;

/// Ranges that make a proxied record private by itself (api.md 2.3; RFC 1918, RFC 6598, RFC 4193).
const PRIVATE: [&str; 5] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
];

/// Ranges with a use of their own inside every vnet (api.md 3.2): no route inside one of them. The IPv4 source
/// range is the account's choice.
const RESERVED: [(&str, &str); 6] = [
    ("172.64.128.0/20", "initial resolved addresses"),
    ("100.96.0.0/12", "devices"),
    ("100.112.0.0/16", "private load balancers"),
    ("2606:4700:cf1:5000::/64", "source addresses of the edge"),
    ("2606:4700:cf1:4000::/64", "initial resolved addresses"),
    ("2606:4700:cf1:1000::/64", "devices"),
];

/// Ranges that name no single host elsewhere (RFC 6890): never an origin.
const IMPOSSIBLE: [&str; 10] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "fe80::/10",
    "ff00::/8",
];

/// Whether a proxied record with this content is private without being told so.
pub fn is_private(ip: IpAddr) -> bool {
    PRIVATE.iter().any(|range| net(range).contains(&ip))
}

/// Whether no origin can have this address: unspecified, loopback, link-local, multicast, mapped.
pub fn is_impossible(ip: IpAddr) -> bool {
    IMPOSSIBLE.iter().any(|range| net(range).contains(&ip))
}

/// The reserved range that contains all of `prefix`, and what it is for.
pub fn reserved(prefix: &IpNet) -> Option<(&'static str, &'static str)> {
    RESERVED
        .into_iter()
        .find(|(range, _)| net(range).contains(prefix))
}

/// A reserved range that has some address of `prefix`, and what it is for.
pub fn shared(prefix: &IpNet) -> Option<(&'static str, &'static str)> {
    RESERVED
        .into_iter()
        .find(|(range, _)| net(range).contains(prefix) || prefix.contains(&net(range)))
}

/// The reserved range that contains the address, and what it is for.
pub fn reserved_ip(ip: IpAddr) -> Option<(&'static str, &'static str)> {
    reserved(&IpNet::from(ip))
}

/// Parses a prefix strictly: `ADDRESS/LENGTH`, host bits zero, not an IPv4-mapped IPv6 address.
///
/// # Errors
/// A sentence that says what is wrong and, where it can, what was probably meant.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    // The parts by themselves: std's addresses have no leading zeros, which some read as octal.
    let parts = text.split_once('/').and_then(|(ip, length)| {
        let is_number = length.bytes().all(|b| b.is_ascii_digit());
        let length = length.parse().ok().filter(|_| is_number)?;
        IpNet::new(ip.parse().ok()?, length).ok()
    });
    let prefix = parts.ok_or_else(|| {
        let shown = echo(text);
        format!(
            "Could not parse input / invalid address: '{shown}' is not a CIDR such as 10.0.0.0/8."
        )
    })?;
    if let IpNet::V6(v6) = prefix
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(format!(
            "{prefix} is an IPv4-mapped IPv6 address: write it as IPv4."
        ));
    }
    if prefix.trunc() != prefix {
        let meant = prefix.trunc();
        return Err(format!(
            "{prefix} has bits set after its length: did you mean {meant}?"
        ));
    }
    Ok(prefix)
}

/// Parses an IPv4 or IPv6 address that may be an origin's.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_origin(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text
        .parse()
        .map_err(|_why| format!("'{}' is not an IP address.", echo(text)))?;
    if is_impossible(ip) || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{ip} cannot be the address of an origin."));
    }
    Ok(ip)
}

fn net(range: &str) -> IpNet {
    range
        .parse()
        .expect("the ranges above are written correctly")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_ranges_are_private_and_their_neighbours_are_not() {
        for ip in [
            "10.0.0.0",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.9.9",
            "100.127.255.255",
        ] {
            assert!(is_private(ip.parse().unwrap()), "{ip}");
        }
        assert!(is_private("fd12::1".parse().unwrap()));
        for ip in [
            "9.255.255.255",
            "172.32.0.0",
            "192.169.0.0",
            "100.128.0.0",
            "fe00::1",
        ] {
            assert!(!is_private(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_route_inside_a_reserved_range_is_found_and_a_wider_one_is_not() {
        for text in ["100.96.0.0/12", "100.112.3.0/24", "2606:4700:cf1:5000::/80"] {
            assert!(reserved(&text.parse().unwrap()).is_some(), "{text}");
        }
        for text in [
            "0.0.0.0/0",
            "100.64.0.0/10",
            "100.64.0.0/12",
            "10.0.0.0/8",
            "::/0",
        ] {
            assert!(reserved(&text.parse().unwrap()).is_none(), "{text}");
        }
    }

    #[test]
    fn prefixes_are_read_strictly() {
        assert!(parse_prefix("0.0.0.0/0").is_ok());
        assert!(
            parse_prefix("10.0.0.1/24")
                .unwrap_err()
                .contains("10.0.0.0/24")
        );
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "x",
            "",
            "::ffff:10.0.0.0/104",
            "010.0.0.0/8",
        ] {
            assert!(parse_prefix(bad).is_err(), "{bad}");
        }
    }
}
