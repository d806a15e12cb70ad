//! What failed, for the log of whoever runs the node, and what of it is for customers.
//!
//! A peer is known by the identity that it gave. Of somebody without one (no common proposal in the
//! first exchange), or with an unknown one, only the address is known, which several customers may have
//! configured and which anybody can forge: whoever that is, what he says of himself is for the
//! operator alone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::id::TunnelId;
use crate::tunnel::bucket::{Bucket, Rate};

use super::ike::Failure;

/// What waits for the log: it is taken after every batch.
const WAITING_MAX: usize = 16;

/// Failures that are written down, of those with a tunnel and of those without: what somebody makes us
/// look up and write has an end. The others are counted.
const WRITTEN: Rate = Rate {
    interval: Duration::from_secs(1),
    burst: 8,
};

/// A failure as the node's operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The tunnel whose peer it says it is; `None` when it did not say, or nobody is that.
    pub tunnel: Option<TunnelId>,
    /// Where it came from.
    pub remote: SocketAddr,
    /// What happened.
    pub why: String,
}

/// Failures of one device.
#[derive(Debug, Default)]
pub(super) struct Failures {
    waiting: VecDeque<Failed>,
    strangers: u64,
    buckets: [Bucket; 2],
}

impl Failures {
    /// Notes a failure. False when there were too many to write this one down.
    pub(super) fn take(
        &mut self,
        tunnel: Option<TunnelId>,
        remote: SocketAddr,
        failure: &Failure,
        now: Instant,
    ) -> bool {
        self.strangers += u64::from(tunnel.is_none());
        if !self.buckets[usize::from(tunnel.is_none())].take(WRITTEN, now) {
            return false;
        }
        if self.waiting.len() < WAITING_MAX {
            let why = failure.to_string();
            self.waiting.push_back(Failed {
                tunnel,
                remote,
                why,
            });
        }
        true
    }

    /// How many failures had no tunnel.
    pub(super) fn strangers(&self) -> u64 {
        self.strangers
    }

    pub(super) fn poll(&mut self) -> Option<Failed> {
        self.waiting.pop_front()
    }
}
