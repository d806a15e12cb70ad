//! `/user/tokens` and `/accounts/{account}/tokens`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::Method;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::envelope::{Answer, one, page};
use super::input::{At, Body, Paging, Params};
use super::operation::{GONE, HEX_ID, Routes, Shape, TEXT, TIME, TIME_OR_NULL, does};
use super::permit::Caller;
use crate::keys::Keys;
use crate::model::permission::{Access, Group, Permission, Policy, Scope};
use crate::model::token::{self, Draft, INVALID, Token};
use crate::model::token_use::TokenUse;
use crate::model::{Fault, Fields, HexId, Refusal, Timestamp};
use crate::store::{Snapshot, Transaction};

/// Code of a token that does not exist.
const UNKNOWN: u32 = 1003;
/// Code of one token too many.
const TOO_MANY: u32 = 1004;

/// Most tokens: each costs a kilobyte of memory.
const TOKENS_MAX: usize = 10_000;

const POLICY: Shape = Shape::Object(&[
    ("id", HEX_ID),
    ("effect", Shape::Words(&["allow", "deny"])),
    ("permission_groups", Shape::List(&Shape::Map(&TEXT))),
    ("resources", Shape::Map(&Shape::Any)),
]);

const FIELDS: &[(&str, Shape)] = &[
    ("id", HEX_ID),
    ("name", TEXT),
    ("status", Shape::Words(&["active", "disabled", "expired"])),
    ("issued_on", TIME),
    ("modified_on", TIME),
    ("last_used_on", TIME_OR_NULL),
    ("not_before", TIME_OR_NULL),
    ("expires_on", TIME_OR_NULL),
    ("policies", Shape::List(&POLICY)),
    ("condition", Shape::Maybe(&Shape::Map(&Shape::Any))),
];

const TOKEN: Shape = Shape::Named("Token", &Shape::Object(FIELDS));

const MADE: Shape = Shape::Both(&[FIELDS, &[("value", TEXT)]]);

const GROUP: Shape = Shape::Object(&[
    ("id", HEX_ID),
    ("name", TEXT),
    ("scopes", Shape::List(&TEXT)),
]);

/// Rights on an account, but for one zone, from some addresses, for some time.
fn examples() -> Vec<Value> {
    let group = |group| {
        let access = Access::Read;
        json!({"id": Permission { group, access }.id(), "name": "", "meta": {}})
    };
    let account = format!(
        "com.cloudflare.api.account.{}",
        super::operation::ACCOUNT_ID
    );
    vec![json!({
        "name": "reader", "status": "active",
        "not_before": "2026-01-01T00:00:00Z", "expires_on": "2126-01-01T00:00:00Z",
        "condition": {"request_ip": {"in": ["192.0.2.0/24"], "not_in": ["192.0.2.9"]}},
        "policies": [{
            "effect": "allow", "permission_groups": [group(Group::Dns)],
            "resources": {account: "*"},
        }],
    })]
}

/// The routes of both owners, whose paths begin so.
fn routes_of(all: &str) -> Routes {
    let read_draft = |fields| Draft::read(fields, &|_| None).map(drop);
    let (each, groups_at) = (
        format!("{all}/{{token}}"),
        format!("{all}/permission_groups"),
    );
    let (each, groups_at) = (each.as_str(), groups_at.as_str());
    let value = format!("{each}/value");
    let directions = &[("direction", Shape::Words(&["asc", "desc"]))];
    let list_of = does("List API tokens").asks(directions);
    let new = does("Make an API token: its value is shown once").takes(read_draft, examples);
    let changed = does("Replace what an API token may do").takes(read_draft, examples);
    let rolled = does("Give an API token a new value").gives(TEXT);
    let known = does("List what tokens can be allowed").asks(&[("name", TEXT), ("scope", TEXT)]);
    Routes::new()
        .on((Method::GET, all), list, list_of.lists(TOKEN, 50))
        .on((Method::POST, all), create, new.gives(MADE))
        .on((Method::GET, groups_at), groups, known.lists_all(GROUP))
        .on(
            (Method::GET, each),
            read,
            does("Show an API token").gives(TOKEN),
        )
        .on((Method::PUT, each), replace, changed.gives(TOKEN))
        .on(
            (Method::DELETE, each),
            delete,
            does("Delete an API token").gives(GONE),
        )
        .on((Method::PUT, &value), roll, rolled)
}

/// Tokens of the user.
pub(super) fn of_user() -> Routes {
    routes_of("/user/tokens")
}

/// Tokens that an account owns.
pub(super) fn of_account() -> Routes {
    routes_of("/accounts/{account}/tokens")
}

/// The parts of a path: of an account's token, or of the user's.
type Parts = At<std::collections::HashMap<String, String>>;

