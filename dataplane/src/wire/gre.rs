//! Generic Routing Encapsulation: the header (RFC 2784), with key and sequence number (RFC 2890).

use super::checksum::Sum;
use super::ip::{put_word, word};

/// Protocol type of an IPv4 packet (RFC 2784 section 5).
pub const IPV4: u16 = 0x0800;
/// Protocol type of an IPv6 packet (RFC 7676 section 3).
pub const IPV6: u16 = 0x86dd;
/// Protocol type of the answer to a keepalive: nothing is inside.
pub const KEEPALIVE: u16 = 0;

/// The longest header: flags and protocol, checksum, key, sequence number.
pub const HEADER_LEN_MAX: usize = 16;

const CHECKSUM_PRESENT: u16 = 0x8000;
const KEY_PRESENT: u16 = 0x2000;
const SEQUENCE_PRESENT: u16 = 0x1000;
/// Bits 1, 4 and 5 of RFC 1701: routing, strict source route, recursion control. "A receiver MUST
/// discard a packet where any of bits 1-5 are non-zero, unless that receiver implements RFC 1701"
/// (RFC 2784 section 2.1; RFC 2890 gave bits 2 and 3 their meaning).
const REFUSED: u16 = 0x4c00;
const VERSION: u16 = 0x0007;

/// Why bytes are not a GRE packet that can be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the flags say.
    #[error("fewer bytes than the flags say")]
    Truncated,
    /// A version that is not 0: PPTP has 1 (RFC 2637).
    #[error("a version that is not 0")]
    Version,
    /// Routing or recursion control, as RFC 1701 had it.
    #[error("routing or recursion control, as RFC 1701 had it")]
    Routing,
    /// The checksum is wrong.
    #[error("the checksum is wrong")]
    Checksum,
}

/// A GRE header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is inside: an EtherType.
    pub protocol: u16,
    /// Whether a checksum covers header and payload.
    pub is_checksummed: bool,
    /// Names the tunnel among those of two addresses.
    pub key: Option<u32>,
    /// Place of the packet in its tunnel, modulo 2^32.
    pub sequence: Option<u32>,
}

impl Header {
    /// Reads the header of `packet`, which begins behind the outer IP header and ends with the payload.
    /// Returns where the payload begins.
    ///
    /// # Errors
    /// [`Malformed`]. What RFC 2784 reserves is ignored, as it says.
    pub fn parse(packet: &[u8]) -> Result<(Self, usize), Malformed> {
        if packet.len() < 4 {
            return Err(Malformed::Truncated);
        }
        let flags = word(packet, 0);
        if flags & VERSION != 0 {
            return Err(Malformed::Version);
        }
        if flags & REFUSED != 0 {
            return Err(Malformed::Routing);
        }
        let mut at = 4;
        let mut next = |is_there: bool| -> Result<Option<u32>, Malformed> {
            if !is_there {
                return Ok(None);
            }
            let bytes = packet[at..].first_chunk::<4>();
            at += 4;
            bytes
                .map(|bytes| Some(u32::from_be_bytes(*bytes)))
                .ok_or(Malformed::Truncated)
        };
        let is_checksummed = next(flags & CHECKSUM_PRESENT != 0)?.is_some();
        let key = next(flags & KEY_PRESENT != 0)?;
        let sequence = next(flags & SEQUENCE_PRESENT != 0)?;
        if is_checksummed && Sum::new().bytes(packet).checksum() != 0 {
            return Err(Malformed::Checksum);
        }
        let header = Self {
            protocol: word(packet, 2),
            is_checksummed,
            key,
            sequence,
        };
        Ok((header, at))
    }

    /// Bytes of the header as it is sent.
    #[must_use]
    pub fn len(&self) -> usize {
        let is_there = [
            self.is_checksummed,
            self.key.is_some(),
            self.sequence.is_some(),
        ];
        4 + 4 * is_there.into_iter().filter(|is_there| *is_there).count()
    }

