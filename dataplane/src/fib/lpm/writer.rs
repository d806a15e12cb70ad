//! The write side of a trie: every change is one store per word whose addresses change.

use std::ops::Range;
use std::sync::Arc;

use super::key::Key;
use super::trie::{NOTHING, Trie, Word};
use crate::fib::atomic::{AtomicU32, Ordering};
use crate::fib::publish::pin;
use crate::fib::reserve::Refused;

/// Most bytes of one table and family, but for its root of 256 KiB at most. Enough for a million
/// prefixes of the lengths that the Internet has, of either family (measured).
pub const TABLE_BYTES_MAX: usize = 64 << 20;

/// The mark of a word that no prefix covers; else the length of the covering prefix plus one.
const UNMARKED: u8 = 0;

/// The table has no room for another prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the routing table is full ({} MiB per vnet and address family)", TABLE_BYTES_MAX >> 20)]
pub struct Full;

/// A word that can be written.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Root(usize),
    Chunk(u32, usize),
    Hit(u32),
    Miss(u32),
}

/// What a word says, and for a leaf which of the prefixes that cover its addresses has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    word: Word,
    mark: u8,
}

/// What the writer remembers of a skip node.
#[derive(Clone, Copy, Debug)]
struct Lone<K> {
    key: K,
    len: u8,
    hit_mark: u8,
    miss_mark: u8,
}

/// A chunk below a cell, on the way of a removal.
struct Step {
    cell: Cell,
    chunk: u32,
    /// The bit that the chunk begins with.
    start: u8,
}

/// The only writer of one [`Trie`].
#[derive(Debug)]
pub(super) struct TrieWriter<K: Key> {
    trie: Arc<Trie<K>>,
    root_marks: Vec<u8>,
    /// One per word of each chunk.
    chunk_marks: Vec<u8>,
    lones: Vec<Lone<K>>,
}

impl<K: Key> TrieWriter<K> {
    pub(super) fn new(root_bits: u8) -> Result<Self, Refused> {
        Ok(Self {
            trie: Arc::new(Trie::new(root_bits)?),
            root_marks: vec![UNMARKED; 1 << root_bits],
            chunk_marks: Vec::new(),
            lones: Vec::new(),
        })
    }

    pub(super) fn trie(&self) -> &Arc<Trie<K>> {
        &self.trie
    }

    /// Adds a prefix or changes its value. When full, nothing has changed.
    pub(super) fn insert(&mut self, key: K, len: u8, value: u32) -> Result<(), Full> {
        let mark = len + 1;
        let word = Word::Leaf(value);
        let content = Content { word, mark };
        let replaces = |old| old <= mark;
        let mut at = self.trie.root_bits;
        if len <= at {
            self.paint_root(key, len, content, &replaces);
            return Ok(());
        }
        let mut cell = Cell::Root(key.bits(0, at));
        loop {
            let chunk = match self.content(cell).word {
                Word::Chunk(chunk) => chunk,
                Word::Leaf(_) if K::HAS_NODES => return self.hang(cell, (key, len), content),
                Word::Leaf(_) => {
                    let missing = usize::from((len - 1 - at) / K::STRIDE + 1);
                    self.check_room(missing, 0)?;
                    self.grow(cell)
                }
                Word::Node(node) => {
                    let lone = self.lones[node as usize];
                    let is_inside = len >= lone.len && key.common(lone.key) >= lone.len;
                    match self.content(Cell::Hit(node)).word {
                        Word::Chunk(chunk) if is_inside => {
                            at = lone.len;
                            chunk
                        }
                        Word::Leaf(_) if is_inside && len == lone.len => {
                            self.set(Cell::Hit(node), content);
                            return Ok(());
                        }
                        Word::Leaf(_) | Word::Chunk(_) | Word::Node(_) => {
                            let chunk;
                            (chunk, at) = self.part((cell, at), node, (key, len))?;
                            chunk
                        }
                    }
                }
            };
            if len <= at + K::STRIDE {
                self.paint_chunk(chunk, span(key, len, at), content, &replaces);
                return Ok(());
            }
            cell = Cell::Chunk(chunk, key.bits(at, K::STRIDE));
            at += K::STRIDE;
        }
    }

