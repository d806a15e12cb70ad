//! Who has which source addresses of a slice. Deterministic: the same calls give the same addresses.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use super::Slice;
use crate::id::{VnetId, WorkerId, Workers};

/// Host numbers of a /24 that are leased: .0 is the network, .1 the router, .255 the broadcast.
const HOST_MIN: u32 = 2;
const HOST_MAX: u32 = 254;
const HOSTS: u32 = HOST_MAX - HOST_MIN + 1;

/// The slice has no address left for one more vnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no source address is left on {worker}, whose part of the slice has {seats}, one per vnet: \
     give this node a larger slice, or fewer workers"
)]
pub struct NoAddressLeft {
    /// The worker.
    pub worker: WorkerId,
    /// How many vnets it can have.
    pub seats: u32,
}

/// One source address per vnet and worker, so that a connection can be bound to an address of the
/// worker that owns its tunnel.
///
/// A vnet gets the address that its own number suggests, else the next one never used, so that
/// an address says the same after a restart. One that was given back is the last to be used again:
/// packets to its former holder may still be under way.
#[derive(Clone, Debug)]
pub struct Leases {
    slice: Slice,
    workers: Workers,
    /// Seats by worker; one that is missing is zero.
    leased: BTreeMap<VnetId, Vec<u32>>,
    seats: Vec<Seats>,
}

/// The addresses of one worker, numbered through its /24s: its seats.
#[derive(Clone, Debug, Default)]
struct Seats {
    held: BTreeMap<u32, VnetId>,
    /// Given back, longest ago first, and by whom.
    returned: VecDeque<(u32, VnetId)>,
}

impl Leases {
    /// No lease yet.
    pub fn new(slice: Slice, workers: Workers) -> Self {
        Self {
            slice,
            workers,
            leased: BTreeMap::new(),
            seats: workers.iter().map(|_| Seats::default()).collect(),
        }
    }

    /// The slice.
    pub fn slice(&self) -> Slice {
        self.slice
    }

    /// How many workers share the slice.
    pub fn workers(&self) -> Workers {
        self.workers
    }

    /// The addresses of `vnet`, one for each worker in order: those it has, else new ones.
    ///
    /// # Errors
    /// When a worker has no address left, or none at all in this slice. Nothing is leased then.
    pub fn lease(&mut self, vnet: VnetId) -> Result<Vec<Ipv4Addr>, NoAddressLeft> {
        if !self.leased.contains_key(&vnet) {
            let mut taken = Vec::new();
            for worker in self.workers.iter() {
                let count = self.count(worker);
                match self.seats[usize::from(worker.0)].take(vnet, count) {
                    Some(seat) => taken.push(seat),
                    None => {
                        self.put_back(vnet, &taken);
                        let seats = count;
                        return Err(NoAddressLeft { worker, seats });
                    }
                }
            }
            self.leased.insert(vnet, taken);
        }
        Ok(self.of(vnet))
    }

    /// Gives the vnet's addresses back, and says which they were.
    pub fn release(&mut self, vnet: VnetId) -> Vec<Ipv4Addr> {
        let addresses = self.of(vnet);
        if let Some(seats) = self.leased.remove(&vnet) {
            self.put_back(vnet, &seats);
        }
        addresses
    }

    /// The addresses of `vnet`, one for each worker in order; none when it has none.
    pub fn of(&self, vnet: VnetId) -> Vec<Ipv4Addr> {
        let seats = self.leased.get(&vnet).into_iter().flatten();
        self.workers
            .iter()
            .zip(seats)
            .map(|(worker, seat)| self.address(worker, *seat))
            .collect()
    }

    /// All vnets that have addresses, in order.
    pub fn vnets(&self) -> impl Iterator<Item = VnetId> + '_ {
        self.leased.keys().copied()
    }

    fn put_back(&mut self, vnet: VnetId, seats: &[u32]) {
        for (of_worker, seat) in self.seats.iter_mut().zip(seats) {
            of_worker.held.remove(seat);
            of_worker.returned.push_back((*seat, vnet));
        }
    }

    /// How many vnets a worker can have.
    fn count(&self, worker: WorkerId) -> u32 {
        let all = u32::from(self.workers.count());
        let blocks = self.slice.blocks().saturating_sub(u32::from(worker.0));
        blocks.div_ceil(all) * HOSTS
    }

    fn address(&self, worker: WorkerId, seat: u32) -> Ipv4Addr {
        let net = self.slice.worker_net(worker, self.workers, seat / HOSTS);
        let net = net.expect("no seat was given past the end");
        Ipv4Addr::from_bits(net.network().to_bits() + HOST_MIN + seat % HOSTS)
    }
}

