//! The return table: who owns an address of 100.64.0.0/12, by one or two array loads.
//!
//! In: prefixes and owners from the one [`Writer`]. Out: wait-free look-ups by any worker, unpinned.
//! State: one word per /24, and a leaf of 256 words for each /24 that was ever split: at most
//! 16 KiB and 4 MiB. A leaf belongs to its /24 for good, so a reader can never be led into a
//! stranger's.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use ipnet::Ipv4Net;
use serde::Serialize;

use super::atomic::{AtomicU32, Ordering};
use crate::id::{NodeId, VnetId, WorkerId};

/// First address of the range, 100.64.0.0.
const BASE: u32 = 0x6440_0000;
/// The range is a /12: 2^20 addresses, 4096 times a /24. A model needs but two.
const BLOCKS: usize = if cfg!(portcullis_loom) { 2 } else { 1 << 12 };
/// Addresses of a /24.
const HOSTS: usize = 256;
/// Set in every word that names an owner.
const VALID: u32 = 1 << 31;
/// The word of a /24 that says: look into its leaf.
const ESCAPE: u32 = 1 << 30;
/// Highest worker number that fits into a word.
pub const WORKER_MAX: WorkerId = WorkerId(63);

/// Whose connections use an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Owner {
    /// The vnet that the address names. Packets from tunnels of another vnet must not reach it.
    pub vnet: VnetId,
    /// The node that leased the address.
    pub node: NodeId,
    /// The worker of that node, at most [`WORKER_MAX`].
    pub worker: WorkerId,
}

impl Owner {
    fn to_word(self) -> u32 {
        assert!(self.worker <= WORKER_MAX, "a worker number has 6 bits");
        VALID
            | u32::from(self.vnet.0) << 14
            | u32::from(self.node.0) << 6
            | u32::from(self.worker.0)
    }

    fn from_word(word: u32) -> Option<Self> {
        let [_, _, _, low] = word.to_be_bytes();
        let [_, _, _, node] = (word >> 6).to_be_bytes();
        let [_, _, vnet @ ..] = ((word & !(VALID | ESCAPE)) >> 14).to_be_bytes();
        (word & VALID != 0).then(|| Self {
            vnet: VnetId(u16::from_be_bytes(vnet)),
            node: NodeId(node),
            worker: WorkerId(low & WORKER_MAX.0),
        })
    }
}

/// The prefix is not inside 100.64.0.0/12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not inside 100.64.0.0/12")]
pub struct OutOfRange(pub Ipv4Net);

/// The read side, shared by all workers.
pub struct ReturnTable {
    blocks: Box<[Block]>,
}

/// One /24.
#[derive(Default)]
struct Block {
    word: AtomicU32,
    leaf: OnceLock<Box<[AtomicU32; HOSTS]>>,
}

impl ReturnTable {
    /// The owner of `address`; `None` when nobody is, or outside of 100.64.0.0/12. Wait-free.
    #[inline]
    pub fn lookup(&self, address: Ipv4Addr) -> Option<Owner> {
        let offset = address.to_bits().wrapping_sub(BASE);
        let block = self.blocks.get((offset >> 8) as usize)?;
        // Acquire pairs with the Release store of `Block::publish`: who sees ESCAPE sees the leaf
        // as filled. Later stores into the leaf are each complete in themselves. A reader that is
        // slow between the two loads gets an answer that was right at some moment of its look-up.
        let word = block.word.load(Ordering::Acquire);
        if word & ESCAPE == 0 {
            return Owner::from_word(word);
        }
        let leaf = block.leaf.get()?;
        Owner::from_word(leaf[usize::from(address.octets()[3])].load(Ordering::Acquire))
    }
}

impl Block {
    /// Makes the block say `words`, one store per address, or one for all.
    fn publish(&self, words: &[u32; HOSTS], is_split: bool) {
        if !is_split {
            self.word.store(words[0], Ordering::Release);
            return;
        }
        let leaf = self
            .leaf
            .get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU32::new(0))));
        for (slot, word) in leaf.iter().zip(words) {
            slot.store(*word, Ordering::Release);
        }
        self.word.store(ESCAPE, Ordering::Release);
    }
}

