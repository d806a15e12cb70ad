//! A fleet in memory: one edge of several workers, hundreds of tunnels of WireGuard and GRE in dozens
//! of vnets that all use the same addresses, inside and on the interfaces. Sites die and come back, restart, move to
//! other customers, send whatever they like; probes fail flows over. Every packet carries the vnet it
//! was sent in, and wherever one comes out, also as a quotation in an ICMP error, that is compared.
//!
//! In: a seed, and how much of each. Out: [`Report`]. State: [`Fleet`], owned by the test that made it.
//!
//! Handshakes are never lost: boringtun repeats them by its own clock, which does not run as fast.

mod packet;
mod plan;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dataplane::id::{NodeId, TunnelId, VnetId, WorkerId, Workers};
use dataplane::node::{CountersSnapshot, DropReason, Node, NodeConfig, ProbeKey, Role};
use dataplane::packet::{Carrier, Offload, Transmit, Way};
use dataplane::program::health::State;
use dataplane::program::{Programmer, Spec};
use dataplane::source::Slice;

use super::Random;
use packet::{destination, host, host_v6, stamp, stamped, v6_of};
use plan::{NETWORKS, Plan};

/// What one round takes on the fleet's clock.
const ROUND: Duration = Duration::from_millis(50);
/// First byte of a message of WireGuard that carries data.
const DATA: u8 = 4;
/// Turns in which what is under way must have arrived: errors about errors would be a loop.
const TURNS_MAX: u32 = 20;

/// How large, and how bad.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The same seed is the same fleet.
    pub seed: u64,
    /// Private networks.
    pub tunnels: u32,
    /// Customers.
    pub vnets: u16,
    /// Data messages of a thousand that the underlay loses.
    pub loss_per_mille: u64,
    /// Packets that each side sends in a round.
    pub packets: u32,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Packets that came out in another vnet than they were sent in, and packets for nobody.
    pub leaks: Vec<String>,
    /// Packets that came out at sites.
    pub at_sites: u64,
    /// Of these, those that other sites sent.
    pub between_sites: u64,
    /// Packets that came out at the edge.
    pub at_edge: u64,
    /// Groups of candidates that were rewritten because a tunnel's health changed.
    pub failovers: u64,
    /// Times that a tunnel went down.
    pub downs: u64,
    /// Restarts of sites and of the edge, and moves to another vnet.
    pub upheavals: u64,
    /// Packets that the edge dropped for each reason that matters here.
    pub drops: CountersSnapshot,
}

/// A private network and its router.
#[derive(Debug)]
struct Site {
    node: Node,
    address: SocketAddr,
    vnet: VnetId,
    networks: Vec<u8>,
    dead_until: Option<Instant>,
}

/// The edge's workers, and who programs them.
#[derive(Debug)]
struct Edge {
    crew: Vec<Node>,
    programmer: Programmer,
}

/// What is under way between the edge and a site.
#[derive(Debug)]
struct Datagram {
    /// The site's place.
    site: usize,
    is_to_edge: bool,
    carrier: Carrier,
    bytes: Vec<u8>,
}

/// Everything that there is.
#[derive(Debug)]
pub struct Fleet {
    settings: Settings,
    now: Instant,
    random: Random,
    plan: Plan,
    edge: Edge,
    sites: Vec<Site>,
    report: Report,
    /// What edges counted that are no more.
    past: CountersSnapshot,
}

