//! What RFC 2784, RFC 2890 and Cisco's keepalives ask of a tunnel.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use etherparse::{IpNumber, Ipv4Header, Ipv4HeaderSlice, PacketBuilder};

use super::*;
use crate::id::TunnelId;
use crate::packet::{Outbox, Transmit};
use crate::tunnel::{DATAGRAM_LEN_MAX, Decap, Refusal};
use crate::wire::icmp::TooBig;

const US: [u8; 4] = [198, 51, 100, 1];
const THEM: [u8; 4] = [198, 51, 100, 11];
const ONE: TunnelId = TunnelId(1);
const TWO: TunnelId = TunnelId(2);

fn plain() -> Config {
    Config {
        local: US.into(),
        remote: THEM.into(),
        key_tx: None,
        key_rx: None,
        is_checksummed: false,
        is_sequenced: false,
        keepalive: None,
        ttl: TTL_DEFAULT,
    }
}

fn with_key(key: u32) -> Config {
    Config {
        key_tx: Some(key),
        key_rx: Some(key),
        ..plain()
    }
}

/// The same tunnel as its other end has it.
fn mirrored(config: &Config) -> Config {
    Config {
        local: config.remote,
        remote: config.local,
        key_tx: config.key_rx,
        key_rx: config.key_tx,
        ..config.clone()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some time to begin at"
)]
fn start() -> Instant {
    Instant::now()
}

fn echo(len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 50], 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut packet, &vec![9; len])
        .unwrap();
    packet
}

/// One end of a tunnel.
struct End {
    device: Device,
    out: Outbox,
    now: Instant,
}

impl End {
    fn new(now: Instant) -> Self {
        Self {
            device: Device::default(),
            out: Outbox::new(),
            now,
        }
    }

    fn of(config: &Config, now: Instant) -> (Self, Slot) {
        let mut end = Self::new(now);
        let slot = end.device.put(ONE, config, now).unwrap();
        (end, slot)
    }

    fn decap(&mut self, packet: &[u8]) -> Result<Result<(TunnelId, Vec<u8>), Decap>, Refusal> {
        self.decap_between((US, THEM), packet)
    }

    fn decap_between(
        &mut self,
        (local, remote): (impl Into<IpAddr>, impl Into<IpAddr>),
        packet: &[u8],
    ) -> Result<Result<(TunnelId, Vec<u8>), Decap>, Refusal> {
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        let addresses = (local.into(), remote.into());
        let (now, out) = (self.now, &mut self.out);
        let decap = self
            .device
            .decap(addresses, packet, &mut buffer, now, out)?;
        Ok(match decap {
            Decap::Inner { tunnel, len } => Ok((tunnel, buffer[..len].to_vec())),
            Decap::Control | Decap::Elsewhere { .. } => Err(decap),
        })
    }

    fn encap(&mut self, slot: Slot, packet: &[u8]) -> Vec<u8> {
        self.device.encap(slot, packet, &mut self.out).unwrap();
        let sent = self.sent();
        assert_eq!(sent.len(), 1);
        sent.into_iter().next().unwrap()
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(transmit) = self.out.poll_transmit() {
            match transmit {
                Transmit::Underlay {
                    segment_size,
                    bytes,
                    ..
                } => all.extend(bytes.chunks(segment_size).map(<[u8]>::to_vec)),
                Transmit::Device { .. } => panic!("nothing is for a device"),
            }
        }
        all
    }

    /// Lets time pass, and does what is due.
    fn wait(&mut self, time: Duration) -> Vec<Vec<u8>> {
        self.now += time;
        self.device.handle_timeout(self.now, &mut self.out);
        self.sent()
    }
}

#[test]
fn a_packet_goes_out_as_rfc_2784_and_2890_draw_it() {
    let packet = echo(20);
    let (mut us, slot) = End::of(&plain(), start());
    assert_eq!(
        us.encap(slot, &packet),
        [&[0, 0, 0x08, 0x00][..], &packet].concat()
    );
    let config = Config {
        is_sequenced: true,
        ..with_key(0x0102_0304)
    };
    let (mut us, slot) = End::of(&config, start());
    for number in 0..3 {
        let head = [0x30, 0, 0x08, 0x00, 1, 2, 3, 4, 0, 0, 0, number];
        assert_eq!(us.encap(slot, &packet), [&head[..], &packet].concat());
    }
    let mut v6 = Vec::new();
    PacketBuilder::ipv6([0xfd; 16], [0xfc; 16], 64)
        .udp(1, 2)
        .write(&mut v6, &[1])
        .unwrap();
    assert_eq!(us.encap(slot, &v6)[..4], [0x30, 0, 0x86, 0xdd]);
}

