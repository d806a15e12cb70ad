//! Who asks: a bearer token, looked up by its keyed hash; when and from where it is good; how often.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use ring::{digest, hmac};
use tokio::time::Instant;

use super::context::{self, ACTOR, Shared};
use super::limit::Who;
use super::permit::Caller;
use crate::model::audit::Actor;
use crate::model::token::Token;
use crate::model::{Fault, Refusal};
use crate::store::Snapshot;

/// Code of a request without a token that is good.
const UNAUTHENTICATED: u32 = 10_000;

/// Lets a request with a valid API token pass, as its actor.
pub(crate) async fn customer(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let ip = peer(&request);
    match admitted(&shared, request.headers(), ip) {
        Ok(caller) => {
            let actor = Actor {
                token_id: caller.token.id,
                token_name: caller.token.name.clone(),
                ip,
                method: request.method().to_string(),
                path: crate::model::fields::echo_long(request.uri().path()),
            };
            request.extensions_mut().insert(caller);
            ACTOR.scope(Arc::new(actor), next.run(request)).await
        }
        Err(Denied::Wait(wait)) => too_many(wait),
        Err(Denied::Refused(refusal)) => refusal.into_response(),
    }
}

/// Lets a request with the proxy's token pass, or with an API token that may do everything: the
/// answers are of all accounts.
pub(crate) async fn proxy(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let is_proxy = bearer(request.headers())
        .is_ok_and(|secret| is_same(secret.as_bytes(), shared.origin_token.as_bytes()));
    if is_proxy {
        return next.run(request).await;
    }
    match admitted(&shared, request.headers(), peer(&request)) {
        Ok(caller) if caller.token.policies.is_none() => next.run(request).await,
        Ok(_) => {
            let why = "Unauthorized to access requested resource: only an unrestricted token may.";
            Refusal::new(Fault::Forbidden, 9109, why).into_response()
        }
        Err(Denied::Wait(wait)) => too_many(wait),
        Err(Denied::Refused(refusal)) => refusal.into_response(),
    }
}

/// Lets a request with the proxy's token alone pass: it gets what no customer may see.
pub(crate) async fn proxy_alone(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Response {
    match bearer(request.headers()) {
        Ok(secret) if is_same(secret.as_bytes(), shared.origin_token.as_bytes()) => {
            next.run(request).await
        }
        Ok(_) => forbidden(9109, "Unauthorized: this is for the proxy alone.").into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// Why a request does not pass.
enum Denied {
    /// Too many came.
    Wait(Duration),
    /// No good token.
    Refused(Refusal),
}

/// The address counts before the token is looked at, so that guessing has a bound.
fn admitted(shared: &Shared, headers: &HeaderMap, ip: Option<IpAddr>) -> Result<Caller, Denied> {
    let now = Instant::now().into_std();
    let address = ip.map(Who::address);
    if let Some(address) = address {
        shared.limits.take(address, now).map_err(Denied::Wait)?;
    }
    let caller = caller(shared, headers, ip).map_err(|refusal| {
        if let Some(address) = address {
            shared.limits.punish(address, now);
        }
        Denied::Refused(refusal)
    })?;
    let token = Who::Token(caller.token.id);
    shared.limits.take(token, now).map_err(Denied::Wait)?;
    shared.uses.note(caller.token.id, context::now());
    Ok(caller)
}

fn caller(shared: &Shared, headers: &HeaderMap, ip: Option<IpAddr>) -> Result<Caller, Refusal> {
    let secret = bearer(headers)?;
    let snapshot = shared.snapshot();
    let Some(token) = known(shared, &snapshot, secret) else {
        return Err(forbidden(
            UNAUTHENTICATED,
            "Authentication error: the token is not known.",
        ));
    };
    match token.bounds.obstacle(context::now(), ip) {
        Some(why) => Err(forbidden(
            UNAUTHENTICATED,
            &format!("Authentication error: {why}."),
        )),
        None => Ok(Caller { token }),
    }
}

/// The token with this secret: by the hash of it under the server's key. The order of hashes says
/// nothing of a secret to whoever does not have that key.
fn known(shared: &Shared, snapshot: &Snapshot, secret: &str) -> Option<Arc<Token>> {
    let hash = shared.keys.hash(secret);
    let by_hash = snapshot.indexes.tokens.get(&hash);
    if let Some(token) = by_hash.and_then(|id| snapshot.tokens.get(id)) {
        return shared
            .keys
            .is_hash(secret, &token.hash)
            .then(|| Arc::clone(token));
    }
    // The first token of a store that was made before there was a server key.
    let mut salted = snapshot.tokens.iter().filter(|token| token.salt.is_some());
    salted.find(|token| token.is_salted(secret)).cloned()
}

fn peer(request: &Request) -> Option<IpAddr> {
    let info = request.extensions().get::<ConnectInfo<SocketAddr>>();
    info.map(|ConnectInfo(address)| address.ip().to_canonical())
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        if headers.contains_key("x-auth-key") || headers.contains_key("x-auth-email") {
            return Err(forbidden(
                9106,
                "X-Auth-Email and X-Auth-Key are not carried here: make an API token and send \
                 'Authorization: Bearer TOKEN'.",
            ));
        }
        return Err(forbidden(
            UNAUTHENTICATED,
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

fn too_many(wait: Duration) -> Response {
    let secs = wait.as_secs() + 1;
    let why = format!("Too many requests: wait {secs} s.");
    let mut response = Refusal::new(Fault::TooMany, 10_429, why).into_response();
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(secs));
    response
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
