//! What a control plane knows of the nodes that it tells.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dataplane::id::{TunnelId, VnetId};
use dataplane::node::TunnelStatus;
use dataplane::program::Key;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::apply;
use super::message::{REASON_BYTES_MAX, REFUSED_MAX, Refused};
use crate::model::Timestamp;
use crate::status::{NodeSeen, NodeStatus};
use crate::store::{Objects, Snapshot};

/// Snapshots that are kept, so that a node that was away for a moment gets what changed meanwhile.
const HISTORY_MAX: usize = 256;

/// How long they are kept: what was deleted since takes memory as long.
const HISTORY_AGE: Duration = Duration::from_secs(120);

/// A node that owes an acknowledgement for longer is not waited for.
const PROMPT: Duration = Duration::from_secs(1);

/// The nodes, as far as they were seen since the start. Clones share one state.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: Arc<Objects>,
    epoch: Uuid,
    state: Mutex<State>,
    /// Old snapshots, oldest first; what they share with the newest costs nothing.
    history: Mutex<VecDeque<(Instant, Arc<Snapshot>)>>,
    /// The step that was encoded last: nodes that keep up all get the same.
    encoded: Mutex<Option<Encoded>>,
}

#[derive(Debug)]
struct Encoded {
    base: u64,
    revision: u64,
    frame: Arc<[u8]>,
}

#[derive(Debug, Default)]
struct State {
    /// By name; as many as there are nodes.
    nodes: BTreeMap<String, Seen>,
    sessions: u64,
}

#[derive(Debug)]
struct Seen {
    node: NodeSeen,
    /// Which session is the node's.
    session: u64,
    /// Tells that session that another one is.
    replaced: watch::Sender<bool>,
    /// Since when the node owes an acknowledgement.
    owes_since: Option<Instant>,
    /// What its tunnels do, as it said last, and what has arrived of the next report.
    tunnels: BTreeMap<TunnelId, TunnelStatus>,
    arriving: BTreeMap<TunnelId, TunnelStatus>,
}

/// A session's place in the fleet.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) fleet: Fleet,
    pub(super) name: String,
    session: u64,
    /// Becomes true when the node has come again by another connection.
    pub(super) replaced: watch::Receiver<bool>,
}

impl Fleet {
    pub(super) fn new(objects: Arc<Objects>) -> Fleet {
        Fleet(Arc::new(Inner {
            objects,
            epoch: Uuid::new_v4(),
            state: Mutex::default(),
            history: Mutex::default(),
            encoded: Mutex::default(),
        }))
    }

    /// Names this start of the control plane.
    pub(super) fn epoch(&self) -> Uuid {
        self.0.epoch
    }

    pub(super) fn objects(&self) -> &Objects {
        &self.0.objects
    }

    /// A node has connected. A connection that it had before ends.
    pub(super) fn enter(&self, name: &str, address: SocketAddr) -> Place {
        let mut state = self.state();
        state.sessions += 1;
        let session = state.sessions;
        let (replaced, receiver) = watch::channel(false);
        let now = now();
        let before = state.nodes.remove(name);
        if let Some(before) = &before {
            before.replaced.send_replace(true);
        }
        let mut node = before.map_or_else(
            || NodeSeen {
                name: name.to_owned(),
                address,
                connected_since: None,
                heard_at: now,
                acknowledged_revision: 0,
                acknowledged_at: None,
                rejected: Vec::new(),
                rejected_total: 0,
            },
            |before| before.node,
        );
        node.address = address;
        node.connected_since = Some(now);
        node.heard_at = now;
        let seen = Seen {
            node,
            session,
            replaced,
            owes_since: None,
            tunnels: BTreeMap::new(),
            arriving: BTreeMap::new(),
        };
        state.nodes.insert(name.to_owned(), seen);
        Place {
            fleet: self.clone(),
            name: name.to_owned(),
            session,
            replaced: receiver,
        }
    }

    /// The nodes that are connected.
    pub(super) fn connected(&self) -> Vec<String> {
        let state = self.state();
        let nodes = state.nodes.values().map(|seen| &seen.node);
        let connected = nodes.filter(|node| node.connected_since.is_some());
        connected.map(|node| node.name.clone()).collect()
    }

    /// Keeps the newest snapshot, and forgets what is too old and who is gone.
    pub(super) fn remember(&self, newest: Arc<Snapshot>) {
        let is_known = |name: &String| newest.nodes.get(name).is_some();
        self.state().nodes.retain(|name, _| is_known(name));
        let now = Instant::now();
        let mut history = self
            .0
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if history
            .back()
            .is_none_or(|(_, last)| last.revision < newest.revision)
        {
            history.push_back((now, newest));
        }
        let is_old = |since: Instant| now.saturating_duration_since(since) > HISTORY_AGE;
        while history.len() > HISTORY_MAX || history.front().is_some_and(|(at, _)| is_old(*at)) {
            history.pop_front();
        }
    }

    /// The snapshot of a revision, if it is still there.
    pub(super) fn recall(&self, revision: u64) -> Option<Arc<Snapshot>> {
        let history = self
            .0
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let place = history.binary_search_by_key(&revision, |(_, snapshot)| snapshot.revision);
        let found = place.ok().and_then(|place| history.get(place));
        found.map(|(_, snapshot)| Arc::clone(snapshot))
    }

    /// The frame of a step, if it is the one that was encoded last.
    pub(super) fn encoded(&self, base: u64, revision: u64) -> Option<Arc<[u8]>> {
        let encoded = self
            .0
            .encoded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let found = encoded.as_ref();
        let found = found.filter(|last| (last.base, last.revision) == (base, revision));
        found.map(|last| Arc::clone(&last.frame))
    }

