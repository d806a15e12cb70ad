//! Transactions: each is validated on the newest state, becomes durable together with those that
//! wait at the same time, and only then is shown and acknowledged.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::audit::Changes;
use super::backup::{self, BackupError, Summary};
use super::copy;
use super::snapshot::{Snapshot, Tabled};
use super::{Followed, Store, StoreError, Write};
use crate::model::audit::{Actor, CHANGES_KEPT_MAX, Change, Entry, Number};
use crate::model::counter::{Counter, Numbered};
use crate::model::{Refusal, Timestamp};

/// Writes that become durable together: some megabytes, a tenth of a second on a slow disk.
const GROUP_WRITES_MAX: usize = 4096;

/// First and longest pause after others' commits could not be taken in, doubled from one to the other: a try
/// reads all that is stored, and what another version wrote stays unreadable until somebody acts.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

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
pub(super) struct Head {
    /// The durable state with every transaction on top that waits for the disk.
    pub(super) snapshot: Snapshot,
    /// Transactions that no thread has taken to the disk yet, in order.
    pending: Vec<Pending>,
    /// Whether a thread is taking some to the disk.
    is_committing: bool,
    /// Whether a commit failed so that nobody knows whether it happened, in a shared store.
    is_in_doubt: bool,
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
    pub fn load(store: Box<dyn Store>) -> Result<Arc<Objects>, StoreError> {
        let snapshot = read(&*store)?;
        let objects = Objects::new(store, snapshot, false);
        if objects.store.is_shared() {
            follow(&objects)?;
        }
        Ok(objects)
    }

    pub(super) fn new(
        store: Box<dyn Store>,
        snapshot: Snapshot,
        is_in_doubt: bool,
    ) -> Arc<Objects> {
        let revision = snapshot.revision;
        Arc::new(Objects {
            store,
            head: Mutex::new(Head {
                snapshot: snapshot.clone(),
                pending: Vec::new(),
                is_committing: false,
                is_in_doubt,
            }),
            snapshot: ArcSwap::from_pointee(snapshot),
            revision: watch::Sender::new(revision),
            settled: Condvar::new(),
        })
    }

    /// Whether other processes write the same store.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// How many writes go into one transaction.
    pub fn writes_max(&self) -> usize {
        self.store.writes_max()
    }

    /// Reads everything again, when others wrote.
    ///
    /// # Errors
    /// When the store fails or holds what cannot be read.
    pub fn reload(&self) -> Result<(), StoreError> {
        self.take_in(Followed::Lost)
    }

    /// Writes everything that is stored to `out`, as it is at one revision. Blocks.
    ///
    /// # Errors
    /// When the store or `out` fails.
    pub fn backup(&self, out: &mut dyn std::io::Write) -> Result<Summary, BackupError> {
        backup::write(&*self.store, out)
    }

    /// The same, of a store that may be out of reach: then as `copy` has it, read-only until the store
    /// is back. The copy follows the store, in a thread that ends after the last user of the objects.
    ///
    /// # Errors
    /// When neither can be read, or the store holds what this version cannot read.
    pub fn load_or_copy(
        store: Box<dyn Store>,
        copy: Box<dyn Store>,
    ) -> Result<Arc<Objects>, StoreError> {
        let (snapshot, is_in_doubt) = match read(&*store) {
            Ok(snapshot) => (snapshot, false),
            Err(why @ StoreError::Failed(_)) => {
                let snapshot = read(&*copy)?;
                if snapshot.revision == 0 {
                    return Err(why);
                }
                let revision = snapshot.revision;
                let why = &why as &dyn std::error::Error;
                tracing::warn!(
                    error = why,
                    revision,
                    "the store is out of reach: a copy is used"
                );
                (snapshot, true)
            }
            Err(why) => return Err(why),
        };
        let objects = Objects::new(store, snapshot, is_in_doubt);
        follow(&objects)?;
        copy::keep(&objects, copy)?;
        Ok(objects)
    }

