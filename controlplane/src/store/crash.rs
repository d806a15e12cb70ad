//! A process that writes is killed at random moments: nothing that it acknowledged is missing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Embedded, Objects};
use crate::model::account::Account;
use crate::model::{HexId, Timestamp};
use crate::scratch::Directory;

const DIRECTORY: &str = "PORTCULLIS_CRASH_TEST_DIRECTORY";
const KILLS: u32 = 25;

fn open(directory: &Path) -> Objects {
    let store = Embedded::open(&directory.join("store.redb")).unwrap();
    Objects::load(Box::new(store)).unwrap()
}

/// The child: acknowledges each pair of accounts on standard output once it is durable.
#[test]
fn child_of_the_crash_test_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let objects = open(Path::new(&directory));
    let now = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
    loop {
        let pair = [HexId::random(), HexId::random()];
        let made = objects.write(now, |transaction| {
            for id in pair {
                let name = pair[0].to_string();
                transaction.put(Account {
                    id,
                    name,
                    created_on: now,
                });
            }
            Ok(())
        });
        made.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nack {} {}", pair[0], pair[1]).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_missing_after_kill_9_and_no_transaction_is_half_there() {
    let directory = Directory::new();
    let mut acknowledged: Vec<[HexId; 2]> = Vec::new();
    for round in 0..KILLS {
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
        let wanted =
            acknowledged.len() + 1 + usize::from(HexId::random().to_string().as_bytes()[0] % 16);
        let mut is_killed = false;
        for line in lines.map_while(Result::ok) {
            if let Some(ids) = line.strip_prefix("ack ") {
                let (a, b) = ids.split_once(' ').unwrap();
                acknowledged.push([a.parse().unwrap(), b.parse().unwrap()]);
            }
            if acknowledged.len() >= wanted && !is_killed {
                is_killed = true;
                // The moment itself varies: the child goes on writing while this line runs.
                std::hint::black_box((0..u64::from(round) * 4_000).sum::<u64>());
                child.kill().unwrap();
            }
        }
        assert!(is_killed, "the child ended by itself in round {round}");
        child.wait().unwrap();
        let objects = open(&directory.0);
        let snapshot = objects.snapshot();
        for id in acknowledged.iter().flatten() {
            assert!(
                snapshot.accounts.get(id).is_some(),
                "{id} is missing after round {round}"
            );
        }
        let mut of_pair = std::collections::BTreeMap::new();
        for account in snapshot.accounts.iter() {
            *of_pair.entry(account.name.clone()).or_insert(0) += 1;
        }
        assert!(
            of_pair.values().all(|count| *count == 2),
            "half a transaction in round {round}"
        );
        assert_eq!(snapshot.revision, of_pair.len() as u64);
    }
    assert!(acknowledged.len() >= 25);
}
