//! Routes of one vnet: longest prefix to group, and the groups, kept together by one writer.
//!
//! In: prefixes and their candidates, penalties of next hops. Out: the [`Group`] of a destination,
//! lock-free. State: routes with the same candidates share a group, which lives as long as a route
//! leads to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::group::{Group, GroupId, Groups};
use super::lpm;
use super::nexthop::{Candidate, Candidates, Nexthop};
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
    candidates: Candidates,
    /// Routes that lead to it; never 0.
    routes: u32,
}

/// The only writer of one [`Routes`].
#[derive(Debug)]
pub struct Writer {
    prefixes: lpm::Writer<GroupId>,
    routes: Arc<Routes>,
    shared: BTreeMap<GroupId, Shared>,
    /// The group that a new route with these candidates joins. Others may have the same members,
    /// after a redirection.
    joined: BTreeMap<Candidates, GroupId>,
    /// What is added to the priorities of a next hop; one that is not here has no penalty.
    penalties: BTreeMap<Nexthop, u32>,
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
            penalties: BTreeMap::new(),
        }
    }

    /// The table to read from.
    pub fn table(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Makes `prefix` lead to `candidates`. Where it led elsewhere before, each flow changes in one
    /// store.
    ///
    /// # Errors
    /// [`Full`], and nothing has changed.
    ///
    /// # Panics
    /// When a tunnel's number is above [`lpm::TUNNEL_MAX`].
    pub fn insert(&mut self, prefix: IpNet, candidates: &Candidates) -> Result<(), Full> {
        let old = self.prefixes.get(prefix);
        if old.is_some_and(|id| self.shared[&id].candidates == *candidates) {
            return Ok(());
        }
        let id = self.join(candidates)?;
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
    pub fn redirect<'a>(&mut self, moves: impl Iterator<Item = (IpNet, &'a Candidates)>) {
        let mut targets: BTreeMap<GroupId, (&Candidates, u32)> = BTreeMap::new();
        for (prefix, candidates) in moves {
            let Some(id) = self.prefixes.get(prefix) else {
                continue;
            };
            let (target, routes) = targets.entry(id).or_insert((candidates, 0));
            // One that goes elsewhere is never counted, so its group never adds up.
            *routes += u32::from(*target == candidates);
        }
        for (id, (candidates, routes)) in targets {
            let is_wide_enough = id.is_many() || candidates.single().is_some();
            if is_wide_enough && self.shared[&id].routes == routes {
                self.rewrite(id, candidates.clone());
            }
        }
    }

    /// Takes a next hop out of every group that has another: its flows go on over the others.
    pub fn withdraw(&mut self, nexthop: Nexthop) {
        let rest = |shared: &Shared| {
            let is_member = shared.candidates.contains(nexthop);
            is_member
                .then(|| shared.candidates.without(nexthop))
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

    /// Adds these to the priorities of next hops, instead of what was added before. In each group
    /// where others are chosen now, flows move by one store per bucket, whatever the number of
    /// routes that lead to it; returns how many groups these were.
    pub fn penalize(&mut self, penalties: &[(Nexthop, u32)]) -> usize {
        let mut changes: BTreeMap<_, _> = penalties.iter().copied().collect();
        changes.retain(|nexthop, penalty| penalty_of(&self.penalties, *nexthop) != *penalty);
        if changes.is_empty() {
            return 0;
        }
        let mut after = self.penalties.clone();
        after.extend(&changes);
        after.retain(|_, penalty| *penalty != 0);
        let before = std::mem::replace(&mut self.penalties, after);
        let mut rewritten = 0;
        for (id, shared) in &self.shared {
            let is_touched = |member: Candidate| changes.contains_key(&member.nexthop);
            if !id.is_many() || !shared.candidates.iter().any(is_touched) {
                continue;
            }
            let chosen = self.chosen(&shared.candidates);
            let former = |nexthop| penalty_of(&before, nexthop);
            if chosen != shared.candidates.chosen(former) {
                self.routes.groups.choose(*id, &chosen);
                rewritten += 1;
            }
        }
        rewritten
    }

    /// Those of a route's candidates that take its flows.
    pub fn chosen(&self, candidates: &Candidates) -> Vec<Candidate> {
        candidates.chosen(|nexthop| penalty_of(&self.penalties, nexthop))
    }

    /// All prefixes and where they lead, IPv4 first, by address and length.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &Candidates)> + '_ {
        self.prefixes
            .iter()
            .map(|(prefix, id)| (prefix, &self.shared[&id].candidates))
    }

    /// The group of these candidates, with one route more.
    fn join(&mut self, candidates: &Candidates) -> Result<GroupId, Full> {
        if let Some(id) = self.joined.get(candidates).copied() {
            self.of(id).routes += 1;
            return Ok(id);
        }
        let chosen = self.chosen(candidates);
        let made = self.routes.groups.make(candidates, &chosen);
        let id = made.ok_or(Full::Groups)?;
        let shared = Shared {
            candidates: candidates.clone(),
            routes: 1,
        };
        self.shared.insert(id, shared);
        self.joined.insert(candidates.clone(), id);
        Ok(id)
    }

    /// One route less; the last one takes the group along.
    fn leave(&mut self, id: GroupId) {
        let shared = self.of(id);
        shared.routes -= 1;
        if shared.routes == 0 {
            let candidates = shared.candidates.clone();
            self.shared.remove(&id);
            self.part(&candidates, id);
            let guard = pin();
            self.routes.groups.retire(id, &guard);
            guard.flush();
        }
    }

    fn rewrite(&mut self, id: GroupId, candidates: Candidates) {
        let chosen = self.chosen(&candidates);
        self.routes.groups.write(id, &candidates, &chosen);
        let before = std::mem::replace(&mut self.of(id).candidates, candidates.clone());
        self.part(&before, id);
        self.joined.entry(candidates).or_insert(id);
    }

    /// New routes with these candidates join this group no longer.
    fn part(&mut self, candidates: &Candidates, id: GroupId) {
        if self.joined.get(candidates) == Some(&id) {
            self.joined.remove(candidates);
        }
    }

    fn of(&mut self, id: GroupId) -> &mut Shared {
        self.shared
            .get_mut(&id)
            .expect("a group lives as long as a route leads to it")
    }
}

