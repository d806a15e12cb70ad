//! An address as an integer, and the shape of the trie that suits its length.

use std::fmt;
use std::ops::BitAnd;

/// Words that hold the longest address.
pub(super) const KEY_WORDS: usize = 4;

/// An address, most significant bit first.
pub(super) trait Key:
    Copy + Ord + BitAnd<Output = Self> + fmt::Debug + Send + Sync + 'static
{
    /// Bits of an address.
    const WIDTH: u8;
    /// Bits that one chunk decides.
    const STRIDE: u8;
    /// Bits that the root decides, while prefixes are few and when they are many.
    const ROOT: [u8; 2];
    /// Whether a lone prefix gets a skip node instead of its own chunks.
    const HAS_NODES: bool;
    /// Most chunks and skip nodes of a table.
    const ROOM: [u32; 2];

    /// The address of ones only.
    const ONES: Self;

    /// The value of `count` bits from bit `at` on.
    fn bits(self, at: u8, count: u8) -> usize;

    /// The value of the first `count` bits.
    fn head(self, count: u8) -> usize;

    /// What follows the first `count` bits, moved to the front; anything when that is nothing.
    fn tail(self, count: u8) -> Self;

    /// The first `len` bits, the others zero.
    fn truncated(self, len: u8) -> Self;

    /// The first `at` bits, and then the bits of the stride `index`.
    fn child(self, at: u8, index: usize) -> Self;

    /// How many leading bits two addresses share.
    fn common(self, other: Self) -> u8;

    /// The address in words.
    fn to_words(self) -> [u32; KEY_WORDS];

    /// The address that [`Key::to_words`] wrote.
    fn from_words(words: [u32; KEY_WORDS]) -> Self;
}

macro_rules! key {
    ($int:ty, width $width:literal, stride $stride:literal, root $root:expr, nodes $nodes:literal, room $room:expr) => {
        impl Key for $int {
            const WIDTH: u8 = $width;
            const STRIDE: u8 = $stride;
            const ROOT: [u8; 2] = $root;
            const HAS_NODES: bool = $nodes;
            const ROOM: [u32; 2] = $room;
            const ONES: Self = Self::MAX;

            #[inline]
            fn bits(self, at: u8, count: u8) -> usize {
                let moved = self >> (Self::WIDTH - at - count);
                // A stride or a root has at most 16 bits.
                let [.., high, low] = moved.to_be_bytes();
                usize::from(u16::from_be_bytes([high, low])) & ((1 << count) - 1)
            }

            #[inline]
            fn head(self, count: u8) -> usize {
                self.bits(0, count)
            }

            #[inline]
            fn tail(self, count: u8) -> Self {
                self.wrapping_shl(count.into())
            }

            fn truncated(self, len: u8) -> Self {
                let low = u32::from(Self::WIDTH - len);
                self & Self::MAX.checked_shl(low).unwrap_or(0)
            }

            fn child(self, at: u8, index: usize) -> Self {
                let index = Self::try_from(index).expect("a stride is narrower than an address");
                self.truncated(at) | index << (Self::WIDTH - at - Self::STRIDE)
            }

            #[inline]
            fn common(self, other: Self) -> u8 {
                let bits = (self ^ other).leading_zeros();
                u8::try_from(bits).expect("an address has at most 128 bits")
            }

            fn to_words(self) -> [u32; KEY_WORDS] {
                let wide = u128::from(self);
                [96, 64, 32, 0].map(|shift| {
                    u32::try_from(wide >> shift & u128::from(u32::MAX)).expect("32 bits")
                })
            }

            #[inline]
            fn from_words([a, b, c, d]: [u32; KEY_WORDS]) -> Self {
                let high = u128::from(a) << 96 | u128::from(b) << 64;
                let wide = high | u128::from(c) << 32 | u128::from(d);
                Self::try_from(wide).expect("words hold what to_words wrote")
            }
        }
    };
}

// 65,536 chunks of 1 KiB: 64 MiB.
key!(u32, width 32, stride 8, root [8, 16], nodes false, room [1 << 16, 0]);
// 524,288 chunks of 64 bytes and 1,048,576 nodes of 32: 32 MiB each.
key!(u128, width 128, stride 4, root [8, 16], nodes true, room [1 << 19, 1 << 20]);
// Small enough to try every address. A model uses a few blocks, and loom looks after every word.
#[cfg(any(test, portcullis_loom))]
key!(u16, width 16, stride 2, root [2, 4], nodes true,
    room if cfg!(portcullis_loom) { [8, 8] } else { [4095, 4095] });
