//! The world of these tests: an edge with one or several workers, three sites, two vnets.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::fib::Nexthop;
use crate::id::{NodeId, TunnelId, VnetId, WorkerId, Workers};
use crate::node::{Counters, DropReason, Node, NodeConfig, ProbeKey, Role, TunnelStatus};
use crate::packet::{Offload, Transmit, Way};
use crate::program::{Programmer, Route, RouteKey, Spec, Tunnel, Vnet};
use crate::source::{self, Range, Slice};
use crate::tunnel::{self, wireguard};

pub(super) const EDGE: &str = "198.51.100.1:51820";

#[expect(clippy::disallowed_methods, reason = "the root of a test's time")]
pub(super) fn start() -> Instant {
    Instant::now()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The endpoint of site `n`.
pub(super) fn site_at(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 10 + n], 51820))
}

pub(super) fn tunnel(
    vnet: u16,
    keys: (u8, u8),
    endpoint: Option<SocketAddr>,
    allowed: &[&str],
) -> Tunnel {
    Tunnel {
        vnet: VnetId(vnet),
        name: format!("keys {keys:?}"),
        mtu: 1420,
        allowed: allowed.iter().map(|net| net.parse().unwrap()).collect(),
        interface: Vec::new(),
        health: None,
        kind: tunnel::Config::WireGuard(wireguard::Config {
            private_key: wireguard::PrivateKey([keys.0; 32]),
            peer: wireguard::PrivateKey([keys.1; 32]).public(),
            preshared_key: None,
            endpoint,
            keepalive: None,
        }),
    }
}

pub(super) fn route(spec: &mut Spec, vnet: u16, prefix: &str, nexthop: Nexthop) {
    let key = RouteKey {
        vnet: VnetId(vnet),
        prefix: prefix.parse().unwrap(),
    };
    spec.routes.insert(key, Route::from(nexthop));
}

/// The workers of a node, the program that feeds its tables, and what came out of it towards the
/// overlay. Whatever comes in comes to another worker each time.
pub(super) struct End {
    pub(super) crew: Vec<Node>,
    pub(super) turn: usize,
    pub(super) program: Programmer,
    pub(super) at: SocketAddr,
    pub(super) now: Instant,
    pub(super) overlay: Vec<Vec<u8>>,
}

impl End {
    pub(super) fn new(at: SocketAddr, role: Role, spec: &Spec, workers: u8) -> Self {
        let workers = Workers::new(workers).unwrap();
        let slice = Slice::new("100.64.0.0/20".parse().unwrap()).unwrap();
        let config = NodeConfig {
            slice: (role == Role::Edge).then_some(slice),
            node: NodeId(0),
            worker: WorkerId(0),
            workers,
            role,
            probe_key: ProbeKey([9; 32]),
            local_ports: None,
            relay: None,
        };
        Self::of(at, &config, spec)
    }

    /// As many workers as the configuration of the first one says.
    pub(super) fn of(at: SocketAddr, config: &NodeConfig, spec: &Spec) -> Self {
        let program = Programmer::new(config.slice, config.node, config.workers);
        let now = start();
        let crew = config.workers.iter().map(|worker| {
            let config = NodeConfig {
                worker,
                ..config.clone()
            };
            Node::new(config, program.tables().clone(), now)
        });
        let mut end = Self {
            crew: crew.collect(),
            turn: 0,
            program,
            at,
            now,
            overlay: Vec::new(),
        };
        end.apply(spec);
        end
    }

    pub(super) fn apply(&mut self, spec: &Spec) {
        let delta = self.program.spec().diff(spec);
        let (crew, now) = (&mut self.crew, self.now);
        let applied = self.program.apply(&delta, &mut |change| {
            crew.iter_mut()
                .try_for_each(|node| node.apply(change.clone(), now))
        });
        assert_eq!(applied.rejected, []);
    }

    /// The worker whose turn it is.
    pub(super) fn next(&mut self) -> &mut Node {
        self.turn += 1;
        let turn = self.turn % self.crew.len();
        &mut self.crew[turn]
    }

    pub(super) fn send(&mut self, packet: &[u8]) {
        let (mut packet, now) = (packet.to_vec(), self.now);
        self.next().handle_overlay(&mut packet, Offload::NONE, now);
    }

    pub(super) fn hear(&mut self, from: SocketAddr, datagram: &mut [u8]) {
        let now = self.now;
        self.next()
            .handle_underlay(Way::wireguard(from), datagram, now);
    }

    pub(super) fn tunnels(&self) -> Vec<TunnelStatus> {
        let all = self.crew.iter().flat_map(|node| node.tunnels(self.now));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|status| status.id);
        all
    }

    pub(super) fn count(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.crew.iter().map(|node| of(node.counters())).sum()
    }

    /// Passes on what workers hand to each other: a datagram to the owner of its session, and what
    /// was in it to the owner of the next tunnel.
    pub(super) fn hand_over(&mut self) {
        for _ in 0..2 {
            for from in 0..self.crew.len() {
                while let Some((to, mut batch)) = self.crew[from].poll_handover() {
                    self.crew[usize::from(to.0)].handle_batch(&mut batch, self.now);
                    self.crew[from].give_back(batch);
                }
            }
        }
        let is_quiet = self
            .crew
            .iter_mut()
            .all(|node| node.poll_handover().is_none());
        assert!(is_quiet, "handed on without end");
    }

    /// What waits to be sent to the underlay; packets for the overlay are kept.
    pub(super) fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let all = self.sent_by().into_iter();
        all.map(|(way, datagram)| (way.remote, datagram)).collect()
    }

    /// The same, and by which way.
    pub(super) fn sent_by(&mut self) -> Vec<(Way, Vec<u8>)> {
        self.hand_over();
        let mut all = Vec::new();
        for node in &mut self.crew {
            while let Some(transmit) = node.poll_transmit() {
                match transmit {
                    Transmit::Underlay {
                        way,
                        segment_size,
                        bytes,
                    } => all.extend(bytes.chunks(segment_size).map(|one| (way, one.to_vec()))),
                    Transmit::Device { packet, .. } => self.overlay.push(packet.to_vec()),
                }
            }
        }
        all
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.count(|counters| counters.dropped(reason))
    }
}

