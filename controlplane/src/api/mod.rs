//! The HTTP API: envelope, authentication, paging, one file per resource.
//!
//! In: requests. Out: answers in the envelope, and transactions on the store. State: none of its own.
//! A new resource is one file here with its `routes()`, and one line in [`router`] that names the
//! permission group which its routes need. A route says what it is where it is registered
//! ([`operation`]), and so is in `/openapi.json`.

mod accounts;
mod again;
mod audit;
mod auth;
mod certificates;
mod context;
mod coverage;
mod dry_run;
mod envelope;
mod explain;
mod hostname_routes;
mod input;
mod limit;
mod magic;
mod nodes;
mod operation;
mod origins;
mod permit;
mod records;
mod routes;
mod settings;
mod spectrum;
mod subnets;
mod tokens;
mod tunnels;
mod user;
mod vnets;
mod zones;

#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware;

use crate::model::permission::Group;
use crate::model::{Fault, Refusal};

pub(crate) use context::Context;
use context::Shared;
pub(crate) use limit::Limits;
use permit::by_handler;

/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Everything under `/client/v4` and `/origin/v1`, and the document that describes it.
pub(crate) fn router(context: Context) -> Router {
    let shared = Shared::new(context);
    let guarded = |group, routes| permit::guarded(&shared, group, routes);
    let resources = permit::together([
        by_handler(accounts::routes()),
        by_handler(audit::of_user()),
        by_handler(tokens::of_user()),
        by_handler(user::routes()),
        by_handler(zones::collection()),
        guarded(Group::AccountTokens, tokens::of_account()),
        guarded(Group::AuditLogs, audit::of_account()),
        guarded(Group::Certificates, certificates::routes()),
        guarded(Group::Dns, records::routes()),
        guarded(Group::MagicWan, magic::routes()),
        guarded(Group::Networks, explain::routes()),
        guarded(Group::Networks, routes::routes()),
        guarded(Group::Networks, hostname_routes::routes()),
        guarded(Group::Networks, subnets::routes()),
        guarded(Group::Networks, vnets::routes()),
        guarded(Group::Nodes, nodes::routes()),
        guarded(Group::Spectrum, spectrum::routes()),
        guarded(Group::Tunnels, tunnels::routes()),
        guarded(Group::Zones, zones::routes()),
        guarded(Group::ZoneSettings, settings::routes()),
    ]);
    let (resources, mut operations) = resources.below("/client/v4").into_parts();
    let (origins, of_origins) = origins::routes().below("/origin/v1").into_parts();
    let (secrets, of_secrets) = origins::secrets().below("/origin/v1").into_parts();
    operations.extend(of_origins);
    operations.extend(of_secrets);
    let customers = middleware::from_fn_with_state(shared.clone(), auth::customer);
    let again = middleware::from_fn_with_state(shared.clone(), again::when_stale);
    let proxies = middleware::from_fn_with_state(shared.clone(), auth::proxy);
    let proxies_alone = middleware::from_fn_with_state(shared.clone(), auth::proxy_alone);
    let client = resources
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn(dry_run::layer))
        .layer(again)
        .layer(customers);
    client
        .merge(origins.route_layer(proxies))
        .merge(secrets.route_layer(proxies_alone))
        .merge(operation::document_route(&operations))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn unknown_path(State(_): State<Shared>, uri: http::Uri) -> Refusal {
    context::no_route(uri.path().trim_start_matches("/client/v4"))
}

async fn unknown_method(State(_): State<Shared>, method: http::Method) -> Refusal {
    Refusal::new(
        Fault::Method,
        10_405,
        format!("Method {method} is not allowed here."),
    )
}
