//! Which edge has which slice: given to a node when it connects, and prolonged while it stays. An edge that is
//! a control plane itself takes the one of its configuration, by the same rules.

use std::net::SocketAddr;

use dataplane::source::RANGE_V4;
use ipnet::Ipv4Net;

use crate::model::lease::{Lease, SLICES, Terms, slice};
use crate::model::node::Node;
use crate::model::{Refusal, Timestamp};
use crate::store::{Objects, Snapshot, StoreError, Transaction, WriteError};

/// Code of the refusal when no slice is left.
const NONE_LEFT: u32 = 1_005;

/// Code of the refusal when a slice is another's.
const TAKEN: u32 = 1_006;

/// How often a change of others, in a shared store, may come between.
const TRIES: u32 = 20;

/// Who is to have a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The name, for people.
    pub(crate) name: String,
    /// What it is known by: [`Lease::certificate_sha256`].
    pub(crate) id: String,
    /// The slice that it has to be; `None` is any.
    pub(crate) slice: Option<Ipv4Net>,
    /// Where it takes others' packets.
    pub(crate) relay: Relay,
}

/// What a holder says of its relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relay {
    /// Nothing: it is as it was.
    Unsaid,
    /// It takes packets at this address, or none.
    Said(Option<SocketAddr>),
}

impl Holder {
    pub(super) fn node(node: &Node, relay: Relay) -> Holder {
        Holder {
            name: node.name.clone(),
            id: node.certificate_sha256.clone(),
            slice: None,
            relay,
        }
    }

    /// Its lease, whether its time is over or not.
    pub(crate) fn lease<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Lease> {
        match self.slice {
            None => of(snapshot, &self.id),
            Some(slice) => {
                let lease = snapshot.leases.get(&slice).map(|lease| &**lease);
                lease.filter(|lease| lease.certificate_sha256 == self.id)
            }
        }
    }

    /// Whether there is nothing to write: it has its slice for long enough, and its relay is known.
    fn is_content(&self, snapshot: &Snapshot, now: Timestamp, terms: Terms) -> bool {
        self.lease(snapshot).is_some_and(|lease| {
            let is_known = match self.relay {
                Relay::Unsaid => true,
                Relay::Said(relay) => relay == lease.relay,
            };
            is_known && !lease.is_due(now, terms)
        })
    }
}

/// The slice of the node that has this certificate, whether its time is over or not.
pub(crate) fn of<'a>(snapshot: &'a Snapshot, certificate_sha256: &str) -> Option<&'a Lease> {
    let leases = snapshot.leases.iter().map(|lease| &**lease);
    leases
        .filter(|lease| lease.certificate_sha256 == certificate_sha256)
        .max_by_key(|lease| lease.until)
}

