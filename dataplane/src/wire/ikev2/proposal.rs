//! The security association payload: proposals, transforms and their one attribute (RFC 7296
//! section 3.3).

use super::{Malformed, u16_at};

/// Proposals of a payload that are looked at. Windows sends 18.
pub const PROPOSALS_MAX: usize = 32;
/// Transforms of a proposal that are looked at. strongSwan's default has 31.
pub const TRANSFORMS_MAX: usize = 64;

/// Bytes of a proposal before its SPI, and of a transform before its attributes.
const HEADER_LEN: usize = 8;
/// The attribute "key length", in its short form (RFC 7296 section 3.3.5).
const KEY_LENGTH: u16 = 0x8000 | 14;
/// The bit of an attribute that has no length field.
const SHORT_FORM: u16 = 0x8000;

/// What a proposal is for (RFC 7296 section 3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// No protocol, in notifications that name no SA.
    pub const NONE: Self = Self(0);
    /// The SA that messages are protected by.
    pub const IKE: Self = Self(1);
    /// The SA that packets are protected by.
    pub const ESP: Self = Self(3);
}

/// What a transform is for (RFC 7296 section 3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransformKind(pub u8);

impl TransformKind {
    /// Encryption, with authentication when it is an AEAD.
    pub const ENCRYPTION: Self = Self(1);
    /// The pseudorandom function that keys come from.
    pub const PRF: Self = Self(2);
    /// Authentication.
    pub const INTEGRITY: Self = Self(3);
    /// Key exchange.
    pub const GROUP: Self = Self(4);
    /// Extended sequence numbers.
    pub const ESN: Self = Self(5);
}

/// One algorithm on offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// What it is for.
    pub kind: TransformKind,
    /// Which it is, among those of its kind.
    pub id: u16,
    /// Bits of its key, when it has several lengths.
    pub key_bits: Option<u16>,
    /// False when it has an attribute that we do not know: then it must not be chosen
    /// (RFC 7296 section 3.3.6).
    pub is_understood: bool,
}

/// One set of algorithms on offer, of which one of each kind is to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its number; they count up from 1, and a choice names it.
    pub number: u8,
    /// What it is for.
    pub protocol: Protocol,
    /// The offerer's name of the SA: 4 bytes for ESP, 8 for IKE, none in the first exchange.
    pub spi: Vec<u8>,
    /// The algorithms.
    pub transforms: Vec<Transform>,
}

/// Reads the body of a security association payload.
///
/// # Errors
/// [`Malformed`].
pub fn parse(mut body: &[u8]) -> Result<Vec<Proposal>, Malformed> {
    let mut proposals = Vec::new();
    loop {
        if proposals.len() == PROPOSALS_MAX {
            return Err(Malformed::TooMany);
        }
        let (part, rest, is_last) = cut(body, 2)?;
        proposals.push(parse_proposal(part)?);
        if is_last {
            return rest
                .is_empty()
                .then_some(proposals)
                .ok_or(Malformed::Length);
        }
        body = rest;
    }
}

/// Writes the body of a security association payload.
///
/// # Panics
/// When an SPI has more than 255 bytes, or a proposal more than 255 transforms.
pub fn write(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (at, proposal) in proposals.iter().enumerate() {
        let start = out.len();
        let more = if at + 1 < proposals.len() { 2 } else { 0 };
        let spi_len = u8::try_from(proposal.spi.len()).expect("an SPI has 0, 4 or 8 bytes");
        let count = u8::try_from(proposal.transforms.len()).expect("at most 64 transforms");
        out.extend([more, 0, 0, 0]);
        out.extend([proposal.number, proposal.protocol.0, spi_len, count]);
        out.extend(&proposal.spi);
        for (at, transform) in proposal.transforms.iter().enumerate() {
            let more = if at + 1 < proposal.transforms.len() {
                3
            } else {
                0
            };
            write_transform(*transform, more, out);
        }
        set_len(out, start);
    }
}

/// The first substructure, what follows it, and whether it says that nothing does.
fn cut(body: &[u8], more: u8) -> Result<(&[u8], &[u8], bool), Malformed> {
    let head: &[u8; HEADER_LEN] = body.first_chunk().ok_or(Malformed::Length)?;
    let len = usize::from(u16_at(head, 2));
    if len < HEADER_LEN || len > body.len() {
        return Err(Malformed::Length);
    }
    if head[0] != 0 && head[0] != more {
        return Err(Malformed::Value);
    }
    let (part, rest) = body.split_at(len);
    Ok((part, rest, head[0] == 0))
}

fn parse_proposal(part: &[u8]) -> Result<Proposal, Malformed> {
    let count = usize::from(part[7]);
    let spi_end = HEADER_LEN + usize::from(part[6]);
    let spi = part.get(HEADER_LEN..spi_end).ok_or(Malformed::Length)?;
    if count == 0 || count > TRANSFORMS_MAX {
        return Err(Malformed::TooMany);
    }
    let mut transforms = Vec::with_capacity(count);
    let mut body = &part[spi_end..];
    for number in 1..=count {
        let (part, rest, is_last) = cut(body, 3)?;
        if is_last != (number == count) {
            return Err(Malformed::Value);
        }
        transforms.push(parse_transform(part)?);
        body = rest;
    }
    if !body.is_empty() {
        return Err(Malformed::Length);
    }
    Ok(Proposal {
        number: part[4],
        protocol: Protocol(part[5]),
        spi: spi.to_vec(),
        transforms,
    })
}

fn parse_transform(part: &[u8]) -> Result<Transform, Malformed> {
    let mut transform = Transform {
        kind: TransformKind(part[4]),
        id: u16_at(part, 6),
        key_bits: None,
        is_understood: true,
    };
    let mut attributes = &part[HEADER_LEN..];
    while !attributes.is_empty() {
        let head: &[u8; 4] = attributes.first_chunk().ok_or(Malformed::Length)?;
        let (kind, value) = (u16_at(head, 0), u16_at(head, 2));
        let len = if kind & SHORT_FORM == 0 {
            usize::from(value)
        } else {
            0
        };
        if kind == KEY_LENGTH && transform.key_bits.is_none() {
            transform.key_bits = Some(value);
        } else {
            transform.is_understood = false;
        }
        attributes = attributes.get(4 + len..).ok_or(Malformed::Length)?;
    }
    Ok(transform)
}

fn write_transform(transform: Transform, more: u8, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([more, 0, 0, 0, transform.kind.0, 0]);
    out.extend(transform.id.to_be_bytes());
    if let Some(bits) = transform.key_bits {
        out.extend(KEY_LENGTH.to_be_bytes());
        out.extend(bits.to_be_bytes());
    }
    set_len(out, start);
}

/// Puts the length of a structure that begins at `start` into its bytes 2 and 3.
pub(super) fn set_len(out: &mut [u8], start: usize) {
    let len = u16::try_from(out.len() - start).expect("a payload is shorter than 64 KiB");
    out[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
}