#[test]
fn what_one_end_sends_the_other_takes_with_every_option() {
    for options in 0..8 {
        let config = Config {
            key_tx: (options & 1 != 0).then_some(3),
            key_rx: (options & 1 != 0).then_some(4),
            is_checksummed: options & 2 != 0,
            is_sequenced: options & 4 != 0,
            ..plain()
        };
        let (mut us, slot) = End::of(&config, start());
        let (mut them, _) = End::of(&mirrored(&config), start());
        for len in 0..40 {
            let packet = echo(len);
            let datagram = us.encap(slot, &packet);
            let got = them.decap_between((THEM, US), &datagram);
            assert_eq!(got, Ok(Ok((ONE, packet))));
        }
    }
}

#[test]
fn the_key_and_both_addresses_name_the_tunnel() {
    let mut us = End::new(start());
    us.device.put(ONE, &with_key(1), us.now).unwrap();
    us.device.put(TWO, &with_key(2), us.now).unwrap();
    let keyed = |key: u8| [&[0x20, 0, 0x08, 0x00, 0, 0, 0, key][..], &echo(1)].concat();
    assert_eq!(us.decap(&keyed(1)), Ok(Ok((ONE, echo(1)))));
    assert_eq!(us.decap(&keyed(2)), Ok(Ok((TWO, echo(1)))));
    assert_eq!(us.decap(&keyed(3)), Err(Refusal::NameUnknown));
    let keyless = [&[0, 0, 0x08, 0x00][..], &echo(1)].concat();
    assert_eq!(us.decap(&keyless), Err(Refusal::NameUnknown));
    let strangers = [
        (US, [198, 51, 100, 12]),
        ([198, 51, 100, 2], THEM),
        (THEM, US),
    ];
    for stranger in strangers {
        let got = us.decap_between(stranger, &keyed(1));
        assert_eq!(got, Err(Refusal::NameUnknown));
    }
}

#[test]
fn a_packet_with_a_key_is_not_for_a_tunnel_without_one() {
    let (mut us, _) = End::of(&plain(), start());
    let keyed = [&[0x20, 0, 0x08, 0x00, 0, 0, 0, 0][..], &echo(1)].concat();
    assert_eq!(us.decap(&keyed), Err(Refusal::NameUnknown));
}

#[test]
fn a_name_belongs_to_one_tunnel_of_one_worker() {
    let mut us = End::new(start());
    let now = us.now;
    us.device.put(ONE, &with_key(1), now).unwrap();
    let taken = us.device.put(TWO, &with_key(1), now);
    assert_eq!(taken, Err(PutError::NameTaken(ONE)));
    let taken = us.device.put_elsewhere(TWO, &with_key(1));
    assert_eq!(taken, Err(PutError::NameTaken(ONE)));
    us.device.put_elsewhere(TWO, &with_key(2)).unwrap();
    let keyed = [&[0x20, 0, 0x08, 0x00, 0, 0, 0, 2][..], &echo(1)].concat();
    assert_eq!(us.decap(&keyed), Ok(Err(Decap::Elsewhere { tunnel: TWO })));
    us.device.delete_elsewhere(TWO);
    assert_eq!(us.decap(&keyed), Err(Refusal::NameUnknown));
}

#[test]
fn a_deleted_or_renamed_tunnel_takes_nothing() {
    let (mut us, slot) = End::of(&with_key(1), start());
    let keyed = |key: u8| [&[0x20, 0, 0x08, 0x00, 0, 0, 0, key][..], &echo(1)].concat();
    assert!(us.decap(&keyed(1)).is_ok());
    assert_eq!(us.device.put(ONE, &with_key(2), us.now), Ok(slot));
    assert_eq!(us.decap(&keyed(1)), Err(Refusal::NameUnknown));
    assert!(us.decap(&keyed(2)).is_ok());
    us.device.delete(slot);
    assert_eq!(us.decap(&keyed(2)), Err(Refusal::NameUnknown));
    let refused = us.device.encap(slot, &echo(1), &mut us.out);
    assert_eq!(refused, Err(Refusal::UnknownPeer));
}

