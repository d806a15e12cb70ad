//! Calls to etcd: its API v3 as JSON over HTTP/1.1, which every etcd from 3.4 on serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// Longest wait for a connection, TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Longest wait for an answer: an election takes etcd about one second.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Largest answer: a page of objects is some megabytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where an etcd is, and who we are to it.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `host:port` of each member; one that answers is enough.
    pub endpoints: Vec<String>,
    /// What every key begins with; several installations may share one etcd.
    pub prefix: String,
    /// Whether to speak TLS.
    pub has_tls: bool,
    /// Authorities of the members' certificates, PEM.
    pub ca: Option<PathBuf>,
    /// Our certificate and key, PEM, when the members ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User and password, when etcd's authentication is on.
    pub user: Option<(String, String)>,
    /// How many operations the members take in one transaction (`--max-txn-ops`).
    pub txn_ops: usize,
}

/// Why a call did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody was asked.
    #[error("no etcd answers at {endpoints}: {last}")]
    Unreachable {
        /// Who was tried.
        endpoints: String,
        /// What the last of them did.
        last: String,
    },
    /// Somebody was asked, and did not answer: it may be done or not.
    #[error("etcd did not finish its answer: {0}")]
    Broken(String),
    /// It was refused, in etcd's words.
    #[error("etcd refuses: {0}")]
    Refused(String),
    /// A file of the configuration cannot be used.
    #[error("cannot use {path} for the connection to etcd: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

type Sender = SendRequest<Full<Bytes>>;

/// A client with one connection for calls; a stream has its own.
pub(super) struct Client {
    config: Config,
    tls: Option<TlsConnector>,
    live: Mutex<Option<Sender>>,
    token: Mutex<Option<String>>,
    /// The member to try first: the one that worked last.
    first: AtomicUsize,
}

impl Client {
    pub(super) fn new(config: Config) -> Result<Client, CallError> {
        let tls = match config.has_tls {
            true => Some(connector(&config)?),
            false => None,
        };
        Ok(Client {
            config,
            tls,
            live: Mutex::new(None),
            token: Mutex::new(None),
            first: AtomicUsize::new(0),
        })
    }

    /// One question, one answer. An expired login is renewed once.
    pub(super) async fn call(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        match self.call_once(path, body).await {
            Err(CallError::Refused(why)) if is_login(&why) && self.config.user.is_some() => {
                *self.token.lock().await = None;
                self.call_once(path, body).await
            }
            done => done,
        }
    }

    async fn call_once(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        let token = self.token().await?;
        // Held over the call: there is one at a time, and each has its deadline.
        let mut live = self.live.lock().await;
        let reused = live.take().filter(|sender| !sender.is_closed());
        let mut sender = match reused {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = exchange(&mut sender, request(path, body, token.as_deref())?).await?;
        let (status, bytes) = answer;
        *live = Some(sender);
        read(status, &bytes)
    }

    /// A question whose answer does not end: it comes as lines of JSON.
    pub(super) async fn stream(&self, path: &str, body: &Value) -> Result<Incoming, CallError> {
        let token = self.token().await?;
        let mut sender = self.connect().await?;
        let request = request(path, body, token.as_deref())?;
        let sent = tokio::time::timeout(ANSWER_WITHIN, sender.send_request(request)).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(why)) => return Err(CallError::Broken(why.to_string())),
            Err(_) => return Err(CallError::Broken("no answer in time".to_owned())),
        };
        if response.status() != StatusCode::OK {
            let status = response.status();
            *self.token.lock().await = None;
            return Err(CallError::Refused(format!("status {status} to a watch")));
        }
        Ok(response.into_body())
    }

    async fn token(&self) -> Result<Option<String>, CallError> {
        let Some((name, password)) = &self.config.user else {
            return Ok(None);
        };
        let mut token = self.token.lock().await;
        if token.is_none() {
            let mut sender = self.connect().await?;
            let body = json!({"name": name, "password": password});
            let request = request("/v3/auth/authenticate", &body, None)?;
            let (status, bytes) = exchange(&mut sender, request).await?;
            let answer = read(status, &bytes)?;
            *token = answer["token"].as_str().map(str::to_owned);
        }
        Ok(token.clone())
    }

    /// A connection to the first member that takes one.
    async fn connect(&self) -> Result<Sender, CallError> {
        let count = self.config.endpoints.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut last = "there is no endpoint".to_owned();
        for index in (first..first + count).map(|index| index % count) {
            let attempt = self.connect_to(&self.config.endpoints[index]);
            match tokio::time::timeout(CONNECT_WITHIN, attempt).await {
                Ok(Ok(sender)) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(sender);
                }
                Ok(Err(why)) => last = why.to_string(),
                Err(_) => last = "no connection in time".to_owned(),
            }
        }
        Err(CallError::Unreachable {
            endpoints: self.config.endpoints.join(", "),
            last,
        })
    }

    async fn connect_to(&self, endpoint: &str) -> Result<Sender, std::io::Error> {
        let stream = TcpStream::connect(endpoint).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return shake(stream).await;
        };
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        shake(tls.connect(name, stream).await?).await
    }
}

