//! What this test program does when it is started inside a namespace: be a router, an origin, a client.

use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use dataplane::fib::{Candidate, Candidates, Nexthop};
use dataplane::id::{NodeId, TunnelId, VnetId, Workers};
use dataplane::io::{Overlay, Router, RouterConfig, TunBackend, TunConfig};
use dataplane::program::{Relay, Route, RouteKey, Spec, Tunnel, Vnet};
use dataplane::source::{RANGE_V4, RANGE_V6, Slice};
use dataplane::tunnel::ipsec::{self, ike};
use dataplane::tunnel::{self, direct, gre, wireguard};
use dataplane::wire::checksum::Sum;
use ipnet::IpNet;

const VNET: VnetId = VnetId(1);
const TUNNEL: TunnelId = TunnelId(1);
/// Of a site, to another edge.
const SECOND: TunnelId = TunnelId(8);

/// Bytes of a bulk transfer.
pub(crate) const BULK: usize = 100_000_000;

/// Plays the role that the environment names.
pub(crate) fn play() {
    match setting("PC_ROLE").as_deref() {
        Some("router") => router(),
        Some("origin") => origin(),
        Some("client") => client(),
        Some("flood") => flood(),
        Some("forge") => forge(),
        other => panic!("no role {other:?}"),
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn say(word: &str, what: &str) {
    println!("\n@{word} {what}");
    std::io::stdout().flush().unwrap();
}

fn router() {
    let is_edge = setting("PC_SIDE").as_deref() == Some("edge");
    let handle = match Router::start(config(is_edge)) {
        Ok(handle) => handle,
        Err(error) => return say("failed", &error.to_string()),
    };
    let endpoint = setting("PC_ENDPOINT").map(|endpoint| endpoint.parse().unwrap());
    let delta = Spec::default().diff(&spec(is_edge, endpoint));
    let applied = handle.apply(&delta);
    assert_eq!(applied.rejected, []);
    say("ready", &applied.revision.to_string());
    for line in std::io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "counters" => {
                let counters = handle.counters().unwrap();
                say("counters", &serde_json::to_string(&counters).unwrap());
            }
            "heap" => say("heap", &crate::allocations::operations().to_string()),
            "tunnels" => say(
                "tunnels",
                &serde_json::to_string(&handle.tunnels()).unwrap(),
            ),
            "endpoints" => say(
                "endpoints",
                &serde_json::to_string(&handle.endpoints()).unwrap(),
            ),
            other => panic!("no command {other}"),
        }
    }
    handle.shutdown();
    assert!(!handle.is_running());
}

fn config(is_edge: bool) -> RouterConfig {
    let backend = match setting("PC_BACKEND").as_deref() {
        Some("plain") => TunBackend::Plain,
        _ => TunBackend::Offload,
    };
    let port = setting("PC_PORT").map_or(51820, |port| port.parse().unwrap());
    let slice = setting("PC_SLICE").unwrap_or_else(|| "100.64.0.0/20".into());
    let overlay = if is_edge {
        Overlay::Edge {
            slice: Slice::new(slice.parse().unwrap()).unwrap(),
            node: NodeId(setting("PC_NODE").map_or(0, |node| node.parse().unwrap())),
        }
    } else {
        Overlay::Site {
            routes: vec![RANGE_V4.into(), RANGE_V6.into()],
            address: "10.0.0.1".parse().unwrap(),
        }
    };
    let listen =
        setting("PC_LISTEN").map_or_else(|| IpAddr::from([0, 0, 0, 0]), |ip| ip.parse().unwrap());
    RouterConfig {
        tun: TunConfig {
            name: "pc0".into(),
            mtu: 1420,
            backend,
        },
        workers: setting("PC_WORKERS").map(|count| Workers::new(count.parse().unwrap()).unwrap()),
        listen: vec![SocketAddr::new(listen, port)],
        ipsec: ipsec(is_edge)
            .map(|config| config.local)
            .into_iter()
            .collect(),
        gre: gre(is_edge)
            .map(|config| config.local)
            .into_iter()
            .collect(),
        relay: setting("PC_RELAY").map(|address| address.parse().unwrap()),
        overlay,
        endpoint_cache: setting("PC_CACHE").map(Into::into),
    }
}

