//! Transactions at once, failures of the store, and what changed between two snapshots.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use proptest::prelude::*;

use super::etcd_tests::Server;
use super::{
    Each, Embedded, Followed, Objects, Snapshot, Store, StoreError, Transaction, Write, backup,
};
use crate::model::account::Account;
use crate::model::audit::{Actor, CHANGES_KEPT_MAX, CHANGES_MAX};
use crate::model::{HexId, Timestamp};
use crate::scratch::Directory;

pub(super) fn now() -> Timestamp {
    Timestamp::new(time::OffsetDateTime::UNIX_EPOCH)
}

pub(super) fn account(name: &str) -> Account {
    Account {
        id: HexId::random(),
        name: name.to_owned(),
        created_on: now(),
    }
}

/// A store that counts commits, and fails when told to.
struct Watched {
    inner: Box<dyn Store>,
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

    fn replace(&self, revision: u64, writes: &[Write]) -> Result<(), StoreError> {
        self.inner.replace(revision, writes)
    }

    fn writes_max(&self) -> usize {
        self.inner.writes_max()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn load_to_follow(&self, each: Each<'_>) -> Result<u64, StoreError> {
        self.inner.load_to_follow(each)
    }

    fn next(&self) -> Result<Option<Followed>, StoreError> {
        self.inner.next()
    }
}

/// A place where a store is, for as long as the test takes.
pub(super) enum Place {
    Embedded(Directory),
    Etcd(Server),
}

impl Place {
    /// One of each kind: what is said of a store holds for both.
    fn all() -> [Place; 2] {
        [
            Place::Embedded(Directory::new()),
            Place::Etcd(Server::start()),
        ]
    }

    fn open(&self) -> Box<dyn Store> {
        match self {
            Place::Embedded(directory) => {
                Box::new(Embedded::open(&directory.0.join("store.redb")).unwrap())
            }
            Place::Etcd(server) => Box::new(server.open()),
        }
    }
}

struct World {
    objects: Arc<Objects>,
    commits: Arc<AtomicUsize>,
    is_broken: Arc<AtomicBool>,
    place: Place,
}

impl World {
    fn new(place: Place) -> World {
        let store = Watched {
            inner: place.open(),
            commits: Arc::default(),
            is_broken: Arc::default(),
        };
        World {
            commits: Arc::clone(&store.commits),
            is_broken: Arc::clone(&store.is_broken),
            objects: Objects::load(Box::new(store)).unwrap(),
            place,
        }
    }