fn penalty_of(penalties: &BTreeMap<Nexthop, u32>, nexthop: Nexthop) -> u32 {
    penalties.get(&nexthop).copied().unwrap_or(0)
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
    use crate::id::TunnelId;

    /// The naive table.
    #[derive(Default)]
    struct Model {
        routes: BTreeMap<IpNet, Candidates>,
        penalties: BTreeMap<Nexthop, u32>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(IpNet, Candidates),
        Remove(IpNet),
        Redirect(Vec<(IpNet, Candidates)>),
        /// All routes that lead to the first lead to the second.
        RedirectAll(Candidates, Candidates),
        Withdraw(Nexthop),
        Penalize(Vec<(Nexthop, u32)>),
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

    fn candidates() -> impl Strategy<Value = Candidates> {
        btree_map(0_u32..4, (0_u32..2, 1_u8..3), 1..4).prop_map(|members| {
            let members = members
                .into_iter()
                .map(|(id, (priority, weight))| Candidate {
                    nexthop: Nexthop::Tunnel(TunnelId(id)),
                    priority,
                    weight,
                });
            Candidates::new(members.collect()).unwrap()
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (prefix(), candidates())
                .prop_map(|(prefix, candidates)| Step::Insert(prefix, candidates)),
            prefix().prop_map(Step::Remove),
            btree_map(prefix(), candidates(), 1..5)
                .prop_map(|moves| Step::Redirect(moves.into_iter().collect())),
            (candidates(), candidates()).prop_map(|(from, to)| Step::RedirectAll(from, to)),
            (0_u32..4).prop_map(|id| Step::Withdraw(Nexthop::Tunnel(TunnelId(id)))),
            vec((0_u32..4, select(vec![0, 1, 5])), 1..3).prop_map(|all| {
                let all = all.into_iter();
                Step::Penalize(
                    all.map(|(id, by)| (Nexthop::Tunnel(TunnelId(id)), by))
                        .collect(),
                )
            }),
        ]
    }

    fn run(writer: &mut Writer, model: &mut Model, step: Step) {
        let moves = match step {
            Step::Insert(prefix, candidates) => vec![(prefix, candidates)],
            Step::Remove(prefix) => {
                assert_eq!(
                    writer.remove(prefix),
                    model.routes.remove(&prefix).is_some()
                );
                return;
            }
            Step::Redirect(moves) => moves,
            Step::RedirectAll(from, to) => model
                .routes
                .iter()
                .filter(|(_, candidates)| **candidates == from)
                .map(|(prefix, _)| (*prefix, to.clone()))
                .collect(),
            Step::Withdraw(gone) => {
                writer.withdraw(gone);
                for candidates in model.routes.values_mut() {
                    *candidates = candidates
                        .without(gone)
                        .unwrap_or_else(|| candidates.clone());
                }
                return;
            }
            Step::Penalize(penalties) => {
                writer.penalize(&penalties);
                model.penalties.extend(penalties);
                return;
            }
        };
        writer.redirect(
            moves
                .iter()
                .map(|(prefix, candidates)| (*prefix, candidates)),
        );
        for (prefix, candidates) in moves {
            writer.insert(prefix, &candidates).unwrap();
            model.routes.insert(prefix, candidates);
        }
    }

    proptest! {
        #[test]
        fn groups_are_shared_and_freed_and_always_say_what_their_routes_say(
            steps in vec(step(), 1..100),
        ) {
            let (mut writer, mut model) = (Writer::new(), Model::default());
            for step in steps {
                run(&mut writer, &mut model, step);
                let rows = model.routes.iter().map(|(prefix, candidates)| (*prefix, candidates));
                prop_assert!(writer.iter().eq(rows));
                let sets: BTreeSet<_> = model.routes.values().collect();
                for (candidates, id) in &writer.joined {
                    prop_assert!(sets.contains(candidates));
                    prop_assert_eq!(&writer.shared[id].candidates, candidates);
                }
                prop_assert_eq!(
                    writer.shared.values().map(|shared| shared.routes).sum::<u32>() as usize,
                    model.routes.len()
                );
                let guard = pin();
                for probe in ["10.0.0.1", "10.1.0.1", "10.2.0.1", "8.8.8.8", "fd00::1"] {
                    let probe = probe.parse().unwrap();
                    let expected = model
                        .routes
                        .iter()
                        .filter(|(prefix, _)| prefix.contains(&probe))
                        .max_by_key(|(prefix, _)| prefix.prefix_len())
                        .map(|(_, candidates)| candidates);
                    let group = writer.table().lookup(probe, &guard);
                    prop_assert_eq!(group.is_some(), expected.is_some());
                    let Some((group, expected)) = group.zip(expected) else { continue };
                    for id in 0..4 {
                        let nexthop = Nexthop::Tunnel(TunnelId(id));
                        prop_assert_eq!(group.contains(nexthop), expected.contains(nexthop));
                    }
                    let penalty = |nexthop| model.penalties.get(&nexthop).copied().unwrap_or(0);
                    let cost = |one: &Candidate| one.priority + penalty(one.nexthop);
                    let lowest = expected.iter().map(|one| cost(&one)).min();
                    for flow in 0..64_u32 {
                        let taken = group.nexthop(|| flow << 26);
                        let taken = expected.iter().find(|one| one.nexthop == taken);
                        prop_assert_eq!(taken.as_ref().map(cost), lowest);
                    }
                }
            }
        }
    }

    #[test]
    fn a_next_hop_of_many_routes_is_redirected_by_one_store() {
        let mut writer = Writer::new();
        let [one, two] = [1, 2].map(|id| Candidates::from(Nexthop::Tunnel(TunnelId(id))));
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
        assert!(writer.iter().all(|(_, candidates)| *candidates == one));
        writer.redirect(prefixes.iter().map(|prefix| (*prefix, &two)));
        assert!(writer.iter().all(|(_, candidates)| *candidates == two));
        assert_eq!(writer.shared.keys().copied().collect::<Vec<_>>(), [group]);
        // A single bucket takes no pair; the routes get it one by one.
        let pair = Candidates::new([&one, &two].iter().flat_map(|n| n.iter()).collect()).unwrap();
        writer.redirect(prefixes.iter().map(|prefix| (*prefix, &pair)));
        assert!(writer.iter().all(|(_, candidates)| *candidates == two));
    }

    #[test]
    fn a_table_with_too_many_different_groups_refuses_and_stays_as_it_was() {
        let mut writer = Writer::new();
        let prefix = |n: u32| IpNet::new(IpAddr::from((n << 8).to_be_bytes()), 24).unwrap();
        let set = |n: u32| {
            let members =
                [2 * n, 2 * n + 1].map(|id| Candidate::from(Nexthop::Tunnel(TunnelId(id))));
            Candidates::new(members.to_vec()).unwrap()
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

    #[test]
    fn a_failover_of_a_hundred_thousand_routes_rewrites_one_group() {
        let mut writer = Writer::new();
        let ranked = |priorities: [u32; 2]| {
            let members = [1, 2]
                .map(TunnelId)
                .map(Nexthop::Tunnel)
                .map(Candidate::from);
            let members = members.into_iter().zip(priorities);
            Candidates::new(
                members
                    .map(|(member, priority)| Candidate { priority, ..member })
                    .collect(),
            )
            .unwrap()
        };
        let candidates = ranked([100, 200]);
        let prefix = |n: u32| IpNet::new(IpAddr::from((n << 8).to_be_bytes()), 24).unwrap();
        for n in 0..100_000 {
            writer.insert(prefix(n), &candidates).unwrap();
        }
        let [one, two] = [1, 2].map(TunnelId).map(Nexthop::Tunnel);
        let all_lead_to = |writer: &Writer, to: Nexthop| {
            let guard = pin();
            (0..100_000).all(|n| {
                let group = writer.table().lookup(prefix(n).addr(), &guard).unwrap();
                group.nexthop(|| n << 15) == to && group.contains(one) && group.contains(two)
            })
        };
        assert!(all_lead_to(&writer, one));
        assert_eq!(writer.penalize(&[(one, 1_000_000)]), 1);
        assert!(all_lead_to(&writer, two));
        // The same again, and one that nobody is chosen by, rewrite nothing.
        assert_eq!(writer.penalize(&[(one, 1_000_000)]), 0);
        assert_eq!(writer.penalize(&[(one, 500_000)]), 0);
        assert_eq!(writer.penalize(&[(one, 0), (two, 0)]), 1);
        assert!(all_lead_to(&writer, one));
        // A route that comes while a tunnel is down leads to the other at once.
        writer.penalize(&[(two, 1_000_000)]);
        writer.insert(prefix(100_000), &ranked([200, 100])).unwrap();
        let guard = pin();
        let group = writer.table().lookup(prefix(100_000).addr(), &guard);
        assert_eq!(group.unwrap().nexthop(|| 0), one);
    }
}
