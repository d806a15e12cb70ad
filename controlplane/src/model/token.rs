//! An API token: shown once, stored as a keyed hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use super::{HexId, Resource, Timestamp};

/// A token as it is stored: enough to recognise it, not enough to use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id, which is no secret.
    pub id: HexId,
    /// Its name; for people only.
    pub name: String,
    /// The key of the hash, base64.
    pub salt: String,
    /// HMAC-SHA256 of the token under the salt, base64.
    pub hash: String,
    /// When it was made.
    pub issued_on: Timestamp,
}

impl Token {
    /// A new random token (256 bits, base64url): what is stored, and the secret itself.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate(
        name: &str,
        now: Timestamp,
        random: &dyn SecureRandom,
    ) -> Result<(Token, String), ring::error::Unspecified> {
        let secret = secret(random)?;
        let mut salt = [0; 32];
        random.fill(&mut salt)?;
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salt), secret.as_bytes());
        let token = Token {
            id: HexId::random(),
            name: name.to_owned(),
            salt: URL_SAFE_NO_PAD.encode(salt),
            hash: URL_SAFE_NO_PAD.encode(hash),
            issued_on: now,
        };
        Ok((token, secret))
    }

    /// Whether `secret` is this token; takes as long for a near miss as for a far one.
    pub fn is(&self, secret: &str) -> bool {
        let (Ok(salt), Ok(hash)) = (
            URL_SAFE_NO_PAD.decode(&self.salt),
            URL_SAFE_NO_PAD.decode(&self.hash),
        ) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salt);
        hmac::verify(&key, secret.as_bytes(), &hash).is_ok()
    }
}

impl Resource for Token {
    const KIND: &'static str = "token";
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}

/// 32 random bytes in base64url.
///
/// # Errors
/// When the system has no randomness to give.
pub fn secret(random: &dyn SecureRandom) -> Result<String, ring::error::Unspecified> {
    let mut bytes = [0; 32];
    random.fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_recognises_its_secret_only_and_does_not_contain_it() {
        let now = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
        let random = ring::rand::SystemRandom::new();
        let (token, secret) = Token::generate("first", now, &random).unwrap();
        assert_eq!(secret.len(), 43);
        assert!(token.is(&secret));
        assert!(!token.is(&secret[1..]) && !token.is(""));
        assert!(!serde_json::to_string(&token).unwrap().contains(&secret));
    }
}
