//! From what exists to what a node is told.
//!
//! In: a snapshot, or two of them. Out: the node's desired state, or the step from one to the other; the
//! same snapshots always give the same. State: none.

mod build;
mod delta;
mod ipsec;

pub use build::{allowed, spec};
pub use delta::delta;
