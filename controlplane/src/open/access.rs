//! What whoever may read the data directory may do beside the API: another token, and when tokens were used.

use ring::rand::SystemRandom;
use time::OffsetDateTime;

use super::ControlPlane;
use crate::model::audit::Actor;
use crate::model::token::{self, Token};
use crate::model::{HexId, Timestamp};
use crate::store::WriteError;

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum NewTokenError {
    /// The system has no randomness.
    #[error("the system gives no random bytes for a token")]
    Random,
    /// The store does not take it.
    #[error("cannot store the token")]
    Write(#[from] WriteError),
}

impl ControlPlane {
    /// Makes another unrestricted token, for when all others are lost; its secret, which is kept nowhere.
    /// It is in the audit log. Blocks.
    ///
    /// # Errors
    /// [`NewTokenError`].
    pub fn new_token(&self, name: &str) -> Result<String, NewTokenError> {
        let secret =
            token::secret(&SystemRandom::new()).map_err(|_unspecified| NewTokenError::Random)?;
        let now = Timestamp::new(OffsetDateTime::now_utc());
        let token = Token::unrestricted(name, self.0.keys.hash(&secret), now);
        let actor = Actor {
            token_id: HexId::MIN,
            token_name: "portcullis control token".to_owned(),
            ip: None,
            method: "POST".to_owned(),
            path: "/user/tokens".to_owned(),
        };
        let put = |transaction: &mut crate::store::Transaction| {
            transaction.put(token);
            Ok(())
        };
        self.0.objects.write_by(Some(&actor), now, put)?;
        Ok(secret)
    }

    /// Writes down when tokens were last used. Blocks.
    ///
    /// # Errors
    /// When the store does not take it; nothing is lost by trying again.
    pub fn keep_uses(&self) -> Result<(), WriteError> {
        let now = Timestamp::new(OffsetDateTime::now_utc());
        self.0.uses.keep(&self.0.objects, now)
    }
}
