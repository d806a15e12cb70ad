//! What is at a name of a zone, wildcards included (RFC 4592).

use std::sync::Arc;

use crate::model::host_name;
use crate::model::record::{Kind, Record};
use crate::model::spectrum::App;
use crate::model::zone::Zone;
use crate::store::Snapshot;

/// What answers for a name.
#[derive(Debug)]
pub(crate) enum Found {
    /// Its own records and apps or, when it does not exist, those of a wildcard. May be none: a name
    /// that only has names below it.
    Node(Node),
    /// Nothing: there is no such name.
    Nothing,
}

/// The records and apps of one name.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) apps: Vec<Arc<App>>,
}

impl Node {
    /// Whether the edge stands in for the name.
    pub(super) fn is_proxied(&self) -> bool {
        !self.apps.is_empty() || self.records.iter().any(|record| record.proxied)
    }

    /// The name's CNAME.
    pub(super) fn cname(&self) -> Option<&Arc<Record>> {
        self.records.iter().find(|r| r.kind == Kind::Cname)
    }
}

/// The zone that a name belongs to: the longest that contains it.
pub(crate) fn zone_of<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<Zone>> {
    let mut names = std::iter::once(name).chain(host_name::parents(name));
    let id = names.find_map(|name| snapshot.indexes.zones.get(name))?;
    snapshot.zones.get(id)
}

/// What answers for `name`, which is in the zone.
pub(crate) fn find(snapshot: &Snapshot, zone: &Zone, name: &str) -> Found {
    let exists = |name: &str| name == zone.name || snapshot.indexes.tree.exists(zone.id, name);
    if exists(name) {
        return Found::Node(at(snapshot, zone, name));
    }
    // The nearest name above that exists decides: no wildcard further up is looked at.
    let mut above = host_name::parents(name);
    let nearest = above.find(|name| exists(name)).unwrap_or(&zone.name);
    let wildcard = format!("*.{nearest}");
    match exists(&wildcard) {
        true => Found::Node(at(snapshot, zone, &wildcard)),
        false => Found::Nothing,
    }
}

/// The topmost name at or above `name`, below the zone's own, whose NS records hand it to others.
pub(crate) fn delegation(snapshot: &Snapshot, zone: &Zone, name: &str) -> Option<String> {
    let names = std::iter::once(name).chain(host_name::parents(name));
    let below = names.take_while(|name| name.len() > zone.name.len());
    let cut = |name: &&str| {
        let mut records = snapshot.records_named(zone.id, name);
        records.any(|record| record.kind == Kind::Ns)
    };
    below.filter(cut).last().map(str::to_owned)
}

/// The records and apps that have exactly this name.
pub(super) fn at(snapshot: &Snapshot, zone: &Zone, name: &str) -> Node {
    let apps = snapshot.indexes.tree.apps(zone.id, name).iter();
    Node {
        records: snapshot.records_named(zone.id, name).cloned().collect(),
        apps: apps
            .filter_map(|id| snapshot.apps.get(id))
            .cloned()
            .collect(),
    }
}
