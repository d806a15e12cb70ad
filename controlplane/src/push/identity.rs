//! Who is who: an authority of our own, a certificate for each node, and TLS 1.3 that asks for both sides'.
//!
//! Certificates do not end by time, since a node whose clock is wrong at its start must find its control
//! plane all the same; they end with the node's object. What a node's certificate says is not read: its
//! fingerprint is looked up among the nodes that there are.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::model::node::{Authority, NODES_MAX, Node};
use crate::model::{HexId, Refusal, Timestamp};
use crate::store::{Objects, Transaction, WriteError};

/// What the control plane's certificate says, wherever it is reached.
pub(super) const CONTROL_NAME: &str = "control.portcullis.internal";

/// Codes of refusals.
const TOO_MANY: u32 = 1_002;
const NO_ACCOUNT: u32 = 1_003;

/// Largest file that is read as a bundle.
const BUNDLE_BYTES_MAX: u64 = 64 << 10;

/// Why somebody has no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The store or the name is to blame.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Made(#[from] rcgen::Error),
    /// TLS does not take it.
    #[error("the certificates cannot be used")]
    Tls(#[from] rustls::Error),
    /// The bundle cannot be read.
    #[error("cannot read the identity {path}")]
    File {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The bundle is none.
    #[error(
        "the identity {path} is not what `portcullis control enrol` writes: it has {found}, and should \
         have a key, the node's certificate and the authority's"
    )]
    Bundle {
        /// The file.
        path: String,
        /// What it has.
        found: String,
    },
    /// The stored authority is of no use.
    #[error("the authority in the store cannot be used: {0}")]
    Authority(String),
}

/// Makes a node of this name, or gives the one that there is another certificate: the one before it is
/// worth nothing from then on. Returns the bundle, which holds the node's private key and is kept
/// nowhere else. Blocks.
///
/// # Errors
/// When the name is none, the account is unknown, there are too many nodes, or the store fails.
pub fn enrol(
    objects: &Objects,
    name: &str,
    account: Option<HexId>,
    now: Timestamp,
) -> Result<String, IdentityError> {
    let name = Node::name(name).map_err(WriteError::Refused)?;
    let authority = authority(objects, now)?;
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = Default::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, name.as_str());
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = parameters.signed_by(&key, &issuer(&authority)?)?;
    let fingerprint = Node::fingerprint(certificate.der());
    let enrolled = objects.write(now, |transaction| {
        put(transaction, &name, account, &fingerprint)
    });
    enrolled?;
    let mut bundle = String::new();
    // Text around the blocks is ignored by what reads PEM (RFC 7468 section 2).
    let written = write!(
        bundle,
        "portcullis node {name}: keep this file to its owner\n{}{}{}",
        key.serialize_pem(),
        certificate.pem(),
        authority.certificate,
    );
    written.expect("text is always written into a string");
    Ok(bundle)
}

fn put(
    transaction: &mut Transaction,
    name: &String,
    account: Option<HexId>,
    fingerprint: &str,
) -> Result<(), Refusal> {
    let snapshot = transaction.snapshot();
    let known = snapshot.nodes.get(name).cloned();
    if known.is_none() && snapshot.nodes.len() >= NODES_MAX {
        let message = format!("There are {NODES_MAX} nodes, the most there may be.");
        return Err(Refusal::conflict(TOO_MANY, message));
    }
    let account = account.or_else(|| known.as_ref().map(|node| node.account_id));
    let account = match account {
        Some(id) => snapshot.accounts.get(&id),
        None => snapshot.accounts.iter().min_by_key(|one| one.created_on),
    };
    let account = account.map(|account| account.id).ok_or_else(|| {
        Refusal::invalid(NO_ACCOUNT, "There is no account with this id.").at("account")
    })?;
    let now = transaction.now();
    transaction.put(Node {
        name: name.clone(),
        account_id: account,
        certificate_sha256: fingerprint.to_owned(),
        created_on: known.map_or(now, |node| node.created_on),
        enrolled_on: now,
    });
    Ok(())
}

/// The authority in the store, which is made when there is none.
pub(super) fn authority(objects: &Objects, now: Timestamp) -> Result<Authority, IdentityError> {
    let id = Authority::NODES.to_owned();
    if let Some(known) = objects.snapshot().authorities.get(&id) {
        return Ok((**known).clone());
    }
    let key = KeyPair::generate()?;
    let made = Authority {
        certificate: authority_parameters().self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    };
    let (kept, _) = objects.write(now, |transaction| {
        // Another may have been quicker.
        if let Some(known) = transaction.snapshot().authorities.get(&id) {
            return Ok((**known).clone());
        }
        transaction.put(made.clone());
        Ok(made)
    })?;
    Ok(kept)
}

