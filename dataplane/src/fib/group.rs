//! Next-hop groups by number: a flow's hash picks a bucket, the bucket names the next hop.
//!
//! A group of one has one bucket; of several, [`BUCKETS`]. Who has a bucket is decided by weighted
//! rendezvous hashing: each member draws a number per bucket that depends on nothing but the two,
//! and the highest has it. So the buckets follow from the members alone, whatever came before and on
//! whatever node; a member that goes leaves its buckets to the others and nobody else's move; one
//! that comes takes its share from all.
//!
//! Members are all candidates of the routes that lead to the group, those who have buckets only the
//! best of them: what comes back by another is still known to come from where the route leads.
//!
//! A change of members is one store per bucket, however many routes lead to the group. Orderings: a
//! group is filled before the leaf that names it is stored with Release, and a reader's Acquire load
//! of the leaf pairs with it; each later store into a bucket is complete in itself.

use super::arena::Arena;
use super::atomic::{AtomicU32, Ordering};
use super::lpm::Value;
use super::nexthop::{CANDIDATES_MAX, Candidate, Candidates, Nexthop};
use super::publish::Guard;

/// Buckets of a group of several next hops. Drawn from a permutation per member, the share of one
/// of two equals is 128 with a standard deviation of 4.6.
pub const BUCKETS: usize = 256;

/// Groups of one next hop, for a start: a word each, at most 65,520.
const SINGLES_FIRST: u32 = 16;
/// Groups of several, for a start: 1152 bytes each, at most 4095, 4.5 MiB.
const MANY_FIRST: u32 = 1;
/// Words of a group of several: its buckets, then its members twice, see [`Groups::write`].
const MANY_WORDS: usize = BUCKETS + 2 * CANDIDATES_MAX;
/// Set in the number of a group of several.
const MANY: u32 = 1 << 29;
/// The word of no member.
const NOBODY: u32 = 0;

/// The number of a group, as a leaf has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupId(u32);

impl Value for GroupId {
    fn to_word(self) -> u32 {
        self.0
    }

    fn from_word(word: u32) -> Self {
        Self(word)
    }
}

impl GroupId {
    /// Whether this group can have several members.
    pub(super) fn is_many(self) -> bool {
        self.0 & MANY != 0
    }

    fn block(self) -> u32 {
        (self.0 & !MANY) - 1
    }
}

/// The read side: every group of one table.
#[derive(Debug)]
pub(super) struct Groups {
    singles: Arena<[AtomicU32; 1]>,
    many: Arena<[AtomicU32; MANY_WORDS]>,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self {
            singles: Arena::new(SINGLES_FIRST),
            many: Arena::new(MANY_FIRST),
        }
    }

    /// The group that a leaf names. Hold the guard under which the leaf was read.
    #[inline]
    pub(super) fn get<'g>(&'g self, id: GroupId, _guard: &'g Guard) -> Group<'g> {
        if id.is_many() {
            Group::Many(self.many.block(id.block()))
        } else {
            Group::Single(&self.singles.block(id.block())[0])
        }
    }

    /// Makes a group, of whose candidates these are chosen; `None` when there is no room.
    pub(super) fn make(&self, candidates: &Candidates, chosen: &[Candidate]) -> Option<GroupId> {
        let id = if candidates.single().is_some() {
            self.singles
                .has_room(1)
                .then(|| GroupId(self.singles.take() + 1))?
        } else {
            self.many
                .has_room(1)
                .then(|| GroupId((self.many.take() + 1) | MANY))?
        };
        self.write(id, candidates, chosen);
        Some(id)
    }

    /// Gives a group other members, for all routes that lead to it. Several need room for several.
    pub(super) fn write(&self, id: GroupId, candidates: &Candidates, chosen: &[Candidate]) {
        if !id.is_many() {
            let nexthop = candidates.single().expect("a group of one gets one");
            let word = &self.singles.block(id.block())[0];
            word.store(nexthop.to_word(), Ordering::Release);
            return;
        }
        let (buckets, members) = self.many.block(id.block()).split_at(BUCKETS);
        let (before, after) = members.split_at(CANDIDATES_MAX);
        // Whoever has a bucket is a member at any moment: the new ones come, the buckets change,
        // the old ones go.
        let words: Vec<_> = candidates
            .iter()
            .map(|member| member.nexthop.to_word())
            .collect();
        fill(after, &words);
        fill(buckets, &layout(chosen));
        fill(before, &words);
        fill(after, &[]);
    }

    /// Gives the buckets of a group to others of its members, for all routes that lead to it.
    pub(super) fn choose(&self, id: GroupId, chosen: &[Candidate]) {
        if id.is_many() {
            fill(&self.many.block(id.block())[..BUCKETS], &layout(chosen));
        }
    }

    /// Gives a group's place back when no reader can see it any more.
    pub(super) fn retire(&self, id: GroupId, guard: &Guard) {
        if id.is_many() {
            self.many.retire(id.block(), guard);
        } else {
            self.singles.retire(id.block(), guard);
        }
    }
}

