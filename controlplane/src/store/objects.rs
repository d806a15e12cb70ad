//! Transactions: each is validated on the newest state, becomes durable together with those that
//! wait at the same time, and only then is shown and acknowledged.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::audit::Changed;
use super::snapshot::{Snapshot, Tabled};
use super::{Store, StoreError, Write};
use crate::model::audit::{Actor, ENTRIES_MAX, Entry, Number};
use crate::model::counter::{Counter, Numbered};
use crate::model::{Refusal, Timestamp};

/// Writes that become durable together: some megabytes, a tenth of a second on a slow disk.
const GROUP_WRITES_MAX: usize = 4096;

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

/// The store and the newest durable snapshot of it. Any number of readers and writers: transactions
/// are validated one after the other, and while a group of them goes to the disk the next gathers.
pub struct Objects {
    store: Box<dyn Store>,
    /// The newest durable state.
    snapshot: ArcSwap<Snapshot>,
    revision: watch::Sender<u64>,
    head: Mutex<Head>,
    /// A group is durable, or failed.
    settled: Condvar,
}

/// Where the next transaction begins.
struct Head {
    /// The durable state with every transaction on top that waits for the disk.
    snapshot: Snapshot,
    /// Transactions that no thread has taken to the disk yet, in order.
    pending: Vec<Pending>,
    /// Whether a thread is taking some to the disk.
    is_committing: bool,
}

/// A validated transaction on its way to the disk.
struct Pending {
    /// The revision it was validated on.
    base: u64,
    writes: Vec<Write>,
    /// The state with it.
    after: Snapshot,
    outcome: Outcome,
}

type Outcome = Arc<OnceLock<Result<(), StoreError>>>;

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let revision = self.snapshot().revision;
        f.debug_struct("Objects")
            .field("revision", &revision)
            .finish_non_exhaustive()
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
            head: Mutex::new(Head {
                snapshot: snapshot.clone(),
                pending: Vec::new(),
                is_committing: false,
            }),
            snapshot: ArcSwap::from_pointee(snapshot),
            revision: watch::Sender::new(revision),
            settled: Condvar::new(),
        })
    }

    /// Everything that exists, at the newest durable revision.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The newest revision that a snapshot shows, as it changes.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Runs `change` on a copy of the newest state and makes its writes durable, all or none.
    /// Returns its result and the revision that has them. Blocks.
    ///
    /// # Errors
    /// What `change` refuses, and failures of the store; nothing changed then.
    pub fn write<T>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Transaction) -> Result<T, Refusal>,
    ) -> Result<(T, u64), WriteError> {
        self.write_by(None, now, change)
    }

    /// The same, with the changes in the audit log as the actor's, in the same transaction. Without
    /// an actor it is the server's own doing, and not logged.
    ///
    /// # Errors
    /// As [`Objects::write`].
    pub fn write_by<T>(
        &self,
        actor: Option<&Actor>,
        now: Timestamp,
        change: impl FnOnce(&mut Transaction) -> Result<T, Refusal>,
    ) -> Result<(T, u64), WriteError> {
        let mut head = self.head();
        let mut transaction = Transaction {
            snapshot: head.snapshot.clone(),
            writes: Vec::new(),
            changed: actor.map(|_| Changed::default()),
            now,
        };
        let result = change(&mut transaction)?;
        if let Some(actor) = actor {
            transaction.log(actor, &head.snapshot);
        }
        let Transaction {
            mut snapshot,
            writes,
            ..
        } = transaction;
        let base = snapshot.revision;
        if !writes.is_empty() {
            snapshot.revision += 1;
        }
        let revision = snapshot.revision;
        let outcome = Outcome::default();
        // One without writes waits as well: what it saw may not be durable yet.
        head.snapshot = snapshot.clone();
        head.pending.push(Pending {
            base,
            writes,
            after: snapshot,
            outcome: Arc::clone(&outcome),
        });
        self.settle(head, &outcome)?;
        Ok((result, revision))
    }

    /// Runs `change` as [`Objects::write`] would and keeps nothing of it; its result, and what it
    /// would have changed.
    ///
    /// # Errors
    /// What `change` refuses.
    pub fn preview<T>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Transaction) -> Result<T, Refusal>,
    ) -> Result<(T, Vec<Touched>), Refusal> {
        let mut transaction = Transaction {
            snapshot: (*self.snapshot()).clone(),
            writes: Vec::new(),
            changed: None,
            now,
        };
        let result = change(&mut transaction)?;
        let touched = transaction.writes.iter().filter_map(Touched::by);
        Ok((result, touched.collect()))
    }

    /// Waits until the outcome of a transaction is known; takes pending ones to the disk itself when
    /// no other thread does.
    fn settle<'a>(
        &'a self,
        mut head: MutexGuard<'a, Head>,
        outcome: &Outcome,
    ) -> Result<(), StoreError> {
        loop {
            if let Some(known) = outcome.get() {
                return known.clone();
            }
            if head.is_committing {
                head = self
                    .settled
                    .wait(head)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            head.is_committing = true;
            let group = next_group(&mut head.pending);
            drop(head);
            let done = self.commit(&group);
            head = self.head();
            head.is_committing = false;
            self.close(&mut head, group, &done);
            self.settled.notify_all();
        }
    }

    fn commit(&self, group: &[Pending]) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return Ok(());
        };
        let (after, to) = (first.base, last.after.revision);
        if to == after {
            return Ok(());
        }
        let writes: Vec<&Write> = group.iter().flat_map(|one| &one.writes).collect();
        self.store.commit(after, to, &writes)
    }

    /// Tells the transactions of a group what became of them. After a failure nothing that was
    /// validated on top of them stands either.
    fn close(&self, head: &mut Head, group: Vec<Pending>, done: &Result<(), StoreError>) {
        let mut failed = Vec::new();
        match done {
            Ok(()) => {
                if let Some(last) = group.last() {
                    self.show(last.after.clone());
                }
            }
            Err(_) => {
                failed = std::mem::take(&mut head.pending);
                head.snapshot = (*self.snapshot()).clone();
            }
        }
        for one in group.into_iter().chain(failed) {
            // Each has one outcome, set here only.
            let _is_first = one.outcome.set(done.clone());
        }
    }

    /// Shows a durable state, unless a newer one is shown.
    fn show(&self, snapshot: Snapshot) {
        let revision = snapshot.revision;
        if revision > self.snapshot.load().revision {
            self.snapshot.store(Arc::new(snapshot));
            self.revision.send_replace(revision);
        }
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        // A panic in a transaction leaves nothing half done: its copy is dropped.
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The oldest pending transactions, at least one, at most [`GROUP_WRITES_MAX`] writes otherwise.
fn next_group(pending: &mut Vec<Pending>) -> Vec<Pending> {
    let mut sum = 0;
    let fits = pending.iter().take_while(|one| {
        sum += one.writes.len();
        sum <= GROUP_WRITES_MAX
    });
    let count = fits.count().max(1).min(pending.len());
    pending.drain(..count).collect()
}

/// An object that a transaction would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Its kind.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Whether it would be gone.
    pub is_gone: bool,
}

