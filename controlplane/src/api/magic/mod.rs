//! `/accounts/{account}/magic`: tunnels of the product's kinds, and static routes (api.md 4).
//!
//! Every write takes `?validate_only=true`: all checks, no change.

mod about;
mod collection;
mod psk;
mod show;
mod static_routes;
mod tunnels;
mod write;

use super::operation::Routes;

pub(super) use collection::Collection;

pub(super) fn routes() -> Routes {
    Routes::new()
        .and(tunnels::routes(Collection::Gre))
        .and(tunnels::routes(Collection::Ipsec))
        .and(tunnels::routes(Collection::Interconnects))
        .and(psk::routes())
        .and(static_routes::routes())
}
