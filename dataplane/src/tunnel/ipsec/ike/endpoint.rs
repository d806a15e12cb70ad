//! An endpoint: all IKE SAs of a worker, found by SPI, with what strangers may cost.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::id::{TunnelId, WorkerId};
use crate::tunnel::bucket::{Rate, SourceTable};
use crate::tunnel::ipsec::Discard;
use crate::tunnel::ipsec::sad::{Opened, Sad};
use crate::wire::esp::Spi;
use crate::wire::ikev2::payload::{self, Chain, Payload};
use crate::wire::ikev2::{Exchange, Header};

use super::config::Config;
use super::context::{Context, PORT, PORT_SHARED, Random};
use super::cookie::Cookies;
use super::event::{Event, Failure, Path, Transmit};
use super::init;
use super::notify::{self, Parts};
use super::sa::Sa;
#[cfg(test)]
use super::stage::What;
use super::stage::{Stage, Task};
use super::suite::IkeSuite;
use super::transfer::{self, Passed};

/// Peers that have not said who they are, and from how many on a cookie is asked for. An SA of one
/// is about 4 KiB.
pub const HALF_OPEN_MAX: usize = 1024;
/// See [`HALF_OPEN_MAX`]: as many sites begin at once after a restart.
pub const COOKIES_FROM: usize = 64;

/// First requests of one source: as many as a site with 64 tunnels sends at once, then 10 a second.
const FIRST_REQUESTS: Rate = Rate {
    interval: Duration::from_millis(100),
    burst: 64,
};

/// What an endpoint did not do, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that could not be read, or belong to no SA.
    pub unknown: u64,
    /// Messages that did not authenticate.
    pub forged: u64,
    /// First requests beyond what a source may send, or beyond [`HALF_OPEN_MAX`].
    pub limited: u64,
    /// First requests that were answered with a cookie.
    pub cookies: u64,
}

/// What an IKE SA shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where the peer is.
    pub path: Path,
    /// What protects its messages.
    pub suite: IkeSuite,
    /// Whether packets go in UDP.
    pub is_in_udp: bool,
    /// Its children, by the SPIs that we receive on.
    pub children: Vec<Spi>,
}

/// All IKE SAs of one worker, and the inbound SAs that they made.
///
/// After each call that takes `now`, drain [`Endpoint::poll_transmit`] and
/// [`Endpoint::poll_event`], then ask [`Endpoint::poll_timeout`].
#[derive(Debug)]
pub struct Endpoint {
    context: Context,
    sas: BTreeMap<u64, Sa>,
    /// Half-open SAs by the peer's SPI and address, so that a repeated first request makes no
    /// other.
    half_open: BTreeMap<(u64, SocketAddr), u64>,
    cookies: Cookies,
    sources: SourceTable,
    counters: Counters,
}

impl Endpoint {
    /// An endpoint without peers.
    #[must_use]
    pub fn new(worker: WorkerId, random: Random, now: Instant) -> Self {
        let mut context = Context::new(worker, random);
        Self {
            cookies: Cookies::new(context.random(), now),
            context,
            sas: BTreeMap::new(),
            half_open: BTreeMap::new(),
            sources: SourceTable::new(FIRST_REQUESTS),
            counters: Counters::default(),
        }
    }

    /// Makes or changes a peer. A changed one begins anew.
    ///
    /// # Errors
    /// The tunnel whose peer has the same identity: nothing has changed then.
    pub fn put(&mut self, tunnel: TunnelId, config: Config, now: Instant) -> Result<(), TunnelId> {
        let mut others = self
            .context
            .configs
            .iter()
            .filter(|(other, _)| **other != tunnel);
        let is_shared = |other: &Config| other.identities().any(|one| config.is_peer(one));
        if let Some((other, _)) = others.find(|(_, other)| is_shared(other)) {
            return Err(*other);
        }
        if self.context.configs.get(&tunnel) == Some(&config) {
            return Ok(());
        }
        self.delete(tunnel, now);
        let initiates = config.initiates;
        self.context.configs.insert(tunnel, config);
        if initiates {
            self.initiate(tunnel, now);
        }
        Ok(())
    }

