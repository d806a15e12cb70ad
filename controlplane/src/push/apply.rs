//! The node's side: steps become the node's objects, one bad object at a time left out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dataplane::program::{Key, RouteKey};
use uuid::Uuid;

use super::message::{REFUSED_MAX, Refused, Step};
use crate::model::Resource as _;
use crate::model::lease::Lease;
use crate::model::route::Route;
use crate::model::tunnel::Tunnel;
use crate::model::vnet::Vnet;
use crate::status::Progress;
use crate::store::{Objects, Snapshot, StoreError, Write};

/// Steps that may wait for the node's tables: more than a control plane sends ahead.
const PENDING_MAX: usize = 64;

/// What steps have made of the node's objects.
#[derive(Debug)]
pub(super) struct Intake {
    objects: Arc<Objects>,
    /// What the control plane and we agree that we have: which start of it, and its revision.
    has: Option<(Uuid, u64)>,
    /// The step whose parts are arriving.
    arriving: Option<Arriving>,
    /// Objects that cannot be read, and why: kept as they were before.
    unreadable: BTreeMap<String, String>,
    /// Revisions here that wait for the tables, each with the control plane's.
    pending: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
struct Arriving {
    base: Option<u64>,
    revision: u64,
    snapshot: Snapshot,
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// More of the step is to come.
    Part,
    /// The step is done.
    Done,
    /// It does not fit what we have.
    Gap(String),
}

/// The control plane does what was not agreed.
#[derive(Debug, thiserror::Error)]
#[error("the control plane sends more than {PENDING_MAX} steps ahead of what it was told")]
pub(super) struct TooFarAhead;

impl Intake {
    pub(super) fn new(objects: Arc<Objects>) -> Intake {
        Intake {
            objects,
            has: None,
            arriving: None,
            unreadable: BTreeMap::new(),
            pending: VecDeque::new(),
        }
    }

    /// What we have, for a greeting; what was not whole when the connection broke is forgotten, and
    /// acknowledgements are owed to nobody.
    pub(super) fn begin(&mut self) -> Option<(Uuid, u64)> {
        self.arriving = None;
        self.pending.clear();
        self.has
    }

    /// The control plane named its start: what we have of another is not its.
    pub(super) fn welcome(&mut self, epoch: Uuid) {
        if self.has.is_some_and(|(known, _)| known != epoch) {
            self.has = None;
        }
    }

    /// Takes a part of a step.
    pub(super) fn take(&mut self, epoch: Uuid, step: Step<'_>) -> Result<Taken, TooFarAhead> {
        let known = self.objects.snapshot();
        if let Some(base) = step.base
            && self.has != Some((epoch, base))
        {
            self.arriving = None;
            return Ok(Taken::Gap(format!(
                "a step leads from revision {base}, and the node has {:?}",
                self.has
            )));
        }
        let arriving = self.arriving.take();
        let is_next = |it: &Arriving| (it.base, it.revision) == (step.base, step.revision);
        let mut arriving = arriving.filter(is_next).unwrap_or_else(|| Arriving {
            base: step.base,
            revision: step.revision,
            snapshot: match step.base {
                Some(_) => (*known).clone(),
                None => {
                    self.unreadable.clear();
                    Snapshot::default()
                }
            },
        });
        for change in step.writes {
            let write = Write {
                key: change.key.into_owned(),
                value: change.value.map(|json| json.get().as_bytes().to_vec()),
            };
            self.write(&mut arriving.snapshot, &write);
        }
        if !step.is_last {
            self.arriving = Some(arriving);
            return Ok(Taken::Part);
        }
        if self.pending.len() >= PENDING_MAX {
            return Err(TooFarAhead);
        }
        self.finish(&known, arriving);
        self.has = Some((epoch, step.revision));
        Ok(Taken::Done)
    }

