//! What an IKE SA is made of: how far it is, its children, what it asks and has to ask.

use std::time::Instant;

use crate::wire::esp::Spi;
use crate::wire::ikev2::payload::Selector;

use super::dh::Private;
use super::{auth, child, init, rekey};

/// Something to ask of the peer when no other request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// The child of a pair of the config.
    NewChild(usize),
    RekeyChild(Spi),
    DeleteChild(Spi),
    RekeyIke,
    DeleteIke,
    Dpd,
}

/// What a request that is under way asks for.
#[derive(Debug)]
pub(super) enum What {
    Init,
    Auth,
    RekeyChild(Box<child::Asked>),
    DeleteChild(Spi),
    RekeyIke(Box<rekey::Asked>),
    DeleteIke,
    Dpd,
}

/// A child SA.
#[derive(Clone, Debug)]
pub(super) struct Child {
    /// Which pair of the config it carries.
    pub(super) pair: usize,
    pub(super) spi_in: Spi,
    pub(super) spi_out: Spi,
    pub(super) local_ts: Vec<Selector>,
    pub(super) remote_ts: Vec<Selector>,
    pub(super) rekey_at: Instant,
    /// When its SAs are past their hard lifetime.
    pub(super) expires_at: Instant,
    /// The child that takes over when this one is deleted.
    pub(super) successor: Option<Spi>,
    pub(super) is_deleting: bool,
}

/// How far an SA is.
#[derive(Debug)]
pub(super) enum Stage {
    /// The first request is sent.
    Init(Box<init::Asked>),
    /// The first request is answered; the peer has until the time to say who it is.
    Answered(Box<auth::Signed>, Instant),
    /// We said who we are.
    Auth(Box<auth::Signed>, Spi),
    /// Both did.
    Up,
    /// Children live in a successor; it waits for its deletion, not for longer than the time.
    Replaced(Instant),
    /// To be forgotten.
    Dead,
}

impl Child {
    /// Whether it is neither replaced nor being deleted.
    pub(super) fn is_current(&self) -> bool {
        self.successor.is_none() && !self.is_deleting
    }

    /// When there is something to do about it.
    pub(super) fn due_at(&self) -> Option<Instant> {
        if self.is_deleting {
            return None;
        }
        let rekey_at = self.is_current().then_some(self.rekey_at);
        Some(rekey_at.map_or(self.expires_at, |at| at.min(self.expires_at)))
    }

    /// What is to be done about it: a successor, or its end when none could be had.
    pub(super) fn due(&self, now: Instant) -> Option<Task> {
        if self.due_at().is_none_or(|at| now < at) {
            return None;
        }
        if now >= self.expires_at {
            return Some(Task::DeleteChild(self.spi_in));
        }
        Some(Task::RekeyChild(self.spi_in))
    }
}

/// A private value and its nonce, of a request that is under way.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) nonce: Vec<u8>,
    pub(super) private: Option<Private>,
}
