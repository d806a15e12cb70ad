//! Authoritative DNS: what the zones answer to a question.
//!
//! In: a snapshot of what exists, who the edge is, a question. Out: records for each section of the
//! answer. State: none. Sockets, limits and the form of messages are the proxy's, which asks through
//! [`Authority`] and so does not know where the snapshot comes from.

mod answer;
mod node;
mod resolve;

pub use answer::{Authority, Edge, Owner, Question, Rcode, Reply, Rr, types};
pub(crate) use node::{Found, delegation, find, zone_of};
pub use resolve::answer;
