//! From what exists to what a node is told.
//!
//! In: a snapshot. Out: the node's desired state; the same snapshot always gives the same. State: none.

mod build;

pub use build::{allowed, spec};
