//! IKEv2 with pre-shared keys (RFC 7296), as a state machine.
//!
//! In: messages with their path, the time, randomness. Out: messages, events, the next timeout.
//! State: an [`Endpoint`] per worker owns its peers, their IKE SAs, and the inbound ESP SAs that
//! come of them; outbound halves go to the driver with [`Event::ChildUp`]. It knows the peers of other
//! workers too: where one of them begins here, its IKE SA goes there (`transfer`).
//!
//! Each side has one request under way at a time. An IKE SA is asked for (`init`), authenticates
//! (`auth`), and is up; then it makes successors of its children (`child`) and of itself (`rekey`),
//! deletes, and asks whether the peer lives (`inform`). A successor is made before the old one
//! goes, and packets of the old one are taken for 5 seconds more, so that a rekey loses none: who
//! asked sends by the successor from the answer on, who answered from the deletion of the old one
//! on.
//!
//! What a stranger can cost: [`HALF_OPEN_MAX`] half-open SAs for 30 seconds, and from
//! [`COOKIES_FROM`] on only from where it is reachable; a private and a shared key of its first
//! request each.

mod auth;
mod child;
mod config;
mod cookie;
mod context;
pub mod dh;
mod endpoint;
mod event;
mod inform;
mod init;
mod keys;
mod notify;
mod rekey;
mod sa;
mod sealed;
mod selector;
mod stage;
mod suite;
#[cfg(test)]
mod tests;
mod transfer;

pub use config::{Config, EspOffer, FURTHER_MAX, Identity, IkeOffer, Pair, Psk, Times, everything};
pub use context::Random;
pub use endpoint::{COOKIES_FROM, Counters, Endpoint, HALF_OPEN_MAX, Status};
pub use event::{ChildUp, Event, Failure, Path, Transmit};
pub use keys::Prf;
pub use suite::IkeSuite;
pub use transfer::Passed;
