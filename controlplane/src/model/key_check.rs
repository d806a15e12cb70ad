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
}

impl Resource for KeyCheck {
    const KIND: &'static str = "key_check";
    const SECRETS: &'static [&'static str] = &["/text"];
    const IS_AUDITED: bool = false;
    type Id = u8;

    fn id(&self) -> u8 {
        0
    }
}
