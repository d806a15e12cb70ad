//! `?dry_run=true` on a DELETE: what would go along, without doing it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use serde_json::{Value, json};

use super::envelope::one;
use crate::store::Touched;

tokio::task_local! {
    static SLOT: Slot;
}

/// What the request's transaction would have changed.
pub(super) type Slot = Arc<Mutex<Vec<Touched>>>;

/// The slot of the request, when it is not to be carried out.
pub(super) fn slot() -> Option<Slot> {
    SLOT.try_with(Arc::clone).ok()
}

/// Answers a DELETE that is only asked about with what it would change; a refusal stays what it is.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let is_asked = |query: &str| query.split('&').any(|pair| pair == "dry_run=true");
    if request.method() != Method::DELETE || !request.uri().query().is_some_and(is_asked) {
        return next.run(request).await;
    }
    let slot = Slot::default();
    let answered = SLOT.scope(Arc::clone(&slot), next.run(request)).await;
    if !answered.status().is_success() {
        return answered;
    }
    let touched = std::mem::take(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner));
    let listed = |is_gone: bool| -> Vec<Value> {
        let wanted = touched.iter().filter(|one| one.is_gone == is_gone);
        wanted
            .map(|one| json!({"type": one.kind, "id": one.id}))
            .collect()
    };
    one(json!({"dry_run": true, "deletes": listed(true), "changes": listed(false)}))
}
