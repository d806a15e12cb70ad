//! What a node must change from one snapshot to a later one: costs what changed, not what exists.

use std::collections::BTreeSet;
use std::sync::Arc;

use dataplane::id::{TunnelId, VnetId};
use dataplane::program::{Change, Delta, Key, RouteKey};

use super::build::{self, Here};
use crate::model::tunnel::Tunnel;
use crate::store::Snapshot;

/// What a change of the stored objects may touch of what a node has.
#[derive(Debug, Default)]
struct Touched {
    vnets: BTreeSet<VnetId>,
    tunnels: BTreeSet<TunnelId>,
    routes: BTreeSet<RouteKey>,
    /// Whether the list of relays is, which is told whole.
    relays: bool,
}

/// The changes that turn the state of the node `here` at `old` into that at `new`, in the order of
/// [`dataplane::program::Spec::diff`]. A lease that ends is no change of an object: the next comparison of whole
/// states has it, or the next change of any lease. Objects named in `again` are among them even when they did not
/// change: those that the node refused.
pub fn delta(
    old: &Snapshot,
    new: &Snapshot,
    here: Here,
    again: impl IntoIterator<Item = Key>,
) -> Delta {
    let mut all = touched(old, new, here);
    let again: BTreeSet<Key> = again.into_iter().collect();
    for key in &again {
        match key {
            Key::Vnet(id) => _ = all.vnets.insert(*id),
            Key::Tunnel(id) => _ = all.tunnels.insert(*id),
            Key::Route(key) => _ = all.routes.insert(*key),
            Key::Relay(_) => all.relays = true,
        }
    }
    let mut gone = Vec::new();
    let mut put = Vec::new();
    for id in all.vnets {
        let (was, is) = (build::vnet(old, id), build::vnet(new, id));
        match is {
            Some(vnet) if was.as_ref() != Some(&vnet) || again.contains(&Key::Vnet(id)) => {
                put.push(Change::PutVnet(id, vnet));
            }
            None if was.is_some() => gone.push(Change::DeleteVnet(id)),
            Some(_) | None => {}
        }
    }
    for id in all.tunnels {
        let (was, is) = (build::tunnel(old, id), build::tunnel(new, id));
        match is {
            Some(tunnel) if was.as_ref() != Some(&tunnel) || again.contains(&Key::Tunnel(id)) => {
                put.push(Change::PutTunnel(id, Box::new(tunnel)));
            }
            None if was.is_some() => gone.push(Change::DeleteTunnel(id)),
            Some(_) | None => {}
        }
    }
    for key in all.routes {
        let (was, is) = (build::route(old, key), build::route(new, key));
        match is {
            Some(route) if was.as_ref() != Some(&route) || again.contains(&Key::Route(key)) => {
                put.push(Change::PutRoute(key, route));
            }
            None if was.is_some() => gone.push(Change::DeleteRoute(key)),
            Some(_) | None => {}
        }
    }
    // What goes, goes in the reverse order: routes, tunnels, vnets.
    gone.reverse();
    gone.append(&mut put);
    Delta {
        revision: new.revision,
        changes: gone,
        relays: all.relays.then(|| build::relays(new, here)),
    }
}

