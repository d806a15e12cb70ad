//! A multibit trie of 8-bit strides over atomic words: one writer, readers without locks.
//!
//! Every chunk has 256 words. A word says: nothing here, or the slot of the longest prefix that
//! covers this octet, or the chunk to go on in. A prefix is written into all words it covers
//! (leaf pushing), so a look-up is one load per octet and stops at the first leaf.
//!
//! Orderings: a chunk is filled before the Release store that links it and a slot before the Release
//! store of the first leaf that names it; a reader's Acquire load of that word pairs with it. What
//! the writer unlinks is reused only after every guard of that time is gone.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::key::Key;
use crate::fib::arena::Arena;
use crate::fib::publish::pin;

/// Words of a chunk: one per value of an octet.
const CHUNK_WORDS: usize = 256;
/// Chunks of the arena's first segment: 16 KiB, what 17 scattered IPv4 prefixes need.
const CHUNKS_FIRST: u32 = 16;
/// Most chunks of one table and family: 64 MiB, which is 1 M IPv4 prefixes of a full table.
pub const CHUNKS_MAX: u32 = CHUNKS_FIRST * 4095;
/// Slots of the arena's first segment; at most 4095 times as many prefixes, so about 1 M.
const SLOTS_FIRST: u32 = 256;
/// The chunk where every look-up begins.
const ROOT: u32 = 0;
/// The word of an octet that no prefix covers.
const NOTHING: u32 = 0;
/// Set in a word that names a chunk; the other words name a slot, counted from 1.
const CHUNK: u32 = 1 << 31;

/// The table has no room for another prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the routing table is full ({CHUNKS_MAX} chunks per vnet and address family)")]
pub struct Full;

/// The read side.
#[derive(Debug)]
pub(super) struct Trie {
    chunks: Arena,
    /// One word per prefix: its value. That makes a change of value one store.
    slots: Arena,
}

impl Trie {
    pub(super) fn lookup<K: Key>(&self, key: K) -> Option<u32> {
        let mut chunk = ROOT;
        for level in 0..K::OCTETS {
            let word = self.chunks.block(chunk)[key.octet(level)].load(Ordering::Acquire);
            if word == NOTHING {
                return None;
            }
            if word & CHUNK == 0 {
                return Some(self.slots.block(word - 1)[0].load(Ordering::Acquire));
            }
            chunk = word & !CHUNK;
        }
        unreachable!("the last level links no further chunk")
    }
}

/// The only writer of one [`Trie`].
#[derive(Debug)]
pub(super) struct TrieWriter {
    trie: Arc<Trie>,
    /// Length of the prefix in each slot.
    lens: Vec<u8>,
}

impl TrieWriter {
    pub(super) fn new() -> Self {
        let trie = Trie {
            chunks: Arena::new(CHUNK_WORDS, CHUNKS_FIRST),
            slots: Arena::new(1, SLOTS_FIRST),
        };
        let root = trie.chunks.take();
        assert_eq!(root, ROOT, "the first block of an arena is number 0");
        Self {
            trie: Arc::new(trie),
            lens: Vec::new(),
        }
    }

    pub(super) fn trie(&self) -> &Arc<Trie> {
        &self.trie
    }

    /// The prefix in `slot` leads to `value` from here on.
    pub(super) fn change(&self, slot: u32, value: u32) {
        self.trie.slots.block(slot)[0].store(value, Ordering::Release);
    }

    /// Adds a prefix that is not there and gives its slot. When full, nothing has changed.
    pub(super) fn insert<K: Key>(&mut self, key: K, len: u8, value: u32) -> Result<u32, Full> {
        let bottom = level(len);
        let mut path = self.path(key, bottom);
        let room = self.trie.chunks.has_room(bottom + 1 - path.len());
        if !room || !self.trie.slots.has_room(1) {
            return Err(Full);
        }
        let slot = self.trie.slots.take();
        self.change(slot, value);
        let index = slot as usize;
        self.lens.resize(self.lens.len().max(index + 1), 0);
        self.lens[index] = len;

        let mut chunk = path.pop().expect("a path begins at the root");
        for level in path.len()..bottom {
            chunk = self.grow(chunk, key.octet(level));
        }
        self.paint(chunk, span(key, len), slot + 1, &|lens, word| {
            word == NOTHING || lens[(word - 1) as usize] < len
        });
        Ok(slot)
    }