#[test]
fn what_cannot_be_a_tunnel_is_refused_with_its_field() {
    let wrong = [
        (
            Config {
                remote: "2001:db8::1".parse().unwrap(),
                ..plain()
            },
            "both",
        ),
        (
            Config {
                remote: US.into(),
                ..plain()
            },
            "remote",
        ),
        (
            Config {
                remote: [224, 0, 0, 5].into(),
                ..plain()
            },
            "remote",
        ),
        (Config { ttl: 0, ..plain() }, "ttl"),
        (
            Config {
                keepalive: Some(Keepalive {
                    interval_secs: 0,
                    retries: 3,
                }),
                ..plain()
            },
            "interval_secs",
        ),
    ];
    for (config, field) in wrong {
        let mut us = End::new(start());
        let error = us.device.put(ONE, &config, us.now).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
        assert!(us.device.put_elsewhere(ONE, &config).is_err());
    }
}

#[test]
fn a_sequenced_tunnel_drops_what_comes_twice_or_late_and_takes_a_gap() {
    let config = Config {
        is_sequenced: true,
        ..plain()
    };
    let (mut us, _) = End::of(&config, start());
    let numbered = |number: u32| {
        let head = [&[0x10, 0, 0x08, 0x00][..], &number.to_be_bytes()].concat();
        [&head[..], &echo(1)].concat()
    };
    for number in [0, 1, 2, 5, 6] {
        assert!(us.decap(&numbered(number)).is_ok(), "{number}");
        assert_eq!(us.decap(&numbered(number)), Err(Refusal::Replay));
    }
    for late in [0, 3, 4, u32::MAX, 6_u32.wrapping_sub((1 << 31) - 1)] {
        assert_eq!(us.decap(&numbered(late)), Err(Refusal::Replay), "{late}");
    }
    // One without a number is in sequence.
    let bare = [&[0, 0, 0x08, 0x00][..], &echo(1)].concat();
    assert!(us.decap(&bare).is_ok());
    // 2^31 before the last is no longer before it.
    let far = 6_u32.wrapping_sub(1 << 31);
    assert!(us.decap(&numbered(far)).is_ok());
}

#[test]
fn numbers_wrap_around() {
    let config = Config {
        is_sequenced: true,
        ..plain()
    };
    let (mut us, _) = End::of(&config, start());
    // The first may have any number: the peer may have been there for long.
    for number in [
        0x8000_0001_u32,
        0xffff_fffd,
        0xffff_ffff,
        0,
        1,
        0x7fff_ffff,
        0x8000_0001,
    ] {
        let head = [&[0x10, 0, 0x08, 0x00][..], &number.to_be_bytes()].concat();
        let packet = [&head[..], &echo(1)].concat();
        assert!(us.decap(&packet).is_ok(), "{number}");
    }
}

#[test]
fn a_peer_that_counts_anew_is_believed_after_a_pause() {
    let config = Config {
        is_sequenced: true,
        ..plain()
    };
    let (mut us, _) = End::of(&config, start());
    let numbered = |number: u32| {
        let head = [&[0x10, 0, 0x08, 0x00][..], &number.to_be_bytes()].concat();
        [&head[..], &echo(1)].concat()
    };
    assert!(us.decap(&numbered(1000)).is_ok());
    us.now += Duration::from_millis(2_900);
    assert_eq!(us.decap(&numbered(0)), Err(Refusal::Replay));
    us.now += Duration::from_millis(200);
    assert!(us.decap(&numbered(1)).is_ok());
    assert_eq!(us.decap(&numbered(1)), Err(Refusal::Replay));
    assert!(us.decap(&numbered(2)).is_ok());
}

#[test]
fn a_checksum_that_is_wrong_or_missing_where_it_must_be_is_dropped() {
    let config = Config {
        is_checksummed: true,
        ..plain()
    };
    let (mut them, slot) = End::of(&mirrored(&config), start());
    let good = them.encap(slot, &echo(30));
    let bare = [&[0, 0, 0x08, 0x00][..], &echo(30)].concat();
    let (mut us, _) = End::of(&config, start());
    assert!(us.decap(&good).is_ok());
    assert_eq!(us.decap(&bare), Err(Refusal::Checksum));
    let mut bad = good.clone();
    bad[40] ^= 1;
    assert_eq!(us.decap(&bad), Err(Refusal::Checksum));
    let (mut careless, _) = End::of(&plain(), start());
    assert!(careless.decap(&good).is_ok());
    assert_eq!(careless.decap(&bad), Err(Refusal::Checksum));
}

