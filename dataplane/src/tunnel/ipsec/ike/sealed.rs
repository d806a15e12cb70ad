//! Encrypted payloads: a message's payloads sealed whole or in fragments, and opened and put
//! together.

use crate::tunnel::ipsec::cipher::{Associated, Cipher, ICV_LEN};
use crate::wire::ikev2::payload::{Chain, Raws, kind};
use crate::wire::ikev2::{HEADER_LEN, Header, Malformed, PAYLOAD_HEADER_LEN};

/// Fragments of a message that are put together: 64 of about 1200 bytes are 75 KB.
pub(super) const FRAGMENTS_MAX: u16 = 64;
/// Longest datagram that we send when the peer takes fragments: what passes everywhere with IPv6's
/// least MTU of 1280 (RFC 7383 section 2.5.1).
const DATAGRAM_LEN_MAX: usize = 1216;
/// Most bytes of a message that are put together.
pub(super) const MESSAGE_LEN_MAX: usize = 65_535;
/// Fragments of somebody who has not said who he is: with a key that both know that takes a few hundred
/// bytes, and [`super::HALF_OPEN_MAX`] of them may have sent as much.
pub(super) const STRANGERS_LEN_MAX: usize = 16 << 10;

/// Bytes of fragment number and total.
const FRAGMENT_LEN: usize = 4;

/// Seals the payloads of a message into datagrams: one, or several when they are long and
/// `can_fragment`. `number` counts initialization vectors, none of which comes twice.
#[must_use]
pub(super) fn seal(
    cipher: &Cipher,
    header: Header,
    chain: &Chain,
    can_fragment: bool,
    number: &mut u64,
) -> Vec<Vec<u8>> {
    let whole_len = HEADER_LEN + PAYLOAD_HEADER_LEN + overhead(cipher) + chain.bytes().len();
    if !can_fragment || whole_len <= DATAGRAM_LEN_MAX {
        return vec![seal_one(
            cipher,
            header,
            chain.first(),
            None,
            chain.bytes(),
            number,
        )];
    }
    let room =
        DATAGRAM_LEN_MAX - (HEADER_LEN + PAYLOAD_HEADER_LEN + FRAGMENT_LEN + overhead(cipher));
    let parts = chain.bytes().chunks(room);
    let total = u16::try_from(parts.len()).expect("a chain is shorter than 64 KiB");
    (1..)
        .zip(parts)
        .map(|(at, part)| {
            let first = if at == 1 { chain.first() } else { kind::NONE };
            seal_one(cipher, header, first, Some((at, total)), part, number)
        })
        .collect()
}

/// Most bytes that encryption adds to payloads: vector, padding and its length, ICV.
fn overhead(cipher: &Cipher) -> usize {
    cipher.transform().iv_len() + 16 + ICV_LEN
}

fn seal_one(
    cipher: &Cipher,
    header: Header,
    first: u8,
    fragment: Option<(u16, u16)>,
    plain: &[u8],
    number: &mut u64,
) -> Vec<u8> {
    let transform = cipher.transform();
    let pad_to = if transform.is_aead() {
        1
    } else {
        transform.pad_to()
    };
    let body_len = (plain.len() + 1).next_multiple_of(pad_to);
    let fragment_len = if fragment.is_some() { FRAGMENT_LEN } else { 0 };
    let payload_len = PAYLOAD_HEADER_LEN + fragment_len + transform.iv_len() + body_len + ICV_LEN;
    let which = if fragment.is_some() {
        kind::SKF
    } else {
        kind::SK
    };
    let mut message = header.to_bytes(which, HEADER_LEN + payload_len).to_vec();
    let payload_len = u16::try_from(payload_len).expect("a payload is shorter than 64 KiB");
    message.extend([first, 0]);
    message.extend(payload_len.to_be_bytes());
    if let Some((at, total)) = fragment {
        message.extend(at.to_be_bytes());
        message.extend(total.to_be_bytes());
    }
    let mut iv = vec![0; transform.iv_len()];
    cipher.write_iv(*number, &mut iv);
    *number += 1;
    let mut body = plain.to_vec();
    body.resize(body_len, 0);
    body[body_len - 1] = u8::try_from(body_len - plain.len() - 1).expect("less than a block");
    let icv = cipher.seal(Associated::header(&message), &iv, &mut body);
    message.extend([&iv[..], &body, &icv].concat());
    message
}

