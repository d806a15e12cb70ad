//! A known text that is stored sealed: whoever opens it has the store's key.

use serde::{Deserialize, Serialize};

use super::Resource;

/// Its key in the store.
pub const KEY: &str = "key_check/0";

/// The only one there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCheck {
    /// Any text.
    pub text: String,
    /// What tokens are hashed with, in base64, since the server's key was changed; `None` follows from that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_key: Option<String>,
}

impl Resource for KeyCheck {
    const KIND: &'static str = "key_check";
    const SECRETS: &'static [&'static str] = &["/text", "/token_key"];
    const IS_AUDITED: bool = false;
    type Id = u8;

    fn id(&self) -> u8 {
        0
    }
}
