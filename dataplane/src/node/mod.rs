//! The router as a state machine: no socket, no clock, no thread.

mod status;

pub use status::TunnelStatus;
