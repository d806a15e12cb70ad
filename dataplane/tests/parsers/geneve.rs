//! Geneve: it authenticates nobody either. Whatever a relay sends, what comes out is for the one address that is
//! lent, from where a tunnel is, and nothing is sent on.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use dataplane::fib::Nexthop;
use dataplane::id::{NodeId, TunnelId, VnetId, WorkerId, Workers};
use dataplane::node::{Node, NodeConfig, ProbeKey, Role};
use dataplane::packet::{Carrier, Transmit, Way};
use dataplane::program::{Programmer, Relay, RouteKey, Spec, Tunnel, Vnet};
use dataplane::source::{Slice, to_v6};
use dataplane::tunnel::{self, direct};
use dataplane::wire::checksum::Sum;
use dataplane::wire::geneve::{HEADER_LEN, Header};
use dataplane::wire::ip::Inner;

use super::address;

const VNET: VnetId = VnetId(1);
/// The vnet's address in the node's slice.
const SOURCE: [u8; 4] = [100, 64, 0, 2];

fn remote() -> SocketAddr {
    SocketAddr::new(address(0), 6081)
}

/// A packet from behind the tunnel to the source address.
fn inner(is_ipv6: bool) -> Vec<u8> {
    if is_ipv6 {
        let mut packet = vec![0x60, 0, 0, 0, 0, 4, 99, 64];
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50]);
        packet.extend(to_v6(SOURCE.into()).octets());
        packet.extend([1, 2, 3, 4]);
        return packet;
    }
    let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0x40, 0, 64, 99, 0, 0, 10, 0, 0, 50];
    packet.extend(SOURCE);
    let sum = Sum::new().bytes(&packet).checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([1, 2, 3, 4]);
    packet
}

/// What another node might send, by names that say what it is: what ours does, and what the RFC allows besides.
pub(super) fn said() -> Vec<(String, Vec<u8>)> {
    let plain = |is_ipv6| {
        let mut datagram = vec![0; HEADER_LEN];
        let vni = VNET.0.into();
        Header { vni, is_ipv6 }.write(&mut datagram);
        datagram.extend(inner(is_ipv6));
        datagram
    };
    let mut options = plain(false);
    options[0] = 3;
    options.splice(8..8, [1, 2, 3, 1, 9, 9, 9, 9, 1, 2, 4, 0]);
    let mut critical = options.clone();
    (critical[1], critical[10]) = (0x40, 0x83);
    let all = [
        ("ipv4", plain(false)),
        ("ipv6", plain(true)),
        ("options", options),
        ("critical", critical),
    ];
    all.map(|(name, datagram)| (format!("geneve-{name}"), datagram))
        .to_vec()
}

/// The header of whatever it is, read again as it is written.
pub(super) fn parse(bytes: &[u8]) {
    if let Ok((header, at)) = Header::parse(bytes) {
        assert!(at <= bytes.len() && at <= 260, "{header:?}");
        let mut written = [0; HEADER_LEN];
        header.write(&mut written);
        assert_eq!(Header::parse(&written), Ok((header, HEADER_LEN)));
    }
}

/// An edge with one vnet, and another edge that everything seems to come from.
pub(super) struct Target {
    node: Node,
    pub(super) delivered: usize,
}

impl Target {
    pub(super) fn new(now: Instant) -> Self {
        let config = NodeConfig {
            slice: Some(Slice::new("100.64.0.0/20".parse().unwrap()).unwrap()),
            node: NodeId(0),
            worker: WorkerId(0),
            workers: Workers::ONE,
            role: Role::Edge,
            probe_key: ProbeKey([1; 32]),
            local_ports: None,
            relay: Some(address(1)),
        };
        let mut programmer = Programmer::new(config.slice, config.node, config.workers);
        let mut node = Node::new(config, programmer.tables().clone(), now);
        let delta = Spec::default().diff(&spec());
        let applied = programmer.apply(&delta, &mut |change| node.apply(change, now));
        assert_eq!(applied.rejected, []);
        Self { node, delivered: 0 }
    }

    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) {
        let way = Way::udp(Carrier::Relay, address(1), remote());
        self.node.handle_underlay(way, &mut bytes.to_vec(), now);
        while let Some(transmit) = self.node.poll_transmit() {
            let packet = match transmit {
                Transmit::Device { packet, .. } => Some(packet),
                Transmit::Underlay { .. } => None,
            };
            let packet = packet.expect("nothing is sent on");
            let inner = Inner::parse(packet).unwrap();
            let own = [IpAddr::from(SOURCE), to_v6(SOURCE.into()).into()];
            assert!(own.contains(&inner.dst), "{inner:?}");
            self.delivered += 1;
        }
    }
}

fn spec() -> Spec {
    let mut spec = Spec::default();
    spec.vnets.insert(VNET, Vnet::named("v"));
    let prefixes = ["10.0.0.0/24", "fd00::/64"].map(|net| net.parse().unwrap());
    let link = Tunnel {
        vnet: VNET,
        name: "t".into(),
        mtu: 1420,
        allowed: prefixes.to_vec(),
        interface: Vec::new(),
        health: None,
        kind: tunnel::Config::Direct(direct::Config {
            device: "link0".into(),
            medium: direct::Medium::Tun,
        }),
    };
    spec.tunnels.insert(TunnelId(1), link);
    for prefix in prefixes {
        let key = RouteKey { vnet: VNET, prefix };
        spec.routes.insert(key, Nexthop::Tunnel(TunnelId(1)).into());
    }
    spec.relays = vec![Relay {
        net: "100.64.16.0/20".parse().unwrap(),
        node: NodeId(1),
        address: remote(),
    }];
    spec
}