    fn write(&mut self, snapshot: &mut Snapshot, write: &Write) {
        match snapshot.take_in(write) {
            Ok(()) => _ = self.unreadable.remove(&write.key),
            Err(why) => {
                let reason = match &why {
                    StoreError::Unreadable {
                        source: Some(source),
                        ..
                    } => format!("it cannot be read: {source}"),
                    StoreError::Unreadable { source: None, .. } => {
                        "this version does not know such an object".to_owned()
                    }
                    StoreError::Stale { .. }
                    | StoreError::TooLarge { .. }
                    | StoreError::WrongKey { .. }
                    | StoreError::Failed(_) => why.to_string(),
                };
                tracing::warn!(object = write.key, reason, "an object cannot be taken");
                self.unreadable.insert(write.key.clone(), reason);
            }
        }
    }

    fn finish(&mut self, known: &Snapshot, arrived: Arriving) {
        let is_all = arrived.base.is_none();
        let mut snapshot = arrived.snapshot;
        let mut differs = true;
        if is_all {
            for key in self.unreadable.keys() {
                snapshot.keep(key, known);
            }
            (snapshot, differs) = known.reconciled(&snapshot);
        }
        // Revisions here only grow. The control plane's fall when it was restored from a backup.
        let local = match arrived.revision > known.revision {
            true => arrived.revision,
            false => known.revision + u64::from(differs),
        };
        if local > known.revision {
            snapshot.revision = local;
            self.objects.receive(snapshot);
        }
        self.pending.push_back((local, arrived.revision));
    }

    /// The control plane's revision that the tables have reached, when it is another than before.
    pub(super) fn reached(&mut self, progress: &Progress) -> Option<u64> {
        let mut reached = None;
        while let Some((local, revision)) = self.pending.front()
            && *local <= progress.revision
        {
            reached = Some(*revision);
            self.pending.pop_front();
        }
        reached
    }

    /// The objects that were not taken, at most [`REFUSED_MAX`], and how many there are.
    pub(super) fn refused(&self, progress: &Progress) -> (Vec<Refused>, usize) {
        let snapshot = self.objects.snapshot();
        let unreadable = self.unreadable.iter();
        let unreadable = unreadable.map(|(key, why)| Refused::new(key.clone(), why.clone()));
        let rejected = progress.rejected.iter();
        let rejected =
            rejected.map(|(key, why)| Refused::new(name_of(&snapshot, key), why.clone()));
        let total = self.unreadable.len() + progress.rejected.len();
        (
            unreadable.chain(rejected).take(REFUSED_MAX).collect(),
            total,
        )
    }
}

/// The stored object that a node's key stands for.
fn name_of(snapshot: &Snapshot, key: &Key) -> String {
    let indexes = &snapshot.indexes;
    let found = match key {
        Key::Vnet(id) => indexes.vnets.get(id).map(|id| (Vnet::KIND, *id)),
        Key::Tunnel(id) => indexes.tunnels.get(id).map(|id| (Tunnel::KIND, *id)),
        Key::Route(RouteKey { vnet, prefix }) => {
            let vnet = indexes.vnets.get(vnet);
            let route = vnet.and_then(|vnet| indexes.rib.exact(*vnet, prefix));
            route.map(|id| (Route::KIND, id))
        }
        Key::Relay(slice) => return format!("{}/{slice}", Lease::KIND),
    };
    match found {
        Some((kind, id)) => format!("{kind}/{id}"),
        None => format!("{key:?}"),
    }
}

/// The other way round; `None` for what nodes have no key for.
pub(super) fn key_of(snapshot: &Snapshot, object: &str) -> Option<Key> {
    let (kind, id) = object.split_once('/')?;
    if kind == Lease::KIND {
        return id.parse().ok().map(Key::Relay);
    }
    let id: Uuid = id.parse().ok()?;
    if kind == Vnet::KIND {
        return Some(Key::Vnet(snapshot.vnets.get(&id)?.number));
    }
    if kind == Tunnel::KIND {
        return Some(Key::Tunnel(snapshot.tunnels.get(&id)?.number));
    }
    if kind == Route::KIND {
        let route = snapshot.routes.get(&id)?;
        let vnet = snapshot.vnets.get(&route.virtual_network_id)?.number;
        return Some(Key::Route(RouteKey {
            vnet,
            prefix: route.network,
        }));
    }
    None
}
