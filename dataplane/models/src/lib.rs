//! The tables of `dataplane/src/fib` once more, with loom's atomics, for the models in `fib/models.rs`.
//!
//! A package of its own, because loom's cfg is for a whole build: this one needs a dozen crates where
//! the dataplane needs two hundred. `testbed/models.sh` runs it.
#![cfg(portcullis_loom)]

#[path = "../../src/fib/mod.rs"]
pub mod fib;
#[path = "../../src/id.rs"]
pub mod id;
