//! Who belongs to whom: a fleet's desired state, and how it changes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dataplane::fib::{Candidate, Candidates, Nexthop};
use dataplane::id::{TunnelId, VnetId};
use dataplane::program::health::{Config, Direction, Kind, Rate, Recovery};
use dataplane::program::{Route, RouteKey, Spec, Tunnel, Vnet};
use dataplane::tunnel::{self, gre, wireguard};
use ipnet::IpNet;

use crate::sim::{Random, site_key, wireguard_tunnel};

/// Networks of each vnet: 10.0.0.0/24 and so on, and the same of IPv6.
pub(super) const NETWORKS: u8 = 6;
/// Most candidates of a route.
const CANDIDATES: usize = 3;

/// The edge's desired state.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) spec: Spec,
    vnets: u16,
}

impl Plan {
    pub(super) fn new(tunnels: u32, vnets: u16, random: &mut Random) -> Self {
        let mut spec = Spec::default();
        for vnet in (1..=vnets).map(VnetId) {
            let name = format!("customer {vnet}");
            spec.vnets.insert(vnet, Vnet::named(name));
        }
        for number in 1..=tunnels {
            let vnet = u16::try_from((number - 1) % u32::from(vnets)).expect("below vnets");
            spec.tunnels
                .insert(TunnelId(number), tunnel(number, VnetId(vnet + 1)));
        }
        let mut plan = Self { spec, vnets };
        for vnet in (1..=vnets).map(VnetId) {
            plan.route(vnet, random);
        }
        plan.settle();
        plan
    }

    /// A vnet's networks are behind other tunnels than before.
    pub(super) fn reroute(&mut self, random: &mut Random) {
        let vnet = self.any_vnet(random);
        self.route(vnet, random);
        self.settle();
    }

    /// A tunnel goes over to another customer, with its network.
    pub(super) fn move_tunnel(&mut self, index: usize, random: &mut Random) {
        let id = TunnelId(u32::try_from(index + 1).expect("a fleet is small"));
        let vnet = self.any_vnet(random);
        let Some(tunnel) = self.spec.tunnels.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut tunnel.vnet, vnet);
        for vnet in [before, vnet] {
            self.route(vnet, random);
        }
        self.settle();
    }

    pub(super) fn any_vnet(&self, random: &mut Random) -> VnetId {
        let number = random.next() % u64::from(self.vnets);
        VnetId(1 + u16::try_from(number).expect("below vnets"))
    }

    /// Every network that is routed.
    pub(super) fn networks(&self) -> Vec<(VnetId, u8)> {
        let all = (1..=self.vnets).flat_map(|vnet| (0..NETWORKS).map(move |n| (VnetId(vnet), n)));
        all.filter(|(vnet, network)| self.spec.routes.contains_key(&key(*vnet, v4(*network))))
            .collect()
    }

    /// Sites of the lowest priority for a network.
    pub(super) fn best(&self, vnet: VnetId, network: u8) -> Vec<usize> {
        let route = &self.spec.routes[&key(vnet, v4(network))];
        let lowest = route.candidates.iter().map(|one| one.priority).min();
        let best = route
            .candidates
            .iter()
            .filter(|one| Some(one.priority) == lowest);
        best.filter_map(|one| index_of(one.nexthop)).collect()
    }

    /// The networks behind a tunnel; every site has one, routed or not.
    pub(super) fn networks_of(&self, id: TunnelId) -> Vec<u8> {
        let vnet = self.spec.tunnels[&id].vnet;
        let is_behind = |network: &u8| {
            let route = self.spec.routes.get(&key(vnet, v4(*network)));
            route.is_some_and(|route| route.candidates.contains(Nexthop::Tunnel(id)))
        };
        let networks: Vec<_> = (0..NETWORKS).filter(is_behind).collect();
        if networks.is_empty() {
            vec![0]
        } else {
            networks
        }
    }

    /// Draws the candidates of each of a vnet's networks.
    fn route(&mut self, vnet: VnetId, random: &mut Random) {
        let of_vnet = self
            .spec
            .tunnels
            .iter()
            .filter(|(_, tunnel)| tunnel.vnet == vnet);
        let tunnels: Vec<_> = of_vnet.map(|(id, _)| *id).collect();
        self.spec.routes.retain(|key, _| key.vnet != vnet);
        if tunnels.is_empty() {
            return;
        }
        for network in 0..NETWORKS {
            let wanted: BTreeSet<_> = (0..=random.below(CANDIDATES))
                .map(|_| tunnels[random.below(tunnels.len())])
                .collect();
            let members = wanted.into_iter().map(|id| Candidate {
                nexthop: Nexthop::Tunnel(id),
                priority: if random.below(2) == 0 { 100 } else { 200 },
                weight: 1 + u8::try_from(random.below(4)).expect("a small weight"),
            });
            let candidates = Candidates::new(members.collect()).expect("a few tunnels");
            for prefix in [v4(network), v6(network)] {
                let candidates = candidates.clone();
                self.spec
                    .routes
                    .insert(key(vnet, prefix), Route { candidates });
            }
        }
    }

    /// A tunnel may send from where its routes lead.
    fn settle(&mut self) {
        let ids: Vec<_> = self.spec.tunnels.keys().copied().collect();
        for id in ids {
            let networks = self.networks_of(id);
            let allowed = networks.into_iter().flat_map(|n| [v4(n), v6(n)]).collect();
            if let Some(tunnel) = self.spec.tunnels.get_mut(&id) {
                tunnel.allowed = allowed;
            }
        }
        self.spec.revision += 1;
    }
}

