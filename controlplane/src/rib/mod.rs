//! Which route covers an address in a vnet.
//!
//! In: routes as they come and go. Out: the longest match. State: owned by the snapshot that holds it.

use std::net::IpAddr;

use imbl::OrdMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use uuid::Uuid;

/// Prefixes of every vnet, each with the id of its route. Clones share what did not change.
#[derive(Clone, Debug, Default)]
pub struct Rib {
    vnets: OrdMap<Uuid, OrdMap<IpNet, Uuid>>,
}

impl Rib {
    /// The prefix of the vnet leads to the route.
    pub fn insert(&mut self, vnet: Uuid, prefix: IpNet, route: Uuid) {
        self.vnets.entry(vnet).or_default().insert(prefix, route);
    }

    /// The prefix of the vnet leads nowhere.
    pub fn remove(&mut self, vnet: Uuid, prefix: &IpNet) {
        if let Some(prefixes) = self.vnets.get_mut(&vnet) {
            prefixes.remove(prefix);
            if prefixes.is_empty() {
                self.vnets.remove(&vnet);
            }
        }
    }

    /// How many prefixes of the vnet have a route.
    pub fn len(&self, vnet: Uuid) -> usize {
        self.vnets.get(&vnet).map_or(0, OrdMap::len)
    }

    /// The route of exactly this prefix.
    pub fn exact(&self, vnet: Uuid, prefix: &IpNet) -> Option<Uuid> {
        self.vnets.get(&vnet)?.get(prefix).copied()
    }

    /// The route with the longest prefix that contains the address: one look-up per length.
    pub fn covering(&self, vnet: Uuid, ip: IpAddr) -> Option<(IpNet, Uuid)> {
        let prefixes = self.vnets.get(&vnet)?;
        let lengths = if ip.is_ipv4() { 0..=32 } else { 0..=128 };
        lengths.rev().find_map(|length| {
            let prefix = truncated(ip, length);
            prefixes.get(&prefix).map(|route| (prefix, *route))
        })
    }
}

fn truncated(ip: IpAddr, length: u8) -> IpNet {
    let fits = "lengths end at the address's width";
    match ip {
        IpAddr::V4(ip) => IpNet::V4(Ipv4Net::new(ip, length).expect(fits).trunc()),
        IpAddr::V6(ip) => IpNet::V6(Ipv6Net::new(ip, length).expect(fits).trunc()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Addresses from a small space, so that prefixes nest and collide.
    fn ip() -> impl Strategy<Value = IpAddr> {
        let bits = prop_oneof![Just(0_u32), Just(1), Just(0x8000_0000), any::<u32>()];
        (bits, any::<bool>()).prop_map(|(bits, is_v4)| match is_v4 {
            true => IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | (bits & 0xff00_00ff))),
            false => IpAddr::V6(Ipv6Addr::from(u128::from(bits) << 96)),
        })
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (ip(), 0_u8..=128)
            .prop_map(|(ip, length)| truncated(ip, length.min(if ip.is_ipv4() { 32 } else { 128 })))
    }

    proptest! {
        #[test]
        fn look_up_equals_a_linear_scan(
            steps in prop::collection::vec((0_u128..2, prefix(), any::<bool>()), 0..60),
            asked in prop::collection::vec((0_u128..2, ip()), 1..40),
        ) {
            let mut rib = Rib::default();
            let mut model: Vec<(u128, IpNet, Uuid)> = Vec::new();
            for (number, (vnet, prefix, is_insert)) in steps.into_iter().enumerate() {
                model.retain(|(v, p, _)| (*v, *p) != (vnet, prefix));
                if is_insert {
                    let route = Uuid::from_u128(number as u128);
                    model.push((vnet, prefix, route));
                    rib.insert(Uuid::from_u128(vnet), prefix, route);
                } else {
                    rib.remove(Uuid::from_u128(vnet), &prefix);
                }
            }
            for (vnet, ip) in asked {
                let expected = model
                    .iter()
                    .filter(|(v, prefix, _)| *v == vnet && prefix.contains(&ip))
                    .max_by_key(|(_, prefix, _)| prefix.prefix_len())
                    .map(|(_, prefix, route)| (*prefix, *route));
                prop_assert_eq!(rib.covering(Uuid::from_u128(vnet), ip), expected);
            }
        }
    }
}
