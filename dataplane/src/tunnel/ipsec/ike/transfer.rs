//! An IKE SA goes to another worker: its peer has said that it is a peer of that one.
//!
//! A first request says where it comes from and nothing else, so the worker of whoever is configured at
//! that address answers it. Who it is comes with IKE_AUTH. A tunnel of another worker then gets all
//! that was said so far, and goes on with it as if it had answered the first request itself. SPIs of an
//! IKE SA cannot be changed, so its messages go on coming to the first worker, until it is rekeyed: that
//! one keeps who has it, for peers that have proved who they are.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::id::{TunnelId, WorkerId};
use crate::wire::ikev2::Header;
use crate::wire::ikev2::payload::{self, Id};

use super::auth;
use super::config::{Config, Identity};
use super::context::Context;
use super::event::Path;
use super::init::{self, Agreed};
use super::keys::Nonces;
use super::notify::Parts;
use super::sa::Sa;
use super::stage::Stage;
use super::suite;

/// SAs of one tunnel that a worker keeps the place of: one that is up, its successor where both sides
/// began at once, and as many of a peer that began anew without a word. The oldest goes first.
const KEPT_MAX: usize = 4;

/// What is for another worker.
#[derive(Debug)]
pub enum Passed {
    /// A message of an SA that went there.
    Message(Vec<u8>),
    /// An SA, for [`super::Endpoint::take_over`].
    Sa(Vec<u8>),
}

/// The peers of other workers. Cardinality: one per endpoint.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    peers: BTreeMap<TunnelId, Peer>,
    /// Who has which of the SAs that began here.
    places: BTreeMap<u64, WorkerId>,
    out: VecDeque<(WorkerId, Path, Passed)>,
}

#[derive(Debug)]
struct Peer {
    owner: WorkerId,
    config: Config,
    /// Its SAs in `places`, oldest first.
    kept: VecDeque<u64>,
}

impl Elsewhere {
    /// Notes a peer, in place of what it was.
    pub(super) fn enter(&mut self, tunnel: TunnelId, owner: WorkerId, config: Config) {
        let is_known = |peer: &Peer| peer.owner == owner && peer.config == config;
        if self.peers.get(&tunnel).is_some_and(is_known) {
            return;
        }
        self.leave(tunnel);
        let kept = VecDeque::new();
        let peer = Peer {
            owner,
            config,
            kept,
        };
        self.peers.insert(tunnel, peer);
    }

    /// Forgets a peer.
    pub(super) fn leave(&mut self, tunnel: TunnelId) {
        for spi in self.peers.remove(&tunnel).into_iter().flat_map(|p| p.kept) {
            self.places.remove(&spi);
        }
    }

    /// All peers.
    pub(super) fn configs(&self) -> impl Iterator<Item = (TunnelId, &Config)> {
        let peers = self.peers.iter();
        peers.map(|(tunnel, peer)| (*tunnel, &peer.config))
    }

    /// The tunnel whose peer has this identity.
    fn peer(&self, id: Id<'_>) -> Option<(TunnelId, &Config)> {
        let identity = Identity::parse(id)?;
        let mut peers = self.peers.iter();
        let (tunnel, peer) = peers.find(|(_, peer)| peer.config.is_peer(&identity))?;
        Some((*tunnel, &peer.config))
    }

    /// Passes a message on whose SA went to another worker. False when none did.
    pub(super) fn pass(&mut self, spi: u64, path: Path, message: &[u8]) -> bool {
        let Some(owner) = self.places.get(&spi) else {
            return false;
        };
        let message = Passed::Message(message.to_vec());
        self.out.push_back((*owner, path, message));
        true
    }

    /// The next thing for another worker.
    pub(super) fn poll(&mut self) -> Option<(WorkerId, Path, Passed)> {
        self.out.pop_front()
    }

    /// Has an SA go to the owner of a tunnel. Its place is kept if the peer proved who it is: what
    /// strangers say takes no memory, and of one tunnel's SAs nothing that is another's goes.
    fn send(
        &mut self,
        (tunnel, is_proved): (TunnelId, bool),
        (ours, path): (u64, Path),
        bytes: Vec<u8>,
    ) {
        let Some(peer) = self.peers.get_mut(&tunnel) else {
            return;
        };
        self.out.push_back((peer.owner, path, Passed::Sa(bytes)));
        if !is_proved {
            return;
        }
        if peer.kept.len() >= KEPT_MAX
            && let Some(oldest) = peer.kept.pop_front()
        {
            self.places.remove(&oldest);
        }
        peer.kept.push_back(ours);
        self.places.insert(ours, peer.owner);
    }
}

