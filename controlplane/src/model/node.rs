//! A node: an edge that is told what to do over the network. Its certificate is what names it.

use ring::digest;
use serde::{Deserialize, Serialize};

use super::{HexId, Refusal, Resource, Timestamp};

/// Most nodes there may be: 100.64.0.0/12 has 256 slices of a /20, one for each.
pub const NODES_MAX: usize = 256;

/// Code of a node's name that is none.
const NAME: u32 = 1_001;

/// A node as it is stored. Without this object its certificate is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, which is its id: a host label (RFC 1123 section 2.1) of lower-case letters.
    pub name: String,
    /// The account that runs it. A node carries what all accounts have.
    pub account_id: HexId,
    /// SHA-256 of the one certificate that is the node's, 64 hex digits.
    pub certificate_sha256: String,
    /// When the name was enrolled first.
    pub created_on: Timestamp,
    /// When it got its certificate.
    pub enrolled_on: Timestamp,
}

impl Node {
    /// The name, when it is one.
    ///
    /// # Errors
    /// Says what a name is.
    pub fn name(text: &str) -> Result<String, Refusal> {
        let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let is_inside = |b: u8| is_letter(b) || b == b'-';
        let bytes = text.as_bytes();
        let is_name = (1..=63).contains(&bytes.len())
            && bytes.iter().all(|b| is_inside(*b))
            && bytes.first().is_some_and(|b| is_letter(*b))
            && bytes.last().is_some_and(|b| is_letter(*b));
        match is_name {
            true => Ok(text.to_owned()),
            false => Err(Refusal::invalid(
                NAME,
                "A node's name is 1 to 63 lower-case letters, digits and hyphens, with no hyphen \
                 at either end.",
            )
            .at("name")),
        }
    }

    /// What a certificate is known by: SHA-256 of its DER form, 64 hex digits.
    pub fn fingerprint(der: &[u8]) -> String {
        let hash = digest::digest(&digest::SHA256, der);
        hash.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl Resource for Node {
    const KIND: &'static str = "node";
    type Id = String;

    fn id(&self) -> String {
        self.name.clone()
    }
}

/// Who vouches for nodes and control planes: one key and its certificate, made by the first control
/// plane that needs it. All that share a store have the same.
#[derive(Clone, Serialize, Deserialize)]
pub struct Authority {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PKCS #8 PEM.
    pub key: String,
}

impl Authority {
    /// The name of the only one.
    pub const NODES: &'static str = "nodes";
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Resource for Authority {
    const KIND: &'static str = "authority";
    const SECRETS: &'static [&'static str] = &["/key"];
    type Id = String;

    fn id(&self) -> String {
        Authority::NODES.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_label_and_a_key_in_the_store() {
        for good in ["edge1", "a", "fra-2", &"a".repeat(63)] {
            assert_eq!(Node::name(good).unwrap(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a/b",
            "a.b",
            "a b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(Node::name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fingerprint_is_sha_256_in_hex() {
        // FIPS 180-2, appendix B.1.
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Node::fingerprint(b"abc"), wanted);
    }
}
