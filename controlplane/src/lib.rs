//! What exists: accounts, zones, records, vnets, routes, tunnels, apps; durable, and served over HTTP.
//!
//! In: API requests. Out: a node's desired state ([`ControlPlane::spec`]) and the proxy's answers
//! ([`origin`]). State: the store, and a snapshot of it in memory for reads.

pub mod origin;
mod open;
mod status;

pub use open::{ControlPlane, OpenError, Options};
pub use status::{NoNode, NodeStatus};
