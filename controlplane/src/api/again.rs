//! Asks again what another control plane came before: on the state that it made.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::context::Shared;
use super::envelope::Stale;
use super::input::whole_body;

/// How often a request is tried: each time somebody else's change went through.
const TRIES_MAX: u32 = 20;

/// Longest wait for the others' change to arrive here.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);

/// Keeps a changing request, and runs it again while its answer is [`Stale`].
pub(crate) async fn when_stale(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() || !shared.objects.is_shared() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = match whole_body(Request::from_parts(parts.clone(), body), &shared).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let response = next.clone().run(request).await;
        let Some(Stale(found)) = response.extensions().get().copied() else {
            return response;
        };
        if tries == TRIES_MAX {
            return response;
        }
        let mut revision = shared.objects.revision();
        let arrived = revision.wait_for(|revision| *revision >= found);
        if tokio::time::timeout(ARRIVES_WITHIN, arrived).await.is_err() {
            return response;
        }
    }
}
