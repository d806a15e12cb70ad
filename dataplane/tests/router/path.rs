//! Paths under tunnels that take less than the tunnel would send: what their routers say is heard, and what
//! strangers say in their place is not.

use crate::namespaces::{packets, router};
use crate::role;
use crate::world::{ORIGIN, ORIGIN_V6, Process, SOURCE, SOURCE_V6, World};

/// Where the edge is reached over the router in the middle, and the site.
const EDGE: &str = "198.18.1.1";
const SITE: &str = "198.18.2.11";

/// Edge and site with a router between them.
fn world() -> World {
    let mut world = World::new(1500);
    world.add("mid");
    world.cable(("edge", "left"), ("mid", "left"));
    world.cable(("mid", "right"), ("site", "right"));
    for (side, command) in [
        ("edge", "ip addr add 198.18.1.1/24 dev left"),
        ("edge", "ip link set left up"),
        ("edge", "ip route add 198.18.2.0/24 via 198.18.1.2"),
        ("mid", "ip addr add 198.18.1.2/24 dev left"),
        ("mid", "ip link set left up"),
        ("mid", "ip addr add 198.18.2.1/24 dev right"),
        ("mid", "ip link set right up"),
        (
            "mid",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        ),
        ("site", "ip addr add 198.18.2.11/24 dev right"),
        ("site", "ip link set right up"),
        ("site", "ip route add 198.18.1.0/24 via 198.18.2.1"),
        ("edge", "ip addr add 2001:db8:a::1/64 dev left nodad"),
        ("mid", "ip addr add 2001:db8:a::2/64 dev left nodad"),
        ("mid", "ip addr add 2001:db8:b::2/64 dev right nodad"),
        ("site", "ip addr add 2001:db8:b::11/64 dev right nodad"),
        ("edge", "ip route add 2001:db8:b::/64 via 2001:db8:a::2"),
        ("site", "ip route add 2001:db8:a::/64 via 2001:db8:b::2"),
    ] {
        world.run(side, command);
    }
    world
}