/// An edge with sites 1 and 2 in vnets 1 and 2, both of 10.0.0.0/24, and site 3 in vnet 1 too.
pub(super) struct World {
    pub(super) ends: Vec<End>,
}

impl World {
    /// Three workers, one for each tunnel: most packets come to a wrong one first.
    pub(super) fn new() -> Self {
        Self::of(3)
    }

    /// The edge has this many workers.
    pub(super) fn of(workers: u8) -> Self {
        let mut spec = Spec::default();
        for vnet in 1..=2 {
            let name = format!("vnet {vnet}");
            spec.vnets.insert(VnetId(vnet), Vnet::named(name));
        }
        for (n, vnet, net4, net6) in [
            (1, 1, "10.0.0.0/24", "fd00::/64"),
            (2, 2, "10.0.0.0/24", "fd00::/64"),
            (3, 1, "10.3.0.0/24", "fd00:3::/64"),
        ] {
            let id = TunnelId(u32::from(n));
            let allowed = if n == 2 {
                vec!["0.0.0.0/0", "::/0"]
            } else {
                vec![net4, net6]
            };
            spec.tunnels
                .insert(id, tunnel(vnet, (1, 10 + n), None, &allowed));
            for net in [net4, net6] {
                route(&mut spec, vnet, net, Nexthop::Tunnel(id));
            }
        }
        // The worst customer routes the whole Internet into the own tunnel.
        route(&mut spec, 2, "0.0.0.0/0", Nexthop::Tunnel(TunnelId(2)));
        route(&mut spec, 2, "::/0", Nexthop::Tunnel(TunnelId(2)));
        let mut ends = vec![End::new(EDGE.parse().unwrap(), Role::Edge, &spec, workers)];
        ends.extend((1..=3).map(site));
        let mut world = Self { ends };
        world.pump();
        for n in 1..=3 {
            assert!(world.ends[0].tunnels()[n - 1].is_up);
        }
        world
    }

    /// The vnet's private networks see the edge by addresses of this range from now on.
    pub(super) fn place(&mut self, vnet: u16, range: &str) {
        let mut spec = self.edge().program.spec().clone();
        let vnet = spec.vnets.get_mut(&VnetId(vnet)).unwrap();
        vnet.range = Range::new(range.parse().unwrap()).unwrap();
        self.edge().apply(&spec);
    }

    pub(super) fn edge(&mut self) -> &mut End {
        &mut self.ends[0]
    }

    pub(super) fn site(&mut self, n: usize) -> &mut End {
        &mut self.ends[n]
    }

    pub(super) fn pump(&mut self) {
        loop {
            let mut is_quiet = true;
            for n in 0..self.ends.len() {
                let from = self.ends[n].at;
                for (to, mut datagram) in self.ends[n].sent() {
                    is_quiet = false;
                    if let Some(end) = self.ends.iter_mut().find(|end| end.at == to) {
                        end.hear(from, &mut datagram);
                    }
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Sends `packet` from end `n` and gives what arrived at each end's overlay.
    pub(super) fn send(&mut self, n: usize, packet: &[u8]) -> Vec<Vec<Vec<u8>>> {
        self.ends[n].send(packet);
        self.pump();
        let ends = self.ends.iter_mut();
        ends.map(|end| std::mem::take(&mut end.overlay)).collect()
    }

    /// The source address of a vnet, in the family of `like`.
    pub(super) fn source(&self, vnet: u16, like: &str) -> IpAddr {
        let sources = &self.ends[0].program.tables().sources;
        let v4 = sources.of(VnetId(vnet)).unwrap();
        if like.contains(':') {
            source::to_v6(v4).into()
        } else {
            v4.into()
        }
    }

    pub(super) fn assert_dropped(&mut self, n: usize, packet: &[u8], reason: DropReason) {
        let before = self.edge().dropped(reason);
        let arrived = self.send(n, packet);
        let after = self.edge().dropped(reason);
        assert_eq!(after, before + 1, "{reason:?}");
        assert!(arrived.iter().all(Vec::is_empty), "{arrived:?}");
    }
}

/// A site that lets its own machine send whatever it likes.
pub(super) fn site(n: u8) -> End {
    let mut spec = Spec::default();
    spec.vnets.insert(VnetId(1), Vnet::named("own"));
    let all = ["0.0.0.0/0", "::/0"];
    let edge = Some(EDGE.parse().unwrap());
    spec.tunnels
        .insert(TunnelId(1), tunnel(1, (10 + n, 1), edge, &all));
    for net in all {
        route(&mut spec, 1, net, Nexthop::Tunnel(TunnelId(1)));
    }
    for net in ["10.0.0.0/24", "10.3.0.0/24", "fd00::/64", "fd00:3::/64"] {
        route(&mut spec, 1, net, Nexthop::Local);
    }
    // Attackers' packets go out whatever their destination: a more specific route than the LAN's.
    for net in ["10.0.0.200/32", "10.3.0.200/32", "fd00:3::200/128"] {
        route(&mut spec, 1, net, Nexthop::Tunnel(TunnelId(1)));
    }
    let role = Role::Site {
        vnet: VnetId(1),
        address: ip("10.0.0.1"),
    };
    End::new(site_at(n), role, &spec, 1)
}