impl Fleet {
    /// A fleet at rest, its sessions made.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let mut random = Random(settings.seed | 1);
        let plan = Plan::new(settings.tunnels, settings.vnets, &mut random);
        let edge = edge(&plan.spec, now);
        let sites = (1..=settings.tunnels).map(|n| site(n, &plan, now));
        let mut fleet = Self {
            sites: sites.collect(),
            settings,
            now,
            random,
            plan,
            edge,
            report: Report::default(),
            past: CountersSnapshot::default(),
        };
        for index in 0..fleet.sites.len() {
            fleet.call_in(index);
            fleet.deliver();
        }
        fleet
    }

    /// What happened so far.
    pub fn report(&mut self) -> &Report {
        let mut drops = self.past.clone();
        for node in &self.edge.crew {
            drops += node.counters().snapshot();
        }
        self.report.drops = drops;
        &self.report
    }

    /// Rounds with everything that can happen.
    pub fn run(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.upheave();
            self.traffic();
            self.round();
        }
    }

    /// Rounds in which nothing bad happens, nor from then on.
    pub fn rest(&mut self, rounds: u32) {
        self.settings.loss_per_mille = 0;
        for site in &mut self.sites {
            site.dead_until = None;
        }
        for _ in 0..rounds {
            self.round();
        }
    }

    /// Tunnels that are not healthy.
    #[must_use]
    pub fn unhealthy(&self) -> Vec<(TunnelId, State)> {
        let all = self
            .edge
            .crew
            .iter()
            .flat_map(|node| node.tunnels(self.now));
        let states = all.filter_map(|tunnel| Some((tunnel.id, tunnel.health?.state)));
        states
            .filter(|(_, state)| *state != State::Healthy)
            .collect()
    }

    /// Sends a packet from each vnet to each of its networks, and says which did not come out at a
    /// site of the lowest priority.
    pub fn misled(&mut self) -> Vec<String> {
        let mut misled = Vec::new();
        for (vnet, network) in self.plan.networks() {
            let best = self.plan.best(vnet, network);
            let Some(source) = self.source(vnet) else {
                misled.push(format!("{vnet} has no source"));
                continue;
            };
            let before: Vec<_> = self.arrivals();
            let to = Ipv4Addr::new(10, 0, network, 9).into();
            self.send_overlay(stamped(source, to, vnet, 4000));
            self.deliver();
            let after = self.arrivals();
            let came_out = before.iter().zip(&after).position(|(a, b)| a != b);
            if !came_out.is_some_and(|index| best.contains(&index)) {
                misled.push(format!(
                    "{vnet} network {network}: {came_out:?} of {best:?}"
                ));
            }
        }
        misled
    }

    fn arrivals(&self) -> Vec<u64> {
        let delivered = |site: &Site| site.node.counters().delivered_packets;
        self.sites.iter().map(delivered).collect()
    }

    fn source(&mut self, vnet: VnetId) -> Option<IpAddr> {
        let worker = self.random.below(self.edge.crew.len());
        let worker = WorkerId(u8::try_from(worker).ok()?);
        let sources = &self.edge.programmer.tables().sources;
        sources.at(vnet, worker).map(IpAddr::from)
    }

    /// The first packet of a site makes the handshake.
    fn call_in(&mut self, index: usize) {
        let site = &self.sites[index];
        let (from, vnet) = (Ipv4Addr::new(10, 0, site.networks[0], 1).into(), site.vnet);
        let to = Ipv4Addr::new(100, 64, 0, 1).into();
        self.send_from_site(index, stamped(from, to, vnet, 1));
    }

    /// What operators, power cuts and customers do.
    fn upheave(&mut self) {
        let index = self.random.below(self.sites.len());
        match self.random.below(60) {
            0..=5 => {
                let secs = 2 + self.random.next() % 6;
                self.sites[index].dead_until = Some(self.now + Duration::from_secs(secs));
            }
            6 => self.restart_site(index),
            7 => {
                self.plan.move_tunnel(index, &mut self.random);
                self.apply();
            }
            8 => {
                self.plan.reroute(&mut self.random);
                self.apply();
            }
            9 if self.random.below(10) == 0 => self.restart_edge(),
            _ => {}
        }
        let now = self.now;
        for site in &mut self.sites {
            site.dead_until = site.dead_until.filter(|until| *until > now);
        }
    }

    fn restart_site(&mut self, index: usize) {
        self.report.upheavals += 1;
        let number = u32::try_from(index + 1).expect("a fleet is small");
        self.sites[index] = site(number, &self.plan, self.now);
        self.call_in(index);
    }

    fn restart_edge(&mut self) {
        self.report.upheavals += 1;
        for node in &self.edge.crew {
            self.past += node.counters().snapshot();
        }
        self.edge = edge(&self.plan.spec, self.now);
        for (index, id) in (0..self.sites.len()).zip((1..).map(TunnelId)) {
            let address = self.sites[index].address;
            for node in &mut self.edge.crew {
                node.hint_endpoint(id, address, self.now);
            }
            self.deliver();
        }
    }

    fn apply(&mut self) {
        let Edge { crew, programmer } = &mut self.edge;
        let delta = programmer.spec().diff(&self.plan.spec);
        let now = self.now;
        let applied = programmer.apply(&delta, &mut |change| {
            crew.iter_mut()
                .try_for_each(|node| node.apply(change.clone(), now))
        });
        assert!(applied.rejected.is_empty(), "{:?}", applied.rejected);
        for (index, id) in (0..self.sites.len()).zip((1..).map(TunnelId)) {
            let is_same = self.sites[index].vnet == self.plan.spec.tunnels[&id].vnet
                && self.sites[index].networks == self.plan.networks_of(id);
            if !is_same {
                self.restart_site(index);
            }
        }
    }

    fn traffic(&mut self) {
        for _ in 0..self.settings.packets {
            let vnet = self.plan.any_vnet(&mut self.random);
            if let Some(from) = self.source(vnet) {
                let network = self.any_network();
                let (from, to) = match self.random.below(4) {
                    0 => (v6_of(from), host_v6(network)),
                    _ => (from, host(network)),
                };
                let port = self.any_port();
                self.send_overlay(stamped(from, to, vnet, port));
            }
            let index = self.random.below(self.sites.len());
            let packet = self.packet_of(index);
            self.send_from_site(index, packet);
        }
    }

    /// Something that a site sends: from its network or from where it has no right to be; to the
    /// edge, to other sites, to other vnets' sources, to interfaces.
    fn packet_of(&mut self, index: usize) -> Vec<u8> {
        let own = self.random.below(self.sites[index].networks.len());
        let (own, vnet) = (self.sites[index].networks[own], self.sites[index].vnet);
        let other = self.plan.any_vnet(&mut self.random);
        let stranger = self.source(other);
        let mine = self.source(vnet);
        let network = self.any_network();
        let from = match self.random.below(10) {
            0 => host(network),
            1 => stranger.unwrap_or_else(|| host(own)),
            _ => host(own),
        };
        let to = match self.random.below(8) {
            0 => stranger,
            1 => Some(Ipv4Addr::new(10, 255, 0, 0).into()),
            2..=4 => Some(host(network)),
            _ => mine,
        };
        let port = self.any_port();
        let to = to.unwrap_or_else(|| host(network));
        if self.random.below(4) == 0 && to != host(network) {
            return stamped(host_v6(own), v6_of(to), vnet, port);
        }
        stamped(from, to, vnet, port)
    }

    fn any_network(&mut self) -> u8 {
        // One more than there are: nobody has the last.
        u8::try_from(self.random.below(usize::from(NETWORKS) + 1)).expect("below a byte")
    }

    fn any_port(&mut self) -> u16 {
        let [high, low, ..] = self.random.next().to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    fn send_overlay(&mut self, mut packet: Vec<u8>) {
        let worker = self.random.below(self.edge.crew.len());
        self.edge.crew[worker].handle_overlay(&mut packet, Offload::NONE, self.now);
    }

    fn send_from_site(&mut self, index: usize, mut packet: Vec<u8>) {
        let node = &mut self.sites[index].node;
        node.handle_overlay(&mut packet, Offload::NONE, self.now);
    }

    fn round(&mut self) {
        self.now += ROUND;
        let now = self.now;
        let sites = self.sites.iter_mut().map(|site| &mut site.node);
        for node in self.edge.crew.iter_mut().chain(sites) {
            if node.poll_timeout().is_some_and(|due| due <= now) {
                node.handle_timeout(now);
            }
        }
        self.deliver();
        for node in &mut self.edge.crew {
            while let Some(change) = node.poll_health() {
                self.report.downs += u64::from(change.state == State::Down);
                let states = [(change.tunnel, change.state)];
                let groups = self.edge.programmer.set_health(&states);
                self.report.failovers += u64::try_from(groups).expect("few groups");
            }
        }
    }

    /// Until nothing is under way.
    fn deliver(&mut self) {
        for _ in 0..TURNS_MAX {
            self.hand_over();
            let sent = self.drain();
            if sent.is_empty() {
                return;
            }
            for datagram in sent {
                self.pass(datagram);
            }
        }
        let circles = "packets go round in circles".to_owned();
        self.report.leaks.push(circles);
    }

    fn hand_over(&mut self) {
        let crew = &mut self.edge.crew;
        for _ in 0..3 {
            for from in 0..crew.len() {
                while let Some((to, mut batch)) = crew[from].poll_handover() {
                    crew[usize::from(to.0)].handle_batch(&mut batch, self.now);
                    crew[from].give_back(batch);
                }
            }
        }
    }

    /// One datagram, unless it is lost. All that GRE carries is data.
    fn pass(&mut self, mut datagram: Datagram) {
        let site = &mut self.sites[datagram.site];
        let bytes = &mut datagram.bytes;
        let is_cut =
            site.dead_until.is_some() || self.random.next() % 1000 < self.settings.loss_per_mille;
        if is_cut && (datagram.carrier == Carrier::Gre || bytes.first() == Some(&DATA)) {
            return;
        }
        let (near, far) = match datagram.is_to_edge {
            true => (plan::edge_address(), site.address),
            false => (site.address, plan::edge_address()),
        };
        let way = if datagram.carrier == Carrier::Gre {
            Way::raw(Carrier::Gre, near.ip(), far.ip())
        } else {
            Way::wireguard(far)
        };
        let node = match datagram.is_to_edge {
            true => {
                let worker = self.random.below(self.edge.crew.len());
                &mut self.edge.crew[worker]
            }
            false => &mut site.node,
        };
        node.handle_underlay(way, bytes, self.now);
    }

    /// Datagrams to be passed on; what comes out is looked at here.
    fn drain(&mut self) -> Vec<Datagram> {
        let mut wire = Vec::new();
        let tables = self.edge.programmer.tables().clone();
        for node in &mut self.edge.crew {
            let mut sent = Vec::new();
            drain(node, &mut sent, |packet| {
                self.report.at_edge += 1;
                let vnet = destination(packet).and_then(|to| tables.sources.vnet(to));
                note(&mut self.report, vnet, "the edge", packet);
            });
            for (way, bytes) in sent {
                let Some(site) = addressee(&self.sites, way, &bytes) else {
                    let leak = format!("a datagram for nobody: {way:?} {bytes:?}");
                    self.report.leaks.push(leak);
                    continue;
                };
                wire.push(Datagram {
                    site,
                    is_to_edge: false,
                    carrier: way.carrier,
                    bytes,
                });
            }
        }
        for (index, site) in self.sites.iter_mut().enumerate() {
            let vnet = site.vnet;
            let mut sent = Vec::new();
            drain(&mut site.node, &mut sent, |packet| {
                self.report.at_sites += 1;
                let is_of_site = packet.get(12) == Some(&10);
                self.report.between_sites += u64::from(is_of_site);
                note(&mut self.report, Some(vnet), "a site", packet);
            });
            wire.extend(sent.into_iter().map(|(way, bytes)| Datagram {
                site: index,
                is_to_edge: true,
                carrier: way.carrier,
                bytes,
            }));
        }
        wire
    }
}

