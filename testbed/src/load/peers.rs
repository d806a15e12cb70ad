//! The private side of the load: many WireGuard peers in one thread, each with a socket of its own.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use dataplane::io::clock;
use dataplane::io::udp::{Sent, Socket};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::drive::{Burst, End, nanos};
use super::meter::Meter;
use super::stamp::{HEADERS_LEN, Stamp, write_headers};
use super::world::{self, World};

/// Trains read from one peer's socket before the others have their turn.
const BATCH: usize = 4;
/// Peers looked at in one turn.
const READY: usize = 64;
/// How often boringtun's timers are looked at: they count in seconds.
const TICK: Duration = Duration::from_millis(250);
/// First handshakes a second: below the 250 after which the edge asks for cookies.
const HANDSHAKES_PER_SECOND: u64 = 200;
/// For all of them to be done.
const HANDSHAKES_TIME_MAX: Duration = Duration::from_secs(30);
/// First byte of a data message.
const DATA: u8 = 4;
/// Bytes of a data message besides its packet.
const OVERHEAD: usize = 32;

/// One WireGuard peer, by boringtun alone: not by the code that is measured.
struct Peer {
    tunn: Tunn,
    socket: Socket,
    is_up: bool,
}

/// All peers. To be made in the peers' namespace.
pub struct Peers {
    peers: Vec<Peer>,
    /// Where inner packets go: the edge's sources, one per worker.
    sources: Vec<Ipv4Addr>,
    epoll: Epoll,
    ready: VecDeque<usize>,
    datagrams: Vec<u8>,
    packet: Vec<u8>,
    tick_at: Instant,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers")
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

impl Peers {
    /// Binds a socket per peer. No handshake yet.
    ///
    /// # Errors
    /// Those of sockets.
    pub fn new(world: &World, sources: Vec<Ipv4Addr>) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut peers = Vec::new();
        for (number, key) in world.peer_keys.iter().enumerate() {
            let address = world::underlay(number);
            let socket = Socket::bind(address).with_context(|| format!("cannot bind {address}"))?;
            let token = u64::try_from(number)?;
            epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            let secret = x25519::StaticSecret::from(key.0);
            let edge = x25519::PublicKey::from(world.edge_key.0);
            let index = u32::try_from(number)?;
            let tunn = Tunn::new(secret, edge, None, None, index, None);
            peers.push(Peer {
                tunn,
                socket,
                is_up: false,
            });
        }
        Ok(Self {
            peers,
            sources,
            epoll,
            ready: VecDeque::new(),
            datagrams: vec![0; 65_535],
            packet: vec![0; 65_535],
            tick_at: clock::now(),
        })
    }

    /// Opens a session for every peer.
    ///
    /// # Errors
    /// When the edge does not answer all of them in time.
    pub fn connect(&mut self) -> anyhow::Result<()> {
        let begin = clock::now();
        let mut meter = Meter::new(0, 0);
        let mut started = 0;
        loop {
            let elapsed = clock::now() - begin;
            let due = u128::from(HANDSHAKES_PER_SECOND) * elapsed.as_nanos() / 1_000_000_000 + 1;
            while started < self.peers.len() && (started as u128) < due {
                self.initiate(started)?;
                started += 1;
            }
            self.receive(&mut meter, begin)?;
            let waiting = self.peers.iter().filter(|peer| !peer.is_up).count();
            if waiting == 0 {
                return Ok(());
            }
            ensure!(
                elapsed < HANDSHAKES_TIME_MAX,
                "{waiting} peers got no session"
            );
            self.wait(Duration::from_millis(1))?;
        }
    }

    fn initiate(&mut self, number: usize) -> anyhow::Result<()> {
        let mut message = [0; 256];
        let peer = &mut self.peers[number];
        let made = peer.tunn.format_handshake_initiation(&mut message, false);
        if let TunnResult::WriteToNetwork(message) = made {
            transmit(&mut peer.socket, message.len(), message)?;
        }
        Ok(())
    }

