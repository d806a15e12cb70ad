//! When a token was last used: apart from the token, as it is nobody's change.

use serde::{Deserialize, Serialize};

use super::{HexId, Resource, Timestamp};

/// The last use of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// The token's id.
    pub id: HexId,
    /// When it was used; some minutes less than the truth after a crash.
    pub last_used_on: Timestamp,
}

impl Resource for TokenUse {
    const KIND: &'static str = "token_use";
    const IS_AUDITED: bool = false;
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}