/// The GRE tunnel, where the environment wants one in place of WireGuard, between these addresses.
fn gre(is_edge: bool) -> Option<gre::Config> {
    let ends = setting("PC_GRE")?;
    let (edge, site) = ends.split_once(' ').unwrap();
    let (local, remote) = if is_edge { (edge, site) } else { (site, edge) };
    let (to_site, to_edge) = (Some(7), Some(8));
    Some(gre::Config {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        key_tx: if is_edge { to_site } else { to_edge },
        key_rx: if is_edge { to_edge } else { to_site },
        is_checksummed: true,
        is_sequenced: true,
        keepalive: Some(gre::Keepalive {
            interval_secs: 1,
            retries: 2,
        }),
        ttl: gre::TTL_DEFAULT,
    })
}

/// The IPsec tunnel, where the environment wants one in place of WireGuard, between these addresses, and in UDP where it
/// says so. The site begins.
fn ipsec(is_edge: bool) -> Option<ipsec::Config> {
    let ends = setting("PC_IPSEC")?;
    let mut words = ends.split(' ');
    let (edge, site) = (words.next().unwrap(), words.next().unwrap());
    let ((local, us), (remote, them)) = match is_edge {
        true => ((edge, "edge.example"), (site, "site.example")),
        false => ((site, "site.example"), (edge, "edge.example")),
    };
    let keying = ipsec::IkeKeying {
        psk: ike::Psk(b"a key of both".to_vec()),
        local_identity: us.parse().unwrap(),
        remote_identities: vec![them.parse().unwrap()],
        is_initiator: !is_edge,
        ike: ike::IkeOffer::default(),
        esp: ike::EspOffer::default(),
        local_traffic: ike::everything(),
        remote_traffic: ike::everything(),
        further: Vec::new(),
        times: ike::Times::default(),
    };
    Some(ipsec::Config {
        local: local.parse().unwrap(),
        remote: Some(remote.parse().unwrap()),
        keying: ipsec::Keying::Ike(Box::new(keying)),
        encapsulation: match words.next() {
            Some("udp") => ipsec::Encapsulation::Udp,
            _ => ipsec::Encapsulation::Auto,
        },
        has_replay_protection: true,
    })
}

/// The tunnel between the two, as the environment wants it.
fn kind(is_edge: bool, endpoint: Option<SocketAddr>) -> tunnel::Config {
    let edges = setting("PC_KEY").map_or(1, |key| key.parse().unwrap());
    let keys = [edges, 2].map(|n| wireguard::PrivateKey([n; 32]));
    let (ours, theirs) = if is_edge { (0, 1) } else { (1, 0) };
    match (gre(is_edge), ipsec(is_edge)) {
        (Some(config), _) => tunnel::Config::Gre(config),
        (None, Some(config)) => tunnel::Config::IpSec(config),
        (None, None) => tunnel::Config::WireGuard(wireguard::Config {
            private_key: keys[ours],
            peer: keys[theirs].public(),
            preshared_key: None,
            endpoint,
            keepalive: None,
        }),
    }
}

