//! Parsers of what strangers send, against a corpus of real messages and what random changes make of them.
//!
//! Whatever the bytes are: nothing panics, nothing comes out that was not authenticated, and what a stranger can make
//! a device keep stays within its bounds. `corpus/` holds messages as two devices exchanged them;
//! `PC_WRITE_CORPUS=1` makes them anew.

#![expect(clippy::unwrap_used, reason = "all of this program is a test")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use dataplane::id::{TunnelId, VnetId, WorkerId};
use dataplane::packet::{Carrier, Outbox, Transmit, Way};
use dataplane::tunnel::ipsec::cipher::Transform;
use dataplane::tunnel::ipsec::ike::{
    EspOffer, HALF_OPEN_MAX, Identity, IkeOffer, Psk, Times, everything,
};
use dataplane::tunnel::ipsec::{
    Config, Device, Encapsulation, IkeKeying, Keying, Slot, StaticKeying,
};
use dataplane::tunnel::{DATAGRAM_LEN_MAX, Decap};
use dataplane::wire::ikev2;
use dataplane::wire::ikev2::payload::{self, Chain, Id, Payload};
use dataplane::wire::ikev2::proposal::Protocol;
use dataplane::wire::{echo, esp};

mod geneve;
mod gre;

/// Changed messages for each of the corpus: ten thousand in all take some seconds without optimization.
const CHANGES: u64 = 600;

