//! The source address names the vnet: slices of 100.64.0.0/12, leases, and the way back.
//!
//! In: the vnets that are active on this node. Out: one IPv4 and one IPv6 address for each, and the
//! vnet of an address. State: [`Leases`], owned by the program thread; [`Sources`], a snapshot of
//! them that anyone reads.

mod lease;
mod range;
mod slice;
mod sources;

pub use lease::{Leases, NoAddressLeft};
pub use range::{Range, RangeError};
pub use slice::{
    RANGE_V4, RANGE_V6, SLICE_LEN, SLICES, Slice, SliceError, is_source, to_v4, to_v6,
};
pub use sources::Sources;