/// Sends the SA to the worker of the peer that its IKE_AUTH, decrypted, says it is. False when that is
/// none of another worker.
pub(super) fn leave(sa: &mut Sa, context: &mut Context, (first, plain): (u8, &[u8])) -> bool {
    let Ok(payloads) = payload::parse(first, plain) else {
        return false;
    };
    let Stage::Answered(signed, _) = &sa.stage else {
        return false;
    };
    let parts = Parts::of(&payloads).unwrap_or_default();
    let Some(id) = parts.id_i.filter(|id| context.peer(*id).is_none()) else {
        return false;
    };
    let Some((tunnel, config)) = context.elsewhere.peer(id) else {
        return false;
    };
    let is_proved = signed.is_proved(true, sa, &config.psk, &parts);
    if is_proved {
        context.note_place(tunnel, sa.path.remote.ip());
    }
    let flags = [
        sa.is_in_udp,
        sa.is_peer_behind_nat,
        sa.are_we_behind_nat,
        sa.can_fragment,
    ];
    let mut bytes: Vec<u8> = flags.map(u8::from).to_vec();
    // No number is used twice under the keys of the SA.
    bytes.extend(sa.expected.to_be_bytes());
    bytes.extend(sa.iv_next.to_be_bytes());
    for part in [&signed.shared, &signed.request, &signed.response] {
        let len = u16::try_from(part.len()).expect("a part of a datagram");
        bytes.extend(len.to_be_bytes());
        bytes.extend(part);
    }
    bytes.push(first);
    bytes.extend(plain);
    let name = (sa.ours, sa.path);
    context.elsewhere.send((tunnel, is_proved), name, bytes);
    sa.stage = Stage::Dead;
    true
}

/// Goes on with an SA that another worker sent. `None` when the bytes are none.
pub(super) fn arrive(context: &mut Context, path: Path, bytes: &[u8], now: Instant) -> Option<Sa> {
    let (flags, rest) = bytes.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<4>()?;
    let (iv_next, mut rest) = rest.split_first_chunk::<8>()?;
    let mut part = || {
        let (len, behind) = rest.split_first_chunk()?;
        let (part, behind) = behind.split_at_checked(u16::from_be_bytes(*len).into())?;
        rest = behind;
        Some(part.to_vec())
    };
    let (shared, request, response) = (part()?, part()?, part()?);
    let (first, plain) = rest.split_first()?;
    let initiator = said(&request)?.nonce;
    let answer = said(&response)?;
    let nonces = Nonces {
        initiator,
        responder: answer.nonce,
    };
    let mut sa = Sa::new(context, false, path, now);
    (sa.ours, sa.theirs) = (answer.header.responder_spi, answer.header.initiator_spi);
    sa.expected = u32::from_be_bytes(*expected);
    sa.iv_next = u64::from_be_bytes(*iv_next);
    [
        sa.is_in_udp,
        sa.is_peer_behind_nat,
        sa.are_we_behind_nat,
        sa.can_fragment,
    ] = flags.map(|flag| flag != 0);
    let agreed = Agreed {
        suite: answer.suite?,
        nonces,
        shared,
    };
    let signed = init::agree(&mut sa, agreed, request, response);
    sa.stage = Stage::Answered(Box::new(signed), now);
    let payloads = payload::parse(*first, plain).ok()?;
    auth::request(&mut sa, context, &payloads, now);
    Some(sa)
}

/// What is needed of a message of the first exchange.
struct Said {
    header: Header,
    nonce: Vec<u8>,
    suite: Option<suite::IkeSuite>,
}

fn said(message: &[u8]) -> Option<Said> {
    let (header, first, body) = Header::parse(message).ok()?;
    let payloads = payload::parse(first, body).ok()?;
    let parts = Parts::of(&payloads)?;
    Some(Said {
        header,
        nonce: parts.nonce?.to_vec(),
        suite: suite::chosen_ike(parts.sa?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::ipsec::ike::tests::config;

    fn path() -> Path {
        let at = |host| ([192, 0, 2, host], 500).into();
        Path {
            local: at(1),
            remote: at(2),
        }
    }

    fn two_peers() -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        for tunnel in [1, 2] {
            elsewhere.enter(TunnelId(tunnel), WorkerId(3), config(1));
        }
        elsewhere
    }

    #[test]
    fn of_each_tunnel_the_newest_four_are_kept_and_others_lose_none() {
        let mut elsewhere = two_peers();
        elsewhere.send((TunnelId(1), true), (100, path()), Vec::new());
        for spi in 200..1000 {
            elsewhere.send((TunnelId(2), true), (spi, path()), Vec::new());
        }
        assert_eq!(elsewhere.places.len(), 1 + KEPT_MAX);
        for (spi, is_kept) in [(100, true), (200, false), (995, false), (996, true)] {
            assert_eq!(elsewhere.pass(spi, path(), &[1]), is_kept, "{spi}");
        }
    }

    #[test]
    fn who_has_not_proved_who_he_is_leaves_nothing_behind() {
        let mut elsewhere = two_peers();
        elsewhere.send((TunnelId(1), false), (100, path()), vec![1]);
        assert!(matches!(
            elsewhere.poll(),
            Some((WorkerId(3), _, Passed::Sa(_)))
        ));
        assert!(!elsewhere.pass(100, path(), &[1]));
        assert!(elsewhere.poll().is_none());
    }

    #[test]
    fn a_tunnel_that_changes_or_goes_takes_its_places_along() {
        let mut elsewhere = two_peers();
        for tunnel in [1, 2] {
            let spi = u64::from(tunnel);
            elsewhere.send((TunnelId(tunnel), true), (spi, path()), Vec::new());
        }
        elsewhere.enter(TunnelId(1), WorkerId(3), config(1));
        assert!(elsewhere.pass(1, path(), &[1]), "nothing has changed");
        elsewhere.enter(TunnelId(1), WorkerId(4), config(1));
        elsewhere.leave(TunnelId(2));
        assert!(!elsewhere.pass(1, path(), &[1]) && !elsewhere.pass(2, path(), &[1]));
        assert!(elsewhere.places.is_empty());
    }
}
