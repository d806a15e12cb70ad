//! The Internet checksum: whole (RFC 1071), incremental (RFC 1624), pseudo headers.

use std::net::IpAddr;

/// A running ones-complement sum. Add pieces of even length in any order; only the last may be odd.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// The pseudo header of TCP, UDP and ICMPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1).
    /// `len` is the length of the upper-layer header and payload. Mixed families add up, mean
    /// nothing.
    #[must_use]
    pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Self {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let sum = match src {
            IpAddr::V4(a) => Self::new().bytes(&a.octets()),
            IpAddr::V6(a) => Self::new().bytes(&a.octets()),
        };
        let sum = match dst {
            IpAddr::V4(a) => sum.bytes(&a.octets()),
            IpAddr::V6(a) => sum.bytes(&a.octets()),
        };
        sum.bytes(&len.to_be_bytes()).word(u16::from(protocol))
    }

    /// Adds `bytes`, an odd last byte being padded with zero.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Byte order does not matter to the sum (RFC 1071 section 2 B), so words are added as they
        // lie in memory, and eight bytes at a time: a 128-bit accumulator cannot overflow. Four
        // of them do not wait for each other's carry.
        let mut four = [u128::from(self.0), 0, 0, 0];
        let mut blocks = bytes.chunks_exact(32);
        for block in &mut blocks {
            let (words, _) = block.as_chunks::<8>();
            for (wide, word) in four.iter_mut().zip(words) {
                *wide += u128::from(u64::from_ne_bytes(*word));
            }
        }
        let [a, b, c, d] = four;
        let mut wide = a + b + c + d;
        let mut chunks = blocks.remainder().chunks_exact(8);
        for chunk in &mut chunks {
            let word: [u8; 8] = chunk.try_into().expect("chunks_exact(8) gives eight bytes");
            wide += u128::from(u64::from_ne_bytes(word));
        }
        let rest = chunks.remainder();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        wide += u128::from(u64::from_ne_bytes(last));
        Self(fold_wide(wide))
    }

    /// Adds one number of the packet.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        let native = u16::from_ne_bytes(word.to_be_bytes());
        Self(fold_wide(u128::from(self.0) + u128::from(native)))
    }

    /// The 16-bit sum, not complemented: what a partial checksum holds.
    #[must_use]
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let native = u16::try_from(sum).expect("folded below 2^16");
        u16::from_be_bytes(native.to_ne_bytes())
    }

    /// The complement: what a checksum field holds, or zero when the summed bytes held a valid one.
    #[must_use]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// As [`Sum::checksum`], with zero sent as all ones, because UDP reads zero as "none" (RFC
    /// 768). For other protocols both mean the same number.
    #[must_use]
    pub fn checksum_nonzero(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

fn fold_wide(wide: u128) -> u64 {
    let mask = u128::from(u64::MAX);
    let once = (wide & mask) + (wide >> 64);
    let twice = (once & mask) + (once >> 64);
    u64::try_from(twice).expect("two folds of a 128-bit sum leave 64 bits")
}

/// The checksum after a 16-bit word of the packet went from `old` to `new` (RFC 1624, equation 3).
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !Sum::new().word(!checksum).word(!old).word(new).folded()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The C code of RFC 1071 section 4.1, word by word.
    fn rfc_1071(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().bytes(&bytes).folded(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_gives_zero_and_not_all_ones() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn udp_never_sends_a_checksum_of_zero() {
        assert_eq!(Sum::new().word(0xffff).checksum_nonzero(), 0xffff);
        assert_eq!(Sum::new().word(0x1234).checksum_nonzero(), 0xedcb);
    }

    proptest! {
        #[test]
        fn the_sum_equals_the_code_of_rfc_1071(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            prop_assert_eq!(Sum::new().bytes(&bytes).checksum(), rfc_1071(&bytes));
        }

        #[test]
        fn pieces_of_even_length_add_up_to_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cut in 0_usize..100,
        ) {
            let (left, right) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            let pieces = Sum::new().bytes(right).bytes(left);
            prop_assert_eq!(pieces.checksum(), rfc_1071(&bytes));
        }

        #[test]
        fn an_incremental_update_equals_a_full_sum(
            mut words in prop::collection::vec(any::<u16>(), 2..40),
            at in any::<prop::sample::Index>(),
            new in any::<u16>(),
        ) {
            // A header is never all zeros, as its version is not.
            words.push(0x4500);
            let bytes = |words: &[u16]| -> Vec<u8> {
                words.iter().flat_map(|word| word.to_be_bytes()).collect()
            };
            let before = rfc_1071(&bytes(&words));
            let at = at.index(words.len() - 1);
            let old = std::mem::replace(&mut words[at], new);
            prop_assert_eq!(update(before, old, new), rfc_1071(&bytes(&words)));
        }
    }
}
