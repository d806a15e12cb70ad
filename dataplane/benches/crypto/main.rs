//! Encapsulation and decapsulation per kind of tunnel, beside what they cannot do without.
//!
//! One operation is one packet. `ring` is the bare AEAD over the same bytes; `boringtun` is its
//! `Tunn` alone with a session, as the tunnel holds it; `portcullis` is the face that a node calls,
//! into the outbox and out of it. What is above `boringtun` is ours; what `boringtun` is above `ring`
//! is its header, counter, replay window, and the copy from the one buffer into the other.

mod esp;

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use dataplane::id::{TunnelId, VnetId, WorkerId};
use dataplane::io::clock;
use dataplane::packet::{Outbox, Transmit, Way};
use dataplane::tunnel::wireguard::{self, PrivateKey};
use dataplane::tunnel::{Config, DATAGRAM_LEN_MAX, Decap, Handle, Tunnels};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Packets in one measurement: one train, as a bulk sender makes it.
const TRAIN: usize = 44;
/// Inner packets.
const LENGTHS: [usize; 3] = [64, 512, 1420];
const TAG: usize = 16;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    encap(&mut criterion);
    decap(&mut criterion);
    esp::encap(&mut criterion);
    esp::decap(&mut criterion);
    criterion.final_summary();
}

fn encap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crypto/wireguard encap");
    group.throughput(Throughput::Elements(TRAIN as u64));
    for len in LENGTHS {
        let (key, mut buffer, mut nonce) = (key(), vec![0; len + TAG], 0);
        group.bench_function(BenchmarkId::new("ring", len), |b| {
            b.iter(|| {
                for _ in 0..TRAIN {
                    nonce += 1;
                    let (text, tag) = buffer.split_at_mut(len);
                    let sealed = key.seal_in_place_separate_tag(at(nonce), Aad::empty(), text);
                    tag.copy_from_slice(sealed.expect("a short text").as_ref());
                }
                black_box(&buffer);
            });
        });
        let (mut near, _) = tunns();
        let (inner, mut out) = (packet(len), vec![0; DATAGRAM_LEN_MAX]);
        group.bench_function(BenchmarkId::new("boringtun", len), |b| {
            b.iter(|| {
                for _ in 0..TRAIN {
                    let result = near.encapsulate(&inner, &mut out);
                    assert!(matches!(result, TunnResult::WriteToNetwork(_)));
                }
            });
        });
        let (mut near, _) = ends();
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        group.bench_function(BenchmarkId::new("portcullis", len), |b| {
            b.iter(|| {
                for _ in 0..TRAIN {
                    buffer[..len].copy_from_slice(&inner);
                    near.send(&mut buffer, len);
                }
                while let Some(transmit) = near.out.poll_transmit() {
                    black_box(transmit);
                }
            });
        });
    }
    group.finish();
}

