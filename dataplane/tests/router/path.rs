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
fn strangers_and_routers(world: &World, edge: &mut Process, protocol: &str, fits: usize) {
    let v4 = (SOURCE, ORIGIN);
    let (arrived, said) = ping(world, v4, 1420);
    assert!(arrived, "{said}");
    let forged = [
        ("PC_TO", EDGE),
        ("PC_ABOUT", SITE),
        ("PC_PROTOCOL", protocol),
    ];
    world.start("mid", "forge", &forged).line("done");
    let (arrived, said) = ping(world, v4, 1420);
    assert!(arrived && !said.contains("mtu"), "{said}");
    let counters = edge.ask("counters");
    assert_eq!(packets(&counters, "path_reports"), 0, "{counters}");
    assert!(
        packets(&counters, "path_reports_ignored") >= 4,
        "{counters}"
    );
    narrow(world, edge, fits);
}

/// The path becomes narrow, and its router says so.
fn narrow(world: &World, edge: &mut Process, fits: usize) {
    let v4 = (SOURCE, ORIGIN);
    // Of the next link, and of the one after it.
    world.run("mid", "ip link set right mtu 1400");
    world.run("site", "ip link set right mtu 1400");
    let (_, said) = ping(world, v4, 1420);
    assert!(
        said.contains(&format!("mtu = {fits}")) || said.contains(&format!("mtu={fits}")),
        "{said}"
    );
    let (arrived, said) = ping(world, v4, fits);
    assert!(arrived, "{said}");
    let (_, said) = ping(world, (SOURCE_V6, ORIGIN_V6), 1420);
    assert!(
        said.contains(&format!("mtu={fits}")) || said.contains(&format!("mtu = {fits}")),
        "{said}"
    );
    assert_ne!(packets(&edge.ask("counters"), "path_reports"), 0);
    let mut origin = world.start("site", "origin", &[]);
    origin.line("ready");
    for (from, to) in [v4, (SOURCE_V6, ORIGIN_V6)] {
        let mut client = world.start("edge", "client", &[("PC_FROM", from), ("PC_TO", to)]);
        assert_eq!(client.line("done"), role::BULK.to_string());
    }
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
    strangers_and_routers(&world, &mut edge, "17", 1328);
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
    strangers_and_routers(&world, &mut edge, "47", 1364);
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
    narrow(&world, &mut edge, 1312);
    edge.stop();
    site.stop();
}