    /// Deletes a peer. Its SAs are gone at once; it is told once.
    pub fn delete(&mut self, tunnel: TunnelId, now: Instant) {
        for sa in self.sas.values_mut().filter(|sa| sa.tunnel == Some(tunnel)) {
            if matches!(sa.stage, Stage::Up) {
                super::inform::delete_ike(sa, &mut self.context, now);
            }
            sa.die(&mut self.context, Failure::Deleted);
        }
        self.context.configs.remove(&tunnel);
        self.context.forget_place(tunnel);
        self.context.retries.remove(&tunnel);
        self.settle(now);
    }

    /// Notes a peer of another worker, which may begin here all the same.
    pub fn put_elsewhere(&mut self, tunnel: TunnelId, owner: WorkerId, config: Config) {
        self.context.elsewhere.enter(tunnel, owner, config);
    }

    /// Forgets a peer of another worker.
    pub fn delete_elsewhere(&mut self, tunnel: TunnelId) {
        self.context.elsewhere.leave(tunnel);
        self.context.forget_place(tunnel);
    }

    /// The next thing for another worker, with the path that it came by.
    pub fn poll_passed(&mut self) -> Option<(WorkerId, Path, Passed)> {
        self.context.elsewhere.poll()
    }

    /// Goes on with an SA that another worker passed on.
    pub fn take_over(&mut self, path: Path, bytes: &[u8], now: Instant) {
        match transfer::arrive(&mut self.context, path, bytes, now) {
            Some(mut sa) => {
                sa.advance(&mut self.context, now);
                self.sas.insert(sa.ours, sa);
            }
            None => self.counters.unknown += 1,
        }
        self.settle(now);
    }

    /// Begins to ask a peer, unless it is being asked or is up.
    pub fn initiate(&mut self, tunnel: TunnelId, now: Instant) {
        self.context.retries.remove(&tunnel);
        let remote = self
            .context
            .configs
            .get(&tunnel)
            .and_then(|config| config.remote);
        let (Some(remote), false) = (remote, self.has_sa(tunnel)) else {
            return;
        };
        let local = self.context.configs[&tunnel].local;
        let port = if remote.port() == PORT {
            PORT
        } else {
            PORT_SHARED
        };
        let local = SocketAddr::new(local, port);
        match init::start(&mut self.context, tunnel, Path { local, remote }, now) {
            Some(sa) => {
                self.sas.insert(sa.ours, sa);
            }
            None => self.context.retry_later(tunnel),
        }
        self.settle(now);
    }

    fn has_sa(&self, tunnel: TunnelId) -> bool {
        let mut sas = self.sas.values();
        sas.any(|sa| sa.tunnel == Some(tunnel) && !matches!(sa.stage, Stage::Replaced(_)))
    }

    /// Takes an IKE message, without the marker that stood before it on the shared port.
    pub fn handle_datagram(&mut self, path: Path, message: &[u8], now: Instant) {
        let Ok((header, first, body)) = Header::parse(message) else {
            self.counters.unknown += 1;
            return;
        };
        let is_first = header.exchange == Exchange::IKE_SA_INIT;
        if is_first && !header.is_response {
            self.first_request(path, (header, first, body), message, now);
        } else {
            let spi = if header.is_initiator {
                header.responder_spi
            } else {
                header.initiator_spi
            };
            let Some(sa) = self.sas.get_mut(&spi) else {
                if !self.context.elsewhere.pass(spi, path, message) {
                    self.counters.unknown += 1;
                }
                return;
            };
            if is_first && matches!(sa.stage, Stage::Init(_)) && !header.is_initiator {
                if let Ok(payloads) = payload::parse(first, body) {
                    let parsed = (header, &payloads[..], message);
                    init::response(sa, &mut self.context, parsed, now);
                }
            } else {
                let their_spi = if header.is_initiator {
                    header.initiator_spi
                } else {
                    header.responder_spi
                };
                if their_spi == sa.theirs {
                    sa.handle(&mut self.context, path, message, now);
                    sa.advance(&mut self.context, now);
                }
            }
        }
        self.settle(now);
    }

