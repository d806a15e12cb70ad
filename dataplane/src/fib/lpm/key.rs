//! An address as an integer: what the array and the trie ask of IPv4 and IPv6 alike.

use std::fmt;
use std::ops::BitAnd;

/// An address, most significant bit first.
pub(super) trait Key:
    Copy + Ord + BitAnd<Output = Self> + fmt::Debug + Send + Sync + 'static
{
    /// Number of octets, which is the number of levels of the trie.
    const OCTETS: usize;
    /// The address of ones only.
    const ONES: Self;

    /// The octet at `level`, counted from the most significant.
    fn octet(self, level: usize) -> usize;

    /// The first `len` bits, the others zero.
    fn truncated(self, len: u8) -> Self;
}

impl Key for u32 {
    const OCTETS: usize = 4;
    const ONES: Self = Self::MAX;

    #[inline]
    fn octet(self, level: usize) -> usize {
        usize::from(self.to_be_bytes()[level])
    }

    fn truncated(self, len: u8) -> Self {
        self & Self::MAX
            .checked_shl(Self::BITS - u32::from(len))
            .unwrap_or(0)
    }
}

impl Key for u128 {
    const OCTETS: usize = 16;
    const ONES: Self = Self::MAX;

    #[inline]
    fn octet(self, level: usize) -> usize {
        usize::from(self.to_be_bytes()[level])
    }

    fn truncated(self, len: u8) -> Self {
        self & Self::MAX
            .checked_shl(Self::BITS - u32::from(len))
            .unwrap_or(0)
    }
}
