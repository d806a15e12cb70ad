//! Routes of one vnet: longest prefix to group, and the groups, kept together by one writer.
//!
//! In: prefixes and their next hops. Out: the [`Group`] of a destination, lock-free. State: routes
//! with the same next hops share a group, which lives as long as a route leads to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::group::{Group, GroupId, Groups};
use super::lpm;
use super::nexthop::{Nexthop, Nexthops};
use super::publish::{Guard, pin};

/// There is no room for another route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// For its prefix.
    #[error(transparent)]
    Prefixes(#[from] lpm::Full),
    /// For its set of next hops.
    #[error("the vnet's routes have too many different sets of next hops")]
    Groups,
}

/// The read side, shared by all workers.
#[derive(Debug)]
pub struct Routes {
    prefixes: Arc<lpm::Table<GroupId>>,
    groups: Groups,
}

impl Routes {
    /// Where the longest prefix that contains `address` leads. Lock-free; allocates nothing.
    #[inline]
    pub fn lookup<'g>(&'g self, address: IpAddr, guard: &'g Guard) -> Option<Group<'g>> {
        let id = self.prefixes.lookup(address, guard)?;
        Some(self.groups.get(id, guard))
    }
}

/// What the writer knows of a group.
#[derive(Debug)]
struct Shared {
    nexthops: Nexthops,
    /// Routes that lead to it; never 0.
    routes: u32,
}

/// The only writer of one [`Routes`].
#[derive(Debug)]
pub struct Writer {
    prefixes: lpm::Writer<GroupId>,
    routes: Arc<Routes>,
    shared: BTreeMap<GroupId, Shared>,
    /// The group that a new route with these next hops joins. Others may have the same members,
    /// after a redirection.
    joined: BTreeMap<Nexthops, GroupId>,
}

impl Writer {
    /// A writer with its own empty table.
    pub fn new() -> Self {
        let prefixes = lpm::Writer::new();
        let routes = Arc::new(Routes {
            prefixes: prefixes.table().clone(),
            groups: Groups::new(),
        });
        Self {
            prefixes,
            routes,
            shared: BTreeMap::new(),
            joined: BTreeMap::new(),
        }
    }

