//! Flows to private origins without a kernel: TCP and UDP as state machines, one worker's worth.
//!
//! In: [`Flows::connect`], `send`, `recv`, `shutdown`, `release` from the owner of a flow; packets
//! that the node delivers to a source address; the time. Out: packets for the node, by
//! `poll_transmit`; what happened to a flow, by `poll_event`. State: one [`Flows`] per worker owns
//! its flows, their buffers, ports and timers.
//!
//! TCP itself is smoltcp's. Its socket set walks all its sockets for each packet, so here every
//! flow has a set of its own with one socket in it; which flow a packet is for is one look-up by
//! 5-tuple ([`table`]), and when a flow wants to be polled again is kept in a timing wheel
//! ([`wheel`]). The cost of a packet does not depend on how many flows there are.
//!
//! What it costs against the kernel's TCP: a loss is noticed by three duplicate acknowledgements
//! or by a timeout of at least one second, the selective acknowledgements of the other side are
//! not used, the window is the configured buffer, and the path's MTU must be that of the tunnel.

mod counters;
mod face;
mod header;
mod icmp;
mod input;
mod link;
mod stack;
mod table;
mod tcp;
mod udp;
mod wheel;
#[cfg(test)]
pub(crate) mod tests;

pub use counters::Counters;
pub(crate) use counters::counters;
pub use face::{
    Config, Connect, ConnectError, Ended, Event, FlowId, Happened, Protocol, RecvError, SendError,
};
pub use stack::Flows;