    /// Always false: there are four bytes at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the header to the front of `packet`, whose payload stands behind it already: the
    /// checksum covers both.
    ///
    /// # Panics
    /// When `packet` is shorter than [`Header::len`].
    pub fn write(&self, packet: &mut [u8]) {
        let mut flags = 0;
        let mut at = 4;
        if self.is_checksummed {
            flags |= CHECKSUM_PRESENT;
            packet[at..at + 4].fill(0);
            at += 4;
        }
        let numbers = [(KEY_PRESENT, self.key), (SEQUENCE_PRESENT, self.sequence)];
        for (flag, number) in numbers {
            if let Some(number) = number {
                flags |= flag;
                packet[at..at + 4].copy_from_slice(&number.to_be_bytes());
                at += 4;
            }
        }
        put_word(packet, 0, flags);
        put_word(packet, 2, self.protocol);
        if self.is_checksummed {
            let sum = Sum::new().bytes(packet).checksum();
            put_word(packet, 4, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Header = Header {
        protocol: IPV4,
        is_checksummed: false,
        key: None,
        sequence: None,
    };

    /// Every field that RFC 2890 section 2 draws, in its order: flags C, K and S, IPv4, checksum and
    /// Reserved1, key 9, sequence number 1; an echo request inside.
    fn by_hand() -> Vec<u8> {
        let mut packet = vec![0xb0, 0x00, 0x08, 0x00, 0, 0, 0, 0];
        packet.extend([0, 0, 0, 9, 0, 0, 0, 1]);
        packet.extend([
            0x45, 0x00, 0x00, 0x1c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x01, 0x26, 0xdd, 0x0a, 0x00,
            0x00, 0x01, 0x0a, 0x00, 0x00, 0x02, 0x08, 0x00, 0xf7, 0xfd, 0x00, 0x01, 0x00, 0x01,
        ]);
        // RFC 1071 by hand: the sum of all words above, complemented.
        let sum: u32 = packet
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from(folded).unwrap();
        packet[4..6].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    #[test]
    fn a_header_with_everything_is_read_and_written_as_it_is() {
        let packet = by_hand();
        let (header, at) = Header::parse(&packet).unwrap();
        assert_eq!(
            header,
            Header {
                protocol: IPV4,
                is_checksummed: true,
                key: Some(9),
                sequence: Some(1),
            }
        );
        assert_eq!((at, header.len()), (16, 16));
        let mut written = packet.clone();
        written[..16].fill(0xee);
        header.write(&mut written);
        assert_eq!(written, packet);
    }

    #[test]
    fn a_wrong_checksum_is_discarded() {
        for at in 0..by_hand().len() {
            let mut packet = by_hand();
            packet[at] ^= 0x01;
            // The version's last bit, and the bits that say which fields there are, show first.
            assert!(Header::parse(&packet).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_version_other_than_0_is_discarded() {
        for version in 1..8 {
            let packet = [0x20, version, 0x88, 0x0b, 0, 0, 0, 1];
            assert_eq!(Header::parse(&packet), Err(Malformed::Version));
        }
    }

    #[test]
    fn bits_1_4_and_5_are_discarded_and_6_to_12_ignored() {
        for bit in [1, 4, 5] {
            let mut packet = [0, 0, 0x08, 0x00, 0, 0, 0, 0];
            put_word(&mut packet, 0, 0x8000 >> bit);
            assert_eq!(Header::parse(&packet), Err(Malformed::Routing), "bit {bit}");
        }
        for bit in 6..13 {
            let mut packet = [0, 0, 0x08, 0x00];
            put_word(&mut packet, 0, 0x8000 >> bit);
            assert_eq!(Header::parse(&packet), Ok((PLAIN, 4)), "bit {bit}");
        }
    }

    #[test]
    fn a_header_shorter_than_its_flags_say_is_discarded() {
        let packet = by_hand();
        for len in 0..16 {
            assert_eq!(Header::parse(&packet[..len]), Err(Malformed::Truncated));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            protocol: u16,
            is_checksummed: bool,
            key: Option<u32>,
            sequence: Option<u32>,
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let header = Header { protocol, is_checksummed, key, sequence };
            let mut packet = vec![0xee; header.len()];
            packet.extend(&payload);
            header.write(&mut packet);
            prop_assert_eq!(Header::parse(&packet), Ok((header, header.len())));
            prop_assert_eq!(&packet[header.len()..], &payload[..]);
        }

        #[test]
        fn random_bytes_never_panic(
            packet in prop::collection::vec(any::<u8>(), 0..40),
            flags in prop::option::of(any::<u8>()),
        ) {
            let mut packet = packet;
            if let (Some(flags), Some(first)) = (flags, packet.first_mut()) {
                *first = flags & 0xb3;
            }
            if let Ok((header, at)) = Header::parse(&packet) {
                prop_assert_eq!(header.len(), at);
                prop_assert!(at <= packet.len());
            }
        }
    }
}