fn spec(is_edge: bool, endpoint: Option<SocketAddr>) -> Spec {
    let lan = [
        "10.0.0.0/24".parse().unwrap(),
        "fd00:10::/64".parse().unwrap(),
    ];
    let edge = [RANGE_V4.into(), RANGE_V6.into()];
    let tunnel = Tunnel {
        vnet: VNET,
        name: "t".into(),
        mtu: setting("PC_MTU").map_or(1420, |mtu| mtu.parse().unwrap()),
        allowed: if is_edge { lan } else { edge }.to_vec(),
        interface: Vec::new(),
        health: None,
        kind: kind(is_edge, endpoint),
    };
    let route = |prefix, nexthop| (RouteKey { vnet: VNET, prefix }, Route::from(nexthop));
    let mut spec = Spec {
        revision: 1,
        ..Spec::default()
    };
    for (n, address) in (2..).zip(setting("PC_LINKS").iter().flat_map(|all| all.split(' '))) {
        let prefix: IpNet = format!("{address}/32").parse().unwrap();
        let device = format!("pcl{n}");
        let link = Tunnel {
            vnet: VNET,
            name: device.clone(),
            mtu: 1420,
            allowed: vec![prefix],
            interface: Vec::new(),
            health: None,
            kind: tunnel::Config::Direct(direct::Config {
                device,
                medium: direct::Medium::Tun,
            }),
        };
        spec.tunnels.insert(TunnelId(n), link);
        let key = RouteKey { vnet: VNET, prefix };
        spec.routes.insert(key, Nexthop::Tunnel(TunnelId(n)).into());
    }
    if let Some(device) = setting("PC_ETHER") {
        put_port(&mut spec, device);
    }
    spec.vnets.insert(VNET, Vnet::named("v"));
    let id = setting("PC_TUNNEL").map_or(TUNNEL, |id| TunnelId(id.parse().unwrap()));
    spec.tunnels.insert(id, tunnel);
    spec.relays = setting("PC_OTHER").map(other).into_iter().collect();
    if is_edge {
        spec.routes
            .extend(lan.map(|prefix| route(prefix, Nexthop::Tunnel(id))));
    } else {
        spec.routes
            .extend(lan.map(|prefix| route(prefix, Nexthop::Local)));
        spec.routes
            .extend(edge.map(|prefix| route(prefix, Nexthop::Tunnel(id))));
    }
    if let Some(endpoint) = setting("PC_SECOND") {
        put_second(&mut spec, id, endpoint.parse().unwrap());
    }
    spec
}

/// Another edge, by its slice, number and relay.
fn other(setting: String) -> Relay {
    let [net, node, address] = setting.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{setting}");
    };
    Relay {
        net: net.parse().unwrap(),
        node: NodeId(node.parse().unwrap()),
        address: address.parse().unwrap(),
    }
}

/// A tunnel to a second edge, by which packets come in; answers go by the first one.
fn put_second(spec: &mut Spec, first: TunnelId, endpoint: SocketAddr) {
    let mut tunnel = spec.tunnels[&first].clone();
    if let tunnel::Config::WireGuard(config) = &mut tunnel.kind {
        config.peer = wireguard::PrivateKey([3; 32]).public();
        config.endpoint = Some(endpoint);
    }
    spec.tunnels.insert(SECOND, tunnel);
    let candidate = |(priority, id)| Candidate {
        priority,
        ..Candidate::from(Nexthop::Tunnel(id))
    };
    for prefix in [RANGE_V4.into(), RANGE_V6.into()] {
        let both = [(0, first), (100, SECOND)].map(candidate).to_vec();
        let key = RouteKey { vnet: VNET, prefix };
        let candidates = Candidates::new(both).unwrap();
        spec.routes.insert(key, Route { candidates });
    }
}

/// An Ethernet port with a router behind it, and a network behind that.
fn put_port(spec: &mut Spec, device: String) {
    let prefixes: [IpNet; 2] = ["10.7.0.0/24", "fd00:7::/64"].map(|net| net.parse().unwrap());
    let link = Tunnel {
        vnet: VNET,
        name: device.clone(),
        mtu: 1420,
        allowed: prefixes.to_vec(),
        interface: ["10.8.0.0/31", "fd00:8::/127"]
            .map(|net| net.parse().unwrap())
            .to_vec(),
        health: None,
        kind: tunnel::Config::Direct(direct::Config {
            device,
            medium: direct::Medium::Ethernet { vlan: None },
        }),
    };
    spec.tunnels.insert(TunnelId(9), link);
    for prefix in prefixes {
        let key = RouteKey { vnet: VNET, prefix };
        spec.routes.insert(key, Nexthop::Tunnel(TunnelId(9)).into());
    }
}

