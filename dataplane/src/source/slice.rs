//! A node's part of the source range, and the IPv6 addresses that stand for the IPv4 ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::id::{WorkerId, Workers};

/// All IPv4 source addresses of all nodes: 100.64.0.0/12.
pub const RANGE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 12);

/// Length of the slices that nodes lease.
pub const SLICE_LEN: u8 = 20;

/// How many of them there are: a node's number has eight bits.
pub const SLICES: u32 = 1 << (SLICE_LEN - RANGE_V4.prefix_len());

/// All IPv6 source addresses of all nodes. The low 32 bits are the IPv4 source address, so that one
/// lease and one return table serve both.
pub const RANGE_V6: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0x2606, 0x4700, 0x0cf1, 0x5000, 0, 0, 0, 0),
    64,
);

/// Bits of an IPv6 source address before the embedded IPv4 one.
const EMBEDDING_LEN: u8 = 96;

/// The IPv6 source address that stands for an IPv4 one.
pub const fn to_v6(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(RANGE_V6.addr().to_bits() | address.to_bits() as u128)
}

/// The IPv4 source address inside an IPv6 one; `None` when [`to_v6`] would not have made it from
/// an address of [`RANGE_V4`].
pub fn to_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    let inside = Ipv4Addr::new(a, b, c, d);
    (to_v6(inside) == address && RANGE_V4.contains(&inside)).then_some(inside)
}

/// Whether an address lies in the source range of its family, leased or not. No private network
/// may use one as its own.
pub fn is_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => RANGE_V4.contains(&address),
        IpAddr::V6(address) => RANGE_V6.contains(&address),
    }
}

/// A prefix that cannot be a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// Outside of the source range.
    #[error("a slice lies inside 100.64.0.0/12, {0} does not")]
    OutOfRange(Ipv4Net),
    /// A worker needs a /24.
    #[error("a slice is a /12 to /24, {0} is smaller")]
    TooSmall(Ipv4Net),
}

/// A node's part of 100.64.0.0/12: a /12 to /24 inside it. Its /24s go to the workers in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ipv4Net", into = "Ipv4Net")]
pub struct Slice(Ipv4Net);

impl Slice {
    /// The slice with this prefix; host bits are ignored.
    ///
    /// # Errors
    /// When it lies outside of 100.64.0.0/12 or is smaller than a /24.
    pub fn new(net: Ipv4Net) -> Result<Self, SliceError> {
        let net = net.trunc();
        if !RANGE_V4.contains(&net) {
            return Err(SliceError::OutOfRange(net));
        }
        if net.prefix_len() > 24 {
            return Err(SliceError::TooSmall(net));
        }
        Ok(Self(net))
    }

    /// Its IPv4 prefix.
    pub fn net(&self) -> Ipv4Net {
        self.0
    }

    /// The IPv6 addresses that stand for it.
    pub fn net_v6(&self) -> Ipv6Net {
        Ipv6Net::new_assert(to_v6(self.0.network()), EMBEDDING_LEN + self.0.prefix_len())
    }

    /// The router's own address, first of the slice: ICMP errors come from it.
    pub fn router(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.network().to_bits() + 1)
    }

    /// The router's own IPv6 address.
    pub fn router_v6(&self) -> Ipv6Addr {
        to_v6(self.router())
    }

    /// How many /24s it has.
    pub fn blocks(&self) -> u32 {
        1 << (24 - self.0.prefix_len())
    }

    /// The `block`th /24 that a worker takes source addresses from: the slice's /24s go to its
    /// workers in turn, so that the worker follows from the address alone. `None` past the end.
    pub fn worker_net(&self, worker: WorkerId, workers: Workers, block: u32) -> Option<Ipv4Net> {
        let index = block * u32::from(workers.count()) + u32::from(worker.0);
        let first = Ipv4Addr::from_bits(self.0.network().to_bits() + (index << 8));
        (workers.has(worker) && index < self.blocks()).then(|| Ipv4Net::new_assert(first, 24))
    }
}

impl TryFrom<Ipv4Net> for Slice {
    type Error = SliceError;

    fn try_from(net: Ipv4Net) -> Result<Self, SliceError> {
        Self::new(net)
    }
}

impl From<Slice> for Ipv4Net {
    fn from(slice: Slice) -> Self {
        slice.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(net: &str) -> Result<Slice, SliceError> {
        Slice::new(net.parse().unwrap())
    }

    #[test]
    fn a_slice_has_the_addresses_of_the_design() {
        let slice = slice("100.64.16.0/20").unwrap();
        assert_eq!(slice.net(), "100.64.16.0/20".parse().unwrap());
        assert_eq!(slice.router(), Ipv4Addr::new(100, 64, 16, 1));
        let v6 = |s: &str| s.parse::<Ipv6Net>().unwrap();
        assert_eq!(slice.net_v6(), v6("2606:4700:cf1:5000::6440:1000/116"));
        assert_eq!(
            slice.router_v6(),
            "2606:4700:cf1:5000::100.64.16.1"
                .parse::<Ipv6Addr>()
                .unwrap()
        );
        let net = |worker, workers, block| {
            let workers = Workers::new(workers).unwrap();
            let net = slice.worker_net(WorkerId(worker), workers, block);
            net.map(|net| net.to_string())
        };
        assert_eq!(net(0, 1, 0).as_deref(), Some("100.64.16.0/24"));
        assert_eq!(net(0, 1, 15).as_deref(), Some("100.64.31.0/24"));
        assert_eq!(net(0, 1, 16), None);
        assert_eq!(net(1, 2, 0).as_deref(), Some("100.64.17.0/24"));
        assert_eq!(net(1, 2, 7).as_deref(), Some("100.64.31.0/24"));
        assert_eq!(net(1, 2, 8), None);
        assert_eq!(net(2, 2, 0), None);
    }

    #[test]
    fn a_slice_outside_of_the_range_or_below_a_24_is_refused() {
        for bad in ["10.0.0.0/20", "100.128.0.0/20", "100.0.0.0/8", "0.0.0.0/0"] {
            assert!(
                matches!(slice(bad), Err(SliceError::OutOfRange(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            slice("100.64.0.0/25"),
            Err(SliceError::TooSmall(_))
        ));
        assert!(slice("100.64.0.0/12").is_ok());
        assert!(slice("100.79.255.0/24").is_ok());
    }

    #[test]
    fn only_embedded_source_addresses_come_back_from_ipv6() {
        let v6 = |s: &str| to_v4(s.parse().unwrap());
        assert_eq!(
            v6("2606:4700:cf1:5000::100.64.0.2"),
            Some(Ipv4Addr::new(100, 64, 0, 2))
        );
        assert_eq!(v6("2606:4700:cf1:5000:1::100.64.0.2"), None);
        assert_eq!(v6("2606:4700:cf1:5001::100.64.0.2"), None);
        assert_eq!(v6("2606:4700:cf1:5000::10.0.0.2"), None);
        assert_eq!(v6("2606:4700:cf1:5000::1"), None);
        assert_eq!(v6("::ffff:100.64.0.2"), None);
    }
}