#[test]
fn what_is_not_the_ip_packet_that_the_header_names_is_dropped() {
    let (mut us, _) = End::of(&plain(), start());
    let inside = |protocol: [u8; 2], payload: &[u8]| {
        [&[0, 0, protocol[0], protocol[1]][..], payload].concat()
    };
    let packet = echo(30);
    // Ethernet, MPLS, Cisco's WCCP; IPv4 that says it is IPv6; a cut packet; nothing.
    for protocol in [[0x65, 0x58], [0x88, 0x47], [0x88, 0x3e], [0x86, 0xdd]] {
        assert_eq!(us.decap(&inside(protocol, &packet)), Err(Refusal::NotIp));
    }
    for payload in [&packet[..packet.len() - 1], &packet[..3], &[]] {
        assert_eq!(us.decap(&inside([8, 0], payload)), Err(Refusal::NotIp));
    }
    assert_eq!(us.decap(&[0, 1, 8, 0]), Err(Refusal::Malformed));
    assert_eq!(us.decap(&[0x40, 0, 8, 0]), Err(Refusal::Malformed));
    assert_eq!(us.decap(&[0, 0, 8]), Err(Refusal::Malformed));
    let long = inside([8, 0], &vec![0x45; DATAGRAM_LEN_MAX]);
    assert_eq!(us.decap(&long), Err(Refusal::Oversized));
}

fn kept_alive() -> Config {
    Config {
        keepalive: Some(Keepalive {
            interval_secs: 2,
            retries: 3,
        }),
        ..plain()
    }
}

#[test]
fn a_keepalive_is_a_packet_that_the_peer_need_only_route() {
    let config = Config {
        key_tx: Some(5),
        key_rx: Some(6),
        ..kept_alive()
    };
    let (mut us, _) = End::of(&config, start());
    let sent = us.wait(Duration::ZERO);
    assert_eq!(sent.len(), 1);
    // Cisco document 118361, "How GRE keepalives work": the inner header is from the peer to us, its
    // protocol is GRE, and the GRE header inside names protocol 0.
    assert_eq!(sent[0][..8], [0x20, 0, 0x08, 0x00, 0, 0, 0, 5]);
    let inner = Ipv4HeaderSlice::from_slice(&sent[0][8..]).unwrap();
    assert_eq!((inner.source(), inner.destination()), (THEM, US));
    assert_eq!(inner.protocol(), IpNumber::GRE);
    assert_eq!(
        inner.header_checksum(),
        inner.to_header().calc_header_checksum()
    );
    assert_eq!(usize::from(inner.total_len()), sent[0].len() - 8);
    assert_eq!(sent[0][28..], [0x20, 0, 0, 0, 0, 0, 0, 6]);
}

#[test]
fn a_tunnel_is_up_while_its_keepalives_come_back() {
    let (mut us, slot) = End::of(&kept_alive(), start());
    let second = Duration::from_secs(1);
    let is_up = |us: &End| us.device.status(slot).is_up;
    assert!(!is_up(&us), "before the first answer");
    let mut first = us.wait(Duration::ZERO).pop().unwrap();
    let answer = first.split_off(24);
    assert_eq!(us.decap(&answer), Ok(Err(Decap::Control)));
    assert!(is_up(&us));
    for unanswered in 1..=3 {
        assert_eq!(us.wait(second).len(), 0);
        assert_eq!(us.wait(second).len(), 1, "one each two seconds");
        assert!(is_up(&us), "{unanswered} unanswered");
    }
    assert_eq!(us.wait(second * 2).len(), 1);
    assert!(!is_up(&us), "three went unanswered for an interval");
    assert_eq!(us.decap(&answer), Ok(Err(Decap::Control)));
    assert!(is_up(&us));
    assert_eq!(us.device.poll_timeout(), Some(us.now + second * 2));
}

#[test]
fn the_keepalive_of_the_peer_is_sent_back_as_it_made_it_ready() {
    for config in [plain(), with_key(4)] {
        let (mut us, _) = End::of(&config, start());
        let theirs = Config {
            keepalive: kept_alive().keepalive,
            ..mirrored(&config)
        };
        let (mut them, slot) = End::of(&theirs, start());
        let asked = them.wait(Duration::ZERO).pop().unwrap();
        assert_eq!(us.decap(&asked), Ok(Err(Decap::Control)));
        let answers = us.sent();
        assert_eq!(answers.len(), 1);
        assert!(asked.ends_with(&answers[0]));
        let heard = them.decap_between((THEM, US), &answers[0]);
        assert_eq!(heard, Ok(Err(Decap::Control)));
        assert!(them.device.status(slot).is_up);
    }
}

