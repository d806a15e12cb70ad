//! Every "MUST discard" of ESP.

use std::time::Duration;

use crate::id::{TunnelId, WorkerId};
use crate::tunnel::ipsec::Discard;
use crate::tunnel::ipsec::cipher::{Associated, Cipher, Transform};
use crate::tunnel::ipsec::lifetime::{Lifetime, Limits, Phase};
use crate::tunnel::ipsec::sa::{Inbound, Outbound};
use crate::tunnel::ipsec::sad::{self, ClaimError, Sad};
use crate::wire::esp::Spi;

use super::{TRANSFORMS, ipv4, ipv6, keys, pair, seal, start};

/// A packet whose plaintext the test writes itself, trailer included, sealed with the right key.
fn forge(transform: Transform, sequence: u64, body: &[u8]) -> Vec<u8> {
    let keys = keys(transform, false);
    let cipher = Cipher::new(transform, &keys.key).unwrap();
    let low = u32::try_from(sequence).unwrap();
    let mut packet = [keys.spi.0.to_be_bytes(), low.to_be_bytes()].concat();
    let mut iv = vec![0; transform.iv_len()];
    cipher.write_iv(sequence, &mut iv);
    let mut body = body.to_vec();
    let icv = cipher.seal(Associated::header(&packet), &iv, &mut body);
    packet.extend([&iv[..], &body, &icv].concat());
    packet
}

fn opened(transform: Transform, body: &[u8]) -> Result<Vec<u8>, Discard> {
    let (_, mut receiver) = pair(transform, false);
    let mut packet = forge(transform, 1, body);
    let inner = receiver.open(&mut packet, start())?;
    Ok(packet[inner].to_vec())
}

#[test]
fn a_replayed_packet_is_discarded() {
    for transform in TRANSFORMS {
        for has_esn in [false, true] {
            let (mut sender, mut receiver) = pair(transform, has_esn);
            let packet = seal(&mut sender, &ipv4(10));
            assert!(receiver.open(&mut packet.clone(), start()).is_ok());
            let again = receiver.open(&mut packet.clone(), start());
            assert_eq!(again, Err(Discard::Replay));
        }
    }
}

#[test]
fn a_forged_packet_does_not_move_the_window() {
    for transform in TRANSFORMS {
        let (mut sender, mut receiver) = pair(transform, false);
        let early = seal(&mut sender, &ipv4(10));
        sender.skip_to(1 << 20);
        let mut far = seal(&mut sender, &ipv4(10));
        let last = far.len() - 1;
        far[last] ^= 1;
        assert_eq!(receiver.open(&mut far, start()), Err(Discard::Forged));
        let opened = receiver.open(&mut early.clone(), start());
        assert!(
            opened.is_ok(),
            "{transform:?}: it would be left of the window"
        );
    }
}

#[test]
fn without_the_check_a_packet_is_taken_as_often_as_it_comes() {
    let keys = keys(Transform::Aes128Gcm16, false);
    let mut receiver = Inbound::new(&keys, false, Lifetime::default(), start()).unwrap();
    let mut sender = Outbound::new(&keys, Lifetime::default(), start()).unwrap();
    let mut packet = seal(&mut sender, &ipv4(10));
    assert!(receiver.open(&mut packet.clone(), start()).is_ok());
    assert!(receiver.open(&mut packet, start()).is_ok());
}

#[test]
fn sequence_number_zero_is_discarded_until_it_stands_for_two_to_the_32() {
    let mut packet = forge(
        Transform::Aes128Gcm16,
        0,
        &[&ipv4(0)[..], &[1, 2, 2, 4]].concat(),
    );
    let (_, mut receiver) = pair(Transform::Aes128Gcm16, false);
    assert_eq!(receiver.open(&mut packet, start()), Err(Discard::Replay));

    let (mut sender, mut receiver) = pair(Transform::Aes128Gcm16, true);
    let mut first = seal(&mut sender, &ipv4(0));
    first[4..8].fill(0);
    assert_eq!(receiver.open(&mut first, start()), Err(Discard::Replay));
    for sequence in [1_u64 << 31, (1 << 32) - 2] {
        sender.skip_to(sequence);
        assert!(
            receiver
                .open(&mut seal(&mut sender, &ipv4(0)), start())
                .is_ok()
        );
    }
    let mut wrapped = seal(&mut sender, &ipv4(0));
    assert_eq!(wrapped[4..8], [0; 4]);
    assert!(receiver.open(&mut wrapped, start()).is_ok());
}

