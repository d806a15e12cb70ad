//! Our side of a handshake: a private key, and what has to be true before its holder does any work.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};
use boringtun::x25519;

use crate::tunnel::Refusal;

use super::{PrivateKey, PublicKey};

/// Handshake messages a second with a right mac1 that are worked on without a cookie. At 140 µs each
/// (measured) that is 3.5 % of a core.
const HANDSHAKES_PER_SECOND: u64 = 250;

/// Length of a cookie reply (WireGuard protocol, section "Under Load: Cookie Reply Message").
pub(super) const COOKIE_REPLY_LEN: usize = 64;

/// What the gate says to a handshake message.
pub(super) enum Gate {
    /// It is for this identity, and welcome.
    Open,
    /// It is for another identity.
    NotOurs,
    /// There are too many: this reply asks the sender to prove its address.
    Cookie([u8; COOKIE_REPLY_LEN]),
}

/// One private key, shared by the peers of one account.
pub(super) struct Identity {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    gate: RateLimiter,
    /// Given to each `Tunn`, which looks at mac1 again: it must not count a message twice.
    unlimited: Arc<RateLimiter>,
    /// Peers that use it.
    pub(super) peers: usize,
}

impl Identity {
    pub(super) fn new(private: &PrivateKey) -> Self {
        let secret = x25519::StaticSecret::from(private.0);
        let public = x25519::PublicKey::from(&secret);
        Self {
            gate: RateLimiter::new(&public, HANDSHAKES_PER_SECOND),
            unlimited: Arc::new(RateLimiter::new(&public, u64::MAX)),
            secret,
            public,
            peers: 0,
        }
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey(self.public.to_bytes())
    }

    pub(super) fn secret(&self) -> x25519::StaticSecret {
        self.secret.clone()
    }

    pub(super) fn unlimited(&self) -> Arc<RateLimiter> {
        Arc::clone(&self.unlimited)
    }

    /// To be called about once a second: the gate counts per second.
    pub(super) fn reset(&self) {
        self.gate.reset_count();
    }

    /// Looks at mac1, and under load at mac2.
    pub(super) fn gate(&self, from: SocketAddr, datagram: &[u8]) -> Result<Gate, Refusal> {
        let mut reply = [0; COOKIE_REPLY_LEN];
        match self
            .gate
            .verify_packet(Some(cookie_address(from)), datagram, &mut reply)
        {
            Ok(_) => Ok(Gate::Open),
            Err(TunnResult::WriteToNetwork(_)) => Ok(Gate::Cookie(reply)),
            Err(TunnResult::Err(boringtun::noise::errors::WireGuardError::InvalidMac)) => {
                Ok(Gate::NotOurs)
            }
            Err(_) => Err(Refusal::Malformed),
        }
    }

    /// Who says to have sent an initiation that the gate let in.
    pub(super) fn initiator(&self, packet: &Packet<'_>) -> Result<PublicKey, Refusal> {
        let Packet::HandshakeInit(init) = packet else {
            return Err(Refusal::Malformed);
        };
        boringtun::noise::handshake::parse_handshake_anon(&self.secret, &self.public, init)
            .map(|half| PublicKey(half.peer_static_public))
            .map_err(|_error| Refusal::Invalid)
    }
}

/// The address that a cookie is bound to: address *and* port, as the protocol wants, folded into
/// the 16 bytes that boringtun takes. Two senders share a cookie only inside one IPv6 /112.
fn cookie_address(from: SocketAddr) -> IpAddr {
    let bits = match from.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits() << 16,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    IpAddr::V6(Ipv6Addr::from_bits(bits ^ u128::from(from.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_bound_to_address_and_port() {
        let of = |text: &str| cookie_address(text.parse().unwrap());
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.1:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.0:0"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8::1]:2"));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::1]:1"));
    }
}
