//! Diffie-Hellman groups. Curves are ring's; MODP-2048 is crypto-bigint's constant-time Montgomery
//! form.
//!
//! One impurity: ring draws private keys of curves from the system itself.

use std::fmt;

use crypto_bigint::modular::{MontyForm, MontyParams};
use crypto_bigint::{Odd, U384, U2048};
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};

/// A key exchange group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// 14: MODP of 2048 bits (RFC 3526), for equipment that has no curves.
    Modp2048,
    /// 19: NIST P-256 (RFC 5903).
    P256,
    /// 20: NIST P-384 (RFC 5903).
    P384,
    /// 31: Curve25519 (RFC 8031).
    X25519,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::X25519, Self::P384, Self::P256, Self::Modp2048];

    /// Its number in a transform.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::P256 => 19,
            Self::P384 => 20,
            Self::X25519 => 31,
        }
    }

    /// The group of a number.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.id() == id)
    }

    const fn curve(self) -> Option<&'static agreement::Algorithm> {
        match self {
            Self::Modp2048 => None,
            Self::P256 => Some(&agreement::ECDH_P256),
            Self::P384 => Some(&agreement::ECDH_P384),
            Self::X25519 => Some(&agreement::X25519),
        }
    }
}

/// A private value that is used once, with its public value.
pub struct Private {
    group: Group,
    secret: Secret,
    public: Vec<u8>,
}

enum Secret {
    Curve(EphemeralPrivateKey),
    Modp(Box<U384>),
}

/// The first byte of an uncompressed point, which IKE leaves out (RFC 5903 section 7).
const UNCOMPRESSED: u8 = 4;

impl Private {
    /// A new one. `None` when the system gives no randomness.
    #[must_use]
    pub fn generate(group: Group, random: &mut dyn FnMut(&mut [u8])) -> Option<Self> {
        let (secret, public) = match group.curve() {
            Some(curve) => {
                let secret = EphemeralPrivateKey::generate(curve, &SystemRandom::new()).ok()?;
                let public = secret.compute_public_key().ok()?;
                let public = match group {
                    Group::P256 | Group::P384 => public.as_ref().strip_prefix(&[UNCOMPRESSED])?,
                    Group::X25519 | Group::Modp2048 => public.as_ref(),
                };
                (Secret::Curve(secret), public.to_vec())
            }
            None => {
                // RFC 3526 section 8: 320 bits suffice for this group's strength.
                let mut bytes = [0; 48];
                random(&mut bytes[8..]);
                bytes[8] |= 0x80;
                let secret = U384::from_be_slice(&bytes);
                let public = modp_pow(&U2048::from_u8(2), &secret);
                (Secret::Modp(Box::new(secret)), public)
            }
        };
        Some(Self {
            group,
            secret,
            public,
        })
    }

    /// Its group.
    #[must_use]
    pub fn group(&self) -> Group {
        self.group
    }

    /// The public value.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret shared with the owner of a public value. `None` when that is none of the group,
    /// or one that would give a known secret (RFC 6989).
    #[must_use]
    pub fn agree(self, theirs: &[u8]) -> Option<Vec<u8>> {
        match self.secret {
            Secret::Curve(secret) => {
                let point = match self.group {
                    Group::P256 | Group::P384 => [&[UNCOMPRESSED], theirs].concat(),
                    Group::X25519 | Group::Modp2048 => theirs.to_vec(),
                };
                let theirs = UnparsedPublicKey::new(self.group.curve()?, point);
                agreement::agree_ephemeral(secret, &theirs, <[u8]>::to_vec).ok()
            }
            Secret::Modp(secret) => {
                if theirs.len() != MODP_LEN {
                    return None;
                }
                let theirs = U2048::from_be_slice(theirs);
                let greatest = modp_prime().wrapping_sub(&U2048::ONE);
                let is_sound = theirs > U2048::ONE && theirs < greatest;
                is_sound.then(|| modp_pow(&theirs, &secret))
            }
        }
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Private").field(&self.group).finish()
    }
}

/// Bytes of a number of the MODP group.
const MODP_LEN: usize = 256;

/// The prime of group 14 (RFC 3526 section 3): 2^2048 - 2^1984 - 1 + 2^64 * ([2^1918 pi] + 124476).
fn modp_prime() -> U2048 {
    U2048::from_be_hex(concat!(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74",
        "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437",
        "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
        "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05",
        "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB",
        "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
        "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718",
        "3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    ))
}

fn modp_pow(base: &U2048, exponent: &U384) -> Vec<u8> {
    let modulus = Odd::new(modp_prime()).expect("the prime is odd");
    // The modulus is public; the exponentiation is constant-time.
    let params = MontyParams::new_vartime(modulus);
    let power = MontyForm::new(base, params).pow(exponent).retrieve();
    power.to_be_bytes().to_vec()
}
