//! Which node has which slice: given to a node when it connects, and prolonged while it stays.

use dataplane::source::RANGE_V4;

use crate::model::lease::{Lease, SLICES, Terms, slice};
use crate::model::node::Node;
use crate::model::{Refusal, Timestamp};
use crate::store::{Objects, Snapshot, StoreError, Transaction, WriteError};

/// Code of the refusal when no slice is left.
const NONE_LEFT: u32 = 1_005;

/// How often a change of others, in a shared store, may come between.
const TRIES: u32 = 20;

/// The slice of the node that has this certificate, whether its time is over or not.
pub(crate) fn of<'a>(snapshot: &'a Snapshot, certificate_sha256: &str) -> Option<&'a Lease> {
    let leases = snapshot.leases.iter().map(|lease| &**lease);
    leases
        .filter(|lease| lease.certificate_sha256 == certificate_sha256)
        .max_by_key(|lease| lease.until)
}

/// Gives the node a slice, or prolongs the one that it has, unless there is time. Blocks.
///
/// # Errors
/// When all slices are others', or the store fails.
pub(super) fn grant(
    objects: &Objects,
    node: &Node,
    now: Timestamp,
    terms: Terms,
) -> Result<(), WriteError> {
    let mut tries = 0;
    loop {
        let snapshot = objects.snapshot();
        if of(&snapshot, &node.certificate_sha256).is_some_and(|lease| !lease.is_due(now, terms)) {
            return Ok(());
        }
        match objects.write(now, |transaction| put(transaction, node, terms)) {
            Ok(_) => return Ok(()),
            Err(WriteError::Store(StoreError::Stale { .. })) if tries < TRIES => {
                tries += 1;
                // The other's commit comes by the store's watch.
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
            Err(why) => return Err(why),
        }
    }
}

fn put(transaction: &mut Transaction, node: &Node, terms: Terms) -> Result<(), Refusal> {
    let now = transaction.now();
    let snapshot = transaction.snapshot();
    let own = of(snapshot, &node.certificate_sha256).cloned();
    // After its end it is still nobody else's until it is given away, which makes it another lease.
    let since = own.as_ref().map(|lease| lease.since);
    let slice = match own {
        Some(lease) => lease.slice,
        None => free(snapshot, now, terms).ok_or_else(|| {
            let message = format!(
                "All {SLICES} slices of {RANGE_V4} are leased or in quarantine: delete nodes that are \
                 gone, and wait."
            );
            Refusal::conflict(NONE_LEFT, message)
        })?,
    };
    transaction.put(Lease {
        slice,
        node: node.name.clone(),
        certificate_sha256: node.certificate_sha256.clone(),
        since: since.unwrap_or(now),
        until: now.after(terms.lease),
    });
    Ok(())
}

/// A slice that nobody ever had, else the one that is free for longest.
fn free(snapshot: &Snapshot, now: Timestamp, terms: Terms) -> Option<ipnet::Ipv4Net> {
    let mut all = (0..SLICES).map(slice);
    if let Some(new) = all.find(|slice| snapshot.leases.get(slice).is_none()) {
        return Some(new);
    }
    let leases = snapshot.leases.iter();
    let free = leases.filter(|lease| lease.is_free(now, terms));
    free.min_by_key(|lease| lease.until)
        .map(|lease| lease.slice)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::scratch::Directory;
    use crate::store::Embedded;

    const TERMS: Terms = Terms {
        lease: Duration::from_secs(1000),
        quarantine: Duration::from_secs(100),
    };

    fn at(secs: u64) -> Timestamp {
        let start = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
        start.after(Duration::from_secs(secs))
    }

    fn node(name: &str) -> Node {
        Node {
            name: name.to_owned(),
            account_id: crate::model::HexId::random(),
            certificate_sha256: name.to_owned(),
            created_on: at(0),
            enrolled_on: at(0),
        }
    }

    fn slice_of(objects: &Objects, node: &str) -> Option<String> {
        of(&objects.snapshot(), node).map(|lease| lease.slice.to_string())
    }

    #[test]
    fn a_slice_is_kept_prolonged_and_given_on_only_after_quarantine() {
        let directory = Directory::new();
        let store = Embedded::open(&directory.0.join("store")).unwrap();
        let objects = Objects::load(Box::new(store)).unwrap();
        let grant = |name: &str, secs| grant(&objects, &node(name), at(secs), TERMS);
        for number in 0..SLICES {
            grant(&format!("n{number}"), 0).unwrap();
        }
        let all: BTreeSet<_> = (0..SLICES)
            .map(|number| slice_of(&objects, &format!("n{number}")).unwrap())
            .collect();
        assert_eq!(all.len(), 256, "each has its own");
        let refused = grant("late", 10).unwrap_err();
        assert!(refused.to_string().contains("All 256 slices"), "{refused}");
        // There is time: nothing is written.
        let revision = objects.snapshot().revision;
        grant("n1", 499).unwrap();
        assert_eq!(objects.snapshot().revision, revision);
        for number in 1..SLICES {
            grant(&format!("n{number}"), 600).unwrap();
        }
        let first = slice_of(&objects, "n0").unwrap();
        for secs in [999, 1000, 1099] {
            assert!(
                grant("late", secs).is_err(),
                "held or in quarantine at {secs}"
            );
        }
        grant("late", 1100).unwrap();
        assert_eq!(slice_of(&objects, "late"), Some(first));
        assert_eq!(slice_of(&objects, "n0"), None);
        assert!(grant("n0", 1101).is_err(), "it is another's");
    }

    #[test]
    fn a_node_that_comes_back_gets_what_it_had_unless_it_was_given_on() {
        let directory = Directory::new();
        let store = Embedded::open(&directory.0.join("store")).unwrap();
        let objects = Objects::load(Box::new(store)).unwrap();
        let grant = |name: &str, secs| grant(&objects, &node(name), at(secs), TERMS).unwrap();
        grant("fra1", 0);
        grant("ams1", 0);
        let before = slice_of(&objects, "fra1");
        grant("fra1", 5000);
        assert_eq!(slice_of(&objects, "fra1"), before);
        let snapshot = objects.snapshot();
        let lease = of(&snapshot, "fra1").unwrap();
        assert_eq!((lease.since, lease.until), (at(0), at(6000)));
    }
}
