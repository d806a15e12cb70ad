//! One address family of a table: the RIB, and its compiled form as an array or a trie.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::key::Key;
use super::trie::{Full, Trie, TrieWriter};
use crate::fib::publish::{Guard, Published};

/// Most prefixes that are kept in a line: 16 compares cost less than the trie's first cache miss.
pub const INLINE_MAX: usize = 16;

/// A trie goes back to a line at half of that, so that one prefix more or less does not flap.
const INLINE_AGAIN: usize = INLINE_MAX / 2;

/// The read side of one family.
#[derive(Debug)]
pub(super) struct Family<K: Key> {
    shape: Published<Shape<K>>,
}

#[derive(Debug)]
enum Shape<K> {
    /// Longest prefix first: the first match is the answer.
    Inline(Box<[Line<K>]>),
    Trie(Arc<Trie>),
}

#[derive(Debug)]
struct Line<K> {
    key: K,
    len: u8,
    word: u32,
}

impl<K: Key> Family<K> {
    pub(super) fn new() -> Self {
        Self {
            shape: Published::empty(),
        }
    }

    pub(super) fn lookup(&self, key: K, guard: &Guard) -> Option<u32> {
        match self.shape.load(guard)? {
            Shape::Inline(lines) => lines
                .iter()
                .find(|line| key.truncated(line.len) == line.key)
                .map(|line| line.word),
            Shape::Trie(trie) => trie.lookup(key),
        }
    }
}

/// The write side of one family: every prefix, and the trie when there are many.
#[derive(Debug)]
pub(super) struct Rib<K> {
    prefixes: BTreeMap<(K, u8), Candidate>,
    trie: Option<TrieWriter>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    word: u32,
    /// Where the trie keeps the word; nothing while there is no trie.
    slot: u32,
}

impl<K: Key> Rib<K> {
    pub(super) fn new() -> Self {
        Self {
            prefixes: BTreeMap::new(),
            trie: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.prefixes.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, u8, u32)> + '_ {
        self.prefixes
            .iter()
            .map(|((key, len), candidate)| (*key, *len, candidate.word))
    }

    pub(super) fn insert(
        &mut self,
        family: &Family<K>,
        key: K,
        len: u8,
        word: u32,
    ) -> Result<(), Full> {
        match (&mut self.trie, self.prefixes.get_mut(&(key, len))) {
            (Some(trie), Some(known)) => {
                trie.change(known.slot, word);
                known.word = word;
            }
            (Some(trie), None) => {
                let slot = trie.insert(key, len, word)?;
                self.prefixes.insert((key, len), Candidate { word, slot });
            }
            (None, _) => {
                self.prefixes
                    .insert((key, len), Candidate { word, slot: 0 });
                if self.prefixes.len() <= INLINE_MAX {
                    self.publish_inline(family);
                } else {
                    self.publish_trie(family);
                }
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, family: &Family<K>, key: K, len: u8) -> Option<u32> {
        let gone = self.prefixes.remove(&(key, len))?;
        if self.prefixes.len() <= INLINE_AGAIN {
            self.trie = None;
        }
        let covering = self.covering(key, len);
        match &mut self.trie {
            Some(trie) => trie.remove(key, len, gone.slot, covering.map(|c| c.slot)),
            None => self.publish_inline(family),
        }
        Some(gone.word)
    }

    /// The longest prefix that contains all of this one and is shorter.
    fn covering(&self, key: K, len: u8) -> Option<Candidate> {
        (0..len)
            .rev()
            .find_map(|shorter| self.prefixes.get(&(key.truncated(shorter), shorter)))
            .copied()
    }

    fn publish_inline(&self, family: &Family<K>) {
        let mut lines: Box<[_]> = self
            .iter()
            .map(|(key, len, word)| Line { key, len, word })
            .collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.len));
        family.shape.store(Some(Shape::Inline(lines)));
    }

    fn publish_trie(&mut self, family: &Family<K>) {
        let mut trie = TrieWriter::new();
        for ((key, len), candidate) in &mut self.prefixes {
            candidate.slot = trie
                .insert(*key, *len, candidate.word)
                .expect("a line of prefixes fits into an empty trie");
        }
        family.shape.store(Some(Shape::Trie(trie.trie().clone())));
        self.trie = Some(trie);
    }
}