    /// Keeps the frame of a step for the next node that needs it.
    pub(super) fn keep(&self, base: u64, revision: u64, frame: &Arc<[u8]>) {
        let mut encoded = self
            .0
            .encoded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *encoded = Some(Encoded {
            base,
            revision,
            frame: Arc::clone(frame),
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The node said something.
    pub(super) fn heard(&self) {
        self.with(|_| {});
    }

    /// A step is on its way to the node.
    pub(super) fn told(&self) {
        self.with(|seen| _ = seen.owes_since.get_or_insert_with(Instant::now));
    }

    /// The node has taken everything up to a revision, but for some objects; `is_all` when that is all it
    /// was told.
    pub(super) fn acknowledged(
        &self,
        revision: u64,
        refused: Vec<Refused>,
        total: usize,
        is_all: bool,
    ) {
        self.with(|seen| {
            seen.owes_since = match is_all {
                true => None,
                false => Some(Instant::now()),
            };
            seen.node.acknowledged_revision = revision;
            seen.node.acknowledged_at = Some(now());
            let within = refused.into_iter().take(REFUSED_MAX);
            let fits =
                |one: &Refused| one.object.len().max(one.reason.len()) <= 2 * REASON_BYTES_MAX;
            let rejected = within.filter(fits).map(|one| (one.object, one.reason));
            seen.node.rejected = rejected.collect();
            seen.node.rejected_total = total.max(seen.node.rejected.len());
        });
    }

    /// The node said what its tunnels do. One that does not exist is not kept, so there are as many as exist.
    pub(super) fn reported(&self, tunnels: Vec<TunnelStatus>, is_last: bool) {
        let snapshot = self.fleet.objects().snapshot();
        let exists = |one: &TunnelStatus| snapshot.indexes.tunnels.contains_key(&one.id);
        self.with(|seen| {
            let tunnels = tunnels.into_iter().filter(exists);
            seen.arriving.extend(tunnels.map(|one| (one.id, one)));
            if is_last {
                seen.tunnels = std::mem::take(&mut seen.arriving);
            }
        });
    }

    fn with(&self, change: impl FnOnce(&mut Seen)) {
        let mut state = self.fleet.state();
        let seen = state.nodes.get_mut(&self.name);
        if let Some(seen) = seen.filter(|seen| seen.session == self.session) {
            seen.node.heard_at = now();
            change(seen);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.fleet.state();
        let seen = state.nodes.get_mut(&self.name);
        if let Some(seen) = seen.filter(|seen| seen.session == self.session) {
            seen.node.connected_since = None;
            seen.owes_since = None;
            seen.tunnels.clear();
            seen.arriving.clear();
        }
    }
}

impl NodeStatus for Fleet {
    /// A tunnel that ends on several nodes is as good as on the best of them, and has carried what it did on
    /// all.
    fn tunnels(&self) -> Vec<TunnelStatus> {
        let state = self.state();
        let mut all: BTreeMap<TunnelId, TunnelStatus> = BTreeMap::new();
        for status in state.nodes.values().flat_map(|seen| seen.tunnels.values()) {
            match all.entry(status.id) {
                Entry::Vacant(place) => _ = place.insert(status.clone()),
                Entry::Occupied(mut place) => merge(place.get_mut(), status),
            }
        }
        all.into_values().collect()
    }

    fn rejected(&self) -> Vec<(Key, String)> {
        let snapshot = self.0.objects.snapshot();
        let state = self.state();
        let mut rejected = Vec::new();
        for Seen { node, .. } in state.nodes.values() {
            for (object, reason) in &node.rejected {
                let key = apply::key_of(&snapshot, object);
                rejected.extend(key.map(|key| (key, format!("{}: {reason}", node.name))));
            }
        }
        rejected
    }

    fn sources(&self) -> Vec<(VnetId, IpAddr)> {
        Vec::new()
    }

    /// What all nodes have taken that are connected and not late.
    fn applied_revision(&self) -> u64 {
        let state = self.state();
        let prompt = state.nodes.values().filter(|seen| {
            seen.node.connected_since.is_some()
                && seen.owes_since.is_none_or(|since| since.elapsed() < PROMPT)
        });
        let revisions = prompt.map(|seen| seen.node.acknowledged_revision);
        revisions.min().unwrap_or(u64::MAX)
    }

    fn nodes(&self) -> Vec<NodeSeen> {
        let state = self.state();
        state.nodes.values().map(|seen| seen.node.clone()).collect()
    }
}

fn merge(known: &mut TunnelStatus, other: &TunnelStatus) {
    let rank = |status: &TunnelStatus| {
        let secs = status.last_handshake_secs.unwrap_or(u64::MAX);
        (status.is_up, std::cmp::Reverse(secs))
    };
    let mut sum = match rank(known) >= rank(other) {
        true => known.clone(),
        false => other.clone(),
    };
    sum.tx_packets = known.tx_packets.saturating_add(other.tx_packets);
    sum.tx_bytes = known.tx_bytes.saturating_add(other.tx_bytes);
    sum.rx_packets = known.rx_packets.saturating_add(other.rx_packets);
    sum.rx_bytes = known.rx_bytes.saturating_add(other.rx_bytes);
    sum.dropped_packets = known.dropped_packets.saturating_add(other.dropped_packets);
    *known = sum;
}

fn now() -> Timestamp {
    Timestamp::new(OffsetDateTime::now_utc())
}
