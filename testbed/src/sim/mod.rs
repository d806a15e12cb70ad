//! A world in memory: one edge, and per vnet a client at the edge and a site with an origin, all
//! origins at one and the same address. Real node state machines, real handshakes, smoltcp as
//! everybody's TCP; a seeded network that loses datagrams.
//!
//! In: a seed, how many vnets, how lossy. Out: what every client received. State: [`World`], owned
//! by the test that made it.

pub mod fleet;
mod host;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::fib::Nexthop;
use dataplane::id::{NodeId, TunnelId, VnetId, WorkerId, Workers};
use dataplane::node::{Node, NodeConfig, ProbeKey, Role};
use dataplane::packet::{Offload, Segments, Transmit, Way};
use dataplane::program::{Programmer, Route, RouteKey, Spec, Tables, Tunnel, Vnet};
use dataplane::source::{self, Slice};
use dataplane::tunnel::{self, wireguard};

pub use host::Host;

/// Every origin's address: that they are all the same is the point.
pub const ORIGIN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
/// The port that origins serve.
pub const PORT: u16 = 80;
/// What one round of the world takes on its own clock.
const ROUND: Duration = Duration::from_millis(1);
/// Largest inner packet.
const MTU: u16 = 1420;

/// One datagram between edge and site: from, to, bytes.
type Datagram = (SocketAddr, SocketAddr, Vec<u8>);

/// A private network: its router and its origin.
#[derive(Debug)]
struct Site {
    address: SocketAddr,
    node: Node,
    origin: Host,
}

/// Everything that there is.
#[derive(Debug)]
pub struct World {
    now: Instant,
    random: Random,
    loss_per_mille: u64,
    edge_address: SocketAddr,
    edge: Node,
    tables: Arc<Tables>,
    clients: Vec<Host>,
    sites: Vec<Site>,
    wire: Vec<Datagram>,
    strays: u64,
}

impl World {
    /// `vnets` private networks behind one edge. `now` is where their clock starts.
    ///
    /// # Panics
    /// When the nodes refuse the world: more vnets than a /24 has addresses.
    #[must_use]
    pub fn new(seed: u64, vnets: u16, loss_per_mille: u64, now: Instant) -> World {
        let slice = ipnet::Ipv4Net::new(Ipv4Addr::new(100, 64, 0, 0), 20).expect("20 is below 33");
        let slice = Slice::new(slice).expect("a slice of the range");
        let edge_address = SocketAddr::from(([198, 51, 100, 1], 51820));
        let edge_key = wireguard::PrivateKey([7; 32]);
        let mut spec = Spec {
            revision: 1,
            ..Spec::default()
        };
        for number in 1..=vnets {
            extend(&mut spec, number, edge_key, site_key(number).public(), None);
        }
        let config = NodeConfig {
            slice: Some(slice),
            node: NodeId(0),
            worker: WorkerId(0),
            workers: Workers::ONE,
            role: Role::Edge,
            probe_key: ProbeKey([1; 32]),
            local_ports: None,
            relay: None,
        };
        let (edge, tables) = node(config, Some(slice), &spec, now);
        let clients = (1..=vnets).map(|number| {
            let address = tables
                .sources
                .of(VnetId(number))
                .expect("every vnet has a source");
            Host::client(address, ORIGIN, PORT, seed ^ u64::from(number))
        });
        World {
            now,
            random: Random(seed | 1),
            loss_per_mille,
            edge_address,
            clients: clients.collect(),
            sites: (1..=vnets)
                .map(|n| site(n, edge_address, edge_key.public(), now))
                .collect(),
            edge,
            tables,
            wire: Vec::new(),
            strays: 0,
        }
    }

    /// What the client of each vnet has received so far, in order of vnets.
    pub fn received(&self) -> impl Iterator<Item = &[u8]> {
        self.clients.iter().map(Host::received)
    }

    /// Packets that came out at a place where nobody has that address.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// The edge, for what it counts.
    pub fn edge(&self) -> &Node {
        &self.edge
    }

