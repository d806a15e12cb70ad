//! A routing load of our own: stamped packets through a real edge, to and from WireGuard peers.
//!
//! In: a [`World`] that is up (namespaces, an edge, its peers' keys), and what to send. Out: loss,
//! order, duplicates, latency ([`Meter`]), the edge's own counters, and rows for a report. State:
//! two threads, one in the edge's namespace with kernel sockets ([`Overlay`]), one in the peers'
//! with a WireGuard peer per socket ([`Peers`]); both drive the same loop ([`drive`]).

pub mod api;
pub mod attack;
pub mod cases;
pub mod drive;
pub mod edge;
pub mod histogram;
pub mod meter;
pub mod overlay;
pub mod pair;
pub mod peers;
pub mod search;
pub mod siege;
pub mod stamp;
pub mod table;
pub mod world;

pub use drive::{Offer, Outcome};
pub use meter::Meter;
pub use overlay::Overlay;
pub use pair::{Pair, Run, Trial};
pub use peers::Peers;
pub use world::World;