fn fill(slots: &[AtomicU32], words: &[u32]) {
    let words = words.iter().chain(std::iter::repeat(&NOBODY));
    for (slot, word) in slots.iter().zip(words) {
        slot.store(*word, Ordering::Release);
    }
}

/// Where a route leads at this moment.
#[derive(Clone, Copy, Debug)]
pub enum Group<'g> {
    /// One next hop.
    Single(&'g AtomicU32),
    /// Several: buckets, and members.
    Many(&'g [AtomicU32; MANY_WORDS]),
}

impl Group<'_> {
    /// The next hop of a flow. Its hash is asked for only where it matters.
    #[inline]
    pub fn nexthop(&self, flow: impl FnOnce() -> u32) -> Nexthop {
        let word = match self {
            Group::Single(word) => word,
            Group::Many(words) => &words[bucket(flow())],
        };
        Nexthop::from_word(word.load(Ordering::Acquire))
    }

    /// Whether `nexthop` is a member.
    pub fn contains(&self, nexthop: Nexthop) -> bool {
        let wanted = nexthop.to_word();
        let members = match self {
            Group::Single(word) => std::slice::from_ref(*word),
            Group::Many(words) => &words[BUCKETS..],
        };
        members
            .iter()
            .any(|word| word.load(Ordering::Acquire) == wanted)
    }
}

/// The bucket of a flow: the highest bits of its hash.
#[inline]
fn bucket(flow: u32) -> usize {
    let [bucket, ..] = flow.to_be_bytes();
    usize::from(bucket)
}

/// Who has which bucket.
fn layout(chosen: &[Candidate]) -> [u32; BUCKETS] {
    let mut best = [(f64::NEG_INFINITY, 0, NOBODY); BUCKETS];
    for member in chosen {
        let word = member.nexthop.to_word();
        // Each member draws every rank once: shares come out closer than by independent draws.
        let mut order: Vec<_> = (0..BUCKETS)
            .map(|bucket| (draw(word, bucket), bucket))
            .collect();
        order.sort_unstable();
        for (rank, (tie, bucket)) in (0_u16..).zip(order) {
            let uniform = (f64::from(rank) + 0.5) / 256.0;
            let score = uniform.ln() / f64::from(member.weight);
            let offer = (score, tie, word);
            if offer > best[bucket] {
                best[bucket] = offer;
            }
        }
    }
    best.map(|(_, _, word)| word)
}

/// What a member draws for a bucket: the finalizer of SplitMix64 over the two.
fn draw(word: u32, bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).expect("a bucket's number is small");
    let mut x = (u64::from(word) << 16 | bucket).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(not(portcullis_loom))]
