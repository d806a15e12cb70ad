//! The audit log: what a transaction changed becomes entries in the same transaction.

use std::sync::Arc;

use serde_json::{Value, json};

use super::snapshot::Snapshot;
use crate::model::audit::{Actor, CHANGES_MAX, Entry, REDACTED, VALUE_BYTES_MAX};
use crate::model::{HexId, Resource, Timestamp};

/// The changes of a transaction, at most [`CHANGES_MAX`] of them.
#[derive(Debug, Default)]
pub(super) struct Changed {
    listed: Vec<Change>,
    unlisted: usize,
}

#[derive(Debug)]
struct Change {
    kind: &'static str,
    id: String,
    old: Option<Value>,
    new: Option<Value>,
}

impl Changed {
    /// An object came, went or changed.
    pub(super) fn note<R: Resource>(&mut self, old: Option<&Arc<R>>, new: Option<&R>) {
        let Some(id) = new.map(R::id).or_else(|| old.map(|old| old.id())) else {
            return;
        };
        if !R::IS_AUDITED {
            return;
        }
        let id = id.to_string();
        let new = new.map(redacted);
        let is_same = |one: &&mut Change| one.kind == R::KIND && one.id == id;
        if let Some(change) = self.listed.iter_mut().find(is_same) {
            // The same object again: one change, from what it was at first.
            change.new = new;
        } else if self.listed.len() < CHANGES_MAX {
            self.listed.push(Change {
                kind: R::KIND,
                id,
                old: old.map(|old| redacted(&**old)),
                new,
            });
        } else {
            self.unlisted += 1;
        }
    }

    /// The entries that say so, as the actor's. What names account and zone of an object may be gone
    /// in `after`: then `before` has it.
    pub(super) fn entries(
        self,
        actor: &Actor,
        now: Timestamp,
        before: &Snapshot,
        after: &Snapshot,
    ) -> Vec<Entry> {
        let last = after.audit.last().map_or(0, |entry| entry.number);
        let unlisted = self.unlisted;
        let entry = |(number, change): (u64, Change)| {
            let value = change.new.as_ref().or(change.old.as_ref())?;
            Some(Entry {
                number,
                when: now,
                actor: actor.clone(),
                account_id: account_of(change.kind, value, before, after),
                zone_name: zone_of(change.kind, value, before, after),
                kind: change.kind.to_owned(),
                object_id: change.id,
                old: change.old.map(bounded),
                new: change.new.map(bounded),
                unlisted,
            })
        };
        (last + 1..).zip(self.listed).filter_map(entry).collect()
    }
}

/// The object's JSON with its secrets replaced.
fn redacted<R: Resource>(object: &R) -> Value {
    let mut value = serde_json::to_value(object).expect("objects have string keys only");
    for pointer in R::SECRETS {
        if let Some(secret) = value
            .pointer_mut(pointer)
            .filter(|secret| !secret.is_null())
        {
            *secret = Value::from(REDACTED);
        }
    }
    value
}

fn bounded(value: Value) -> Value {
    match value.to_string().len() {
        0..=VALUE_BYTES_MAX => value,
        bytes => json!({"too_long_bytes": bytes}),
    }
}

fn account_of(kind: &str, value: &Value, before: &Snapshot, after: &Snapshot) -> Option<HexId> {
    let id = |field: &str| value[field].as_str().and_then(|id| id.parse().ok());
    if kind == crate::model::account::Account::KIND {
        return id("id");
    }
    id("account_id").or_else(|| {
        let zone = id("zone_id")?;
        let found = after.zones.get(&zone).or_else(|| before.zones.get(&zone));
        found.map(|zone| zone.account_id)
    })
}

fn zone_of(kind: &str, value: &Value, before: &Snapshot, after: &Snapshot) -> Option<String> {
    if kind == crate::model::zone::Zone::KIND {
        return value["name"].as_str().map(str::to_owned);
    }
    let zone = value["zone_id"].as_str()?.parse().ok()?;
    let found = after.zones.get(&zone).or_else(|| before.zones.get(&zone));
    found.map(|zone| zone.name.clone())
}
