//! What every handler has: the objects, the options, the node's status; and the checked ids of a path.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::dry_run;
use super::limit::Limits;
use crate::keys::Keys;
use crate::model::account::Account;
use crate::model::audit::Actor;
use crate::model::fields::echo;
use crate::model::zone::Zone;
use crate::model::{Fault, Refusal, Timestamp};
use crate::options::Options;
use crate::status::NodeStatus;
use crate::store::{Objects, Snapshot, StoreError, Transaction, WriteError};
use crate::uses::Uses;

/// Longest wait for the node to apply a change before it is answered all the same: the bound on
/// how late a change may take effect.
const APPLY_WAIT_MAX: Duration = Duration::from_millis(100);

/// How often the node is asked meanwhile.
const APPLY_POLL: Duration = Duration::from_millis(1);

tokio::task_local! {
    /// Who makes the request that is being handled: the audit log has its changes as his.
    pub(super) static ACTOR: Arc<Actor>;
}

/// What the handlers work on.
pub(crate) struct Context {
    /// What exists.
    pub(crate) objects: Arc<Objects>,
    /// The server's keys.
    pub(crate) keys: Arc<Keys>,
    /// When tokens were used.
    pub(crate) uses: Arc<Uses>,
    /// How often who may ask.
    pub(crate) limits: Limits,
    /// How the control plane was opened.
    pub(crate) options: Options,
    /// The proxy's token.
    pub(crate) origin_token: String,
    /// The node.
    pub(crate) status: Arc<dyn NodeStatus>,
}

/// The context, shared by all requests.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Context>);

impl std::ops::Deref for Shared {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

impl Shared {
    /// Shares the context.
    pub(crate) fn new(context: Context) -> Shared {
        Shared(Arc::new(context))
    }

    /// Everything that exists.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.objects.snapshot()
    }

    /// Runs a transaction off the runtime's threads; when it is durable, waits (bounded) until the
    /// node has applied it, so that an acknowledged change is effective.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Transaction) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        if dry_run::is_asked() {
            return self.rehearse(change).await;
        }
        let objects = Arc::clone(&self.objects);
        let actor = ACTOR.try_with(Arc::clone).ok();
        let write = move || objects.write_by(actor.as_deref(), now(), change);
        let written = tokio::task::spawn_blocking(write).await;
        let (result, revision) = match written {
            Ok(Ok(done)) => done,
            Ok(Err(WriteError::Refused(refusal))) => return Err(refusal),
            Ok(Err(WriteError::Store(StoreError::Stale { found, .. }))) => {
                return Err(Refusal::new(
                    Fault::Stale(found),
                    10_003,
                    "Others changed the state at the same moment, again and again: try again.",
                ));
            }
            Ok(Err(WriteError::Store(why @ StoreError::TooLarge { .. }))) => {
                let message = format!("{why}: make it in several requests, or let etcd take more.");
                return Err(Refusal::new(Fault::TooLarge, 10_414, message));
            }
            Ok(Err(WriteError::Store(why))) => {
                tracing::error!(error = &why as &dyn std::error::Error, "a write failed");
                return Err(ours());
            }
            Err(why) => {
                tracing::error!(error = &why as &dyn std::error::Error, "a write broke off");
                return Err(ours());
            }
        };
        self.applied(revision).await;
        Ok(result)
    }

    /// Runs a transaction and forgets it; the answer is what it would have been.
    pub(crate) async fn rehearse<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Transaction) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let objects = Arc::clone(&self.objects);
        let ran = tokio::task::spawn_blocking(move || objects.rehearse(now(), change)).await;
        let (result, changes, unlisted) = ran.unwrap_or_else(|why| {
            tracing::error!(
                error = &why as &dyn std::error::Error,
                "a rehearsal broke off"
            );
            Err(ours())
        })?;
        dry_run::note(changes, unlisted);
        Ok(result)
    }

    async fn applied(&self, revision: u64) {
        let reached = async {
            let mut poll = tokio::time::interval(APPLY_POLL);
            while self.status.applied_revision() < revision {
                poll.tick().await;
            }
        };
        if tokio::time::timeout(APPLY_WAIT_MAX, reached).await.is_err() {
            tracing::debug!(revision, "answered before the node applied the change");
        }
    }
}

/// The time, for the requests: each one is the root of what it does.
pub(crate) fn now() -> Timestamp {
    Timestamp::new(OffsetDateTime::now_utc())
}

/// The account of a path; another's and a malformed one look alike.
pub(crate) fn account(snapshot: &Snapshot, id: &str) -> Result<Arc<Account>, Refusal> {
    let found = id.parse().ok().and_then(|id| snapshot.accounts.get(&id));
    found
        .cloned()
        .ok_or_else(|| no_route(&format!("/accounts/{id}")))
}

/// The zone of a path.
pub(crate) fn zone(snapshot: &Snapshot, id: &str) -> Result<Arc<Zone>, Refusal> {
    let found = id.parse().ok().and_then(|id| snapshot.zones.get(&id));
    found
        .cloned()
        .ok_or_else(|| no_route(&format!("/zones/{id}")))
}

/// The product's answer for a path or an id that leads nowhere.
pub(crate) fn no_route(path: &str) -> Refusal {
    let path = echo(path);
    Refusal::not_found(
        7003,
        format!("Could not route to {path}, perhaps your object identifier is invalid?"),
    )
}

fn ours() -> Refusal {
    Refusal::new(
        Fault::Ours,
        10_002,
        "The change could not be stored. Nothing changed: try again.",
    )
}
