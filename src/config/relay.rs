//! `[router] relay`: an address, with or without a port.

use std::net::{IpAddr, SocketAddr};

use dataplane::wire::geneve;
use serde::de::{Deserialize as _, Deserializer, Error as _};

/// Reads `10.9.0.1`, `10.9.0.1:6081`, `fd00:9::1` or `[fd00:9::1]:6081`.
///
/// # Errors
/// When it is none of these, or no address that other edges can reach this one at.
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).map(Some).map_err(D::Error::custom)
}

fn parse(text: &str) -> Result<SocketAddr, String> {
    let with_port = |ip: IpAddr| SocketAddr::new(ip, geneve::PORT);
    let address = text.parse::<SocketAddr>();
    let address = address.or_else(|_no_port| text.parse::<IpAddr>().map(with_port));
    let address = address.map_err(|_no_address| {
        format!(
            "relay is \"{text}\": give an address of this machine, and a UDP port if it is not {}",
            geneve::PORT
        )
    })?;
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
        return Err(format!(
            "relay is \"{text}\", where no other edge reaches this one: give one address, and no port or \
             one above 0"
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use crate::config::Router;

    #[test]
    fn a_relay_has_the_port_of_geneve_unless_it_says_another() {
        for (text, expected) in [
            ("10.9.0.1", "10.9.0.1:6081"),
            ("10.9.0.1:7000", "10.9.0.1:7000"),
            ("fd00:9::1", "[fd00:9::1]:6081"),
            ("[fd00:9::1]:7000", "[fd00:9::1]:7000"),
        ] {
            let router: Router = toml::from_str(&format!("relay = \"{text}\"")).unwrap();
            assert_eq!(router.relay, Some(expected.parse().unwrap()));
        }
        let router: Router = toml::from_str("").unwrap();
        assert_eq!(router.relay, None);
    }

    #[test]
    fn what_is_no_address_of_one_edge_is_refused_by_name() {
        for text in [
            "edge-1",
            "10.9.0.1:",
            "10.9.0.1:65536",
            "10.9.0.0/24",
            "0.0.0.0",
            "[::]:6081",
            "224.0.0.1",
            "10.9.0.1:0",
            "",
        ] {
            let refused = toml::from_str::<Router>(&format!("relay = \"{text}\"")).unwrap_err();
            let sentence = refused.to_string();
            assert!(
                sentence.contains(&format!("relay is \"{text}\"")),
                "{sentence}"
            );
        }
    }
}
