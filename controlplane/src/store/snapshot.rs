//! Everything that exists at one revision, for reading. A new resource is one line in `tables!`.

use std::sync::Arc;

use dataplane::source::Range;

use super::indexes::{self, Indexes, Step};
use super::table::{Change, Table};
use super::{StoreError, Write};
use crate::model::account::Account;
use crate::model::audit::Entry;
use crate::model::certificate::Certificate;
use crate::model::counter::Counter;
use crate::model::hostname_route::HostnameRoute;
use crate::model::key_check::KeyCheck;
use crate::model::lease::Lease;
use crate::model::node::{Authority, Node};
use crate::model::record::Record;
use crate::model::route::Route;
use crate::model::spectrum::App;
use crate::model::static_route::StaticRoute;
use crate::model::subnet::{Family, Subnet};
use crate::model::token::Token;
use crate::model::token_use::TokenUse;
use crate::model::tunnel::{Identity, Tunnel};
use crate::model::vnet::Vnet;
use crate::model::zone::Zone;
use crate::model::{HexId, Resource, host_name};

fn written<R: Resource>(change: Change<'_, R>) -> Option<Write> {
    let object = change.new.or(change.old)?;
    Some(Write {
        key: format!("{}/{}", R::KIND, object.id()),
        value: change.new.map(|object| json(&**object)),
    })
}

fn json<R: Resource>(object: &R) -> Vec<u8> {
    serde_json::to_vec(object).expect("objects have string keys only")
}

/// Writes, made one at a time as they are asked for.
pub type Writes<'a> = Box<dyn Iterator<Item = Write> + Send + 'a>;

