//! Keys in the form `wg` prints and reads.

use std::fmt;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

/// A key that did not parse: 32 bytes of standard base64 are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 bytes in base64 (44 characters ending in '=')")]
pub struct ParseKeyError;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $debug:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The key in the base64 form that `wg` prints and reads.
            pub fn to_base64(&self) -> String {
                base64::engine::general_purpose::STANDARD.encode(self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseKeyError;

            fn from_str(s: &str) -> Result<Self, ParseKeyError> {
                base64::engine::general_purpose::STANDARD
                    .decode(s)
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or(ParseKeyError)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseKeyError;

            fn try_from(s: String) -> Result<Self, ParseKeyError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(key: $name) -> String {
                key.to_base64()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let debug: fn(&$name) -> String = $debug;
                f.write_str(&debug(self))
            }
        }
    };
}

key!(
    /// An X25519 private key. `Debug` never shows it.
    PrivateKey, |_| "PrivateKey(..)".into()
);
key!(
    /// An X25519 public key.
    PublicKey, |key| key.to_base64()
);
key!(
    /// A WireGuard preshared key. `Debug` never shows it.
    PresharedKey, |_| "PresharedKey(..)".into()
);

impl PrivateKey {
    /// The public half.
    pub fn public(&self) -> PublicKey {
        let secret = boringtun::x25519::StaticSecret::from(self.0);
        PublicKey(boringtun::x25519::PublicKey::from(&secret).to_bytes())
    }
}
