//! `?dry_run=true` on a DELETE: what would go along, without doing it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Method;
use serde_json::{Value, json};

use super::envelope::one;
use crate::model::audit::Change;
use crate::model::{Fault, Refusal};

/// Code of a rehearsal of what cannot be rehearsed.
const INVALID: u32 = 10_400;

/// What people call an object by, of whatever kind.
const NAMES: [&str; 4] = ["name", "network", "prefix", "hostname"];

tokio::task_local! {
    static FOUND: Found;
}

/// What the request's transaction would have changed.
type Found = Arc<Mutex<(Vec<Change>, usize)>>;

/// Whether the request that is being handled is not to be carried out.
pub(super) fn is_asked() -> bool {
    FOUND.try_with(|_| ()).is_ok()
}

/// The transaction of the request would have changed this.
pub(super) fn note(changes: Vec<Change>, unlisted: usize) {
    // Without the layer nobody wants to know.
    let _is_wanted = FOUND.try_with(|found| {
        *found.lock().unwrap_or_else(PoisonError::into_inner) = (changes, unlisted);
    });
}

/// Answers a DELETE that is only asked about with what it would change; a refusal stays what it is.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let wanted = match wanted(&request) {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal.into_response(),
    };
    if !wanted {
        return next.run(request).await;
    }
    let found = Found::default();
    let answered = FOUND.scope(Arc::clone(&found), next.run(request)).await;
    if !answered.status().is_success() {
        return answered;
    }
    let (changes, unlisted) =
        std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    let listed = |is_gone: bool| -> Vec<Value> {
        let wanted = changes.iter().filter(|one| one.new.is_none() == is_gone);
        wanted.map(shown).collect()
    };
    one(json!({
        "dry_run": true, "deletes": listed(true), "changes": listed(false), "unlisted": unlisted,
    }))
}

/// Whether the query says so. What it cannot be said of must not happen instead.
fn wanted(request: &Request) -> Result<bool, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let mut values = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| *name == "dry_run");
    let refuse = |why: &str| Err(Refusal::new(Fault::Invalid, INVALID, why).at("dry_run"));
    let writes = [&Method::DELETE, &Method::POST, &Method::PUT, &Method::PATCH];
    let method = request.method();
    match values.next().map(|(_, value)| value) {
        None | Some("false") => Ok(false),
        // Nothing is written, or there is no such method.
        Some(_) if !writes.contains(&method) => Ok(false),
        Some("true") if *method == Method::DELETE => Ok(true),
        Some("true") => refuse("'dry_run' is for DELETE; magic writes have 'validate_only'."),
        Some(_) => refuse("'dry_run' must be true or false."),
    }
}

fn shown(change: &Change) -> Value {
    let object = change.old.as_ref().or(change.new.as_ref());
    let name = object.and_then(|object| {
        let mut names = NAMES.iter().map(|field| &object[*field]);
        names.find(|name| !name.is_null()).cloned()
    });
    json!({"type": change.kind, "id": change.object_id, "name": name})
}
