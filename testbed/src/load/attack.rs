//! An attacker with a namespace of its own: what it sends, how fast, and from how many addresses.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use dataplane::io::clock;
use dataplane::io::udp::Socket;
use nix::poll::ppoll;
use nix::sys::time::TimeSpec;

use super::drive::Burst;
use super::peers::Peers;
use super::world::World;

/// Addresses of an attacker that has many: as many as the edge's table of sources has entries.
const SOURCES: usize = 4096;
/// Different initiations; an edge tells them apart only by opening them.
const INITIATIONS: u8 = 128;
/// Datagrams of one train: a full one of small packets.
const TRAIN: usize = 32;
/// Bytes of a data message of a full-sized packet.
const FULL: usize = 1452;
/// Bytes of the inner packets of an attacker that is a peer.
const SMALL: usize = 128;
/// Packets that are turned round among each other: half of the replay window of 1024.
const TURNED: usize = 512;

/// What an attacker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Data messages that end too early.
    Truncated,
    /// Datagrams of 20,000 bytes.
    Oversized,
    /// Messages whose length is not that of their type, and types that do not exist.
    WrongLength,
    /// Data messages for sessions that do not exist.
    WrongIndex,
    /// Data messages for a session of another, that do not authenticate.
    WrongKey,
    /// A peer's own data messages, over and over.
    Replayed,
    /// A peer's own data messages, each twice.
    Duplicated,
    /// A peer's own data messages, out of order.
    Reordered,
    /// Initiations of peers that are not configured, from one address.
    HandshakeOneSource,
    /// The same from 4096 addresses.
    HandshakeManySources,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Truncated,
        Self::Oversized,
        Self::WrongLength,
        Self::WrongIndex,
        Self::WrongKey,
        Self::Replayed,
        Self::Duplicated,
        Self::Reordered,
        Self::HandshakeOneSource,
        Self::HandshakeManySources,
    ];

    /// As tables show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Oversized => "oversized",
            Self::WrongLength => "wrong length",
            Self::WrongIndex => "wrong index",
            Self::WrongKey => "wrong key",
            Self::Replayed => "replayed",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::HandshakeOneSource => "handshakes, one source",
            Self::HandshakeManySources => "handshakes, many sources",
        }
    }

    /// The drop reasons that an edge counts it under; none for what is to arrive.
    #[must_use]
    pub fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::Truncated | Self::WrongLength => &["datagram_malformed"],
            Self::Oversized => &["datagram_oversized"],
            Self::WrongIndex => &["index_unknown"],
            Self::WrongKey => &["inauthentic"],
            Self::Replayed | Self::Duplicated => &["replayed"],
            Self::Reordered => &[],
            Self::HandshakeOneSource | Self::HandshakeManySources => {
                &["handshake_limited", "handshake_cookie", "unknown_peer"]
            }
        }
    }
}

/// Trains to send.
#[derive(Clone, Debug, Default)]
pub struct Ammunition {
    /// The length of a datagram, and datagrams side by side.
    trains: Vec<(usize, Vec<u8>)>,
    /// Each train is sent once; otherwise they are sent over and over.
    is_once: bool,
    /// The number of addresses they come from.
    sources: usize,
}

impl Ammunition {
    /// Makes what `kind` sends. `burst` says which of the peers the attacker is, in which trial,
    /// and how many packets it seals if it seals any.
    ///
    /// # Errors
    /// When the peer has no session.
    pub fn new(
        kind: Kind,
        world: &World,
        peers: &mut Peers,
        burst: &Burst,
    ) -> anyhow::Result<Self> {
        let burst = Burst {
            size: SMALL,
            ..*burst
        };
        let once = |trains| Self {
            trains,
            is_once: true,
            sources: 1,
        };
        Ok(match kind {
            Kind::Truncated => Self::repeated((4..32).map(|len| data(u32::MAX, len))),
            Kind::Oversized => Self {
                trains: vec![(20_000, data(u32::MAX, 20_000))],
                is_once: false,
                sources: 1,
            },
            Kind::WrongLength => {
                let shapes = [(1, 147), (1, 149), (2, 91), (3, 65), (9, 148), (0, 32)];
                Self::repeated(shapes.into_iter().map(|(kind, len)| message(kind, len)))
            }
            // No slot of worker 0 is that high with fewer than 65,280 peers.
            Kind::WrongIndex => Self::repeated((0..64).map(|n| data(0x00ff_0000 | n << 8, FULL))),
            Kind::WrongKey => {
                let sample = peers.seal(&Burst { count: 1, ..burst })?;
                let index = sample[0].get(4..8).and_then(|bytes| bytes.first_chunk());
                let index = u32::from_le_bytes(*index.context("no data message")?);
                Self::repeated(std::iter::once(data(index, FULL)))
            }
            Kind::Replayed => Self {
                trains: trains(&peers.seal(&Burst {
                    count: 256,
                    ..burst
                })?),
                is_once: false,
                sources: 1,
            },
            Kind::Duplicated => {
                let sealed = peers.seal(&burst)?;
                once(trains(
                    &sealed
                        .iter()
                        .flat_map(|one| [one.clone(), one.clone()])
                        .collect::<Vec<_>>(),
                ))
            }
            Kind::Reordered => {
                let mut sealed = peers.seal(&burst)?;
                sealed.chunks_mut(TURNED).for_each(<[_]>::reverse);
                once(trains(&sealed))
            }
            Kind::HandshakeOneSource => Self::repeated(initiations(world)),
            Kind::HandshakeManySources => Self {
                sources: SOURCES,
                ..Self::repeated(initiations(world))
            },
        })
    }

