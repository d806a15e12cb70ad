//! How long an SA lives: by packets, by bytes and by time, with a soft and a hard limit each.

use std::time::{Duration, Instant};

/// One set of limits. An SA has reached it when it has reached any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets.
    pub packets: u64,
    /// Bytes of inner packets.
    pub bytes: u64,
    /// Time since the SA was made.
    pub time: Duration,
}

/// When an SA is to be replaced, and when it is dead (RFC 4301 section 4.4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// From here on a successor is wanted.
    pub soft: Limits,
    /// From here on nothing passes.
    pub hard: Limits,
}

impl Default for Lifetime {
    /// An hour, 2^62 bytes and three quarters of the sequence numbers that there are without ESN;
    /// dead 6 minutes later, which is time for several attempts to rekey.
    fn default() -> Self {
        Self {
            soft: Limits {
                packets: 3 << 30,
                bytes: 1 << 62,
                time: Duration::from_secs(3600),
            },
            hard: Limits {
                packets: u64::MAX,
                bytes: u64::MAX,
                time: Duration::from_secs(3960),
            },
        }
    }
}

impl Lifetime {
    /// Of static keys, which are changed by nobody but their operators.
    #[must_use]
    pub fn forever() -> Self {
        let limits = Limits {
            packets: u64::MAX,
            bytes: u64::MAX,
            time: Duration::MAX,
        };
        Self {
            soft: limits,
            hard: limits,
        }
    }
}

/// Where an SA is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// All is well.
    Fresh,
    /// Past its soft limit.
    Due,
    /// Past its hard limit.
    Dead,
}

/// What an SA has done, held against its lifetime.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    lifetime: Lifetime,
    soft_at: Option<Instant>,
    hard_at: Option<Instant>,
    packets: u64,
    bytes: u64,
}

impl Meter {
    /// A meter of an SA that is made now.
    #[must_use]
    pub fn new(lifetime: Lifetime, now: Instant) -> Self {
        Self {
            lifetime,
            soft_at: now.checked_add(lifetime.soft.time),
            hard_at: now.checked_add(lifetime.hard.time),
            packets: 0,
            bytes: 0,
        }
    }

    /// Counts a packet.
    pub fn count(&mut self, bytes: usize) {
        self.packets = self.packets.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Packets counted.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Bytes counted.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the SA is in its life.
    #[must_use]
    pub fn phase(&self, now: Instant) -> Phase {
        let is_past = |limits: Limits, at: Option<Instant>| {
            self.packets >= limits.packets
                || self.bytes >= limits.bytes
                || at.is_some_and(|at| now >= at)
        };
        if is_past(self.lifetime.hard, self.hard_at) {
            Phase::Dead
        } else if is_past(self.lifetime.soft, self.soft_at) {
            Phase::Due
        } else {
            Phase::Fresh
        }
    }
}
