//! Traffic selectors: what both sides want to carry (RFC 7296 section 2.9).

use std::net::IpAddr;

use crate::wire::ikev2::payload::{SELECTORS_MAX, Selector};

/// What is in both lists: every pair's common part, [`SELECTORS_MAX`] at most. Empty when nothing
/// is.
#[must_use]
pub(super) fn narrow(offered: &[Selector], ours: &[Selector]) -> Vec<Selector> {
    let mut common = Vec::new();
    for ours in ours {
        for offered in offered {
            if let Some(both) = intersect(offered, ours)
                && !common.contains(&both)
                && common.len() < SELECTORS_MAX
            {
                common.push(both);
            }
        }
    }
    common
}

/// Whether every address of `inner` is in one of `outer`, with protocol and ports.
#[must_use]
pub(super) fn is_within(inner: &[Selector], outer: &[Selector]) -> bool {
    inner.iter().all(|inner| {
        outer
            .iter()
            .any(|outer| intersect(inner, outer) == Some(*inner))
    })
}

fn intersect(a: &Selector, b: &Selector) -> Option<Selector> {
    let protocol = match (a.protocol, b.protocol) {
        (0, other) | (other, 0) => other,
        (a, b) if a == b => a,
        _ => return None,
    };
    let ports = (a.ports.0.max(b.ports.0), a.ports.1.min(b.ports.1));
    let addresses = (
        a.addresses.0.max(b.addresses.0),
        a.addresses.1.min(b.addresses.1),
    );
    // Families never mix: an IPv4 address is less than every IPv6 address.
    let is_one_family = [a.addresses.0, a.addresses.1, b.addresses.0, b.addresses.1]
        .map(|address: IpAddr| address.is_ipv4());
    let is_one_family = is_one_family.iter().all(|is_v4| *is_v4 == is_one_family[0]);
    let is_range = ports.0 <= ports.1 && addresses.0 <= addresses.1;
    (is_one_family && is_range).then_some(Selector {
        protocol,
        ports,
        addresses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(protocol: u8, ports: (u16, u16), first: [u8; 4], last: [u8; 4]) -> Selector {
        Selector {
            protocol,
            ports,
            addresses: (first.into(), last.into()),
        }
    }

    #[test]
    fn the_smaller_of_two_ranges_is_common() {
        let wide = range(0, (0, 65535), [0; 4], [255; 4]);
        let narrow_one = range(6, (80, 80), [10, 0, 0, 0], [10, 0, 0, 255]);
        assert_eq!(narrow(&[wide], &[narrow_one]), [narrow_one]);
        assert_eq!(narrow(&[narrow_one], &[wide]), [narrow_one]);
        assert!(is_within(&[narrow_one], &[wide]) && !is_within(&[wide], &[narrow_one]));
        let overlapping = range(0, (0, 100), [10, 0, 0, 128], [10, 0, 1, 0]);
        let both = range(6, (80, 80), [10, 0, 0, 128], [10, 0, 0, 255]);
        assert_eq!(narrow(&[overlapping], &[narrow_one]), [both]);
    }

    #[test]
    fn other_families_protocols_and_ports_have_nothing_in_common() {
        let one = range(6, (80, 80), [10, 0, 0, 0], [10, 0, 0, 255]);
        let v6 = Selector {
            addresses: ([0; 16].into(), [255; 16].into()),
            ..one
        };
        let udp = Selector {
            protocol: 17,
            ..one
        };
        let other_port = Selector {
            ports: (81, 90),
            ..one
        };
        let other_net = range(6, (80, 80), [10, 0, 1, 0], [10, 0, 1, 9]);
        assert_eq!(narrow(&[one], &[v6, udp, other_port, other_net]), []);
    }
}
