//! Timers of flows: a hierarchical timing wheel, at most one timer a flow.
//!
//! Setting, moving, removing and firing a timer touch a bounded number of words, however many there
//! are, and allocate nothing. Four levels of 64 slots: 1 ms, 64 ms, 4 s and 4.4 min each, 4.6 h in
//! all; what lies further ahead fires then, and its owner sets it again.

use std::time::{Duration, Instant};

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 4;
/// The furthest that a timer can be ahead, in ticks.
const AHEAD_MAX: u64 = (1 << (BITS * 4)) - 1;
/// The list of timers that are being fired.
const FIRING: usize = LEVELS * SLOTS;
const NONE: u32 = u32::MAX;
const NO_LIST: u16 = u16::MAX;

/// The wheel. Cardinality: one per worker's flows.
#[derive(Debug)]
pub(super) struct Wheel {
    epoch: Instant,
    /// The tick that has been reached: a tick is a millisecond after the epoch.
    tick: u64,
    heads: [u32; FIRING + 1],
    /// A bit for each slot that has timers.
    occupied: [u64; LEVELS],
    /// By flow.
    timers: Vec<Timer>,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    due: u64,
    next: u32,
    prev: u32,
    list: u16,
}

const UNSET: Timer = Timer {
    due: 0,
    next: NONE,
    prev: NONE,
    list: NO_LIST,
};

impl Wheel {
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            tick: 0,
            heads: [NONE; FIRING + 1],
            occupied: [0; LEVELS],
            timers: Vec::new(),
        }
    }

    /// Makes room for the timer of a flow, which is the only place where memory grows.
    pub(super) fn admit(&mut self, index: u32) {
        let needed = usize_of(index) + 1;
        if self.timers.len() < needed {
            self.timers.resize(needed, UNSET);
        }
    }

    /// Makes a flow's timer fire at `at`, or earlier if it is set to fire earlier: who is woken too
    /// early sets it again, which is cheaper than moving it back at each packet.
    pub(super) fn set_by(&mut self, index: u32, at: Instant) {
        let after = at.saturating_duration_since(self.epoch);
        let due = u64::try_from(after.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        let due = due.clamp(self.tick + 1, self.tick + AHEAD_MAX);
        let timer = &self.timers[usize_of(index)];
        if timer.list == NO_LIST || due < timer.due {
            self.remove(index);
            self.timers[usize_of(index)].due = due;
            self.insert(index);
        }
    }

    /// Takes a flow's timer away.
    pub(super) fn remove(&mut self, index: u32) {
        let Timer {
            next, prev, list, ..
        } = self.timers[usize_of(index)];
        if list == NO_LIST {
            return;
        }
        let list = usize::from(list);
        match prev {
            NONE => self.heads[list] = next,
            prev => self.timers[usize_of(prev)].next = next,
        }
        if next != NONE {
            self.timers[usize_of(next)].prev = prev;
        }
        if self.heads[list] == NONE && list < FIRING {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
        self.timers[usize_of(index)].list = NO_LIST;
    }

    /// The next flow whose timer is due; the timer is unset. Call it until it gives `None`.
    pub(super) fn expire(&mut self, now: Instant) -> Option<u32> {
        let after = now.saturating_duration_since(self.epoch);
        let now = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        loop {
            while self.heads[FIRING] != NONE {
                let index = self.heads[FIRING];
                self.remove(index);
                if self.timers[usize_of(index)].due <= self.tick {
                    return Some(index);
                }
                self.insert(index);
            }
            match self.next_slot() {
                Some((level, slot, at)) if at <= now => {
                    self.tick = self.tick.max(at);
                    self.fire(level, slot);
                }
                _ => {
                    self.tick = self.tick.max(now);
                    return None;
                }
            }
        }
    }

    /// When [`Wheel::expire`] may have something; never later than that.
    pub(super) fn due(&self) -> Option<Instant> {
        let (_, _, at) = self.next_slot()?;
        Some(self.epoch + Duration::from_millis(at))
    }

    /// Level, slot and tick of the slot that is reached first. Slots of a lower level always are:
    /// a timer lies on the level of the highest digit in which it differs from the tick.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for (level, occupied) in self.occupied.iter().enumerate() {
            if *occupied == 0 {
                continue;
            }
            let shift = BITS * u32::try_from(level).expect("four levels");
            // The slot that the tick is in comes last: only the top level has timers in it, which are
            // a whole round ahead.
            let first = (self.tick >> shift) + 1;
            let turn = u32::try_from(first & 63).expect("below 64");
            let ahead = u64::from(occupied.rotate_right(turn).trailing_zeros());
            let slot = usize_of_tick((first + ahead) & 63);
            let round = 1_u64 << (shift + BITS);
            let start = self.tick & !(round - 1);
            let mut at = start + (u64::try_from(slot).expect("below 64") << shift);
            if at <= self.tick {
                at += round;
            }
            return Some((level, slot, at));
        }
        None
    }

    /// Moves a slot's timers to the list that is being fired, which is empty.
    fn fire(&mut self, level: usize, slot: usize) {
        let list = level * SLOTS + slot;
        let head = std::mem::replace(&mut self.heads[list], NONE);
        self.occupied[level] &= !(1 << slot);
        self.heads[FIRING] = head;
        let mut index = head;
        while index != NONE {
            let timer = &mut self.timers[usize_of(index)];
            timer.list = u16::try_from(FIRING).expect("257 lists");
            index = timer.next;
        }
    }

    fn insert(&mut self, index: u32) {
        let due = self.timers[usize_of(index)].due;
        let differing = (due ^ self.tick) | 1;
        let digit = usize_of_tick(u64::from((63 - differing.leading_zeros()) / BITS));
        let level = digit.min(LEVELS - 1);
        let shift = BITS * u32::try_from(level).expect("four levels");
        let slot = usize_of_tick((due >> shift) & 63);
        let list = level * SLOTS + slot;
        let next = std::mem::replace(&mut self.heads[list], index);
        if next != NONE {
            self.timers[usize_of(next)].prev = index;
        }
        self.occupied[level] |= 1 << slot;
        self.timers[usize_of(index)] = Timer {
            due,
            next,
            prev: NONE,
            list: u16::try_from(list).expect("257 lists"),
        };
    }
}