/// A generator of numbers that are the same in every run (splitmix64, Steele and others 2014).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Changes a message as faults and attackers do: flips, cuts, copies, numbers at their limits.
    fn change(&mut self, message: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(message.len());
            match self.below(6) {
                0 if !message.is_empty() => message[at] ^= 1 << self.below(8),
                1 if !message.is_empty() => message[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => message.truncate(at),
                3 => message.insert(at, self.byte()),
                4 => {
                    let tail = message[at..].to_vec();
                    message.extend_from_slice(&tail[..tail.len().min(64)]);
                }
                // The length of an IKE message is what lets the rest be looked at.
                _ if message.len() >= 28 => {
                    let len = u32::try_from(message.len()).unwrap();
                    message[24..28].copy_from_slice(&len.to_be_bytes());
                }
                _ => message.push(self.byte()),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
fn start() -> Instant {
    Instant::now()
}

fn address(at: usize) -> IpAddr {
    IpAddr::from([[192, 0, 2, 1], [192, 0, 2, 2]][at])
}

/// A name that makes of IKE_AUTH a message in fragments.
fn long(at: usize) -> Identity {
    Identity::KeyId(vec![b'a' + u8::try_from(at).unwrap(); 2500])
}

fn config(at: usize, esp: Transform, udp: Encapsulation) -> Config {
    let identity = |at| match esp {
        Transform::Chacha20Poly1305 => long(at),
        Transform::Aes128Gcm16 | Transform::Aes256Gcm16 | Transform::Aes256CbcSha256 => {
            Identity::Fqdn(format!("peer-{at}.example"))
        }
    };
    let keying = IkeKeying {
        psk: Psk(b"a key of both".to_vec()),
        local_identity: identity(at),
        remote_identities: vec![identity(1 - at)],
        is_initiator: at == 0,
        ike: IkeOffer::default(),
        esp: EspOffer {
            ciphers: vec![esp],
            ..EspOffer::default()
        },
        local_traffic: everything(),
        remote_traffic: everything(),
        further: Vec::new(),
        times: Times::default(),
    };
    Config {
        local: address(at),
        remote: Some(address(1 - at)),
        keying: Keying::Ike(Box::new(keying)),
        encapsulation: udp,
        has_replay_protection: true,
    }
}

fn device(at: usize, config: &Config, now: Instant) -> (Device, Outbox, Slot) {
    let mut random = Seeded(u64::try_from(at).unwrap() + 7);
    let fill = Box::new(move |bytes: &mut [u8]| bytes.fill_with(|| random.byte()));
    let worker = WorkerId(u8::try_from(at).unwrap());
    let (mut device, mut out) = (Device::new(worker, fill, now), Outbox::new());
    let slot = device
        .put((TunnelId(1), VnetId(1)), config, now, &mut out)
        .unwrap();
    (device, out, slot)
}

fn sent(out: &mut Outbox) -> Vec<(Way, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(transmit) = out.poll_transmit() {
        if let Transmit::Underlay {
            way,
            segment_size,
            bytes,
        } = transmit
        {
            all.extend(bytes.chunks(segment_size).map(|one| (way, one.to_vec())));
        }
    }
    all
}

/// An IPv4 packet without a payload (RFC 791), checksum as a receiver wants it.
const INNER: [u8; 20] = [
    0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0x66, 0xad, 10, 0, 0, 1, 10, 0, 0, 2,
];

/// What two devices say to each other from the first request to some packets, under names that say
/// what it is.
fn conversation(esp: Transform, udp: Encapsulation) -> Vec<(String, Vec<u8>)> {
    let mut now = start();
    let (mut far, mut far_out, far_slot) = device(1, &config(1, esp, udp), now);
    let (mut near, mut near_out, near_slot) = device(0, &config(0, esp, udp), now);
    let mut said = Vec::new();
    let mut buffer = vec![0; DATAGRAM_LEN_MAX];
    for turn in 0..16 {
        if turn == 10 {
            // A child SA that is due gets a successor, and is deleted.
            now += Times::default().child;
            near.handle_timeout(now, &mut near_out);
        }
        if turn == 8 {
            near.encap(near_slot, &INNER, now, &mut near_out).unwrap();
            far.encap(far_slot, &INNER, now, &mut far_out).unwrap();
        }
        let (there, back) = (sent(&mut near_out), sent(&mut far_out));
        for (from, datagrams) in [(0, there), (1, back)] {
            let (to, to_out) = if from == 0 {
                (&mut far, &mut far_out)
            } else {
                (&mut near, &mut near_out)
            };
            for (way, mut datagram) in datagrams {
                let name = format!("{:?}-{esp:?}-{}-{from}", way.carrier, said.len());
                said.push((name.to_lowercase(), datagram.clone()));
                let way = Way {
                    remote: SocketAddr::new(address(from), way.remote.port()),
                    local: Some(way.remote.ip()),
                    ..way
                };
                to.decap(way, &mut datagram, &mut buffer, now, to_out)
                    .unwrap();
            }
        }
    }
    said
}

/// Payloads as they are before they are sealed, and after they are opened: the kind of the first before them.
fn chains() -> Vec<(String, Vec<u8>)> {
    let id = Id {
        kind: 2,
        data: b"peer-0.example",
    };
    let mut auth = Chain::new();
    auth.push(&Payload::IdI(id)).push(&Payload::IdR(id));
    auth.push(&Payload::Auth {
        method: 2,
        data: &[7; 32],
    });
    auth.push(&Payload::TsI(everything()));
    auth.push(&Payload::TsR(everything()));
    auth.push(&Payload::Cp(&[1, 0, 0, 0, 0, 1, 0, 0]));
    let mut inform = Chain::new();
    inform.push(&Payload::Delete {
        protocol: Protocol::ESP,
        spis: &[1, 2, 3, 4, 5, 6, 7, 8],
        spi_len: 4,
    });
    inform.push(&Payload::Unused {
        kind: 37,
        data: &[4; 20],
    });
    inform.notify(16_393, &[1, 2]).notify(24, &[]);
    [("auth", auth), ("inform", inform)]
        .map(|(name, chain)| {
            let bytes = [&[chain.first()], chain.bytes()].concat();
            (format!("payloads-{name}"), bytes)
        })
        .to_vec()
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parsers/corpus")
}

/// The corpus by name; made anew where that is wanted.
fn corpus() -> BTreeMap<String, Vec<u8>> {
    if std::env::var_os("PC_WRITE_CORPUS").is_some() {
        for (esp, udp) in [
            (Transform::Aes128Gcm16, Encapsulation::Udp),
            (Transform::Aes256CbcSha256, Encapsulation::Auto),
            (Transform::Chacha20Poly1305, Encapsulation::Auto),
        ] {
            for (name, message) in conversation(esp, udp) {
                fs::write(directory().join(name), message).unwrap();
            }
        }
        let said = gre::said().into_iter().chain(geneve::said());
        for (name, message) in chains().into_iter().chain(said) {
            fs::write(directory().join(name), message).unwrap();
        }
    }
    let files = fs::read_dir(directory()).unwrap();
    files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

/// Every parser that sees the bytes before anything has been authenticated.
fn parse(bytes: &[u8]) {
    if let Some((first, chain)) = bytes.split_first()
        && let Ok(payloads) = payload::parse(*first, chain)
    {
        assert!(payloads.len() <= payload::PAYLOADS_MAX);
    }
    for is_ipv4 in [true, false] {
        if let Some(reply) = echo::Echo::reply(bytes, is_ipv4) {
            assert!(reply.payload.len() + 8 == bytes.len());
        }
    }
    gre::parse(bytes);
    geneve::parse(bytes);
    let message = match esp::Datagram::parse(bytes) {
        Some(esp::Datagram::Ike(message)) => message,
        Some(esp::Datagram::Esp(packet)) => {
            let header = esp::Header::parse(packet).expect("it was parsed as one");
            assert_eq!(header.to_bytes(), packet[..esp::HEADER_LEN]);
            bytes
        }
        Some(esp::Datagram::Keepalive) | None => bytes,
    };
    if let Ok((header, first, body)) = ikev2::Header::parse(message) {
        assert_eq!(
            header.to_bytes(first, message.len()).len(),
            ikev2::HEADER_LEN
        );
        if let Ok(payloads) = payload::parse(first, body) {
            assert!(payloads.len() <= payload::PAYLOADS_MAX);
        }
    }
}

/// A responder with an IKE peer and one with static keys, and a stranger at its ports.
struct Target {
    device: Device,
    gre: gre::Target,
    geneve: geneve::Target,
    out: Outbox,
    now: Instant,
    answers: usize,
}

impl Target {
    fn new() -> Self {
        let now = start();
        let theirs = config(1, Transform::Aes128Gcm16, Encapsulation::Auto);
        let (mut device, mut out, _) = device(1, &theirs, now);
        let keyed = Config {
            keying: Keying::Static(Box::new(StaticKeying {
                transform: Transform::Aes128Gcm16,
                has_esn: true,
                spi_in: 0x0100_0007,
                spi_out: 0x0100_0007,
                key_in: vec![1; 20],
                key_out: vec![1; 20],
            })),
            ..theirs
        };
        device
            .put((TunnelId(2), VnetId(1)), &keyed, now, &mut out)
            .unwrap();
        Self {
            device,
            gre: gre::Target::new(now),
            geneve: geneve::Target::new(now),
            out,
            now,
            answers: 0,
        }
    }

    fn take(&mut self, carrier: Carrier, bytes: &[u8]) {
        if carrier == Carrier::Gre {
            return self.gre.take(bytes, self.now);
        }
        if carrier == Carrier::Relay {
            return self.geneve.take(bytes, self.now);
        }
        let way = Way {
            remote: SocketAddr::new(address(0), 500),
            carrier,
            local: Some(address(1)),
            class: 0,
            ttl: 0,
        };
        let _names_somebody = self.device.addressee(way, bytes);
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        let (now, out) = (self.now, &mut self.out);
        let taken = self
            .device
            .decap(way, &mut bytes.to_vec(), &mut buffer, now, out);
        assert!(
            !matches!(taken, Ok(Decap::Inner { .. })),
            "a packet came out of what nobody sealed for us"
        );
        self.answers += sent(&mut self.out).len();
        self.now += std::time::Duration::from_millis(10);
        self.device.handle_timeout(self.now, &mut self.out);
    }
}

const CARRIERS: [Carrier; 5] = [
    Carrier::Ike,
    Carrier::NatT,
    Carrier::Esp,
    Carrier::Gre,
    Carrier::Relay,
];

#[test]
fn whatever_becomes_of_a_message_nothing_panics_and_no_packet_comes_out() {
    let corpus = corpus();
    let names: Vec<_> = corpus.keys().map(|name| name.split('-').next()).collect();
    for kind in ["ike", "natt", "esp", "gre", "geneve", "payloads"] {
        assert!(names.contains(&Some(kind)), "no {kind} in the corpus");
    }
    let fragment = |message: &&Vec<u8>| message.len() > 28 && message[16] == payload::kind::SKF;
    assert!(
        corpus.values().filter(fragment).count() >= 4,
        "no IKE fragments"
    );
    let mut target = Target::new();
    for (number, (name, message)) in corpus.iter().enumerate() {
        let mut random = Seeded(u64::try_from(number).unwrap());
        parse(message);
        for carrier in CARRIERS {
            target.take(carrier, message);
        }
        for _ in 0..CHANGES {
            let mut changed = message.clone();
            random.change(&mut changed);
            parse(&changed);
            let carrier = CARRIERS[random.below(CARRIERS.len())];
            target.take(carrier, &changed);
        }
        assert!(
            target.answers < 40_000,
            "{name}: a stranger gets many answers"
        );
    }
    assert!(
        target.answers > 0,
        "first requests of the corpus are answered"
    );
    assert!(
        target.geneve.delivered > 3,
        "packets of the corpus are delivered"
    );
    let debug = format!("{:?}", target.device);
    assert!(
        debug.contains("tunnels: 2") && HALF_OPEN_MAX == 1024,
        "{debug}"
    );
}

#[test]
fn bytes_of_chance_are_no_message() {
    let (mut random, mut target) = (Seeded(99), Target::new());
    for _ in 0..5000 {
        let len = random.below(300);
        let mut bytes = vec![0; len];
        bytes.fill_with(|| random.byte());
        parse(&bytes);
        target.take(CARRIERS[random.below(CARRIERS.len())], &bytes);
    }
    assert_eq!((target.answers, target.geneve.delivered), (0, 0));
}