/// What was in the encrypted payload of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Kind of the first payload.
    pub(super) first: u8,
    /// Number of the fragment and how many there are.
    pub(super) fragment: Option<(u16, u16)>,
    /// The payloads, or a part of them.
    pub(super) plain: Vec<u8>,
}

/// Opens the encrypted payload of a datagram. `None` when there is none or it is not authentic.
#[must_use]
pub(super) fn open(cipher: &Cipher, message: &[u8]) -> Option<Opened> {
    let (_, first, payloads) = Header::parse(message).ok()?;
    let sealed = Raws::new(first, payloads)
        .filter_map(Result::ok)
        .find(|raw| matches!(raw.kind, kind::SK | kind::SKF))?;
    let (fragment, body) = if sealed.kind == kind::SKF {
        let (head, body) = sealed.body.split_first_chunk::<FRAGMENT_LEN>()?;
        let at = u16::from_be_bytes([head[0], head[1]]);
        let total = u16::from_be_bytes([head[2], head[3]]);
        let is_sound = (1..=total).contains(&at) && total <= FRAGMENTS_MAX;
        (Some(is_sound.then_some((at, total))?), body)
    } else {
        (None, sealed.body)
    };
    let (iv, body) = body.split_at_checked(cipher.transform().iv_len())?;
    let head = &message[..message.len() - iv.len() - body.len()];
    let mut plain = body.to_vec();
    let len = cipher.open(Associated::header(head), iv, &mut plain)?;
    let pad_len = usize::from(*plain.get(len.checked_sub(1)?)?);
    plain.truncate((len - 1).checked_sub(pad_len)?);
    Some(Opened {
        first: sealed.next,
        fragment,
        plain,
    })
}

/// The fragments of one message that have come. At most [`FRAGMENTS_MAX`], all authentic.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    message_id: u32,
    first: u8,
    /// Bytes of the parts that are here.
    len: usize,
    parts: Vec<Option<Vec<u8>>>,
}

