//! Packets: routing tables, tunnels, the node as a state machine, and the workers that drive it.
//!
//! Modules are listed in dependency order: each names only those above it.

pub mod id;
pub mod program;
