//! Two edges, a router that sends its answers to either, and whoever is on the network between edges.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, PacketHeaders, PayloadSlice};
use proptest::prelude::*;

use super::world::{End, ip, route, tunnel};
use super::{packet, seal};
use crate::fib::Nexthop;
use crate::id::{NodeId, TunnelId, VnetId, WorkerId, Workers};
use crate::node::{DropReason, NodeConfig, ProbeKey, Role};
use crate::packet::{Carrier, Offload, Segmentation, Way};
use crate::program::{Relay, Spec, Tunnel, Vnet};
use crate::source::{self, Range, Slice};
use crate::tunnel::{self, direct, gre};
use crate::wire::icmp::{ErrorKind, error};
use crate::wire::{ecn, ip as wire};

const OURS: &str = "198.51.100.1";
const THEIRS: &str = "198.51.100.20";
const SLICES: [&str; 2] = ["100.64.0.0/20", "100.64.16.0/20"];
const RELAYS: [&str; 2] = ["10.9.0.1:6081", "10.9.0.2:6081"];
/// Of vnet 1: a device at both edges.
const LINK: TunnelId = TunnelId(9);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A GRE tunnel whose key is its vnet, with the same networks inside and addresses of its own.
fn gre_tunnel(vnet: u16) -> Tunnel {
    Tunnel {
        mtu: 1476,
        interface: vec!["10.255.0.0/31".parse().unwrap()],
        kind: tunnel::Config::Gre(gre::Config {
            local: ip(OURS),
            remote: ip(THEIRS),
            key_tx: Some(vnet.into()),
            key_rx: Some(vnet.into()),
            is_checksummed: false,
            is_sequenced: false,
            keepalive: None,
            ttl: gre::TTL_DEFAULT,
        }),
        ..tunnel(vnet, (1, 2), None, &["10.0.0.0/24", "fd00::/64"])
    }
}

/// What both edges have, and the other one of edge `n`.
fn spec(n: usize) -> Spec {
    let mut spec = Spec::default();
    for vnet in 1..=2 {
        let name = format!("vnet {vnet}");
        spec.vnets.insert(VnetId(vnet), Vnet::named(name));
        let id = TunnelId(vnet.into());
        spec.tunnels.insert(id, gre_tunnel(vnet));
        for net in ["10.0.0.0/24", "fd00::/64"] {
            route(&mut spec, vnet, net, Nexthop::Tunnel(id));
        }
    }
    let link = direct::Config {
        device: "link0".into(),
        medium: direct::Medium::Tun,
    };
    let link = Tunnel {
        kind: tunnel::Config::Direct(link),
        ..tunnel(1, (1, 2), None, &["10.4.0.0/24"])
    };
    spec.tunnels.insert(LINK, link);
    route(&mut spec, 1, "10.4.0.0/24", Nexthop::Tunnel(LINK));
    spec.relays = vec![relay(1 - n)];
    spec
}

fn relay(n: usize) -> Relay {
    Relay {
        net: SLICES[n].parse().unwrap(),
        node: NodeId(u8::try_from(n).unwrap()),
        address: at(RELAYS[n]),
    }
}

fn config(n: usize, workers: u8) -> NodeConfig {
    NodeConfig {
        slice: Some(Slice::new(SLICES[n].parse().unwrap()).unwrap()),
        node: NodeId(u8::try_from(n).unwrap()),
        worker: WorkerId(0),
        workers: Workers::new(workers).unwrap(),
        role: Role::Edge,
        probe_key: ProbeKey([9; 32]),
        local_ports: None,
        relay: Some(at(RELAYS[n]).ip()),
    }
}

/// Edges 0 and 1. Packets come to edge 0 out of its tunnels, and edge 1 owns what they are for.
struct Pair {
    ends: [End; 2],
}