impl Assembly {
    /// Adds what was opened. The first kind and the payloads, once all is there.
    ///
    /// # Errors
    /// [`Malformed::TooMany`] when the parts are longer than `len_max`; they are forgotten.
    pub(super) fn add(
        &mut self,
        message_id: u32,
        opened: Opened,
        len_max: usize,
    ) -> Result<Option<(u8, Vec<u8>)>, Malformed> {
        let Some((at, total)) = opened.fragment else {
            return Ok(Some((opened.first, opened.plain)));
        };
        let total = usize::from(total);
        // A sender that cuts smaller begins anew (RFC 7383 section 2.6).
        if self.message_id != message_id || total > self.parts.len() {
            self.message_id = message_id;
            self.parts = vec![None; total];
            self.len = 0;
        }
        if total < self.parts.len() {
            return Ok(None);
        }
        if at == 1 {
            self.first = opened.first;
        }
        self.len += opened.plain.len();
        let before = self.parts[usize::from(at) - 1].replace(opened.plain);
        self.len -= before.map_or(0, |before| before.len());
        if self.len > len_max {
            (self.parts, self.len) = (Vec::new(), 0);
            return Err(Malformed::TooMany);
        }
        if !self.parts.iter().all(Option::is_some) {
            return Ok(None);
        }
        let parts = std::mem::take(&mut self.parts);
        let whole: Vec<u8> = parts.into_iter().flatten().flatten().collect();
        Ok(Some((self.first, whole)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tunnel::ipsec::cipher::Transform;
    use crate::wire::ikev2::Exchange;
    use crate::wire::ikev2::payload::Payload;

    fn header() -> Header {
        Header {
            initiator_spi: 1,
            responder_spi: 2,
            exchange: Exchange::IKE_AUTH,
            is_initiator: true,
            is_response: false,
            message_id: 1,
        }
    }

    fn part(fragment: (u16, u16), byte: u8) -> Opened {
        Opened {
            first: kind::VENDOR,
            fragment: Some(fragment),
            plain: vec![byte],
        }
    }

    // RFC 7383 section 2.6.
    #[test]
    fn fragments_of_a_wrong_number_or_an_older_cut_are_discarded() {
        let cipher = Cipher::new(Transform::Aes128Gcm16, &[7; 20]).unwrap();
        for (at, total, is_sound) in [(1, 1, true), (0, 2, false), (3, 2, false), (1, 65, false)] {
            let sealed = seal_one(&cipher, header(), 0, Some((at, total)), &[1], &mut 0);
            assert_eq!(
                open(&cipher, &sealed).is_some(),
                is_sound,
                "{at} of {total}"
            );
        }
        let mut assembly = Assembly::default();
        let mut add = |fragment, byte| {
            let added = assembly.add(1, part(fragment, byte), MESSAGE_LEN_MAX);
            added.unwrap().map(|(_, whole)| whole)
        };
        assert_eq!(add((1, 2), 1), None);
        // The sender cuts smaller: what came before is forgotten, and what comes late of it discarded.
        assert_eq!(add((1, 3), 2), None);
        assert_eq!(add((2, 2), 1), None);
        assert_eq!(add((2, 3), 3), None);
        assert_eq!(add((3, 3), 4), Some(vec![2, 3, 4]));
    }

    proptest! {
        #[test]
        fn fragments_make_the_message_in_any_order(
            transform in prop::sample::select(
                vec![Transform::Aes128Gcm16, Transform::Aes256CbcSha256]),
            len in 0_usize..6000, can_fragment: bool, turn in 0_usize..9, twice: bool,
        ) {
            let cipher = Cipher::new(transform, &vec![7; transform.key_len()]).unwrap();
            let data: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut chain = Chain::new();
            chain.push(&Payload::Vendor(&data)).push(&Payload::Vendor(&[1]));
            let mut number = 0;
            let mut datagrams = seal(&cipher, header(), &chain, can_fragment, &mut number);
            prop_assert_eq!(number, datagrams.len() as u64);
            if can_fragment {
                prop_assert!(datagrams.iter().all(|d| d.len() <= DATAGRAM_LEN_MAX));
            }
            let turn = turn % datagrams.len();
            datagrams.rotate_left(turn);
            if twice {
                datagrams.insert(0, datagrams[0].clone());
            }
            let mut assembly = Assembly::default();
            let mut whole = None;
            for datagram in &datagrams {
                let opened = open(&cipher, datagram).unwrap();
                let added = assembly.add(1, opened, MESSAGE_LEN_MAX).unwrap();
                whole = whole.or(added);
            }
            prop_assert_eq!(whole, Some((kind::VENDOR, chain.bytes().to_vec())));
        }

        #[test]
        fn fragments_beyond_a_message_are_forgotten_and_take_no_more_than_one(
            parts in prop::collection::vec((1_u16..=64, 0_usize..3000), 1..200),
        ) {
            let mut assembly = Assembly::default();
            for (at, len) in parts {
                let opened = Opened {
                    first: kind::VENDOR,
                    fragment: Some((at, 64)),
                    plain: vec![7; len],
                };
                let is_added = assembly.add(1, opened, STRANGERS_LEN_MAX).is_ok();
                let held: usize = assembly.parts.iter().flatten().map(Vec::len).sum();
                prop_assert_eq!(held, assembly.len);
                prop_assert!(held <= STRANGERS_LEN_MAX && (is_added || held == 0));
            }
        }

        #[test]
        fn a_bent_message_is_not_opened(at: prop::sample::Index, bit in 0_u32..8) {
            let cipher = Cipher::new(Transform::Aes256CbcSha256, &[9; 64]).unwrap();
            let mut chain = Chain::new();
            chain.push(&Payload::Vendor(&[5; 40]));
            let mut message = seal(&cipher, header(), &chain, true, &mut 0).remove(0);
            let at = at.index(message.len());
            message[at] ^= 1_u8 << bit;
            // A reserved bit of the payload's header is authenticated as well.
            prop_assert_eq!(open(&cipher, &message), None);
        }
    }
}