    /// Gives the edge a datagram that site `index` did not send: an attacker's.
    pub fn inject(&mut self, index: usize, inner: &mut [u8]) {
        let site = &mut self.sites[index];
        site.node.handle_overlay(inner, Offload::NONE, self.now);
        self.drain_site(index);
    }

    /// One millisecond: everybody acts, then everything sent arrives or is lost.
    pub fn round(&mut self) {
        self.now += ROUND;
        for index in 0..self.clients.len() {
            for mut packet in self.clients[index].poll(self.now) {
                self.edge
                    .handle_overlay(&mut packet, Offload::NONE, self.now);
            }
        }
        self.edge.handle_timeout(self.now);
        self.drain_edge();
        for index in 0..self.sites.len() {
            let site = &mut self.sites[index];
            for mut packet in site.origin.poll(self.now) {
                site.node
                    .handle_overlay(&mut packet, Offload::NONE, self.now);
            }
            site.node.handle_timeout(self.now);
            self.drain_site(index);
        }
        for (from, to, mut bytes) in std::mem::take(&mut self.wire) {
            if self.random.next() % 1000 < self.loss_per_mille {
                continue;
            }
            if to == self.edge_address {
                self.edge
                    .handle_underlay(Way::wireguard(from), &mut bytes, self.now);
            } else if let Some(site) = self.sites.iter_mut().find(|site| site.address == to) {
                site.node
                    .handle_underlay(Way::wireguard(from), &mut bytes, self.now);
            }
        }
        self.drain_edge();
        (0..self.sites.len()).for_each(|index| self.drain_site(index));
    }

    fn drain_edge(&mut self) {
        while let Some(transmit) = self.edge.poll_transmit() {
            match transmit {
                Transmit::Underlay {
                    way,
                    segment_size,
                    bytes,
                } => {
                    let from = self.edge_address;
                    let datagrams = bytes.chunks(segment_size);
                    self.wire
                        .extend(datagrams.map(|datagram| (from, way.remote, datagram.to_vec())));
                }
                Transmit::Device {
                    offload, packet, ..
                } => {
                    for packet in packets(packet, offload) {
                        let to = self.clients.iter_mut().find(|host| host.owns(&packet));
                        match to {
                            Some(host) => host.give(packet),
                            None => self.strays += 1,
                        }
                    }
                }
            }
        }
    }

    fn drain_site(&mut self, index: usize) {
        let site = &mut self.sites[index];
        while let Some(transmit) = site.node.poll_transmit() {
            match transmit {
                Transmit::Underlay {
                    way,
                    segment_size,
                    bytes,
                } => {
                    let datagrams = bytes.chunks(segment_size);
                    let address = site.address;
                    self.wire
                        .extend(datagrams.map(|datagram| (address, way.remote, datagram.to_vec())));
                }
                Transmit::Device {
                    offload, packet, ..
                } => {
                    for packet in packets(packet, offload) {
                        if site.origin.owns(&packet) {
                            site.origin.give(packet);
                        } else {
                            self.strays += 1;
                        }
                    }
                }
            }
        }
    }

    /// The source address of a vnet's client.
    pub fn source(&self, vnet: VnetId) -> Option<Ipv4Addr> {
        self.tables.sources.of(vnet)
    }
}

/// A super-packet as the packets that a host without offload would see.
fn packets(packet: &[u8], offload: Offload) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(packet, offload).expect("a node sends well-formed packets");
    let mut buffer = vec![0; 65_535];
    std::iter::from_fn(|| {
        segments
            .next_into(&mut buffer)
            .map(|len| buffer[..len].to_vec())
    })
    .collect()
}