/// One paragraph for each table that a node is told of. Naming too much costs a comparison, naming
/// too little a wrong node until the next full one.
fn touched(old: &Snapshot, new: &Snapshot, here: Here) -> Touched {
    let mut touched = Touched::default();
    for vnet in old.vnets.changes(&new.vnets).flat_map(|c| c.both()) {
        touched.vnets.insert(vnet.number);
    }
    let placed: BTreeSet<_> = old
        .subnets
        .changes(&new.subnets)
        .flat_map(|change| change.both())
        .map(|subnet| subnet.account_id)
        .collect();
    if !placed.is_empty() {
        let vnets = new.vnets.iter();
        let theirs = vnets.filter(|vnet| placed.contains(&vnet.account_id));
        touched.vnets.extend(theirs.map(|vnet| vnet.number));
    }
    for change in old.routes.changes(&new.routes) {
        for (snapshot, route) in [(old, change.old), (new, change.new)] {
            let Some(route) = route else {
                continue;
            };
            touched.routes.extend(build::key(snapshot, route));
            // Its routes are what a tunnel allows.
            let tunnel = snapshot.tunnels.get(&route.tunnel_id);
            touched.tunnels.extend(tunnel.map(|tunnel| tunnel.number));
        }
    }
    for change in old.static_routes.changes(&new.static_routes) {
        for (snapshot, route) in [(old, change.old), (new, change.new)] {
            let Some(route) = route else {
                continue;
            };
            touched.routes.extend(build::static_key(snapshot, route));
            let tunnel = snapshot.tunnels.get(&route.tunnel_id);
            touched.tunnels.extend(tunnel.map(|tunnel| tunnel.number));
        }
    }
    for change in old.tunnels.changes(&new.tunnels) {
        for (snapshot, tunnel) in [(old, change.old), (new, change.new)] {
            let Some(tunnel) = tunnel else {
                continue;
            };
            touched.tunnels.insert(tunnel.number);
            let vnet = snapshot.vnets.get(&tunnel.virtual_network_id);
            touched.vnets.extend(vnet.map(|vnet| vnet.number));
            // Only a tunnel that comes or goes changes what its routes lead to.
            let told = |tunnel: &Arc<Tunnel>| tunnel.is_ready().then_some(tunnel.number);
            if change.old.and_then(told) != change.new.and_then(told) {
                let routes = snapshot.routes_into(tunnel.id);
                let keys = routes.filter_map(|route| build::key(snapshot, route));
                touched.routes.extend(keys);
                let routes = snapshot.statics_into(tunnel.id);
                let keys = routes.filter_map(|route| build::static_key(snapshot, route));
                touched.routes.extend(keys);
            }
        }
    }
    let identities = old.identities.changes(&new.identities);
    let accounts: BTreeSet<_> = identities
        .flat_map(|change| change.both())
        .map(|identity| identity.account_id)
        .collect();
    if !accounts.is_empty() {
        let tunnels = new.tunnels.iter();
        let theirs = tunnels.filter(|tunnel| accounts.contains(&tunnel.account_id));
        touched.tunnels.extend(theirs.map(|tunnel| tunnel.number));
    }
    let is_touched = old.leases.changes(&new.leases).next().is_some();
    touched.relays = is_touched && build::relays(old, here) != build::relays(new, here);
    touched
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use dataplane::program::Spec;
    use dataplane::source::Range;
    use dataplane::tunnel::wireguard::{PrivateKey, PublicKey};
    use ipnet::Ipv4Net;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::model::lease::{self, Lease};
    use crate::model::route::Route;
    use crate::model::static_route::StaticRoute;
    use crate::model::subnet::{Family, Subnet};
    use crate::model::tunnel::{
        Encapsulation, EspOffer, Identity, IkeOffer, Interface, Ipsec, Kind, Psk, Role, WireGuard,
    };
    use crate::model::vnet::Vnet;
    use crate::model::{HexId, Timestamp};

    /// One step of a history: which object, and what becomes of it.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Vnet(u8, u8),
        Tunnel(u8, u8),
        DeleteTunnel(u8),
        Route(u8, u8),
        DeleteRoute(u8),
        Static(u8, u8, u8),
        DeleteStatic(u8),
        Identity(u8),
        Lease(u8, u8),
        Range(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..4_u8, any::<u8>()).prop_map(|(n, v)| Act::Vnet(n, v % 3)),
            (0..6_u8, any::<u8>()).prop_map(|(n, v)| Act::Tunnel(n, v % 4)),
            (0..6_u8).prop_map(Act::DeleteTunnel),
            (0..20_u8, 0..6_u8).prop_map(|(n, t)| Act::Route(n, t)),
            (0..20_u8).prop_map(Act::DeleteRoute),
            (0..20_u8, 0..6_u8, 0..3_u8).prop_map(|(n, t, p)| Act::Static(n, t, p)),
            (0..20_u8).prop_map(Act::DeleteStatic),
            (0..3_u8).prop_map(Act::Identity),
            (0..4_u8, any::<u8>()).prop_map(|(n, v)| Act::Lease(n, v % 4)),
            (0..3_u8).prop_map(Act::Range),
        ]
    }

    fn id(number: u8) -> Uuid {
        Uuid::from_u128(u128::from(number) + 1)
    }

    fn now() -> Timestamp {
        Timestamp::new(time::OffsetDateTime::UNIX_EPOCH)
    }

    fn put_tunnel(snapshot: &mut Snapshot, n: u8, value: u8) {
        // A tunnel stays in its vnet.
        if snapshot.vnets.get(&id(n % 4)).is_none() || snapshot.identities.is_empty() {
            return;
        }
        let allowed = "192.0.2.0/24".parse().unwrap();
        // Odd ones are IPsec, which a node is told of when there is a key.
        let kind = match n % 2 {
            0 => wireguard(n),
            _ => ipsec(n, value < 2),
        };
        snapshot.put(Tunnel {
            id: id(n),
            account_id: HexId::MIN,
            number: TunnelId(u32::from(n) + 1),
            name: value.to_string(),
            description: String::new(),
            virtual_network_id: id(n % 4),
            interface: Interface::default(),
            health_check: None,
            allowed_prefixes: (value == 3).then_some(allowed).into_iter().collect(),
            mtu: 1420,
            kind,
            created_at: now(),
            modified_at: now(),
        });
    }

    fn put_static(snapshot: &mut Snapshot, n: u8, (tunnel, priority): (u8, u8)) {
        let Some(tunnel) = snapshot.tunnels.get(&id(tunnel)).cloned() else {
            return;
        };
        // Half as many prefixes as routes: some have several candidates.
        let prefix = Ipv4Net::new(Ipv4Addr::new(10, n / 2, 0, 0), 16).unwrap();
        snapshot.put(StaticRoute {
            id: static_id(n),
            account_id: HexId::MIN,
            virtual_network_id: tunnel.virtual_network_id,
            prefix: prefix.into(),
            nexthop: Ipv4Addr::new(10, 255, 0, n).into(),
            tunnel_id: tunnel.id,
            priority: u32::from(priority),
            weight: 0,
            description: String::new(),
            created_on: now(),
            modified_on: now(),
        });
    }

    /// Does it as the API would: what an object needs is there before, and goes after.
    fn perform(snapshot: &mut Snapshot, act: Act) {
        match act {
            Act::Vnet(n, value) => snapshot.put(Vnet {
                id: id(n),
                account_id: HexId::MIN,
                number: VnetId(u16::from(n) + 1),
                name: value.to_string(),
                comment: String::new(),
                is_default_network: false,
                created_at: now(),
            }),
            Act::Tunnel(n, value) => put_tunnel(snapshot, n, value),
            Act::DeleteTunnel(n) => {
                let routes: Vec<Uuid> = snapshot.routes_into(id(n)).map(|r| r.id).collect();
                for route in routes {
                    snapshot.delete::<Route>(&route);
                }
                let statics: Vec<HexId> = snapshot.statics_into(id(n)).map(|r| r.id).collect();
                for route in statics {
                    snapshot.delete::<StaticRoute>(&route);
                }
                snapshot.delete::<Tunnel>(&id(n));
            }
            Act::Route(n, tunnel) => {
                let Some(tunnel) = snapshot.tunnels.get(&id(tunnel)).cloned() else {
                    return;
                };
                let network = Ipv4Net::new(Ipv4Addr::new(10, n, 0, 0), 16).unwrap().into();
                let vnet = tunnel.virtual_network_id;
                let taken = snapshot.indexes.rib.exact(vnet, &network);
                if taken.is_some_and(|taken| taken != id(n)) {
                    return;
                }
                snapshot.put(Route {
                    id: id(n),
                    account_id: HexId::MIN,
                    network,
                    tunnel_id: tunnel.id,
                    virtual_network_id: vnet,
                    comment: String::new(),
                    created_at: now(),
                });
            }
            Act::DeleteRoute(n) => _ = snapshot.delete::<Route>(&id(n)),
            Act::Static(n, tunnel, priority) => put_static(snapshot, n, (tunnel, priority)),
            Act::DeleteStatic(n) => _ = snapshot.delete::<StaticRoute>(&static_id(n)),
            Act::Identity(value) => snapshot.put(Identity {
                account_id: HexId::MIN,
                private_key: PrivateKey([value; 32]),
            }),
            Act::Lease(n, value) => snapshot.put(lease(n, value)),
            Act::Range(n) => {
                let net = ["100.64.0.0/12", "10.240.0.0/12", "172.16.0.0/12"][usize::from(n)];
                let range = Range::new(net.parse().unwrap()).unwrap();
                snapshot.put(Subnet {
                    range,
                    ..Subnet::of(HexId::MIN, Family::V4, now())
                });
            }
        }
    }

    /// Of 0, a node that takes no others' packets; of 3, one whose lease has ended.
    fn lease(n: u8, value: u8) -> Lease {
        Lease {
            slice: lease::slice(u32::from(n)),
            node: value.to_string(),
            certificate_sha256: value.to_string(),
            since: now(),
            until: if value == 3 { now() } else { later() },
            relay: (value > 0).then(|| SocketAddr::from(([192, 0, 2, value], 6081))),
        }
    }

    fn later() -> Timestamp {
        now().after(std::time::Duration::from_secs(60))
    }

    /// The node that has slice 0.
    fn here() -> Here {
        Here {
            slice: lease::slice(0),
            now: now(),
        }
    }

    fn static_id(number: u8) -> HexId {
        format!("{number:032x}").parse().unwrap()
    }

    fn wireguard(number: u8) -> Kind {
        Kind::WireGuard(WireGuard {
            peer_public_key: PublicKey([number; 32]),
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: 0,
        })
    }

    fn ipsec(number: u8, has_key: bool) -> Kind {
        Kind::Ipsec(Box::new(Ipsec {
            local: Ipv4Addr::new(198, 51, 100, 1).into(),
            remote: Some(Ipv4Addr::new(192, 0, 2, number).into()),
            psk: has_key.then(|| Psk::new("0123456789abcdef".to_owned()).unwrap()),
            psk_set_at: None,
            has_replay_protection: false,
            fqdn_id: None,
            has_address_identity: false,
            role: Role::Responder,
            encapsulation: Encapsulation::Auto,
            ike: IkeOffer::default(),
            esp: EspOffer::default(),
        }))
    }

    /// What a node that refuses nothing would have afterwards.
    fn apply(spec: &mut Spec, delta: Delta) {
        spec.revision = delta.revision;
        for change in delta.changes {
            match change {
                Change::PutVnet(id, vnet) => _ = spec.vnets.insert(id, vnet),
                Change::DeleteVnet(id) => _ = spec.vnets.remove(&id),
                Change::PutTunnel(id, tunnel) => _ = spec.tunnels.insert(id, *tunnel),
                Change::DeleteTunnel(id) => _ = spec.tunnels.remove(&id),
                Change::PutRoute(key, route) => _ = spec.routes.insert(key, route),
                Change::DeleteRoute(key) => _ = spec.routes.remove(&key),
            }
        }
        if let Some(relays) = delta.relays {
            spec.relays = relays;
        }
    }

    proptest! {
        #[test]
        fn deltas_lead_to_the_state_that_is_compiled_whole_by_the_changes_of_a_comparison(
            history in prop::collection::vec(prop::collection::vec(act(), 1..8), 1..12),
        ) {
            let mut snapshot = Snapshot::default();
            perform(&mut snapshot, Act::Identity(0));
            let mut spec = build::spec(&snapshot, here());
            for acts in history {
                let old = snapshot.clone();
                acts.into_iter().for_each(|act| perform(&mut snapshot, act));
                snapshot.revision += 1;
                let delta = delta(&old, &snapshot, here(), []);
                let whole = build::spec(&snapshot, here());
                let as_set = |delta: &Delta| -> BTreeSet<String> {
                    delta.changes.iter().map(|change| format!("{change:?}")).collect()
                };
                prop_assert_eq!(as_set(&delta), as_set(&spec.diff(&whole)));
                prop_assert_eq!(&delta.relays, &spec.diff(&whole).relays);
                apply(&mut spec, delta);
                prop_assert_eq!(&spec, &whole);
            }
        }
    }

    #[test]
    fn what_was_refused_is_put_again_and_what_is_gone_is_not() {
        let mut snapshot = Snapshot::default();
        let acts = [
            Act::Identity(0),
            Act::Vnet(0, 0),
            Act::Tunnel(0, 0),
            Act::Route(0, 0),
        ];
        acts.into_iter().for_each(|act| perform(&mut snapshot, act));
        let key = *build::spec(&snapshot, here()).routes.keys().next().unwrap();
        let again = [
            Key::Route(key),
            Key::Tunnel(TunnelId(1)),
            Key::Tunnel(TunnelId(9)),
        ];
        let keys: Vec<Key> = delta(&snapshot, &snapshot, here(), again)
            .changes
            .iter()
            .map(Change::key)
            .collect();
        assert_eq!(keys, [Key::Tunnel(TunnelId(1)), Key::Route(key)]);
    }

    #[test]
    fn packets_of_a_slice_go_to_the_node_that_holds_it_and_to_no_other() {
        let mut snapshot = Snapshot::default();
        let seen = |snapshot: &Snapshot, here: Here| -> Vec<(String, String)> {
            let relays = build::spec(snapshot, here).relays.into_iter();
            let text = relays.map(|relay| {
                assert_eq!(relay.node.0, lease::number(relay.net));
                (relay.net.to_string(), relay.address.to_string())
            });
            text.collect()
        };
        let pair = |net: &str, address: &str| (net.to_owned(), address.to_owned());
        for (n, value) in [(0, 1), (1, 2), (2, 0), (3, 3)] {
            perform(&mut snapshot, Act::Lease(n, value));
        }
        // Not its own, not that of a node without a relay, not one that has ended.
        let second = pair("100.64.16.0/20", "192.0.2.2:6081");
        assert_eq!(seen(&snapshot, here()), std::slice::from_ref(&second));
        let other = Here {
            slice: lease::slice(1),
            now: now(),
        };
        let first = pair("100.64.0.0/20", "192.0.2.1:6081");
        assert_eq!(seen(&snapshot, other), [first]);
        // At its end it is nobody's, though no object has changed.
        let ended = Here {
            now: later(),
            ..here()
        };
        assert_eq!(seen(&snapshot, ended), []);
        assert_eq!(delta(&snapshot, &snapshot, ended, []).relays, None);
        // Another node has it then.
        let old = snapshot.clone();
        let given = Lease {
            until: later().after(std::time::Duration::from_secs(60)),
            ..lease(1, 1)
        };
        snapshot.put(given);
        let again = delta(&snapshot, &snapshot, ended, [Key::Relay(lease::slice(9))]);
        assert_eq!(again.relays, Some(build::spec(&snapshot, ended).relays));
        let relays = delta(&old, &snapshot, ended, []).relays.unwrap();
        assert_eq!(relays, build::spec(&snapshot, ended).relays);
        let moved = pair("100.64.16.0/20", "192.0.2.1:6081");
        assert_eq!(seen(&snapshot, ended), [moved]);
    }
}
