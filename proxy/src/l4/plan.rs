//! What each listening socket is for: the list of apps, spread over addresses and ports.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use controlplane::origin::{App, NamedOrigin, Transport};

use crate::handoff::Network;

/// A socket that has to listen.
pub(super) type Place = (Transport, SocketAddr);

/// What is relayed from one socket. Flows of two different plans are never mixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The app's id.
    pub(super) app: Arc<str>,
    /// The network that the origins are in.
    pub(super) network: Network,
    /// The origins, with the port that belongs to the socket's.
    pub(super) origins: Vec<SocketAddr>,
    /// The name that has the origins' addresses, with that port; then `origins` is empty.
    pub(super) named: Option<NamedOrigin>,
}

impl Plan {
    /// The origins in the order to try them for a client: always the same for one.
    pub(super) fn targets(&self, client: IpAddr) -> Vec<SocketAddr> {
        turned(&self.origins, client)
    }
}

/// The origins at the addresses of a name, in the order to try them for a client.
pub(super) fn targets_at(
    named: &NamedOrigin,
    addresses: &[IpAddr],
    client: IpAddr,
) -> Vec<SocketAddr> {
    let is_wanted = |ip: &&IpAddr| match ip {
        IpAddr::V4(_) => named.ipv4,
        IpAddr::V6(_) => named.ipv6,
    };
    let wanted = addresses.iter().filter(is_wanted);
    let origins: Vec<SocketAddr> = wanted.map(|ip| SocketAddr::new(*ip, named.port)).collect();
    turned(&origins, client)
}

fn turned(origins: &[SocketAddr], client: IpAddr) -> Vec<SocketAddr> {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    let count = u64::try_from(origins.len()).expect("a usize is not longer than a u64");
    let first = usize::try_from(hasher.finish() % count.max(1)).expect("below the length");
    let (before, after) = origins.split_at(first);
    after.iter().chain(before).copied().collect()
}

/// The plans of all apps by socket, and how many sockets were left out: those beyond `places_max`
/// and those that an earlier app of the list has.
pub(super) fn plans(apps: &[App], places_max: usize) -> (BTreeMap<Place, Plan>, usize) {
    let mut plans = BTreeMap::new();
    let mut left_out = 0;
    for app in apps {
        let id: Arc<str> = app.id.as_str().into();
        for address in &app.edge_addresses {
            for port in app.edge_port..=app.edge_port_end {
                let place = (app.transport, SocketAddr::new(*address, port));
                if plans.len() >= places_max || plans.contains_key(&place) {
                    left_out += 1;
                } else if let Some(plan) = plan(app, &id, port) {
                    plans.insert(place, plan);
                }
            }
        }
    }
    (plans, left_out)
}

/// The plan for one edge port; `None` if no origin has a port for it.
fn plan(app: &App, id: &Arc<str>, port: u16) -> Option<Plan> {
    let offset = port.checked_sub(app.edge_port)?;
    let origins: Vec<SocketAddr> = app
        .origins
        .iter()
        .filter_map(|origin| {
            Some(SocketAddr::new(
                origin.ip(),
                origin.port().checked_add(offset)?,
            ))
        })
        .collect();
    let named = app.origin_name.as_ref().and_then(|named| {
        Some(NamedOrigin {
            port: named.port.checked_add(offset)?,
            ..named.clone()
        })
    });
    let is_private = app.vnet.is_some() || app.virtual_network_id.is_some() || named.is_some();
    let network = if is_private {
        Network::Private(app.vnet)
    } else {
        Network::Public
    };
    let app = Arc::clone(id);
    (named.is_some() || !origins.is_empty()).then_some(Plan {
        app,
        network,
        origins,
        named,
    })
}
