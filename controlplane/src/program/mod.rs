//! From what exists to what a node is told.
//!
//! In: a snapshot, or two of them; which node, and when. Out: the node's desired state, or the step from one
//! to the other; the same always gives the same. State: none.

mod build;
mod delta;
mod ipsec;

pub use build::{Here, allowed, spec};
pub use delta::delta;