/// Puts one vnet with its tunnel and its route to the origins' prefix into an edge's spec.
fn extend(
    spec: &mut Spec,
    number: u16,
    ours: wireguard::PrivateKey,
    peer: wireguard::PublicKey,
    endpoint: Option<SocketAddr>,
) {
    let (vnet, id) = (VnetId(number), TunnelId(u32::from(number)));
    let prefix = "10.0.0.0/24".parse().expect("a prefix");
    spec.vnets
        .insert(vnet, Vnet::named(format!("customer {number}")));
    spec.tunnels.insert(
        id,
        wireguard_tunnel(vnet, vec![prefix], (ours, peer), endpoint),
    );
    let route = Route::from(Nexthop::Tunnel(id));
    spec.routes.insert(RouteKey { vnet, prefix }, route);
}

fn wireguard_tunnel(
    vnet: VnetId,
    allowed: Vec<ipnet::IpNet>,
    (private_key, peer): (wireguard::PrivateKey, wireguard::PublicKey),
    endpoint: Option<SocketAddr>,
) -> Tunnel {
    let kind = tunnel::Config::WireGuard(wireguard::Config {
        private_key,
        peer,
        preshared_key: None,
        endpoint,
        keepalive: None,
    });
    Tunnel {
        vnet,
        name: "tunnel".into(),
        mtu: MTU,
        allowed,
        interface: Vec::new(),
        health: None,
        kind,
    }
}

/// A site's private key: any 32 bytes that differ.
fn site_key(number: u16) -> wireguard::PrivateKey {
    let mut key = [42; 32];
    key[..2].copy_from_slice(&number.to_be_bytes());
    wireguard::PrivateKey(key)
}

fn site(number: u16, edge: SocketAddr, peer: wireguard::PublicKey, now: Instant) -> Site {
    let vnet = VnetId(1);
    let mut spec = Spec {
        revision: 1,
        ..Spec::default()
    };
    spec.vnets.insert(vnet, Vnet::named("site"));
    let far: Vec<ipnet::IpNet> = vec![source::RANGE_V4.into()];
    let keys = (site_key(number), peer);
    spec.tunnels.insert(
        TunnelId(1),
        wireguard_tunnel(vnet, far.clone(), keys, Some(edge)),
    );
    let routes = [
        (far[0], Nexthop::Tunnel(TunnelId(1))),
        ("10.0.0.0/24".parse().expect("a prefix"), Nexthop::Local),
    ];
    for (prefix, nexthop) in routes {
        spec.routes
            .insert(RouteKey { vnet, prefix }, Route::from(nexthop));
    }
    let [high, low] = number.to_be_bytes();
    let role = Role::Site {
        vnet,
        address: IpAddr::from([10, 0, 0, 1]),
    };
    let config = NodeConfig {
        slice: None,
        node: NodeId(0),
        worker: WorkerId(0),
        workers: Workers::ONE,
        role,
        probe_key: ProbeKey([2; 32]),
        local_ports: None,
        relay: None,
    };
    Site {
        address: SocketAddr::from(([198, 18, high, low], 51820)),
        node: node(config, None, &spec, now).0,
        origin: Host::origin(ORIGIN, PORT, &name(number)),
    }
}

/// What the origin of a vnet says of itself, over and over.
#[must_use]
pub fn name(number: u16) -> String {
    format!("origin of vnet {number:05}\n")
}

/// A node that has applied a spec, and its tables.
fn node(
    config: NodeConfig,
    slice: Option<Slice>,
    spec: &Spec,
    now: Instant,
) -> (Node, Arc<Tables>) {
    let mut programmer = Programmer::new(slice, config.node, config.workers);
    let tables = Arc::clone(programmer.tables());
    let mut node = Node::new(config, Arc::clone(&tables), now);
    let delta = Spec::default().diff(spec);
    let applied = programmer.apply(&delta, &mut |change| node.apply(change, now));
    assert!(
        applied.rejected.is_empty(),
        "the world is refused: {:?}",
        applied.rejected
    );
    (node, tables)
}

/// A small seeded generator (xorshift64): the same seed is the same world.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of the numbers below `end`.
    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a small number");
        usize::try_from(self.next() % end).expect("a small number")
    }
}
