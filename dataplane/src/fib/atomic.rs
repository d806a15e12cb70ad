//! The atomics that tables are made of: the machine's, or under `cfg(portcullis_loom)` the model's.

#[cfg(portcullis_loom)]
pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(portcullis_loom))]
pub(super) use std::sync::atomic::{AtomicU32, Ordering};