    /// Everything that exists, at the newest durable revision.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The newest revision that a snapshot shows, as it changes.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Runs `change` on a copy of the newest state and forgets it: would it be refused, and what would
    /// it change? Of that, how much more than what is listed.
    ///
    /// # Errors
    /// What `change` refuses.
    pub fn rehearse<T>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Transaction) -> Result<T, Refusal>,
    ) -> Result<(T, Vec<Change>, usize), Refusal> {
        let before = self.head().snapshot.clone();
        let mut transaction = Transaction {
            snapshot: before.clone(),
            writes: Vec::new(),
            changes: Some(Changes::default()),
            now,
        };
        let result = change(&mut transaction)?;
        let changes = transaction.changes.unwrap_or_default();
        let (changes, unlisted) = changes.listed(&before, &transaction.snapshot);
        Ok((result, changes, unlisted))
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
            changes: actor.map(|_| Changes::default()),
            now,
        };
        let result = change(&mut transaction)?;
        if let Some(actor) = actor {
            transaction.log(actor, &head.snapshot);
        }
        let max = self.store.writes_max();
        if transaction.writes.len() > max {
            let writes = transaction.writes.len();
            return Err(StoreError::TooLarge { writes, max }.into());
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
        if actor.is_some() {
            self.trim_log(now);
        }
        Ok((result, revision))
    }

    /// Shortens the audit log when it is a tenth too long, in transactions of its own: a store takes so
    /// many writes at once, and they are the request's.
    fn trim_log(&self, now: Timestamp) {
        if self.snapshot().indexes.audited <= CHANGES_KEPT_MAX + CHANGES_KEPT_MAX / 10 {
            return;
        }
        let max = self.writes_max().min(GROUP_WRITES_MAX);
        loop {
            match self.write(now, |transaction| Ok(transaction.trim_log(max))) {
                Ok((true, _)) => {}
                Ok((false, _)) => return,
                // The next change tries again, here or elsewhere.
                Err(why) => {
                    let why = &why as &dyn std::error::Error;
                    tracing::debug!(error = why, "the audit log is longer than it should be");
                    return;
                }
            }
        }
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
            let max = self.store.writes_max().min(GROUP_WRITES_MAX);
            let group = next_group(&mut head.pending, max);
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
            Err(why) => {
                head.is_in_doubt |= !matches!(why, StoreError::Stale { .. });
                failed = std::mem::take(&mut head.pending);
                head.snapshot = (*self.snapshot()).clone();
            }
        }
        for one in group.into_iter().chain(failed) {
            // Each has one outcome, set here only.
            let _is_first = one.outcome.set(done.clone());
        }
    }

    /// Takes in what another process committed. Transactions that wait were validated without it.
    fn take_in(&self, followed: Followed) -> Result<(), StoreError> {
        let lost = matches!(followed, Followed::Lost);
        let loaded = match lost {
            true => Some(read(&*self.store)?),
            false => None,
        };
        let mut head = self.head();
        while head.is_committing {
            // Theirs may be on top of ours, which is shown when its thread knows of it.
            head = self
                .settled
                .wait(head)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let known = self.snapshot();
        let snapshot = match (followed, loaded) {
            (
                Followed::Commit {
                    base,
                    revision,
                    writes,
                },
                _,
            ) => {
                if revision <= known.revision {
                    return Ok(());
                }
                if base != known.revision {
                    head.is_in_doubt = true;
                    return Ok(());
                }
                let mut snapshot = (*known).clone();
                for write in &writes {
                    snapshot.take_in(write)?;
                }
                snapshot.revision = revision;
                snapshot
            }
            // Ours went through meanwhile.
            (Followed::Lost, Some(loaded)) if loaded.revision < known.revision => return Ok(()),
            (Followed::Lost, Some(loaded)) => loaded,
            (Followed::Lost, None) => return Ok(()),
        };
        let stale = StoreError::Stale {
            expected: head.snapshot.revision,
            found: snapshot.revision,
        };
        for one in std::mem::take(&mut head.pending) {
            let _is_first = one.outcome.set(Err(stale.clone()));
        }
        head.snapshot = snapshot.clone();
        self.show(snapshot);
        drop(head);
        self.settled.notify_all();
        Ok(())
    }

    /// Shows a durable state, unless a newer one is shown.
    pub(super) fn show(&self, snapshot: Snapshot) {
        let revision = snapshot.revision;
        if revision > self.snapshot.load().revision {
            self.snapshot.store(Arc::new(snapshot));
            self.revision.send_replace(revision);
        }
    }

    pub(super) fn head(&self) -> MutexGuard<'_, Head> {
        // A panic in a transaction leaves nothing half done: its copy is dropped.
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn read(store: &dyn Store) -> Result<Snapshot, StoreError> {
    let mut snapshot = Snapshot::default();
    snapshot.revision = store.load_to_follow(&mut |key, value| snapshot.load(key, value))?;
    Ok(snapshot)
}

/// Takes in others' commits, in a thread that ends after the last user of the objects.
fn follow(objects: &Arc<Objects>) -> Result<(), StoreError> {
    let objects = Arc::downgrade(objects);
    let followed = move || {
        let mut is_lost = false;
        let mut failures = 0;
        while let Some(objects) = objects.upgrade() {
            is_lost |= std::mem::take(&mut objects.head().is_in_doubt);
            let next = match std::mem::take(&mut is_lost) {
                true => Ok(Some(Followed::Lost)),
                false => objects.store.next(),
            };
            let done = match next {
                Ok(None) => Ok(()),
                Ok(Some(followed)) => {
                    let taken = objects.take_in(followed);
                    is_lost = taken.is_err();
                    taken
                }
                Err(why) => Err(why),
            };
            // Whoever is the last to have them does not wait for this thread.
            drop(objects);
            match done {
                Ok(()) => failures = 0,
                Err(why) => {
                    let why = &why as &dyn std::error::Error;
                    tracing::warn!(error = why, failures, "others' changes are not seen");
                    std::thread::park_timeout(pause_after(failures));
                    failures += 1;
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("store".into());
    match thread.spawn(followed) {
        Ok(_) => Ok(()),
        Err(why) => Err(StoreError::Failed(Arc::new(why))),
    }
}

/// How long to wait after that many failures and one more.
fn pause_after(failures: u32) -> Duration {
    let doubled = RETRY_MIN.saturating_mul(1 << failures.min(16));
    doubled.min(RETRY_MAX)
}

/// The oldest pending transactions, at least one, at most `max` writes otherwise.
fn next_group(pending: &mut Vec<Pending>, max: usize) -> Vec<Pending> {
    let mut sum = 0;
    let fits = pending.iter().take_while(|one| {
        sum += one.writes.len();
        sum <= max
    });
    let count = fits.count().max(1).min(pending.len());
    pending.drain(..count).collect()
}

/// A copy of everything, and the writes that made it differ.
#[derive(Debug)]
pub struct Transaction {
    snapshot: Snapshot,
    writes: Vec<Write>,
    /// What changed so far, if anybody wants to know.
    changes: Option<Changes>,
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

    /// Writes objects that have secrets again, as they are, so that the store seals them: at most `max`
    /// of those after the key `after`. The last one's key; `None` when there is none left.
    pub fn write_secrets(&mut self, after: &str, max: usize) -> Option<String> {
        let mut writes = self.snapshot.secret_writes();
        writes.retain(|write| write.key.as_str() > after);
        writes.sort_by(|a, b| a.key.cmp(&b.key));
        writes.truncate(max);
        let last = writes.last().map(|write| write.key.clone());
        self.writes.append(&mut writes);
        last
    }

    /// The object exists, so.
    pub fn put<R: Tabled>(&mut self, object: R) {
        let write = Write::of(&object);
        if let Some(changes) = &mut self.changes {
            changes.note(R::table(&self.snapshot).get(&object.id()), Some(&object));
        }
        self.writes.push(write);
        self.snapshot.put(object);
    }

    /// The object is gone; what it was.
    pub fn delete<R: Tabled>(&mut self, id: &R::Id) -> Option<Arc<R>> {
        let old = self.snapshot.delete::<R>(id)?;
        if let Some(changes) = &mut self.changes {
            changes.note(Some(&old), None);
        }
        self.writes.push(Write {
            key: format!("{}/{id}", R::KIND),
            value: None,
        });
        Some(old)
    }

    /// Puts what changed since `before` into the audit log, as one entry.
    fn log(&mut self, actor: &Actor, before: &Snapshot) {
        let changes = self.changes.take().unwrap_or_default();
        let Some(entry) = changes.entry(actor, self.now, before, &self.snapshot) else {
            return;
        };
        self.put(entry);
    }

    /// Lets the audit log's oldest entries go, at most `max` of them. Whether there are more.
    fn trim_log(&mut self, max: usize) -> bool {
        for _ in 0..max {
            if self.snapshot.indexes.audited <= CHANGES_KEPT_MAX {
                return false;
            }
            let Some(oldest) = self.snapshot.audit.first().map(|entry| entry.number) else {
                return false;
            };
            self.delete::<Entry>(&Number(oldest));
        }
        true
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