/// Whole packets of 1420 bytes through the tunnel: whether they arrived, and what ping said.
fn ping(world: &World, (from, to): (&str, &str), bytes: usize) -> (bool, String) {
    let header = if from.contains(':') { 48 } else { 28 };
    let len = bytes - header;
    let command = format!("ping -n -M do -c 4 -i 0.3 -W 1 -s {len} -I {from} {to}");
    let output = world.output("edge", &command);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// The path is wide, strangers say that it is not, then it is narrow and its router says so.
fn strangers_and_routers(
    world: &World,
    edge: &mut Process,
    (protocol, esp): (&str, Option<&str>),
    fits: usize,
) {
    let v4 = (SOURCE, ORIGIN);
    let (arrived, said) = ping(world, v4, 1420);
    assert!(arrived, "{said}");
    let mut forged = vec![
        ("PC_TO", EDGE),
        ("PC_ABOUT", SITE),
        ("PC_PROTOCOL", protocol),
    ];
    forged.extend(esp.map(|port| ("PC_ESP", port)));
    world.start("mid", "forge", &forged).line("done");
    let (arrived, said) = ping(world, v4, 1420);
    assert!(arrived && !said.contains("mtu"), "{said}");
    let counters = edge.ask("counters");
    assert_eq!(packets(&counters, "path_reports"), 0, "{counters}");
    assert!(
        packets(&counters, "path_reports_ignored") >= 4,
        "{counters}"
    );
    narrow(world, edge, (1420, fits));
}

/// The path becomes narrow, and its router says so.
fn narrow(world: &World, edge: &mut Process, (whole, fits): (usize, usize)) {
    let v4 = (SOURCE, ORIGIN);
    // Of the next link, and of the one after it.
    world.run("mid", "ip link set right mtu 1400");
    world.run("site", "ip link set right mtu 1400");
    assert_eq!(mtu(edge), whole);
    let (_, said) = ping(world, v4, whole);
    assert!(
        said.contains(&format!("mtu = {fits}")) || said.contains(&format!("mtu={fits}")),
        "{said}"
    );
    let (arrived, said) = ping(world, v4, fits);
    assert!(arrived, "{said}");
    let (_, said) = ping(world, (SOURCE_V6, ORIGIN_V6), whole);
    assert!(
        said.contains(&format!("mtu={fits}")) || said.contains(&format!("mtu = {fits}")),
        "{said}"
    );
    assert_ne!(packets(&edge.ask("counters"), "path_reports"), 0);
    assert_eq!(mtu(edge), fits);
    let mut origin = world.start("site", "origin", &[]);
    origin.line("ready");
    for (from, to) in [v4, (SOURCE_V6, ORIGIN_V6)] {
        let mut client = world.start("edge", "client", &[("PC_FROM", from), ("PC_TO", to)]);
        assert_eq!(client.line("done"), role::BULK.to_string());
    }
}

/// What `show tunnels` says of the tunnel.
fn mtu(edge: &mut Process) -> usize {
    let tunnels: serde_json::Value = serde_json::from_str(&edge.ask("tunnels")).unwrap();
    let mtu = tunnels[0]["mtu"].as_u64().unwrap();
    usize::try_from(mtu).unwrap()
}

#[test]
fn wireguard_learns_a_narrow_path_from_its_router_and_not_from_strangers() {
    let world = world();
    let settings = [("PC_WORKERS", "2"), ("PC_TUNNEL", "2")];
    let mut edge = router(&world, "edge", &settings);
    edge.line("ready");
    let endpoint = format!("{EDGE}:51820");
    let mut site = router(&world, "site", &[("PC_ENDPOINT", &endpoint)]);
    site.line("ready");
    world.run("site", &format!("ping -c 1 -w 10 -I {ORIGIN} {SOURCE}"));
    // 1400 less IPv4, UDP and WireGuard, down to a multiple of its padding.
    strangers_and_routers(&world, &mut edge, ("17", None), 1328);
    edge.stop();
    site.stop();
}

#[test]
fn gre_learns_a_narrow_path_from_its_router_and_not_from_strangers() {
    let world = world();
    let ends = format!("{EDGE} {SITE}");
    let settings = [("PC_GRE", ends.as_str()), ("PC_WORKERS", "2")];
    let mut edge = router(&world, "edge", &settings);
    edge.line("ready");
    let mut site = router(&world, "site", &settings[..1]);
    site.line("ready");
    // 1400 less IPv4, and GRE with checksum, key and number.
    strangers_and_routers(&world, &mut edge, ("47", None), 1364);
    edge.stop();
    site.stop();
}

#[test]
fn wireguard_over_ipv6_learns_a_narrow_path_from_its_router() {
    let world = world();
    let listen = ("PC_LISTEN", "::");
    let mut edge = router(&world, "edge", &[listen, ("PC_WORKERS", "2")]);
    edge.line("ready");
    let endpoint = ("PC_ENDPOINT", "[2001:db8:a::1]:51820");
    let mut site = router(&world, "site", &[listen, endpoint]);
    site.line("ready");
    world.run("site", &format!("ping -c 1 -w 10 -I {ORIGIN} {SOURCE}"));
    // 1400 less IPv6, UDP and WireGuard, down to a multiple of its padding.
    narrow(&world, &mut edge, (1420, 1312));
    edge.stop();
    site.stop();
}

/// Edge and site with IPsec of this MTU between these addresses, up.
fn ipsec(world: &World, ends: &str, mtu: usize) -> (Process, Process) {
    let mtu = mtu.to_string();
    let settings = [("PC_IPSEC", ends), ("PC_MTU", mtu.as_str())];
    // With three workers it may be any one's; each hears what routers report.
    let of_edge = [&settings[..], &[("PC_WORKERS", "3")]].concat();
    let mut edge = router(world, "edge", &of_edge);
    edge.line("ready");
    let mut site = router(world, "site", &settings);
    site.line("ready");
    world.run("site", &format!("ping -c 1 -w 10 -I {ORIGIN} {SOURCE}"));
    (edge, site)
}

/// Whether the tunnel's packets go in UDP.
fn is_in_udp(edge: &mut Process) -> bool {
    let tunnels: serde_json::Value = serde_json::from_str(&edge.ask("tunnels")).unwrap();
    tunnels[0]["ipsec"]["children"][0]["is_in_udp"]
        .as_bool()
        .unwrap()
}

#[test]
fn ipsec_as_protocol_50_learns_a_narrow_path_from_its_router_and_not_from_strangers() {
    let world = world();
    let (mut edge, site) = ipsec(&world, &format!("{EDGE} {SITE}"), 1420);
    assert!(!is_in_udp(&mut edge));
    // 1400 less IPv4, SPI and number, initialization vector, ICV; then a multiple of four with two bytes of
    // trailer (RFC 4303, RFC 4106).
    strangers_and_routers(&world, &mut edge, ("50", Some("0")), 1346);
    edge.stop();
    site.stop();
}

#[test]
fn ipsec_in_udp_learns_a_narrow_path_from_its_router_and_not_from_strangers() {
    let world = world();
    let (mut edge, site) = ipsec(&world, &format!("{EDGE} {SITE} udp"), 1420);
    assert!(is_in_udp(&mut edge));
    // UDP has eight more.
    strangers_and_routers(&world, &mut edge, ("17", Some("4500")), 1338);
    edge.stop();
    site.stop();
}

#[test]
fn ipsec_over_ipv6_learns_a_narrow_path_from_its_router() {
    // 1412 bytes are what fits 1500 in UDP.
    for (carrier, whole, fits) in [("", 1420, 1326), (" udp", 1412, 1318)] {
        let world = world();
        let ends = format!("2001:db8:a::1 2001:db8:b::11{carrier}");
        let (mut edge, site) = ipsec(&world, &ends, whole);
        assert_eq!(is_in_udp(&mut edge), !carrier.is_empty());
        narrow(&world, &mut edge, (whole, fits));
        edge.stop();
        site.stop();
    }
}
