//! A certificate that a customer brings for the names of a zone.

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Fields, HexId, Refusal, Resource, Timestamp, host_name};

/// Code of a refused certificate field.
pub const INVALID: u32 = 1200;

/// Longest chain and key, in characters: a leaf and three issuers with RSA keys of 4096 bits are 10,000.
const PEM_CHARS_MAX: usize = 32_768;

/// Most names of one certificate: what public authorities issue.
const HOSTS_MAX: usize = 100;

/// A certificate, with its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its id.
    pub id: HexId,
    /// The zone for whose names it is.
    pub zone_id: HexId,
    /// The chain in PEM, the leaf first.
    pub chain: String,
    /// The leaf's key in PEM; never leaves the store but to the proxy.
    pub private_key: Secret,
    /// The leaf's names, in their one form.
    pub hosts: Vec<String>,
    /// Who issued the leaf.
    pub issuer: String,
    /// How the issuer signed it.
    pub signature: String,
    /// From when on it is not valid any more.
    pub expires_on: Timestamp,
    /// When it came.
    pub uploaded_on: Timestamp,
    /// When it was replaced last.
    pub modified_on: Timestamp,
}

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a request brings: a chain and its key, which belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    chain: String,
    private_key: Secret,
    leaf: Leaf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaf {
    hosts: Vec<String>,
    issuer: String,
    signature: String,
    expires_on: Timestamp,
}

impl Draft {
    /// Reads the body of a create or change: both bring the certificate and its key.
    ///
    /// # Errors
    /// A field that is wrong, missing or not carried.
    pub fn read(mut fields: Fields) -> Result<Draft, Refusal> {
        let chain = fields.lines("certificate", PEM_CHARS_MAX)?;
        let chain = fields.required("certificate", chain)?;
        let key = fields.lines("private_key", PEM_CHARS_MAX)?;
        let key = fields.required("private_key", key)?;
        only(
            &mut fields,
            "bundle_method",
            "force",
            "the chain is served as it comes",
        )?;
        only(
            &mut fields,
            "type",
            "sni_custom",
            "who sends no name gets the edge's own certificate",
        )?;
        only(&mut fields, "deploy", "production", "there is one edge")?;
        let leaf = leaf_of(&fields, &chain)?;
        check_key(&fields, &chain, &key)?;
        fields.finish()?;
        Ok(Draft {
            chain,
            private_key: Secret(key),
            leaf,
        })
    }

    /// The certificate, for a zone that some of its names are in.
    ///
    /// # Errors
    /// When it has expired, or none of its names is in the zone.
    pub fn certificate(
        self,
        id: HexId,
        (zone_id, zone): (HexId, &str),
        now: Timestamp,
    ) -> Result<Certificate, Refusal> {
        let refuse = |why: String| Err(Refusal::invalid(INVALID, why).at("certificate"));
        if self.leaf.expires_on <= now {
            return refuse(
                "The certificate has expired: bring the one that took its place.".into(),
            );
        }
        let bare = |host: &String| host.strip_prefix("*.").unwrap_or(host).to_owned();
        if !self
            .leaf
            .hosts
            .iter()
            .any(|host| host_name::is_within(&bare(host), zone))
        {
            let hosts = self.leaf.hosts.join(", ");
            return refuse(format!(
                "None of the certificate's names is in {zone}: {hosts}."
            ));
        }
        let Leaf {
            hosts,
            issuer,
            signature,
            expires_on,
        } = self.leaf;
        Ok(Certificate {
            id,
            zone_id,
            chain: self.chain,
            private_key: self.private_key,
            hosts,
            issuer,
            signature,
            expires_on,
            uploaded_on: now,
            modified_on: now,
        })
    }
}

impl Certificate {
    /// How much of it is stored, in bytes.
    pub fn bytes(&self) -> usize {
        self.chain.len() + self.private_key.0.len()
    }
}

impl Resource for Certificate {
    const KIND: &'static str = "certificate";
    const ON_NODES: bool = true;
    const SECRETS: &'static [&'static str] = &["/private_key"];
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}

/// A field of which one value is carried.
fn only(fields: &mut Fields, name: &str, word: &str, why: &str) -> Result<(), Refusal> {
    match fields.string(name, 64)? {
        Some(given) if given != word => {
            let why = format!("Only '{name}' \"{word}\" is carried here: {why}.");
            Err(fields.refuse(name, why))
        }
        Some(_) | None => Ok(()),
    }
}

fn leaf_of(fields: &Fields, chain: &str) -> Result<Leaf, Refusal> {
    let refuse = |why: &str| fields.refuse("certificate", format!("'certificate' {why}."));
    let first = CertificateDer::pem_slice_iter(chain.as_bytes()).next();
    let Some(Ok(first)) = first else {
        return Err(refuse(
            "is not PEM: it begins with -----BEGIN CERTIFICATE-----",
        ));
    };
    let Ok((_, leaf)) = X509Certificate::from_der(&first) else {
        return Err(refuse("is not an X.509 certificate"));
    };
    let names = leaf.subject_alternative_name();
    let Ok(Some(names)) = names else {
        return Err(refuse("has no names: subjectAltName is missing"));
    };
    let mut hosts = Vec::new();
    for name in &names.value.general_names {
        if let GeneralName::DNSName(name) = name {
            hosts.push(host_name::normal(name).map_err(|why| refuse(why.trim_end_matches('.')))?);
        }
    }
    if hosts.is_empty() || hosts.len() > HOSTS_MAX {
        return Err(refuse(&format!(
            "has to have 1 to {HOSTS_MAX} names of hosts"
        )));
    }
    let expires = leaf.validity().not_after.timestamp();
    let expires = time::OffsetDateTime::from_unix_timestamp(expires);
    Ok(Leaf {
        hosts,
        issuer: leaf.issuer().to_string(),
        signature: signature(&leaf),
        expires_on: Timestamp::new(expires.map_err(|_why| refuse("has no end that is a date"))?),
    })
}

/// In the product's words.
fn signature(leaf: &X509Certificate<'_>) -> String {
    let oid = leaf.signature_algorithm.algorithm.to_id_string();
    let name = match oid.as_str() {
        "1.2.840.113549.1.1.11" => "SHA256WithRSA",
        "1.2.840.113549.1.1.12" => "SHA384WithRSA",
        "1.2.840.113549.1.1.13" => "SHA512WithRSA",
        "1.2.840.10045.4.3.2" => "ECDSAWithSHA256",
        "1.2.840.10045.4.3.3" => "ECDSAWithSHA384",
        "1.2.840.10045.4.3.4" => "ECDSAWithSHA512",
        "1.3.101.112" => "Ed25519",
        other => other,
    };
    name.to_owned()
}

/// Whether the chain and the key can be served, and belong together. Neither is shown back.
fn check_key(fields: &Fields, chain: &str, key: &str) -> Result<(), Refusal> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let Ok(chain) = chain else {
        return Err(fields.refuse(
            "certificate",
            "'certificate' is broken PEM after its first block.",
        ));
    };
    let Ok(key) = PrivateKeyDer::from_pem_slice(key.as_bytes()) else {
        let why = "'private_key' is not a key in PEM: it begins with -----BEGIN PRIVATE KEY-----.";
        return Err(fields.refuse("private_key", why));
    };
    match CertifiedKey::from_der(chain, key, &default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let why = "'private_key' is not the key of 'certificate'.";
            Err(fields.refuse("private_key", why))
        }
        Err(_) => {
            let why =
                "'private_key' is of a kind that TLS does not have: give RSA, ECDSA or Ed25519.";
            Err(fields.refuse("private_key", why))
        }
    }
}