impl fmt::Debug for ReturnTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReturnTable").finish_non_exhaustive()
    }
}

/// The only writer of one [`ReturnTable`]; keeps all prefixes, so that clearing one restores the
/// covering one.
#[derive(Debug)]
pub struct Writer {
    table: Arc<ReturnTable>,
    owners: BTreeMap<Ipv4Net, Owner>,
}

impl Writer {
    /// A writer with its own empty table.
    pub fn new() -> Self {
        Self {
            table: Arc::new(ReturnTable {
                blocks: (0..BLOCKS).map(|_| Block::default()).collect(),
            }),
            owners: BTreeMap::new(),
        }
    }

    /// The table to read from.
    pub fn table(&self) -> &Arc<ReturnTable> {
        &self.table
    }

    /// Makes `owner` own the addresses of `prefix` that no longer prefix gives to another.
    ///
    /// # Errors
    /// [`OutOfRange`] when the prefix is not inside 100.64.0.0/12.
    ///
    /// # Panics
    /// When the worker's number is above [`WORKER_MAX`].
    pub fn set(&mut self, prefix: Ipv4Net, owner: Owner) -> Result<(), OutOfRange> {
        let prefix = prefix.trunc();
        if prefix.prefix_len() < 12 || prefix.network().to_bits() & !0xf_ffff != BASE {
            return Err(OutOfRange(prefix));
        }
        owner.to_word();
        self.owners.insert(prefix, owner);
        self.refresh(prefix);
        Ok(())
    }

    /// Takes `prefix` out; its addresses fall to the next shorter prefix. Gives the owner it had.
    pub fn clear(&mut self, prefix: Ipv4Net) -> Option<Owner> {
        let prefix = prefix.trunc();
        let owner = self.owners.remove(&prefix)?;
        self.refresh(prefix);
        Some(owner)
    }