/// The site that the edge's datagram is for: by its address, and where sites share one by GRE's key
/// (RFC 2890 section 2: behind flags and protocol).
fn addressee(sites: &[Site], way: Way, bytes: &[u8]) -> Option<usize> {
    let found = if way.carrier == Carrier::Gre {
        let key = bytes.get(4..8)?.first_chunk::<4>()?;
        usize::try_from(u32::from_be_bytes(*key))
            .ok()?
            .checked_sub(1)
    } else {
        sites.iter().position(|site| site.address == way.remote)
    };
    found.filter(|index| {
        let site = sites.get(*index);
        site.is_some_and(|site| site.address == way.remote)
    })
}

fn drain(node: &mut Node, wire: &mut Vec<(Way, Vec<u8>)>, mut out: impl FnMut(&[u8])) {
    while let Some(transmit) = node.poll_transmit() {
        match transmit {
            Transmit::Underlay {
                way,
                segment_size,
                bytes,
            } => {
                let datagrams = bytes.chunks(segment_size);
                wire.extend(datagrams.map(|one| (way, one.to_vec())));
            }
            Transmit::Device { packet, .. } => out(packet),
        }
    }
}

/// Compares the vnet that a packet was sent in with that where it came out.
fn note(report: &mut Report, vnet: Option<VnetId>, place: &str, packet: &[u8]) {
    let stamp = stamp(packet);
    if stamp.is_none() || stamp != vnet {
        let leak = format!("sent in {stamp:?}, came out at {place} in {vnet:?}: {packet:?}");
        report.leaks.push(leak);
    }
}

