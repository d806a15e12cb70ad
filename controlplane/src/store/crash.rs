//! A process that writes from several threads is killed at random moments: nothing that it
//! acknowledged is missing, and no transaction is half there.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::{Embedded, Objects, Snapshot};
use crate::model::account::Account;
use crate::model::{HexId, Timestamp};
use crate::scratch::Directory;

const DIRECTORY: &str = "PORTCULLIS_CRASH_TEST_DIRECTORY";

/// How often the process is killed; a night's worth by the environment.
const KILLS: &str = "PORTCULLIS_CRASH_KILLS";
const KILLS_DEFAULT: u32 = 200;

/// Threads that write at once, so that commits are groups.
const WRITERS: u8 = 6;

/// Objects that each transaction makes, beside the writer's count.
const BATCH: u8 = 5;

fn open(directory: &Path) -> Arc<Objects> {
    let store = Embedded::open(&directory.join("store.redb")).unwrap();
    Objects::load(Box::new(store)).unwrap()
}

fn id(writer: u8, member: u8) -> HexId {
    format!("{:032x}", (u16::from(writer) << 8) | u16::from(member))
        .parse()
        .unwrap()
}

fn put(transaction: &mut super::Transaction, id: HexId, name: String) {
    let created_on = transaction.now();
    transaction.put(Account {
        id,
        name,
        created_on,
    });
}

/// The count that a writer has reached; its batch must say the same.
fn count(snapshot: &Snapshot, writer: u8, member: u8) -> u64 {
    let account = snapshot.accounts.get(&id(writer, member));
    account.map_or(0, |account| account.name.parse().unwrap())
}

/// The child: each of its threads counts up, in all objects of its batch at once, and acknowledges a
/// count on standard output once it is durable. Every third time the batch is deleted instead.
#[test]
fn child_of_the_crash_test_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let objects = open(Path::new(&directory));
    let now = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let objects = &objects;
            scope.spawn(move || {
                loop {
                    let made = objects.write(now, |transaction| {
                        let next = count(transaction.snapshot(), writer, 0) + 1;
                        put(transaction, id(writer, 0), next.to_string());
                        for member in 1..=BATCH {
                            match next % 3 {
                                0 => _ = transaction.delete::<Account>(&id(writer, member)),
                                _ => put(transaction, id(writer, member), next.to_string()),
                            }
                        }
                        Ok(next)
                    });
                    let (next, _) = made.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "\nack {writer} {next}").unwrap();
                    out.flush().unwrap();
                }
            });
        }
    });
}

fn random(below: u8) -> u8 {
    u8::from_str_radix(&HexId::random().to_string()[..2], 16).unwrap() % below
}

#[test]
fn nothing_acknowledged_is_missing_after_kill_9_and_no_transaction_is_half_there() {
    let kills = std::env::var(KILLS).ok().and_then(|text| text.parse().ok());
    let directory = Directory::new();
    let mut acknowledged: BTreeMap<u8, u64> = BTreeMap::new();
    let mut spin = 0_u64;
    for round in 0..kills.unwrap_or(KILLS_DEFAULT) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::crash::child_of_the_crash_test_writes_until_it_is_killed",
            ])
            .arg("--nocapture")
            .env(DIRECTORY, &directory.0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The kill falls anywhere in the writes after the n-th acknowledgement.
        let wanted = 1 + random(32);
        let mut seen = 0;
        let mut is_killed = false;
        for line in lines.map_while(Result::ok) {
            if let Some(ack) = line.strip_prefix("ack ") {
                let (writer, count) = ack.split_once(' ').unwrap();
                let (writer, count) = (writer.parse().unwrap(), count.parse().unwrap());
                acknowledged.insert(writer, count);
                seen += 1;
            }
            if seen >= wanted && !is_killed {
                is_killed = true;
                // The moment itself varies: the child goes on writing while this line runs.
                spin = (0..u64::from(random(255)) * 8_000).fold(spin, u64::wrapping_add);
                std::hint::black_box(spin);
                child.kill().unwrap();
            }
        }
        assert!(is_killed, "the child ended by itself in round {round}");
        child.wait().unwrap();
        check(&open(&directory.0).snapshot(), &acknowledged, round);
    }
    assert_eq!(acknowledged.len(), usize::from(WRITERS));
}

fn check(snapshot: &Snapshot, acknowledged: &BTreeMap<u8, u64>, round: u32) {
    let mut transactions = 0;
    for writer in 0..WRITERS {
        let stored = count(snapshot, writer, 0);
        let acknowledged = acknowledged.get(&writer).copied().unwrap_or(0);
        assert!(
            stored >= acknowledged,
            "{acknowledged} of writer {writer} is missing after round {round}: {stored}"
        );
        for member in 1..=BATCH {
            let expected = if stored.is_multiple_of(3) { 0 } else { stored };
            assert_eq!(
                count(snapshot, writer, member),
                expected,
                "half a transaction of writer {writer} in round {round}"
            );
        }
        transactions += stored;
    }
    assert_eq!(snapshot.revision, transactions, "round {round}");
}
