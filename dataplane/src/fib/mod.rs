//! Longest-prefix match: destination to next hop, per vnet, and the return table over 100.64.0.0/12.
//!
//! In: writes by one writer. Out: wait-free look-ups by any worker. State: shared, each leaf atomic.

mod nexthop;

pub use nexthop::Nexthop;
