//! Cookies: under load, a stranger first proves that it is where it says (RFC 7296 section 2.6).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ring::hmac;
use subtle::ConstantTimeEq;

/// How long a secret makes cookies; for as long again it is still known.
const SECRET_LIFE: Duration = Duration::from_secs(60);
/// Bytes of a secret.
const SECRET_LEN: usize = 32;

/// Makes and knows cookies, and keeps nothing about who got them.
#[derive(Debug)]
pub(super) struct Cookies {
    current: hmac::Key,
    previous: hmac::Key,
    made_at: Instant,
}

impl Cookies {
    pub(super) fn new(random: &mut dyn FnMut(&mut [u8]), now: Instant) -> Self {
        Self {
            current: secret(random),
            previous: secret(random),
            made_at: now,
        }
    }

    /// The cookie for a first request.
    pub(super) fn make(
        &mut self,
        random: &mut dyn FnMut(&mut [u8]),
        about: (u64, &[u8], IpAddr),
        now: Instant,
    ) -> Vec<u8> {
        if now >= self.made_at + SECRET_LIFE {
            self.previous = std::mem::replace(&mut self.current, secret(random));
            self.made_at = now;
        }
        of(&self.current, about)
    }

    /// Whether a cookie is one of ours, for this very request.
    pub(super) fn knows(&self, cookie: &[u8], about: (u64, &[u8], IpAddr)) -> bool {
        [&self.current, &self.previous]
            .into_iter()
            .any(|key| bool::from(of(key, about).ct_eq(cookie)))
    }
}

fn secret(random: &mut dyn FnMut(&mut [u8])) -> hmac::Key {
    let mut bytes = [0; SECRET_LEN];
    random(&mut bytes);
    hmac::Key::new(hmac::HMAC_SHA256, &bytes)
}

fn of(key: &hmac::Key, (spi, nonce, from): (u64, &[u8], IpAddr)) -> Vec<u8> {
    let mut mac = hmac::Context::with_key(key);
    mac.update(&spi.to_be_bytes());
    match from {
        IpAddr::V4(address) => mac.update(&address.octets()),
        IpAddr::V6(address) => mac.update(&address.octets()),
    }
    mac.update(nonce);
    mac.sign().as_ref().to_vec()
}
