//! Small HTTP clients: the API over TCP for `ctl`, the admin socket for `show`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::api_tls;

/// The longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer: status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: hyper::StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("the answer ({}) is not JSON", self.status))
    }
}

/// Who asks the API, and whom he believes to be it.
#[derive(Clone)]
pub(crate) struct Caller {
    /// The API token.
    pub(crate) token: String,
    /// PEM file of certificates, for `https://`.
    pub(crate) authorities: Option<PathBuf>,
}

/// Sends one request to `http(s)://host:port/path` and reads the whole answer.
pub(crate) async fn api(
    method: Method,
    uri: &Uri,
    caller: &Caller,
    body: Option<&Value>,
) -> anyhow::Result<Answer> {
    let body = body.map(|value| ("application/json", value.to_string()));
    send(method, uri, caller, body).await
}

/// Posts a form with one file, as a browser would (RFC 7578).
pub(crate) async fn upload(uri: &Uri, caller: &Caller, file: &str) -> anyhow::Result<Answer> {
    let mut boundary = String::from("portcullis");
    while file.contains(&boundary) {
        boundary.push('-');
    }
    let kind = format!("multipart/form-data; boundary={boundary}");
    let head = "Content-Disposition: form-data; name=\"file\"; filename=\"zone\"";
    let body = format!("--{boundary}\r\n{head}\r\n\r\n{file}\r\n--{boundary}--\r\n");
    send(Method::POST, uri, caller, Some((&kind, body))).await
}

/// Sends a request with a body of a type.
async fn send(
    method: Method,
    uri: &Uri,
    caller: &Caller,
    body: Option<(&str, String)>,
) -> anyhow::Result<Answer> {
    let (is_tls, port) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https") => (true, 443),
        Some(_) | None => bail!("{uri} is not an http:// or https:// address"),
    };
    let authority = uri.authority().context("the API address names no host")?;
    let port = authority.port_u16().unwrap_or(port);
    let address = format!("{}:{port}", authority.host());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", authority.as_str())
        .header("authorization", format!("Bearer {}", caller.token));
    let bytes = match body {
        Some((kind, text)) => {
            request = request.header("content-type", kind);
            Bytes::from(text)
        }
        None => Bytes::new(),
    };
    let request = request.body(Full::new(bytes))?;
    let authorities = match (is_tls, &caller.authorities) {
        (true, None) => bail!(
            "say which certificate the API at {uri} has: --ca FILE (PORTCULLIS_CA), its own or its \
             authority's"
        ),
        (true, authorities) => authorities.as_deref(),
        (false, _) => None,
    };
    let stream = tokio::time::timeout(TIMEOUT, TcpStream::connect(&address))
        .await
        .with_context(|| format!("{address} did not answer"))?
        .with_context(|| format!("cannot reach the API at {address}: is the edge running?"))?;
    match authorities {
        Some(authorities) => {
            let stream = api_tls::connect(stream, authority.host(), authorities).await?;
            exchange(stream, request).await
        }
        None => exchange(stream, request).await,
    }
}

/// Asks the admin socket of a running edge or site.
pub(crate) async fn admin(socket: &Path, path: &str) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "cannot reach {}: is an edge or site running, and is this its admin_socket?",
            socket.display()
        )
    })?;
    let request = Request::builder().uri(path).header("host", "admin");
    exchange(stream, request.body(Full::new(Bytes::new()))?).await
}

/// Sends JSON to the admin socket of a running control plane; `None` when nobody listens there.
pub(crate) async fn admin_post(
    socket: &Path,
    path: &str,
    body: &Value,
) -> anyhow::Result<Option<Answer>> {
    let Ok(stream) = UnixStream::connect(socket).await else {
        return Ok(None);
    };
    let request = Request::post(path)
        .header("host", "admin")
        .header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from(body.to_string())))?;
    Ok(Some(exchange(stream, request).await?))
}

/// Streams an answer of the admin socket into `out`; `None` when nobody listens there.
pub(crate) async fn admin_stream(
    socket: &Path,
    path: &str,
    out: &mut dyn std::io::Write,
) -> anyhow::Result<Option<()>> {
    let Ok(stream) = UnixStream::connect(socket).await else {
        return Ok(None);
    };
    let request = Request::builder().uri(path).header("host", "admin");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = request.body(Full::new(Bytes::new()))?;
    let mut response = sender.send_request(request).await?;
    if !response.status().is_success() {
        bail!(
            "{} answers {} to {path}",
            socket.display(),
            response.status()
        );
    }
    let silence = "no answer within 10 s";
    while let Some(frame) = tokio::time::timeout(TIMEOUT, response.body_mut().frame())
        .await
        .context(silence)?
    {
        if let Ok(bytes) = frame?.into_data() {
            out.write_all(&bytes)?;
        }
    }
    driver.abort();
    Ok(Some(()))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let answer = tokio::time::timeout(TIMEOUT, async {
        let response: Response<_> = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok(Answer { status, body })
    })
    .await;
    driver.abort();
    answer.context("no answer within 10 s")?
}
