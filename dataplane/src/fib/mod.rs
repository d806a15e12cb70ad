//! Routes: destination to group of next hops, per vnet, and the return table over 100.64.0.0/12.
//!
//! In: writes by one writer. Out: lock-free look-ups by any worker. State: shared, each leaf atomic;
//! what a writer took out is reused or freed when no reader that is pinned can still see it.

mod arena;
mod atomic;
pub mod group;
pub mod lpm;
#[cfg(portcullis_loom)]
#[cfg(test)]
mod models;
mod nexthop;
pub mod publish;
mod reserve;
pub mod return_table;
pub mod routes;
#[cfg(not(portcullis_loom))]
#[cfg(test)]
mod under_readers;

pub use nexthop::{CANDIDATES_MAX, Candidate, Candidates, CandidatesError, Nexthop};
pub use publish::{Guard, pin};