impl Pair {
    fn new(workers: u8) -> Self {
        let end = |n| End::of(at(RELAYS[n]), &config(n, workers), &spec(n));
        Self {
            ends: [end(0), end(1)],
        }
    }

    /// The source address of a vnet at an edge, of the family of `like`.
    fn source(&self, n: usize, vnet: u16, like: &str) -> IpAddr {
        let sources = &self.ends[n].program.tables().sources;
        let v4 = sources.of(VnetId(vnet)).unwrap();
        if like.contains(':') {
            source::to_v6(v4).into()
        } else {
            v4.into()
        }
    }

    /// A packet out of a vnet's tunnel at edge 0: what that sends.
    fn out_of_tunnel(&mut self, vnet: u8, packet: &[u8]) -> Vec<(Way, Vec<u8>)> {
        let family = if packet[0] >> 4 == 6 {
            [0x86, 0xdd]
        } else {
            [8, 0]
        };
        let mut datagram = [&[0x20, 0][..], &family, &[0, 0, 0, vnet], packet].concat();
        let way = Way::raw(Carrier::Gre, ip(OURS), ip(THEIRS));
        let edge = &mut self.ends[0];
        let now = edge.now;
        edge.crew[0].handle_underlay(way, &mut datagram, now);
        edge.sent_by()
    }

    /// A datagram from somebody at the relay of edge 1: what that delivers. It sends nothing on.
    fn at_relay(&mut self, from: &str, class: u8, datagram: &[u8]) -> Vec<Vec<u8>> {
        let (mut datagram, edge) = (datagram.to_vec(), &mut self.ends[1]);
        let way = Way {
            class,
            ..Way::udp(Carrier::Relay, at(RELAYS[1]).ip(), at(from))
        };
        let now = edge.now;
        edge.next().handle_underlay(way, &mut datagram, now);
        assert_eq!(edge.sent_by(), [], "handed over twice");
        std::mem::take(&mut edge.overlay)
    }

    /// Nothing becomes of a datagram from edge 0 but a count.
    fn assert_dropped(&mut self, datagram: &[u8], reason: DropReason) {
        let before = self.ends[1].dropped(reason);
        let got = self.at_relay(RELAYS[0], 0, datagram);
        assert!(got.is_empty(), "{got:?}");
        assert_eq!(self.ends[1].dropped(reason), before + 1, "{reason:?}");
    }
}

/// RFC 8926 section 3.4 by hand.
fn in_geneve(network: u32, packet: &[u8]) -> Vec<u8> {
    let family = if packet.first().is_some_and(|first| first >> 4 == 6) {
        [0x86, 0xdd]
    } else {
        [8, 0]
    };
    let [_, a, b, c] = network.to_be_bytes();
    [&[0, 0][..], &family, &[a, b, c, 0], packet].concat()
}

#[test]
fn an_answer_at_the_wrong_edge_goes_to_the_owner_as_it_is_and_is_delivered_there() {
    for workers in [1, 3] {
        let mut pair = Pair::new(workers);
        for (vnet, from) in [
            (1, "10.0.0.50"),
            (2, "10.0.0.50"),
            (1, "fd00::50"),
            (2, "fd00::50"),
        ] {
            let back = packet(ip(from), pair.source(1, vnet, from), 99, b"an answer");
            let sent = pair.out_of_tunnel(u8::try_from(vnet).unwrap(), &back);
            let way = Way::udp(Carrier::Relay, at(RELAYS[0]).ip(), at(RELAYS[1]));
            assert_eq!(sent, [(way, in_geneve(vnet.into(), &back))]);
            assert!(pair.ends[0].overlay.is_empty());
            let got = pair.at_relay(RELAYS[0], 0, &sent[0].1);
            assert_eq!(got, [back], "not a hop: the TTL stays");
        }
        let counted = |end: &End| {
            [
                end.count(|counters| counters.relay_tx_packets),
                end.count(|counters| counters.relay_rx_packets),
                end.count(|counters| counters.delivered_packets),
            ]
        };
        assert_eq!(pair.ends.each_ref().map(counted), [[4, 0, 0], [0, 4, 4]]);
        let bytes =
            |end: &End| end.count(|counters| counters.relay_tx_bytes + counters.relay_rx_bytes);
        assert_eq!(pair.ends.each_ref().map(bytes), [2 * (29 + 49); 2]);
    }
}

