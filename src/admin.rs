//! The admin socket: what a running node shows of itself, as JSON over HTTP on a Unix socket.

use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use controlplane::ControlPlane;
use controlplane::model::HexId;
use dataplane::io::Handle;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

/// What is shown beside the packet side: the proxy's counters, where there is a proxy.
pub(crate) type Extra = Arc<dyn Fn() -> Value + Send + Sync>;

/// Size of the pieces of a backup, and how many wait for a slow reader.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_WAITING_MAX: usize = 8;

#[derive(Clone)]
struct Shown {
    handle: Handle,
    proxy: Option<Extra>,
}

/// What a node shows of its packet side, and of its proxy.
pub(crate) fn shown(handle: Handle, proxy: Option<Extra>) -> Router {
    Router::new()
        .route("/show/{what}", get(show))
        .with_state(Shown { handle, proxy })
}

/// Backups of what a control plane has.
pub(crate) fn backups(plane: ControlPlane) -> Router {
    Router::new()
        .route("/backup", get(backup))
        .with_state(plane)
}

/// Identities for nodes.
pub(crate) fn enrolments(plane: ControlPlane) -> Router {
    Router::new().route("/nodes", post(enrol)).with_state(plane)
}

/// Another token, for when all are lost.
pub(crate) fn tokens(plane: ControlPlane) -> Router {
    Router::new()
        .route("/tokens", post(new_token))
        .with_state(plane)
}

/// Opens the socket (replacing one that a crash left behind) and serves until the runtime ends.
pub(crate) fn serve(path: &Path, routes: Router) -> anyhow::Result<()> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!(
            "another portcullis answers on {}: stop it first",
            path.display()
        );
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make the directory {}", parent.display()))?;
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("cannot open the admin socket {}", path.display()))?;
    restrict(path)?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the admin socket ended");
        }
    });
    Ok(())
}

/// Only the owner may look: counters and addresses are nobody else's business.
fn restrict(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

async fn show(State(shown): State<Shown>, UrlPath(what): UrlPath<String>) -> Response {
    // Look-ups that wait for the worker do so off the runtime's thread.
    let answer = tokio::task::spawn_blocking(move || value(&shown, &what)).await;
    match answer {
        Ok(Some(value)) => Json(value).into_response(),
        Ok(None) => (
            StatusCode::NOT_FOUND,
            "there are fib, return, tunnels, sources and counters to show",
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// What a new node is to be.
#[derive(Deserialize)]
struct Enrolment {
    name: String,
    account: Option<HexId>,
}

async fn enrol(State(plane): State<ControlPlane>, Json(asked): Json<Enrolment>) -> Response {
    let made = tokio::task::spawn_blocking(move || plane.enrol(&asked.name, asked.account)).await;
    match made {
        Ok(Ok(bundle)) => bundle.into_response(),
        Ok(Err(why)) => (StatusCode::BAD_REQUEST, why.to_string()).into_response(),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, why.to_string()).into_response(),
    }
}

/// What a new token is to be.
#[derive(Deserialize)]
struct NewToken {
    name: String,
}

async fn new_token(State(plane): State<ControlPlane>, Json(asked): Json<NewToken>) -> Response {
    let made = tokio::task::spawn_blocking(move || plane.new_token(&asked.name)).await;
    match made {
        Ok(Ok(secret)) => secret.into_response(),
        Ok(Err(why)) => (StatusCode::BAD_REQUEST, why.to_string()).into_response(),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, why.to_string()).into_response(),
    }
}

/// Streams a backup. One that breaks off is without its last line, and so is none.
async fn backup(State(plane): State<ControlPlane>) -> Response {
    let (pipe, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE_BYTES, Pipe(pipe.clone()));
        match plane.backup(&mut out) {
            Ok(summary) => tracing::info!(summary.revision, summary.objects, "backed up"),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a backup broke off"
                );
                // Nobody waits for it when the client is gone.
                let _is_heard = pipe.blocking_send(Err(std::io::Error::other(error)));
            }
        }
    });
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    Body::from_stream(pieces).into_response()
}

/// The writing end of a body.
struct Pipe(mpsc::Sender<std::io::Result<Bytes>>);

impl std::io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = Ok(Bytes::copy_from_slice(bytes));
        let sent = self.0.blocking_send(piece);
        sent.map_err(|_gone| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn value(shown: &Shown, what: &str) -> Option<Value> {
    let handle = &shown.handle;
    match what {
        "fib" => Some(json!(handle.fib())),
        "return" => Some(json!(handle.returns())),
        "tunnels" => Some(json!(handle.tunnels())),
        "sources" => Some(json!(handle.sources())),
        "counters" => {
            let mut all = json!({ "router": handle.counters() });
            if let Some(proxy) = &shown.proxy {
                all["proxy"] = proxy();
            }
            Some(all)
        }
        _ => None,
    }
}
