//! Two devices that talk by their outboxes: roles, carriers, families, failures, rekeys, owners.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::id::{TunnelId, VnetId, WorkerId};
use crate::packet::{Carrier, Outbox, Transmit, Way};
use crate::tunnel::ipsec::ike::{EspOffer, Identity, IkeOffer, Psk, Times, everything};
use crate::tunnel::ipsec::{
    Config, Device, Encapsulation, IkeKeying, Keying, PutError, Slot, StaticKeying, Status,
};
use crate::tunnel::{DATAGRAM_LEN_MAX, Decap, Refusal};

use super::{TRANSFORMS, ipv4, start};
use crate::tunnel::ipsec::cipher::Transform;

pub(super) const TUNNEL: TunnelId = TunnelId(5);
pub(super) const VNET: VnetId = VnetId(1);

pub(super) fn address(at: usize, is_v6: bool) -> IpAddr {
    let host = ["1", "2"][at];
    let prefix = if is_v6 { "2001:db8::" } else { "192.0.2." };
    format!("{prefix}{host}").parse().unwrap()
}

pub(super) fn ike(at: usize) -> IkeKeying {
    let identity = |at| Identity::Fqdn(format!("peer-{at}.example"));
    IkeKeying {
        psk: Psk(b"a key of both".to_vec()),
        local_identity: identity(at),
        remote_identities: vec![Identity::KeyId(b"other".to_vec()), identity(1 - at)],
        is_initiator: at == 0,
        ike: IkeOffer::default(),
        esp: EspOffer::default(),
        local_traffic: everything(),
        remote_traffic: everything(),
        further: Vec::new(),
        times: Times::default(),
    }
}

pub(super) fn config(at: usize, is_v6: bool, keying: IkeKeying) -> Config {
    Config {
        local: address(at, is_v6),
        remote: Some(address(1 - at, is_v6)),
        keying: Keying::Ike(Box::new(keying)),
        encapsulation: Encapsulation::Auto,
        has_replay_protection: true,
    }
}

pub(super) struct Side {
    pub(super) device: Device,
    pub(super) out: Outbox,
    pub(super) slot: Slot,
    at: IpAddr,
    got: Vec<Vec<u8>>,
    pub(super) refused: Vec<Refusal>,
    carriers: Vec<Carrier>,
}

pub(super) struct World {
    pub(super) sides: [Side; 2],
    pub(super) now: Instant,
}

impl World {
    pub(super) fn new(configs: [Config; 2]) -> Self {
        let now = start();
        let mut worker = 0;
        // The responder first: it is there when the first request comes.
        let [near, far] = configs;
        let far = side(&far, &mut worker, now);
        let near = side(&near, &mut worker, now);
        let mut world = Self {
            sides: [near, far],
            now,
        };
        world.pump();
        world
    }

    pub(super) fn pump(&mut self) {
        for _ in 0..100 {
            let mut is_quiet = true;
            for from in 0..2 {
                for (way, mut datagram) in sent(&mut self.sides[from]) {
                    is_quiet = false;
                    self.sides[from].carriers.push(way.carrier);
                    let from_at = self.sides[from].at;
                    let to = &mut self.sides[1 - from];
                    assert_eq!((way.local, way.remote.ip()), (Some(from_at), to.at));
                    let port = match way.carrier {
                        Carrier::Ike => 500,
                        Carrier::NatT => 4500,
                        Carrier::Esp
                        | Carrier::WireGuard
                        | Carrier::Gre
                        | Carrier::Echo
                        | Carrier::Relay => 0,
                    };
                    assert_eq!(way.remote.port(), port);
                    let way = Way::udp(way.carrier, to.at, SocketAddr::new(from_at, port));
                    take(to, way, &mut datagram, self.now);
                }
            }
            if is_quiet {
                return;
            }
        }
        panic!("they never stop talking");
    }

