//! The inner addresses of a tunnel's two ends.

use std::net::IpAddr;

use ipnet::IpNet;

/// Most interface addresses of a tunnel: one of each family, and again while they are changed.
pub const INTERFACES_MAX: usize = 4;

/// The far side's address of a link whose near side is `near`: the other address of a /31 (RFC 3021)
/// or /127 (RFC 6164), the other usable one of a /30 or /126. `None` for any other prefix, and for
/// the two unusable addresses.
#[must_use]
pub fn far_side(near: IpNet) -> Option<IpAddr> {
    let (address, network, host_bits) = match near {
        IpNet::V4(net) => (
            u128::from(net.addr().to_bits()),
            u128::from(net.network().to_bits()),
            32 - net.prefix_len(),
        ),
        IpNet::V6(net) => (
            net.addr().to_bits(),
            net.network().to_bits(),
            128 - net.prefix_len(),
        ),
    };
    let far = match (host_bits, address - network) {
        (1, _) => address ^ 1,
        (2, 1) => network + 2,
        (2, 2) => network + 1,
        _ => return None,
    };
    Some(match near {
        IpNet::V4(_) => IpAddr::from(u32::try_from(far).ok()?.to_be_bytes()),
        IpNet::V6(_) => IpAddr::from(far.to_be_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_far_side_is_the_links_other_address() {
        for (near, far) in [
            ("10.255.0.0/31", Some("10.255.0.1")),
            ("10.255.0.1/31", Some("10.255.0.0")),
            ("169.254.240.5/30", Some("169.254.240.6")),
            ("169.254.240.6/30", Some("169.254.240.5")),
            ("169.254.240.4/30", None),
            ("169.254.240.7/30", None),
            ("10.0.0.1/29", None),
            ("10.0.0.1/32", None),
            ("fd00::2/127", Some("fd00::3")),
            ("fd00::1/126", Some("fd00::2")),
            ("fd00::/126", None),
            ("fd00::1/64", None),
        ] {
            let expected = far.map(|far| far.parse().unwrap());
            assert_eq!(far_side(near.parse().unwrap()), expected, "{near}");
        }
    }
}
