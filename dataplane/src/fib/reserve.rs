//! Blocks of atomic words at one place for good: room is reserved at once and backed as it is used.
//!
//! A block's words are where its number says, without a look at anything else: that is what a
//! look-up pays for each level of a trie. The kernel backs a page when it is first touched, whole
//! huge pages of 2 MiB beyond the first, so that reading at random does not wait for the page tables.

use std::fmt;

use super::arena::Numbers;
use super::atomic::AtomicU32;
use super::publish::Guard;

/// The system refused to reserve the memory of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Equal blocks of words. Memory grows with use and is given back when the reserve is dropped.
pub(super) struct Reserve {
    words: Words,
    block_words: usize,
    numbers: Numbers,
}

impl Reserve {
    /// Room for so many blocks of so many words, zeros all.
    ///
    /// # Errors
    /// [`Refused`] when the system has no room for it.
    pub(super) fn new(blocks: u32, block_words: usize) -> Result<Self, Refused> {
        Ok(Self {
            words: Words::new(blocks as usize * block_words)?,
            block_words,
            numbers: Numbers::new(blocks),
        })
    }

    /// Whether `count` more blocks can be had.
    pub(super) fn has_room(&self, count: usize) -> bool {
        self.numbers.has_room(count)
    }

    /// Takes a block; its words are whatever its last user left. Call [`Reserve::has_room`] before.
    ///
    /// # Panics
    /// When there is no room.
    pub(super) fn take(&self) -> u32 {
        self.numbers.take()
    }

    /// Gives a block back, for reuse when no reader that is pinned now can still be in it.
    pub(super) fn retire(&self, block: u32, guard: &Guard) {
        self.numbers.retire(block, guard);
    }

    /// All words: those of block `n` are the `n`th so many.
    #[inline]
    pub(super) fn words(&self) -> &[AtomicU32] {
        &self.words
    }

    /// The words of a block.
    pub(super) fn block(&self, block: u32) -> &[AtomicU32] {
        let first = block as usize * self.block_words;
        &self.words[first..first + self.block_words]
    }

    /// Bytes of all blocks that are in use, or wait to be used again.
    pub(super) fn bytes(&self) -> usize {
        size_of::<u32>() * self.block_words * self.numbers.used()
    }
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve")
            .field("bytes", &self.bytes())
            .field("numbers", &self.numbers)
            .finish_non_exhaustive()
    }
}

/// Words that are zero until somebody writes them.
#[cfg(portcullis_loom)]
struct Words(Box<[AtomicU32]>);

#[cfg(portcullis_loom)]
impl Words {
    fn new(count: usize) -> Result<Self, Refused> {
        Ok(Self((0..count).map(|_| AtomicU32::new(0)).collect()))
    }
}

#[cfg(portcullis_loom)]
impl std::ops::Deref for Words {
    type Target = [AtomicU32];

    fn deref(&self) -> &[AtomicU32] {
        &self.0
    }
}

#[cfg(not(portcullis_loom))]
pub(super) use self::mapped::Words;

#[cfg(not(portcullis_loom))]
#[expect(
    unsafe_code,
    reason = "memory of the kernel's own making, as a slice of words"
)]
mod mapped {
    use std::ops::Deref;
    use std::ptr::{self, NonNull};

    use nix::libc;

    use super::{AtomicU32, Refused};

    /// A huge page of x86-64, and of arm64 with pages of 4 KiB.
    const HUGE: usize = 2 << 20;

    /// Words that are zero until somebody writes them.
    pub(in crate::fib) struct Words {
        first: NonNull<AtomicU32>,
        count: usize,
        /// The whole mapping: the words begin at the first huge page in it.
        mapping: *mut libc::c_void,
        mapping_len: usize,
    }

    // SAFETY: the pointers are to memory that is this value's alone, and that is read and written
    // through the atomics in it only.
    unsafe impl Send for Words {}
    // SAFETY: see above.
    unsafe impl Sync for Words {}

    impl Words {
        pub(super) fn new(count: usize) -> Result<Self, Refused> {
            let len = count * size_of::<AtomicU32>();
            let mapping_len = len + HUGE;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a new mapping at an address of the kernel's choice, of no file.
            let mapping =
                unsafe { libc::mmap(ptr::null_mut(), mapping_len, protection, flags, -1, 0) };
            if mapping == libc::MAP_FAILED {
                return Err(Refused);
            }
            let start = mapping.cast::<u8>();
            let start = start.wrapping_add(start.align_offset(HUGE));
            let first = NonNull::new(start.cast::<AtomicU32>()).ok_or(Refused)?;
            if len > HUGE {
                // The first pages stay small: a small table shall not take 2 MiB.
                let rest = start.wrapping_add(HUGE).cast();
                // SAFETY: the range lies inside of the mapping: less than HUGE was skipped at its
                // start. MADV_HUGEPAGE changes how the kernel backs it and not what is in it.
                let refused = unsafe { libc::madvise(rest, len - HUGE, libc::MADV_HUGEPAGE) };
                if refused != 0 {
                    tracing::debug!("no huge pages for a table");
                }
            }
            Ok(Self {
                first,
                count,
                mapping,
                mapping_len,
            })
        }
    }

    impl Deref for Words {
        type Target = [AtomicU32];

        #[inline]
        fn deref(&self) -> &[AtomicU32] {
            // SAFETY: `count` words from `first` on lie inside of the mapping, which lives as long
            // as `self`; they are aligned, and a new mapping's zeros are valid words.
            unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
        }
    }

    impl Drop for Words {
        fn drop(&mut self) {
            // SAFETY: the mapping was made by `new` with this length, and whoever borrowed words
            // of it borrowed `self`.
            let refused = unsafe { libc::munmap(self.mapping, self.mapping_len) };
            debug_assert_eq!(refused, 0, "a mapping of our own can be given back");
        }
    }
}

#[cfg(not(portcullis_loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::atomic::Ordering;

    #[test]
    fn words_are_zero_and_never_overlap() {
        let (blocks, words) = (3 << 10, 1 << 10);
        let reserve = Reserve::new(blocks, words).unwrap();
        for n in 0..blocks {
            assert!(reserve.has_room(1));
            let block = reserve.take();
            for word in reserve.block(block) {
                assert_eq!(word.swap(n + 1, Ordering::Relaxed), 0);
            }
        }
        assert!(!reserve.has_room(1));
        assert_eq!(reserve.bytes(), 12 << 20);
        assert_eq!(reserve.words().len(), 3 << 20);
    }

    #[test]
    fn what_cannot_be_reserved_is_refused() {
        // 2^50 bytes: more than a process can address.
        assert_eq!(
            Reserve::new(1 << 28, 1 << 20).err(),
            Some(Refused),
            "an error, not an abort"
        );
    }
}
