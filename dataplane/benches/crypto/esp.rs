//! ESP in tunnel mode beside the bare AEAD of its transform.
//!
//! `ring` seals and opens as many bytes as ESP does, padding and trailer included, with 8 bytes of AAD;
//! `portcullis` is the SA: header, sequence number, padding, replay window, and the copy into place.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use dataplane::io::clock;
use dataplane::tunnel::ipsec::cipher::Transform;
use dataplane::tunnel::ipsec::lifetime::{Lifetime, Limits};
use dataplane::tunnel::ipsec::sa::{Inbound, Keys, Outbound};
use dataplane::wire::esp::{self, Spi};
use ring::aead::{self, Aad, LessSafeKey, UnboundKey};

use super::{LENGTHS, TAG, TRAIN, at, packet};

const TRANSFORMS: [(&str, Transform, &aead::Algorithm); 3] = [
    ("aes-128-gcm", Transform::Aes128Gcm16, &aead::AES_128_GCM),
    ("aes-256-gcm", Transform::Aes256Gcm16, &aead::AES_256_GCM),
    (
        "chacha20-poly1305",
        Transform::Chacha20Poly1305,
        &aead::CHACHA20_POLY1305,
    ),
];
/// The header's bytes: what is authenticated without being encrypted.
const HEADER: [u8; esp::HEADER_LEN] = [7; esp::HEADER_LEN];

pub(crate) fn encap(criterion: &mut Criterion) {
    for (name, transform, algorithm) in TRANSFORMS {
        let mut group = criterion.benchmark_group(format!("crypto/esp {name} encap"));
        group.throughput(Throughput::Elements(TRAIN as u64));
        for len in LENGTHS {
            let (mut outbound, _) = ends(transform);
            let (key, mut nonce) = (key(algorithm), 0);
            let body_len = body_len(&outbound, transform, len);
            let mut buffer = vec![0; body_len + TAG];
            group.bench_function(BenchmarkId::new("ring", len), |b| {
                b.iter(|| {
                    for _ in 0..TRAIN {
                        nonce += 1;
                        let (text, tag) = buffer.split_at_mut(body_len);
                        let sealed =
                            key.seal_in_place_separate_tag(at(nonce), Aad::from(HEADER), text);
                        tag.copy_from_slice(sealed.expect("a short text").as_ref());
                    }
                    black_box(&buffer);
                });
            });
            let (inner, now) = (packet(len), clock::now());
            let mut train = vec![0; TRAIN * outbound.sealed_len(len)];
            group.bench_function(BenchmarkId::new("portcullis", len), |b| {
                b.iter(|| {
                    let mut rest = &mut train[..];
                    for _ in 0..TRAIN {
                        let sealed = outbound.seal(&inner, now, rest).expect("there is room");
                        rest = &mut rest[sealed..];
                    }
                    black_box(&train);
                });
            });
        }
        group.finish();
    }
}

pub(crate) fn decap(criterion: &mut Criterion) {
    for (name, transform, algorithm) in TRANSFORMS {
        let mut group = criterion.benchmark_group(format!("crypto/esp {name} decap"));
        group.throughput(Throughput::Elements(TRAIN as u64));
        for len in LENGTHS {
            let (mut outbound, mut inbound) = ends(transform);
            let key = key(algorithm);
            let body_len = body_len(&outbound, transform, len);
            let mut sealed = vec![vec![0; body_len + TAG]; TRAIN];
            for (text, nonce) in sealed.iter_mut().zip(0..) {
                let (text, tag) = text.split_at_mut(body_len);
                let made = key.seal_in_place_separate_tag(at(nonce), Aad::from(HEADER), text);
                tag.copy_from_slice(made.expect("a short text").as_ref());
            }
            group.bench_function(BenchmarkId::new("ring", len), |b| {
                b.iter_batched_ref(
                    || sealed.clone(),
                    |sealed| {
                        for (text, nonce) in sealed.iter_mut().zip(0..) {
                            let opened = key.open_in_place(at(nonce), Aad::from(HEADER), text);
                            black_box(opened.expect("what was sealed opens"));
                        }
                    },
                    BatchSize::PerIteration,
                );
            });
            let (inner, now) = (packet(len), clock::now());
            let mut sealed = || {
                let mut packet = vec![0; outbound.sealed_len(len)];
                outbound
                    .seal(&inner, now, &mut packet)
                    .expect("there is room");
                packet
            };
            group.bench_function(BenchmarkId::new("portcullis", len), |b| {
                b.iter_batched_ref(
                    || (0..TRAIN).map(|_| sealed()).collect(),
                    |packets: &mut Vec<Vec<u8>>| {
                        for packet in packets {
                            let inside = inbound.open(packet, now).expect("an authentic packet");
                            assert_eq!(inside.len(), len);
                        }
                    },
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

fn key(algorithm: &'static aead::Algorithm) -> LessSafeKey {
    let bytes = vec![7; algorithm.key_len()];
    LessSafeKey::new(UnboundKey::new(algorithm, &bytes).expect("a key of its length"))
}

/// Bytes that an ESP packet encrypts.
fn body_len(outbound: &Outbound, transform: Transform, inner_len: usize) -> usize {
    outbound.sealed_len(inner_len) - esp::HEADER_LEN - transform.iv_len() - TAG
}

/// The two directions of one SA, which lives for longer than any measurement.
fn ends(transform: Transform) -> (Outbound, Inbound) {
    let never = Limits {
        packets: u64::MAX,
        bytes: u64::MAX,
        ..Lifetime::default().hard
    };
    let (soft, hard) = (never, never);
    let keys = Keys {
        spi: Spi::MIN,
        transform,
        key: vec![7; transform.key_len()],
        has_esn: true,
    };
    let (lifetime, now) = (Lifetime { soft, hard }, clock::now());
    let outbound = Outbound::new(&keys, lifetime, now).expect("a key of its length");
    let inbound = Inbound::new(&keys, true, lifetime, now).expect("a key of its length");
    (outbound, inbound)
}