#[test]
fn a_short_packet_or_icv_is_discarded() {
    for transform in TRANSFORMS {
        let (mut sender, mut receiver) = pair(transform, false);
        let whole = seal(&mut sender, &ipv4(10));
        for len in 0..whole.len() {
            let refused = receiver.open(&mut whole[..len].to_vec(), start());
            let shortest = 8 + transform.iv_len() + 2 + 16;
            let wanted = if len < shortest {
                Discard::Truncated
            } else {
                Discard::Forged
            };
            assert_eq!(refused, Err(wanted), "{transform:?} {len}");
        }
    }
}

#[test]
fn padding_that_is_not_as_it_should_be_is_discarded() {
    let inner = ipv4(0);
    assert_eq!(inner.len(), 28);
    let with = |tail: &[u8]| opened(Transform::Aes128Gcm16, &[&inner[..], tail].concat());
    assert_eq!(with(&[1, 2, 2, 4]).as_deref(), Ok(&inner[..]));
    assert_eq!(with(&[1, 3, 2, 4]), Err(Discard::Padding), "not 1, 2, 3");
    assert_eq!(with(&[0, 0, 2, 4]), Err(Discard::Padding), "zeros");
    assert_eq!(
        with(&[1, 2, 255, 4]),
        Err(Discard::Padding),
        "longer than the packet"
    );
    assert_eq!(with(&[1, 2, 31, 4]), Err(Discard::Padding), "by one byte");
    assert_eq!(with(&[0, 4]), Err(Discard::Padding), "not a multiple of 4");
    assert_eq!(
        opened(Transform::Aes128Gcm16, &[0, 4, 0, 4]),
        Err(Discard::NotIp)
    );
}

#[test]
fn more_than_255_bytes_behind_the_packet_are_left_out() {
    // RFC 4303 section 2.7: in tunnel mode, the inner header says where the packet ends.
    let hidden = [&ipv4(0)[..], &[0xcc; 300], &[0, 4], &[0, 4]].concat();
    assert_eq!(hidden.len() % 4, 0);
    let inner = opened(Transform::Aes128Gcm16, &hidden);
    assert_eq!(inner.as_deref(), Ok(&ipv4(0)[..]));
}

#[test]
fn dummies_and_other_protocols_are_discarded() {
    let transform = Transform::Chacha20Poly1305;
    assert_eq!(opened(transform, &[7, 7, 0, 59]), Err(Discard::Dummy));
    assert_eq!(opened(transform, &[1, 2, 2, 59]), Err(Discard::Dummy));
    // Transport mode: the next header is that of the payload.
    let udp = [&[0; 8][..], &[1, 2, 2, 17]].concat();
    assert_eq!(opened(transform, &udp), Err(Discard::NextHeader));
}

#[test]
fn an_inner_packet_of_the_wrong_version_or_length_is_discarded() {
    let transform = Transform::Aes256Gcm16;
    let body = |inner: &[u8], next: u8| {
        let pad: &[u8] = if inner.len().is_multiple_of(4) {
            &[1, 2, 2]
        } else {
            &[0]
        };
        opened(transform, &[inner, pad, &[next]].concat())
    };
    assert!(body(&ipv4(0), 4).is_ok() && body(&ipv6(0), 41).is_ok());
    assert_eq!(body(&ipv4(0), 41), Err(Discard::NotIp));
    assert_eq!(body(&ipv6(0), 4), Err(Discard::NotIp));
    assert_eq!(
        body(&ipv4(8)[..32], 4),
        Err(Discard::NotIp),
        "longer than the payload"
    );
    assert_eq!(body(&ipv4(0)[..4], 4), Err(Discard::NotIp));
    assert_eq!(body(&ipv6(0)[..4], 41), Err(Discard::NotIp));
    let mut short = ipv4(0);
    short[2..4].copy_from_slice(&[0, 19]);
    assert_eq!(body(&short, 4), Err(Discard::NotIp));
}

#[test]
fn only_ip_packets_are_sealed_and_only_where_there_is_room() {
    let (mut sender, _) = pair(Transform::Aes256CbcSha256, false);
    let mut room = [0; 200];
    assert_eq!(sender.seal(&[], start(), &mut room), Err(Discard::NotIp));
    assert_eq!(
        sender.seal(&[0x50; 20], start(), &mut room),
        Err(Discard::NotIp)
    );
    let len = sender.sealed_len(28);
    let refused = sender.seal(&ipv4(0), start(), &mut room[..len - 1]);
    assert_eq!(refused, Err(Discard::NoRoom));
    assert_eq!(sender.seal(&ipv4(0), start(), &mut room), Ok(len));
    assert_eq!(room[4..8], [0, 0, 0, 1], "refusals use up no number");
}