#[test]
fn between_edges_a_source_address_is_as_it_was_lent_whatever_its_vnet_sees() {
    let mut pair = Pair::new(1);
    let range = Range::new("10.240.0.0/12".parse().unwrap()).unwrap();
    for end in &mut pair.ends {
        let mut spec = end.program.spec().clone();
        spec.vnets.get_mut(&VnetId(1)).unwrap().range = range;
        end.apply(&spec);
    }
    let lent = pair.source(1, 1, ".");
    let IpAddr::V4(lent_v4) = lent else {
        panic!("IPv4");
    };
    let from_origin = |to| packet(ip("10.0.0.50"), to, 99, b"an answer");
    let sent = pair.out_of_tunnel(1, &from_origin(range.seen(lent_v4).into()));
    assert_eq!(sent[0].1, in_geneve(1, &from_origin(lent)));
    let got = pair.at_relay(RELAYS[0], 0, &sent[0].1);
    assert_eq!(got, [from_origin(lent)]);
    // By its plain name it is nobody's in that vnet, and by its new one nobody's in the other.
    let is_relayed = |(way, _): &(Way, Vec<u8>)| way.carrier == Carrier::Relay;
    let seen = range.seen(lent_v4).into();
    for (vnet, to) in [(1, lent), (2, seen)] {
        let sent = pair.out_of_tunnel(vnet, &from_origin(to));
        assert!(!sent.iter().any(is_relayed), "it has no route there");
    }
    let seen = in_geneve(1, &from_origin(seen));
    pair.assert_dropped(&seen, DropReason::RelayNotOurs);
}

#[test]
fn answers_of_one_length_leave_as_one_train() {
    let mut pair = Pair::new(1);
    let back = packet(ip("10.0.0.50"), pair.source(1, 1, "."), 99, &[7; 1300]);
    let edge = &mut pair.ends[0];
    let (way, now) = (Way::raw(Carrier::Gre, ip(OURS), ip(THEIRS)), edge.now);
    for _ in 0..40 {
        let mut datagram = [&[0x20, 0, 8, 0, 0, 0, 0, 1][..], &back].concat();
        edge.crew[0].handle_underlay(way, &mut datagram, now);
    }
    let mut trains = 0;
    while edge.crew[0].poll_transmit().is_some() {
        trains += 1;
    }
    assert_eq!(trains, 1);
}

#[test]
fn what_is_for_another_vnet_is_dropped_by_the_owner_who_alone_can_know() {
    let mut pair = Pair::new(3);
    for from in ["10.0.0.50", "fd00::50"] {
        for (vnet, other) in [(1_u8, 2), (2, 1)] {
            let back = packet(ip(from), pair.source(1, other, from), 99, b"");
            let sent = pair.out_of_tunnel(vnet, &back);
            assert_eq!(sent.len(), 1);
            pair.assert_dropped(&sent[0].1, DropReason::ReturnVnetMismatch);
        }
    }
}

#[test]
fn a_source_that_may_not_come_out_of_the_tunnel_is_not_handed_over() {
    let mut pair = Pair::new(1);
    for (from, reason) in [
        ("10.4.0.50", DropReason::SourceNotAllowed),
        ("192.0.2.1", DropReason::SourceNotAllowed),
        ("100.64.16.2", DropReason::SourceNotAllowed),
        ("127.0.0.1", DropReason::NotUnicast),
    ] {
        let forged = packet(ip(from), pair.source(1, 1, from), 99, b"");
        assert_eq!(pair.out_of_tunnel(1, &forged), []);
        assert_eq!(pair.ends[0].dropped(reason), 1, "{from}");
        pair.ends[0] = End::of(at(RELAYS[0]), &config(0, 1), &spec(0));
    }
}

