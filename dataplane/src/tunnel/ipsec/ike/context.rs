//! What all SAs of an endpoint share: peers, randomness, what is to be sent and told, SPIs.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::id::{TunnelId, WorkerId};
use crate::tunnel::ipsec::sad::Sad;
use crate::wire::esp::{NON_ESP_MARKER, Spi};
use crate::wire::ikev2::payload::Id;

use super::config::{Config, Identity};
use super::event::{Event, Path, Transmit};
use super::sa::Sa;
use super::stage::Child;
use super::transfer::Elsewhere;

/// The port of IKE without a marker (RFC 7296 section 2).
pub(super) const PORT: u16 = 500;
/// The port that IKE shares with ESP in UDP (RFC 3948).
pub(super) const PORT_SHARED: u16 = 4500;

/// How long packets of a deleted child may still be under way.
const DRAIN: Duration = Duration::from_secs(5);
/// After this an initiator begins again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Where randomness comes from.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

pub(super) struct Context {
    pub(super) worker: WorkerId,
    pub(super) configs: BTreeMap<TunnelId, Config>,
    pub(super) sad: Sad,
    pub(super) out: VecDeque<Transmit>,
    pub(super) events: VecDeque<Event>,
    /// SAs that came out of others, until the endpoint takes them.
    pub(super) born: Vec<Sa>,
    /// Children for an SA by its SPI, until the endpoint hands them over.
    pub(super) moves: Vec<(u64, Vec<Child>)>,
    /// An SA that said it is the only one of its tunnel.
    pub(super) only: Option<(TunnelId, u64)>,
    /// Inbound SAs that take late packets until then, in order of time.
    pub(super) draining: VecDeque<(Instant, Spi)>,
    /// Tunnels whose initiator rests.
    pub(super) retries: BTreeMap<TunnelId, Option<Instant>>,
    pub(super) forged: u64,
    /// Peers of other workers.
    pub(super) elsewhere: Elsewhere,
    /// Where peers of any worker were when they last proved here who they are.
    places: BTreeMap<TunnelId, IpAddr>,
    random: Random,
}

impl Context {
    pub(super) fn new(worker: WorkerId, mut random: Random) -> Self {
        let mut seed = [0; 4];
        random(&mut seed);
        Self {
            worker,
            configs: BTreeMap::new(),
            sad: Sad::new(worker, u32::from_be_bytes(seed)),
            out: VecDeque::new(),
            events: VecDeque::new(),
            born: Vec::new(),
            moves: Vec::new(),
            only: None,
            draining: VecDeque::new(),
            retries: BTreeMap::new(),
            forged: 0,
            elsewhere: Elsewhere::default(),
            places: BTreeMap::new(),
            random,
        }
    }

    pub(super) fn config(&self, tunnel: Option<TunnelId>) -> Option<&Config> {
        self.configs.get(&tunnel?)
    }

    /// The tunnel whose peer has this identity.
    pub(super) fn peer(&self, id: Id<'_>) -> Option<(TunnelId, &Config)> {
        let identity = Identity::parse(id)?;
        let mut configs = self.configs.iter();
        let (tunnel, config) = configs.find(|(_, config)| config.is_peer(&identity))?;
        Some((*tunnel, config))
    }

    /// Notes that the peer of a tunnel proved who it is, and where.
    pub(super) fn note_place(&mut self, tunnel: TunnelId, at: IpAddr) {
        self.places.insert(tunnel, at);
    }

    /// Whether the peer of a tunnel was at this address last.
    pub(super) fn was_at(&self, tunnel: TunnelId, at: IpAddr) -> bool {
        self.places.get(&tunnel) == Some(&at)
    }

    /// Forgets where the peer of a tunnel was.
    pub(super) fn forget_place(&mut self, tunnel: TunnelId) {
        self.places.remove(&tunnel);
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        (self.random)(bytes);
    }

    pub(super) fn random(&mut self) -> &mut dyn FnMut(&mut [u8]) {
        &mut *self.random
    }

    /// A nonce of 32 bytes: at least half the key size of every PRF (RFC 7296 section 2.10).
    pub(super) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.fill(&mut nonce);
        nonce
    }

    /// An SPI for an IKE SA. Its first byte is the worker, as in those of ESP.
    pub(super) fn new_spi(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        bytes[0] = self.worker.0;
        // 0 is no SPI, and would come once in 2^56 times.
        u64::from_be_bytes(bytes) | 1
    }

    /// A time a little before `after` from now: both ends have the same timers, and would collide.
    pub(super) fn jittered(&mut self, after: Duration, now: Instant) -> Instant {
        let mut byte = [0];
        self.fill(&mut byte);
        now + after - after * u32::from(byte[0]) / 2560
    }

    /// Sends the NAT before us a byte that says nothing (RFC 3948 section 2.3).
    pub(super) fn keep_alive(&mut self, path: Path) {
        let bytes = vec![0xff];
        self.out.push_back(Transmit { path, bytes });
    }

    pub(super) fn transmit(&mut self, path: Path, datagrams: &[Vec<u8>]) {
        for datagram in datagrams {
            let marker: &[u8] = if path.local.port() == PORT {
                &[]
            } else {
                &NON_ESP_MARKER
            };
            let bytes = [marker, datagram].concat();
            self.out.push_back(Transmit { path, bytes });
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn count_forged(&mut self) {
        self.forged += 1;
    }

    /// Takes a child down at once.
    pub(super) fn child_down(&mut self, tunnel: Option<TunnelId>, spi_in: Spi) {
        self.sad.remove(spi_in);
        if let Some(tunnel) = tunnel {
            self.event(Event::ChildDown { tunnel, spi_in });
        }
    }

    /// Takes a child down, but for packets that are under way.
    pub(super) fn drain(&mut self, tunnel: Option<TunnelId>, spi_in: Spi, now: Instant) {
        self.draining.push_back((now + DRAIN, spi_in));
        if let Some(tunnel) = tunnel {
            self.event(Event::ChildDown { tunnel, spi_in });
        }
    }

    /// The tunnel's initiator begins again after a rest; the endpoint knows the time.
    pub(super) fn retry_later(&mut self, tunnel: TunnelId) {
        if self
            .configs
            .get(&tunnel)
            .is_some_and(|config| config.initiates)
        {
            self.retries.insert(tunnel, None);
        }
    }

    /// Gives rests their end.
    pub(super) fn schedule_retries(&mut self, now: Instant) {
        for at in self.retries.values_mut() {
            at.get_or_insert(now + RETRY_AFTER);
        }
    }

    /// The SAs of drained children go.
    pub(super) fn finish_draining(&mut self, now: Instant) {
        while self.draining.front().is_some_and(|(at, _)| now >= *at) {
            let (_, spi_in) = self.draining.pop_front().expect("seen above");
            self.sad.remove(spi_in);
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("worker", &self.worker)
            .field("peers", &self.configs.len())
            .finish_non_exhaustive()
    }
}