/// A resource that has a table in the snapshot.
pub trait Tabled: Resource {
    /// Its table.
    fn table(snapshot: &Snapshot) -> &Table<Self>;
    /// Its table, to change.
    fn table_mut(snapshot: &mut Snapshot) -> &mut Table<Self>;
    /// Puts the object into the indexes, or takes it out.
    fn index(indexes: &mut Indexes, object: &Self, step: Step);
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
                            serde_json::from_slice(value).map_err(|why| unreadable(Some(Arc::new(why))))?;
                        self.put(object);
                    })*
                    Some(_) | None => return Err(unreadable(None)),
                }
                Ok(())
            }

            /// The writes that lead from `older` to this. Costs what changed.
            pub fn writes_since(&self, older: &Snapshot) -> Vec<Write> {
                let mut writes = Vec::new();
                $(writes.extend(older.$name.changes(&self.$name).filter_map(written));)*
                writes
            }

            /// Of the writes that lead from `older` to this, those that nodes are told of, one at a time.
            pub fn writes_to_nodes<'a>(&'a self, older: &'a Snapshot) -> Writes<'a> {
                let mut writes: Writes<'a> = Box::new(std::iter::empty());
                $(if <$resource>::ON_NODES {
                    let more = older.$name.changes(&self.$name).filter_map(written);
                    writes = Box::new(writes.chain(more));
                })*
                writes
            }

            /// This, made the same as `wanted`; objects that are the same already stay what they are.
            /// Also, whether anything differed.
            pub fn reconciled(&self, wanted: &Snapshot) -> (Snapshot, bool) {
                let mut result = self.clone();
                let mut differs = false;
                $(for change in self.$name.changes(&wanted.$name) {
                    match (change.old, change.new) {
                        (Some(old), None) => _ = result.delete::<$resource>(&old.id()),
                        (Some(old), Some(new)) if json(&**old) == json(&**new) => continue,
                        (_, Some(new)) => result.put((**new).clone()),
                        (None, None) => continue,
                    }
                    differs = true;
                })*
                (result, differs)
            }

            /// The object of this key is what it is in `other`.
            pub fn keep(&mut self, key: &str, other: &Snapshot) {
                let Some((kind, id)) = key.split_once('/') else {
                    return;
                };
                $(if kind == <$resource>::KIND {
                    let found = id.parse().ok().and_then(|id| other.$name.get(&id));
                    if let Some(object) = found {
                        self.put((**object).clone());
                    }
                })*
            }

            /// Takes in one change of one stored object.
            ///
            /// # Errors
            /// When this version does not know its kind or its form.
            pub fn take_in(&mut self, write: &Write) -> Result<(), StoreError> {
                let key = &write.key;
                if let Some(value) = &write.value {
                    return self.load(key, value);
                }
                let unreadable = || StoreError::Unreadable { key: key.clone(), source: None };
                let (kind, id) = key.split_once('/').ok_or_else(unreadable)?;
                match kind {
                    $(<$resource>::KIND => {
                        let id = id.parse().map_err(|_| unreadable())?;
                        self.delete::<$resource>(&id);
                    })*
                    _ => return Err(unreadable()),
                }
                Ok(())
            }
        }

        impl Snapshot {
            /// Every object that has secrets, to be written as it is.
            pub(super) fn secret_writes(&self) -> Vec<Write> {
                let mut writes = Vec::new();
                $(if !<$resource>::SECRETS.is_empty() {
                    writes.extend(self.$name.iter().map(|object| Write::of(&**object)));
                })*
                writes
            }
        }

        /// JSON pointers to the secrets of the object that has this key in the store.
        pub(super) fn secrets_of(key: &str) -> &'static [&'static str] {
            match key.split_once('/').map(|(kind, _)| kind) {
                $(Some(<$resource>::KIND) => <$resource>::SECRETS,)*
                Some(_) | None => &[],
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
    accounts: Account => indexes::unindexed,
    /// Layer-4 apps.
    apps: App => indexes::app,
    /// Who changed what.
    audit: Entry => indexes::audit,
    /// Who vouches for nodes.
    authorities: Authority => indexes::unindexed,
    /// Certificates that customers brought.
    certificates: Certificate => indexes::unindexed,
    /// Last numbers given.
    counters: Counter => indexes::unindexed,
    /// Names that resolvers behind tunnels know.
    hostname_routes: HostnameRoute => indexes::hostname_route,
    /// The edge's keys, per account.
    identities: Identity => indexes::unindexed,
    /// Whether the store's key is the right one.
    key_checks: KeyCheck => indexes::unindexed,
    /// Slices of the source range that are nodes'.
    leases: Lease => indexes::unindexed,
    /// Edges that are told over the network.
    nodes: Node => indexes::unindexed,
    /// DNS records.
    records: Record => indexes::record,
    /// Routes.
    routes: Route => indexes::route,
    /// Static routes.
    static_routes: StaticRoute => indexes::static_route,
    /// The edge's source range, as accounts name and place it.
    subnets: Subnet => indexes::unindexed,
    /// API tokens.
    tokens: Token => indexes::token,
    /// When API tokens were last used.
    token_uses: TokenUse => indexes::unindexed,
    /// Tunnels.
    tunnels: Tunnel => indexes::tunnel,
    /// Virtual networks.
    vnets: Vnet => indexes::vnet,
    /// Zones.
    zones: Zone => indexes::zone,
}

impl Snapshot {
    /// The object exists, so.
    pub fn put<R: Tabled>(&mut self, object: R) {
        let object = Arc::new(object);
        if let Some(old) = R::table_mut(self).insert(Arc::clone(&object)) {
            R::index(&mut self.indexes, &old, Step::Remove);
        }
        R::index(&mut self.indexes, &object, Step::Add);
    }

    /// The object is gone; what it was.
    pub fn delete<R: Tabled>(&mut self, id: &R::Id) -> Option<Arc<R>> {
        let old = R::table_mut(self).remove(id)?;
        R::index(&mut self.indexes, &old, Step::Remove);
        Some(old)
    }

    /// The records of a zone, by name.
    pub fn records_of(&self, zone: HexId) -> impl Iterator<Item = &Arc<Record>> {
        let names = self.indexes.names.get(&zone).into_iter().flatten();
        names.filter_map(|(_, id)| self.records.get(id))
    }

    /// The records of a name in a zone.
    pub fn records_named<'a>(
        &'a self,
        zone: HexId,
        name: &str,
    ) -> impl Iterator<Item = &'a Arc<Record>> + use<'a> {
        let name: Arc<str> = Arc::from(name);
        let all = (Arc::clone(&name), HexId::MIN)..=(name, HexId::MAX);
        let names = self.indexes.names.get(&zone);
        let ids = names
            .into_iter()
            .flat_map(move |names| names.range(all.clone()));
        ids.filter_map(|(_, id)| self.records.get(id))
    }

    /// The apps of a zone.
    pub fn apps_of(&self, zone: HexId) -> impl Iterator<Item = &Arc<App>> {
        let ids = self.indexes.apps.get(&zone).into_iter().flatten();
        ids.filter_map(|id| self.apps.get(id))
    }

    /// The routes of an account, oldest first.
    pub fn routes_of(&self, account: HexId) -> impl Iterator<Item = &Arc<Route>> {
        let ids = self.indexes.account_routes.get(&account).into_iter();
        ids.flatten().filter_map(|(_, id)| self.routes.get(id))
    }

    /// The routes that lead into a tunnel, by prefix.
    pub fn routes_into(&self, tunnel: uuid::Uuid) -> impl Iterator<Item = &Arc<Route>> {
        let ids = self.indexes.tunnel_routes.get(&tunnel).into_iter();
        ids.flatten().filter_map(|(_, id)| self.routes.get(id))
    }

    /// The hostname routes of an account, oldest first.
    pub fn hostname_routes_of(&self, account: HexId) -> impl Iterator<Item = &Arc<HostnameRoute>> {
        let ids = self.indexes.account_hostnames.get(&account).into_iter();
        ids.flatten()
            .filter_map(|(_, id)| self.hostname_routes.get(id))
    }

    /// The hostname routes that lead into a tunnel, by name.
    pub fn hostname_routes_into(
        &self,
        tunnel: uuid::Uuid,
    ) -> impl Iterator<Item = &Arc<HostnameRoute>> {
        let ids = self.indexes.tunnel_hostnames.get(&tunnel).into_iter();
        ids.flatten()
            .filter_map(|(_, id)| self.hostname_routes.get(id))
    }

    /// The account's hostname route of a name: its own, or that of the names below one above it.
    pub fn hostname_route(&self, account: HexId, name: &str) -> Option<&Arc<HostnameRoute>> {
        let of_account = self.indexes.hostnames.get(&account)?;
        let above = host_name::parents(name).map(|above| format!("*.{above}"));
        let id = std::iter::once(name.to_owned())
            .chain(above)
            .find_map(|hostname| of_account.get(&hostname))?;
        self.hostname_routes.get(id)
    }

    /// The static routes of an account, oldest first.
    pub fn statics_of(&self, account: HexId) -> impl Iterator<Item = &Arc<StaticRoute>> {
        let ids = self.indexes.account_statics.get(&account).into_iter();
        ids.flatten()
            .filter_map(|(_, id)| self.static_routes.get(id))
    }

    /// The static routes that lead into a tunnel, by prefix.
    pub fn statics_into(&self, tunnel: uuid::Uuid) -> impl Iterator<Item = &Arc<StaticRoute>> {
        let ids = self.indexes.tunnel_statics.get(&tunnel).into_iter();
        ids.flatten()
            .filter_map(|(_, id)| self.static_routes.get(id))
    }

    /// The static routes of a prefix in a vnet.
    pub fn statics_at(
        &self,
        vnet: uuid::Uuid,
        prefix: &ipnet::IpNet,
    ) -> impl Iterator<Item = &Arc<StaticRoute>> {
        let ids = self.indexes.rib.statics(vnet, prefix);
        ids.filter_map(|id| self.static_routes.get(&id))
    }

    /// The tunnels of an account, oldest first.
    pub fn tunnels_in(&self, account: HexId) -> impl Iterator<Item = &Arc<Tunnel>> {
        let ids = self.indexes.account_tunnels.get(&account).into_iter();
        ids.flatten().filter_map(|(_, id)| self.tunnels.get(id))
    }

    /// Where the private networks of an account see the edge's IPv4 source addresses.
    pub fn source_range(&self, account: HexId) -> Range {
        let subnet = self.subnets.get(&Subnet::key(account, Family::V4));
        subnet.map_or_else(Range::default, |subnet| subnet.range)
    }

    /// The tunnels between two outer addresses, the edge's first, over all accounts.
    pub fn tunnels_between(
        &self,
        local: std::net::IpAddr,
        remote: std::net::IpAddr,
    ) -> impl Iterator<Item = &Arc<Tunnel>> {
        let ids = self.indexes.ends.get(&(local, remote)).into_iter();
        ids.flatten().filter_map(|id| self.tunnels.get(id))
    }

    /// The tunnels of a vnet.
    pub fn tunnels_of(&self, vnet: uuid::Uuid) -> impl Iterator<Item = &Arc<Tunnel>> {
        let ids = self.indexes.vnet_tunnels.get(&vnet).into_iter().flatten();
        ids.filter_map(|id| self.tunnels.get(id))
    }

    /// The account's default vnet.
    pub fn default_vnet(&self, account: HexId) -> Option<&Arc<Vnet>> {
        let ids = self.indexes.default_vnets.get(&account)?;
        self.vnets.get(ids.get_min()?)
    }
}
