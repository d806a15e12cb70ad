//! Transactions at once, failures of the store, and what changed between two snapshots.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use proptest::prelude::*;

use super::{Each, Embedded, Objects, Snapshot, Store, StoreError, Write};
use crate::model::account::Account;
use crate::model::{HexId, Timestamp};
use crate::scratch::Directory;

fn now() -> Timestamp {
    Timestamp::new(time::OffsetDateTime::UNIX_EPOCH)
}

fn account(name: &str) -> Account {
    Account {
        id: HexId::random(),
        name: name.to_owned(),
        created_on: now(),
    }
}

/// A store that counts commits, and fails when told to.
struct Watched {
    inner: Embedded,
    commits: Arc<AtomicUsize>,
    is_broken: Arc<AtomicBool>,
}

impl Store for Watched {
    fn load(&self, each: Each<'_>) -> Result<u64, StoreError> {
        self.inner.load(each)
    }

    fn commit(&self, after: u64, to: u64, writes: &[&Write]) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        if self.is_broken.load(Ordering::SeqCst) {
            let why = std::io::Error::other("the disk is on fire");
            return Err(StoreError::Failed(Arc::new(why)));
        }
        self.inner.commit(after, to, writes)
    }
}

struct World {
    objects: Objects,
    commits: Arc<AtomicUsize>,
    is_broken: Arc<AtomicBool>,
    directory: Directory,
}

impl World {
    fn new() -> World {
        let directory = Directory::new();
        let store = Watched {
            inner: Embedded::open(&directory.0.join("store.redb")).unwrap(),
            commits: Arc::default(),
            is_broken: Arc::default(),
        };
        World {
            commits: Arc::clone(&store.commits),
            is_broken: Arc::clone(&store.is_broken),
            objects: Objects::load(Box::new(store)).unwrap(),
            directory,
        }
    }

    /// What a new process would find.
    fn reopened(self) -> Arc<Snapshot> {
        drop(self.objects);
        let store = Embedded::open(&self.directory.0.join("store.redb")).unwrap();
        Objects::load(Box::new(store)).unwrap().snapshot()
    }
}

#[test]
fn a_commit_on_an_old_revision_is_refused() {
    let directory = Directory::new();
    let store = Embedded::open(&directory.0.join("store.redb")).unwrap();
    let write = |value: &[u8]| Write {
        key: "x/1".into(),
        value: Some(value.to_vec()),
    };
    store.commit(0, 1, &[&write(b"1")]).unwrap();
    let stale = store.commit(0, 1, &[&write(b"2")]).unwrap_err();
    assert_eq!(stale.to_string(), "the store is at revision 1, not 0");
    store.commit(1, 2, &[&write(b"3")]).unwrap();
    let mut seen = Vec::new();
    let revision = store.load(&mut |key, value| {
        seen.push((key.to_owned(), value.to_vec()));
        Ok(())
    });
    assert_eq!(
        (revision.unwrap(), seen),
        (2, vec![("x/1".to_owned(), b"3".to_vec())])
    );
}

#[test]
fn transactions_at_once_are_each_validated_on_the_ones_before_and_share_commits() {
    const THREADS: usize = 16;
    const EACH: usize = 20;
    let world = World::new();
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..EACH {
                    // Each name is the count of what is there: unique only if none overlaps another.
                    let (_, revision) = world
                        .objects
                        .write(now(), |transaction| {
                            let count = transaction.snapshot().accounts.len();
                            transaction.put(account(&count.to_string()));
                            Ok(())
                        })
                        .unwrap();
                    assert!(world.objects.snapshot().revision >= revision);
                }
            });
        }
    });
    let commits = world.commits.load(Ordering::SeqCst);
    assert!(commits < THREADS * EACH, "{commits} commits: nobody shared");
    let found = world.reopened();
    assert_eq!(found.revision, (THREADS * EACH) as u64);
    let mut names: Vec<usize> = found
        .accounts
        .iter()
        .map(|a| a.name.parse().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, (0..THREADS * EACH).collect::<Vec<_>>());
}

#[test]
fn what_the_store_does_not_take_is_neither_shown_nor_built_upon() {
    let world = World::new();
    let put = |name: &str| {
        world.objects.write(now(), |transaction| {
            transaction.put(account(name));
            Ok(transaction.snapshot().accounts.len())
        })
    };
    assert_eq!(put("first").unwrap(), (1, 1));
    world.is_broken.store(true, Ordering::SeqCst);
    assert!(put("lost").is_err());
    assert_eq!(world.objects.snapshot().accounts.len(), 1);
    assert_eq!(*world.objects.revision().borrow(), 1);
    world.is_broken.store(false, Ordering::SeqCst);
    assert_eq!(put("second").unwrap(), (2, 2));
    let found = world.reopened();
    let mut names: Vec<&str> = found.accounts.iter().map(|a| a.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["first", "second"]);
}

proptest! {
    #[test]
    fn changes_between_two_tables_are_what_a_comparison_object_by_object_finds(
        before in prop::collection::vec((0_u128..400, 0_u8..3), 0..300),
        after in prop::collection::vec((0_u128..400, 0_u8..4), 0..60),
    ) {
        let put = |snapshot: &mut Snapshot, id: u128, value: u8| {
            let id: HexId = format!("{id:032x}").parse().unwrap();
            if value == 3 {
                snapshot.delete::<Account>(&id);
            } else {
                snapshot.put(Account { id, name: value.to_string(), created_on: now() });
            }
        };
        let mut old = Snapshot::default();
        before.into_iter().for_each(|(id, value)| put(&mut old, id, value));
        let mut new = old.clone();
        after.into_iter().for_each(|(id, value)| put(&mut new, id, value));
        let all = |of: &Snapshot| -> BTreeMap<HexId, Arc<Account>> {
            of.accounts.iter().map(|a| (a.id, Arc::clone(a))).collect()
        };
        let mut replayed = all(&old);
        for change in old.accounts.changes(&new.accounts) {
            let id = change.both().next().unwrap().id;
            prop_assert_eq!(replayed.get(&id), change.old);
            match change.new {
                Some(object) => replayed.insert(id, Arc::clone(object)),
                None => replayed.remove(&id),
            };
        }
        prop_assert_eq!(replayed, all(&new));
    }
}