impl Seats {
    fn take(&mut self, vnet: VnetId, count: u32) -> Option<u32> {
        if count == 0 {
            return None;
        }
        let preferred = u32::from(vnet.0.wrapping_sub(1)) % count;
        let own = (preferred, vnet);
        let unused = |seat: &u32| {
            !self.held.contains_key(seat) && !self.returned.iter().any(|(s, _)| s == seat)
        };
        let seat = if self.returned.contains(&own) {
            preferred
        } else {
            (preferred..count)
                .chain(0..preferred)
                .find(unused)
                .or_else(|| self.returned.front().map(|(seat, _)| *seat))?
        };
        self.returned.retain(|(s, _)| *s != seat);
        self.held.insert(seat, vnet);
        Some(seat)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::{Sources, to_v6};
    use super::*;

    fn leases(net: &str, workers: u8) -> Leases {
        let workers = Workers::new(workers).unwrap();
        Leases::new(Slice::new(net.parse().unwrap()).unwrap(), workers)
    }

    fn lease(leases: &mut Leases, vnet: u16) -> Option<u8> {
        let addresses = leases.lease(VnetId(vnet)).ok()?;
        assert_eq!(addresses[0].octets()[..3], [100, 64, 0]);
        Some(addresses[0].octets()[3])
    }

    #[test]
    fn a_vnet_gets_the_host_its_number_suggests_else_the_next() {
        let mut leases = leases("100.64.0.0/24", 1);
        assert_eq!(lease(&mut leases, 1), Some(2));
        assert_eq!(lease(&mut leases, 253), Some(254));
        assert_eq!(lease(&mut leases, 254), Some(3));
        assert_eq!(lease(&mut leases, 2), Some(4));
        assert_eq!(lease(&mut leases, 1), Some(2));
    }

    #[test]
    fn a_vnet_has_an_address_of_every_worker_and_the_254th_goes_to_the_next_24s() {
        let mut leases = leases("100.64.16.0/20", 3);
        let said = |addresses: Vec<Ipv4Addr>| addresses.iter().map(Ipv4Addr::to_string).collect();
        let first: Vec<String> = said(leases.lease(VnetId(1)).unwrap());
        assert_eq!(first, ["100.64.16.2", "100.64.17.2", "100.64.18.2"]);
        let next: Vec<String> = said(leases.lease(VnetId(254)).unwrap());
        assert_eq!(next, ["100.64.19.2", "100.64.20.2", "100.64.21.2"]);
        assert_eq!(said(leases.release(VnetId(254))), next);
    }

    #[test]
    fn an_address_given_back_is_the_last_to_be_used_again() {
        let mut leases = leases("100.64.0.0/24", 1);
        assert_eq!(lease(&mut leases, 1), Some(2));
        leases.release(VnetId(1));
        assert_eq!(lease(&mut leases, 254), Some(3), "its first choice was .2");
        let rest: Vec<_> = (2000..2251).map(|vnet| lease(&mut leases, vnet)).collect();
        assert!(rest.iter().all(|host| host.is_some() && *host != Some(2)));
        assert_eq!(lease(&mut leases, 3000), Some(2));
        let (worker, seats) = (WorkerId(0), 253);
        assert_eq!(
            leases.lease(VnetId(3001)),
            Err(NoAddressLeft { worker, seats })
        );
    }

    #[test]
    fn a_vnet_that_returns_gets_its_own_address_back() {
        let mut leases = leases("100.64.0.0/24", 1);
        assert_eq!(lease(&mut leases, 7), Some(8));
        leases.release(VnetId(7));
        assert_eq!(lease(&mut leases, 7), Some(8));
    }

    #[test]
    fn a_slice_with_fewer_24s_than_workers_is_refused_and_nothing_is_leased() {
        let mut leases = leases("100.64.0.0/24", 2);
        let refused = leases.lease(VnetId(1)).unwrap_err();
        assert_eq!(refused.worker, WorkerId(1));
        assert!(leases.of(VnetId(1)).is_empty());
    }

    proptest! {
        #[test]
        fn source_and_vnet_are_a_bijection_under_any_leasing(
            steps in proptest::collection::vec((any::<bool>(), 1_u16..600), 1..1500),
            workers in 1_u8..4,
        ) {
            let (mut leases, sources) = (leases("100.64.0.0/22", workers), Sources::default());
            let mut model = HashMap::new();
            for (is_lease, vnet) in steps {
                let vnet = VnetId(vnet);
                if is_lease {
                    if let Ok(addresses) = leases.lease(vnet) {
                        let before = model.insert(vnet, addresses.clone());
                        prop_assert!(before.is_none_or(|before| before == addresses));
                    }
                } else {
                    prop_assert_eq!(leases.release(vnet), model.remove(&vnet).unwrap_or_default());
                }
            }
            sources.publish(&leases);
            let back: HashMap<_, _> = model
                .iter()
                .flat_map(|(vnet, addresses)| addresses.iter().map(|address| (*address, *vnet)))
                .collect();
            let count = model.len() * usize::from(workers);
            prop_assert_eq!(back.len(), count, "two vnets share an address");
            for vnet in (0..700).map(VnetId) {
                let addresses = model.get(&vnet).cloned().unwrap_or_default();
                for worker in leases.workers().iter() {
                    let address = addresses.get(usize::from(worker.0)).copied();
                    prop_assert_eq!(sources.at(vnet, worker), address);
                }
                prop_assert_eq!(sources.of(vnet), addresses.first().copied());
            }
            for address in leases.slice.net().hosts() {
                prop_assert_eq!(sources.vnet(address.into()), back.get(&address).copied());
                prop_assert_eq!(sources.vnet(to_v6(address).into()), back.get(&address).copied());
            }
        }
    }
}