/// Limits that are never reached, but for one.
fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits {
        packets: u64::MAX,
        bytes: u64::MAX,
        time: Duration::MAX,
    };
    change(&mut limits);
    limits
}

#[test]
fn an_sa_past_its_hard_lifetime_neither_sends_nor_receives() {
    let now = start();
    let second = Duration::from_secs(1);
    // Each is due after one packet or one second, and dead after two.
    let cases = [
        (limits(|l| l.packets = 1), limits(|l| l.packets = 2)),
        (limits(|l| l.bytes = 28), limits(|l| l.bytes = 56)),
        (limits(|l| l.time = second), limits(|l| l.time = second * 2)),
    ];
    for (soft, hard) in cases {
        let keys = keys(Transform::Aes128Gcm16, false);
        let lifetime = Lifetime { soft, hard };
        let mut sender = Outbound::new(&keys, lifetime, now).unwrap();
        let mut receiver = Inbound::new(&keys, true, lifetime, now).unwrap();
        for (number, phase) in [(0, Phase::Fresh), (1, Phase::Due)] {
            let at = now + second * number;
            assert_eq!((sender.phase(at), receiver.phase(at)), (phase, phase));
            let mut packet = [0; 100];
            let len = sender.seal(&ipv4(0), at, &mut packet).unwrap();
            assert!(receiver.open(&mut packet[..len], at).is_ok());
        }
        let at = now + second * 2;
        assert_eq!(sender.phase(at), Phase::Dead);
        let refused = sender.seal(&ipv4(0), at, &mut [0; 100]);
        assert_eq!(refused, Err(Discard::Expired));
        let mut third = forge(Transform::Aes128Gcm16, 3, &[0, 0, 0, 4]);
        assert_eq!(receiver.open(&mut third, at), Err(Discard::Expired));
    }
}

#[test]
fn the_sad_finds_an_sa_by_the_spi_that_it_gave_out() {
    let mut sad = Sad::new(WorkerId(7), 0x00ff_ffff);
    let spi = sad.reserve().unwrap();
    assert_eq!(spi, Spi(0x07ff_ffff));
    assert_eq!(
        sad.reserve().unwrap(),
        Spi(0x0700_0100),
        "slots wrap past the reserved ones"
    );
    let keys = crate::tunnel::ipsec::sa::Keys {
        spi,
        ..keys(Transform::Aes128Gcm16, false)
    };
    let receiver = || Inbound::new(&keys, true, Lifetime::default(), start()).unwrap();
    let mut sender = Outbound::new(&keys, Lifetime::default(), start()).unwrap();

    let mut packet = seal(&mut sender, &ipv4(9));
    assert_eq!(sad::addressee(&packet), Some(WorkerId(7)));
    let early = sad.open(&mut packet.clone(), start());
    assert_eq!(early, Err(Discard::SpiUnknown), "reserved, and no keys yet");
    assert!(sad.install(TunnelId(3), receiver()));
    assert!(!sad.install(TunnelId(3), receiver()), "it has one");
    let opened = sad.open(&mut packet, start()).unwrap();
    assert_eq!((opened.spi, opened.tunnel), (spi, TunnelId(3)));
    assert_eq!(packet[opened.inner], ipv4(9));
    assert_eq!(sad.get(spi).unwrap().meter().packets(), 1);

    sad.remove(spi);
    let mut packet = seal(&mut sender, &ipv4(9));
    assert_eq!(sad.open(&mut packet, start()), Err(Discard::SpiUnknown));
    assert!(!sad.install(TunnelId(3), receiver()), "nobody took the SPI");
}

#[test]
fn an_operators_spi_is_taken_once_and_never_a_reserved_one() {
    let mut sad = Sad::new(WorkerId(0), 0);
    assert_eq!(sad.claim(Spi(255)), Err(ClaimError::Reserved));
    assert_eq!(sad.claim(Spi(256)), Ok(()));
    assert_eq!(sad.claim(Spi(256)), Err(ClaimError::Taken(Spi(256))));
    assert_eq!(sad.reserve(), Ok(Spi(257)), "reservations go round it");
}

#[test]
fn a_full_sad_refuses_and_has_room_again() {
    let mut sad = Sad::new(WorkerId(0), 0);
    let first = sad.reserve().unwrap();
    while sad.len() < sad::SAS_MAX {
        sad.reserve().unwrap();
    }
    assert_eq!(sad.reserve(), Err(ClaimError::Full));
    sad.remove(first);
    assert!(sad.reserve().is_ok());
}