/// Where the edge is.
pub(super) fn edge_address() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 51820))
}

/// Whether a tunnel is one of GRE: every third. The others are of WireGuard.
pub(super) fn is_gre(number: u32) -> bool {
    number.is_multiple_of(3)
}

/// Where a site is. Those of GRE are behind one of four routers, which customers share: nothing but
/// the key tells their tunnels apart.
pub(super) fn site_address(number: u32) -> SocketAddr {
    let [_, _, high, low] = number.to_be_bytes();
    if is_gre(number) {
        return SocketAddr::from(([198, 19, 0, low % 4], 0));
    }
    SocketAddr::from(([198, 18, high, low], 51820))
}

/// A tunnel of GRE between the edge and a site, as one of the two has it. Its key is its number.
fn gre(number: u32, (local, remote): (SocketAddr, SocketAddr)) -> tunnel::Config {
    tunnel::Config::Gre(gre::Config {
        local: local.ip(),
        remote: remote.ip(),
        key_tx: Some(number),
        key_rx: Some(number),
        is_checksummed: false,
        is_sequenced: false,
        keepalive: None,
        ttl: gre::TTL_DEFAULT,
    })
}

/// What a site is told: its networks are its own, everything else is behind the tunnel.
pub(super) fn site(number: u32, networks: &[u8]) -> Spec {
    let vnet = VnetId(1);
    let id = TunnelId(1);
    let mut spec = Spec::default();
    let name = "site".to_owned();
    spec.vnets.insert(vnet, Vnet::named(name));
    let all: Vec<IpNet> = ["0.0.0.0/0", "::/0"].map(net).to_vec();
    let keys = (site_key(short(number)), edge_key().public());
    let mut tunnel = wireguard_tunnel(vnet, all.clone(), keys, Some(edge_address()));
    tunnel.interface = vec![net("10.255.0.1/31")];
    if is_gre(number) {
        tunnel.kind = gre(number, (site_address(number), edge_address()));
    }
    spec.tunnels.insert(id, tunnel);
    for prefix in all {
        let route = Route::from(Nexthop::Tunnel(id));
        spec.routes.insert(key(vnet, prefix), route);
    }
    for prefix in networks.iter().flat_map(|n| [v4(*n), v6(*n)]) {
        spec.routes.insert(key(vnet, prefix), Nexthop::Local.into());
    }
    spec
}

fn tunnel(number: u32, vnet: VnetId) -> Tunnel {
    let keys = (edge_key(), site_key(short(number)).public());
    let mut tunnel = wireguard_tunnel(vnet, Vec::new(), keys, None);
    tunnel.interface = vec![net("10.255.0.0/31")];
    if is_gre(number) {
        tunnel.kind = gre(number, (edge_address(), site_address(number)));
    }
    tunnel.health = Some(Config {
        rate: Rate::High,
        kind: if number.is_multiple_of(2) {
            Kind::Request
        } else {
            Kind::Reply
        },
        direction: Direction::Bidirectional,
        target: None,
        recovery: Recovery {
            up_after: 2,
            clean_secs: 2,
            clean_secs_max: 4,
        },
    });
    tunnel
}

fn edge_key() -> wireguard::PrivateKey {
    wireguard::PrivateKey([7; 32])
}

fn short(number: u32) -> u16 {
    u16::try_from(number).expect("a fleet is small")
}

fn index_of(nexthop: Nexthop) -> Option<usize> {
    match nexthop {
        Nexthop::Tunnel(id) => usize::try_from(id.0 - 1).ok(),
        Nexthop::Local => None,
    }
}

fn key(vnet: VnetId, prefix: IpNet) -> RouteKey {
    RouteKey { vnet, prefix }
}

fn v4(network: u8) -> IpNet {
    net(&format!("10.0.{network}.0/24"))
}

fn v6(network: u8) -> IpNet {
    net(&format!("fd00:0:0:{network}::/64"))
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}
