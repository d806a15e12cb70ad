//! Small HTTP clients: the API over TCP for `ctl`, the admin socket for `show`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

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

/// Sends one request to `http://host:port/path` and reads the whole answer.
pub(crate) async fn api(
    method: Method,
    uri: &Uri,
    token: Option<&str>,
    body: Option<&Value>,
) -> anyhow::Result<Answer> {
    let body = body.map(|value| ("application/json", value.to_string()));
    send(method, uri, token, body).await
}

/// Posts a form with one file, as a browser would (RFC 7578).
pub(crate) async fn upload(uri: &Uri, token: Option<&str>, file: &str) -> anyhow::Result<Answer> {
    let mut boundary = String::from("portcullis");
    while file.contains(&boundary) {
        boundary.push('-');
    }
    let kind = format!("multipart/form-data; boundary={boundary}");
    let head = "Content-Disposition: form-data; name=\"file\"; filename=\"zone\"";
    let body = format!("--{boundary}\r\n{head}\r\n\r\n{file}\r\n--{boundary}--\r\n");
    send(Method::POST, uri, token, Some((&kind, body))).await
}

/// Sends a request with a body of a type.
async fn send(
    method: Method,
    uri: &Uri,
    token: Option<&str>,
    body: Option<(&str, String)>,
) -> anyhow::Result<Answer> {
    if uri.scheme_str() != Some("http") {
        bail!("{uri} is not an http:// address");
    }
    let authority = uri.authority().context("the API address names no host")?;
    let address = format!(
        "{}:{}",
        authority.host(),
        authority.port_u16().unwrap_or(80)
    );
    let stream = tokio::time::timeout(TIMEOUT, TcpStream::connect(&address))
        .await
        .with_context(|| format!("{address} did not answer"))?
        .with_context(|| format!("cannot reach the API at {address}: is the edge running?"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", authority.as_str());
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let bytes = match body {
        Some((kind, text)) => {
            request = request.header("content-type", kind);
            Bytes::from(text)
        }
        None => Bytes::new(),
    };
    exchange(stream, request.body(Full::new(bytes))?).await
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
