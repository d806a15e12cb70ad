//! Encapsulating Security Payload: its header (RFC 4303), and what shares its UDP port (RFC 3948).

use std::fmt;

/// Bytes of the header: SPI and sequence number. An initialization vector follows, if the
/// transform has one.
pub const HEADER_LEN: usize = 8;
/// Bytes at the end of the plaintext: pad length and next header.
pub const TRAILER_LEN: usize = 2;

/// Next header of an IPv4 packet in tunnel mode.
pub const NEXT_IPV4: u8 = 4;
/// Next header of an IPv6 packet in tunnel mode.
pub const NEXT_IPV6: u8 = 41;
/// Next header of a dummy packet, which the receiver drops (RFC 4303 section 2.6).
pub const NEXT_NONE: u8 = 59;

/// What stands before an IKE message on the port of UDP-encapsulated ESP (RFC 3948 section 2.2):
/// an SPI that no SA has.
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The whole datagram that keeps a NAT mapping alive (RFC 3948 section 2.3).
pub const NAT_KEEPALIVE: [u8; 1] = [0xff];

/// Security parameters index: the name that the receiver gave to an SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);

impl Spi {
    /// The smallest that an SA may have: 0 is for local use, 1..=255 are reserved (RFC 4303 section
    /// 2.1).
    pub const MIN: Self = Self(256);
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({:08x})", self.0)
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The clear part of an ESP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The receiver's name of the SA.
    pub spi: Spi,
    /// The low 32 bits of the sequence number.
    pub sequence: u32,
}

impl Header {
    /// The header at the beginning of a packet; `None` when it is too short or names a reserved
    /// SPI.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let [s0, s1, s2, s3, q0, q1, q2, q3] = *packet.first_chunk::<HEADER_LEN>()?;
        let spi = Spi(u32::from_be_bytes([s0, s1, s2, s3]));
        let sequence = u32::from_be_bytes([q0, q1, q2, q3]);
        (spi >= Spi::MIN).then_some(Self { spi, sequence })
    }

    /// The header as it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [s0, s1, s2, s3] = self.spi.0.to_be_bytes();
        let [q0, q1, q2, q3] = self.sequence.to_be_bytes();
        [s0, s1, s2, s3, q0, q1, q2, q3]
    }
}

/// A datagram on the port that ESP and IKE share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// Somebody's NAT is being kept awake; nothing is to be done, and nothing to be learned
    /// (RFC 3948 section 2.3: not to be taken as a sign of life).
    Keepalive,
    /// An IKE message, without its marker.
    Ike(&'a [u8]),
    /// An ESP packet, from its SPI.
    Esp(&'a [u8]),
}

impl<'a> Datagram<'a> {
    /// Tells what a datagram is; `None` when it is nothing of these.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes == NAT_KEEPALIVE {
            return Some(Self::Keepalive);
        }
        if let Some(message) = bytes.strip_prefix(&NON_ESP_MARKER) {
            return Some(Self::Ike(message));
        }
        Header::parse(bytes).map(|_| Self::Esp(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_shares_the_port_is_told_apart() {
        assert_eq!(Datagram::parse(&[0xff]), Some(Datagram::Keepalive));
        let ike = [0, 0, 0, 0, 0xaa];
        assert_eq!(Datagram::parse(&ike), Some(Datagram::Ike(&[0xaa])));
        let esp = [0, 0, 1, 0, 0, 0, 0, 1];
        assert_eq!(Datagram::parse(&esp), Some(Datagram::Esp(&esp)));
        for nothing in [&[][..], &[0xfe], &[0, 0, 0], &esp[..7]] {
            assert_eq!(Datagram::parse(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn reserved_spis_are_no_header() {
        assert_eq!(Header::parse(&[0, 0, 0, 255, 0, 0, 0, 1]), None);
        assert_eq!(Header::parse(&[0, 0, 0, 0, 0, 0, 0, 1]), None);
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(spi in 256_u32.., sequence in any::<u32>()) {
            let header = Header { spi: Spi(spi), sequence };
            prop_assert_eq!(Header::parse(&header.to_bytes()), Some(header));
        }
    }
}