    fn send(&mut self, from: usize, packet: &[u8]) -> Result<(), Refusal> {
        let side = &mut self.sides[from];
        side.device
            .encap(side.slot, packet, self.now, &mut side.out)
    }

    /// Whether a packet goes each way.
    pub(super) fn is_carrying(&mut self) -> bool {
        (0..2).all(|from| {
            let packet = ipv4(40 + from);
            let is_sent = self.send(from, &packet) == Ok(());
            self.pump();
            is_sent && self.sides[1 - from].got.pop() == Some(packet)
        })
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let due = self
                .sides
                .iter()
                .filter_map(|side| side.device.poll_timeout());
            self.now = due.min().unwrap_or(until).clamp(self.now, until);
            for side in &mut self.sides {
                side.device.handle_timeout(self.now, &mut side.out);
            }
            self.pump();
        }
    }

    pub(super) fn status(&self, at: usize) -> Status {
        self.sides[at]
            .device
            .status(self.sides[at].slot, self.now)
            .1
    }
}

pub(super) fn side(config: &Config, worker: &mut u8, now: Instant) -> Side {
    *worker += 1;
    let fill = |bytes: &mut [u8]| {
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), bytes).unwrap();
    };
    let mut device = Device::new(WorkerId(*worker), Box::new(fill), now);
    let mut out = Outbox::new();
    let slot = device.put((TUNNEL, VNET), config, now, &mut out).unwrap();
    Side {
        device,
        out,
        slot,
        at: config.local,
        got: Vec::new(),
        refused: Vec::new(),
        carriers: Vec::new(),
    }
}

pub(super) fn sent(side: &mut Side) -> Vec<(Way, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(transmit) = side.out.poll_transmit() {
        let Transmit::Underlay {
            way,
            segment_size,
            bytes,
        } = transmit
        else {
            panic!("a device has nothing for the overlay");
        };
        all.extend(bytes.chunks(segment_size).map(|one| (way, one.to_vec())));
    }
    all
}

fn take(side: &mut Side, way: Way, datagram: &mut [u8], now: Instant) {
    let mut buffer = vec![0; DATAGRAM_LEN_MAX];
    let Side { device, out, .. } = side;
    match device.decap(way, datagram, &mut buffer, now, out) {
        Ok(Decap::Inner { tunnel, len }) => {
            assert_eq!(tunnel, TUNNEL);
            side.got.push(buffer[..len].to_vec());
        }
        Ok(Decap::Control | Decap::Elsewhere { .. }) => {}
        Err(refusal) => side.refused.push(refusal),
    }
}

pub(super) fn pair(change: impl Fn(usize, &mut IkeKeying)) -> World {
    let keyed = |at| {
        let mut keying = ike(at);
        change(at, &mut keying);
        config(at, false, keying)
    };
    World::new([keyed(0), keyed(1)])
}

#[test]
fn packets_cross_over_both_families_by_raw_ip_and_in_udp() {
    for is_v6 in [false, true] {
        for encapsulation in [Encapsulation::Auto, Encapsulation::Udp] {
            let with = |at| Config {
                encapsulation,
                ..config(at, is_v6, ike(at))
            };
            let mut world = World::new([with(0), with(1)]);
            assert!(world.is_carrying(), "{is_v6} {encapsulation:?}");
            let wanted = match encapsulation {
                Encapsulation::Udp => Carrier::NatT,
                Encapsulation::Auto | Encapsulation::Raw => Carrier::Esp,
            };
            for side in &world.sides {
                assert_eq!(side.carriers.last(), Some(&wanted));
                assert_eq!(side.refused, []);
                assert!(side.device.status(side.slot, world.now).0.is_up);
            }
            assert_eq!(
                world.sides[0].carriers[0],
                Carrier::Ike,
                "it begins on port 500"
            );
        }
    }
}

