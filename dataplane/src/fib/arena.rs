//! Blocks of atomic words that readers index without a lock while a writer adds and recycles them.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::queue::SegQueue;

use super::publish::Guard;

/// Segments double in size, so 12 of them hold 4095 times the first, and no block ever moves.
const SEGMENTS: usize = 12;

/// Equal blocks of words. Memory grows with use and is given back when the arena is dropped.
pub(super) struct Arena {
    block_words: usize,
    first_blocks: u32,
    segments: [OnceLock<Box<[AtomicU32]>>; SEGMENTS],
    /// The first block that was never handed out. Written by the writer alone.
    next: AtomicU32,
    /// Blocks that no reader can see any more.
    free: Arc<SegQueue<u32>>,
}

impl Arena {
    /// An arena for at most 4095 times `first_blocks` (a power of two) blocks of `block_words`.
    pub(super) fn new(block_words: usize, first_blocks: u32) -> Self {
        assert!(first_blocks.is_power_of_two());
        Self {
            block_words,
            first_blocks,
            segments: Default::default(),
            next: AtomicU32::new(0),
            free: Arc::default(),
        }
    }

    /// Whether `count` more blocks can be had.
    pub(super) fn has_room(&self, count: usize) -> bool {
        let blocks_max = self.first_blocks * ((1 << SEGMENTS) - 1);
        let unused = blocks_max - self.next.load(Ordering::Relaxed);
        self.free.len() + unused as usize >= count
    }

    /// Takes a block; its words are whatever its last user left. Call [`Arena::has_room`] before.
    ///
    /// # Panics
    /// When there is no room.
    pub(super) fn take(&self) -> u32 {
        if let Some(block) = self.free.pop() {
            return block;
        }
        assert!(self.has_room(1), "the caller asks for room before");
        let block = self.next.fetch_add(1, Ordering::Relaxed);
        let (segment, _) = self.place(block);
        self.segments[segment].get_or_init(|| {
            let words = (self.block_words * self.first_blocks as usize) << segment;
            (0..words).map(|_| AtomicU32::new(0)).collect()
        });
        block
    }

    /// Gives a block back, for reuse when no reader that is pinned now can still be in it.
    pub(super) fn retire(&self, block: u32, guard: &Guard) {
        let free = self.free.clone();
        guard.defer(move || free.push(block));
    }

    /// The words of a block that was taken.
    #[inline]
    pub(super) fn block(&self, block: u32) -> &[AtomicU32] {
        let (segment, offset) = self.place(block);
        let words = self.segments[segment]
            .get()
            .expect("a block's segment exists before its number is handed out");
        &words[offset..offset + self.block_words]
    }

    #[inline]
    fn place(&self, block: u32) -> (usize, usize) {
        let shift = self.first_blocks.trailing_zeros();
        let segment = ((block >> shift) + 1).ilog2();
        let before = self.first_blocks * ((1 << segment) - 1);
        (
            segment as usize,
            (block - before) as usize * self.block_words,
        )
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("block_words", &self.block_words)
            .field("taken_max", &self.next)
            .field("free", &self.free.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::pin;

    #[test]
    fn blocks_never_overlap_and_end_where_the_arena_ends() {
        let arena = Arena::new(3, 2);
        for n in 0..2 * 4095 {
            assert!(arena.has_room(1));
            let block = arena.take();
            for word in arena.block(block) {
                assert_eq!(word.swap(n + 1, Ordering::Relaxed), 0);
            }
        }
        assert!(!arena.has_room(1));
    }

    #[test]
    fn a_retired_block_comes_back_only_after_the_readers_left() {
        let arena = Arena::new(1, 1);
        while arena.has_room(1) {
            arena.take();
        }
        let reader = pin();
        let writer = pin();
        arena.retire(7, &writer);
        writer.flush();
        drop(writer);
        assert!(!arena.has_room(1));
        drop(reader);
        for _ in 0..10_000_000 {
            pin().flush();
            if arena.has_room(1) {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(arena.take(), 7);
    }
}
