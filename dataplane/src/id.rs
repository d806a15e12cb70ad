//! Names of things, as numbers: one type each, so that one is never passed for another.

use std::fmt;

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
