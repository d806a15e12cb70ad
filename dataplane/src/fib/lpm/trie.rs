//! A multibit trie of 8-bit strides over atomic words: one writer, readers without locks.
//!
//! Every chunk has 256 words. A word says: nothing here, or the value of the longest prefix that
//! covers this octet, or the chunk to go on in. A prefix is written into all words it covers
//! (leaf pushing), so a look-up is one load per octet and its last load alone decides the answer:
//! that is why a reader never sees a value that was hidden by a longer prefix.
//!
//! Orderings: a chunk is filled before the Release store that links it; a reader's Acquire load of
//! that word pairs with it. A chunk that the writer unlinks says the same in all words, and is
//! reused only after every guard of that time is gone.

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
/// Most chunks of one table and family: 64 MiB. Enough for 430,000 IPv4 prefixes of /16 to /24
/// spread at random (measured), or 5000 IPv6 hosts without a common beginning.
pub const CHUNKS_MAX: u32 = CHUNKS_FIRST * 4095;
/// The chunk where every look-up begins.
const ROOT: u32 = 0;
/// The word of an octet that no prefix covers.
const NOTHING: u32 = 0;
/// Set in a word that names a chunk; the other words are values.
const CHUNK: u32 = 1 << 31;
/// The mark of a word that no prefix covers; else the length of the covering prefix plus one.
const UNMARKED: u8 = 0;

/// The table has no room for another prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the routing table is full ({CHUNKS_MAX} chunks per vnet and address family)")]
pub struct Full;

/// The read side.
#[derive(Debug)]
pub(super) struct Trie {
    chunks: Arena,
}

impl Trie {
    #[inline]
    pub(super) fn lookup<K: Key>(&self, key: K) -> Option<u32> {
        let mut chunk = ROOT;
        for level in 0..K::OCTETS {
            let word = self.chunks.block(chunk)[key.octet(level)].load(Ordering::Acquire);
            if word & CHUNK == 0 {
                return (word != NOTHING).then_some(word);
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
    /// Per chunk and word: which of the prefixes that cover the word's addresses has it.
    marks: Vec<[u8; CHUNK_WORDS]>,
}

impl TrieWriter {
    pub(super) fn new() -> Self {
        let trie = Trie {
            chunks: Arena::new(CHUNK_WORDS, CHUNKS_FIRST),
        };
        let root = trie.chunks.take();
        assert_eq!(root, ROOT, "the first block of an arena is number 0");
        Self {
            trie: Arc::new(trie),
            marks: vec![[UNMARKED; CHUNK_WORDS]],
        }
    }

    pub(super) fn trie(&self) -> &Arc<Trie> {
        &self.trie
    }

    /// Adds a prefix or changes its value. When full, nothing has changed.
    pub(super) fn insert<K: Key>(&mut self, key: K, len: u8, value: u32) -> Result<(), Full> {
        let bottom = level(len);
        let mut path = self.path(key, bottom);
        if !self.trie.chunks.has_room(bottom + 1 - path.len()) {
            return Err(Full);
        }
        let mut chunk = path.pop().expect("a path begins at the root");
        for level in path.len()..bottom {
            chunk = self.grow(chunk, key.octet(level));
        }
        let mark = len + 1;
        self.paint(chunk, span(key, len), (value, mark), &|old| old <= mark);
        Ok(())
    }

    /// Takes a prefix out; its words get the length and value of the next shorter one.
    pub(super) fn remove<K: Key>(&mut self, key: K, len: u8, covering: Option<(u8, u32)>) {
        let mut path = self.path(key, level(len));
        let bottom = *path.last().expect("a path begins at the root");
        let restored = covering.map_or((NOTHING, UNMARKED), |(len, value)| (value, len + 1));
        self.paint(bottom, span(key, len), restored, &|old| old == len + 1);
        let guard = pin();
        // A chunk without a prefix of its own is filled by one from above: the parent can say it.
        while let Some(chunk) = path.pop()
            && let Some(&parent) = path.last()
            && let Some((word, mark)) = self.uniform(chunk)
        {
            let octet = key.octet(path.len() - 1);
            self.marks[parent as usize][octet] = mark;
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
    fn grow(&mut self, parent: u32, octet: usize) -> u32 {
        let inherited = self.word(parent, octet);
        let mark = self.marks[parent as usize][octet];
        let chunk = self.trie.chunks.take();
        let index = chunk as usize;
        if index == self.marks.len() {
            self.marks.push([mark; CHUNK_WORDS]);
        }
        self.marks[index] = [mark; CHUNK_WORDS];
        for word in self.trie.chunks.block(chunk) {
            word.store(inherited, Ordering::Relaxed);
        }
        self.trie.chunks.block(parent)[octet].store(chunk | CHUNK, Ordering::Release);
        chunk
    }

    /// Writes a value and its mark over the leaves of a span, and below it, whose mark says so.
    fn paint(
        &mut self,
        chunk: u32,
        span: Range<usize>,
        (value, mark): (u32, u8),
        replaces: &impl Fn(u8) -> bool,
    ) {
        for octet in span {
            let old = self.word(chunk, octet);
            if old & CHUNK != 0 {
                self.paint(old & !CHUNK, 0..CHUNK_WORDS, (value, mark), replaces);
            } else if replaces(self.marks[chunk as usize][octet]) {
                self.marks[chunk as usize][octet] = mark;
                self.trie.chunks.block(chunk)[octet].store(value, Ordering::Release);
            }
        }
    }

    /// The value and mark that fill a whole chunk, if one does: equal marks are one prefix, because
    /// two of one length inside a chunk would each fill but a part of it.
    fn uniform(&self, chunk: u32) -> Option<(u32, u8)> {
        let marks = &self.marks[chunk as usize];
        let first = self.word(chunk, 0);
        let is_uniform = (0..CHUNK_WORDS)
            .all(|octet| self.word(chunk, octet) == first && marks[octet] == marks[0]);
        (first & CHUNK == 0 && is_uniform).then_some((first, marks[0]))
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