#[test]
fn nobody_but_a_relay_is_heard_there() {
    let mut pair = Pair::new(1);
    let good = in_geneve(1, &packet(ip("10.0.0.50"), pair.source(1, 1, "."), 99, b""));
    let strangers = [
        "10.9.0.3:6081",
        // The same machine, another program.
        "10.9.0.1:40000",
        // Itself.
        "10.9.0.2:6081",
        "[fd00:9::1]:6081",
    ];
    for from in strangers {
        assert!(pair.at_relay(from, 0, &good).is_empty(), "{from}");
    }
    assert_eq!(pair.ends[1].dropped(DropReason::RelayStranger), 4);
    assert_eq!(pair.at_relay(RELAYS[0], 0, &good).len(), 1);
    // A node that is gone.
    let mut alone = spec(1);
    alone.relays.clear();
    pair.ends[1].apply(&alone);
    pair.assert_dropped(&good, DropReason::RelayStranger);
}

#[test]
fn a_datagram_that_says_something_else_than_the_truth_is_dropped() {
    let mut pair = Pair::new(3);
    let own = pair.source(1, 1, ".");
    let good = packet(ip("10.0.0.50"), own, 99, b"good");
    let to = |destination: &str| packet(ip("10.0.0.50"), ip(destination), 99, b"");
    let from = |source: &str| packet(ip(source), pair.source(1, 1, source), 99, b"");
    let cases = [
        // Another vnet's network, none's, and one that a vnet's number is the low half of.
        (in_geneve(2, &good), DropReason::ReturnVnetMismatch),
        (in_geneve(77, &good), DropReason::ReturnVnetMismatch),
        (in_geneve(0, &good), DropReason::ReturnVnetMismatch),
        (in_geneve(0x01_0001, &good), DropReason::ReturnVnetMismatch),
        // Ours, but lent to nobody.
        (in_geneve(1, &to("100.64.16.1")), DropReason::ReturnUnknown),
        (
            in_geneve(1, &to("100.64.31.254")),
            DropReason::ReturnUnknown,
        ),
        // Not ours: of the sender, of a third node, of no node, of a private network.
        (in_geneve(1, &to("100.64.0.2")), DropReason::RelayNotOurs),
        (in_geneve(1, &to("100.64.32.2")), DropReason::RelayNotOurs),
        (in_geneve(1, &to("192.0.2.1")), DropReason::RelayNotOurs),
        (in_geneve(1, &to("10.4.0.1")), DropReason::RelayNotOurs),
        (in_geneve(1, &to("224.0.0.1")), DropReason::NotUnicast),
        // From where no tunnel of the vnet is.
        (
            in_geneve(1, &from("192.0.2.1")),
            DropReason::SourceNotRouted,
        ),
        (
            in_geneve(1, &from("fd00:4::1")),
            DropReason::SourceNotRouted,
        ),
        (
            in_geneve(1, &from("100.64.0.2")),
            DropReason::SourceNotRouted,
        ),
        (
            in_geneve(1, &from("100.64.16.3")),
            DropReason::SourceNotRouted,
        ),
        (
            in_geneve(1, &from("10.255.0.1")),
            DropReason::SourceNotRouted,
        ),
        (in_geneve(1, &from("127.0.0.1")), DropReason::NotUnicast),
        // No packet, half of one, no header.
        (in_geneve(1, &[]), DropReason::Malformed),
        (in_geneve(1, &good[..23]), DropReason::Malformed),
        (
            in_geneve(1, &good)[..7].to_vec(),
            DropReason::DatagramMalformed,
        ),
        (
            in_geneve(1, &good)[..1].to_vec(),
            DropReason::DatagramMalformed,
        ),
    ];
    for (datagram, reason) in cases {
        pair.assert_dropped(&datagram, reason);
    }
    // IPv4 that is said to be IPv6, and what the header must not have.
    for (byte, value) in [(2, 0x86), (0, 0x40), (1, 0x80), (1, 0x40), (0, 1)] {
        let mut datagram = in_geneve(1, &good);
        datagram[byte] = value;
        if byte == 2 {
            datagram[3] = 0xdd;
        }
        pair.assert_dropped(&datagram, DropReason::DatagramMalformed);
    }
    assert_eq!(pair.at_relay(RELAYS[0], 0, &in_geneve(1, &good)), [good]);
}

