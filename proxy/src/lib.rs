//! Clients: sockets, DNS, HTTP and Spectrum relays, the route to an origin, its name in a private
//! network, and the hand-off to it.
//!
//! Modules are listed in dependency order: each names only those above it.

pub mod counters;
pub mod config;
mod congestion;
pub mod handoff;
pub mod route;
mod resolve;
pub mod listen;
mod dns;
pub mod l4;
pub mod l7;
mod proxy;

pub use crate::config::{DnsLimits, Limits, ProxyConfig, Timeouts};
pub use crate::counters::CountersSnapshot;
pub use crate::proxy::{Proxy, StartError, Upstreams};