    /// The table to read from.
    pub fn table(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Makes `prefix` lead to `nexthops`. Where it led elsewhere before, each flow changes in one
    /// store.
    ///
    /// # Errors
    /// [`Full`], and nothing has changed.
    ///
    /// # Panics
    /// When a tunnel's number is above [`lpm::TUNNEL_MAX`].
    pub fn insert(&mut self, prefix: IpNet, nexthops: &Nexthops) -> Result<(), Full> {
        let old = self.prefixes.get(prefix);
        if old.is_some_and(|id| self.shared[&id].nexthops == *nexthops) {
            return Ok(());
        }
        let id = self.join(nexthops)?;
        if let Err(full) = self.prefixes.insert(prefix, id) {
            self.leave(id);
            return Err(full.into());
        }
        if let Some(old) = old {
            self.leave(old);
        }
        Ok(())
    }

    /// Takes `prefix` out. Whether it was there.
    pub fn remove(&mut self, prefix: IpNet) -> bool {
        let removed = self.prefixes.remove(prefix);
        if let Some(id) = removed {
            self.leave(id);
        }
        removed.is_some()
    }

    /// Makes the moves among these that one store per bucket can make: those of a group whose
    /// routes all move, and to the same next hops. The others are left to [`Writer::insert`].
    pub fn redirect<'a>(&mut self, moves: impl Iterator<Item = (IpNet, &'a Nexthops)>) {
        let mut targets: BTreeMap<GroupId, (&Nexthops, u32)> = BTreeMap::new();
        for (prefix, nexthops) in moves {
            let Some(id) = self.prefixes.get(prefix) else {
                continue;
            };
            let (target, routes) = targets.entry(id).or_insert((nexthops, 0));
            // One that goes elsewhere is never counted, so its group never adds up.
            *routes += u32::from(*target == nexthops);
        }
        for (id, (nexthops, routes)) in targets {
            let is_wide_enough = id.is_many() || nexthops.single().is_some();
            if is_wide_enough && self.shared[&id].routes == routes {
                self.rewrite(id, nexthops.clone());
            }
        }
    }

    /// Takes a next hop out of every group that has another: its flows go on over the others.
    pub fn withdraw(&mut self, nexthop: Nexthop) {
        let rest = |shared: &Shared| {
            let is_member = shared.nexthops.contains(nexthop);
            is_member
                .then(|| shared.nexthops.without(nexthop))
                .flatten()
        };
        let changes: Vec<_> = self
            .shared
            .iter()
            .filter_map(|(id, shared)| Some((*id, rest(shared)?)))
            .collect();
        for (id, rest) in changes {
            self.rewrite(id, rest);
        }
    }

    /// All prefixes and where they lead, IPv4 first, by address and length.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &Nexthops)> + '_ {
        self.prefixes
            .iter()
            .map(|(prefix, id)| (prefix, &self.shared[&id].nexthops))
    }

    /// The group of these next hops, with one route more.
    fn join(&mut self, nexthops: &Nexthops) -> Result<GroupId, Full> {
        if let Some(id) = self.joined.get(nexthops).copied() {
            self.of(id).routes += 1;
            return Ok(id);
        }
        let id = self.routes.groups.make(nexthops).ok_or(Full::Groups)?;
        let shared = Shared {
            nexthops: nexthops.clone(),
            routes: 1,
        };
        self.shared.insert(id, shared);
        self.joined.insert(nexthops.clone(), id);
        Ok(id)
    }

    /// One route less; the last one takes the group along.
    fn leave(&mut self, id: GroupId) {
        let shared = self.of(id);
        shared.routes -= 1;
        if shared.routes == 0 {
            let nexthops = shared.nexthops.clone();
            self.shared.remove(&id);
            self.part(&nexthops, id);
            let guard = pin();
            self.routes.groups.retire(id, &guard);
            guard.flush();
        }
    }

    fn rewrite(&mut self, id: GroupId, nexthops: Nexthops) {
        self.routes.groups.write(id, &nexthops);
        let before = std::mem::replace(&mut self.of(id).nexthops, nexthops.clone());
        self.part(&before, id);
        self.joined.entry(nexthops).or_insert(id);
    }

    /// New routes with these next hops join this group no longer.
    fn part(&mut self, nexthops: &Nexthops, id: GroupId) {
        if self.joined.get(nexthops) == Some(&id) {
            self.joined.remove(nexthops);
        }
    }

    fn of(&mut self, id: GroupId) -> &mut Shared {
        self.shared
            .get_mut(&id)
            .expect("a group lives as long as a route leads to it")
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(portcullis_loom))]
#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::fib::Weighted;
    use crate::id::TunnelId;

    /// The naive table.
    type Model = BTreeMap<IpNet, Nexthops>;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(IpNet, Nexthops),
        Remove(IpNet),
        Redirect(Vec<(IpNet, Nexthops)>),
        /// All routes that lead to the first lead to the second.
        RedirectAll(Nexthops, Nexthops),
        Withdraw(Nexthop),
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        let prefixes = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.0.0/24",
            "10.1.0.0/16",
            "::/0",
        ];
        select(prefixes.map(|prefix| prefix.parse().unwrap()).to_vec())
    }

    fn nexthops() -> impl Strategy<Value = Nexthops> {
        btree_map(0_u32..4, 1_u8..3, 1..4).prop_map(|members| {
            let members = members.into_iter().map(|(id, weight)| Weighted {
                nexthop: Nexthop::Tunnel(TunnelId(id)),
                weight,
            });
            Nexthops::new(members.collect()).unwrap()
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (prefix(), nexthops()).prop_map(|(prefix, nexthops)| Step::Insert(prefix, nexthops)),
            prefix().prop_map(Step::Remove),
            btree_map(prefix(), nexthops(), 1..5)
                .prop_map(|moves| Step::Redirect(moves.into_iter().collect())),
            (nexthops(), nexthops()).prop_map(|(from, to)| Step::RedirectAll(from, to)),
            (0_u32..4).prop_map(|id| Step::Withdraw(Nexthop::Tunnel(TunnelId(id)))),
        ]
    }

    fn run(writer: &mut Writer, model: &mut Model, step: Step) {
        let moves = match step {
            Step::Insert(prefix, nexthops) => vec![(prefix, nexthops)],
            Step::Remove(prefix) => {
                assert_eq!(writer.remove(prefix), model.remove(&prefix).is_some());
                return;
            }
            Step::Redirect(moves) => moves,
            Step::RedirectAll(from, to) => model
                .iter()
                .filter(|(_, nexthops)| **nexthops == from)
                .map(|(prefix, _)| (*prefix, to.clone()))
                .collect(),
            Step::Withdraw(gone) => {
                writer.withdraw(gone);
                for nexthops in model.values_mut() {
                    *nexthops = nexthops.without(gone).unwrap_or_else(|| nexthops.clone());
                }
                return;
            }
        };
        writer.redirect(moves.iter().map(|(prefix, nexthops)| (*prefix, nexthops)));
        for (prefix, nexthops) in moves {
            writer.insert(prefix, &nexthops).unwrap();
            model.insert(prefix, nexthops);
        }
    }

    proptest! {
        #[test]
        fn groups_are_shared_and_freed_and_always_say_what_their_routes_say(
            steps in vec(step(), 1..100),
        ) {
            let (mut writer, mut model) = (Writer::new(), Model::new());
            for step in steps {
                run(&mut writer, &mut model, step);
                let rows = model.iter().map(|(prefix, nexthops)| (*prefix, nexthops));
                prop_assert!(writer.iter().eq(rows));
                let sets: BTreeSet<_> = model.values().collect();
                for (nexthops, id) in &writer.joined {
                    prop_assert!(sets.contains(nexthops));
                    prop_assert_eq!(&writer.shared[id].nexthops, nexthops);
                }
                prop_assert_eq!(
                    writer.shared.values().map(|shared| shared.routes).sum::<u32>() as usize,
                    model.len()
                );
                let guard = pin();
                for probe in ["10.0.0.1", "10.1.0.1", "10.2.0.1", "8.8.8.8", "fd00::1"] {
                    let probe = probe.parse().unwrap();
                    let expected = model
                        .iter()
                        .filter(|(prefix, _)| prefix.contains(&probe))
                        .max_by_key(|(prefix, _)| prefix.prefix_len())
                        .map(|(_, nexthops)| nexthops);
                    let group = writer.table().lookup(probe, &guard);
                    prop_assert_eq!(group.is_some(), expected.is_some());
                    let Some((group, expected)) = group.zip(expected) else { continue };
                    for id in 0..4 {
                        let nexthop = Nexthop::Tunnel(TunnelId(id));
                        prop_assert_eq!(group.contains(nexthop), expected.contains(nexthop));
                    }
                    for flow in 0..64_u32 {
                        prop_assert!(expected.contains(group.nexthop(|| flow << 26)));
                    }
                }
            }
        }
    }

    #[test]
    fn a_next_hop_of_many_routes_is_redirected_by_one_store() {
        let mut writer = Writer::new();
        let [one, two] = [1, 2].map(|id| Nexthops::from(Nexthop::Tunnel(TunnelId(id))));
        let prefixes: Vec<IpNet> = (0..1000_u32)
            .map(|n| IpNet::new(IpAddr::from((n << 8).to_be_bytes()), 24).unwrap())
            .collect();
        for prefix in &prefixes {
            writer.insert(*prefix, &one).unwrap();
        }
        assert_eq!(writer.shared.len(), 1);
        let group = *writer.shared.keys().next().unwrap();
        // All but one: nothing happens.
        writer.redirect(prefixes.iter().skip(1).map(|prefix| (*prefix, &two)));
        assert!(writer.iter().all(|(_, nexthops)| *nexthops == one));
        writer.redirect(prefixes.iter().map(|prefix| (*prefix, &two)));
        assert!(writer.iter().all(|(_, nexthops)| *nexthops == two));
        assert_eq!(writer.shared.keys().copied().collect::<Vec<_>>(), [group]);
        // A single bucket takes no pair; the routes get it one by one.
        let pair = Nexthops::new([&one, &two].iter().flat_map(|n| n.iter()).collect()).unwrap();
        writer.redirect(prefixes.iter().map(|prefix| (*prefix, &pair)));
        assert!(writer.iter().all(|(_, nexthops)| *nexthops == two));
    }

    #[test]
    fn a_table_with_too_many_different_groups_refuses_and_stays_as_it_was() {
        let mut writer = Writer::new();
        let prefix = |n: u32| IpNet::new(IpAddr::from((n << 8).to_be_bytes()), 24).unwrap();
        let set = |n: u32| {
            let members = [2 * n, 2 * n + 1].map(|id| Weighted {
                nexthop: Nexthop::Tunnel(TunnelId(id)),
                weight: 1,
            });
            Nexthops::new(members.to_vec()).unwrap()
        };
        for n in 0..4095 {
            writer.insert(prefix(n), &set(n)).unwrap();
        }
        assert_eq!(writer.insert(prefix(0), &set(4095)), Err(Full::Groups));
        assert_eq!(writer.insert(prefix(4095), &set(4095)), Err(Full::Groups));
        assert_eq!(writer.iter().count(), 4095);
        assert_eq!(writer.iter().next(), Some((prefix(0), &set(0))));
        writer.insert(prefix(4095), &set(0)).unwrap();
    }
}
