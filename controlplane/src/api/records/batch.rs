//! `/zones/{zone}/dns_records/batch`: many changes in one transaction.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use super::name::silenced;
use super::{Change, add, alter, find, show, touch};
use crate::api::context::{self, Shared};
use crate::api::envelope::{Answer, one_noting};
use crate::api::input::{At, Body};
use crate::model::record::{INVALID, Record};
use crate::model::record_draft::Draft;
use crate::model::zone::Zone;
use crate::model::{Fields, Refusal};
use crate::store::Transaction;

/// Most changes of one batch (the product's own bound for paid plans).
pub(super) const CHANGES_MAX: usize = 3_500;

/// What to do, in this order.
struct Batch {
    deletes: Vec<Value>,
    patches: Vec<Value>,
    puts: Vec<Value>,
    posts: Vec<Value>,
}

/// All of it, or nothing.
pub(super) async fn run(
    State(shared): State<Shared>,
    At(id): At<String>,
    Body(body): Body,
) -> Answer {
    let shown = shared.write(move |transaction| {
        let zone = context::zone(transaction.snapshot(), &id)?;
        let batch = Batch::read(Fields::new(body, INVALID)?)?;
        batch.run(transaction, &zone)
    });
    let (shown, notes) = shown.await?;
    Ok(one_noting(shown, &notes))
}

impl Batch {
    fn read(mut fields: Fields) -> Result<Batch, Refusal> {
        let batch = Batch {
            deletes: list(&mut fields, "deletes")?,
            patches: list(&mut fields, "patches")?,
            puts: list(&mut fields, "puts")?,
            posts: list(&mut fields, "posts")?,
        };
        fields.finish()?;
        let lists = [
            ("deletes", &batch.deletes),
            ("patches", &batch.patches),
            ("puts", &batch.puts),
            ("posts", &batch.posts),
        ];
        let mut count = 0;
        for (name, list) in lists {
            count += list.len();
            if count > CHANGES_MAX {
                let why = format!("A batch may have at most {CHANGES_MAX} changes in all.");
                return Err(Refusal::invalid(INVALID, why).at(name));
            }
        }
        Ok(batch)
    }

    fn run(
        self,
        transaction: &mut Transaction,
        zone: &Zone,
    ) -> Result<(Value, Vec<String>), Refusal> {
        let mut deleted = Vec::new();
        for (index, body) in self.deletes.into_iter().enumerate() {
            let gone = delete(transaction, zone, body);
            deleted.push(gone.map_err(|why| below(why, "deletes", index))?);
        }
        let patched = each(self.patches, "patches", |body| {
            change(transaction, zone, body, Draft::patch)
        })?;
        let put = each(self.puts, "puts", |body| {
            change(transaction, zone, body, Draft::replace)
        })?;
        let posted = each(self.posts, "posts", |body| {
            add(transaction, zone, Draft::read(Fields::new(body, INVALID)?)?)
        })?;
        touch(transaction, zone);
        let snapshot = transaction.snapshot();
        let shown = |records: &[Record]| -> Vec<Value> {
            // A later change of the batch may have moved a record's name to another vnet.
            let newest = |r: &Record| snapshot.records.get(&r.id).map(|r| show(snapshot, zone, r));
            records.iter().filter_map(newest).collect()
        };
        let written = patched.iter().chain(&put).chain(&posted);
        let notes = silenced(snapshot, zone, written);
        let shown = json!({
            "deletes": deleted,
            "patches": shown(&patched),
            "puts": shown(&put),
            "posts": shown(&posted),
        });
        Ok((shown, notes))
    }
}

fn list(fields: &mut Fields, name: &str) -> Result<Vec<Value>, Refusal> {
    match fields.take(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(fields.refuse(name, format!("'{name}' must be a list."))),
    }
}

fn each(
    bodies: Vec<Value>,
    list: &str,
    mut act: impl FnMut(Value) -> Result<Record, Refusal>,
) -> Result<Vec<Record>, Refusal> {
    let mut records = Vec::with_capacity(bodies.len());
    for (index, body) in bodies.into_iter().enumerate() {
        records.push(act(body).map_err(|why| below(why, list, index))?);
    }
    Ok(records)
}

fn delete(transaction: &mut Transaction, zone: &Zone, body: Value) -> Result<Value, Refusal> {
    let old = named(transaction, zone, &body)?;
    let shown = show(transaction.snapshot(), zone, &old);
    transaction.delete::<Record>(&old.id);
    Ok(shown)
}

fn change(
    transaction: &mut Transaction,
    zone: &Zone,
    body: Value,
    change: Change,
) -> Result<Record, Refusal> {
    let old = named(transaction, zone, &body)?;
    let draft = Draft::read(Fields::new(body, INVALID)?)?;
    alter(transaction, zone, &old, draft, change)
}

/// The record whose `id` the body gives.
fn named(transaction: &Transaction, zone: &Zone, body: &Value) -> Result<Arc<Record>, Refusal> {
    match body.get("id").and_then(Value::as_str) {
        Some(id) => find(transaction.snapshot(), zone, id).map_err(|refusal| refusal.at("id")),
        None => Err(Refusal::invalid(INVALID, "'id' is required.").at("id")),
    }
}

/// The refusal, pointing below an entry of a list.
fn below(mut refusal: Refusal, list: &str, index: usize) -> Refusal {
    let inner = refusal.pointer.unwrap_or_default();
    refusal.pointer = Some(format!("/{list}/{index}{inner}"));
    refusal
}
