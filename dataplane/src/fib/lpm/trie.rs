//! A multibit trie over atomic words, the read side: one writer, readers without locks.
//!
//! A word says: nothing here, or the value of the longest prefix that covers all addresses of the
//! word, or where to go on. To a *chunk*: a word for each value of the next bits. Or to a *skip
//! node*: a lone prefix, or the one chunk in which everything longer is, far below; addresses outside
//! of it have one value. A prefix is written into all words it covers (leaf pushing), so the last
//! load of a look-up alone decides the answer: that is why a reader never sees a value that was
//! hidden by a longer prefix.
//!
//! Orderings: a chunk or node is filled before the Release store that links it; a reader's Acquire
//! load of that word pairs with it. What the writer unlinks says the same at all its addresses as
//! what took its place, and is reused only after every guard of that time is gone.

use std::marker::PhantomData;

use super::key::{KEY_WORDS, Key};
use crate::fib::atomic::{AtomicU32, Ordering};
use crate::fib::reserve::{Refused, Reserve};

/// The word that no prefix covers.
pub(super) const NOTHING: u32 = 0;
/// Set in a word that leads on; the others are values.
pub(super) const LINK: u32 = 1 << 31;
/// Set in a word that leads to a skip node.
const NODE: u32 = 1 << 30;

/// Words of a skip node: the length of its prefix, its bits, where addresses inside and outside go,
/// and one to spare: a power of two does not straddle cache lines.
const NODE_WORDS: usize = 8;
const LEN: usize = 0;
const KEY: usize = 1;
const HIT: usize = KEY + KEY_WORDS;
const MISS: usize = HIT + 1;

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A value, or [`NOTHING`].
    Leaf(u32),
    Chunk(u32),
    Node(u32),
}

impl Word {
    #[inline]
    pub(super) fn of(word: u32) -> Self {
        match word & (LINK | NODE) {
            LINK => Self::Chunk(word & !LINK),
            value if value & LINK == 0 => Self::Leaf(word),
            _ => Self::Node(word & !(LINK | NODE)),
        }
    }

    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Leaf(word) => word,
            Self::Chunk(chunk) => LINK | chunk,
            Self::Node(node) => LINK | NODE | node,
        }
    }
}

/// The read side.
#[derive(Debug)]
pub(super) struct Trie<K: Key> {
    pub(super) root: Box<[AtomicU32]>,
    pub(super) root_bits: u8,
    pub(super) chunks: Reserve,
    pub(super) nodes: Reserve,
    key: PhantomData<fn() -> K>,
}

impl<K: Key> Trie<K> {
    /// An empty trie whose root decides this many bits.
    ///
    /// # Errors
    /// [`Refused`] when the system has no room for it.
    pub(super) fn new(root_bits: u8) -> Result<Self, Refused> {
        let [chunks, nodes] = K::ROOM;
        Ok(Self {
            root: (0..1_usize << root_bits)
                .map(|_| AtomicU32::new(NOTHING))
                .collect(),
            root_bits,
            chunks: Reserve::new(chunks, 1 << K::STRIDE)?,
            nodes: Reserve::new(nodes, NODE_WORDS)?,
            key: PhantomData,
        })
    }

    /// A load and a few instructions a level: the fewer, the more look-ups a core has under way
    /// while it waits for memory.
    #[inline]
    pub(super) fn lookup(&self, key: K) -> Option<u32> {
        let mut word = self.root[key.head(self.root_bits)].load(Ordering::Acquire);
        let mut rest = key.tail(self.root_bits);
        while word & LINK != 0 {
            if K::HAS_NODES && word & NODE != 0 {
                let (len, next) = self.skip(word & !(LINK | NODE), key);
                word = next;
                rest = key.tail(len);
            } else {
                // The shift moves LINK out.
                let index = (word << K::STRIDE) as usize | rest.head(K::STRIDE);
                word = self.chunks.words()[index].load(Ordering::Acquire);
                rest = rest.tail(K::STRIDE);
            }
        }
        (word != NOTHING).then_some(word)
    }

    /// The length of a node's prefix, and where it sends an address. The prefix never changes while
    /// the node is linked.
    #[inline]
    fn skip(&self, node: u32, key: K) -> (u8, u32) {
        let first = node as usize * NODE_WORDS;
        let words = &self.nodes.words()[first..first + NODE_WORDS];
        let word = |at: usize| words[at].load(Ordering::Relaxed);
        let prefix = K::from_words([word(KEY), word(KEY + 1), word(KEY + 2), word(KEY + 3)]);
        let [.., len] = word(LEN).to_be_bytes();
        let is_inside = key.common(prefix) >= len;
        let next = &words[if is_inside { HIT } else { MISS }];
        (len, next.load(Ordering::Acquire))
    }

    /// Bytes of the root, and of the chunks and nodes ever used.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.root) + self.chunks.bytes() + self.nodes.bytes()
    }

    pub(super) fn hit(&self, node: u32) -> &AtomicU32 {
        &self.nodes.block(node)[HIT]
    }

    pub(super) fn miss(&self, node: u32) -> &AtomicU32 {
        &self.nodes.block(node)[MISS]
    }

    /// Writes the prefix of a node that is not linked yet.
    pub(super) fn write_prefix(&self, node: u32, key: K, len: u8) {
        let node = self.nodes.block(node);
        node[LEN].store(len.into(), Ordering::Relaxed);
        for (slot, word) in node[KEY..HIT].iter().zip(key.to_words()) {
            slot.store(word, Ordering::Relaxed);
        }
    }
}
