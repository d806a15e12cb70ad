//! Which routes cover an address in a vnet.
//!
//! In: routes as they come and go. Out: the longest match. State: owned by the snapshot that holds it.
//!
//! A prefix has one teamnet route at most, and any number of static routes. All of them are
//! candidates for its packets; a teamnet route has priority [`TEAMNET_PRIORITY`].

use std::net::IpAddr;

use imbl::{OrdMap, OrdSet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use uuid::Uuid;

use crate::model::HexId;

/// Where a teamnet route stands among the static routes of its prefix: before those that are
/// not as preferred as can be.
pub const TEAMNET_PRIORITY: u32 = 0;

/// Prefixes of every vnet, with the ids of their routes. Clones share what did not change.
#[derive(Clone, Debug, Default)]
pub struct Rib {
    vnets: OrdMap<Uuid, OrdMap<IpNet, Uuid>>,
    statics: OrdMap<Uuid, OrdMap<IpNet, OrdSet<HexId>>>,
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

    /// The prefix of the vnet leads to the static route, among others.
    pub fn insert_static(&mut self, vnet: Uuid, prefix: IpNet, route: HexId) {
        let prefixes = self.statics.entry(vnet).or_default();
        prefixes.entry(prefix).or_default().insert(route);
    }

    /// The prefix of the vnet does not lead to the static route.
    pub fn remove_static(&mut self, vnet: Uuid, prefix: &IpNet, route: HexId) {
        let Some(prefixes) = self.statics.get_mut(&vnet) else {
            return;
        };
        if let Some(routes) = prefixes.get_mut(prefix) {
            routes.remove(&route);
            if routes.is_empty() {
                prefixes.remove(prefix);
            }
        }
        if prefixes.is_empty() {
            self.statics.remove(&vnet);
        }
    }

    /// How many routes the vnet has.
    pub fn len(&self, vnet: Uuid) -> usize {
        let statics = self.statics.get(&vnet).into_iter().flatten();
        let statics: usize = statics.map(|(_, routes)| routes.len()).sum();
        self.vnets.get(&vnet).map_or(0, OrdMap::len) + statics
    }

    /// The teamnet route of exactly this prefix.
    pub fn exact(&self, vnet: Uuid, prefix: &IpNet) -> Option<Uuid> {
        self.vnets.get(&vnet)?.get(prefix).copied()
    }

    /// The static routes of exactly this prefix.
    pub fn statics(&self, vnet: Uuid, prefix: &IpNet) -> impl Iterator<Item = HexId> {
        let routes = self.statics.get(&vnet).and_then(|all| all.get(prefix));
        routes.into_iter().flatten().copied()
    }

    /// The longest prefix with a route that contains the address: two look-ups per length.
    pub fn covering(&self, vnet: Uuid, ip: IpAddr) -> Option<IpNet> {
        let prefixes = self.vnets.get(&vnet);
        let statics = self.statics.get(&vnet);
        if prefixes.is_none() && statics.is_none() {
            return None;
        }
        let lengths = if ip.is_ipv4() { 0..=32 } else { 0..=128 };
        lengths
            .rev()
            .map(|length| truncated(ip, length))
            .find(|prefix| {
                prefixes.is_some_and(|all| all.contains_key(prefix))
                    || statics.is_some_and(|all| all.contains_key(prefix))
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

    /// A route of a model: its vnet, prefix, and number if it is static.
    type Modelled = (u128, IpNet, Option<u8>);

    fn static_id(number: u8) -> HexId {
        format!("{number:032x}").parse().unwrap()
    }

    proptest! {
        #[test]
        fn look_up_equals_a_linear_scan(
            steps in prop::collection::vec(
                (0_u128..2, prefix(), prop::option::of(0_u8..3), any::<bool>()),
                0..60,
            ),
            asked in prop::collection::vec((0_u128..2, ip()), 1..40),
        ) {
            let mut rib = Rib::default();
            let mut model: Vec<Modelled> = Vec::new();
            for (vnet, prefix, number, is_insert) in steps {
                model.retain(|route| *route != (vnet, prefix, number));
                let id = Uuid::from_u128(vnet);
                if is_insert {
                    model.push((vnet, prefix, number));
                }
                match (number.map(static_id), is_insert) {
                    (None, true) => rib.insert(id, prefix, Uuid::from_u128(7)),
                    (None, false) => rib.remove(id, &prefix),
                    (Some(route), true) => rib.insert_static(id, prefix, route),
                    (Some(route), false) => rib.remove_static(id, &prefix, route),
                }
            }
            for (vnet, ip) in asked {
                let id = Uuid::from_u128(vnet);
                let expected = model
                    .iter()
                    .filter(|(v, prefix, _)| *v == vnet && prefix.contains(&ip))
                    .map(|(_, prefix, _)| *prefix)
                    .max_by_key(IpNet::prefix_len);
                prop_assert_eq!(rib.covering(id, ip), expected);
                let Some(prefix) = expected else { continue };
                let same = |route: &&Modelled| (route.0, route.1) == (vnet, prefix);
                let teamnet = model.iter().filter(same).any(|route| route.2.is_none());
                prop_assert_eq!(rib.exact(id, &prefix).is_some(), teamnet);
                let mut statics: Vec<u8> =
                    model.iter().filter(same).filter_map(|route| route.2).collect();
                statics.sort_unstable();
                let statics: Vec<HexId> = statics.into_iter().map(static_id).collect();
                prop_assert_eq!(rib.statics(id, &prefix).collect::<Vec<_>>(), statics);
                let all = model.iter().filter(|route| route.0 == vnet).count();
                prop_assert_eq!(rib.len(id), all);
            }
        }
    }
}
