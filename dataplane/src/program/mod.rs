//! The northbound: what the control plane wants this node to be, and how it changes.
//!
//! In: a [`Spec`] (desired state) or a [`Delta`] between two of them. Out: writes to the tables and
//! tunnel changes for the workers. State: the applied [`Spec`] and the write sides of all tables,
//! owned by the [`Programmer`] of the program thread; [`Tables`] are what everybody reads.

mod apply;
#[cfg(test)]
mod apply_tests;
pub mod health;
mod interface;
mod paths;
mod penalties;
mod relay;
mod show;
mod spec;
mod tables;
mod vnet;

pub use apply::{Applied, Programmer, TunnelChange};
pub use interface::{INTERFACES_MAX, far_side};
pub(crate) use paths::KEPT_FOR as PATH_KEPT_FOR;
pub use paths::Paths;
pub use relay::{Relay, Relays};
pub use show::{FibRow, ReturnOwner, ReturnRow, SourceRow};
pub use spec::{Change, Delta, Key, Route, RouteKey, Spec, Tunnel, Vnet};
pub use tables::{Tables, VnetTables};
