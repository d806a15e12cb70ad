//! The server's key: secrets are sealed with it where they are stored, tokens are hashed with it.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// What a sealed text begins with; the digit is the version of the form.
const SEALED: &str = "sealed:1:";

/// 256 random bits from which the working keys follow. `Debug` never shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<MasterKey, Unspecified> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes)?;
        Ok(MasterKey(bytes))
    }

    /// The key in the base64 form that is read back.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// Not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a server key is 32 bytes in base64, as `openssl rand -base64 32` prints them")]
pub struct ParseMasterKeyError;

impl FromStr for MasterKey {
    type Err = ParseMasterKeyError;

    fn from_str(text: &str) -> Result<MasterKey, ParseMasterKeyError> {
        let bytes = STANDARD.decode(text.trim()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(MasterKey).ok_or(ParseMasterKeyError)
    }
}

/// The working keys. Each has one purpose.
pub struct Keys {
    seal: LessSafeKey,
    /// What tokens are hashed with, as bytes, where nothing else is kept.
    derived: [u8; 32],
    /// The key from before the server's was changed, or what follows from that.
    token: OnceLock<hmac::Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// The working keys of a master key: HMAC-SHA256 of a purpose under it, which is a PRF (RFC 5869,
    /// section 2.3, with one block).
    pub fn new(master: &MasterKey) -> Keys {
        let master = hmac::Key::new(hmac::HMAC_SHA256, &master.0);
        let derived = |purpose: &[u8]| hmac::sign(&master, purpose);
        let seal = UnboundKey::new(&AES_256_GCM, derived(b"portcullis seal 1").as_ref());
        Keys {
            seal: LessSafeKey::new(seal.expect("HMAC-SHA256 gives the 32 bytes of an AES-256 key")),
            derived: derived(b"portcullis token 1")
                .as_ref()
                .try_into()
                .expect("HMAC-SHA256 gives 32 bytes"),
            token: OnceLock::new(),
        }
    }

    /// Tokens are hashed with this key from now on, which [`Keys::token_key`] gave. Only before the first is.
    ///
    /// # Errors
    /// When it is no key.
    pub(crate) fn hash_with(&self, token_key: &str) -> Result<(), ParseMasterKeyError> {
        let key: MasterKey = token_key.parse()?;
        self.token
            .get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, &key.0));
        Ok(())
    }

    /// What tokens are hashed with, in base64, to be kept sealed: the bytes that follow from the key.
    pub(crate) fn token_key(&self) -> String {
        STANDARD.encode(self.derived)
    }

    fn token(&self) -> &hmac::Key {
        self.token
            .get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, &self.derived))
    }

    /// Seals a text for one place, which is authenticated with it: a sealed text that is moved does
    /// not open. Nonces are random, so a key is good for 2^32 texts (NIST SP 800-38D, 8.3).
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn seal(&self, place: &str, text: &str) -> Result<String, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce)?;
        let mut bytes = text.as_bytes().to_vec();
        let place = Aad::from(place.as_bytes());
        let at = Nonce::assume_unique_for_key(nonce);
        self.seal.seal_in_place_append_tag(at, place, &mut bytes)?;
        let sealed = [nonce.as_slice(), &bytes].concat();
        Ok(format!("{SEALED}{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// The text that was sealed for this place with this key; else `None`.
    pub fn open(&self, place: &str, sealed: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed.strip_prefix(SEALED)?).ok()?;
        let (nonce, bytes) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = bytes.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let place = Aad::from(place.as_bytes());
        let text = self.seal.open_in_place(nonce, place, &mut bytes).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }

    /// Whether a text is in sealed form.
    pub fn is_sealed(text: &str) -> bool {
        text.starts_with(SEALED)
    }

    /// What is stored of a token, base64: HMAC-SHA256. Who has it and not the key cannot try tokens.
    pub fn hash(&self, token: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(self.token(), token.as_bytes()))
    }

    /// Whether a token has this hash; takes as long for a near miss as for a far one.
    pub fn is_hash(&self, token: &str, hash: &str) -> bool {
        let hash = URL_SAFE_NO_PAD.decode(hash).unwrap_or_default();
        hmac::verify(self.token(), token.as_bytes(), &hash).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_only_with_its_key_at_its_place_and_whole() {
        let master = MasterKey::generate().unwrap();
        assert_eq!(master.to_base64().parse(), Ok(master));
        let keys = Keys::new(&master);
        let other = Keys::new(&MasterKey::generate().unwrap());
        let sealed = keys.seal("tunnel/1", "secret text").unwrap();
        assert!(Keys::is_sealed(&sealed) && !sealed.contains("secret"));
        assert_ne!(keys.seal("tunnel/1", "secret text").unwrap(), sealed);
        assert_eq!(
            keys.open("tunnel/1", &sealed).as_deref(),
            Some("secret text")
        );
        assert_eq!(keys.open("tunnel/2", &sealed), None);
        assert_eq!(other.open("tunnel/1", &sealed), None);
        assert_eq!(keys.open("tunnel/1", &sealed[..sealed.len() - 2]), None);
        assert_eq!(keys.open("tunnel/1", "plain"), None);
    }

    #[test]
    fn a_hash_is_of_one_token_and_one_key() {
        let keys = Keys::new(&MasterKey::generate().unwrap());
        let other = Keys::new(&MasterKey::generate().unwrap());
        let hash = keys.hash("token");
        assert!(keys.is_hash("token", &hash));
        assert!(!keys.is_hash("toke", &hash) && !keys.is_hash("token", ""));
        assert!(!other.is_hash("token", &hash));
    }
}