#[test]
fn a_wrong_key_is_said_plainly_on_both_sides() {
    let mut world = pair(|at, keying| {
        if at == 0 {
            keying.psk = Psk(b"another".to_vec());
        }
    });
    assert_eq!(world.send(0, &ipv4(9)), Err(Refusal::NoSa));
    let says = |world: &World, at| world.status(at).failure.unwrap();
    assert_eq!(
        says(&world, 1),
        "peer-0.example has another pre-shared key than is configured here"
    );
    assert!(says(&world, 0).contains("its pre-shared key or the identities differ"));
}

#[test]
fn who_has_no_proposal_in_common_hears_what_each_side_offered() {
    let world = pair(|at, keying| {
        keying.ike.ciphers = vec![[Transform::Aes256Gcm16, Transform::Aes256CbcSha256][at]];
    });
    let failure = world.status(1).failure.unwrap();
    assert!(
        failure.starts_with("no common IKE proposal: we accept AES_CBC"),
        "{failure}"
    );
    assert!(failure.contains("the peer offered AES_GCM_16"), "{failure}");
    let world = pair(|at, keying| {
        keying.esp.ciphers = vec![[Transform::Aes256Gcm16, Transform::Chacha20Poly1305][at]];
    });
    let failure = world.status(1).failure.unwrap();
    assert!(failure.contains("we accept CHACHA20_POLY1305"), "{failure}");
    assert!(failure.contains("the peer offered AES_GCM_16"), "{failure}");
}

#[test]
fn no_packet_is_lost_while_children_and_the_ike_sa_are_rekeyed() {
    let mut world = pair(|_, keying| {
        keying.times.child = Duration::from_secs(30);
        keying.times.ike = Duration::from_secs(70);
    });
    for _ in 0..300 {
        assert!(world.is_carrying());
        world.run(Duration::from_secs(1));
    }
    for at in 0..2 {
        assert_eq!(world.sides[at].refused, []);
        let status = world.status(at);
        assert!((8..40).contains(&status.rekeys), "{}", status.rekeys);
        assert_eq!(
            status.children.iter().filter(|child| child.sends).count(),
            1
        );
        assert_eq!((status.ike.len(), status.failure), (1, None));
    }
}

#[test]
fn a_peer_that_speaks_is_not_asked_whether_it_lives() {
    let mut world = pair(|_, _| {});
    assert!(world.is_carrying());
    let messages = |world: &World| {
        let all = world.sides.iter().flat_map(|side| &side.carriers);
        all.filter(|carrier| **carrier == Carrier::Ike).count()
    };
    let before = messages(&world);
    for _ in 0..40 {
        world.run(Duration::from_secs(5));
        assert!(world.is_carrying());
    }
    assert_eq!(messages(&world), before);
    world.run(Duration::from_secs(200));
    assert!(
        messages(&world) >= before + 8,
        "somebody asks every half minute"
    );
}

#[test]
fn what_no_child_carries_does_not_go_out() {
    let mut world = pair(|at, keying| {
        // ipv4() goes from 10.1.0.1 to 10.2.0.1.
        let (net, side) = ([10, 1, 0, 0], &mut keying.local_traffic);
        if at == 0 {
            *side = vec![everything()[0]];
            side[0].addresses = (IpAddr::from(net), IpAddr::from([10, 1, 0, 0]));
        }
    });
    assert_eq!(world.send(0, &ipv4(9)), Err(Refusal::OutsideSelectors));
    // The other side has agreed to that, too.
    assert_eq!(world.send(1, &ipv4(9)), Err(Refusal::OutsideSelectors));
}

fn keyed(at: usize, transform: Transform, has_esn: bool, encapsulation: Encapsulation) -> Config {
    let key = |byte| vec![byte; transform.key_len()];
    let (spis, keys) = ([0xc0ff_ee01, 0x0000_0101], [key(1), key(2)]);
    Config {
        keying: Keying::Static(Box::new(StaticKeying {
            transform,
            has_esn,
            spi_in: spis[at],
            spi_out: spis[1 - at],
            key_in: keys[at].clone(),
            key_out: keys[1 - at].clone(),
        })),
        encapsulation,
        ..config(at, false, ike(at))
    }
}

