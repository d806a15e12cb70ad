//! Names of things, as numbers: one type each, so that one is never passed for another.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A virtual network. The control plane numbers them 1..=65535 and never reuses a number while
    /// others are left; 0 names no network.
    VnetId(u16), "vnet"
);
id!(
    /// A tunnel to a private network. Numbered by the control plane, never reused.
    TunnelId(u32), "tunnel"
);
id!(
    /// An edge node: the index of its slice of the source range (256 slices of a /20).
    NodeId(u8), "node"
);
id!(
    /// A packet worker of a node: the index of its /24 inside the node's slice.
    WorkerId(u8), "worker"
);

/// A map by tunnel for the packet path. Tunnels are numbered by the control plane, so nobody can
/// choose numbers that collide; std's hash costs 15 ns more a look-up (measured).
pub type TunnelMap<T> = HashMap<TunnelId, T, BuildHasherDefault<NumberHasher>>;

/// Hashes one number by a multiplication (Knuth, TAOCP 6.4).
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        #[cfg(test)]
        LOOKUPS.with(|lookups| lookups.set(lookups.get() + 1));
        // Tables take the low bits for the place: the high ones are the good ones.
        self.0.rotate_left(32)
    }
}

#[cfg(test)]
thread_local! {
    /// Look-ups by tunnel that this thread has made: what a packet costs is counted, not timed.
    pub(crate) static LOOKUPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How many workers a node has, 1..=[`Workers::MAX`]. Which of them owns what follows from it alone:
/// nobody has to be asked, and nothing has to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Workers(u8);

impl Workers {
    /// Most workers of a node: a return table entry has 6 bits for one.
    pub const MAX: u8 = 64;
    /// One worker.
    pub const ONE: Self = Self(1);

    /// This many workers; `None` for none, or for more than [`Workers::MAX`].
    pub const fn new(count: u8) -> Option<Self> {
        if count >= 1 && count <= Self::MAX {
            Some(Self(count))
        } else {
            None
        }
    }

    /// How many there are.
    pub const fn count(self) -> u8 {
        self.0
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = WorkerId> {
        (0..self.0).map(WorkerId)
    }

    /// The owner of a tunnel: of its sessions, timers and counters.
    pub fn owner(self, tunnel: TunnelId) -> WorkerId {
        let place = tunnel.0.wrapping_sub(1) % u32::from(self.0);
        WorkerId(u8::try_from(place).expect("a remainder of at most 64 fits into 8 bits"))
    }

    /// Whether there is such a worker.
    pub fn has(self, worker: WorkerId) -> bool {
        worker.0 < self.0
    }
}

impl TryFrom<u8> for Workers {
    type Error = &'static str;

    fn try_from(count: u8) -> Result<Self, Self::Error> {
        Self::new(count).ok_or("workers: give 1 to 64")
    }
}

impl From<Workers> for u8 {
    fn from(workers: Workers) -> u8 {
        workers.0
    }
}
