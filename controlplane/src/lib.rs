//! What exists: accounts, zones, records, vnets, routes, tunnels, apps; durable, and served over HTTP.
//!
//! In: API requests. Out: a node's desired state ([`ControlPlane::spec`]), the proxy's answers
//! ([`origin`]) and those of the DNS server ([`dns`]). State: the store, and a snapshot of it in memory for reads.
//!
//! Modules are listed in dependency order: each names only those above it.

#[cfg(test)]
mod scratch;

mod keys;

pub mod model;

mod status;

pub mod rib;

pub mod store;

mod uses;

pub mod program;

pub mod dns;

pub mod origin;

pub mod push;

mod options;

mod api;

mod open;

pub use keys::{Keys, MasterKey, ParseMasterKeyError};
pub use open::{ControlPlane, HoldError, Holding, NewTokenError, OpenError, open_store, rekey};
pub use options::Options;
pub use status::{NoNode, NodeSeen, NodeStatus, Progress};
