//! Whose handshake it is: our identities, and the peers of every worker by their keys.

use std::collections::HashMap;
use std::net::SocketAddr;

use boringtun::noise::Packet;

use crate::id::TunnelId;
use crate::packet::{Outbox, Way};
use crate::tunnel::Refusal;

use super::device::{Slot, free};
use super::identity::{Gate, Identity};
use super::{PrivateKey, PublicKey};

/// Where a peer's sessions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Here.
    Here(Slot),
    /// At the worker that owns this tunnel.
    At(TunnelId),
}

/// All identities, and all peers of the node. Every worker has one: an initiation names its peer
/// only to who decrypts it, so it can arrive at any of them.
#[derive(Default)]
pub(super) struct Directory {
    identities: Vec<Option<Identity>>,
    /// By our public key and the peer's.
    by_keys: HashMap<(PublicKey, PublicKey), Place>,
}

impl Directory {
    /// Where the peer with these keys is.
    pub(super) fn place(&self, ours: PublicKey, peer: PublicKey) -> Option<Place> {
        self.by_keys.get(&(ours, peer)).copied()
    }

    /// Takes a peer in, and gives the index of its identity.
    pub(super) fn enter(&mut self, key: &PrivateKey, peer: PublicKey, place: Place) -> usize {
        let ours = key.public();
        let known = self
            .identities
            .iter()
            .position(|one| one.as_ref().is_some_and(|one| one.public() == ours));
        let at = known.unwrap_or_else(|| free(&mut self.identities));
        let identity = self.identities[at].get_or_insert_with(|| Identity::new(key));
        identity.peers += 1;
        self.by_keys.insert((ours, peer), place);
        at
    }

    /// Forgets a peer, and its identity if no other uses it.
    pub(super) fn leave(&mut self, identity: usize, peer: PublicKey) {
        let place = &mut self.identities[identity];
        let one = place.as_mut().expect("a peer has its identity");
        self.by_keys.remove(&(one.public(), peer));
        one.peers -= 1;
        if one.peers == 0 {
            *place = None;
        }
    }

    /// How many identities an initiation may have to be tried with.
    pub(super) fn identities(&self) -> usize {
        self.identities.len()
    }

    pub(super) fn identity(&self, at: usize) -> Option<&Identity> {
        self.identities.get(at)?.as_ref()
    }

    /// To be called about once a second: gates count per second.
    pub(super) fn reset(&self) {
        for identity in self.identities.iter().flatten() {
            identity.reset();
        }
    }

    /// The peer that an initiation names, if one of our identities lets it in.
    pub(super) fn initiator(
        &self,
        from: SocketAddr,
        datagram: &[u8],
        packet: &Packet<'_>,
        out: &mut Outbox,
    ) -> Result<Place, Refusal> {
        for (at, place) in self.identities.iter().enumerate() {
            let Some(identity) = place else { continue };
            match self.pass_gate(at, from, datagram, out) {
                Ok(()) => {
                    let peer = identity.initiator(packet)?;
                    let place = self.place(identity.public(), peer);
                    return place.ok_or(Refusal::UnknownPeer);
                }
                Err(Refusal::UnknownIdentity) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::UnknownIdentity)
    }

    /// Looks at the cheap proofs of a handshake message, and asks for one under load.
    pub(super) fn pass_gate(
        &self,
        identity: usize,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let identity = self.identity(identity).ok_or(Refusal::UnknownIdentity)?;
        match identity.gate(from, datagram)? {
            Gate::Open => Ok(()),
            Gate::NotOurs => Err(Refusal::UnknownIdentity),
            Gate::Cookie(reply) => {
                let way = Way::wireguard(from);
                let room = out.reserve(way, reply.len()).ok_or(Refusal::OutboxFull)?;
                room[..reply.len()].copy_from_slice(&reply);
                out.commit(reply.len());
                Err(Refusal::CookieSent)
            }
        }
    }
}
