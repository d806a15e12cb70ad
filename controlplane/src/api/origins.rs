//! `/origin/v1`: the proxy's questions.

use axum::Json;
use axum::extract::State;
use http::Method;

use super::context::{Shared, now};
use super::input::{At, Params};
use super::operation::{BOOLEAN, COUNT, HEX_ID, IP, Routes, Shape, TEXT, UUID, does};
use crate::model::Refusal;
use crate::model::fields::echo;
use crate::origin::{self, Apps, Certificates, HostAnswer};

const PORT: Shape = Shape::Integer(1, 65_535);
const VNET: Shape = Shape::OrNull(&Shape::Integer(0, 65_535));

const NAME: Shape = Shape::Object(&[
    ("account_id", HEX_ID),
    ("route_id", UUID),
    ("name", TEXT),
    ("resolvers", Shape::List(&IP)),
    ("vnet", Shape::Integer(0, 65_535)),
    ("tunnel", COUNT),
]);

const HOST: Shape = Shape::Object(&[
    ("zone_name", TEXT),
    ("zone_id", HEX_ID),
    ("account_id", HEX_ID),
    ("ipv4_addresses", Shape::List(&IP)),
    ("ipv6_addresses", Shape::List(&IP)),
    ("use_private_routing", BOOLEAN),
    ("virtual_network_id", Shape::OrNull(&UUID)),
    ("vnet", VNET),
    ("private_name", Shape::OrNull(&NAME)),
    ("always_use_https", BOOLEAN),
    ("read_timeout_secs", Shape::OrNull(&COUNT)),
    ("revision", COUNT),
]);

const APPS: Shape = Shape::Object(&[
    ("revision", COUNT),
    (
        "apps",
        Shape::List(&Shape::Object(&[
            ("id", HEX_ID),
            ("zone_id", HEX_ID),
            ("hostname", TEXT),
            ("transport", Shape::Words(&["tcp", "udp"])),
            ("edge_addresses", Shape::List(&IP)),
            ("edge_port", PORT),
            ("edge_port_end", PORT),
            ("origins", Shape::List(&TEXT)),
            (
                "origin_name",
                Shape::OrNull(&Shape::Object(&[
                    ("name", NAME),
                    ("port", PORT),
                    ("ipv4", BOOLEAN),
                    ("ipv6", BOOLEAN),
                ])),
            ),
            ("origin_port_end", Shape::Integer(0, 65_535)),
            ("vnet", VNET),
            ("virtual_network_id", Shape::OrNull(&UUID)),
        ])),
    ),
]);

pub(super) fn routes() -> Routes {
    let of_host = does("Where the requests for a host go").gives_plain(HOST);
    let of_apps = does("What layer-4 apps listen on, and where it goes").gives_plain(APPS);
    Routes::new()
        .on((Method::GET, "/hosts/{host}"), host, of_host)
        .on((Method::GET, "/apps"), apps, of_apps)
}

const CERTIFICATES: Shape = Shape::Object(&[
    ("etag", TEXT),
    (
        "certificates",
        Shape::OrNull(&Shape::List(&Shape::Object(&[
            ("names", Shape::List(&TEXT)),
            ("chain", TEXT),
            ("private_key", TEXT),
        ]))),
    ),
]);

/// What only the proxy is told.
pub(super) fn secrets() -> Routes {
    let about =
        does("The certificates that customers brought, with their keys: for the proxy alone");
    let about = about.asks(&[("etag", TEXT)]).gives_plain(CERTIFICATES);
    Routes::new().on((Method::GET, "/certificates"), certificates, about)
}

async fn certificates(State(shared): State<Shared>, params: Params) -> Json<Certificates> {
    let known = params.get("etag").unwrap_or_default();
    Json(origin::certificates(&shared.snapshot(), now(), known))
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