    /// Seals packets of one peer without sending them: stamped, of one flow, in order.
    ///
    /// # Errors
    /// When there is no session.
    pub fn seal(&mut self, burst: &Burst) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut sealed = Vec::new();
        self.address(burst.flow, burst.size);
        for n in 0..burst.count {
            let len = self.seal_one(burst, n, 0)?;
            sealed.push(self.datagrams[..len].to_vec());
        }
        Ok(sealed)
    }

    /// Seals the `n`th packet of a burst to `datagrams[at..]`; returns its end.
    fn seal_one(&mut self, burst: &Burst, n: u64, at: usize) -> anyhow::Result<usize> {
        let stamp = Stamp {
            trial: burst.trial,
            flow: u32::try_from(burst.flow)?,
            sequence: burst.first + n,
            sent_at: burst.now,
        };
        stamp.write(&mut self.packet[HEADERS_LEN..]);
        let packet = &self.packet[..burst.size];
        let room = &mut self.datagrams[at..];
        let sealed = self.peers[burst.flow].tunn.encapsulate(packet, room);
        if let TunnResult::WriteToNetwork(message) = sealed
            && message[0] == DATA
        {
            return Ok(at + message.len());
        }
        bail!("peer {} has no session", burst.flow)
    }

    fn address(&mut self, flow: usize, size: usize) {
        let to = self.sources[flow % self.sources.len()];
        write_headers(&mut self.packet[..size], world::inner(flow), to);
    }

    /// One datagram for a peer; true when a stamped packet came out of it.
    fn take(
        peer: &mut Peer,
        datagram: &[u8],
        packet: &mut [u8],
        (meter, now): (&mut Meter, u64),
    ) -> anyhow::Result<bool> {
        let opened = peer.tunn.decapsulate(None, datagram, packet);
        if let TunnResult::WriteToTunnelV4(inner, _) = opened {
            let payload = inner.get(HEADERS_LEN..).unwrap_or_default();
            meter.take(payload, inner.len(), now);
            return Ok(true);
        }
        if let TunnResult::WriteToNetwork(answer) = opened {
            peer.is_up = true;
            transmit(&mut peer.socket, answer.len(), answer)?;
        }
        Ok(false)
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        let mut message = [0; 256];
        for peer in &mut self.peers {
            if let TunnResult::WriteToNetwork(message) = peer.tunn.update_timers(&mut message) {
                transmit(&mut peer.socket, message.len(), message)?;
            }
        }
        Ok(())
    }

    /// Adds the peers whose sockets have something to read.
    fn poll(&mut self, longest: EpollTimeout) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); READY];
        let count = match self.epoll.wait(&mut events, longest) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            self.ready.push_back(usize::try_from(event.data())?);
        }
        Ok(())
    }
}

/// Sends one train to the edge. What the socket does not take is lost, as on a wire.
fn transmit(socket: &mut Socket, segment: usize, train: &[u8]) -> anyhow::Result<()> {
    socket
        .send(SocketAddr::V4(world::EDGE), segment, train)
        .context("cannot send to the edge")?;
    Ok(())
}

impl End for Peers {
    fn send(&mut self, burst: &Burst) -> anyhow::Result<u64> {
        self.address(burst.flow, burst.size);
        let fits = (65_000 / (burst.size + OVERHEAD)).min(64);
        let count = burst.count.min(u64::try_from(fits)?);
        let mut end = 0;
        for n in 0..count {
            end = self.seal_one(burst, n, end)?;
        }
        let segment = burst.size + OVERHEAD;
        let socket = &mut self.peers[burst.flow].socket;
        let train = &self.datagrams[..end];
        match socket.send(SocketAddr::V4(world::EDGE), segment, train) {
            Ok(Sent::Whole | Sent::Singly | Sent::Full { .. }) => Ok(count),
            Err(error) => Err(error).context("cannot send to the edge"),
        }
    }

    fn receive(&mut self, meter: &mut Meter, since: Instant) -> anyhow::Result<u64> {
        let now = clock::now();
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            self.tick()?;
        }
        if self.ready.is_empty() {
            self.poll(EpollTimeout::ZERO)?;
        }
        let mut read = 0;
        while let Some(number) = self.ready.pop_front() {
            let peer = &mut self.peers[number];
            for _ in 0..BATCH {
                let Ok(train) = peer.socket.recv(&mut self.datagrams) else {
                    break;
                };
                let now = nanos(clock::now() - since);
                for datagram in self.datagrams[..train.len].chunks(train.segment_size) {
                    let sink = (&mut *meter, now);
                    read += u64::from(Self::take(peer, datagram, &mut self.packet, sink)?);
                }
            }
        }
        Ok(read)
    }

    fn wait(&mut self, longest: Duration) -> anyhow::Result<()> {
        // epoll counts in milliseconds, and a sender may nap for less.
        let fd = nix::poll::PollFd::new(self.epoll.0.as_fd(), nix::poll::PollFlags::POLLIN);
        nix::poll::ppoll(
            &mut [fd],
            Some(nix::sys::time::TimeSpec::from(longest)),
            None,
        )?;
        Ok(())
    }
}
