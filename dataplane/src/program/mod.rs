//! The northbound: what the control plane wants this node to be, and how it changes.
//!
//! In: a [`Spec`] (desired state) or a [`Delta`] between two of them. Out: writes to the tables and
//! tunnel changes for the workers. State: the applied [`Spec`], owned by the program thread.

mod spec;

pub use spec::{Change, Delta, Key, Route, RouteKey, Spec, Tunnel, Vnet};