    /// A stranger, or somebody whose answer was lost.
    fn first_request(
        &mut self,
        path: Path,
        (header, first, body): (Header, u8, &[u8]),
        message: &[u8],
        now: Instant,
    ) {
        let key = (header.initiator_spi, path.remote);
        if let Some(sa) = self.half_open.get(&key).and_then(|spi| self.sas.get(spi)) {
            if let Stage::Answered(signed, _) = &sa.stage
                && signed.request == message
            {
                sa.answer_again(&mut self.context);
            }
            return;
        }
        if !self.sources.take(path.remote.ip(), now) || self.half_open.len() >= HALF_OPEN_MAX {
            self.counters.limited += 1;
            return;
        }
        let is_sound = header.is_initiator && header.responder_spi == 0 && header.message_id == 0;
        let payloads = payload::parse(first, body);
        let (true, Ok(payloads)) = (is_sound, payloads) else {
            self.counters.unknown += 1;
            return;
        };
        if self.half_open.len() >= COOKIES_FROM
            && !self.is_where_it_says(path, header, &payloads, now)
        {
            return;
        }
        match init::request(&mut self.context, path, (header, &payloads, message), now) {
            Ok(sa) => {
                self.half_open.insert(key, sa.ours);
                self.sas.insert(sa.ours, sa);
            }
            Err(refused) => {
                let mut chain = Chain::new();
                chain.notify(refused.notify, &refused.data);
                self.answer_stranger(path, header, &chain);
                if let Some(failure) = refused.failure {
                    let (tunnel, remote) = (None, path.remote);
                    self.context.event(Event::Failed {
                        tunnel,
                        remote,
                        failure,
                    });
                }
            }
        }
    }