    fn repeated(datagrams: impl Iterator<Item = Vec<u8>>) -> Self {
        Self {
            trains: datagrams
                .map(|one| (one.len(), one.repeat(TRAIN)))
                .collect(),
            is_once: false,
            sources: 1,
        }
    }
}

/// Datagrams of one length, in trains.
fn trains(datagrams: &[Vec<u8>]) -> Vec<(usize, Vec<u8>)> {
    let len = datagrams.first().map_or(0, Vec::len);
    datagrams
        .chunks(TRAIN)
        .map(|some| (len, some.concat()))
        .collect()
}

/// A message of a type: its length is all that is right about it, if that.
fn message(kind: u8, len: usize) -> Vec<u8> {
    let mut message: Vec<u8> = (0..=255).cycle().take(len).collect();
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message
}

/// A data message for a session: the counter is one that no window has reached.
fn data(index: u32, len: usize) -> Vec<u8> {
    let mut message = message(4, len.max(16));
    message[4..8].copy_from_slice(&index.to_le_bytes());
    message[8..16].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    message.truncate(len);
    message
}

/// Right in everything, but of peers that nobody knows: the dearest there are.
fn initiations(world: &World) -> impl Iterator<Item = Vec<u8>> {
    let edge = x25519::PublicKey::from(world.edge_key.0);
    (0..INITIATIONS).filter_map(move |n| {
        let secret = x25519::StaticSecret::from([n | 1 << 7; 32]);
        let mut message = [0; 256];
        let mut tunn = Tunn::new(secret, edge, None, None, n.into(), None);
        let made = tunn.format_handshake_initiation(&mut message, false);
        let TunnResult::WriteToNetwork(message) = made else {
            return None;
        };
        Some(message.to_vec())
    })
}

/// Sockets of an attacker. To be made in its namespace, where all of 10.80.0.0/16 is local.
#[derive(Debug)]
pub struct Attacker {
    sockets: Vec<Socket>,
}

impl Attacker {
    /// Binds a socket to each of its addresses.
    ///
    /// # Errors
    /// Those of bind(2); with too few file descriptors, for instance.
    pub fn new() -> anyhow::Result<Self> {
        let bind = |number: usize| {
            let [high, low] = u16::try_from(number)?.to_be_bytes();
            let address = SocketAddr::from((Ipv4Addr::new(10, 80, high, low), 40_000));
            Socket::bind(address).with_context(|| format!("cannot bind {address}"))
        };
        Ok(Self {
            sockets: (0..SOURCES).map(bind).collect::<Result<_, _>>()?,
        })
    }

    /// Sends for some time: `rate` datagrams a second, or as many as it can with 0.
    /// Returns how many.
    ///
    /// # Errors
    /// Those of sendmsg(2).
    pub fn fire(
        &mut self,
        what: &Ammunition,
        to: SocketAddr,
        rate: u64,
        duration: Duration,
    ) -> anyhow::Result<u64> {
        let begin = clock::now();
        let (mut sent, mut turn) = (0, 0);
        while !(what.is_once && turn >= what.trains.len()) {
            let elapsed = clock::now() - begin;
            if elapsed >= duration {
                break;
            }
            let due = u128::from(rate) * elapsed.as_nanos() / 1_000_000_000;
            if rate > 0 && u128::from(sent) > due {
                ppoll(
                    &mut [],
                    Some(TimeSpec::from(Duration::from_micros(100))),
                    None,
                )?;
                continue;
            }
            let (len, train) = &what.trains[turn % what.trains.len()];
            let socket = &mut self.sockets[turn % what.sources];
            socket
                .send(to, *len, train)
                .with_context(|| format!("cannot send to {to}"))?;
            sent += u64::try_from(train.len() / len)?;
            turn += 1;
        }
        Ok(sent)
    }
}