async fn shake<S>(stream: S) -> Result<Sender, std::io::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    // Ends with the sender, or with the peer.
    tokio::spawn(async move {
        if let Err(why) = connection.await {
            tracing::debug!(%why, "a connection to etcd ended");
        }
    });
    Ok(sender)
}

fn request(
    path: &str,
    body: &Value,
    token: Option<&str>,
) -> Result<Request<Full<Bytes>>, CallError> {
    let mut request = Request::post(path)
        .header("host", "etcd")
        .header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    request
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|why| CallError::Refused(why.to_string()))
}

async fn exchange(
    sender: &mut Sender,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), CallError> {
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(broken)?.to_bytes();
        Ok((status, body))
    };
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(broken("no answer in time")),
    }
}

fn broken(why: impl ToString) -> CallError {
    CallError::Broken(why.to_string())
}

fn read(status: StatusCode, bytes: &[u8]) -> Result<Value, CallError> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|_text| CallError::Broken(format!("status {status} without JSON")))?;
    if status == StatusCode::OK {
        return Ok(value);
    }
    let why = value["error"].as_str().unwrap_or("no reason given");
    Err(CallError::Refused(why.to_owned()))
}

fn is_login(why: &str) -> bool {
    why.contains("invalid auth token") || why.contains("user name is empty")
}

fn connector(config: &Config) -> Result<TlsConnector, CallError> {
    let unusable = |path: &PathBuf, why: String| CallError::File {
        path: path.clone(),
        why,
    };
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = &config.ca {
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|why| unusable(path, why.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| CallError::Refused(why.to_string()))?
        .with_root_certificates(roots);
    let tls = match &config.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key_path)) => {
            let key = PrivateKeyDer::from_pem_file(key_path)
                .map_err(|why| unusable(key_path, why.to_string()))?;
            let chain = certificates(certificate)?;
            let with_identity = builder.with_client_auth_cert(chain, key);
            with_identity.map_err(|why| unusable(certificate, why.to_string()))?
        }
    };
    Ok(TlsConnector::from(Arc::new(tls)))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, CallError> {
    let unusable = |why: rustls::pki_types::pem::Error| CallError::File {
        path: path.clone(),
        why: why.to_string(),
    };
    CertificateDer::pem_file_iter(path)
        .map_err(unusable)?
        .collect::<Result<_, _>>()
        .map_err(unusable)
}

/// Bytes as etcd's JSON has them.
pub(super) fn coded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// Bytes out of etcd's JSON; an absent field is empty.
pub(super) fn decoded(value: &Value) -> Option<Vec<u8>> {
    if value.is_null() {
        return Some(Vec::new());
    }
    STANDARD.decode(value.as_str()?).ok()
}

/// A number out of etcd's JSON, which writes 64-bit numbers as strings; an absent one is 0.
pub(super) fn number(value: &Value) -> i64 {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