/// Whose tokens the path is about, and whether the caller may.
fn owner(
    snapshot: &Snapshot,
    At(parts): &Parts,
    caller: &Caller,
    access: Access,
) -> Result<Option<HexId>, Refusal> {
    match parts.get("account") {
        // The guard of the route has seen to it.
        Some(account) => Ok(Some(context::account(snapshot, account)?.id)),
        None => {
            caller.must(Group::UserTokens, access, Scope::User)?;
            Ok(None)
        }
    }
}

async fn create(
    State(shared): State<Shared>,
    parts: Parts,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Answer {
    let keys = Arc::clone(&shared.keys);
    let shown = shared.write(move |transaction| {
        let owner = owner(transaction.snapshot(), &parts, &caller, Access::Write)?;
        let draft = draft(transaction.snapshot(), owner, &caller, body)?;
        if transaction.snapshot().tokens.len() >= TOKENS_MAX {
            let why = format!("There are {TOKENS_MAX} tokens: delete some first.");
            return Err(Refusal::conflict(TOO_MANY, why));
        }
        let secret = secret()?;
        let token = Token {
            id: HexId::random(),
            name: draft.name,
            account_id: owner,
            salt: None,
            hash: keys.hash(&secret),
            issued_on: transaction.now(),
            modified_on: Some(transaction.now()),
            policies: Some(draft.policies),
            bounds: draft.bounds,
        };
        let mut shown = show(&token, None, transaction.now());
        shown["value"] = json!(secret);
        transaction.put(token);
        Ok(shown)
    });
    Ok(one(shown.await?))
}

async fn list(
    State(shared): State<Shared>,
    parts: Parts,
    Extension(caller): Extension<Caller>,
    params: Params,
) -> Answer {
    let paging = params.paging(20, 50)?;
    let snapshot = shared.snapshot();
    let owner = owner(&snapshot, &parts, &caller, Access::Read)?;
    let own = snapshot.tokens.iter().filter(|one| one.account_id == owner);
    let mut found: Vec<Arc<Token>> = own.cloned().collect();
    found.sort_by_key(|token| (token.issued_on, token.id));
    if params.is_descending()? {
        found.reverse();
    }
    let now = context::now();
    Ok(page(found, paging, |token| {
        show(&token, shared.uses.last(&snapshot, token.id), now)
    }))
}

async fn read(
    State(shared): State<Shared>,
    parts: Parts,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let snapshot = shared.snapshot();
    let owner = owner(&snapshot, &parts, &caller, Access::Read)?;
    let token = find(&snapshot, owner, &parts)?;
    let last = shared.uses.last(&snapshot, token.id);
    Ok(one(show(&token, last, context::now())))
}

async fn replace(
    State(shared): State<Shared>,
    parts: Parts,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Answer {
    let uses = Arc::clone(&shared.uses);
    let shown = shared.write(move |transaction| {
        let (owner, old) = to_change(transaction, &parts, &caller)?;
        keep_one_unrestricted(transaction.snapshot(), &old)?;
        let draft = draft(transaction.snapshot(), owner, &caller, body)?;
        let token = Token {
            name: draft.name,
            policies: Some(draft.policies),
            bounds: draft.bounds,
            modified_on: Some(transaction.now()),
            ..(*old).clone()
        };
        transaction.put(token.clone());
        let last = uses.last(transaction.snapshot(), token.id);
        Ok(show(&token, last, transaction.now()))
    });
    Ok(one(shown.await?))
}

/// A new secret; the old one is good no more.
async fn roll(
    State(shared): State<Shared>,
    parts: Parts,
    Extension(caller): Extension<Caller>,
    _: Body,
) -> Answer {
    let keys: Arc<Keys> = Arc::clone(&shared.keys);
    let secret = shared.write(move |transaction| {
        let (_, old) = to_change(transaction, &parts, &caller)?;
        let secret = secret()?;
        transaction.put(Token {
            salt: None,
            hash: keys.hash(&secret),
            modified_on: Some(transaction.now()),
            ..(*old).clone()
        });
        Ok(secret)
    });
    Ok(one(json!(secret.await?)))
}

async fn delete(
    State(shared): State<Shared>,
    parts: Parts,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let deleted = shared.write(move |transaction| {
        let (_, token) = to_change(transaction, &parts, &caller)?;
        keep_one_unrestricted(transaction.snapshot(), &token)?;
        transaction.delete::<Token>(&token.id);
        transaction.delete::<TokenUse>(&token.id);
        Ok(json!({"id": token.id}))
    });
    Ok(one(deleted.await?))
}

async fn groups(
    State(shared): State<Shared>,
    parts: Parts,
    Extension(caller): Extension<Caller>,
    params: Params,
) -> Answer {
    let is_of_user = owner(&shared.snapshot(), &parts, &caller, Access::Read)?.is_none();
    let found: Vec<Permission> = Permission::all()
        .filter(|one| is_of_user || one.group != Group::UserTokens)
        .filter(|one| params.get("name").is_none_or(|name| one.name() == name))
        .filter(|one| {
            params
                .get("scope")
                .is_none_or(|scope| one.group.scope() == scope)
        })
        .collect();
    let paging = Paging {
        page: 1,
        per_page: found.len().max(1),
    };
    Ok(page(
        found,
        paging,
        |one| json!({"id": one.id(), "name": one.name(), "scopes": [one.group.scope()]}),
    ))
}

/// What the body says, of which the caller may give everything.
fn draft(
    snapshot: &Snapshot,
    owner: Option<HexId>,
    caller: &Caller,
    body: Value,
) -> Result<Draft, Refusal> {
    let account_of = |zone: HexId| snapshot.zones.get(&zone).map(|zone| zone.account_id);
    let draft = Draft::read(Fields::new(body, INVALID)?, &account_of)?;
    let refuse = |why: &str| Err(Refusal::new(Fault::Forbidden, 9109, why).at("policies"));
    let mut scopes = draft.policies.iter().flat_map(|policy| &policy.scopes);
    if let Some(owner) = owner
        && scopes.any(|scope| scope.account() != Some(owner))
    {
        return refuse("A token that an account owns is for that account and its zones only.");
    }
    match caller.token.may_give(&draft.policies) {
        true => Ok(draft),
        false => refuse("A token cannot give rights that it does not have itself."),
    }
}

/// The token of the path, which may do nothing that the caller may not: else changing it would be a
/// way to more rights.
fn to_change(
    transaction: &Transaction,
    parts: &Parts,
    caller: &Caller,
) -> Result<(Option<HexId>, Arc<Token>), Refusal> {
    let snapshot = transaction.snapshot();
    let owner = owner(snapshot, parts, caller, Access::Write)?;
    let token = find(snapshot, owner, parts)?;
    let may = match &token.policies {
        Some(policies) => caller.token.may_give(policies),
        None => caller.token.policies.is_none(),
    };
    match may {
        true => Ok((owner, token)),
        false => Err(Refusal::new(
            Fault::Forbidden,
            9109,
            "A token cannot change one that may do more than itself.",
        )),
    }
}

/// Refuses to restrict or delete the last token that may do everything.
fn keep_one_unrestricted(snapshot: &Snapshot, token: &Token) -> Result<(), Refusal> {
    let mut others = snapshot.tokens.iter().filter(|one| one.id != token.id);
    if token.policies.is_some() || others.any(|one| one.policies.is_none()) {
        return Ok(());
    }
    let why = "This is the last unrestricted token: without it nobody could make another.";
    Err(Refusal::conflict(INVALID, why))
}

fn find(
    snapshot: &Snapshot,
    owner: Option<HexId>,
    At(parts): &Parts,
) -> Result<Arc<Token>, Refusal> {
    let id: Option<HexId> = parts.get("token").and_then(|id| id.parse().ok());
    let found = id.and_then(|id| snapshot.tokens.get(&id));
    found
        .filter(|token| token.account_id == owner)
        .cloned()
        .ok_or_else(|| Refusal::not_found(UNKNOWN, "There is no such token."))
}

fn secret() -> Result<String, Refusal> {
    token::secret(&SystemRandom::new()).map_err(|_none: ring::error::Unspecified| {
        let why = "The system gives no random bytes for a token: try again.";
        Refusal::new(Fault::Ours, 10_002, why)
    })
}

/// The token, without its secret and without its hash.
fn show(token: &Token, last_used_on: Option<Timestamp>, now: Timestamp) -> Value {
    let everything = Policy {
        id: token.id,
        is_allowed: true,
        permissions: Permission::all().collect(),
        scopes: vec![Scope::User, Scope::Accounts],
    };
    let policies = token.policies.as_deref();
    let policies = policies.unwrap_or_else(|| std::slice::from_ref(&everything));
    let policies: Vec<Value> = policies.iter().map(Policy::show).collect();
    let bounds = &token.bounds;
    let mut shown = json!({
        "id": token.id,
        "name": token.name,
        "status": token.status(now),
        "issued_on": token.issued_on,
        "modified_on": token.modified_on.unwrap_or(token.issued_on),
        "last_used_on": last_used_on,
        "not_before": bounds.not_before,
        "expires_on": bounds.expires_on,
        "policies": policies,
    });
    let mut from = serde_json::Map::new();
    for (name, nets) in [
        ("in", &bounds.request_ip_in),
        ("not_in", &bounds.request_ip_not_in),
    ] {
        if !nets.is_empty() {
            from.insert(name.to_owned(), json!(nets));
        }
    }
    if !from.is_empty() {
        shown["condition"] = json!({"request_ip": from});
    }
    shown
}
