//! Addresses that a public name may not lead to: they would reach the edge itself or its neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the address is not one of the Internet. IPv4-mapped addresses are to be unmapped first.
///
/// The ranges: RFC 1122 (this host, loopback), RFC 1918 (private), RFC 3927 and RFC 4291
/// (link-local), RFC 6598 (shared), RFC 5771 and RFC 4291 (multicast), RFC 919 (broadcast),
/// RFC 1112 (reserved), RFC 4193 (unique local), RFC 6052 (NAT64, which could hide any of them).
pub(super) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_local_v4(v4),
        IpAddr::V6(v6) => is_local_v6(v6),
    }
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
}

fn is_local_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || (a == 0x64 && b == 0xff9b)
        || address.to_ipv4().is_some()
}
