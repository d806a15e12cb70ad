//! TLS on the API: a listener whose connections have shaken hands, with a certificate that is read
//! again when its file changes.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use axum::serve::Listener;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Longest handshake: a client on a bad line takes seconds, a silent one is not waited for.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Most handshakes at a time, some 50 kB each; later clients wait in the kernel.
const HANDSHAKES_MAX: usize = 64;

/// The certificate and key of the API, and what was read of them.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    read_of: Option<SystemTime>,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Reads the PEM files.
    pub(crate) fn read(chain: &Path, key: &Path) -> anyhow::Result<Certificate> {
        Ok(Certificate {
            read_of: changed(chain),
            config: server_config(chain, key)?,
            chain: chain.to_owned(),
            key: key.to_owned(),
        })
    }

    /// The newest that can be read.
    fn current(&mut self) -> Arc<ServerConfig> {
        let changed = changed(&self.chain);
        if changed != self.read_of {
            self.read_of = changed;
            match server_config(&self.chain, &self.key) {
                Ok(config) => self.config = config,
                Err(error) => tracing::warn!(%error, "the API keeps its old certificate"),
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
                tokio::time::sleep(Duration::from_secs(1)).await;
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
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        roots
            .add(certificate)
            .with_context(|| format!("{} holds no authority", authorities.display()))?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .with_context(|| format!("{host} is no host name"))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let connected = tokio::time::timeout(HANDSHAKE_WAIT_MAX, connecting).await;
    connected
        .context("the API did not finish the TLS handshake")?
        .context("the API's certificate is not accepted")
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
