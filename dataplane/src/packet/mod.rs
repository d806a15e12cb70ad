//! Packets in memory: offload metadata, splitting, coalescing, trains of datagrams.
//!
//! In: super-packets from the overlay, inner packets out of tunnels. Out: single packets to encap,
//! and an [`Outbox`] of trains and super-packets for the driver to send, each train with its [`Way`]. Each worker owns one
//! `Outbox`; all of its memory is allocated when it is made.

mod way;
mod offload;
mod split;
mod fragment;
mod coalesce;
mod train;
mod handover;
mod outbox;

pub use fragment::{Fragments, may_cut};
pub use handover::{BATCHES_MAX, Batch, PARCELS_MAX, Parcel};
pub use offload::{Offload, PartialChecksum, Segmentation, VNET_HDR_LEN};
pub use outbox::{Exit, Outbox, Transmit};
pub use split::{Segments, cut_stream};
pub use way::{Carrier, Way};

#[cfg(test)]
mod tests;
