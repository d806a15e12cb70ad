//! `/accounts/{account}/audit_logs` and `/user/audit_logs`

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::Method;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::envelope::{Answer, page};
use super::input::{At, Params, wrong};
use super::operation::{BOOLEAN, Routes, Shape, TEXT, TIME, does};
use super::permit::Caller;
use crate::model::audit::{Change, Entry};
use crate::model::permission::{Access, Group, Scope};
use crate::model::{HexId, Refusal, Timestamp};

const ENTRY: Shape = Shape::Named(
    "AuditLog",
    &Shape::Object(&[
        ("id", TEXT),
        ("when", TIME),
        (
            "action",
            Shape::Object(&[("type", TEXT), ("result", BOOLEAN)]),
        ),
        ("actor", Shape::Map(&Shape::OrNull(&TEXT))),
        ("interface", TEXT),
        ("owner", Shape::Map(&Shape::OrNull(&TEXT))),
        ("resource", Shape::Object(&[("type", TEXT), ("id", TEXT)])),
        ("oldValue", Shape::OrNull(&TEXT)),
        ("newValue", Shape::OrNull(&TEXT)),
        ("oldValueJson", Shape::Any),
        ("newValueJson", Shape::Any),
        ("metadata", Shape::Map(&Shape::Any)),
    ]),
);

const FILTERS: &[(&str, Shape)] = &[
    ("id", TEXT),
    ("action.type", TEXT),
    ("actor.email", TEXT),
    ("actor.ip", TEXT),
    ("since", TEXT),
    ("before", TEXT),
    ("zone.name", TEXT),
    ("direction", Shape::Words(&["asc", "desc"])),
];

/// What was changed in an account.
pub(super) fn of_account() -> Routes {
    let about = does("List what was changed in an account").asks(FILTERS);
    let path = "/accounts/{account}/audit_logs";
    Routes::new().on((Method::GET, path), list, about.lists(ENTRY, 1_000))
}

/// What was changed and belongs to no account: the user's tokens.
pub(super) fn of_user() -> Routes {
    let about = does("List what was changed of the user's tokens").asks(FILTERS);
    let path = "/user/audit_logs";
    Routes::new().on((Method::GET, path), list_of_user, about.lists(ENTRY, 1_000))
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let account = context::account(&shared.snapshot(), &account)?.id;
    listed(&shared, Some(account), &params)
}

async fn list_of_user(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    params: Params,
) -> Answer {
    caller.must(Group::UserTokens, Access::Read, Scope::User)?;
    listed(&shared, None, &params)
}

fn listed(shared: &Shared, account: Option<HexId>, params: &Params) -> Answer {
    let paging = params.paging(100, 1_000)?;
    let filter = Filter::read(params)?;
    let snapshot = shared.snapshot();
    let mut found: Vec<Item> = Vec::new();
    for entry in snapshot.audit.newest() {
        // Of one request, too, the last change comes first.
        let items = (0..entry.changes.len()).rev().map(|index| Item {
            entry: Arc::clone(entry),
            index,
        });
        let own = items.filter(|item| item.change().account_id == account);
        found.extend(own.filter(|item| filter.is_wanted(item)));
    }
    // The newest first, unless it is asked for otherwise.
    if params.get("direction").is_some() && !params.is_descending()? {
        found.reverse();
    }
    Ok(page(found, paging, |item| item.show()))
}

/// One change of an entry.
struct Item {
    entry: Arc<Entry>,
    index: usize,
}

impl Item {
    fn change(&self) -> &Change {
        &self.entry.changes[self.index]
    }

    fn id(&self) -> String {
        format!("{}-{}", self.entry.number, self.index)
    }

    fn show(&self) -> Value {
        let (entry, change) = (&self.entry, self.change());
        let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        json!({
            "id": self.id(),
            "when": entry.when,
            "action": {"type": change.action(), "result": true},
            "actor": {
                "id": entry.actor.token_id, "type": "user", "email": null, "ip": entry.actor.ip,
            },
            "interface": "API",
            "owner": {"id": change.account_id},
            "resource": {"type": change.kind, "id": change.object_id},
            "oldValue": text(&change.old),
            "newValue": text(&change.new),
            "oldValueJson": change.old,
            "newValueJson": change.new,
            "metadata": {
                "token_name": entry.actor.token_name,
                "method": entry.actor.method,
                "path": entry.actor.path,
                "zone_name": change.zone_name,
                "unlisted_changes": entry.unlisted,
            },
        })
    }
}

struct Filter<'a> {
    id: Option<&'a str>,
    action: Option<&'a str>,
    actor: Option<&'a str>,
    from: Option<IpNet>,
    since: Option<Timestamp>,
    before: Option<Timestamp>,
    zone: Option<&'a str>,
}

impl Filter<'_> {
    fn read(params: &Params) -> Result<Filter<'_>, Refusal> {
        let moment = "a time such as 2030-01-01T00:00:00Z, or a date";
        let from = match params.get("actor.ip") {
            None => None,
            Some(text) => {
                let ip = text.parse::<IpAddr>().map(IpNet::from);
                let net = ip.ok().or_else(|| text.parse::<IpNet>().ok());
                Some(net.ok_or_else(|| wrong("actor.ip", "an address or prefix", text))?)
            }
        };
        Ok(Filter {
            id: params.get("id"),
            action: params.get("action.type"),
            actor: params.get("actor.email"),
            from,
            since: params.parsed("since", moment)?,
            before: params.parsed("before", moment)?,
            zone: params.get("zone.name"),
        })
    }

    fn is_wanted(&self, item: &Item) -> bool {
        let (entry, change) = (&item.entry, item.change());
        let is_from = |net: IpNet| entry.actor.ip.is_some_and(|ip: IpAddr| net.contains(&ip));
        let is_zone = |zone| change.zone_name.as_deref() == Some(zone);
        self.id.is_none_or(|id| id == item.id())
            && self.action.is_none_or(|action| action == change.action())
            && self.actor.is_none_or(|name| name == entry.actor.token_name)
            && self.from.is_none_or(is_from)
            && self.since.is_none_or(|since| entry.when >= since)
            && self.before.is_none_or(|before| entry.when < before)
            && self.zone.is_none_or(is_zone)
    }
}
