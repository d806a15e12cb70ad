//! IPsec: ESP SAs in tunnel mode, and IKEv2 ([`ike`]) that makes them, as state machines.
//!
//! In: inner packets, ESP packets, keys, the time. Out: ESP packets, inner packets. State: a worker
//! owns its [`sad::Sad`] and the SAs in it, and the [`sa::Outbound`] halves of its tunnels. Nothing
//! here allocates per packet.
//!
//! An SPI that we give out is `worker (8 bits) | slot (24 bits)`: in a datagram on the shared port,
//! the first byte names the worker.

pub mod cipher;
pub mod ike;
pub mod lifetime;
pub mod sa;
pub mod sad;
#[cfg(test)]
mod tests;
pub mod window;

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
