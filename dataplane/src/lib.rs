//! Packets: routing tables, tunnels, the node as a state machine, and the workers that drive it.
//!
//! Modules are listed in dependency order: each names only those above it.

pub mod id;
pub mod wire;
pub mod packet;
pub mod fib;
pub mod source;
pub mod tunnel;
pub mod flow;
pub mod program;
pub mod node;
pub mod io;