    /// Takes the prefix in `slot` out; `covering` is the slot of the next shorter one.
    pub(super) fn remove<K: Key>(&mut self, key: K, len: u8, slot: u32, covering: Option<u32>) {
        let mut path = self.path(key, level(len));
        let bottom = *path.last().expect("a path begins at the root");
        let restored = covering.map_or(NOTHING, |slot| slot + 1);
        self.paint(bottom, span(key, len), restored, &|_, word| {
            word == slot + 1
        });
        let guard = pin();
        self.trie.slots.retire(slot, &guard);
        // A chunk without a prefix of its own has one word throughout: its parent can say it.
        while let Some(chunk) = path.pop()
            && let Some(&parent) = path.last()
            && let Some(word) = self.uniform(chunk)
        {
            let octet = key.octet(path.len() - 1);
            self.trie.chunks.block(parent)[octet].store(word, Ordering::Release);
            self.trie.chunks.retire(chunk, &guard);
        }
        guard.flush();
    }

    /// The chunks from the root towards `bottom`, as far as they exist.
    fn path<K: Key>(&self, key: K, bottom: usize) -> Vec<u32> {
        let mut path = vec![ROOT];
        for level in 0..bottom {
            let word = self.word(path[level], key.octet(level));
            if word & CHUNK == 0 {
                break;
            }
            path.push(word & !CHUNK);
        }
        path
    }

    /// Puts a chunk under a leaf; every address keeps its answer.
    fn grow(&self, parent: u32, octet: usize) -> u32 {
        let inherited = self.word(parent, octet);
        let chunk = self.trie.chunks.take();
        for word in self.trie.chunks.block(chunk) {
            word.store(inherited, Ordering::Relaxed);
        }
        self.trie.chunks.block(parent)[octet].store(chunk | CHUNK, Ordering::Release);
        chunk
    }

    /// Writes `leaf` over the leaves of a span, and below it, that `replaces` says it wins over.
    fn paint(
        &self,
        chunk: u32,
        span: Range<usize>,
        leaf: u32,
        replaces: &impl Fn(&[u8], u32) -> bool,
    ) {
        for word in &self.trie.chunks.block(chunk)[span] {
            let old = word.load(Ordering::Relaxed);
            if old & CHUNK != 0 {
                self.paint(old & !CHUNK, 0..CHUNK_WORDS, leaf, replaces);
            } else if replaces(&self.lens, old) {
                word.store(leaf, Ordering::Release);
            }
        }
    }

    /// The leaf that fills a whole chunk, if one does.
    fn uniform(&self, chunk: u32) -> Option<u32> {
        let first = self.word(chunk, 0);
        let same = (1..CHUNK_WORDS).all(|octet| self.word(chunk, octet) == first);
        (first & CHUNK == 0 && same).then_some(first)
    }

    /// The writer's own look: nobody else writes.
    fn word(&self, chunk: u32, octet: usize) -> u32 {
        self.trie.chunks.block(chunk)[octet].load(Ordering::Relaxed)
    }
}

/// The level of the chunk whose words a prefix of this length covers in part.
fn level(len: u8) -> usize {
    usize::from(len.saturating_sub(1) / 8)
}

/// The words of that chunk that the prefix covers.
fn span<K: Key>(key: K, len: u8) -> Range<usize> {
    let level = level(len);
    let first = key.octet(level);
    first..first + (CHUNK_WORDS >> (usize::from(len) - 8 * level))
}
