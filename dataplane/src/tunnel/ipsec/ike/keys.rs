//! Keys out of secrets: the pseudorandom function and all that RFC 7296 derives with it.

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::tunnel::ipsec::cipher::{Cipher, Transform};

/// A pseudorandom function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prf {
    /// HMAC-SHA2-256.
    Sha256,
    /// HMAC-SHA2-384.
    Sha384,
}

impl Prf {
    /// Its number in a transform.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha256 => 5,
            Self::Sha384 => 6,
        }
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
        }
    }

    /// `prf(key, parts)`.
    #[must_use]
    pub fn of(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        prf(self.algorithm(), key, parts)
    }

    /// The first `len` bytes of `prf+(key, seed)`.
    #[must_use]
    pub fn plus(self, key: &[u8], seed: &[&[u8]], len: usize) -> Vec<u8> {
        prf_plus(self.algorithm(), key, seed, len)
    }

    /// Bytes that it gives, and that its keys have.
    #[must_use]
    pub fn output_len(self) -> usize {
        self.algorithm().digest_algorithm().output_len()
    }
}

fn prf(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().to_vec()
}

/// RFC 7296 section 2.13. At most 255 blocks: `len` is a few hundred bytes.
fn prf_plus(algorithm: hmac::Algorithm, key: &[u8], seed: &[&[u8]], len: usize) -> Vec<u8> {
    let key = hmac::Key::new(algorithm, key);
    let (mut stream, mut block) = (Vec::with_capacity(len + 48), Vec::new());
    for number in 1..=u8::MAX {
        if stream.len() >= len {
            break;
        }
        let mut context = hmac::Context::with_key(&key);
        context.update(&block);
        for part in seed {
            context.update(part);
        }
        context.update(&[number]);
        block = context.sign().as_ref().to_vec();
        stream.extend(&block);
    }
    stream.truncate(len);
    stream
}

/// What keys are derived from besides a secret.
#[derive(Clone, Debug)]
pub(super) struct Nonces {
    /// The nonce of who asked.
    pub(super) initiator: Vec<u8>,
    /// The nonce of who answered.
    pub(super) responder: Vec<u8>,
}

impl Nonces {
    /// The lower of the two, by which simultaneous exchanges are told apart (RFC 7296 section
    /// 2.8.1).
    #[must_use]
    pub(super) fn lowest(&self) -> &[u8] {
        self.initiator.as_slice().min(&self.responder)
    }
}

/// The keys of an IKE SA.
#[derive(Debug)]
pub(super) struct Keys {
    /// The function that derives further ones.
    pub(super) prf: Prf,
    /// Where those of children and of the successor come from.
    pub(super) d: Vec<u8>,
    /// What the initiator protects messages with.
    pub(super) initiator: Cipher,
    /// What the responder protects messages with.
    pub(super) responder: Cipher,
    /// What the initiator proves its identity with.
    pub(super) pi: Vec<u8>,
    /// What the responder proves its identity with.
    pub(super) pr: Vec<u8>,
}

impl Keys {
    /// The seed of a new SA's keys: `prf(Ni | Nr, g^ir)` (RFC 7296 section 2.14).
    #[must_use]
    pub(super) fn seed(prf: Prf, nonces: &Nonces, shared: &[u8]) -> Vec<u8> {
        let key = [&nonces.initiator[..], &nonces.responder].concat();
        prf.of(&key, &[shared])
    }

    /// The seed of a successor's keys: `prf(SK_d, g^ir | Ni | Nr)` (RFC 7296 section 2.18).
    #[must_use]
    pub(super) fn rekey_seed(&self, nonces: &Nonces, shared: &[u8]) -> Vec<u8> {
        let parts = [shared, &nonces.initiator, &nonces.responder];
        self.prf.of(&self.d, &parts)
    }