fn slice() -> Slice {
    let net = ipnet::Ipv4Net::new(Ipv4Addr::new(100, 64, 0, 0), 20).expect("20 is below 33");
    Slice::new(net).expect("a slice of the range")
}

fn edge(spec: &Spec, now: Instant) -> Edge {
    let workers = Workers::new(3).expect("a few workers");
    let mut programmer = Programmer::new(Some(slice()), NodeId(0), workers);
    let mut crew: Vec<_> = workers
        .iter()
        .map(|worker| {
            let config = NodeConfig {
                slice: Some(slice()),
                node: NodeId(0),
                worker,
                workers,
                role: Role::Edge,
                probe_key: ProbeKey([worker.0; 32]),
                local_ports: None,
                relay: None,
            };
            Node::new(config, programmer.tables().clone(), now)
        })
        .collect();
    let applied = programmer.apply(&Spec::default().diff(spec), &mut |change| {
        crew.iter_mut()
            .try_for_each(|node| node.apply(change.clone(), now))
    });
    assert!(applied.rejected.is_empty(), "{:?}", applied.rejected);
    Edge { crew, programmer }
}

fn site(number: u32, plan: &Plan, now: Instant) -> Site {
    let tunnel = &plan.spec.tunnels[&TunnelId(number)];
    let networks = plan.networks_of(TunnelId(number));
    let config = NodeConfig {
        slice: None,
        node: NodeId(0),
        worker: WorkerId(0),
        workers: Workers::ONE,
        role: Role::Site {
            vnet: VnetId(1),
            address: host(networks.first().copied().unwrap_or(0)),
        },
        probe_key: ProbeKey([0; 32]),
        local_ports: None,
        relay: None,
    };
    Site {
        node: super::node(config, None, &plan::site(number, &networks), now).0,
        address: plan::site_address(number),
        vnet: tunnel.vnet,
        networks,
        dead_until: None,
    }
}

/// What must have been dropped for a run to mean anything.
pub const MEANT: [DropReason; 4] = [
    DropReason::ReturnVnetMismatch,
    DropReason::SourceNotAllowed,
    DropReason::NoRoute,
    DropReason::InterfaceClosed,
];
