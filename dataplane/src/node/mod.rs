//! The router as a state machine: no socket, no clock, no thread.
//!
//! In: packets from the overlay, datagrams from the underlay, tunnel changes, the time. Out: what
//! `poll_transmit` and `poll_event` give. State: one worker owns a [`Node`] with its tunnels, outbox
//! and counters; the tables belong to the program thread and are only read.
//!
//! Egress (overlay to underlay) is `egress.rs`, ingress (underlay to overlay) `ingress.rs`. Two facts keep
//! vnets apart, whatever is configured: a packet's vnet comes from the source address that we lent, or from
//! the tunnel that authenticated it, never from the packet's other fields; and a tunnel takes only
//! packets of its own vnet. What came out of a tunnel at another node (`relay.rs`) has the vnet that the node
//! says, and must be for a source address that we lent to that one.

mod counters;
mod drop;
mod egress;
mod ends;
mod entry;
mod flows;
mod health;
mod icmp;
mod ingress;
mod path;
mod relay;
mod router;
mod status;
#[cfg(test)]
mod tests;

pub use crate::tunnel::Event;
pub use counters::{Counters, CountersSnapshot};
pub use drop::DropReason;
pub use entry::LocalPorts;
pub use health::{HealthChange, HealthStatus, ProbeKey, Reason, Transition};
pub use router::{Node, NodeConfig, Role};
pub use status::TunnelStatus;
