//! Two endpoints, a network between them that loses, doubles and turns round, and a moving clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::id::{TunnelId, WorkerId};
use crate::tunnel::ipsec::ike::{
    Config, Endpoint, EspOffer, Event, Failure, Identity, IkeOffer, Path, Psk, Times, Transmit,
    everything,
};
use crate::tunnel::ipsec::lifetime::Lifetime;
use crate::tunnel::ipsec::sa::Outbound;
use crate::tunnel::ipsec::tests::{ipv4, start};
use crate::wire::esp::{Datagram, Spi};
use crate::wire::ikev2::payload::Selector;

pub(super) const TUNNEL: TunnelId = TunnelId(9);

/// A generator of numbers that are the same in every run (splitmix64).
#[derive(Clone)]
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next().to_be_bytes()[7];
        }
    }
}

pub(in crate::tunnel::ipsec::ike) fn config(at: usize) -> Config {
    let identity = |at: usize| Identity::Fqdn(format!("peer-{at}.example"));
    Config {
        local_id: identity(at),
        remote_id: identity(1 - at),
        other_ids: Vec::new(),
        psk: Psk(b"a key of both".to_vec()),
        local: address(at, 500).ip(),
        remote: Some(address(1 - at, 500)),
        initiates: at == 0,
        forces_udp: false,
        has_replay_check: true,
        ike: IkeOffer::default(),
        esp: EspOffer::default(),
        local_ts: everything(),
        remote_ts: everything(),
        further: Vec::new(),
        times: Times::default(),
    }
}

pub(super) fn address(at: usize, port: u16) -> SocketAddr {
    let host = if at == 0 {
        [192, 0, 2, 1]
    } else {
        [198, 51, 100, 1]
    };
    SocketAddr::new(IpAddr::from(host), port)
}

/// One side, with what its driver keeps.
pub(super) struct Side {
    pub(super) endpoint: Endpoint,
    pub(super) outbound: BTreeMap<Spi, Outbound>,
    pub(super) sending: Option<Spi>,
    pub(super) live: BTreeSet<Spi>,
    /// What each live child carries: of this side, and of the other.
    pub(super) traffic: BTreeMap<Spi, (Vec<Selector>, Vec<Selector>)>,
    pub(super) ups: usize,
    pub(super) failures: Vec<Failure>,
    pub(super) children: usize,
    pub(super) is_in_udp: Option<bool>,
}

/// What the network does to messages, in a hundred.
#[derive(Clone, Copy, Default)]
pub(super) struct Weather {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) turned: u64,
}

pub(super) struct World {
    pub(super) sides: [Side; 2],
    pub(super) now: Instant,
    pub(super) weather: Weather,
    pub(super) random: Seeded,
    /// Messages under way: for which side, with its path.
    pub(super) wire: VecDeque<(usize, Path, Vec<u8>)>,
    /// The address that side 0 seems to have, when it is behind a NAT.
    pub(super) nat: Option<IpAddr>,
    pub(super) messages: usize,
    /// Keepalives that came to each side.
    pub(super) keepalives: [usize; 2],
}

impl World {
    pub(super) fn new(seed: u64, configs: [Option<Config>; 2]) -> Self {
        let now = start();
        let side = |at: usize| {
            let mut random = Seeded(seed.wrapping_mul(2) + at as u64);
            let fill = Box::new(move |bytes: &mut [u8]| random.fill(bytes));
            let worker = WorkerId(u8::try_from(at).unwrap() + 1);
            Side {
                endpoint: Endpoint::new(worker, fill, now),
                outbound: BTreeMap::new(),
                sending: None,
                live: BTreeSet::new(),
                traffic: BTreeMap::new(),
                ups: 0,
                failures: Vec::new(),
                children: 0,
                is_in_udp: None,
            }
        };
        let mut world = Self {
            sides: [side(0), side(1)],
            now,
            weather: Weather::default(),
            random: Seeded(seed),
            wire: VecDeque::new(),
            nat: None,
            messages: 0,
            keepalives: [0; 2],
        };
        // The responder first.
        for (at, config) in configs.into_iter().enumerate().rev() {
            if let Some(config) = config {
                world.sides[at].endpoint.put(TUNNEL, config, now).unwrap();
            }
        }
        world
    }

    /// Two sides that know each other, one of which begins.
    pub(super) fn pair(seed: u64) -> Self {
        Self::new(seed, [Some(config(0)), Some(config(1))])
    }

