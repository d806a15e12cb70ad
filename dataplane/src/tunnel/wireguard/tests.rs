//! The device's rules, each against a second device with real handshakes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::id::{TunnelId, WorkerId};
use crate::packet::{Outbox, Transmit};
use crate::tunnel::{DATAGRAM_LEN_MAX, Decap, Event, Refusal};

const MTU: u16 = 1420;
const TUNNEL: TunnelId = TunnelId(1);

#[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
fn start() -> Instant {
    Instant::now()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key(n: u8) -> PrivateKey {
    PrivateKey([n; 32])
}

fn config(private: u8, peer: u8, endpoint: Option<SocketAddr>) -> Config {
    Config {
        private_key: key(private),
        peer: key(peer).public(),
        preshared_key: None,
        endpoint,
        keepalive: None,
    }
}

/// An IPv4 packet of `len` bytes.
fn packet(len: u16) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(len)];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

struct End {
    device: Device,
    out: Outbox,
    at: SocketAddr,
    now: Instant,
    received: Vec<Vec<u8>>,
    refused: Vec<Refusal>,
}

impl End {
    fn new(at: &str) -> Self {
        let now = start();
        Self {
            device: Device::new(WorkerId(3), now),
            out: Outbox::new(),
            at: address(at),
            now,
            received: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn put(&mut self, tunnel: TunnelId, config: &Config) -> Slot {
        self.device
            .put(tunnel, config, MTU, self.now, &mut self.out)
            .unwrap()
    }

    fn send(&mut self, slot: Slot, packet: &[u8]) -> Result<(), Refusal> {
        let mut buffer = vec![0xff; 2048];
        buffer[..packet.len()].copy_from_slice(packet);
        let device = &mut self.device;
        device.encap(slot, &mut buffer, packet.len(), self.now, &mut self.out)
    }

    fn take(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<Decap, Refusal> {
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        let device = &mut self.device;
        let result = device.decap(from, datagram, &mut buffer, self.now, &mut self.out);
        match result {
            Ok(Decap::Inner { len, .. }) => self.received.push(buffer[..len].to_vec()),
            Ok(Decap::Control | Decap::Elsewhere { .. }) => {}
            Err(refusal) => self.refused.push(refusal),
        }
        result
    }

    /// Takes a datagram whose refusal, if any, is looked at later.
    fn hear(&mut self, from: SocketAddr, datagram: &[u8]) {
        let result = self.take(from, datagram);
        assert_ne!(result, Err(Refusal::OutboxFull));
    }

    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(transmit) = self.out.poll_transmit() {
            let Transmit::Underlay {
                way,
                segment_size,
                bytes,
            } = transmit
            else {
                panic!("a device has nothing for the overlay");
            };
            all.extend(
                bytes
                    .chunks(segment_size)
                    .map(|one| (way.remote, one.to_vec())),
            );
        }
        all
    }

    fn is_up(&self, slot: Slot) -> bool {
        self.device.status(slot, self.now).is_up
    }

    fn endpoint(&self, slot: Slot) -> Option<SocketAddr> {
        self.device.status(slot, self.now).endpoint
    }
}

/// Carries datagrams until neither has any; what is sent to somebody else is lost.
fn pump(a: &mut End, b: &mut End) {
    loop {
        let (from_a, from_b) = (a.sent(), b.sent());
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for (to, datagram) in from_a {
            if to == b.at {
                b.hear(a.at, &datagram);
            }
        }
        for (to, datagram) in from_b {
            if to == a.at {
                a.hear(b.at, &datagram);
            }
        }
    }
}

/// An edge that waits and a site that begins, before the first datagram.
fn pair() -> (End, Slot, End, Slot) {
    let mut edge = End::new("198.51.100.1:51820");
    let mut site = End::new("198.51.100.11:40000");
    let edge_slot = edge.put(TUNNEL, &config(1, 2, None));
    let site_slot = site.put(TUNNEL, &config(2, 1, Some(edge.at)));
    (edge, edge_slot, site, site_slot)
}

fn connected() -> (End, Slot, End, Slot) {
    let (mut edge, edge_slot, mut site, site_slot) = pair();
    pump(&mut edge, &mut site);
    assert!(edge.is_up(edge_slot) && site.is_up(site_slot));
    (edge, edge_slot, site, site_slot)
}

#[test]
fn a_configured_endpoint_brings_the_tunnel_up_without_traffic() {
    let (edge, slot, site, _) = connected();
    assert_eq!(edge.endpoint(slot), Some(site.at));
}

#[test]
fn packets_that_waited_for_the_session_arrive_in_order() {
    let (mut edge, _, mut site, site_slot) = pair();
    for len in 100..110 {
        site.send(site_slot, &packet(len)).unwrap();
    }
    pump(&mut edge, &mut site);
    let lens: Vec<_> = edge.received.iter().map(Vec::len).collect();
    assert_eq!(lens, (100..110).collect::<Vec<_>>());
}

#[test]
fn at_most_the_queues_length_waits_for_a_session() {
    let (_, _, mut site, slot) = pair();
    for _ in 0..QUEUE_LEN_MAX {
        site.send(slot, &packet(100)).unwrap();
    }
    assert_eq!(site.send(slot, &packet(100)), Err(Refusal::QueueFull));
}

#[test]
fn a_peer_that_was_never_heard_is_not_sent_to() {
    let (mut edge, slot, _, _) = pair();
    assert_eq!(edge.send(slot, &packet(100)), Err(Refusal::NoEndpoint));
    assert!(edge.sent().is_empty());
}

#[test]
fn packets_are_padded_to_sixteen_but_not_beyond_the_mtu() {
    // Data messages are 32 bytes longer than the padded packet.
    for (len, expected) in [(20, 64), (32, 64), (33, 80), (1409, 1452), (1420, 1452)] {
        let (mut edge, _, mut site, slot) = connected();
        site.send(slot, &packet(len)).unwrap();
        let sent = site.sent();
        assert_eq!(sent[0].1.len(), expected, "{len}");
        edge.take(site.at, &sent[0].1).unwrap();
        assert_eq!(edge.received, [packet(len)]);
    }
}

#[test]
fn a_replayed_datagram_is_dropped() {
    let (mut edge, _, mut site, slot) = connected();
    site.send(slot, &packet(100)).unwrap();
    let (_, datagram) = site.sent().remove(0);
    edge.take(site.at, &datagram).unwrap();
    assert_eq!(edge.take(site.at, &datagram), Err(Refusal::Replay));
    assert_eq!(edge.received.len(), 1);
}

#[test]
fn a_replayed_initiation_moves_nothing() {
    let (mut edge, slot, mut site, _) = pair();
    let (_, initiation) = site.sent().remove(0);
    edge.take(site.at, &initiation).unwrap();
    let attacker = address("192.0.2.66:1");
    assert_eq!(edge.take(attacker, &initiation), Err(Refusal::Replay));
    assert_eq!(edge.endpoint(slot), Some(site.at));
}

#[test]
fn the_endpoint_roams_on_authentic_data_only_and_is_reported_once() {
    let (mut edge, edge_slot, mut site, slot) = connected();
    assert_eq!(
        edge.device.poll_event(),
        Some(Event::EndpointChanged {
            tunnel: TUNNEL,
            endpoint: site.at
        })
    );
    assert_eq!(edge.device.poll_event(), None);
    let elsewhere = address("[2001:db8::7]:7");
    site.send(slot, &packet(100)).unwrap();
    let (_, mut datagram) = site.sent().remove(0);
    *datagram.last_mut().unwrap() ^= 1;
    assert_eq!(edge.take(elsewhere, &datagram), Err(Refusal::Invalid));
    assert_eq!(edge.endpoint(edge_slot), Some(site.at));
    *datagram.last_mut().unwrap() ^= 1;
    edge.take(elsewhere, &datagram).unwrap();
    assert_eq!(edge.endpoint(edge_slot), Some(elsewhere));
    let event = edge.device.poll_event();
    assert!(
        matches!(event, Some(Event::EndpointChanged { endpoint, .. }) if endpoint == elsewhere)
    );
    assert_eq!(edge.device.poll_event(), None);
}

#[test]
fn one_flooding_source_is_limited_before_crypto_and_others_are_not() {
    let (mut edge, slot, mut site, _) = pair();
    let forged = [&[1u8, 0, 0, 0][..], &[7; 144]].concat();
    let flooder = address("192.0.2.66:1");
    for _ in 0..10_000 {
        assert!(edge.take(flooder, &forged).is_err());
    }
    let limited = edge.refused.iter();
    let limited = limited.filter(|one| **one == Refusal::HandshakeLimited);
    assert_eq!(limited.count(), 10_000 - 64);
    pump(&mut edge, &mut site);
    assert!(edge.is_up(slot));
}

#[test]
fn under_load_a_cookie_is_asked_for_and_its_reply_moves_nobody() {
    let (mut edge, edge_slot, mut site, site_slot) = pair();
    let (_, initiation) = site.sent().remove(0);
    // As a flood from many addresses: the gate counts what has a right mac1.
    let mut cookies = Vec::new();
    for n in 0..1000u16 {
        let [high, low] = n.to_be_bytes();
        let from = SocketAddr::from(([10, 9, high, low], 1));
        if edge.take(from, &initiation) == Err(Refusal::CookieSent) {
            cookies = edge.sent();
            break;
        }
    }
    let (_, cookie) = cookies.pop().expect("the gate closed");
    assert_eq!(cookie[0], 3);
    let liar = address("192.0.2.66:1");
    assert_eq!(site.take(liar, &cookie), Ok(Decap::Control));
    assert_eq!(site.endpoint(site_slot), Some(edge.at));
    assert_eq!(site.device.poll_event(), None);
    assert!(!edge.is_up(edge_slot));
}

#[test]
fn short_long_and_foreign_datagrams_are_told_apart() {
    let (mut edge, _, mut site, slot) = connected();
    let from = site.at;
    assert_eq!(edge.take(from, &[]), Err(Refusal::Malformed));
    assert_eq!(edge.take(from, &[4, 0, 0, 0, 1]), Err(Refusal::Malformed));
    let long = vec![4; DATAGRAM_LEN_MAX + 1];
    assert_eq!(edge.take(from, &long), Err(Refusal::Oversized));
    site.send(slot, &packet(100)).unwrap();
    let (_, mut datagram) = site.sent().remove(0);
    datagram[7] ^= 0xff;
    assert_eq!(edge.take(from, &datagram), Err(Refusal::IndexUnknown));
    datagram[7] ^= 0xff;
    datagram[5] ^= 0xff;
    assert_eq!(edge.take(from, &datagram), Err(Refusal::IndexUnknown));
}

#[test]
fn what_authenticates_but_is_not_ip_is_counted_as_such() {
    let (mut edge, _, mut site, slot) = connected();
    site.send(slot, b"hello, this is no IP packet").unwrap();
    let (_, datagram) = site.sent().remove(0);
    assert_eq!(edge.take(site.at, &datagram), Err(Refusal::NotIp));
}

#[test]
fn a_handshake_finds_its_identity_and_its_peer() {
    let mut edge = End::new("198.51.100.1:51820");
    let one = edge.put(TunnelId(1), &config(1, 2, None));
    let two = edge.put(TunnelId(2), &config(3, 2, None));
    let mut site = End::new("198.51.100.11:40000");
    site.put(TUNNEL, &config(2, 3, Some(edge.at)));
    pump(&mut edge, &mut site);
    assert!(!edge.is_up(one) && edge.is_up(two));

    let mut stranger = End::new("198.51.100.12:40000");
    stranger.put(TunnelId(1), &config(9, 1, Some(edge.at)));
    stranger.put(TunnelId(2), &config(9, 8, Some(edge.at)));
    edge.refused.clear();
    pump(&mut edge, &mut stranger);
    assert_eq!(
        edge.refused,
        [Refusal::UnknownPeer, Refusal::UnknownIdentity]
    );
}

#[test]
fn the_last_byte_of_the_receiver_index_names_the_worker() {
    let (mut edge, _, mut site, slot) = connected();
    site.send(slot, &packet(100)).unwrap();
    assert_eq!(site.sent()[0].1[7], 3);
    assert!(edge.sent().is_empty());
}

#[test]
fn a_new_mtu_keeps_the_session_and_a_new_preshared_key_does_not() {
    let (mut edge, slot, mut site, site_slot) = connected();
    let mut config = config(1, 2, None);
    let (now, out) = (edge.now, &mut edge.out);
    edge.device.put(TUNNEL, &config, 1280, now, out).unwrap();
    assert!(edge.is_up(slot));
    config.preshared_key = Some(PresharedKey([5; 32]));
    let slot = edge.put(TUNNEL, &config);
    assert!(!edge.is_up(slot));
    assert_eq!(edge.endpoint(slot), Some(site.at));
    pump(&mut edge, &mut site);
    assert!(!edge.is_up(slot), "only one side has the key");

    let mut config = self::config(2, 1, Some(edge.at));
    config.preshared_key = Some(PresharedKey([5; 32]));
    let again = site.put(TUNNEL, &config);
    assert_eq!(again, site_slot);
    pump(&mut edge, &mut site);
    assert!(edge.is_up(slot) && site.is_up(again));
}

#[test]
fn a_new_endpoint_is_used_at_once_and_keeps_the_session() {
    let (edge, _, mut site, slot) = connected();
    let moved = address("198.51.100.2:51820");
    site.put(TUNNEL, &config(2, 1, Some(moved)));
    assert!(site.is_up(slot));
    site.send(slot, &packet(100)).unwrap();
    let sent = site.sent();
    assert!(!sent.is_empty() && sent.iter().all(|(to, _)| *to == moved));
    assert_ne!(edge.at, moved);
}

#[test]
fn a_tunnel_is_back_after_a_restart_of_the_edge_from_the_hint_alone() {
    let (edge, _, mut site, site_slot) = connected();
    let mut edge = End {
        device: Device::new(WorkerId(3), edge.now),
        out: Outbox::new(),
        ..edge
    };
    let slot = edge.put(TUNNEL, &config(1, 2, None));
    assert!(edge.sent().is_empty());
    let (now, out) = (edge.now, &mut edge.out);
    edge.device.hint_endpoint(slot, site.at, now, out);
    pump(&mut edge, &mut site);
    assert!(edge.is_up(slot));
    site.send(site_slot, &packet(100)).unwrap();
    edge.send(slot, &packet(200)).unwrap();
    pump(&mut edge, &mut site);
    assert_eq!((edge.received.len(), site.received.len()), (1, 1));
}

#[test]
fn a_hint_changes_nothing_where_the_endpoint_is_known() {
    let (mut edge, slot, mut site, site_slot) = connected();
    let wrong = address("192.0.2.66:1");
    let (edge_now, edge_out) = (edge.now, &mut edge.out);
    edge.device.hint_endpoint(slot, wrong, edge_now, edge_out);
    let (now, out) = (site.now, &mut site.out);
    site.device.hint_endpoint(site_slot, wrong, now, out);
    assert_eq!(edge.endpoint(slot), Some(site.at));
    assert_eq!(site.endpoint(site_slot), Some(edge.at));
    assert!(edge.sent().is_empty() && site.sent().is_empty());
}

#[test]
fn keys_that_cannot_work_are_refused_and_change_nothing() {
    let (mut edge, slot, _, _) = connected();
    let (now, out) = (edge.now, &mut edge.out);
    let mut put = |tunnel, config: &Config| edge.device.put(tunnel, config, MTU, now, out);
    let same = put(TunnelId(2), &config(1, 2, None));
    assert_eq!(same, Err(PutError::PeerTaken(TUNNEL)));
    assert_eq!(put(TUNNEL, &config(1, 1, None)), Err(PutError::PeerKey));
    let mut zero = config(1, 2, None);
    zero.peer = PublicKey([0; 32]);
    assert_eq!(put(TUNNEL, &zero), Err(PutError::PeerKey));
    assert!(edge.is_up(slot));
}

#[test]
fn a_deleted_peer_takes_its_identity_along_and_is_deaf() {
    let (mut edge, slot, mut site, site_slot) = connected();
    edge.device.delete(slot);
    site.send(site_slot, &packet(100)).unwrap();
    pump(&mut edge, &mut site);
    assert_eq!(edge.refused, [Refusal::IndexUnknown]);
    assert!(edge.received.is_empty());
    assert_eq!(edge.device.poll_timeout(), None);
    assert_eq!(edge.device.poll_event(), None);
    site.put(TunnelId(2), &config(8, 1, Some(edge.at)));
    pump(&mut edge, &mut site);
    assert_eq!(edge.refused.last(), Some(&Refusal::UnknownIdentity));
}

#[test]
fn timers_are_looked_at_four_times_a_second_and_only_with_peers() {
    let mut edge = End::new("198.51.100.1:51820");
    assert_eq!(edge.device.poll_timeout(), None);
    edge.put(TUNNEL, &config(1, 2, None));
    let due = edge.device.poll_timeout().unwrap();
    edge.device
        .handle_timeout(due, &mut edge.out, &mut |_, _| {});
    let next = edge.device.poll_timeout().unwrap();
    assert_eq!(next - due, Duration::from_millis(250));
}
