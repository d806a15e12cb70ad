//! Direct links: an interface whose other side is the private network. Nothing is encapsulated.
//!
//! Of two kinds. A TUN device is made here and moved to where the network is: into a namespace, a container, a
//! virtual machine's host side; packets cross it as super-packets, with their checksums left open. An Ethernet
//! interface or VLAN is handed over: there the router has an address of its own, and finds its one neighbour
//! itself. A link has no session; the driver owns the device.

mod neighbour;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use neighbour::{Neighbours, Next};

/// A direct link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Name of the device, 1..=15 bytes, in the router's namespace: of a TUN device that is made, or of an Ethernet
    /// interface that is there.
    pub device: String,
    /// Our addresses on an Ethernet interface, at most one of each family, in a net of two hosts (/31 or /30, /127
    /// or /126): the other is the neighbour. None: a TUN device.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
}

/// Why an Ethernet interface cannot be taken as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No net of two.
    #[error("{0} has no one other host in it: give a /31 or /30, or for IPv6 a /127 or /126")]
    NotTwo(IpNet),
    /// More than one of a family.
    #[error("{0} is the second address of its family: a link has one neighbour")]
    Second(IpNet),
}

impl Config {
    /// Our address and the neighbour's of each family; nothing for a TUN device.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn ends(&self) -> Result<Vec<(IpAddr, IpAddr)>, AddressError> {
        let mut ends: Vec<(IpAddr, IpAddr)> = Vec::new();
        for net in &self.addresses {
            if ends
                .iter()
                .any(|(ours, _)| ours.is_ipv4() == net.addr().is_ipv4())
            {
                return Err(AddressError::Second(*net));
            }
            let neighbour = neighbour_of(*net).ok_or(AddressError::NotTwo(*net))?;
            ends.push((net.addr(), neighbour));
        }
        Ok(ends)
    }
}

/// The other host of a net of two.
fn neighbour_of(net: IpNet) -> Option<IpAddr> {
    let flip = match net.max_prefix_len() - net.prefix_len() {
        1 => 1,
        // Of four addresses the middle two are hosts.
        2 => 3,
        _ => return None,
    };
    let last_two = match net.addr() {
        IpAddr::V4(address) => address.octets()[3] & 3,
        IpAddr::V6(address) => address.octets()[15] & 3,
    };
    if flip == 3 && (last_two == 0 || last_two == 3) {
        return None;
    }
    Some(match net.addr() {
        IpAddr::V4(address) => std::net::Ipv4Addr::from_bits(address.to_bits() ^ flip).into(),
        IpAddr::V6(address) => {
            std::net::Ipv6Addr::from_bits(address.to_bits() ^ u128::from(flip)).into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(addresses: &[&str]) -> Result<Vec<(IpAddr, IpAddr)>, AddressError> {
        let config = Config {
            device: "eth9".into(),
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        };
        config.ends()
    }

    #[test]
    fn the_neighbour_is_the_other_host_of_a_net_of_two() {
        for (ours, theirs) in [
            ("10.8.0.0/31", "10.8.0.1"),
            ("10.8.0.1/31", "10.8.0.0"),
            ("10.8.0.1/30", "10.8.0.2"),
            ("10.8.0.2/30", "10.8.0.1"),
            ("fd00:8::/127", "fd00:8::1"),
            ("fd00:8::2/126", "fd00:8::1"),
        ] {
            assert_eq!(
                ends(&[ours]).unwrap()[0].1,
                theirs.parse::<IpAddr>().unwrap()
            );
        }
        assert_eq!(ends(&["10.8.0.0/31", "fd00:8::/127"]).unwrap().len(), 2);
    }

    #[test]
    fn a_net_of_more_or_less_than_two_is_refused_and_so_is_a_second_address() {
        for net in [
            "10.8.0.1/24",
            "10.8.0.1/32",
            "10.8.0.0/30",
            "10.8.0.3/30",
            "fd00::1/64",
        ] {
            assert_eq!(
                ends(&[net]),
                Err(AddressError::NotTwo(net.parse().unwrap()))
            );
        }
        let second: IpNet = "10.8.0.2/31".parse().unwrap();
        let both = ends(&["10.8.0.0/31", "10.8.0.2/31"]);
        assert_eq!(both, Err(AddressError::Second(second)));
    }
}
