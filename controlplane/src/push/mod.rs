//! From one control plane to many nodes: what exists, as objects, over TLS with certificates on both sides.
//!
//! In: snapshots at the control plane. Out: the same objects at each node, as a snapshot that the
//! node compiles for itself, and the control plane's knowledge of what each node has taken. State: at the
//! control plane, what each node said last and a few snapshots; at the node, the objects and a copy on
//! its disk.
//!
//! A control plane keeps no queue for a node: it remembers the snapshot that it sent last, and what is
//! sent next is the difference to the newest. So a slow node gets fewer and larger steps, and costs as
//! much memory as one frame.

mod apply;
mod dial;
mod fleet;
mod frame;
mod identity;
mod lease;
mod listen;
mod message;
mod session;
#[cfg(test)]
mod tests;

pub use dial::{Follow, Following, Tunnels};
pub use fleet::Fleet;
pub use identity::{Bundle, IdentityError, enrol};
pub(crate) use lease::{Holder, Relay, check_free, grant, of as lease_of};
pub use listen::{ListenError, Listening};
