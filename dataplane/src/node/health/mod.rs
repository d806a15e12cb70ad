//! Health of tunnels: probes through them, and what follows from the answers.
//!
//! In: how each tunnel of this worker is to be probed, the time, echo messages that came out of
//! tunnels. Out: probes to send, and states as they change. State: one [`Prober`] per worker.
//!
//! A probe is an ICMP echo inside the tunnel: a request that the far side answers, or a ready-made
//! reply from the far side's address to ours, which its router only routes back. Who can fake an
//! answer could keep a dead tunnel in use, or another's: an answer must come out of the tunnel that
//! was probed, and carries a code over tunnel, vnet, identifier and sequence under this worker's key.
//!
//! A unidirectional probe is between the outer ends instead, and its answer comes past the tunnel: by a
//! raw socket, to the worker that its identifier names.
//!
//! States ([`State`]): a tunnel begins `unknown`, is `healthy` with the first answer, `degraded` with
//! the second failed probe in five minutes, `down` when a probe and the two that follow it at once all
//! fail. From `down` some answers in a row lead to `degraded`, and a time without failure from there
//! to `healthy`: it doubles with each relapse, so that a tunnel that flaps does not take its flows
//! along each time.

mod history;
mod monitor;
mod nonce;
mod prober;
#[cfg(test)]
mod tests;

pub use history::{HealthStatus, Reason, Transition};
pub use nonce::ProbeKey;
pub use prober::HealthChange;
pub(super) use prober::{Answer, PROBE_LEN_MAX, Path, Prober};
