//! Who has which source address of a slice. Deterministic: the same calls give the same addresses.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use super::Slice;
use crate::id::{VnetId, WorkerId};

/// Host numbers of a /24 that are leased: .0 is the network, .1 the router, .255 the broadcast.
const HOST_MIN: u8 = 2;
const HOST_MAX: u8 = 254;
const HOSTS: u16 = (HOST_MAX - HOST_MIN + 1) as u16;

/// The worker's /24 has no address left: 253 vnets have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no source address is left on {0}: it has {HOSTS}, one per vnet")]
pub struct NoAddressLeft(pub WorkerId);

/// One source address per vnet.
///
/// A vnet gets the host number that its own number suggests, else the next one never used, so that
/// an address says the same after a restart. One that was given back is the last to be used again:
/// packets to its former holder may still be under way.
#[derive(Clone, Debug)]
pub struct Leases {
    slice: Slice,
    leased: BTreeMap<VnetId, Lease>,
    workers: BTreeMap<WorkerId, Hosts>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    worker: WorkerId,
    host: u8,
    address: Ipv4Addr,
}

/// The state of one worker's /24.
#[derive(Clone, Debug, Default)]
struct Hosts {
    held: BTreeMap<u8, VnetId>,
    /// Given back, longest ago first, and by whom.
    returned: VecDeque<(u8, VnetId)>,
}

impl Leases {
    /// No lease yet.
    pub fn new(slice: Slice) -> Self {
        Self {
            slice,
            leased: BTreeMap::new(),
            workers: BTreeMap::new(),
        }
    }

    /// The address of `vnet`: the one it has, else a new one of this worker's /24.
    ///
    /// # Errors
    /// When the worker has no /24 in this slice, or all its addresses are leased.
    pub fn lease(&mut self, vnet: VnetId, worker: WorkerId) -> Result<Ipv4Addr, NoAddressLeft> {
        if let Some(lease) = self.leased.get(&vnet) {
            return Ok(lease.address);
        }
        let net = self.slice.worker_net(worker).ok_or(NoAddressLeft(worker))?;
        let hosts = self.workers.entry(worker).or_default();
        let host = hosts.take(vnet).ok_or(NoAddressLeft(worker))?;
        let address = Ipv4Addr::from_bits(net.network().to_bits() + u32::from(host));
        self.leased.insert(
            vnet,
            Lease {
                worker,
                host,
                address,
            },
        );
        Ok(address)
    }

    /// Gives the vnet's address back, and says which it was.
    pub fn release(&mut self, vnet: VnetId) -> Option<Ipv4Addr> {
        let lease = self.leased.remove(&vnet)?;
        let hosts = self.workers.entry(lease.worker).or_default();
        hosts.held.remove(&lease.host);
        hosts.returned.push_back((lease.host, vnet));
        Some(lease.address)
    }

    /// The address of `vnet`, if it has one.
    pub fn of(&self, vnet: VnetId) -> Option<Ipv4Addr> {
        self.leased.get(&vnet).map(|lease| lease.address)
    }

    /// All leases, by vnet.
    pub fn iter(&self) -> impl Iterator<Item = (VnetId, Ipv4Addr)> + '_ {
        self.leased
            .iter()
            .map(|(vnet, lease)| (*vnet, lease.address))
    }
}

impl Hosts {
    fn take(&mut self, vnet: VnetId) -> Option<u8> {
        let preferred = preferred(vnet);
        let own = (preferred, vnet);
        let unused = |host: &u8| {
            !self.held.contains_key(host) && !self.returned.iter().any(|(h, _)| h == host)
        };
        let host = if self.returned.contains(&own) {
            preferred
        } else {
            (preferred..=HOST_MAX)
                .chain(HOST_MIN..preferred)
                .find(unused)
                .or_else(|| self.returned.front().map(|(host, _)| *host))?
        };
        self.returned.retain(|(h, _)| *h != host);
        self.held.insert(host, vnet);
        Some(host)
    }
}