/// Byte `at` of the bulk: no period that a segment or a buffer could hide behind.
fn byte(at: usize) -> u8 {
    let mixed = at.wrapping_mul(0x9e37_79b9).rotate_left(7) ^ (at >> 11);
    mixed.to_le_bytes()[2]
}

/// Says of packets that were never sent that they were too big: with MTUs that cannot be, and that can.
fn forge() {
    let address = |name| setting(name).unwrap().parse::<Ipv4Addr>().unwrap();
    let (to, about) = (address("PC_TO"), address("PC_ABOUT"));
    let protocol: u8 = setting("PC_PROTOCOL").unwrap().parse().unwrap();
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::RAW,
        Some(socket2::Protocol::ICMPV4),
    )
    .unwrap();
    let mut quoted = vec![0x45, 0, 0x05, 0xc8, 0, 0, 0x40, 0, 60, protocol, 0, 0];
    quoted.extend(to.octets().into_iter().chain(about.octets()));
    if let Some(port) = setting("PC_ESP") {
        if protocol == 17 {
            let port = port.parse::<u16>().unwrap().to_be_bytes();
            quoted.extend([port, port].concat());
            quoted.extend([0x05, 0xb4, 0, 0]);
        }
        // An SPI that may be in use, and a number that is not yet.
        quoted.extend([0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    } else if protocol == 17 {
        let port = 51820_u16.to_be_bytes();
        quoted.extend([port, port].concat());
        // Length, checksum, a data message with an index that may be in use.
        quoted.extend([
            0x05, 0xb4, 0, 0, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
    } else {
        // Key, checksum, sequence number; a packet as many are.
        quoted.extend([0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]);
        quoted.extend([0x45, 0, 0x05, 0x8c, 0, 0, 0x40, 0, 63, 1, 0, 0]);
        quoted.extend([100, 64, 0, 2, 10, 0, 0, 50, 8, 0, 0, 0, 0, 1, 0, 1]);
    }
    for mtu in [68_u16, 600, 1000, 1300] {
        let mut message = vec![3, 4, 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        message.extend(&quoted);
        let sum = Sum::new().bytes(&message).checksum();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        socket
            .send_to(&message, &SocketAddr::from((to, 0)).into())
            .unwrap();
    }
    say("done", "");
}

/// Takes one bulk in and gives one back.
fn origin() {
    let listener = TcpListener::bind("[::]:7000").unwrap();
    say("ready", "");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        expect_bulk(&mut stream);
        send_bulk(&mut stream);
    }
}

/// Sends more datagrams than any buffer on the way holds.
fn flood() {
    let (from, to) = ends();
    let socket = UdpSocket::bind(from).unwrap();
    for _ in 0..40_000 {
        // Who sends too fast hears so now and then, and the datagram is lost.
        drop(socket.send_to(&[0; 1300], to));
    }
    say("done", "");
}

/// Where the environment says that a flow begins and ends.
fn ends() -> (SocketAddr, SocketAddr) {
    let address = |name| -> IpAddr { setting(name).unwrap().parse().unwrap() };
    let from = SocketAddr::new(address("PC_FROM"), 0);
    (from, SocketAddr::new(address("PC_TO"), 7000))
}

/// Sends one bulk from the source address and takes one back.
fn client() {
    let (from, to) = ends();
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(to),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )
    .unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    send_bulk(&mut stream);
    expect_bulk(&mut stream);
    say("done", &BULK.to_string());
}

fn send_bulk(stream: &mut TcpStream) {
    let bulk: Vec<u8> = (0..BULK).map(byte).collect();
    stream.write_all(&bulk).unwrap();
}

fn expect_bulk(stream: &mut TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < BULK {
        let want = buffer.len().min(BULK - at);
        let len = stream.read(&mut buffer[..want]).unwrap();
        assert_ne!(len, 0, "the stream ended at byte {at}");
        for (n, got) in buffer[..len].iter().enumerate() {
            assert_eq!(*got, byte(at + n), "byte {}", at + n);
        }
        at += len;
    }
}
