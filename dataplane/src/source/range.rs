//! Where a vnet's private network sees the source addresses: a /12 of its own choice.
//!
//! Inside a node, and between nodes, a source address is always the one of 100.64.0.0/12 that was lent. It is
//! translated, first twelve bits for first twelve bits, where packets enter and leave the vnet's tunnels. So a
//! vnet's choice meets neither the addresses of the machine nor those of another vnet.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::RANGE_V4;

/// Bits of a range that are the same in all its addresses.
const LEN: u8 = RANGE_V4.prefix_len();
/// The bits that tell the addresses of a range apart.
const OFFSET: u32 = u32::MAX >> LEN;

/// What a range may be a part of: addresses that nobody has in the Internet (RFC 1918, RFC 6598).
const PRIVATE: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
];

/// A prefix that cannot be a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Of another length.
    #[error("a source range is one /12, such as 10.240.0.0/12, and {0} is not")]
    Length(Ipv4Net),
    /// Addresses of the Internet, or of no host.
    #[error("{0} is not private: choose a /12 of 10.0.0.0/8, 172.16.0.0/12 or 100.64.0.0/10")]
    Public(Ipv4Net),
}

/// The IPv4 source range as the private network of a vnet sees it; 100.64.0.0/12 unless another was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ipv4Net", into = "Ipv4Net")]
pub struct Range(Ipv4Net);

impl Range {
    /// The range with this prefix.
    ///
    /// # Errors
    /// When it is not a /12 without host bits, or not private.
    pub fn new(net: Ipv4Net) -> Result<Self, RangeError> {
        if net.prefix_len() != LEN || net != net.trunc() {
            return Err(RangeError::Length(net));
        }
        if !PRIVATE.iter().any(|private| private.contains(&net)) {
            return Err(RangeError::Public(net));
        }
        Ok(Self(net))
    }

    /// Its prefix.
    #[must_use]
    pub fn net(self) -> Ipv4Net {
        self.0
    }

    /// Whether it is 100.64.0.0/12, and nothing has to be translated.
    #[must_use]
    pub fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// How the private network sees a lent address.
    #[must_use]
    pub fn seen(self, lent: Ipv4Addr) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.addr().to_bits() | (lent.to_bits() & OFFSET))
    }

    /// The address of 100.64.0.0/12 that the private network sees so; `None` outside of the range.
    #[must_use]
    pub fn lent(self, seen: Ipv4Addr) -> Option<Ipv4Addr> {
        let lent = RANGE_V4.addr().to_bits() | (seen.to_bits() & OFFSET);
        self.0.contains(&seen).then_some(Ipv4Addr::from_bits(lent))
    }
}

impl Default for Range {
    fn default() -> Self {
        Self(RANGE_V4)
    }
}

impl TryFrom<Ipv4Net> for Range {
    type Error = RangeError;

    fn try_from(net: Ipv4Net) -> Result<Self, RangeError> {
        Self::new(net)
    }
}

impl From<Range> for Ipv4Net {
    fn from(range: Range) -> Self {
        range.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_one_private_12() {
        let new = |net: &str| Range::new(net.parse().unwrap());
        for good in [
            "10.0.0.0/12",
            "10.240.0.0/12",
            "172.16.0.0/12",
            "100.80.0.0/12",
        ] {
            assert_eq!(new(good).unwrap().net().to_string(), good);
        }
        for bad in ["10.0.0.0/8", "10.16.0.0/13", "10.16.0.1/12", "0.0.0.0/0"] {
            assert!(matches!(new(bad), Err(RangeError::Length(_))), "{bad}");
        }
        for bad in [
            "192.160.0.0/12",
            "172.32.0.0/12",
            "100.128.0.0/12",
            "224.0.0.0/12",
        ] {
            assert!(matches!(new(bad), Err(RangeError::Public(_))), "{bad}");
        }
        assert!(Range::default().is_plain());
        assert!(serde_json::from_str::<Range>("\"8.0.0.0/12\"").is_err());
    }

    proptest! {
        #[test]
        fn lent_and_seen_are_a_bijection(number in 0_u8..16, offset in 0..=OFFSET) {
            let net = Ipv4Net::new_assert(Ipv4Addr::new(10, number << 4, 0, 0), 12);
            let range = Range::new(net).unwrap();
            let lent = Ipv4Addr::from_bits(RANGE_V4.addr().to_bits() + offset);
            let seen = range.seen(lent);
            prop_assert!(net.contains(&seen));
            prop_assert_eq!(range.lent(seen), Some(lent));
            prop_assert_eq!(range.lent(lent), None);
            prop_assert_eq!(Range::default().seen(lent), lent);
        }
    }
}
