//! Algorithms of an IPsec tunnel, by the names that strongSwan has for them. Ours.

use serde::{Deserialize, Serialize};

use crate::model::fields::echo;
use crate::model::{Fields, Refusal};

/// Something chosen by name.
trait Named: Copy + PartialEq + 'static {
    /// Every name, with what it means.
    const NAMES: &'static [(&'static str, Self)];
}

/// Encryption, with what authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cipher {
    /// AES-GCM, 128 bits, ICV of 16 bytes.
    Aes128Gcm16,
    /// AES-GCM, 256 bits, ICV of 16 bytes.
    Aes256Gcm16,
    /// ChaCha20-Poly1305.
    Chacha20Poly1305,
    /// AES-CBC, 256 bits, HMAC-SHA2-256.
    Aes256CbcSha256,
}

/// Key derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prf {
    /// HMAC-SHA2-256.
    Sha256,
    /// HMAC-SHA2-384.
    Sha384,
}

/// Key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// 14.
    Modp2048,
    /// 19.
    P256,
    /// 20.
    P384,
    /// 31.
    X25519,
}

impl Named for Cipher {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("aes128gcm16", Self::Aes128Gcm16),
        ("aes256gcm16", Self::Aes256Gcm16),
        ("chacha20poly1305", Self::Chacha20Poly1305),
        ("aes256-sha256", Self::Aes256CbcSha256),
    ];
}

impl Named for Prf {
    const NAMES: &'static [(&'static str, Self)] =
        &[("prfsha256", Self::Sha256), ("prfsha384", Self::Sha384)];
}

impl Named for Group {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("modp2048", Self::Modp2048),
        ("ecp256", Self::P256),
        ("ecp384", Self::P384),
        ("x25519", Self::X25519),
    ];
}

/// Protection of IKE messages, best first of each kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeOffer {
    /// Encryption.
    pub ciphers: Vec<Cipher>,
    /// Key derivation.
    pub prfs: Vec<Prf>,
    /// Key exchange.
    pub groups: Vec<Group>,
    /// Age at which we rekey.
    pub lifetime_secs: u32,
    /// Silence after which we ask whether the peer lives.
    pub dpd_secs: u16,
}

/// Protection of packets, best first of each kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EspOffer {
    /// Encryption.
    pub ciphers: Vec<Cipher>,
    /// Key exchange of rekeys; none for keys that come from those of the IKE SA.
    pub groups: Vec<Group>,
    /// Whether sequence numbers have 64 bits.
    pub has_esn: bool,
    /// Age at which we rekey.
    pub lifetime_secs: u32,
}

impl Default for IkeOffer {
    fn default() -> IkeOffer {
        IkeOffer {
            ciphers: vec![
                Cipher::Aes256Gcm16,
                Cipher::Aes128Gcm16,
                Cipher::Aes256CbcSha256,
            ],
            prfs: vec![Prf::Sha256, Prf::Sha384],
            groups: vec![Group::X25519, Group::P384, Group::P256, Group::Modp2048],
            lifetime_secs: 4 * 3600,
            dpd_secs: 30,
        }
    }
}

impl Default for EspOffer {
    fn default() -> EspOffer {
        EspOffer {
            ciphers: vec![
                Cipher::Aes128Gcm16,
                Cipher::Aes256Gcm16,
                Cipher::Chacha20Poly1305,
                Cipher::Aes256CbcSha256,
            ],
            groups: Vec::new(),
            has_esn: false,
            lifetime_secs: 3600,
        }
    }
}

impl IkeOffer {
    /// Reads `ike`; what is not given stays as it was.
    ///
    /// # Errors
    /// An algorithm that is unknown, or none.
    pub fn read(fields: &mut Fields, old: IkeOffer) -> Result<IkeOffer, Refusal> {
        let Some(mut inner) = fields.object("ike")? else {
            return Ok(old);
        };
        let read = IkeOffer {
            ciphers: names(&mut inner, "ciphers")?.unwrap_or(old.ciphers),
            prfs: names(&mut inner, "prfs")?.unwrap_or(old.prfs),
            groups: names(&mut inner, "groups")?.unwrap_or(old.groups),
            lifetime_secs: inner
                .integer("lifetime_secs", 300..=86_400)?
                .unwrap_or(old.lifetime_secs),
            dpd_secs: inner.integer("dpd_secs", 5..=3600)?.unwrap_or(old.dpd_secs),
        };
        for (name, is_empty) in [
            ("ciphers", read.ciphers.is_empty()),
            ("prfs", read.prfs.is_empty()),
            ("groups", read.groups.is_empty()),
        ] {
            if is_empty {
                return Err(inner.refuse(name, format!("'{name}' needs at least one.")));
            }
        }
        inner.finish()?;
        Ok(read)
    }

    /// As the API shows it.
    pub fn show(&self) -> serde_json::Value {
        serde_json::json!({
            "ciphers": shown(&self.ciphers),
            "prfs": shown(&self.prfs),
            "groups": shown(&self.groups),
            "lifetime_secs": self.lifetime_secs,
            "dpd_secs": self.dpd_secs,
        })
    }
}

impl EspOffer {
    /// Reads `esp`; what is not given stays as it was.
    ///
    /// # Errors
    /// An algorithm that is unknown, or no cipher.
    pub fn read(fields: &mut Fields, old: EspOffer) -> Result<EspOffer, Refusal> {
        let Some(mut inner) = fields.object("esp")? else {
            return Ok(old);
        };
        let read = EspOffer {
            ciphers: names(&mut inner, "ciphers")?.unwrap_or(old.ciphers),
            groups: names(&mut inner, "groups")?.unwrap_or(old.groups),
            has_esn: inner.boolean("esn")?.unwrap_or(old.has_esn),
            lifetime_secs: inner
                .integer("lifetime_secs", 300..=86_400)?
                .unwrap_or(old.lifetime_secs),
        };
        if read.ciphers.is_empty() {
            return Err(inner.refuse("ciphers", "'ciphers' needs at least one."));
        }
        inner.finish()?;
        Ok(read)
    }

    /// As the API shows it.
    pub fn show(&self) -> serde_json::Value {
        serde_json::json!({
            "ciphers": shown(&self.ciphers),
            "groups": shown(&self.groups),
            "esn": self.has_esn,
            "lifetime_secs": self.lifetime_secs,
        })
    }
}

fn names<T: Named>(fields: &mut Fields, name: &str) -> Result<Option<Vec<T>>, Refusal> {
    let Some(texts) = fields.strings(name, 32)? else {
        return Ok(None);
    };
    let mut chosen = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let Some((_, value)) = T::NAMES.iter().find(|(name, _)| name == text) else {
            let all: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
            let why = format!("'{}' is not one of: {}.", echo(text), all.join(", "));
            return Err(fields.refuse(&format!("{name}/{index}"), why));
        };
        if !chosen.contains(value) {
            chosen.push(*value);
        }
    }
    Ok(Some(chosen))
}

fn shown<T: Named>(chosen: &[T]) -> Vec<&'static str> {
    let name = |value: &T| T::NAMES.iter().find(|(_, named)| named == value);
    chosen
        .iter()
        .filter_map(name)
        .map(|(name, _)| *name)
        .collect()
}