#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;
    use crate::fib::pin;
    use crate::id::TunnelId;

    fn candidates(members: impl IntoIterator<Item = (u32, u8)>) -> Candidates {
        let members = members.into_iter().map(|(id, weight)| Candidate {
            nexthop: Nexthop::Tunnel(TunnelId(id)),
            priority: 0,
            weight,
        });
        Candidates::new(members.collect()).unwrap()
    }

    fn all(candidates: &Candidates) -> Vec<Candidate> {
        candidates.chosen(|_| 0)
    }

    /// The next hop of one flow per bucket.
    fn flows(groups: &Groups, id: GroupId) -> Vec<Nexthop> {
        let guard = pin();
        (0..=255_u8)
            .map(|n| {
                groups
                    .get(id, &guard)
                    .nexthop(|| u32::from_be_bytes([n, 1, 2, 3]))
            })
            .collect()
    }

    fn share(flows: &[Nexthop], nexthop: Nexthop) -> f64 {
        let count = flows.iter().filter(|flow| **flow == nexthop).count();
        f64::from(u32::try_from(count).unwrap())
    }

    proptest! {
        #[test]
        fn members_get_their_share_of_the_flows(
            members in btree_map(0_u32..100_000, 1_u8..=8, 2..=CANDIDATES_MAX),
        ) {
            let members = candidates(members);
            let groups = Groups::new();
            let id = groups.make(&members, &all(&members)).unwrap();
            let flows = flows(&groups, id);
            let sum: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
            for member in members.iter() {
                let fair = 256.0 * f64::from(member.weight) / sum;
                // Five standard deviations of independent draws: the wildest that is believable.
                let tolerance = 5.0 * (fair * (1.0 - fair / 256.0)).sqrt();
                let got = share(&flows, member.nexthop);
                prop_assert!((got - fair).abs() <= tolerance, "{got} of {fair}");
                prop_assert!(groups.get(id, &pin()).contains(member.nexthop));
            }
            prop_assert!(flows.iter().all(|flow| members.contains(*flow)));
        }

        #[test]
        fn only_flows_of_a_member_that_goes_or_comes_move(
            members in btree_map(0_u32..100_000, 1_u8..=8, 3..=CANDIDATES_MAX), pick: usize,
        ) {
            let both = candidates(members);
            let gone = both.iter().nth(pick % both.iter().count()).unwrap().nexthop;
            let rest = both.without(gone).unwrap();
            let groups = Groups::new();
            let id = groups.make(&both, &all(&both)).unwrap();
            let before = flows(&groups, id);
            groups.write(id, &rest, &all(&rest));
            let after = flows(&groups, id);
            for (old, new) in before.iter().zip(&after) {
                prop_assert_ne!(*new, gone);
                prop_assert!(*old == gone || old == new);
            }
            prop_assert!(!groups.get(id, &pin()).contains(gone));
            // Another group of the same members, on whatever node, sends the flows the same way.
            prop_assert_eq!(&flows(&groups, groups.make(&rest, &all(&rest)).unwrap()), &after);
            groups.write(id, &both, &all(&both));
            prop_assert_eq!(&flows(&groups, id), &before);
            // One that only stops being chosen moves the same flows, and stays a member.
            groups.choose(id, &all(&rest));
            prop_assert_eq!(&flows(&groups, id), &after);
            prop_assert!(groups.get(id, &pin()).contains(gone));
            groups.choose(id, &all(&both));
            prop_assert_eq!(flows(&groups, id), before);
        }
    }

    #[test]
    fn two_equals_share_evenly_over_many_pairs() {
        let groups = Groups::new();
        let far_off = (0..1000).filter(|n| {
            let pair = candidates([(2 * n, 1), (2 * n + 1, 1)]);
            let id = groups.make(&pair, &all(&pair)).unwrap();
            let half = share(&flows(&groups, id), Nexthop::Tunnel(TunnelId(2 * n)));
            (half - 128.0).abs() > 3.0 * 4.6
        });
        // Three standard deviations of a random permutation's excedances: 0.27 % are beyond.
        assert!(far_off.count() <= 10);
    }

    #[test]
    fn a_group_of_one_asks_for_no_hash() {
        let groups = Groups::new();
        let local = groups.make(&Nexthop::Local.into(), &[]).unwrap();
        let guard = pin();
        let group = groups.get(local, &guard);
        assert_eq!(group.nexthop(|| unreachable!()), Nexthop::Local);
        assert!(!group.contains(Nexthop::Tunnel(TunnelId(0))));
    }
}
