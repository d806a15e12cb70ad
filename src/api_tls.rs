//! TLS on the API: a listener whose connections have shaken hands, with a certificate that is read
//! again when its file changes.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use axum::serve::Listener;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Longest handshake: a client on a bad line takes seconds, a silent one is not waited for.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Most handshakes at a time, some 50 kB each; later clients wait in the kernel.
const HANDSHAKES_MAX: usize = 64;

/// Pause when the system has no connection to give, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The certificate and key of the API, as they were read last.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    /// When the files were changed that were read last, well or not.
    read_of: [Option<SystemTime>; 2],
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Reads the PEM files.
    pub(crate) fn read(chain: &Path, key: &Path) -> anyhow::Result<Certificate> {
        Ok(Certificate {
            read_of: [chain, key].map(changed),
            config: server_config(chain, key)?,
            chain: chain.to_owned(),
            key: key.to_owned(),
        })
    }

    /// The newest that can be read. While one file is new and the other is not yet, the old pair stays.
    fn current(&mut self) -> Arc<ServerConfig> {
        let changed = [&self.chain, &self.key].map(|path| changed(path));
        if changed != self.read_of {
            self.read_of = changed;
            match server_config(&self.chain, &self.key) {
                Ok(config) => {
                    tracing::info!(path = %self.chain.display(), "the API has a new certificate");
                    self.config = config;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the API keeps its old certificate");
                }
            }
        }
        Arc::clone(&self.config)
    }
}

/// Accepts connections and shakes hands with several clients at a time.
pub(crate) struct TlsListener {
    ready: mpsc::Receiver<(server::TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl TlsListener {
    /// Starts to accept.
    pub(crate) fn start(listener: TcpListener, certificate: Certificate) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(HANDSHAKES_MAX);
        let task = tokio::spawn(accept(listener, certificate, sender));
        Ok(TlsListener {
            ready,
            address,
            task,
        })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener for TlsListener {
    type Io = server::TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(
    listener: TcpListener,
    mut certificate: Certificate,
    ready: mpsc::Sender<(server::TlsStream<TcpStream>, SocketAddr)>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.len() >= HANDSHAKES_MAX {
            // One that panicked is as much over as any other.
            drop(handshakes.join_next().await);
        }
        while handshakes.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(certificate.current());
        let ready = ready.clone();
        handshakes.spawn(async move {
            let done = tokio::time::timeout(HANDSHAKE_WAIT_MAX, acceptor.accept(stream)).await;
            if let Ok(Ok(stream)) = done {
                // Nobody serves any more: the connection closes.
                drop(ready.send((stream, from)).await);
            }
        });
    }
}

/// Connects to an API with TLS whose certificate is one of the file's, or is signed by one of them.
pub(crate) async fn connect(
    stream: TcpStream,
    host: &str,
    authorities: &Path,
) -> anyhow::Result<client::TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusted::read(authorities)?))
        .with_no_client_auth();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .with_context(|| format!("{host} is no host name"))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let connected = tokio::time::timeout(HANDSHAKE_WAIT_MAX, connecting).await;
    connected
        .context("the API did not finish the TLS handshake")?
        .with_context(|| format!("the API's certificate is none of {}", authorities.display()))
}

/// Trusts the very certificates of a file, and what they sign. The former because a certificate that
/// signed itself says that it is an authority, and as such serves nobody (RFC 5280, section 4.2.1.9).
#[derive(Debug)]
struct Trusted {
    own: Vec<CertificateDer<'static>>,
    signed: Arc<WebPkiServerVerifier>,
}

impl Trusted {
    fn read(path: &Path) -> anyhow::Result<Trusted> {
        let own = certificates(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &own {
            roots
                .add(certificate.clone())
                .with_context(|| format!("{} holds what is no certificate", path.display()))?;
        }
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let signed = signed.build().context("cannot verify certificates")?;
        Ok(Trusted { own, signed })
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.own.iter().any(|own| own == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let signed = &self.signed;
        signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|file| file.modified())
        .ok()
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(path)
        .with_context(|| format!("cannot read the certificate {}", path.display()))?;
    let chain: Vec<_> = chain
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not PEM", path.display()))?;
    anyhow::ensure!(!chain.is_empty(), "{} holds no certificate", path.display());
    Ok(chain)
}

fn server_config(chain: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read the key {}", key.display()))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(chain)?, private)
        .with_context(|| format!("{} and {} do not fit", chain.display(), key.display()))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A self-signed certificate and its key, by openssl.
    fn make(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (chain, key) = (
            directory.join(format!("{name}.crt")),
            directory.join(format!("{name}.key")),
        );
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&chain)
            .output()
            .expect("openssl runs: install openssl");
        assert!(made.status.success(), "{made:?}");
        (chain, key)
    }

    /// Puts a file in place as tools do: by renaming, and with a time of its own.
    fn put(from: &Path, to: &Path, secs: u64) {
        let new = to.with_extension("new");
        std::fs::copy(from, &new).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        std::fs::File::options()
            .write(true)
            .open(&new)
            .unwrap()
            .set_modified(at)
            .unwrap();
        std::fs::rename(new, to).unwrap();
    }

    #[tokio::test]
    async fn a_new_certificate_is_served_once_it_is_whole_and_a_bad_one_never() {
        let directory = std::env::temp_dir().join(format!("portcullis-tls-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (old, old_key) = make(&directory, "old");
        let (new, new_key) = make(&directory, "new");
        let (chain, key) = (directory.join("api.crt"), directory.join("api.key"));
        put(&old, &chain, 1);
        put(&old_key, &key, 1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificate = Certificate::read(&chain, &key).unwrap();
        let mut served = TlsListener::start(listener, certificate).unwrap();
        let mut trusts = async |authorities: &Path| {
            let stream = TcpStream::connect(address).await.unwrap();
            let (connected, _) = tokio::join!(connect(stream, "localhost", authorities), async {
                let accepted = tokio::time::timeout(Duration::from_secs(2), served.accept());
                accepted.await.is_ok()
            });
            connected.is_ok()
        };
        assert!(trusts(&old).await);
        // Half of a new pair, then garbage: clients see the old one.
        put(&new, &chain, 2);
        assert!(trusts(&old).await);
        std::fs::write(directory.join("garbage"), "no PEM at all").unwrap();
        put(&directory.join("garbage"), &chain, 3);
        assert!(trusts(&old).await);
        put(&new, &chain, 4);
        put(&new_key, &key, 4);
        assert!(trusts(&new).await);
        assert!(!trusts(&old).await);
        std::fs::remove_file(&key).unwrap();
        assert!(trusts(&new).await);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn clients_that_never_shake_hands_do_not_keep_others_out() {
        let directory =
            std::env::temp_dir().join(format!("portcullis-idle-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (chain, key) = make(&directory, "api");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificate = Certificate::read(&chain, &key).unwrap();
        let mut served = TlsListener::start(listener, certificate).unwrap();
        let mut silent = Vec::new();
        for _ in 0..HANDSHAKES_MAX - 1 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        let (connected, accepted) = tokio::join!(
            connect(stream, "localhost", &chain),
            tokio::time::timeout(Duration::from_secs(5), served.accept())
        );
        assert!(connected.is_ok() && accepted.is_ok());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
