//! Transactions: read a snapshot, write durably, then show the new snapshot.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::snapshot::{Snapshot, Tabled};
use super::{Store, StoreError, Write};
use crate::model::counter::{Counter, Numbered};
use crate::model::{Refusal, Timestamp};

/// Why a transaction was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The request is to blame.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store is to blame.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store and the newest snapshot of it. One writer at a time, any number of readers.
pub struct Objects {
    store: Box<dyn Store>,
    snapshot: ArcSwap<Snapshot>,
    revision: watch::Sender<u64>,
    writer: Mutex<()>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let revision = self.snapshot().revision;
        f.debug_struct("Objects")
            .field("revision", &revision)
            .finish()
    }
}

impl Objects {
    /// Reads everything that is stored.
    ///
    /// # Errors
    /// When the store fails or holds what this version cannot read.
    pub fn load(store: Box<dyn Store>) -> Result<Objects, StoreError> {
        let mut snapshot = Snapshot::default();
        let revision = store.load(&mut |key, value| snapshot.load(key, value))?;
        snapshot.revision = revision;
        Ok(Objects {
            store,
            snapshot: ArcSwap::from_pointee(snapshot),
            revision: watch::Sender::new(revision),
            writer: Mutex::new(()),
        })
    }

    /// Everything that exists, at the newest revision.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The newest revision that a snapshot shows, as it changes.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Runs `change` on a copy of the newest snapshot and makes its writes durable, all or none.
    /// Returns its result and the revision that has them. Blocks.
    ///
    /// # Errors
    /// What `change` refuses, and failures of the store; nothing changed then.
    pub fn write<T>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Transaction) -> Result<T, Refusal>,
    ) -> Result<(T, u64), WriteError> {
        // A panic in a transaction leaves nothing half done: the copy is dropped.
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = Transaction {
            snapshot: (*self.snapshot()).clone(),
            writes: Vec::new(),
            now,
        };
        let base = transaction.snapshot.revision;
        let result = change(&mut transaction)?;
        if transaction.writes.is_empty() {
            return Ok((result, base));
        }
        let revision = self.store.commit(base, &transaction.writes)?;
        transaction.snapshot.revision = revision;
        self.snapshot.store(Arc::new(transaction.snapshot));
        self.revision.send_replace(revision);
        Ok((result, revision))
    }
}

/// A copy of everything, and the writes that made it differ.
#[derive(Debug)]
pub struct Transaction {
    snapshot: Snapshot,
    writes: Vec<Write>,
    now: Timestamp,
}

impl Transaction {
    /// Everything, with this transaction's writes.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// When the transaction began.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The object exists, so.
    pub fn put<R: Tabled>(&mut self, object: R) {
        let value = serde_json::to_vec(&object).expect("objects have string keys only");
        self.writes.push(Write {
            key: format!("{}/{}", R::KIND, object.id()),
            value: Some(value),
        });
        self.snapshot.put(object);
    }

    /// The object is gone; what it was.
    pub fn delete<R: Tabled>(&mut self, id: &R::Id) -> Option<Arc<R>> {
        let old = self.snapshot.delete::<R>(id)?;
        self.writes.push(Write {
            key: format!("{}/{id}", R::KIND),
            value: None,
        });
        Some(old)
    }

    /// The next number of a kind, 1..=`max`: not reused while others are left.
    pub fn number(
        &mut self,
        of: Numbered,
        max: u32,
        is_used: impl Fn(&Snapshot, u32) -> bool,
    ) -> Option<u32> {
        let last = self
            .snapshot
            .counters
            .get(&of)
            .map_or(0, |counter| counter.last);
        let number = Counter::next_fit(last, max, |number| is_used(&self.snapshot, number))?;
        self.put(Counter { of, last: number });
        Some(number)
    }
}
