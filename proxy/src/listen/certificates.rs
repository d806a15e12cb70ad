//! Certificates by host name: from a directory of PEM files, and those that customers brought.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use controlplane::origin;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates of an edge: exact names, then the wildcard one label up, of each first those that
/// customers brought; then `default`. A client that names none of them gets no certificate: its handshake
/// fails.
#[derive(Debug, Default)]
pub struct Certificates {
    named: Named,
    uploaded: Arc<Uploaded>,
}

type Named = HashMap<String, Arc<CertifiedKey>>;

/// The certificates that customers brought, replaced as a whole while connections are made.
#[derive(Debug, Default)]
pub(crate) struct Uploaded(RwLock<Arc<Named>>);

impl Uploaded {
    /// These instead of those that were there. Of two for one name the later one is served.
    pub(crate) fn replace(&self, certificates: &[origin::Certificate]) {
        let mut named = Named::new();
        for one in certificates {
            match certified_pem(one.chain.as_bytes(), one.private_key.as_bytes()) {
                Some(certified) => {
                    let certified = Arc::new(certified);
                    let names = one
                        .names
                        .iter()
                        .map(|name| (name.clone(), Arc::clone(&certified)));
                    named.extend(names);
                }
                None => tracing::warn!(names = ?one.names, "a certificate cannot be used"),
            }
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(named);
    }

    fn named(&self) -> Arc<Named> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn certified_pem(chain: &[u8], key: &[u8]) -> Option<CertifiedKey> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .ok()?;
    let key = PrivateKeyDer::from_pem_slice(key).ok()?;
    CertifiedKey::from_der(chain, key, &provider()).ok()
}

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file or the directory cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A file is not what it should be.
    #[error("{0} holds no usable PEM: {1}")]
    Pem(PathBuf, rustls::pki_types::pem::Error),
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificate {0} and its key cannot be used")]
    Unusable(PathBuf, #[source] rustls::Error),
    /// There is nothing to serve.
    #[error("{0} holds no NAME.crt with a NAME.key beside it")]
    Empty(PathBuf),
}

impl Certificates {
    /// Reads every `NAME.crt` and `NAME.key` of a directory.
    ///
    /// # Errors
    /// The first file that cannot be used: nothing is left out in silence.
    pub fn read(directory: &Path) -> Result<Self, CertificateError> {
        let unreadable = |why| CertificateError::Read(directory.to_owned(), why);
        let mut named = HashMap::new();
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_none_or(|extension| extension != "crt") {
                continue;
            }
            if let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) {
                named.insert(name.to_ascii_lowercase(), Arc::new(certified(&path)?));
            }
        }
        if named.is_empty() {
            return Err(CertificateError::Empty(directory.to_owned()));
        }
        Ok(Self {
            named,
            uploaded: Arc::default(),
        })
    }

    /// Those that customers bring.
    pub(crate) fn uploaded(&self) -> Arc<Uploaded> {
        Arc::clone(&self.uploaded)
    }

    /// The server side of TLS 1.2 and 1.3 with these certificates, offering HTTP/2 and HTTP/1.1.
    pub(crate) fn server_config(self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for the default versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let uploaded = self.uploaded.named();
        let either = |name: &str| uploaded.get(name).or_else(|| self.named.get(name)).cloned();
        // rustls hands names out in lower case.
        let by_name = name.and_then(|name| {
            either(name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                either(&format!("*.{parent}"))
            })
        });
        by_name.or_else(|| self.named.get("default").cloned())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

fn certified(path: &Path) -> Result<CertifiedKey, CertificateError> {
    let key_path = path.with_extension("key");
    let read =
        |path: &Path| fs::read(path).map_err(|why| CertificateError::Read(path.to_owned(), why));
    let (chain, key) = (read(path)?, read(&key_path)?);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|why| CertificateError::Pem(path.to_owned(), why))?;
    let key =
        PrivateKeyDer::from_pem_slice(&key).map_err(|why| CertificateError::Pem(key_path, why))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|why| CertificateError::Unusable(path.to_owned(), why))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificates(names: &[&str]) -> Certificates {
        let named = names.iter().map(|name| {
            let made = rcgen::generate_simple_self_signed(vec![(*name).to_owned()]).unwrap();
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let chain = vec![made.cert.der().clone()];
            let certified = CertifiedKey::from_der(chain, key, &provider()).unwrap();
            ((*name).to_owned(), Arc::new(certified))
        });
        Certificates {
            named: named.collect(),
            uploaded: Arc::default(),
        }
    }

    #[test]
    fn exact_name_beats_wildcard_and_wildcard_beats_default() {
        let all = certificates(&["app.example.com", "*.example.com", "default"]);
        let is = |asked: Option<&str>, name: &str| {
            assert!(
                Arc::ptr_eq(&all.find(asked).unwrap(), &all.named[name]),
                "{asked:?}"
            );
        };
        is(Some("app.example.com"), "app.example.com");
        is(Some("wiki.example.com"), "*.example.com");
        is(Some("a.b.example.com"), "default");
        is(Some("example.com"), "default");
        is(None, "default");
    }

    #[test]
    fn unknown_name_without_a_default_gets_no_certificate() {
        let all = certificates(&["app.example.com"]);
        assert!(all.find(Some("other.example.com")).is_none());
        assert!(all.find(None).is_none());
    }

    /// A customer's certificate is served at once, before a file's of the same rank, and gone at once.
    #[test]
    fn uploaded_certificates_come_before_files_and_go_when_they_are_replaced() {
        let all = certificates(&["app.example.com", "*.example.com", "default"]);
        let brought = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
            let (chain, private_key) = (made.cert.pem(), made.signing_key.serialize_pem());
            origin::Certificate {
                names,
                chain,
                private_key,
            }
        };
        let is_file = |asked: &str, name: &str| {
            Arc::ptr_eq(&all.find(Some(asked)).unwrap(), &all.named[name])
        };
        all.uploaded
            .replace(&[brought(&["app.example.com", "*.example.com"])]);
        assert!(!is_file("app.example.com", "app.example.com"));
        assert!(!is_file("wiki.example.com", "*.example.com"));
        assert!(is_file("other.example.org", "default"));
        // The more exact name wins, whoever has it.
        all.uploaded.replace(&[brought(&["*.example.com"])]);
        assert!(is_file("app.example.com", "app.example.com"));
        let (first, second) = (brought(&["app.example.com"]), brought(&["app.example.com"]));
        all.uploaded.replace(&[first.clone(), second.clone()]);
        let served = all.find(Some("app.example.com")).unwrap();
        let second = certified_pem(second.chain.as_bytes(), second.private_key.as_bytes()).unwrap();
        assert_eq!(served.cert, second.cert);
        let broken = origin::Certificate {
            chain: "x".to_owned(),
            ..first
        };
        all.uploaded.replace(&[broken]);
        assert!(is_file("app.example.com", "app.example.com"));
    }
}