    fn collect(&mut self, at: usize) {
        while let Some(Transmit { path, bytes }) = self.sides[at].endpoint.poll_transmit() {
            self.messages += 1;
            let (mut from, mut to) = (path.local, path.remote);
            if let Some(nat) = self.nat {
                if at == 0 {
                    from = SocketAddr::new(nat, from.port() + 1000);
                } else if to.ip() == nat {
                    to = SocketAddr::new(address(0, 0).ip(), to.port() - 1000);
                }
            }
            let path = Path {
                local: to,
                remote: from,
            };
            let copies = match self.random.below(100) {
                roll if roll < self.weather.lost => 0,
                roll if roll < self.weather.lost + self.weather.doubled => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let place = if self.random.below(100) < self.weather.turned {
                    0
                } else {
                    self.wire.len()
                };
                self.wire.insert(place, (1 - at, path, bytes.clone()));
            }
        }
        while let Some(event) = self.sides[at].endpoint.poll_event() {
            self.sides[at].note(event, self.now);
        }
    }

    /// Delivers one message. False when there is none.
    pub(super) fn step(&mut self) -> bool {
        self.collect(0);
        self.collect(1);
        let Some((at, path, bytes)) = self.wire.pop_front() else {
            return false;
        };
        let message = if path.local.port() == 500 {
            &bytes[..]
        } else {
            match Datagram::parse(&bytes) {
                Some(Datagram::Ike(message)) => message,
                Some(Datagram::Keepalive) => {
                    self.keepalives[at] += 1;
                    return true;
                }
                other => panic!("on the shared port: {other:?}"),
            }
        };
        self.sides[at]
            .endpoint
            .handle_datagram(path, message, self.now);
        self.collect(at);
        true
    }

    /// Delivers all messages.
    pub(super) fn settle(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 10_000, "they never stop talking");
        }
    }

    /// Moves the clock to the next timeout of either, but not past `until`; false at `until`.
    pub(super) fn tick(&mut self, until: Instant) -> bool {
        let next = self
            .sides
            .iter()
            .filter_map(|side| side.endpoint.poll_timeout())
            .min();
        self.now = next.unwrap_or(until).clamp(self.now, until);
        for side in &mut self.sides {
            side.endpoint.handle_timeout(self.now);
        }
        self.settle();
        self.now < until
    }

    /// Lets time pass, with all that happens in it.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        let mut ticks = 0;
        while self.tick(until) {
            ticks += 1;
            assert!(ticks < 100_000, "time stands still");
        }
    }

    /// Sends a packet from one side by the child that it sends by. Whether it arrived.
    pub(super) fn carry(&mut self, from: usize) -> bool {
        let (len, now) = (usize::try_from(self.random.below(100)).unwrap(), self.now);
        let side = &mut self.sides[from];
        let Some(outbound) = side.sending.and_then(|spi| side.outbound.get_mut(&spi)) else {
            return false;
        };
        let mut packet = vec![0; outbound.sealed_len(ipv4(len).len())];
        outbound.seal(&ipv4(len), now, &mut packet).unwrap();
        let opened = self.sides[1 - from].endpoint.open(&mut packet, now);
        opened.is_ok_and(|opened| packet[opened.inner] == ipv4(len))
    }

    pub(super) fn is_carrying(&mut self) -> bool {
        self.carry(0) && self.carry(1)
    }
}

impl Side {
    fn note(&mut self, event: Event, now: Instant) {
        match event {
            Event::Up { .. } => self.ups += 1,
            Event::ChildUp(child) => {
                let outbound = Outbound::new(&child.outbound, Lifetime::default(), now).unwrap();
                self.outbound.insert(child.spi_in, outbound);
                self.live.insert(child.spi_in);
                self.traffic
                    .insert(child.spi_in, (child.local_ts, child.remote_ts));
                self.children += 1;
                self.is_in_udp = Some(child.is_in_udp);
                if child.sends {
                    self.sending = Some(child.spi_in);
                }
            }
            Event::Send { spi_in, .. } => {
                assert!(
                    self.live.contains(&spi_in),
                    "told to send by a child that is gone"
                );
                self.sending = Some(spi_in);
            }
            Event::ChildDown { spi_in, .. } => {
                assert!(self.live.remove(&spi_in), "a child goes once");
                self.outbound.remove(&spi_in);
                self.traffic.remove(&spi_in);
                if self.sending == Some(spi_in) {
                    self.sending = None;
                }
            }
            Event::Moved { .. } => {}
            Event::Down { failure, .. } | Event::Failed { failure, .. } => {
                self.failures.push(failure);
            }
        }
    }
}
