//! HTTP: from a request on an accepted connection to an origin's response, or an error page of ours.
//!
//! In: downstream connections from `listen`. Out: requests to origins through `handoff`. Pingora
//! reads, writes and pools; the gate decides. State of a request is in its `Visit`.

mod buffered;
mod accept;
mod engine;
mod fault;
mod gate;
mod headers;
mod host;
mod page;
mod ray;

pub(crate) use accept::{Door, serve};
pub(crate) use engine::engine;
pub(crate) use gate::Gate;

#[cfg(test)]
mod tests;