fn decap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crypto/wireguard decap");
    group.throughput(Throughput::Elements(TRAIN as u64));
    for len in LENGTHS {
        let key = key();
        let mut sealed = vec![vec![0; len + TAG]; TRAIN];
        for (text, nonce) in sealed.iter_mut().zip(0..) {
            let (text, tag) = text.split_at_mut(len);
            let made = key.seal_in_place_separate_tag(at(nonce), Aad::empty(), text);
            tag.copy_from_slice(made.expect("a short text").as_ref());
        }
        group.bench_function(BenchmarkId::new("ring", len), |b| {
            b.iter_batched_ref(
                || sealed.clone(),
                |sealed| {
                    for (text, nonce) in sealed.iter_mut().zip(0..) {
                        let opened = key.open_in_place(at(nonce), Aad::empty(), text);
                        black_box(opened.expect("what was sealed opens"));
                    }
                },
                BatchSize::PerIteration,
            );
        });
        let (mut near, mut far) = tunns();
        let (inner, mut out) = (packet(len), vec![0; DATAGRAM_LEN_MAX]);
        group.bench_function(BenchmarkId::new("boringtun", len), |b| {
            b.iter_batched_ref(
                || {
                    (0..TRAIN)
                        .map(|_| written(near.encapsulate(&inner, &mut out)))
                        .collect()
                },
                |datagrams: &mut Vec<Vec<u8>>| {
                    let mut buffer = [0; DATAGRAM_LEN_MAX];
                    for datagram in datagrams {
                        let result = far.decapsulate(None, datagram, &mut buffer);
                        assert!(matches!(result, TunnResult::WriteToTunnelV4(..)));
                    }
                },
                BatchSize::PerIteration,
            );
        });
        let (mut near, mut far) = ends();
        let (from, mut buffer) = (near.at, vec![0; DATAGRAM_LEN_MAX]);
        group.bench_function(BenchmarkId::new("portcullis", len), |b| {
            b.iter_batched_ref(
                || {
                    for _ in 0..TRAIN {
                        buffer[..len].copy_from_slice(&inner);
                        near.send(&mut buffer, len);
                    }
                    near.sent()
                },
                |datagrams| {
                    let mut buffer = [0; DATAGRAM_LEN_MAX];
                    for datagram in datagrams {
                        let taken = far.take(from, datagram, &mut buffer);
                        assert!(matches!(taken, Decap::Inner { .. }));
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn key() -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]);
    LessSafeKey::new(key.expect("a key of 32 bytes"))
}

fn at(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// An IPv4 packet.
fn packet(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[0] = 0x45;
    let total = u16::try_from(len).expect("an inner length");
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes
}

/// Two of boringtun's, with a session.
fn tunns() -> (Tunn, Tunn) {
    let secret = |n| x25519::StaticSecret::from([n; 32]);
    let tunn = |ours, theirs, index| {
        let peer = x25519::PublicKey::from(&secret(theirs));
        Tunn::new(secret(ours), peer, None, None, index, None)
    };
    let (mut near, mut far) = (tunn(1, 2, 1), tunn(2, 1, 2));
    let mut out = vec![0; DATAGRAM_LEN_MAX];
    let first = written(near.format_handshake_initiation(&mut out, false));
    let second = written(far.decapsulate(None, &first, &mut out));
    let third = written(near.decapsulate(None, &second, &mut out));
    assert!(matches!(
        far.decapsulate(None, &third, &mut out),
        TunnResult::Done
    ));
    (near, far)
}

fn written(result: TunnResult<'_>) -> Vec<u8> {
    let TunnResult::WriteToNetwork(bytes) = result else {
        unreachable!("with a session every packet is a datagram")
    };
    bytes.to_vec()
}

/// One end of a tunnel, as a worker has it.
struct End {
    tunnels: Tunnels,
    handle: Handle,
    out: Outbox,
    at: SocketAddr,
    now: Instant,
}

impl End {
    fn new((ours, at): (u8, SocketAddr), (theirs, to): (u8, SocketAddr)) -> Self {
        let now = clock::now();
        let mut tunnels = Tunnels::new(WorkerId(0), now);
        let mut out = Outbox::new();
        let config = Config::WireGuard(wireguard::Config {
            private_key: PrivateKey([ours; 32]),
            peer: PrivateKey([theirs; 32]).public(),
            preshared_key: None,
            endpoint: Some(to),
            keepalive: None,
        });
        let handle = tunnels
            .put((TunnelId(1), VnetId(1)), &config, 1420, now, &mut out)
            .expect("a new peer");
        Self {
            tunnels,
            handle,
            out,
            at,
            now,
        }
    }

    fn send(&mut self, buffer: &mut [u8], len: usize) {
        let sent = self
            .tunnels
            .encap(self.handle, buffer, len, self.now, &mut self.out);
        sent.expect("a packet that fits is taken");
    }

    fn take(&mut self, from: SocketAddr, datagram: &mut [u8], buffer: &mut [u8]) -> Decap {
        let taken = self.tunnels.decap(
            Way::wireguard(from),
            datagram,
            buffer,
            self.now,
            &mut self.out,
        );
        taken.expect("an authentic datagram is taken")
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(transmit) = self.out.poll_transmit() {
            if let Transmit::Underlay {
                segment_size,
                bytes,
                ..
            } = transmit
            {
                all.extend(bytes.chunks(segment_size).map(<[u8]>::to_vec));
            }
        }
        all
    }
}

/// Two ends with a session.
fn ends() -> (End, End) {
    let near = (1, SocketAddr::from(([192, 0, 2, 1], 51820)));
    let far = (2, SocketAddr::from(([192, 0, 2, 2], 51820)));
    let (mut near, mut far) = (End::new(near, far), End::new(far, near));
    let mut buffer = vec![0; DATAGRAM_LEN_MAX];
    buffer[..64].copy_from_slice(&packet(64));
    near.send(&mut buffer, 64);
    loop {
        let (there, back) = (near.sent(), far.sent());
        if there.is_empty() && back.is_empty() {
            break;
        }
        for mut datagram in there {
            far.take(near.at, &mut datagram, &mut buffer);
        }
        for mut datagram in back {
            near.take(far.at, &mut datagram, &mut buffer);
        }
    }
    assert!(near.tunnels.status(near.handle, near.now).is_up);
    (near, far)
}