impl Touched {
    fn by(write: &Write) -> Option<Touched> {
        let (kind, id) = write.key.split_once('/')?;
        Some(Touched {
            kind: kind.to_owned(),
            id: id.to_owned(),
            is_gone: write.value.is_none(),
        })
    }
}

/// A copy of everything, and the writes that made it differ.
#[derive(Debug)]
pub struct Transaction {
    snapshot: Snapshot,
    writes: Vec<Write>,
    /// What changed so far, if anybody wants to know.
    changed: Option<Changed>,
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

    /// Writes every object that has secrets again, as it is: the store seals them.
    pub fn write_secrets(&mut self) {
        self.writes.extend(self.snapshot.secret_writes());
    }

    /// The object exists, so.
    pub fn put<R: Tabled>(&mut self, object: R) {
        let write = Write::of(&object);
        if let Some(changed) = &mut self.changed {
            changed.note(R::table(&self.snapshot).get(&object.id()), Some(&object));
        }
        self.writes.push(write);
        self.snapshot.put(object);
    }

    /// The object is gone; what it was.
    pub fn delete<R: Tabled>(&mut self, id: &R::Id) -> Option<Arc<R>> {
        let old = self.snapshot.delete::<R>(id)?;
        if let Some(changed) = &mut self.changed {
            changed.note(Some(&old), None);
        }
        self.writes.push(Write {
            key: format!("{}/{id}", R::KIND),
            value: None,
        });
        Some(old)
    }

    /// Puts what changed since `before` into the audit log, and lets the log's oldest entries go.
    fn log(&mut self, actor: &Actor, before: &Snapshot) {
        let changed = self.changed.take().unwrap_or_default();
        for entry in changed.entries(actor, self.now, before, &self.snapshot) {
            self.put(entry);
        }
        while self.snapshot.audit.len() > ENTRIES_MAX
            && let Some(oldest) = self.snapshot.audit.first().map(|entry| entry.number)
        {
            self.delete::<Entry>(&Number(oldest));
        }
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
