//! ESP SAs against published vectors, and against everything that a receiver must discard.

mod device;
mod discard;
mod failures;
mod vectors;

use std::time::Instant;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use crate::wire::esp::Spi;

use super::cipher::Transform;
use super::lifetime::Lifetime;
use super::sa::{Inbound, Keys, Outbound};

/// Every transform that there is.
pub(super) const TRANSFORMS: [Transform; 4] = [
    Transform::Aes128Gcm16,
    Transform::Aes256Gcm16,
    Transform::Chacha20Poly1305,
    Transform::Aes256CbcSha256,
];

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub(super) fn keys(transform: Transform, has_esn: bool) -> Keys {
    Keys {
        spi: Spi(0x0700_1234),
        transform,
        key: (0..64).take(transform.key_len()).collect(),
        has_esn,
    }
}

#[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
pub(super) fn start() -> Instant {
    Instant::now()
}

/// Both ends of an SA that was just made.
pub(super) fn pair(transform: Transform, has_esn: bool) -> (Outbound, Inbound) {
    let (keys, now) = (keys(transform, has_esn), start());
    (
        Outbound::new(&keys, Lifetime::default(), now).unwrap(),
        Inbound::new(&keys, true, Lifetime::default(), now).unwrap(),
    )
}

pub(super) fn ipv4(payload_len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 1], 64)
        .udp(1, 2)
        .write(&mut packet, &vec![0xa5; payload_len])
        .unwrap();
    packet
}

pub(super) fn ipv6(payload_len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 64)
        .udp(1, 2)
        .write(&mut packet, &vec![0x5a; payload_len])
        .unwrap();
    packet
}

pub(super) fn seal(sender: &mut Outbound, inner: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; sender.sealed_len(inner.len())];
    assert_eq!(sender.seal(inner, start(), &mut packet), Ok(packet.len()));
    packet
}

#[test]
fn packet_four_thousand_million_runs_over_into_the_extended_number() {
    // A receiver follows steps of less than 2^32 less the window.
    let turn = 1_u64 << 32;
    let steps = [
        turn / 2,
        turn - 5000,
        turn - 2,
        turn + turn / 2,
        2 * turn - 1,
        2 * turn + 4000,
    ];
    for transform in TRANSFORMS {
        let (mut sender, mut receiver) = pair(transform, true);
        for sequence in steps {
            sender.skip_to(sequence);
            for number in 0..4 {
                let mut packet = seal(&mut sender, &ipv4(number));
                let inner = receiver.open(&mut packet, start());
                assert_eq!(packet[inner.unwrap()], ipv4(number), "{transform:?}");
            }
        }
    }
}

#[test]
fn a_sender_without_esn_stops_before_a_number_comes_twice() {
    let (mut sender, mut receiver) = pair(Transform::Aes128Gcm16, false);
    sender.skip_to(u64::from(u32::MAX) - 1);
    let mut last = seal(&mut sender, &ipv4(0));
    assert_eq!(last[4..8], [0xff; 4]);
    assert!(receiver.open(&mut last, start()).is_ok());
    let refused = sender.seal(&ipv4(0), start(), &mut [0; 200]);
    assert_eq!(refused, Err(super::Discard::Expired));
}

proptest! {
    #[test]
    fn what_one_end_seals_the_other_opens(
        transform in prop::sample::select(TRANSFORMS.to_vec()), has_esn: bool, is_ipv6: bool,
        lengths in prop::collection::vec(0_usize..1500, 1..8),
    ) {
        let (mut sender, mut receiver) = pair(transform, has_esn);
        for len in lengths {
            let inner = if is_ipv6 { ipv6(len) } else { ipv4(len) };
            let mut packet = seal(&mut sender, &inner);
            let plain_len = packet.len() - 8 - transform.iv_len() - 16;
            prop_assert_eq!(plain_len % transform.pad_to(), 0);
            prop_assert!(!packet.windows(16).any(|w| w == &inner[..16]), "it is encrypted");
            let range = receiver.open(&mut packet, start()).unwrap();
            prop_assert_eq!(&packet[range], &inner[..]);
        }
    }

    #[test]
    fn a_packet_with_one_bit_wrong_is_not_opened(
        transform in prop::sample::select(TRANSFORMS.to_vec()), has_esn: bool, at: prop::sample::Index, bit in 0_u32..8,
    ) {
        let (mut sender, mut receiver) = pair(transform, has_esn);
        let mut packet = seal(&mut sender, &ipv4(33));
        let mut intact = packet.clone();
        let at = at.index(packet.len());
        packet[at] ^= 1_u8 << bit;
        prop_assert!(receiver.open(&mut packet, start()).is_err());
        // It moved nothing: the real one is taken.
        prop_assert!(receiver.open(&mut intact, start()).is_ok());
    }

    #[test]
    fn random_bytes_neither_panic_nor_open(
        transform in prop::sample::select(TRANSFORMS.to_vec()), has_esn: bool,
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), is_addressed: bool,
    ) {
        let (_, mut receiver) = pair(transform, has_esn);
        if is_addressed && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&[0x07, 0x00, 0x12, 0x34]);
        }
        prop_assert!(receiver.open(&mut bytes, start()).is_err());
    }
}
