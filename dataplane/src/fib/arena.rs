//! Blocks of atomic words that readers index without a lock while a writer adds and recycles them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crossbeam::queue::SegQueue;

use super::atomic::{AtomicU32, Ordering};
use super::publish::Guard;

/// Segments double in size, so 12 of them hold 4095 times the first, and no block ever moves.
const SEGMENTS: usize = 12;
/// The first segment times this is all.
const GROWTH: u32 = (1 << SEGMENTS) - 1;

/// What an arena hands out: a fixed number of words.
pub(super) trait Block: fmt::Debug + Send + Sync + 'static {
    /// A block of zeros.
    fn zeros() -> Self;
}

impl<const WORDS: usize> Block for [AtomicU32; WORDS] {
    fn zeros() -> Self {
        std::array::from_fn(|_| AtomicU32::new(0))
    }
}

/// Numbers of blocks: which are handed out, and which wait until no reader can be in them.
pub(super) struct Numbers {
    count: u32,
    /// The first that was never handed out. Written by the writer alone.
    next: AtomicU32,
    /// Those that no reader can see any more.
    free: Arc<SegQueue<u32>>,
}

impl Numbers {
    /// The numbers below `count`, all to be had.
    pub(super) fn new(count: u32) -> Self {
        Self {
            count,
            next: AtomicU32::new(0),
            free: Arc::default(),
        }
    }

    /// Whether `count` more can be had.
    pub(super) fn has_room(&self, count: usize) -> bool {
        let unused = self.count - self.next.load(Ordering::Relaxed);
        self.free.len() + unused as usize >= count
    }

    /// Hands one out. Call [`Numbers::has_room`] before.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn take(&self) -> u32 {
        if let Some(number) = self.free.pop() {
            return number;
        }
        assert!(self.has_room(1), "the caller asks for room before");
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes one back, for reuse when no reader that is pinned now can still be in its block.
    pub(super) fn retire(&self, number: u32, guard: &Guard) {
        let free = self.free.clone();
        guard.defer(move || free.push(number));
    }

    /// How many were ever handed out at a time.
    pub(super) fn used(&self) -> usize {
        self.next.load(Ordering::Relaxed) as usize
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers")
            .field("used", &self.used())
            .field("free", &self.free.len())
            .finish_non_exhaustive()
    }
}

/// Equal blocks of words. Memory grows with use and is given back when the arena is dropped.
pub(super) struct Arena<B> {
    first_blocks: u32,
    segments: [OnceLock<Box<[B]>>; SEGMENTS],
    numbers: Numbers,
}

impl<B: Block> Arena<B> {
    /// An arena for at most [`GROWTH`] times `first_blocks` (a power of two) blocks.
    pub(super) fn new(first_blocks: u32) -> Self {
        assert!(first_blocks.is_power_of_two());
        Self {
            first_blocks,
            segments: Default::default(),
            numbers: Numbers::new(first_blocks * GROWTH),
        }
    }

    /// Whether `count` more blocks can be had.
    pub(super) fn has_room(&self, count: usize) -> bool {
        self.numbers.has_room(count)
    }

    /// Takes a block; its words are whatever its last user left. Call [`Arena::has_room`] before.
    ///
    /// # Panics
    /// When there is no room.
    pub(super) fn take(&self) -> u32 {
        let block = self.numbers.take();
        let (segment, _) = self.place(block);
        self.segments[segment].get_or_init(|| {
            let count = (self.first_blocks as usize) << segment;
            (0..count).map(|_| B::zeros()).collect()
        });
        block
    }

    /// Gives a block back, for reuse when no reader that is pinned now can still be in it.
    pub(super) fn retire(&self, block: u32, guard: &Guard) {
        self.numbers.retire(block, guard);
    }

    /// The words of a block that was taken.
    #[inline]
    pub(super) fn block(&self, block: u32) -> &B {
        let (segment, offset) = self.place(block);
        let blocks = self.segments[segment]
            .get()
            .expect("a block's segment exists before its number is handed out");
        &blocks[offset]
    }

    #[inline]
    fn place(&self, block: u32) -> (usize, usize) {
        let shift = self.first_blocks.trailing_zeros();
        let segment = ((block >> shift) + 1).ilog2();
        let before = self.first_blocks * ((1 << segment) - 1);
        (segment as usize, (block - before) as usize)
    }
}

impl<B: Block> fmt::Debug for Arena<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("numbers", &self.numbers)
            .finish_non_exhaustive()
    }
}

#[cfg(not(portcullis_loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::pin;

    #[test]
    fn blocks_never_overlap_and_end_where_the_arena_ends() {
        let arena: Arena<[AtomicU32; 3]> = Arena::new(2);
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
        let arena: Arena<[AtomicU32; 1]> = Arena::new(1);
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
