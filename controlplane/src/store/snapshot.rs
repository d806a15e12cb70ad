//! Everything that exists at one revision, for reading. A new resource is one line in `tables!`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::StoreError;
use crate::model::account::Account;
use crate::model::counter::Counter;
use crate::model::record::Record;
use crate::model::route::Route;
use crate::model::spectrum::App;
use crate::model::token::Token;
use crate::model::tunnel::{Identity, Tunnel};
use crate::model::vnet::Vnet;
use crate::model::zone::Zone;
use crate::model::{HexId, Resource};
use crate::rib::Rib;

/// All objects of one kind. Clones share what did not change.
#[derive(Clone, Debug)]
pub struct Table<R: Resource>(Arc<BTreeMap<R::Id, Arc<R>>>);

impl<R: Resource> Default for Table<R> {
    fn default() -> Table<R> {
        Table(Arc::default())
    }
}

impl<R: Resource> Table<R> {
    /// The object.
    pub fn get(&self, id: &R::Id) -> Option<&Arc<R>> {
        self.0.get(id)
    }

    /// Every object, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<R>> {
        self.0.values()
    }
}

/// A resource that has a table in the snapshot.
pub trait Tabled: Resource {
    /// Its table.
    fn table(snapshot: &Snapshot) -> &Table<Self>;
    /// Its table, to change.
    fn table_mut(snapshot: &mut Snapshot) -> &mut Table<Self>;
    /// Puts the object into the indexes, or takes it out.
    fn index(indexes: &mut Indexes, object: &Self, step: Step);
}

/// What happens to an object in the indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It comes.
    Add,
    /// It goes, or changes and comes back.
    Remove,
}

/// What is looked up by something other than its id; follows from the tables.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    /// Zones by name.
    pub zones: Arc<BTreeMap<String, HexId>>,
    /// Records by name.
    pub names: Arc<BTreeMap<String, BTreeSet<HexId>>>,
    /// Routes by vnet and prefix.
    pub rib: Rib,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $resource:ty => $index:path,)*) => {
        /// Everything that exists at one revision.
        #[derive(Clone, Debug, Default)]
        pub struct Snapshot {
            /// The revision.
            pub revision: u64,
            /// Look-ups by other things than ids.
            pub indexes: Indexes,
            $($(#[$doc])* pub $name: Table<$resource>,)*
        }

        impl Snapshot {
            /// Takes in one stored object.
            ///
            /// # Errors
            /// When this version does not know its kind or its form.
            pub fn load(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
                let unreadable = |source| StoreError::Unreadable { key: key.to_owned(), source };
                match key.split_once('/').map(|(kind, _)| kind) {
                    $(Some(<$resource>::KIND) => {
                        let object: $resource =
                            serde_json::from_slice(value).map_err(|why| unreadable(Some(why)))?;
                        self.put(object);
                    })*
                    Some(_) | None => return Err(unreadable(None)),
                }
                Ok(())
            }
        }

        $(impl Tabled for $resource {
            fn table(snapshot: &Snapshot) -> &Table<Self> {
                &snapshot.$name
            }

            fn table_mut(snapshot: &mut Snapshot) -> &mut Table<Self> {
                &mut snapshot.$name
            }

            fn index(indexes: &mut Indexes, object: &Self, step: Step) {
                $index(indexes, object, step);
            }
        })*
    };
}

tables! {
    /// Accounts.
    accounts: Account => unindexed,
    /// Layer-4 apps.
    apps: App => unindexed,
    /// Last numbers given.
    counters: Counter => unindexed,
    /// The edge's keys, per account.
    identities: Identity => unindexed,
    /// DNS records.
    records: Record => index_record,
    /// Routes.
    routes: Route => index_route,
    /// API tokens.
    tokens: Token => unindexed,
    /// Tunnels.
    tunnels: Tunnel => unindexed,
    /// Virtual networks.
    vnets: Vnet => unindexed,
    /// Zones.
    zones: Zone => index_zone,
}

impl Snapshot {
    /// The object exists, so.
    pub fn put<R: Tabled>(&mut self, object: R) {
        let id = object.id();
        self.delete::<R>(&id);
        R::index(&mut self.indexes, &object, Step::Add);
        Arc::make_mut(&mut R::table_mut(self).0).insert(id, Arc::new(object));
    }

    /// The object is gone; what it was.
    pub fn delete<R: Tabled>(&mut self, id: &R::Id) -> Option<Arc<R>> {
        R::table(self).get(id)?;
        let old = Arc::make_mut(&mut R::table_mut(self).0).remove(id)?;
        R::index(&mut self.indexes, &old, Step::Remove);
        Some(old)
    }

    /// The records of a name in a zone.
    pub fn records_named<'a>(
        &'a self,
        zone: HexId,
        name: &str,
    ) -> impl Iterator<Item = &'a Arc<Record>> + use<'a> {
        let ids = self.indexes.names.get(name).into_iter().flatten();
        ids.filter_map(|id| self.records.get(id))
            .filter(move |record| record.zone_id == zone)
    }

    /// The account's default vnet.
    pub fn default_vnet(&self, account: HexId) -> Option<&Arc<Vnet>> {
        self.vnets
            .iter()
            .find(|vnet| vnet.account_id == account && vnet.is_default_network)
    }
}

fn unindexed<R>(_: &mut Indexes, _: &R, _: Step) {}

fn index_zone(indexes: &mut Indexes, zone: &Zone, step: Step) {
    let zones = Arc::make_mut(&mut indexes.zones);
    match step {
        Step::Add => zones.insert(zone.name.clone(), zone.id),
        Step::Remove => zones.remove(&zone.name),
    };
}

fn index_record(indexes: &mut Indexes, record: &Record, step: Step) {
    let names = Arc::make_mut(&mut indexes.names);
    let ids = names.entry(record.name.clone()).or_default();
    match step {
        Step::Add => ids.insert(record.id),
        Step::Remove => ids.remove(&record.id),
    };
    if ids.is_empty() {
        names.remove(&record.name);
    }
}

fn index_route(indexes: &mut Indexes, route: &Route, step: Step) {
    let vnet = route.virtual_network_id;
    match step {
        Step::Add => indexes.rib.insert(vnet, route.network, route.id),
        Step::Remove => indexes.rib.remove(vnet, &route.network),
    }
}