fn authority_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = Default::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "portcullis nodes");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters
}

fn issuer(authority: &Authority) -> Result<Issuer<'static, KeyPair>, IdentityError> {
    let key = KeyPair::from_pem(&authority.key)?;
    Ok(Issuer::new(authority_parameters(), key))
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone())?;
    }
    Ok(Arc::new(roots))
}

/// How a control plane takes connections: with a key of its own, made at each start, and from those
/// only whom the authority vouches for.
pub(super) fn server(authority: &Authority) -> Result<Arc<ServerConfig>, IdentityError> {
    let unusable = |why: String| IdentityError::Authority(why);
    let pem = authority.certificate.as_bytes();
    let ca = CertificateDer::from_pem_slice(pem).map_err(|why| unusable(why.to_string()))?;
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(vec![CONTROL_NAME.to_owned()])?;
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = parameters.signed_by(&key, &issuer(authority)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(&[ca])?, Arc::clone(&provider))
            .build()
            .map_err(|why| unusable(why.to_string()))?;
    let key =
        PrivateKeyDer::try_from(key.serialize_der()).map_err(|why| unusable(why.to_owned()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)?;
    // Sessions are long and few: each one shows its certificate.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What a node has to show, and whom it believes.
#[derive(Clone)]
pub struct Bundle {
    pub(super) certificate_sha256: String,
    pub(super) tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").finish_non_exhaustive()
    }
}

impl Bundle {
    /// What the node's certificate is known by: SHA-256, 64 hex digits.
    pub fn certificate_sha256(&self) -> &str {
        &self.certificate_sha256
    }

    /// Reads what [`enrol`] made.
    ///
    /// # Errors
    /// When the file cannot be read or is something else.
    pub fn read(path: &Path) -> Result<Bundle, IdentityError> {
        let path_text = path.display().to_string();
        let unreadable = |source| IdentityError::File {
            path: path_text.clone(),
            source,
        };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > BUNDLE_BYTES_MAX {
            return Err(IdentityError::Bundle {
                path: path_text,
                found: format!("{size} bytes"),
            });
        }
        let text = std::fs::read(path).map_err(unreadable)?;
        Bundle::parse(&text, &path_text)
    }

    /// The same, from memory; `path` is what errors call it.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &[u8], path: &str) -> Result<Bundle, IdentityError> {
        let wrong = |found: String| IdentityError::Bundle {
            path: path.to_owned(),
            found,
        };
        let mut keys = Vec::new();
        let mut certificates = Vec::new();
        for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, der) = block.map_err(|why| wrong(format!("a bad PEM block ({why})")))?;
            if kind == SectionKind::Certificate {
                certificates.push(CertificateDer::from(der));
            } else if kind == SectionKind::PrivateKey {
                keys.push(PrivateKeyDer::Pkcs8(der.into()));
            } else {
                return Err(wrong(format!("a block of another kind ({kind:?})")));
            }
        }
        let counts = format!("{} keys, {} certificates", keys.len(), certificates.len());
        let (Some(key), None) = (keys.pop(), keys.pop()) else {
            return Err(wrong(counts));
        };
        let Ok([own, ca]) = <[CertificateDer<'static>; 2]>::try_from(certificates) else {
            return Err(wrong(counts));
        };
        let certificate_sha256 = Node::fingerprint(&own);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots(&[ca])?)
            .with_client_auth_cert(vec![own], key)?;
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(Bundle {
            certificate_sha256,
            tls: Arc::new(tls),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_bundle_is_refused_with_what_it_has() {
        for (text, found) in [
            ("", "0 keys, 0 certificates"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "a bad PEM block"),
            (
                "-----BEGIN EC PARAMETERS-----\nAAAA\n-----END EC PARAMETERS-----\n",
                "0 keys",
            ),
            (
                "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
                "another kind",
            ),
        ] {
            let why = Bundle::parse(text.as_bytes(), "x.pem")
                .unwrap_err()
                .to_string();
            assert!(why.contains(found) && why.contains("x.pem"), "{why}");
        }
    }
}