    /// All prefixes and their owners, by address and length.
    pub fn iter(&self) -> impl Iterator<Item = (Ipv4Net, Owner)> + '_ {
        self.owners.iter().map(|(prefix, owner)| (*prefix, *owner))
    }

    /// Writes every /24 that `prefix` touches.
    fn refresh(&self, prefix: Ipv4Net) {
        let first = (prefix.network().to_bits() - BASE) >> 8;
        let last = (prefix.broadcast().to_bits() - BASE) >> 8;
        for number in first..=last {
            let network = Ipv4Addr::from_bits(BASE + (number << 8));
            let (words, is_split) = self.words(Ipv4Net::new_assert(network, 24));
            self.table.blocks[number as usize].publish(&words, is_split);
        }
    }

    /// What the addresses of a /24 should say, and whether they differ.
    fn words(&self, block: Ipv4Net) -> ([u32; HOSTS], bool) {
        let covering = (12..=24).rev().find_map(|len| {
            let shorter = Ipv4Net::new_assert(block.network(), len).trunc();
            self.owners.get(&shorter)
        });
        let mut words = [covering.map_or(0, |owner| owner.to_word()); HOSTS];
        let first = Ipv4Net::new_assert(block.network(), 0);
        let last = Ipv4Net::new_assert(block.broadcast(), 32);
        let mut is_split = false;
        // In order of address and length: what is inside comes after what it is inside of.
        for (prefix, owner) in self.owners.range(first..=last) {
            if prefix.prefix_len() > 24 {
                is_split = true;
                let from = usize::from(prefix.network().octets()[3]);
                let to = usize::from(prefix.broadcast().octets()[3]);
                words[from..=to].fill(owner.to_word());
            }
        }
        (words, is_split)
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
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::fib::under_readers::assert_explained;

    /// A prefix gets an owner, or goes.
    type Update = (Ipv4Net, bool);
    type Model = BTreeMap<Ipv4Net, Owner>;

    /// Prefixes of few /24s, so that they nest and share leaves.
    fn prefix() -> impl Strategy<Value = Ipv4Net> {
        let thirds = select(vec![0_u8, 1, 2, 255]);
        (select(vec![64_u8, 65, 79]), thirds, any::<u8>(), 12_u8..=32).prop_map(
            |(second, third, fourth, len)| {
                Ipv4Net::new_assert(Ipv4Addr::new(100, second, third, fourth), len).trunc()
            },
        )
    }

    fn updates(count: usize) -> impl Strategy<Value = Vec<Update>> {
        vec(prefix(), 4..40).prop_flat_map(move |prefixes| {
            vec((select(prefixes), prop::bool::weighted(0.6)), count)
        })
    }

    fn probes(updates: &[Update]) -> Vec<Ipv4Addr> {
        let mut probes: Vec<Ipv4Addr> = updates
            .iter()
            .flat_map(|(net, _)| {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                [first, last, first - 1, last + 1].map(Ipv4Addr::from_bits)
            })
            .collect();
        probes.sort();
        probes.dedup();
        probes
    }

    /// The owner that update number `index` sets: no two look alike.
    fn owner(index: usize) -> Owner {
        Owner {
            vnet: VnetId(u16::try_from(index).unwrap() + 1),
            node: NodeId(u8::try_from(index % 256).unwrap()),
            worker: WorkerId(u8::try_from(index % 64).unwrap()),
        }
    }

    fn scan(model: &Model, address: Ipv4Addr) -> Option<Owner> {
        model
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, owner)| *owner)
    }

    fn update_model(model: &mut Model, index: usize, (prefix, is_set): Update) {
        if is_set {
            model.insert(prefix, owner(index));
        } else {
            model.remove(&prefix);
        }
    }

    fn update(writer: &mut Writer, index: usize, (prefix, is_set): Update) {
        if is_set {
            writer.set(prefix, owner(index)).unwrap();
        } else {
            writer.clear(prefix);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn look_ups_equal_a_linear_scan(updates in updates(100)) {
            let (mut writer, mut model) = (Writer::new(), Model::new());
            let probes = probes(&updates);
            for (index, step) in updates.iter().enumerate() {
                update(&mut writer, index, *step);
                update_model(&mut model, index, *step);
                for probe in &probes {
                    prop_assert_eq!(writer.table().lookup(*probe), scan(&model, *probe));
                }
            }
        }

        #[test]
        fn readers_see_only_what_an_update_explains(updates in updates(400)) {
            let (mut writer, mut model) = (Writer::new(), Model::new());
            let probes = probes(&updates);
            let answers = |model: &Model| probes.iter().map(|probe| scan(model, *probe)).collect();
            let mut states: Vec<Vec<_>> = vec![answers(&model)];
            for (index, step) in updates.iter().enumerate() {
                update_model(&mut model, index, *step);
                states.push(answers(&model));
            }
            let table = writer.table().clone();
            assert_explained(
                &states,
                |index| update(&mut writer, index, updates[index]),
                |probe| table.lookup(probes[probe]),
            );
        }

        #[test]
        fn an_owner_survives_its_word(vnet: u16, node: u8, worker in 0_u8..64) {
            let owner = Owner {
                vnet: VnetId(vnet),
                node: NodeId(node),
                worker: WorkerId(worker),
            };
            prop_assert_eq!(Owner::from_word(owner.to_word()), Some(owner));
            prop_assert_eq!(owner.to_word() & ESCAPE, 0);
        }
    }

    #[test]
    fn a_prefix_outside_of_the_range_is_refused() {
        let mut writer = Writer::new();
        for bad in ["100.64.0.0/11", "100.80.0.0/12", "10.0.0.0/24", "0.0.0.0/0"] {
            let bad: Ipv4Net = bad.parse().unwrap();
            assert!(writer.set(bad, owner(0)).is_err(), "{bad}");
        }
        for outside in ["100.63.255.255", "100.80.0.0", "0.0.0.0", "255.255.255.255"] {
            assert_eq!(writer.table().lookup(outside.parse().unwrap()), None);
        }
    }
}
