//! Everything that touches the system: clock, TUN, UDP, kernel routes, worker thread, handle.
//!
//! In: packets from the TUN and from UDP sockets, commands from the [`Handle`]. Out: packets, status.
//! State: a worker thread owns its node, TUN queue and sockets; the handle owns what the kernel was
//! told. Nothing here decides about a packet: that is [`crate::node`].

pub mod clock;
mod sys;
pub mod tun;
pub mod udp;
pub mod routes;
