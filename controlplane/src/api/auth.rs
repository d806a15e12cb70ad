//! Who may ask: a bearer token, compared in constant time.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::{digest, hmac};

use super::context::Shared;
use crate::model::{Fault, HexId, Refusal};

/// The token that a request came with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) HexId);

/// Lets a request with a valid API token pass.
pub(crate) async fn customer(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    match caller(&shared, request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Lets a request with the proxy's token or an API token pass.
pub(crate) async fn proxy(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let is_proxy = bearer(request.headers())
        .is_ok_and(|secret| is_same(secret.as_bytes(), shared.origin_token.as_bytes()));
    match caller(&shared, request.headers()) {
        Err(refusal) if !is_proxy => refusal.into_response(),
        Ok(_) | Err(_) => next.run(request).await,
    }
}

fn caller(shared: &Shared, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let secret = bearer(headers)?;
    let snapshot = shared.snapshot();
    let known = snapshot.tokens.iter().find(|token| token.is(secret));
    known
        .map(|token| Caller(token.id))
        .ok_or_else(|| forbidden(10_000, "Authentication error: the token is not known."))
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Err(forbidden(
            10_000,
            "Authentication error: send 'Authorization: Bearer TOKEN'.",
        ));
    };
    let malformed = || {
        forbidden(
            9109,
            "Invalid access token: the header must be 'Bearer TOKEN'.",
        )
    };
    let (scheme, token) = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(malformed)?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    let token = token.trim();
    let is_fine = !token.is_empty() && token.len() <= 512 && token.bytes().all(is_token);
    match scheme.eq_ignore_ascii_case("bearer") && is_fine {
        true => Ok(token),
        false => Err(malformed()),
    }
}

/// Compares through a keyed hash, so that the time taken says nothing about either side.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let key = hmac::Key::new(
        hmac::HMAC_SHA256,
        digest::digest(&digest::SHA256, b).as_ref(),
    );
    let tag = hmac::sign(&key, b);
    hmac::verify(&key, a, tag.as_ref()).is_ok()
}

fn forbidden(code: u32, message: &str) -> Refusal {
    Refusal::new(Fault::Forbidden, code, message)
}
