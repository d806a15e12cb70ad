//! One address family of a table: the RIB, and its compiled form as an array or a trie.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::key::Key;
use super::trie::Trie;
use super::writer::{Full, TrieWriter};
use crate::fib::publish::{Guard, Published};
use crate::fib::reserve::Refused;

/// Most prefixes that are kept in a line: with 16 a look-up takes as long as in the trie (measured:
/// 12 and 11 ns), and the trie takes 16 KiB at least.
pub const INLINE_MAX: usize = 16;

/// A trie goes back to a line at half of that, so that one prefix more or less does not flap.
const INLINE_AGAIN: usize = INLINE_MAX / 2;

/// From so many prefixes on the root decides 16 bits: its 256 KiB save a load per look-up.
pub const WIDE_MIN: usize = 4096;

/// A wide root becomes narrow again at half of that.
const NARROW_AGAIN: usize = WIDE_MIN / 2;

/// The read side of one family.
#[derive(Debug)]
pub(super) struct Family<K: Key> {
    shape: Published<Shape<K>>,
}

#[derive(Debug)]
enum Shape<K: Key> {
    /// Longest prefix first: the first match is the answer.
    Inline(Box<[Line<K>]>),
    Trie(Arc<Trie<K>>),
}

#[derive(Debug)]
struct Line<K> {
    key: K,
    mask: K,
    word: u32,
}

impl<K: Key> Family<K> {
    pub(super) fn new() -> Self {
        Self {
            shape: Published::empty(),
        }
    }

    #[inline]
    pub(super) fn lookup(&self, key: K, guard: &Guard) -> Option<u32> {
        match self.shape.load(guard)? {
            Shape::Inline(lines) => lines
                .iter()
                .find(|line| key & line.mask == line.key)
                .map(|line| line.word),
            Shape::Trie(trie) => trie.lookup(key),
        }
    }
}

/// The write side of one family: every prefix, and the trie when there are many.
#[derive(Debug)]
pub(super) struct Rib<K: Key> {
    prefixes: BTreeMap<(K, u8), u32>,
    trie: Option<TrieWriter<K>>,
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
            .map(|((key, len), word)| (*key, *len, *word))
    }

    pub(super) fn trie_bytes(&self) -> usize {
        self.trie.as_ref().map_or(0, |trie| trie.trie().bytes())
    }

    pub(super) fn get(&self, key: K, len: u8) -> Option<u32> {
        self.prefixes.get(&(key, len)).copied()
    }

    pub(super) fn insert(
        &mut self,
        family: &Family<K>,
        key: K,
        len: u8,
        word: u32,
    ) -> Result<(), Full> {
        if let Some(trie) = &mut self.trie {
            trie.insert(key, len, word)?;
            self.prefixes.insert((key, len), word);
            if self.prefixes.len() == WIDE_MIN {
                self.reshape(family);
            }
            return Ok(());
        }
        let before = self.prefixes.insert((key, len), word);
        if self.prefixes.len() <= INLINE_MAX {
            self.publish_inline(family);
        } else if self.publish_trie(family).is_err() {
            match before {
                Some(before) => self.prefixes.insert((key, len), before),
                None => self.prefixes.remove(&(key, len)),
            };
            return Err(Full);
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
            Some(trie) => trie.remove(key, len, covering),
            None => self.publish_inline(family),
        }
        if self.prefixes.len() == NARROW_AGAIN {
            self.reshape(family);
        }
        Some(gone)
    }

    /// The longest prefix that contains all of this one and is shorter.
    fn covering(&self, key: K, len: u8) -> Option<(u8, u32)> {
        (0..len).rev().find_map(|shorter| {
            let word = self.prefixes.get(&(key.truncated(shorter), shorter))?;
            Some((shorter, *word))
        })
    }

    fn publish_inline(&self, family: &Family<K>) {
        let mut rows: Vec<_> = self.iter().collect();
        rows.sort_by_key(|(_, len, _)| std::cmp::Reverse(*len));
        let lines = rows
            .into_iter()
            .map(|(key, len, word)| Line {
                key,
                mask: K::ONES.truncated(len),
                word,
            })
            .collect();
        family.shape.store(Some(Shape::Inline(lines)));
    }

    /// Builds the trie anew with the root that suits.
    fn reshape(&mut self, family: &Family<K>) {
        match self.publish_trie(family) {
            // Where there is no room for both, the old one goes on: its answers are the same.
            Ok(()) | Err(Refused) => {}
        }
    }

    /// Builds a trie with the root that suits the number of prefixes. A few thousand fit always.
    fn publish_trie(&mut self, family: &Family<K>) -> Result<(), Refused> {
        let [narrow, wide] = K::ROOT;
        let is_wide = self.prefixes.len() >= WIDE_MIN;
        let mut trie = TrieWriter::new(if is_wide { wide } else { narrow })?;
        for ((key, len), word) in &self.prefixes {
            trie.insert(*key, *len, *word)
                .expect("so few prefixes fit into an empty trie");
        }
        family.shape.store(Some(Shape::Trie(trie.trie().clone())));
        self.trie = Some(trie);
        Ok(())
    }
}