    /// Whether a stranger sent the cookie that it was given; if not, it gets one.
    fn is_where_it_says(
        &mut self,
        path: Path,
        header: Header,
        payloads: &[Payload<'_>],
        now: Instant,
    ) -> bool {
        let nonce = Parts::of(payloads).and_then(|parts| parts.nonce);
        let Some(nonce) = nonce else { return false };
        let from: IpAddr = path.remote.ip();
        let about = (header.initiator_spi, nonce, from);
        let sent = notify::find(payloads, notify::COOKIE);
        if sent.is_some_and(|sent| self.cookies.knows(sent.data, about)) {
            return true;
        }
        self.counters.cookies += 1;
        let cookie = self.cookies.make(self.context.random(), about, now);
        let mut chain = Chain::new();
        chain.notify(notify::COOKIE, &cookie);
        self.answer_stranger(path, header, &chain);
        false
    }

    fn answer_stranger(&mut self, path: Path, header: Header, chain: &Chain) {
        let answer = Header {
            is_initiator: false,
            is_response: true,
            ..header
        };
        self.context.transmit(path, &[answer.with(chain)]);
    }

    /// Checks and decrypts an ESP packet in place. See [`Sad::open`].
    ///
    /// # Errors
    /// [`Discard`].
    pub fn open(&mut self, packet: &mut [u8], now: Instant) -> Result<Opened, Discard> {
        self.context.sad.open(packet, now)
    }

    /// A random number.
    pub fn random(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.context.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// The inbound SAs, to look at.
    #[must_use]
    pub fn sad(&self) -> &Sad {
        &self.context.sad
    }

    /// The inbound SAs; static ones are put there as well.
    pub fn sad_mut(&mut self) -> &mut Sad {
        &mut self.context.sad
    }

    /// Notes when packets of each tunnel came in last, so that nobody has to ask whether its peer
    /// lives. Looks at every SA.
    pub fn hear(&mut self, heard_at: impl Fn(TunnelId) -> Option<Instant>) {
        for sa in self.sas.values_mut() {
            if let Some(at) = sa.tunnel.and_then(&heard_at) {
                sa.heard_at = sa.heard_at.max(at);
            }
        }
    }

    /// Rekeys a child: its outbound half is due.
    pub fn rekey_child(&mut self, tunnel: TunnelId, spi_in: Spi, now: Instant) {
        self.want(tunnel, Task::RekeyChild(spi_in), now);
    }

    /// Deletes a child.
    pub fn delete_child(&mut self, tunnel: TunnelId, spi_in: Spi, now: Instant) {
        self.want(tunnel, Task::DeleteChild(spi_in), now);
    }

    /// Rekeys the IKE SA of a tunnel.
    pub fn rekey_ike(&mut self, tunnel: TunnelId, now: Instant) {
        self.want(tunnel, Task::RekeyIke, now);
    }

    fn want(&mut self, tunnel: TunnelId, task: Task, now: Instant) {
        let ups = self.sas.values_mut().filter(|sa| sa.tunnel == Some(tunnel));
        for sa in ups.filter(|sa| matches!(sa.stage, Stage::Up)) {
            sa.want(task);
            sa.advance(&mut self.context, now);
        }
        self.settle(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.context.out.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.context.events.pop_front()
    }

    /// When [`Endpoint::handle_timeout`] wants to be called next. Looks at every SA: 20 ns each.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sas = self
            .sas
            .values()
            .filter_map(|sa| sa.next_timeout(&self.context));
        let drained = self.context.draining.front().map(|(at, _)| *at);
        let retries = self.context.retries.values().flatten().copied();
        sas.chain(drained).chain(retries).min()
    }

    /// Retransmissions, rekeys, questions, ends.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.context.finish_draining(now);
        let retries = self.context.retries.iter();
        let due: Vec<TunnelId> = retries
            .filter(|(_, at)| at.is_some_and(|at| now >= at))
            .map(|(tunnel, _)| *tunnel)
            .collect();
        for tunnel in due {
            self.initiate(tunnel, now);
        }
        for sa in self.sas.values_mut() {
            if sa.next_timeout(&self.context).is_some_and(|at| now >= at) {
                sa.handle_timeout(&mut self.context, now);
            }
        }
        self.settle(now);
    }

    /// Says anything to a peer that is up; it is sealed as it should be.
    #[cfg(test)]
    pub(super) fn say(
        &mut self,
        tunnel: TunnelId,
        exchange: Exchange,
        chain: &Chain,
        now: Instant,
    ) {
        let mut ups = self.sas.values_mut().filter(|sa| sa.tunnel == Some(tunnel));
        let up = ups.find(|sa| matches!(sa.stage, Stage::Up) && sa.asks().is_none());
        if let Some(sa) = up {
            sa.ask(&mut self.context, exchange, chain, What::Dpd, now);
        }
    }

    /// Peers that have not said who they are.
    #[cfg(test)]
    pub(super) fn half_open_count(&self) -> usize {
        assert!(self.sas.len() >= self.half_open.len());
        self.half_open.len()
    }

    /// The IKE SAs of a tunnel that are up.
    pub fn status(&self, tunnel: TunnelId) -> impl Iterator<Item = Status> {
        let sas = self
            .sas
            .values()
            .filter(move |sa| sa.tunnel == Some(tunnel));
        sas.filter(|sa| matches!(sa.stage, Stage::Up))
            .filter_map(|sa| {
                Some(Status {
                    path: sa.path,
                    suite: sa.suite?,
                    is_in_udp: sa.is_in_udp,
                    children: sa.children.iter().map(|child| child.spi_in).collect(),
                })
            })
    }

    /// What was not done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            forged: self.context.forged,
            ..self.counters
        }
    }

    /// Takes in what calls on single SAs left for the endpoint.
    fn settle(&mut self, now: Instant) {
        while let Some(mut sa) = self.context.born.pop() {
            sa.advance(&mut self.context, now);
            self.sas.insert(sa.ours, sa);
        }
        for (spi, children) in std::mem::take(&mut self.context.moves) {
            match self.sas.get_mut(&spi) {
                Some(sa) => {
                    sa.stage = Stage::Up;
                    sa.children.extend(children);
                }
                None => {
                    for child in children {
                        self.context.child_down(None, child.spi_in);
                    }
                }
            }
        }
        if let Some((tunnel, only)) = self.context.only.take() {
            let others = self.sas.values_mut().filter(|sa| sa.ours != only);
            let same = others.filter(|sa| sa.tunnel == Some(tunnel));
            // What is being begun is left alone: the peer does not know of it yet.
            for sa in same.filter(|sa| matches!(sa.stage, Stage::Up)) {
                sa.die(&mut self.context, Failure::Replaced);
            }
            self.context.retries.remove(&tunnel);
        }
        self.sas.retain(|_, sa| !sa.is_dead());
        let sas = &self.sas;
        self.half_open
            .retain(|_, spi| sas.get(spi).is_some_and(Sa::is_half_open));
        self.context.schedule_retries(now);
    }
}