    /// All keys of an SA.
    #[must_use]
    pub(super) fn derive(
        (prf, cipher): (Prf, Transform),
        seed: &[u8],
        nonces: &Nonces,
        spis: (u64, u64),
    ) -> Self {
        // The order is SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr.
        let mac_len = if cipher.is_aead() { 0 } else { 32 };
        let key_len = cipher.key_len() - mac_len;
        let lengths = [
            prf.output_len(),
            mac_len,
            mac_len,
            key_len,
            key_len,
            prf.output_len(),
            prf.output_len(),
        ];
        let (initiator, responder) = (spis.0.to_be_bytes(), spis.1.to_be_bytes());
        let seeds = [
            &nonces.initiator[..],
            &nonces.responder,
            &initiator,
            &responder,
        ];
        let stream = prf.plus(seed, &seeds, lengths.iter().sum());
        let mut rest = &stream[..];
        let [d, ai, ar, ei, er, pi, pr] = lengths.map(|len| {
            let (part, behind) = rest.split_at(len);
            rest = behind;
            part
        });
        let keyed = |key: &[u8], mac: &[u8]| {
            Cipher::new(cipher, &[key, mac].concat()).expect("cut to the transform's length")
        };
        Self {
            prf,
            d: d.to_vec(),
            initiator: keyed(ei, ai),
            responder: keyed(er, ar),
            pi: pi.to_vec(),
            pr: pr.to_vec(),
        }
    }

    /// The keys of a child: what the initiator of the exchange sends with, then what the responder
    /// does (RFC 7296 section 2.17). `shared` is that of a key exchange, or empty.
    #[must_use]
    pub(super) fn child(
        &self,
        nonces: &Nonces,
        shared: &[u8],
        cipher: Transform,
    ) -> (Vec<u8>, Vec<u8>) {
        let seed = [shared, &nonces.initiator, &nonces.responder];
        let mut stream = self.prf.plus(&self.d, &seed, 2 * cipher.key_len());
        let responder = stream.split_off(cipher.key_len());
        (stream, responder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2);
        let text = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
        text.map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    }

    /// NIST's vector for SP 800-135 (IKEv2, SHA-1, the first one). No published one has a SHA2 that
    /// we offer; the construction is the same.
    #[test]
    fn prf_plus_makes_what_nist_published() {
        let sha1 = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
        let (ni, nr) = (hex("32b50d5f4a3763f3"), hex("9206a04b26564cb1"));
        let (spi_i, spi_r) = (hex("34c9e7c188868785"), hex("3ff77d760d2b2199"));
        let shared = hex("4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52");
        let shared_new = hex("863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330");
        let seed = prf(sha1, &[&ni[..], &nr].concat(), &[&shared]);
        assert_eq!(seed, hex("a9a7b222b59f8f48645f28a1db5b5f5d7479cba7"));
        let stream = prf_plus(sha1, &seed, &[&ni, &nr, &spi_i, &spi_r], 132);
        assert_eq!(
            stream,
            hex(concat!(
                "a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002a2a63080e514a062",
                "768b76606f9fa5e992204fc5a670bde3f10d6b027113936a5c55b648a194ae587b0088d52204b702",
                "c979fa280870d2ed41efa9c549fd11198af1670b143d384bd275c5f594cf266b05ebadca855e4249",
                "520a441a81157435a7a56cc4",
            ))
        );
        let d = &stream[..20];
        let child = prf_plus(sha1, d, &[&ni, &nr], 20);
        assert_eq!(child, hex("8059e3ee8810e6c3a91bc8bcd2a7a41151b8d0e6"));
        let child = prf_plus(sha1, d, &[&shared_new, &ni, &nr], 20);
        assert_eq!(child, hex("bb43244c1860ad65ee1e211ffe8bb3661750c8f8"));
        let rekeyed = prf(sha1, d, &[&shared_new, &ni, &nr]);
        assert_eq!(rekeyed, hex("63e81194946ebd05df7df5ebf5d8750056bf1f1d"));
    }
}
