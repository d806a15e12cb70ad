//! IPsec: ESP SAs in tunnel mode, and IKEv2 ([`ike`]) that makes them, as state machines.
//!
//! In: inner packets, ESP packets, IKE messages, keys, the time. Out: ESP packets, inner packets, IKE
//! messages. State: a worker's [`Device`] owns its tunnels, its [`ike::Endpoint`], and the SAs of both
//! directions. Nothing here allocates per packet.
//!
//! A tunnel, its IKE SA and its children belong to one worker, which follows from the peer's address
//! ([`Config::owner`]): a first request names nothing else. All later messages and packets carry an
//! SPI that we gave out. What arrives at another worker is handed to the owner by the node. A first
//! request may be another tunnel's than its address says: its IKE SA goes to the owner when the peer says
//! who it is ([`ike::Passed`]).
//!
//! An SPI that we give out is `worker (8 bits) | slot (24 bits)`, and one of IKE begins with the worker
//! too: the kernel steers by that byte.

pub mod cipher;
mod config;
mod device;
mod directory;
mod failures;
pub mod ike;
pub mod lifetime;
mod outgoing;
pub mod sa;
pub mod sad;
mod status;
#[cfg(test)]
mod tests;
mod tunnel;
pub mod window;

pub use config::{Config, Encapsulation, IkeKeying, Keying, PutError, StaticKeying};
pub use device::{Device, Slot, TUNNELS_MAX};
pub use failures::Failed;
pub use status::{ChildStatus, IkeStatus, Status};

use super::Refusal;

/// Why an SA did not take a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discard {
    /// Too short for a header, an initialization vector, a trailer and an ICV; or a reserved SPI.
    Truncated,
    /// No SA has this SPI.
    SpiUnknown,
    /// Its sequence number came before, is too old, or is 0.
    Replay,
    /// It did not authenticate.
    Forged,
    /// Authentic, but with padding that is not what RFC 4303 section 2.4 asks for.
    Padding,
    /// Authentic, but a dummy packet: its sender has nothing to say.
    Dummy,
    /// Authentic, but something other than an IP packet in tunnel mode.
    NextHeader,
    /// No IP packet, or not of the version or length that it should have.
    NotIp,
    /// The SA is past its hard lifetime, or out of sequence numbers.
    Expired,
    /// The buffer for the ESP packet is too short.
    NoRoom,
}

impl From<Discard> for Refusal {
    fn from(discard: Discard) -> Self {
        match discard {
            Discard::Truncated => Self::Malformed,
            Discard::SpiUnknown => Self::IndexUnknown,
            Discard::Replay => Self::Replay,
            Discard::Forged => Self::Invalid,
            Discard::Padding => Self::Padding,
            Discard::Dummy => Self::Dummy,
            Discard::NextHeader | Discard::NotIp => Self::NotIp,
            Discard::Expired => Self::Expired,
            Discard::NoRoom => Self::OutboxFull,
        }
    }
}
