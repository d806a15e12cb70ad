//! Everything that touches the system: clock, TUN, UDP, kernel routes, worker thread, handle.
//!
//! In: packets from the TUN, from UDP and raw IP sockets, commands from the handle. Out: packets, status.
//! State: each worker thread owns its node, TUN queue and sockets; the handle owns what the kernel was
//! told. Nothing here decides about a packet: that is [`crate::node`].

pub mod clock;
mod sys;
mod steer;
pub mod tun;
pub mod udp;
pub mod routes;
mod counters;
mod raw;
mod reports;
mod port;
mod ether;
mod endpoints;
mod exchange;
pub mod user;
mod overlay;
mod appetite;
mod worker;
mod links;
mod line;
mod devices;
mod handle;
mod health;
mod setup;
mod listen;

pub use counters::{Counters, CountersSnapshot};
pub use endpoints::Endpoint;
pub use handle::Handle;
pub use setup::{FlowLimits, Overlay, Router, RouterConfig, SetupError};
pub use tun::{TunBackend, TunConfig};