    /// Takes a prefix out; its words get the length and value of the next shorter one.
    pub(super) fn remove(&mut self, key: K, len: u8, covering: Option<(u8, u32)>) {
        let restored = covering.map_or((NOTHING, UNMARKED), |(len, value)| (value, len + 1));
        let (word, mark) = (Word::Leaf(restored.0), restored.1);
        let restored = Content { word, mark };
        let replaces = |old| old == len + 1;
        let mut at = self.trie.root_bits;
        if len <= at {
            self.paint_root(key, len, restored, &replaces);
            return;
        }
        let mut path = Vec::new();
        let mut cell = Cell::Root(key.bits(0, at));
        let guard = pin();
        loop {
            let (chunk, start) = match self.content(cell).word {
                Word::Chunk(chunk) => (chunk, at),
                Word::Leaf(_) => unreachable!("a prefix that was inserted has its place"),
                Word::Node(node) => match self.content(Cell::Hit(node)).word {
                    Word::Chunk(chunk) => (chunk, self.lones[node as usize].len),
                    Word::Leaf(_) | Word::Node(_) => {
                        self.set(cell, self.content(Cell::Miss(node)));
                        self.trie.nodes.retire(node, &guard);
                        break;
                    }
                },
            };
            path.push(Step { cell, chunk, start });
            if len <= start + K::STRIDE {
                self.paint_chunk(chunk, span(key, len, start), restored, &replaces);
                break;
            }
            cell = Cell::Chunk(chunk, key.bits(start, K::STRIDE));
            at = start + K::STRIDE;
        }
        while let Some(step) = path.pop()
            && self.shrink(&step, key)
        {
            self.trie.chunks.retire(step.chunk, &guard);
        }
        guard.flush();
    }

    /// Puts a skip node for a lone prefix under a leaf.
    fn hang(&mut self, cell: Cell, prefix: (K, u8), content: Content) -> Result<(), Full> {
        self.check_room(0, 1)?;
        let node = self.node(prefix, content, self.content(cell));
        self.set(cell, node);
        Ok(())
    }

    /// Puts a chunk under a leaf; every address keeps its answer.
    fn grow(&mut self, cell: Cell) -> u32 {
        let chunk = self.chunk(self.content(cell));
        self.link(cell, Word::Chunk(chunk));
        chunk
    }

    /// Puts a chunk where a node's prefix and another one part, in the node's place; every address
    /// keeps its answer. Gives the chunk, and the bit that it begins with.
    fn part(
        &mut self,
        (cell, at): (Cell, u8),
        node: u32,
        (key, len): (K, u8),
    ) -> Result<(u32, u8), Full> {
        self.check_room(1, 3)?;
        let lone = self.lones[node as usize];
        // Both go on beyond the first bit of the chunk, and are the same before.
        let shared = key.common(lone.key).min(len - 1).min(lone.len - 1);
        let start = at + (shared - at) / K::STRIDE * K::STRIDE;
        let (hit, miss) = (
            self.content(Cell::Hit(node)),
            self.content(Cell::Miss(node)),
        );
        let chunk = self.chunk(miss);
        if lone.len <= start + K::STRIDE {
            for index in span(lone.key, lone.len, start) {
                self.set(Cell::Chunk(chunk, index), hit);
            }
        } else {
            let inner = self.node((lone.key, lone.len), hit, miss);
            self.set(Cell::Chunk(chunk, lone.key.bits(start, K::STRIDE)), inner);
        }
        self.lead(cell, (key.truncated(start), start, at), chunk, miss);
        let guard = pin();
        self.trie.nodes.retire(node, &guard);
        guard.flush();
        Ok((chunk, start))
    }

    /// Makes a cell of the first `at` bits lead to a chunk that begins with bit `start`.
    fn lead(&mut self, cell: Cell, (key, start, at): (K, u8, u8), chunk: u32, miss: Content) {
        if start == at {
            self.link(cell, Word::Chunk(chunk));
        } else {
            let hit = Content {
                word: Word::Chunk(chunk),
                mark: UNMARKED,
            };
            let node = self.node((key, start), hit, miss);
            self.set(cell, node);
        }
    }

