//! HTTP client of the Origin API: two questions, bounded answers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use controlplane::origin::{Apps, Certificates, HostAnswer};
use http::header::{AUTHORIZATION, HOST, HeaderValue, InvalidHeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;

/// Largest answer: 16 MiB, some 30,000 apps of 500 bytes; a host's answer is below 4 KiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Idle connections kept: as many as questions at one time would be a waste, hosts are cached.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Nothing came in time.
    #[error("the Origin API did not answer in time")]
    TimedOut,
    /// The connection failed.
    #[error("the Origin API could not be reached")]
    Unreachable,
    /// The answer was a status that is no answer.
    #[error("the Origin API answered with status {0}")]
    Status(u16),
    /// The answer could not be understood, or is too long.
    #[error("the Origin API's answer could not be read")]
    Unreadable,
}

/// A client of one Origin API. Every call may wait: put a deadline around it.
#[derive(Clone)]
pub struct OriginApi {
    client: Client<HttpConnector, Empty<Bytes>>,
    address: SocketAddr,
    bearer: HeaderValue,
}

impl std::fmt::Debug for OriginApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OriginApi")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl OriginApi {
    /// A client for the Origin API at `address`; connects when asked something.
    ///
    /// # Errors
    /// The token has characters that a header may not have.
    pub fn new(address: SocketAddr, token: &str) -> Result<Self, InvalidHeaderValue> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
        bearer.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Ok(Self {
            client,
            address,
            bearer,
        })
    }

    /// Where a host's requests go; `None` if the host is not configured. The host consists of
    /// letters, digits, `-`, `_` and `.` only.
    pub async fn host(&self, host: &str) -> Result<Option<HostAnswer>, LookupError> {
        self.get(&format!("/origin/v1/hosts/{host}")).await
    }

    /// All layer-4 apps.
    pub async fn apps(&self) -> Result<Apps, LookupError> {
        self.get("/origin/v1/apps")
            .await?
            .ok_or(LookupError::Status(404))
    }

    /// The certificates that customers brought, unless they are those that the etag names.
    pub(crate) async fn certificates(&self, etag: &str) -> Result<Certificates, LookupError> {
        self.get(&format!("/origin/v1/certificates?etag={etag}"))
            .await?
            .ok_or(LookupError::Status(404))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, LookupError> {
        let authority = self.address.to_string();
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(|_invalid| LookupError::Unreadable)?;
        let request = Request::get(uri)
            .header(HOST, authority)
            .header(AUTHORIZATION, self.bearer.clone())
            .body(Empty::new())
            .map_err(|_invalid| LookupError::Unreadable)?;
        let response = self.client.request(request).await.map_err(|why| {
            tracing::debug!(%why, "asking the Origin API");
            LookupError::Unreachable
        })?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if status != StatusCode::OK {
            return Err(LookupError::Status(status.as_u16()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|why| {
                tracing::debug!(%why, "reading the Origin API's answer");
                LookupError::Unreadable
            })?
            .to_bytes();
        serde_json::from_slice(&body).map(Some).map_err(|why| {
            tracing::debug!(%why, "understanding the Origin API's answer");
            LookupError::Unreadable
        })
    }
}
