//! What comes in with a request: path, query, body; each refused in the envelope.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::context::no_route;
use crate::model::fields::echo;
use crate::model::{Fault, Refusal};

/// Longest time for a body to arrive: a mebibyte at 280 kb/s.
const BODY_WAIT_MAX: Duration = Duration::from_secs(30);

/// Code of a query parameter that is wrong.
const BAD_QUERY: u32 = 1_000;

/// The variable parts of the path.
pub(crate) struct At<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<At<T>, Refusal> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        match path {
            Ok(Path(path)) => Ok(At(path)),
            Err(_) => Err(no_route(parts.uri.path())),
        }
    }
}

/// The body as JSON, whatever its declared type; an absent one is an empty object.
pub(crate) struct Body(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Body, Refusal> {
        let bytes = whole_body(request, state).await?;
        if bytes.is_empty() {
            return Ok(Body(Value::Object(serde_json::Map::new())));
        }
        serde_json::from_slice(&bytes).map(Body).map_err(|why| {
            Refusal::invalid(6007, format!("Malformed JSON in request body: {why}."))
        })
    }
}

/// The body, whole, within its bounds of size and time.
pub(super) async fn whole_body<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Bytes, Refusal> {
    let arrived = tokio::time::timeout(BODY_WAIT_MAX, Bytes::from_request(request, state)).await;
    match arrived {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(why)) if why.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message = "The body is larger than one mebibyte.";
            Err(Refusal::new(Fault::TooLarge, 10_413, message))
        }
        Ok(Err(_)) => Err(Refusal::invalid(6007, "The body broke off.")),
        Err(_) => Err(Refusal::new(
            Fault::TooSlow,
            10_408,
            "The body took over 30 seconds.",
        )),
    }
}

/// The query's parameters, in order.
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params, Refusal> {
        match Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(_) => Err(Refusal::invalid(
                BAD_QUERY,
                "The query is not name=value pairs.",
            )),
        }
    }
}

/// Parameters that every list takes, whether or not it has pages: clients ask for pages of any.
const OF_EVERY_LIST: [&str; 2] = ["page", "per_page"];

/// Lets a request pass whose query has only these parameters.
pub(super) async fn only_known(
    State(known): State<Arc<[&'static str]>>,
    params: Params,
    request: Request,
    next: Next,
) -> Response {
    let is_known = |name: &str| known.contains(&name) || OF_EVERY_LIST.contains(&name);
    match params.0.iter().find(|(name, _)| !is_known(name)) {
        None => next.run(request).await,
        Some((name, _)) => {
            let mut all: Vec<&str> = known.iter().copied().chain(OF_EVERY_LIST).collect();
            all.sort_unstable();
            all.dedup();
            let why = format!(
                "Query parameter '{}' is not carried here. This list takes {}.",
                echo(name),
                all.join(", ")
            );
            Refusal::invalid(BAD_QUERY, why).into_response()
        }
    }
}

impl Params {
    /// The value of a parameter; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter that may be there several times; empty ones do not count.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let found = self
            .0
            .iter()
            .filter(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str()).collect()
    }

    /// The values of a parameter that may come several times, or with commas; `None` when it does
    /// not come.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<&str>> {
        let given = self.0.iter().filter(|(key, _)| key == name);
        let values: Vec<&str> = given
            .flat_map(|(_, value)| value.split(','))
            .filter(|value| !value.is_empty())
            .collect();
        (!values.is_empty()).then_some(values)
    }

    /// A boolean parameter.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "True" | "1") => Ok(Some(true)),
            Some("false" | "False" | "0") => Ok(Some(false)),
            Some(other) => Err(wrong(name, "true or false", other)),
        }
    }

    /// One of a few words.
    pub(crate) fn word(&self, name: &str, words: &[&str]) -> Result<Option<&str>, Refusal> {
        match self.get(name) {
            Some(given) if !words.contains(&given) => Err(wrong(name, &words.join(" or "), given)),
            given => Ok(given),
        }
    }

    /// A UUID parameter.
    pub(crate) fn uuid(&self, name: &str) -> Result<Option<Uuid>, Refusal> {
        self.parsed(name, "a UUID")
    }

    /// A parameter that parses as `T`.
    pub(crate) fn parsed<T: std::str::FromStr>(
        &self,
        name: &str,
        wanted: &str,
    ) -> Result<Option<T>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(wrong(name, wanted, text)),
            },
        }
    }

    /// `page` and `per_page`.
    pub(crate) fn paging(&self, default: usize, max: usize) -> Result<Paging, Refusal> {
        let page = self.parsed("page", "a page number from 1 on")?.unwrap_or(1);
        let per_page = self.parsed("per_page", "a number")?.unwrap_or(default);
        if page == 0 {
            return Err(wrong("page", "a page number from 1 on", "0"));
        }
        if !(1..=max).contains(&per_page) {
            return Err(wrong(
                "per_page",
                &format!("from 1 to {max}"),
                &per_page.to_string(),
            ));
        }
        Ok(Paging { page, per_page })
    }

    /// Whether the order is to be turned around.
    pub(crate) fn is_descending(&self) -> Result<bool, Refusal> {
        match self.get("direction") {
            None | Some("asc") => Ok(false),
            Some("desc") => Ok(true),
            Some(other) => Err(wrong("direction", "asc or desc", other)),
        }
    }
}

/// Which part of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    /// From 1 on.
    pub(crate) page: usize,
    /// At least 1.
    pub(crate) per_page: usize,
}

impl Paging {
    /// How many entries come before the page.
    pub(crate) fn skipped(self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }
}

/// A refusal of a query parameter.
pub(crate) fn wrong(name: &str, wanted: &str, got: &str) -> Refusal {
    let message = format!(
        "Query parameter '{name}' must be {wanted}, not '{}'.",
        echo(got)
    );
    Refusal::invalid(BAD_QUERY, message)
}