fn usize_of(index: u32) -> usize {
    usize::try_from(index).expect("usize has at least 32 bits")
}

fn usize_of_tick(digit: u64) -> usize {
    usize::try_from(digit).expect("a digit is below 64")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::io::clock;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, u64),
        Remove(u32),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let far = prop_oneof![0..70_u64, 0..5000_u64, 0..400_000_u64, 0..40_000_000_u64];
        let step = prop_oneof![
            4 => (0..40_u32, far.clone()).prop_map(|(index, ms)| Step::Set(index, ms)),
            1 => (0..40_u32).prop_map(Step::Remove),
            3 => far.prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        #[test]
        fn timers_fire_when_a_sorted_map_says(steps in steps()) {
            let epoch = clock::now();
            let mut now = epoch;
            let mut wheel = Wheel::new(epoch);
            (0..40).for_each(|index| wheel.admit(index));
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(index, ms) => {
                        let at = now + Duration::from_millis(ms);
                        wheel.set_by(index, at);
                        let ahead = now + Duration::from_millis(AHEAD_MAX);
                        let at = at.max(now + Duration::from_millis(1)).min(ahead);
                        let known = model.entry(index).or_insert(at);
                        *known = at.min(*known);
                    }
                    Step::Remove(index) => {
                        wheel.remove(index);
                        model.remove(&index);
                    }
                    Step::Pass(ms) => {
                        let earliest = model.values().min().copied();
                        if let Some(earliest) = earliest {
                            let due = wheel.due().expect("a timer is set");
                            prop_assert!(due <= earliest);
                        } else {
                            prop_assert_eq!(wheel.due(), None);
                        }
                        now += Duration::from_millis(ms);
                        let mut fired = Vec::new();
                        while let Some(index) = wheel.expire(now) {
                            fired.push(index);
                        }
                        fired.sort_unstable();
                        let expected: Vec<u32> =
                            model.iter().filter(|(_, at)| **at <= now).map(|(i, _)| *i).collect();
                        prop_assert_eq!(&fired, &expected);
                        model.retain(|_, at| *at > now);
                    }
                }
            }
        }
    }
}