    /// Puts what a chunk says into its cell, when that takes no chunk. Whether it did.
    fn shrink(&mut self, step: &Step, key: K) -> bool {
        let Step { cell, chunk, start } = *step;
        let parent = match self.content(cell).word {
            Word::Node(node) => Some(node),
            Word::Chunk(_) | Word::Leaf(_) => None,
        };
        let miss = parent.map(|node| self.content(Cell::Miss(node)));
        let Some((base, lone)) = self.summary(chunk, start, key) else {
            return false;
        };
        let replacement = match lone {
            None if miss.is_none_or(|miss| miss == base) => base,
            // A prefix as long as the node's own fills the chunk.
            None => {
                let node = parent.expect("only a node has a miss");
                self.set(Cell::Hit(node), base);
                return true;
            }
            Some(_) if miss.is_some_and(|miss| miss != base) => return false,
            Some((_, _, hit)) if matches!(hit.word, Word::Node(_)) => hit,
            Some(_) if !self.trie.nodes.has_room(1) => return false,
            Some((key, len, hit)) => self.node((key, len), hit, base),
        };
        self.set(cell, replacement);
        if let Some(node) = parent {
            let guard = pin();
            self.trie.nodes.retire(node, &guard);
        }
        true
    }

    /// What a chunk says at large, and the one prefix or link in it; `None` when there is more.
    #[expect(
        clippy::type_complexity,
        reason = "a prefix and its content, used once"
    )]
    fn summary(
        &self,
        chunk: u32,
        start: u8,
        key: K,
    ) -> Option<(Content, Option<(K, u8, Content)>)> {
        let size = 1_usize << K::STRIDE;
        let content = |index| self.content(Cell::Chunk(chunk, index));
        let is_base = |c: &Content| matches!(c.word, Word::Leaf(_)) && c.mark <= start + 1;
        let first = content(0);
        if matches!(first.word, Word::Leaf(_)) && (1..size).all(|index| content(index) == first) {
            return Some((first, None));
        }
        if !K::HAS_NODES {
            return None;
        }
        let base = (0..size).map(content).find(is_base)?;
        let mut others = (0..size).filter(|index| content(*index) != base);
        let first = others.next()?;
        let hit = content(first);
        let count = 1 + others.clone().count();
        let child = start + K::STRIDE;
        match hit.word {
            Word::Chunk(_) if count == 1 => {
                Some((base, Some((key.child(start, first), child, hit))))
            }
            Word::Node(node) if count == 1 => {
                let is_seamless = self.content(Cell::Miss(node)) == base;
                is_seamless.then_some((base, Some((key, child, hit))))
            }
            Word::Leaf(_) if !is_base(&hit) && others.all(|index| content(index) == hit) => {
                let len = hit.mark - 1;
                let is_one = count == 1 << (child - len);
                is_one.then(|| (base, Some((key.child(start, first), len, hit))))
            }
            Word::Chunk(_) | Word::Node(_) | Word::Leaf(_) => None,
        }
    }

    /// Writes a value and its mark over the root's part of a short prefix, and below it.
    fn paint_root(&mut self, key: K, len: u8, content: Content, replaces: &impl Fn(u8) -> bool) {
        let bits = self.trie.root_bits;
        let first = key.bits(0, bits);
        for index in first..first + (1 << (bits - len)) {
            self.paint(Cell::Root(index), content, replaces);
        }
    }

    fn paint_chunk(
        &mut self,
        chunk: u32,
        span: Range<usize>,
        content: Content,
        replaces: &impl Fn(u8) -> bool,
    ) {
        for index in span {
            self.paint(Cell::Chunk(chunk, index), content, replaces);
        }
    }

    /// Writes a value and its mark over the leaves at and below a cell whose mark says so.
    fn paint(&mut self, cell: Cell, content: Content, replaces: &impl Fn(u8) -> bool) {
        match self.content(cell) {
            Content {
                word: Word::Leaf(_),
                mark,
            } => {
                if replaces(mark) {
                    self.set(cell, content);
                }
            }
            Content {
                word: Word::Chunk(chunk),
                ..
            } => {
                self.paint_chunk(chunk, 0..1 << K::STRIDE, content, replaces);
            }
            Content {
                word: Word::Node(node),
                ..
            } => {
                self.paint(Cell::Hit(node), content, replaces);
                self.paint(Cell::Miss(node), content, replaces);
            }
        }
    }

    /// A chunk that says the same everywhere, not linked yet.
    fn chunk(&mut self, content: Content) -> u32 {
        let chunk = self.trie.chunks.take();
        let words = 1 << K::STRIDE;
        let first = chunk as usize * words;
        if first == self.chunk_marks.len() {
            self.chunk_marks.resize(first + words, UNMARKED);
        }
        self.chunk_marks[first..first + words].fill(content.mark);
        for word in self.trie.chunks.block(chunk) {
            word.store(content.word.bits(), Ordering::Relaxed);
        }
        chunk
    }

    /// A skip node, not linked yet, as the content of a cell.
    fn node(&mut self, (key, len): (K, u8), hit: Content, miss: Content) -> Content {
        let node = self.trie.nodes.take();
        let lone = Lone {
            key,
            len,
            hit_mark: hit.mark,
            miss_mark: miss.mark,
        };
        if node as usize == self.lones.len() {
            self.lones.push(lone);
        }
        self.lones[node as usize] = lone;
        self.trie.write_prefix(node, key, len);
        self.set(Cell::Hit(node), hit);
        self.set(Cell::Miss(node), miss);
        Content {
            word: Word::Node(node),
            mark: UNMARKED,
        }
    }

    fn check_room(&self, chunks: usize, nodes: usize) -> Result<(), Full> {
        let has_room = self.trie.chunks.has_room(chunks) && self.trie.nodes.has_room(nodes);
        has_room.then_some(()).ok_or(Full)
    }

    fn link(&mut self, cell: Cell, word: Word) {
        let mark = UNMARKED;
        self.set(cell, Content { word, mark });
    }

    fn set(&mut self, cell: Cell, content: Content) {
        *self.mark(cell) = content.mark;
        self.word(cell)
            .store(content.word.bits(), Ordering::Release);
    }

    /// The writer's own look: nobody else writes.
    fn content(&self, cell: Cell) -> Content {
        let word = Word::of(self.word(cell).load(Ordering::Relaxed));
        let mark = match cell {
            Cell::Root(index) => self.root_marks[index],
            Cell::Chunk(chunk, index) => self.chunk_marks[mark_of::<K>(chunk, index)],
            Cell::Hit(node) => self.lones[node as usize].hit_mark,
            Cell::Miss(node) => self.lones[node as usize].miss_mark,
        };
        Content { word, mark }
    }

    fn word(&self, cell: Cell) -> &AtomicU32 {
        match cell {
            Cell::Root(index) => &self.trie.root[index],
            Cell::Chunk(chunk, index) => &self.trie.chunks.block(chunk)[index],
            Cell::Hit(node) => self.trie.hit(node),
            Cell::Miss(node) => self.trie.miss(node),
        }
    }

    fn mark(&mut self, cell: Cell) -> &mut u8 {
        match cell {
            Cell::Root(index) => &mut self.root_marks[index],
            Cell::Chunk(chunk, index) => &mut self.chunk_marks[mark_of::<K>(chunk, index)],
            Cell::Hit(node) => &mut self.lones[node as usize].hit_mark,
            Cell::Miss(node) => &mut self.lones[node as usize].miss_mark,
        }
    }
}

fn mark_of<K: Key>(chunk: u32, index: usize) -> usize {
    ((chunk as usize) << K::STRIDE) + index
}

/// The words that a prefix covers in the chunk that begins with bit `start`; all when it begins
/// before.
fn span<K: Key>(key: K, len: u8, start: u8) -> Range<usize> {
    if len <= start {
        return 0..1 << K::STRIDE;
    }
    let first = key.bits(start, K::STRIDE);
    first..first + (1 << (start + K::STRIDE - len))
}