    /// What a new process would find.
    fn reopened(self) -> Arc<Snapshot> {
        drop(self.objects);
        Objects::load(self.place.open()).unwrap().snapshot()
    }
}

fn write(value: &[u8]) -> Write {
    Write {
        key: "x/1".into(),
        value: Some(value.to_vec()),
    }
}

#[test]
fn a_commit_on_an_old_revision_is_refused() {
    for place in Place::all() {
        let store = place.open();
        store.commit(0, 1, &[&write(b"1")]).unwrap();
        let stale = store.commit(0, 1, &[&write(b"2")]).unwrap_err();
        assert_eq!(stale.to_string(), "the store is at revision 1, not 0");
        let stale = store.commit(7, 8, &[&write(b"2")]).unwrap_err();
        assert_eq!(stale.to_string(), "the store is at revision 1, not 7");
        store.commit(1, 3, &[&write(b"3"), &write(b"4")]).unwrap();
        let mut seen = Vec::new();
        let revision = store.load(&mut |key, value| {
            seen.push((key.to_owned(), value.to_vec()));
            Ok(())
        });
        let expected = vec![("x/1".to_owned(), b"4".to_vec())];
        assert_eq!((revision.unwrap(), seen), (3, expected));
    }
}

#[test]
fn thousands_of_objects_are_read_back_as_they_were_written() {
    for place in Place::all() {
        let store = place.open();
        let writes: Vec<Write> = (0..4_500)
            .map(|n| Write {
                key: format!("x/{n:05}"),
                value: Some(n.to_string().into_bytes()),
            })
            .collect();
        store.replace(9, &writes).unwrap();
        let mut seen = Vec::new();
        let revision = store.load(&mut |key, value| {
            seen.push(Write {
                key: key.to_owned(),
                value: Some(value.to_vec()),
            });
            Ok(())
        });
        assert_eq!(revision.unwrap(), 9);
        assert_eq!(seen, writes);
    }
}

#[test]
fn transactions_at_once_are_each_validated_on_the_ones_before_and_share_commits() {
    const THREADS: usize = 16;
    const EACH: usize = 20;
    for place in Place::all() {
        let world = World::new(place);
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
}

#[test]
fn what_the_store_does_not_take_is_neither_shown_nor_built_upon() {
    for place in Place::all() {
        let world = World::new(place);
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
}

#[test]
fn a_backup_is_restored_whole_above_both_revisions_or_not_at_all() {
    for place in Place::all() {
        let other = Place::Embedded(Directory::new());
        let source = Objects::load(other.open()).unwrap();
        for name in ["one", "two", "three"] {
            let put = |transaction: &mut Transaction| {
                transaction.put(account(name));
                Ok(())
            };
            source.write(now(), put).unwrap();
        }
        let mut file = Vec::new();
        let summary = source.backup(&mut file).unwrap();
        assert_eq!((summary.revision, summary.objects), (3, 3));
        let store = place.open();
        let refused = |file: &[u8], replace: bool| {
            let why = backup::restore(&*store, &mut &*file, replace).unwrap_err();
            why.to_string()
        };
        let text = String::from_utf8(file.clone()).unwrap();
        let damaged = text.replacen("two", "TWO", 1);
        assert!(refused(damaged.as_bytes(), false).contains("checksum"));
        assert!(refused(&file[..file.len() - 150], false).contains("no whole backup"));
        assert!(refused(b"{}", false).contains("no whole backup"));
        store.commit(0, 8, &[&write(b"{}")]).unwrap();
        assert!(refused(&file, false).contains("holds 1 objects at revision 8"));
        let restored = backup::restore(&*store, &mut &*file, true).unwrap();
        assert_eq!(restored.revision, 9);
        drop(store);
        let found = Objects::load(place.open()).unwrap().snapshot();
        let all = |of: &Snapshot| -> Vec<Account> {
            of.accounts
                .iter()
                .map(|account| (**account).clone())
                .collect()
        };
        assert_eq!((found.revision, all(&found)), (9, all(&source.snapshot())));
    }
}

#[test]
fn the_audit_log_is_shortened_when_it_is_a_tenth_too_long_and_keeps_the_newest() {
    let world = World::new(Place::Embedded(Directory::new()));
    let actor = Actor {
        token_id: HexId::random(),
        token_name: "one".to_owned(),
        ip: None,
        method: "POST".to_owned(),
        path: "/accounts".to_owned(),
    };
    let entries = 3 * CHANGES_KEPT_MAX / CHANGES_MAX;
    for _ in 0..entries {
        let many = |transaction: &mut Transaction| {
            (0..CHANGES_MAX + 7).for_each(|_| transaction.put(account("one of many")));
            Ok(())
        };
        world.objects.write_by(Some(&actor), now(), many).unwrap();
        let audited = world.objects.snapshot().indexes.audited;
        assert!(
            audited <= CHANGES_KEPT_MAX + CHANGES_KEPT_MAX / 10,
            "{audited}"
        );
    }
    let shown = world.objects.snapshot();
    assert!(shown.indexes.audited >= CHANGES_KEPT_MAX - CHANGES_MAX);
    let last = shown.audit.last().unwrap();
    assert_eq!((last.number, last.unlisted), (entries as u64, 7));
    let found = world.reopened();
    assert_eq!(found.indexes.audited, shown.indexes.audited);
    assert_eq!(found.audit.first().unwrap(), shown.audit.first().unwrap());
}

/// As version 0.1.0 with schema 1 left it, byte for byte, but for the ids.
#[test]
fn a_store_of_schema_1_opens_and_one_of_a_newer_version_says_so() {
    const OBJECTS: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("objects");
    const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    let directory = Directory::new();
    let path = directory.0.join("store.redb");
    let objects = [
        (
            "account/023e105f4ecef8ad9ca31a8372d0c353",
            r#"{"id":"023e105f4ecef8ad9ca31a8372d0c353","name":"default","created_on":"2026-11-20T10:00:00.123456Z"}"#,
        ),
        ("counter/vnet", r#"{"of":"vnet","last":1}"#),
        (
            "zone/123e105f4ecef8ad9ca31a8372d0c353",
            r#"{"id":"123e105f4ecef8ad9ca31a8372d0c353","account_id":"023e105f4ecef8ad9ca31a8372d0c353","name":"example.com","paused":false,"created_on":"2026-11-20T10:00:00Z","modified_on":"2026-11-20T10:00:00Z"}"#,
        ),
    ];
    let schema = |number: u64| {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(OBJECTS).unwrap();
            for (key, value) in objects {
                table.insert(key, value.as_bytes()).unwrap();
            }
            let mut meta = transaction.open_table(META).unwrap();
            meta.insert("schema", number).unwrap();
            meta.insert("revision", 41).unwrap();
        }
        transaction.commit().unwrap();
    };
    schema(1);
    for _ in 0..2 {
        let objects = Objects::load(Box::new(Embedded::open(&path).unwrap())).unwrap();
        let snapshot = objects.snapshot();
        assert_eq!(snapshot.revision, 41);
        assert!(snapshot.indexes.zones.contains_key("example.com"));
        let counter = snapshot
            .counters
            .get(&crate::model::counter::Numbered::Vnet);
        assert_eq!(counter.unwrap().last, 1);
    }
    schema(99);
    let newer = Embedded::open(&path).unwrap_err().to_string();
    assert!(
        newer.contains("schema 99") && newer.contains("newer portcullis"),
        "{newer}"
    );
    schema(0);
    assert!(Embedded::open(&path).is_err());
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

/// A store of several processes, in which a newer version has put a kind of object that this one does not know.
struct Newer {
    inner: Embedded,
    loads: Arc<AtomicUsize>,
}

impl Store for Newer {
    fn load(&self, each: Each<'_>) -> Result<u64, StoreError> {
        if self.loads.fetch_add(1, Ordering::SeqCst) > 0 {
            each("hologram/1", b"{}")?;
        }
        self.inner.load(each)
    }

    fn commit(&self, after: u64, to: u64, writes: &[&Write]) -> Result<(), StoreError> {
        self.inner.commit(after, to, writes)
    }

    fn replace(&self, revision: u64, writes: &[Write]) -> Result<(), StoreError> {
        self.inner.replace(revision, writes)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn next(&self) -> Result<Option<Followed>, StoreError> {
        Ok(Some(Followed::Lost))
    }
}

/// Each try reads everything: with a million objects that is a second of a core, and there is no end to it.
#[test]
fn a_store_with_objects_of_an_unknown_kind_is_read_again_ever_more_seldom() {
    let directory = Directory::new();
    let inner = Embedded::open(&directory.0.join("newer.redb")).unwrap();
    let loads = Arc::new(AtomicUsize::new(0));
    let store = Newer {
        inner,
        loads: Arc::clone(&loads),
    };
    let begun = time::OffsetDateTime::now_utc();
    let took = || (time::OffsetDateTime::now_utc() - begun).as_seconds_f64();
    let objects = Objects::load(Box::new(store)).unwrap();
    while loads.load(Ordering::SeqCst) < 5 {
        assert!(took() < 60.0, "it is never tried again");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    // Pauses of 0.2, 0.4 and 0.8 seconds are before the fourth try.
    assert!(took() >= 1.35, "{}", took());
    assert_eq!(objects.snapshot().revision, 0);
}