/// Gives the holder a slice, or prolongs the one that it has unless there is time, and writes down its relay.
/// Blocks.
///
/// # Errors
/// When all slices are others', or the one that it must be; or the store fails.
pub(crate) fn grant(
    objects: &Objects,
    holder: &Holder,
    now: Timestamp,
    terms: Terms,
) -> Result<(), WriteError> {
    let mut tries = 0;
    loop {
        if holder.is_content(&objects.snapshot(), now, terms) {
            return Ok(());
        }
        match objects.write(now, |transaction| put(transaction, holder, terms)) {
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

fn put(transaction: &mut Transaction, holder: &Holder, terms: Terms) -> Result<(), Refusal> {
    let now = transaction.now();
    let snapshot = transaction.snapshot();
    // After its end it is still nobody else's until it is given away, which makes it another lease.
    let own = holder.lease(snapshot).cloned();
    let slice = match (&own, holder.slice) {
        (Some(lease), _) => lease.slice,
        (None, Some(slice)) => {
            check_free(snapshot, slice, now, terms)?;
            slice
        }
        (None, None) => free(snapshot, now, terms).ok_or_else(|| {
            let message = format!(
                "All {SLICES} slices of {RANGE_V4} are leased or in quarantine: delete nodes that are \
                 gone, and wait."
            );
            Refusal::conflict(NONE_LEFT, message)
        })?,
    };
    let relay = match holder.relay {
        Relay::Said(relay) => relay,
        Relay::Unsaid => own.as_ref().and_then(|lease| lease.relay),
    };
    let is_due = own.as_ref().is_none_or(|lease| lease.is_due(now, terms));
    let until = own.as_ref().filter(|_| !is_due).map(|lease| lease.until);
    transaction.put(Lease {
        slice,
        node: holder.name.clone(),
        certificate_sha256: holder.id.clone(),
        since: own.map_or(now, |lease| lease.since),
        until: until.unwrap_or_else(|| now.after(terms.lease)),
        relay,
    });
    Ok(())
}

/// Whether nobody has a part of a slice, which may be larger or smaller than those that are leased.
///
/// # Errors
/// Who has it, and which slice is free.
pub(crate) fn check_free(
    snapshot: &Snapshot,
    wanted: Ipv4Net,
    now: Timestamp,
    terms: Terms,
) -> Result<(), Refusal> {
    let mut leases = snapshot.leases.iter();
    let overlaps = |slice: Ipv4Net| slice.contains(&wanted) || wanted.contains(&slice);
    let Some(other) = leases.find(|lease| overlaps(lease.slice) && !lease.is_free(now, terms))
    else {
        return Ok(());
    };
    let advice = match free(snapshot, now, terms) {
        Some(slice) => format!("{slice} is free"),
        None => "none is free".to_owned(),
    };
    let message = format!(
        "slice {wanted}: {} is leased to {}, and nobody else's until its lease has ended and its \
         quarantine is over: {advice}.",
        other.slice, other.node
    );
    Err(Refusal::conflict(TAKEN, message).at("slice"))
}

/// A slice that nobody ever had, else the one that is free for longest.
fn free(snapshot: &Snapshot, now: Timestamp, terms: Terms) -> Option<Ipv4Net> {
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

    fn node(name: &str) -> Holder {
        Holder {
            name: name.to_owned(),
            id: name.to_owned(),
            slice: None,
            relay: Relay::Unsaid,
        }
    }

    /// An edge that is a control plane itself.
    fn edge(name: &str, number: u32) -> Holder {
        Holder {
            slice: Some(slice(number)),
            ..node(name)
        }
    }

    fn objects(directory: &Directory) -> std::sync::Arc<Objects> {
        let store = Embedded::open(&directory.0.join("store")).unwrap();
        Objects::load(Box::new(store)).unwrap()
    }

    fn slice_of(objects: &Objects, node: &str) -> Option<String> {
        of(&objects.snapshot(), node).map(|lease| lease.slice.to_string())
    }

    #[test]
    fn a_slice_is_kept_prolonged_and_given_on_only_after_quarantine() {
        let directory = Directory::new();
        let objects = objects(&directory);
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
        let objects = objects(&directory);
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

    #[test]
    fn a_relay_that_changes_is_written_at_once_and_leaves_the_lease_as_it_is() {
        let directory = Directory::new();
        let objects = objects(&directory);
        let said = |relay: Option<&str>| Holder {
            relay: Relay::Said(relay.map(|address| address.parse().unwrap())),
            ..node("fra1")
        };
        let grant = |holder: &Holder, secs| {
            grant(&objects, holder, at(secs), TERMS).unwrap();
            let snapshot = objects.snapshot();
            let lease = of(&snapshot, "fra1").unwrap().clone();
            let relay = lease.relay.map(|relay| relay.to_string());
            (relay, lease.until, snapshot.revision)
        };
        let (first, second) = ("192.0.2.1:6081", "192.0.2.2:6081");
        assert_eq!(grant(&node("fra1"), 0), (None, at(1000), 1));
        let has = |address: &str, until, revision| (Some(address.to_owned()), at(until), revision);
        assert_eq!(grant(&said(Some(first)), 1), has(first, 1000, 2));
        assert_eq!(grant(&said(Some(first)), 2), has(first, 1000, 2));
        assert_eq!(grant(&said(Some(second)), 3), has(second, 1000, 3));
        // What prolongs it knows nothing of relays.
        assert_eq!(grant(&node("fra1"), 600), has(second, 1600, 4));
        assert_eq!(grant(&said(None), 601), (None, at(1600), 5));
    }

    #[test]
    fn the_slice_of_an_edge_that_is_a_control_plane_is_no_nodes() {
        let directory = Directory::new();
        let objects = objects(&directory);
        let grant = |holder: &Holder, secs| grant(&objects, holder, at(secs), TERMS);
        grant(&edge("own", 0), 0).unwrap();
        grant(&node("fra1"), 0).unwrap();
        let has = |holder: &Holder| Some(holder.lease(&objects.snapshot())?.slice);
        assert_eq!(has(&edge("own", 0)), Some(slice(0)));
        assert_eq!(has(&node("fra1")), Some(slice(1)));
        // Nor another edge's; who has it, and what is free, is said.
        for secs in [1, 1099] {
            let refused = grant(&edge("second", 0), secs).unwrap_err().to_string();
            assert!(refused.contains("is leased to own"), "{refused}");
            assert!(refused.contains("100.64.32.0/20 is free"), "{refused}");
        }
        let refused = grant(&edge("second", 1), 1).unwrap_err().to_string();
        assert!(refused.contains("is leased to fra1"), "{refused}");
        // It is prolonged as others are, and given on after quarantine only.
        grant(&edge("own", 0), 600).unwrap();
        assert!(grant(&edge("second", 0), 1600 + 99).is_err());
        grant(&edge("second", 0), 1600 + 100).unwrap();
        assert_eq!(has(&edge("own", 0)), None);
    }

    #[test]
    fn a_larger_slice_is_taken_when_a_part_of_it_is() {
        let directory = Directory::new();
        let objects = objects(&directory);
        grant(&objects, &edge("own", 3), at(0), TERMS).unwrap();
        let snapshot = objects.snapshot();
        for (net, is_free) in [
            ("100.64.0.0/12", false),
            ("100.64.48.0/24", false),
            ("100.64.0.0/19", true),
        ] {
            let checked = check_free(&snapshot, net.parse().unwrap(), at(0), TERMS);
            assert_eq!(checked.is_ok(), is_free, "{net}");
        }
    }
}