#[test]
fn two_edges_that_each_take_the_other_for_the_owner_send_a_packet_once() {
    let mut pair = Pair::new(1);
    for n in 0..2 {
        let mut spec = spec(n);
        spec.relays.push(Relay {
            net: "100.64.32.0/20".parse().unwrap(),
            ..relay(1 - n)
        });
        pair.ends[n].apply(&spec);
    }
    let lost = packet(ip("10.0.0.50"), ip("100.64.32.2"), 99, b"");
    let sent = pair.out_of_tunnel(1, &lost);
    assert_eq!(sent.len(), 1);
    pair.assert_dropped(&sent[0].1, DropReason::RelayNotOurs);
}

#[test]
fn without_a_relay_of_ones_own_or_of_the_same_family_nothing_is_handed_over() {
    for own in [None, Some(ip("fd00:9::1"))] {
        let mut pair = Pair::new(1);
        let alone = NodeConfig {
            relay: own,
            ..config(0, 1)
        };
        pair.ends[0] = End::of(at(RELAYS[0]), &alone, &spec(0));
        let back = packet(ip("10.0.0.50"), pair.source(1, 1, "."), 99, b"");
        assert_eq!(pair.out_of_tunnel(1, &back), []);
        assert_eq!(pair.ends[0].dropped(DropReason::ReturnOtherNode), 1);
    }
}

#[test]
fn congestion_between_edges_shows_inside_or_the_packet_is_dropped() {
    let mut pair = Pair::new(1);
    for (inner, outer, expected) in [
        (ecn::ECT_0, ecn::CE, Some(ecn::CE)),
        (ecn::ECT_0, ecn::ECT_0, Some(ecn::ECT_0)),
        (ecn::CE, ecn::NOT_ECT, Some(ecn::CE)),
        (ecn::NOT_ECT, ecn::CE, None),
    ] {
        let mut back = packet(ip("10.0.0.50"), pair.source(1, 1, "."), 99, b"");
        back[1] = 0xb8 | inner;
        seal(&mut back);
        let sent = pair.out_of_tunnel(1, &back);
        // The field goes out with the outer header, and so does the DSCP.
        assert_eq!(sent[0].0.class, 0xb8 | inner);
        let got = pair.at_relay(RELAYS[0], 0xb8 | outer, &sent[0].1);
        let field = got.first().map(|packet| {
            assert!(wire::Inner::parse(packet).is_ok());
            packet[1]
        });
        assert_eq!(field, expected.map(|ecn| 0xb8 | ecn));
    }
    assert_eq!(pair.ends[1].dropped(DropReason::Congestion), 1);
}