#[test]
fn static_keys_carry_packets_with_every_transform_and_number_width() {
    for transform in TRANSFORMS {
        for has_esn in [false, true] {
            for encapsulation in [Encapsulation::Raw, Encapsulation::Udp] {
                let with = |at| keyed(at, transform, has_esn, encapsulation);
                let mut world = World::new([with(0), with(1)]);
                assert!(
                    world.is_carrying(),
                    "{transform:?} {has_esn} {encapsulation:?}"
                );
                assert_eq!(world.status(0).children.len(), 1);
                // Changed and changed back, the SPI is free again.
                let Side { device, out, .. } = &mut world.sides[0];
                let config = Config {
                    has_replay_protection: false,
                    ..with(0)
                };
                let slot = device.put((TUNNEL, VNET), &config, world.now, out);
                assert_eq!(slot, Ok(world.sides[0].slot));
                world.send(1, &ipv4(9)).unwrap();
                world.pump();
                assert_eq!(world.sides[0].got.pop(), Some(ipv4(9)));
            }
        }
    }
}

#[test]
fn what_is_no_packet_of_a_tunnel_is_refused_and_keepalives_are_not() {
    let with = |at| keyed(at, Transform::Aes128Gcm16, false, Encapsulation::Udp);
    let mut world = World::new([with(0), with(1)]);
    let way = Way::udp(
        Carrier::NatT,
        address(0, false),
        SocketAddr::new(address(1, false), 4500),
    );
    let now = world.now;
    let side = &mut world.sides[0];
    for (mut datagram, wanted) in [
        (vec![0xff], None),
        (vec![0xfe], Some(Refusal::Malformed)),
        (vec![0; 3], Some(Refusal::Malformed)),
        (vec![0; 40], Some(Refusal::IndexUnknown)),
        (vec![9; 60], Some(Refusal::IndexUnknown)),
        (vec![9; DATAGRAM_LEN_MAX + 1], Some(Refusal::Oversized)),
        (
            [&[0xc0, 0xff, 0xee, 1][..], &[7; 60]].concat(),
            Some(Refusal::Invalid),
        ),
    ] {
        side.refused.clear();
        take(side, way, &mut datagram, now);
        assert_eq!(side.refused.pop(), wanted);
    }
    assert!(side.got.is_empty());
}

#[test]
fn a_packet_that_comes_again_is_refused_unless_replays_are_allowed() {
    for has_replay_protection in [true, false] {
        let with = |at| Config {
            has_replay_protection,
            ..keyed(at, Transform::Aes128Gcm16, false, Encapsulation::Udp)
        };
        let mut world = World::new([with(0), with(1)]);
        world.send(0, &ipv4(9)).unwrap();
        let (_, datagram) = sent(&mut world.sides[0]).pop().unwrap();
        let way = Way::udp(
            Carrier::NatT,
            address(1, false),
            SocketAddr::new(address(0, false), 4500),
        );
        for _ in 0..2 {
            take(&mut world.sides[1], way, &mut datagram.clone(), world.now);
        }
        let expected = [1, 2][usize::from(!has_replay_protection)];
        assert_eq!(world.sides[1].got.len(), expected);
    }
}

