//! `/origin/v1`: the proxy's questions.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use super::context::Shared;
use super::input::At;
use crate::model::Refusal;
use crate::model::fields::echo;
use crate::origin::{self, Apps, HostAnswer};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/hosts/{host}", get(host))
        .route("/apps", get(apps))
}

async fn host(
    State(shared): State<Shared>,
    At(host): At<String>,
) -> Result<Json<HostAnswer>, Refusal> {
    let answer = origin::host(&shared.snapshot(), &host);
    let unknown = || {
        Refusal::not_found(
            1001,
            format!("No proxied record has the name {}.", echo(&host)),
        )
    };
    answer.map(Json).ok_or_else(unknown)
}

async fn apps(State(shared): State<Shared>) -> Json<Apps> {
    Json(origin::apps(
        &shared.snapshot(),
        &shared.options.edge_addresses,
    ))
}
