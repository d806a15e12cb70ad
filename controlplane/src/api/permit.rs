//! What a request may do: each route names its permission group where it is registered.

use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::Method;

use super::context::{self, Shared};
use super::operation::Routes;
use crate::model::permission::{Access, Group, Permission, Scope};
use crate::model::token::Token;
use crate::model::zone::Zone;
use crate::model::{Fault, Refusal};

/// Code of a right that the token does not have.
const UNAUTHORIZED: u32 = 9109;

/// Who asks: the token, valid at the time and from there.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The token.
    pub(crate) token: Arc<Token>,
}

impl Caller {
    /// Whether the token gives a right on a zone.
    pub(crate) fn may_zone(&self, group: Group, access: Access, zone: &Zone) -> bool {
        let scope = Scope::Zone(zone.id, zone.account_id);
        self.token.may(Permission { group, access }, scope)
    }

    /// Refuses what the token gives no right to.
    pub(crate) fn must(&self, group: Group, access: Access, scope: Scope) -> Result<(), Refusal> {
        let wanted = Permission { group, access };
        match self.token.may(wanted, scope) {
            true => Ok(()),
            false => Err(unauthorized(wanted)),
        }
    }
}

/// Routes that somebody looks after: there is no other way into the API than through here.
pub(super) struct Guarded(Routes);

/// Routes of which each request needs the group's right on the account or zone of its path. A path
/// without either is refused.
pub(super) fn guarded(shared: &Shared, group: Group, routes: Routes) -> Guarded {
    let guard = from_fn_with_state((shared.clone(), group), guard);
    Guarded(routes.layered(|router| router.route_layer(guard)))
}

/// Routes whose handlers ask their [`Caller`] themselves, or show any token what it knows.
pub(super) fn by_handler(routes: Routes) -> Guarded {
    Guarded(routes)
}

/// All of them.
pub(super) fn together<const N: usize>(all: [Guarded; N]) -> Routes {
    let merge = |routes: Routes, Guarded(one)| routes.and(one);
    all.into_iter().fold(Routes::new(), merge)
}

async fn guard(
    State((shared, group)): State<(Shared, Group)>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let access = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => Access::Read,
        _ => Access::Write,
    };
    let checked = match (request.extensions().get::<Caller>(), &params) {
        (Some(caller), Ok(params)) => check(&shared, caller, Permission { group, access }, params),
        (Some(_), Err(_)) => Err(context::no_route(request.uri().path())),
        // Authentication comes first, and lets nothing pass without.
        (None, _) => Err(unauthorized(Permission { group, access })),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check(
    shared: &Shared,
    caller: &Caller,
    wanted: Permission,
    params: &RawPathParams,
) -> Result<(), Refusal> {
    let snapshot = shared.snapshot();
    for (name, id) in params {
        let (scope, is_known) = match name {
            "account" => {
                let account = context::account(&snapshot, id)?;
                (Scope::Account(account.id), caller.token.knows(account.id))
            }
            "zone" => {
                let zone = context::zone(&snapshot, id)?;
                let scope = Scope::Zone(zone.id, zone.account_id);
                let is_known = Permission::all().any(|one| caller.token.may(one, scope));
                (scope, is_known)
            }
            _ => continue,
        };
        if caller.token.may(wanted, scope) {
            return Ok(());
        }
        // Who has no right at all on it is not told that it exists.
        return Err(match is_known {
            true => unauthorized(wanted),
            false => context::no_route(&format!("/{name}s/{id}")),
        });
    }
    Err(unauthorized(wanted))
}

fn unauthorized(wanted: Permission) -> Refusal {
    let why = format!(
        "Unauthorized to access requested resource: the token lacks the permission '{}' for it.",
        wanted.name()
    );
    Refusal::new(Fault::Forbidden, UNAUTHORIZED, why)
}
