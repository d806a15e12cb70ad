//! `/accounts/{account}/magic`: tunnels of the product's kinds, and static routes (api.md 4).
//!
//! Every write takes `?validate_only=true`: all checks, no change.

mod about;
mod collection;
mod psk;
mod show;
mod static_routes;
mod tunnels;

use super::context::Shared;
use super::input::Params;
use super::operation::Routes;
use crate::model::Refusal;
use crate::store::Transaction;

pub(super) use collection::Collection;

pub(super) fn routes() -> Routes {
    Routes::new()
        .and(tunnels::routes(Collection::Gre))
        .and(tunnels::routes(Collection::Ipsec))
        .and(tunnels::routes(Collection::Interconnects))
        .and(psk::routes())
        .and(static_routes::routes())
}

/// Makes the change, or with `validate_only` only finds out whether it would be refused. Says
/// whether it was made.
async fn write<T: Send + 'static>(
    shared: &Shared,
    is_rehearsal: bool,
    change: impl FnOnce(&mut Transaction) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match is_rehearsal {
        true => shared.rehearse(change).await,
        false => shared.write(change).await,
    }
}

fn is_rehearsal(params: &Params) -> Result<bool, Refusal> {
    Ok(params.boolean("validate_only")?.unwrap_or(false))
}