/// The host number that a vnet's own number suggests.
fn preferred(vnet: VnetId) -> u8 {
    let offset = vnet.0.wrapping_sub(1) % HOSTS;
    HOST_MIN + u8::try_from(offset).expect("a remainder of 253 fits into 8 bits")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::{Sources, to_v6};
    use super::*;

    fn leases() -> Leases {
        Leases::new(Slice::new("100.64.0.0/20".parse().unwrap()).unwrap())
    }

    fn lease(leases: &mut Leases, vnet: u16) -> Option<u8> {
        let address = leases.lease(VnetId(vnet), WorkerId(0)).ok()?;
        assert_eq!(address.octets()[..3], [100, 64, 0]);
        Some(address.octets()[3])
    }

    #[test]
    fn a_vnet_gets_the_host_its_number_suggests_else_the_next() {
        let mut leases = leases();
        assert_eq!(lease(&mut leases, 1), Some(2));
        assert_eq!(lease(&mut leases, 253), Some(254));
        assert_eq!(lease(&mut leases, 254), Some(3));
        assert_eq!(lease(&mut leases, 2), Some(4));
        assert_eq!(lease(&mut leases, 1), Some(2));
    }

    #[test]
    fn an_address_given_back_is_the_last_to_be_used_again() {
        let mut leases = leases();
        assert_eq!(lease(&mut leases, 1), Some(2));
        leases.release(VnetId(1));
        assert_eq!(lease(&mut leases, 254), Some(3), "its first choice was .2");
        let rest: Vec<_> = (2000..2251).map(|vnet| lease(&mut leases, vnet)).collect();
        assert!(rest.iter().all(|host| host.is_some() && *host != Some(2)));
        assert_eq!(lease(&mut leases, 3000), Some(2));
        assert_eq!(
            leases.lease(VnetId(3001), WorkerId(0)),
            Err(NoAddressLeft(WorkerId(0)))
        );
    }

    #[test]
    fn a_vnet_that_returns_gets_its_own_address_back() {
        let mut leases = leases();
        assert_eq!(lease(&mut leases, 7), Some(8));
        leases.release(VnetId(7));
        assert_eq!(lease(&mut leases, 7), Some(8));
    }

    #[test]
    fn a_worker_outside_of_the_slice_has_no_address() {
        assert!(leases().lease(VnetId(1), WorkerId(16)).is_err());
    }

    proptest! {
        #[test]
        fn source_and_vnet_are_a_bijection_under_any_leasing(
            steps in proptest::collection::vec((any::<bool>(), 1_u16..600, 0_u8..3), 1..1500),
        ) {
            let (mut leases, sources) = (leases(), Sources::default());
            let mut model = HashMap::new();
            for (is_lease, vnet, worker) in steps {
                let vnet = VnetId(vnet);
                if is_lease {
                    if let Ok(address) = leases.lease(vnet, WorkerId(worker)) {
                        let before = model.insert(vnet, address);
                        prop_assert!(before.is_none_or(|before| before == address));
                    }
                } else {
                    prop_assert_eq!(leases.release(vnet), model.remove(&vnet));
                }
            }
            sources.publish(&leases);
            let back: HashMap<_, _> = model.iter().map(|(vnet, address)| (*address, *vnet)).collect();
            prop_assert_eq!(back.len(), model.len(), "two vnets share an address");
            for vnet in (0..700).map(VnetId) {
                let address = model.get(&vnet).copied();
                prop_assert_eq!(leases.of(vnet), address);
                prop_assert_eq!(sources.of(vnet), address);
                prop_assert_eq!(sources.of_v6(vnet), address.map(to_v6));
            }
            for address in leases.slice.net().hosts() {
                prop_assert_eq!(sources.vnet(address.into()), back.get(&address).copied());
                prop_assert_eq!(sources.vnet(to_v6(address).into()), back.get(&address).copied());
            }
        }
    }
}