#[test]
fn an_error_of_a_tunnels_far_side_passes_if_it_is_about_a_packet_of_the_receivers() {
    let mut pair = Pair::new(1);
    let source = pair.source(1, 1, ".");
    let said = |about: IpAddr, to: IpAddr| {
        let about = packet(about, ip("10.0.0.50"), 17, &[7; 64]);
        let mut out = [0; 1280];
        let len = error(ErrorKind::TimeExceeded, &about, ip("10.255.0.1"), &mut out).unwrap();
        let IpAddr::V4(to) = to else { panic!("IPv4") };
        out[16..20].copy_from_slice(&to.octets());
        seal(&mut out);
        out[..len].to_vec()
    };
    let good = said(source, source);
    let sent = pair.out_of_tunnel(1, &good);
    assert_eq!(pair.at_relay(RELAYS[0], 0, &sent[0].1), [good]);
    // About the other vnet's packet: neither edge lets it pass.
    let other = said(pair.source(1, 2, "."), source);
    assert_eq!(pair.out_of_tunnel(1, &other), []);
    pair.assert_dropped(&in_geneve(1, &other), DropReason::SourceNotRouted);
    // From an address of the edges.
    let mut edges = said(source, source);
    edges[12..16].copy_from_slice(&[100, 64, 0, 1]);
    seal(&mut edges);
    pair.assert_dropped(&in_geneve(1, &edges), DropReason::SourceNotRouted);
}

/// What a router says of a packet that is too long comes by the wrong edge, and the right one keeps it from its kernel.
#[test]
fn what_a_router_says_of_a_path_is_learnt_by_the_edge_that_it_is_for() {
    let mut pair = Pair::new(1);
    let source = pair.source(1, 1, ".");
    let IpAddr::V4(from) = source else {
        panic!("IPv4");
    };
    let learnt = |pair: &Pair| pair.ends[1].count(|counters| counters.path_reports_inside);
    let said = |to: [u8; 4]| {
        let mut about = Vec::new();
        let builder = PacketBuilder::ipv4(from.octets(), to, 64).tcp(40_000, 80, 7, 1000);
        builder.write(&mut about, &[7; 1360]).unwrap();
        let mut out = [0; 1280];
        let kind = ErrorKind::PacketTooBig { mtu: 1000 };
        let len = error(kind, &about, ip("10.0.0.1"), &mut out).unwrap();
        out[..len].to_vec()
    };
    let sent = pair.out_of_tunnel(1, &said([10, 0, 0, 50]));
    assert_eq!(pair.at_relay(RELAYS[0], 0, &sent[0].1), [] as [Vec<u8>; 0]);
    assert_eq!(learnt(&pair), 1);
    // Of a host that no tunnel of the vnet has.
    let sent = pair.out_of_tunnel(1, &said([10, 77, 0, 50]));
    assert_eq!(pair.at_relay(RELAYS[0], 0, &sent[0].1), [] as [Vec<u8>; 0]);
    assert_eq!(learnt(&pair), 1);
}

#[test]
fn a_super_packet_of_a_direct_link_goes_over_in_the_pieces_that_travel() {
    let mut pair = Pair::new(1);
    let IpAddr::V4(source) = pair.source(1, 1, ".") else {
        panic!("IPv4");
    };
    let payload: Vec<u8> = (0..5000_u16).map(|n| n.to_be_bytes()[1]).collect();
    let mut whole = Vec::new();
    PacketBuilder::ipv4([10, 4, 0, 50], source.octets(), 64)
        .tcp(443, 50_000, 7, 1000)
        .write(&mut whole, &payload)
        .unwrap();
    let offload = Offload {
        segmentation: Segmentation::Tcp,
        segment_size: 1380,
        checksum: None,
    };
    let edge = &mut pair.ends[0];
    let now = edge.now;
    let passed = edge.crew[0].handle_link(LINK, (&mut whole[..], offload), now);
    assert_eq!(passed, None, "nothing leaves by a device");
    let sent = edge.sent_by();
    assert_eq!(sent.len(), 4);
    assert_eq!(edge.count(|counters| counters.relay_tx_packets), 4);
    let mut arrived = Vec::new();
    for (way, datagram) in sent {
        assert_eq!(way.remote, at(RELAYS[1]));
        for packet in pair.at_relay(RELAYS[0], 0, &datagram) {
            let headers = PacketHeaders::from_ip_slice(&packet).unwrap();
            let PayloadSlice::Tcp(piece) = headers.payload else {
                panic!("TCP");
            };
            arrived.extend_from_slice(piece);
        }
    }
    assert_eq!(arrived, payload);
    // One that no datagram holds.
    let mut long = packet(ip("10.4.0.50"), source.into(), 99, &[0; 12_000]);
    let edge = &mut pair.ends[0];
    let passed = edge.crew[0].handle_link(LINK, (&mut long[..], Offload::NONE), now);
    assert_eq!((passed, edge.sent_by()), (None, Vec::new()));
    assert_eq!(edge.dropped(DropReason::TooBig), 1);
}

