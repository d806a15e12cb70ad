//! Messages of IKEv2 (RFC 7296 section 3) and their fragments (RFC 7383).
//!
//! In: bytes of a stranger. Out: typed payloads that borrow from them, and the way back. Lengths
//! must fit exactly, counts are bounded, and nothing is allocated but the lists of
//! [`payload::PAYLOADS_MAX`] payloads, [`proposal::PROPOSALS_MAX`] proposals with
//! [`proposal::TRANSFORMS_MAX`] transforms each, and [`payload::SELECTORS_MAX`] selectors.

pub mod payload;
pub mod proposal;
#[cfg(test)]
mod tests;

use payload::Chain;

/// Bytes of the header of a message.
pub const HEADER_LEN: usize = 28;
/// Bytes of the header of a payload.
pub const PAYLOAD_HEADER_LEN: usize = 4;

/// The version that we speak, in the header's form.
const VERSION: u8 = 0x20;

/// Why bytes are no message that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A length that does not fit what it is inside of.
    Length,
    /// Another major version than 2.
    Version,
    /// A field with a value that it must not have.
    Value,
    /// More of something than is looked at.
    TooMany,
    /// A payload that its sender calls critical and that we do not know (RFC 7296 section 2.5).
    UnknownCritical(u8),
}

/// What a message is about (RFC 7296 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exchange(pub u8);

impl Exchange {
    /// Agrees on keys.
    pub const IKE_SA_INIT: Self = Self(34);
    /// Says who one is, and makes the first child SA.
    pub const IKE_AUTH: Self = Self(35);
    /// Makes or rekeys SAs.
    pub const CREATE_CHILD_SA: Self = Self(36);
    /// Deletes, notifies, or asks whether the other lives.
    pub const INFORMATIONAL: Self = Self(37);
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The original initiator's name of the SA.
    pub initiator_spi: u64,
    /// The original responder's; 0 until there is one.
    pub responder_spi: u64,
    /// What it is about.
    pub exchange: Exchange,
    /// Whether the sender is the one that began the SA.
    pub is_initiator: bool,
    /// Whether it answers a request.
    pub is_response: bool,
    /// Which request it is, or answers.
    pub message_id: u32,
}

impl Header {
    /// Cuts a message into its header, the kind of its first payload, and its payloads.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(message: &[u8]) -> Result<(Self, u8, &[u8]), Malformed> {
        let (head, body) = message
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(Malformed::Length)?;
        if u32::try_from(message.len()) != Ok(u32_at(head, 24)) {
            return Err(Malformed::Length);
        }
        // A minor version is to be ignored (RFC 7296 section 3.1).
        if head[17] & 0xf0 != VERSION {
            return Err(Malformed::Version);
        }
        let header = Self {
            initiator_spi: u64_at(head, 0),
            responder_spi: u64_at(head, 8),
            exchange: Exchange(head[18]),
            is_initiator: head[19] & FLAG_INITIATOR != 0,
            is_response: head[19] & FLAG_RESPONSE != 0,
            message_id: u32_at(head, 20),
        };
        if header.initiator_spi == 0 {
            return Err(Malformed::Value);
        }
        Ok((header, head[16], body))
    }

    /// The header of a message of `len` bytes whose first payload is of kind `first`.
    ///
    /// # Panics
    /// When `len` is 2^32 or more.
    #[must_use]
    pub fn to_bytes(self, first: u8, len: usize) -> [u8; HEADER_LEN] {
        let mut head = [0; HEADER_LEN];
        head[..8].copy_from_slice(&self.initiator_spi.to_be_bytes());
        head[8..16].copy_from_slice(&self.responder_spi.to_be_bytes());
        head[16] = first;
        head[17] = VERSION;
        head[18] = self.exchange.0;
        if self.is_initiator {
            head[19] |= FLAG_INITIATOR;
        }
        if self.is_response {
            head[19] |= FLAG_RESPONSE;
        }
        head[20..24].copy_from_slice(&self.message_id.to_be_bytes());
        let len = u32::try_from(len).expect("a message is made of a few payloads");
        head[24..].copy_from_slice(&len.to_be_bytes());
        head
    }

    /// A message in clear.
    #[must_use]
    pub fn with(self, chain: &Chain) -> Vec<u8> {
        let len = HEADER_LEN + chain.bytes().len();
        let mut message = Vec::with_capacity(len);
        message.extend(self.to_bytes(chain.first(), len));
        message.extend(chain.bytes());
        message
    }
}

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}
