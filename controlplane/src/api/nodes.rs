//! `/accounts/{account}/nodes`: our extension. Nodes are made by `portcullis control enrol`, which alone
//! has the private key; here they are shown, and taken back.

use std::sync::Arc;

use axum::extract::State;
use http::Method;
use serde_json::{Value, json};

use super::context::{self, Shared};
use super::envelope::{Answer, one, page};
use super::input::{At, Params};
use super::operation::{BOOLEAN, COUNT, NUMBER, Routes, Shape, TEXT, TIME, TIME_OR_NULL, does};
use crate::model::node::Node;
use crate::model::{Refusal, Timestamp};
use crate::push::lease_of;
use crate::status::NodeSeen;
use crate::store::Snapshot;

/// Code of a name that no node of the account has.
const UNKNOWN: u32 = 1_004;

/// What [`Fleet::show`] makes.
const NODE: Shape = Shape::Named(
    "Node",
    &Shape::Object(&[
        ("id", TEXT),
        ("name", TEXT),
        ("certificate_sha256", TEXT),
        ("created_on", TIME),
        ("enrolled_on", TIME),
        ("connected", BOOLEAN),
        ("connected_since", TIME_OR_NULL),
        ("address", Shape::OrNull(&TEXT)),
        ("last_heard_secs", Shape::OrNull(&NUMBER)),
        ("slice", Shape::OrNull(&TEXT)),
        ("slice_until", TIME_OR_NULL),
        ("relay", Shape::OrNull(&TEXT)),
        ("revision", COUNT),
        ("acknowledged_revision", COUNT),
        ("acknowledged_at", TIME_OR_NULL),
        ("acknowledged_secs", Shape::OrNull(&NUMBER)),
        ("up_to_date", BOOLEAN),
        (
            "rejected",
            Shape::List(&Shape::Object(&[("object", TEXT), ("reason", TEXT)])),
        ),
        ("rejected_total", COUNT),
    ]),
);

pub(super) fn routes() -> Routes {
    let all = "/accounts/{account}/nodes";
    let each = "/accounts/{account}/nodes/{node}";
    let gone = does("Take an edge's certificate back").gives(Shape::Object(&[("id", TEXT)]));
    Routes::new()
        .on(
            (Method::GET, all),
            list,
            does("List the edges that follow this control plane").lists(NODE, 100),
        )
        .on((Method::GET, each), read, does("Show an edge").gives(NODE))
        .on((Method::DELETE, each), delete, gone)
}

async fn list(State(shared): State<Shared>, At(account): At<String>, params: Params) -> Answer {
    let paging = params.paging(20, 100)?;
    let snapshot = shared.snapshot();
    let account = context::account(&snapshot, &account)?;
    let seen = Fleet::now(&shared, &snapshot);
    let nodes = snapshot.nodes.iter();
    let theirs = nodes.filter(|node| node.account_id == account.id);
    Ok(page(theirs.collect(), paging, |node| seen.show(node)))
}

async fn read(State(shared): State<Shared>, At((account, name)): At<(String, String)>) -> Answer {
    let snapshot = shared.snapshot();
    let node = node(&snapshot, &account, &name)?;
    Ok(one(Fleet::now(&shared, &snapshot).show(&node)))
}

async fn delete(State(shared): State<Shared>, At((account, name)): At<(String, String)>) -> Answer {
    let shown = shared.write(move |transaction| {
        let node = node(transaction.snapshot(), &account, &name)?;
        transaction.delete::<Node>(&node.name);
        Ok(json!({"id": node.name}))
    });
    Ok(one(shown.await?))
}

fn node(snapshot: &Snapshot, account: &str, name: &String) -> Result<Arc<Node>, Refusal> {
    let account = context::account(snapshot, account)?;
    let found = snapshot.nodes.get(name);
    let found = found.filter(|node| node.account_id == account.id);
    found.cloned().ok_or_else(|| {
        Refusal::not_found(UNKNOWN, "There is no node with this name in this account.")
    })
}

/// What is known of the nodes, asked once per request.
struct Fleet {
    seen: Vec<NodeSeen>,
    snapshot: Arc<Snapshot>,
    now: Timestamp,
}

impl Fleet {
    fn now(shared: &Shared, snapshot: &Arc<Snapshot>) -> Fleet {
        Fleet {
            seen: shared.status.nodes(),
            snapshot: Arc::clone(snapshot),
            now: context::now(),
        }
    }

    fn show(&self, node: &Node) -> Value {
        let seen = self.seen.iter().find(|seen| seen.name == node.name);
        let acknowledged = seen.map_or(0, |seen| seen.acknowledged_revision);
        let rejected = seen.into_iter().flat_map(|seen| &seen.rejected);
        let rejected = rejected.map(|(object, reason)| json!({"object": object, "reason": reason}));
        let revision = self.snapshot.revision;
        let lease = lease_of(&self.snapshot, &node.certificate_sha256);
        let age = |at: Timestamp| self.now.seconds_since(at).max(0.0);
        json!({
            "id": node.name,
            "name": node.name,
            "certificate_sha256": node.certificate_sha256,
            "created_on": node.created_on,
            "enrolled_on": node.enrolled_on,
            "connected": seen.is_some_and(|seen| seen.connected_since.is_some()),
            "connected_since": seen.and_then(|seen| seen.connected_since),
            "address": seen.map(|seen| seen.address),
            "last_heard_secs": seen.map(|seen| age(seen.heard_at)),
            "slice": lease.map(|lease| lease.slice),
            "slice_until": lease.map(|lease| lease.until),
            "relay": lease.and_then(|lease| lease.relay),
            "revision": revision,
            "acknowledged_revision": acknowledged,
            "acknowledged_at": seen.and_then(|seen| seen.acknowledged_at),
            "acknowledged_secs": seen.and_then(|seen| seen.acknowledged_at).map(age),
            "up_to_date": acknowledged == revision,
            "rejected": rejected.collect::<Vec<Value>>(),
            "rejected_total": seen.map_or(0, |seen| seen.rejected_total),
        })
    }
}
