//! The audit log: what a transaction changed becomes an entry in the same transaction.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::snapshot::Snapshot;
use crate::model::account::Account;
use crate::model::audit::{
    Actor, CHANGES_MAX, Change, ENTRY_BYTES_MAX, Entry, REDACTED, VALUE_BYTES_MAX,
};
use crate::model::zone::Zone;
use crate::model::{HexId, Resource, Timestamp};

/// The changes of a transaction, at most [`CHANGES_MAX`] of them.
#[derive(Debug, Default)]
pub(super) struct Changes {
    listed: Vec<Noted>,
    places: HashMap<(&'static str, String), usize>,
    unlisted: usize,
}

#[derive(Debug)]
struct Noted {
    kind: &'static str,
    id: String,
    old: Option<Value>,
    new: Option<Value>,
}

impl Changes {
    /// An object came, went or changed.
    pub(super) fn note<R: Resource>(&mut self, old: Option<&Arc<R>>, new: Option<&R>) {
        let Some(id) = new.map(R::id).or_else(|| old.map(|old| old.id())) else {
            return;
        };
        if !R::IS_AUDITED {
            return;
        }
        let place = (R::KIND, id.to_string());
        if let Some(&index) = self.places.get(&place) {
            // The same object again: one change, from what it was at first.
            self.listed[index].new = new.map(redacted);
        } else if self.listed.len() < CHANGES_MAX {
            self.listed.push(Noted {
                kind: R::KIND,
                id: place.1.clone(),
                old: old.map(|old| redacted(&**old)),
                new: new.map(redacted),
            });
            self.places.insert(place, self.listed.len() - 1);
        } else {
            self.unlisted += 1;
        }
    }

    /// The entry that says so, as the actor's; `None` when nothing changed.
    pub(super) fn entry(
        self,
        actor: &Actor,
        now: Timestamp,
        before: &Snapshot,
        after: &Snapshot,
    ) -> Option<Entry> {
        let last = after.audit.last().map_or(0, |entry| entry.number);
        let (changes, unlisted) = self.listed(before, after);
        (!changes.is_empty()).then(|| Entry {
            number: last + 1,
            when: now,
            actor: actor.clone(),
            changes,
            unlisted,
        })
    }

    /// What changed, and how much more did. What names account and zone of an object may be gone in
    /// `after`: then `before` has it.
    pub(super) fn listed(self, before: &Snapshot, after: &Snapshot) -> (Vec<Change>, usize) {
        let mut bytes = 0;
        let mut bounded = |value: Value| {
            let own = value.to_string().len();
            if own > VALUE_BYTES_MAX || bytes + own > ENTRY_BYTES_MAX {
                return json!({"too_long_bytes": own});
            }
            bytes += own;
            value
        };
        let mut changes = Vec::with_capacity(self.listed.len());
        for noted in self.listed {
            let Some(value) = noted.new.as_ref().or(noted.old.as_ref()) else {
                continue; // It came and went.
            };
            changes.push(Change {
                account_id: account_of(noted.kind, value, before, after),
                zone_name: zone_of(noted.kind, value, before, after),
                kind: noted.kind.to_owned(),
                object_id: noted.id,
                old: noted.old.map(&mut bounded),
                new: noted.new.map(&mut bounded),
            });
        }
        (changes, self.unlisted)
    }
}

/// The object's JSON with its secrets replaced.
fn redacted<R: Resource>(object: &R) -> Value {
    let mut value = serde_json::to_value(object).expect("objects have string keys only");
    for pointer in R::SECRETS {
        let secret = value.pointer_mut(pointer);
        if let Some(secret) = secret.filter(|secret| !secret.is_null()) {
            *secret = Value::from(REDACTED);
        }
    }
    value
}

fn account_of(kind: &str, value: &Value, before: &Snapshot, after: &Snapshot) -> Option<HexId> {
    let id = |field: &str| value[field].as_str().and_then(|id| id.parse().ok());
    if kind == Account::KIND {
        return id("id");
    }
    id("account_id").or_else(|| {
        let zone = id("zone_id")?;
        let found = after.zones.get(&zone).or_else(|| before.zones.get(&zone));
        found.map(|zone| zone.account_id)
    })
}

fn zone_of(kind: &str, value: &Value, before: &Snapshot, after: &Snapshot) -> Option<String> {
    if kind == Zone::KIND {
        return value["name"].as_str().map(str::to_owned);
    }
    let zone = value["zone_id"].as_str()?.parse().ok()?;
    let found = after.zones.get(&zone).or_else(|| before.zones.get(&zone));
    found.map(|zone| zone.name.clone())
}
