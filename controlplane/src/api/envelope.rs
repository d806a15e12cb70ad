//! The envelope of every answer.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::input::Paging;
use crate::model::{Fault, Refusal};

/// A successful answer, or the refusal.
pub(crate) type Answer = Result<Response, Refusal>;

/// Says of an answer that it was found on an old state, and at which revision the newer one is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stale(pub(crate) u64);

/// One result.
pub(crate) fn one(result: Value) -> Response {
    let body = json!({"success": true, "errors": [], "messages": [], "result": result});
    Json(body).into_response()
}

/// Code of a note on what else a request did.
const NOTE: u32 = 1000;

/// One result, with sentences on what else happened.
pub(crate) fn one_noting(result: Value, notes: &[String]) -> Response {
    let messages = messages(notes);
    let body = json!({"success": true, "errors": [], "messages": messages, "result": result});
    Json(body).into_response()
}

/// Sentences on what else happened, as the envelope has them.
pub(crate) fn messages(notes: &[String]) -> Vec<Value> {
    let note = |text| json!({"code": NOTE, "message": text});
    notes.iter().map(note).collect()
}

/// The most names that a sentence lists.
const NAMED_MAX: usize = 5;

/// The first of the names, and how many more there are.
pub(crate) fn few(names: &[String]) -> String {
    let shown = &names[..names.len().min(NAMED_MAX)];
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

/// One page of a list: of all `items`, those of the page; past the end, none.
pub(crate) fn page<T>(items: Vec<T>, paging: Paging, show: impl Fn(T) -> Value) -> Response {
    let total = items.len();
    page_of(items.into_iter(), total, paging, show)
}

/// The same, of a list whose length is known without walking it.
pub(crate) fn page_of<T>(
    items: impl Iterator<Item = T>,
    total: usize,
    paging: Paging,
    show: impl Fn(T) -> Value,
) -> Response {
    let shown = items.skip(paging.skipped()).take(paging.per_page);
    let result: Vec<Value> = shown.map(show).collect();
    let info = json!({
        "page": paging.page,
        "per_page": paging.per_page,
        "count": result.len(),
        "total_count": total,
        "total_pages": total.div_ceil(paging.per_page),
    });
    Json(json!({
        "success": true, "errors": [], "messages": [], "result": result, "result_info": info,
    }))
    .into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.fault {
            Fault::Invalid => StatusCode::BAD_REQUEST,
            Fault::Forbidden => StatusCode::FORBIDDEN,
            Fault::NotFound => StatusCode::NOT_FOUND,
            Fault::Method => StatusCode::METHOD_NOT_ALLOWED,
            Fault::Conflict => StatusCode::CONFLICT,
            Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Fault::Stale(_) => StatusCode::SERVICE_UNAVAILABLE,
            Fault::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Fault::Ours => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let stale = match self.fault {
            Fault::Stale(found) => Some(Stale(found)),
            Fault::Invalid
            | Fault::Forbidden
            | Fault::NotFound
            | Fault::Method
            | Fault::Conflict
            | Fault::TooLarge
            | Fault::TooSlow
            | Fault::TooMany
            | Fault::Ours => None,
        };
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(pointer) = self.pointer {
            error["source"] = json!({"pointer": pointer});
        }
        if !self.chain.is_empty() {
            let item = |(code, message): &(u32, String)| json!({"code": code, "message": message});
            error["error_chain"] = self.chain.iter().map(item).collect();
        }
        let body = json!({"success": false, "errors": [error], "messages": [], "result": null});
        let mut response = (status, Json(body)).into_response();
        if let Some(stale) = stale {
            response.extensions_mut().insert(stale);
        }
        response
    }
}
