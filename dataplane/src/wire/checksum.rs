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
    /// `len` is the length of the upper-layer header and payload. Mixed families add up, mean nothing.
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
        // lie in memory, and eight bytes at a time: the 128-bit accumulator cannot overflow.
        let mut wide = u128::from(self.0);
        let mut chunks = bytes.chunks_exact(8);
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

    /// As [`Sum::checksum`], with zero sent as all ones, because UDP reads zero as "none" (RFC 768).
    /// For other protocols both mean the same number.
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