#[test]
fn what_comes_for_a_userspace_flow_reaches_the_worker_that_has_it() {
    let mut pair = Pair::new(3);
    let sources = &pair.ends[1].program.tables().sources;
    let of_last: IpAddr = sources.at(VnetId(1), WorkerId(2)).unwrap().into();
    let datagram = in_geneve(1, &packet(ip("10.0.0.50"), of_last, 99, b"for the last"));
    for node in &mut pair.ends[1].crew {
        node.deliver_by_owner();
    }
    for _ in 0..3 {
        assert_eq!(pair.at_relay(RELAYS[0], 0, &datagram).len(), 1);
    }
    assert_eq!(pair.ends[1].count(|counters| counters.handed_over), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever comes out of a vnet's tunnel at one edge, and whatever of that another program changes on the
    /// network between edges but for the vnet's number: what an edge delivers is for an address of that vnet.
    #[test]
    fn nothing_crosses_between_vnets_on_the_way_between_edges(
        packets in prop::collection::vec(
            (1..=2_u8, 0..6_usize, 0..8_usize, any::<bool>(), any::<u8>(),
             prop::option::of((7..60_usize, any::<u8>()))),
            1..100,
        ),
        workers in 1..=3_u8,
    ) {
        let mut pair = Pair::new(workers);
        let from = ["10.0.0.50", "10.4.0.9", "100.64.0.2", "100.64.16.2", "10.255.0.1", "192.0.2.1"];
        for (vnet, src, dst, is_v6, protocol, damage) in packets {
            let mut src = ip(from[src]);
            let all = [(0, 1), (0, 2), (1, 1), (1, 2)];
            let mut dst = match all.get(dst) {
                Some((n, vnet)) => pair.source(*n, *vnet, "."),
                None => ip(["100.64.16.1", "100.64.17.9", "100.64.32.2", "10.0.0.9"][dst - 4]),
            };
            if is_v6 {
                let to_v6 = |address: IpAddr| -> IpAddr { match address {
                    IpAddr::V4(v4) if source::is_source(address) => source::to_v6(v4).into(),
                    IpAddr::V4(v4) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, v4.octets()[3].into()]),
                    IpAddr::V6(_) => address,
                } };
                (src, dst) = (to_v6(src), to_v6(dst));
            }
            let sent = packet(src, dst, protocol, &[b'A' + vnet; 40]);
            let mut arrived = [Vec::new(), Vec::new()];
            for (way, mut datagram) in pair.out_of_tunnel(vnet, &sent) {
                if way.carrier == Carrier::Relay {
                    if let Some((at, value)) = damage {
                        datagram[at] = value;
                        if datagram[8] >> 4 == 4 { seal(&mut datagram[8..]); }
                    }
                    arrived[1] = pair.at_relay(RELAYS[0], 0, &datagram);
                }
            }
            arrived[0] = std::mem::take(&mut pair.ends[0].overlay);
            for (n, got) in arrived.iter().enumerate() {
                for packet in got {
                    let inner = wire::Inner::parse(packet).unwrap();
                    let owner = pair.ends[n].program.tables().sources.vnet(inner.dst);
                    prop_assert_eq!(owner, Some(VnetId(vnet.into())), "edge {}: {:?}", n, inner);
                }
            }
        }
    }
}
