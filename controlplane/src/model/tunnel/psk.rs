//! A pre-shared key of IKE.

use std::fmt;

use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

/// Shortest key in bytes: what is shorter is found by trying.
const LEN_MIN: usize = 8;
/// Longest key in bytes: more than any router takes.
const LEN_MAX: usize = 256;

/// A pre-shared key: printable ASCII. Stored, told to nodes, and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Psk(String);

impl Psk {
    /// A key that the customer gives.
    ///
    /// # Errors
    /// A sentence that says what a key is; it does not repeat the text.
    pub fn new(text: String) -> Result<Psk, &'static str> {
        let is_length = (LEN_MIN..=LEN_MAX).contains(&text.len());
        if !is_length || !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err("A pre-shared key is 8 to 256 printable ASCII characters.");
        }
        Ok(Psk(text))
    }

    /// A new key of 256 random bits, as 64 hex digits: every router takes them.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate(random: &dyn SecureRandom) -> Result<Psk, ring::error::Unspecified> {
        let mut bytes = [0_u8; 32];
        random.fill(&mut bytes)?;
        Ok(Psk(bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()))
    }

    /// The key itself, for nodes, and for the answer of the request that made it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_printable_and_neither_short_nor_endless_and_is_not_printed() {
        for bad in ["", "short12", "with\ttab!", "pässword1", &"x".repeat(257)] {
            assert!(Psk::new(bad.to_owned()).is_err(), "{bad}");
        }
        let psk = Psk::new("correct horse battery".to_owned()).unwrap();
        assert!(!format!("{psk:?}").contains("horse"));
        let made = Psk::generate(&ring::rand::SystemRandom::new()).unwrap();
        assert_eq!(Psk::new(made.reveal().to_owned()), Ok(made));
    }
}