#[test]
fn a_datagram_is_the_owners_by_its_spi_or_by_where_a_first_request_comes_from() {
    let (mut world, now) = (pair(|_, _| {}), start());
    let mut fresh = side(&config(0, false, ike(0)), &mut 6, now);
    let (_, first) = sent(&mut fresh).pop().unwrap();
    let way = |host: u8| {
        Way::udp(
            Carrier::Ike,
            address(1, false),
            SocketAddr::from(([192, 0, 2, host], 500)),
        )
    };
    let mut other = Device::new(WorkerId(9), Box::new(|bytes: &mut [u8]| bytes.fill(1)), now);
    let theirs = config(1, false, ike(1));
    other
        .put_elsewhere((TUNNEL, VNET), &theirs, WorkerId(3))
        .unwrap();
    assert_eq!(other.addressee(way(1), &first), Some(WorkerId(3)));
    assert_eq!(
        other.addressee(way(77), &first),
        Some(WorkerId(0)),
        "from anywhere"
    );
    other.delete_elsewhere(TUNNEL);
    assert_eq!(other.addressee(way(1), &first), Some(WorkerId(0)));
    // The far side of the pair is worker 1, its peer 2: packets name who they are for.
    world.send(0, &ipv4(9)).unwrap();
    let (way, packet) = sent(&mut world.sides[0]).pop().unwrap();
    assert_eq!(other.addressee(way, &packet), Some(WorkerId(1)));
    // But for SPIs that operators chose.
    let fixed = keyed(0, Transform::Aes128Gcm16, false, Encapsulation::Raw);
    other
        .put_elsewhere((TUNNEL, VNET), &fixed, WorkerId(2))
        .unwrap();
    let packet = [&[0xc0, 0xff, 0xee, 1][..], &[7; 60]].concat();
    assert_eq!(other.addressee(way, &packet), Some(WorkerId(2)));
    let again = other.put_elsewhere((TunnelId(6), VNET), &fixed, WorkerId(2));
    assert_eq!(again, Err(PutError::SpiTaken(TUNNEL)));
}

#[test]
fn a_peer_from_another_address_than_is_configured_is_refused() {
    let mut theirs = config(1, false, ike(1));
    theirs.remote = Some([192, 0, 2, 3].into());
    let world = World::new([config(0, false, ike(0)), theirs]);
    // It is not even offered a proposal: nobody is configured there.
    assert!(
        world
            .status(0)
            .failure
            .unwrap()
            .contains("accepts none of that")
    );
    assert!(world.status(1).children.is_empty());
}

#[test]
fn a_deleted_tunnel_tells_its_peer_and_takes_nothing_more() {
    let mut world = pair(|_, _| {});
    assert!(world.is_carrying());
    let now = world.now;
    let Side {
        device, out, slot, ..
    } = &mut world.sides[0];
    device.delete(*slot, now, out);
    world.pump();
    let failure = world.status(1).failure;
    assert_eq!(failure.as_deref(), Some("the peer closed the SA"));
    assert_eq!(world.send(1, &ipv4(9)), Err(Refusal::NoSa));
    assert_eq!(world.send(0, &ipv4(9)), Err(Refusal::UnknownPeer));
}

#[test]
fn a_report_counts_that_quotes_an_esp_packet_of_lately() {
    let mut world = World::new([config(0, false, ike(0)), config(1, false, ike(1))]);
    assert!(world.is_carrying());
    world.send(0, &ipv4(1300)).unwrap();
    let (way, packet) = sent(&mut world.sides[0]).remove(0);
    let device = &world.sides[0].device;
    let fits = |packet: &[u8]| device.fits(way.remote, packet, 1000);
    let (tunnel, len) = fits(&packet[..8]).unwrap();
    assert_eq!(tunnel, TUNNEL);
    // 8 of header, 8 of IV, 16 of ICV, 2 of trailer at least: RFC 4303, RFC 4106.
    assert!((960..=966).contains(&len), "{len}");
    assert_eq!(fits(&packet[..7]), None);
    for (at, value) in [(0, 0x40), (4, 0x40), (7, 0x40)] {
        let mut other = packet[..8].to_vec();
        other[at] ^= value;
        assert_eq!(fits(&other), None, "byte {at}");
    }
    assert_eq!(
        device.fits(SocketAddr::new(address(0, false), 0), &packet, 1000),
        None
    );
}