#[test]
fn over_ipv6_keepalives_are_the_same() {
    let config = Config {
        local: "2001:db8::1".parse().unwrap(),
        remote: "2001:db8::2".parse().unwrap(),
        ..kept_alive()
    };
    let (mut us, slot) = End::of(&config, start());
    let theirs = Config {
        keepalive: None,
        ..mirrored(&config)
    };
    let (mut them, _) = End::of(&theirs, start());
    let asked = us.wait(Duration::ZERO).pop().unwrap();
    let there = (config.remote, config.local);
    assert_eq!(them.decap_between(there, &asked), Ok(Err(Decap::Control)));
    let answer = them.sent().pop().unwrap();
    let back = (config.local, config.remote);
    assert_eq!(us.decap_between(back, &answer), Ok(Err(Decap::Control)));
    assert!(us.device.status(slot).is_up);
}

#[test]
fn nothing_but_a_keepalive_of_the_tunnels_own_addresses_leaves_it_for_the_underlay() {
    let (mut us, _) = End::of(&plain(), start());
    let ready_made = |src: [u8; 4], dst: [u8; 4], payload: &[u8]| {
        let len = u16::try_from(payload.len()).unwrap();
        let mut header = Ipv4Header::new(len, 255, IpNumber::GRE, src, dst).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let head = [0, 0, 0x08, 0x00];
        [&head[..], &header.to_bytes()[..], payload].concat()
    };
    let answer = [0; 4];
    assert_eq!(
        us.decap(&ready_made(US, THEM, &answer)),
        Ok(Err(Decap::Control))
    );
    assert_eq!(us.sent(), [answer.to_vec()]);
    // To somebody else, from somebody else, with something inside, or no keepalive at all: inner packets
    // like any other, which the vnet's routes decide about.
    let others = [
        ready_made(US, [198, 51, 100, 12], &answer),
        ready_made([198, 51, 100, 2], THEM, &answer),
        ready_made(THEM, US, &answer),
        ready_made(US, THEM, &[0, 0, 0, 0, 1]),
        ready_made(US, THEM, &[0, 0, 8, 0]),
    ];
    for packet in others {
        assert_eq!(us.decap(&packet), Ok(Ok((ONE, packet[4..].to_vec()))));
        assert_eq!(us.sent(), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn a_change_of_no_consequence_keeps_the_numbers_and_the_state() {
    let config = Config {
        is_sequenced: true,
        ..kept_alive()
    };
    let (mut us, slot) = End::of(&config, start());
    let mut first = us.wait(Duration::ZERO).pop().unwrap();
    let answer = first.split_off(8 + 20);
    assert!(us.decap(&answer).is_ok());
    let changed = Config { ttl: 3, ..config };
    assert_eq!(us.device.put(ONE, &changed, us.now), Ok(slot));
    assert!(us.device.status(slot).is_up);
    assert_eq!(us.encap(slot, &echo(1))[4..8], [0, 0, 0, 1]);
}

#[test]
fn sixty_four_keepalives_go_out_at_once_and_the_others_next() {
    let mut us = End::new(start());
    for n in 1..=100 {
        let config = Config {
            key_rx: Some(n),
            ..kept_alive()
        };
        us.device.put(TunnelId(n), &config, us.now).unwrap();
    }
    let sent: Vec<usize> = (0..3).map(|_| us.wait(Duration::ZERO).len()).collect();
    assert_eq!(sent, [64, 36, 0]);
}

#[test]
fn a_report_counts_that_quotes_what_was_sent_and_what_fits_is_less_the_header() {
    let config = Config {
        is_sequenced: true,
        ..with_key(7)
    };
    let (mut us, slot) = End::of(&config, start());
    let sent = us.encap(slot, &echo(1200));
    let report = |payload| TooBig {
        local: US.into(),
        remote: THEM.into(),
        protocol: 47,
        len: 20 + sent.len(),
        mtu: 1000,
        payload,
    };
    // As little as a router has to quote of the inner packet.
    let quoted = &sent[..12 + 28];
    assert_eq!(us.device.fits(&report(quoted), 980), Some((ONE, 968)));
    assert_eq!(us.device.fits(&report(&quoted[..39]), 980), None);
    let elsewhere = TooBig {
        remote: [198, 51, 100, 12].into(),
        ..report(quoted)
    };
    assert_eq!(us.device.fits(&elsewhere, 980), None);
    let mut other = quoted.to_vec();
    other[12 + 4] ^= 1;
    assert_eq!(us.device.fits(&report(&other), 980), None);
}
