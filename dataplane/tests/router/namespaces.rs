//! What routers do for each other and to the kernel, each test in a world of its own.

use crate::role;
use crate::world::{EDGE, ORIGIN, ORIGIN_V6, Process, SITE, SOURCE, SOURCE_V6, World};

pub(crate) fn router(world: &World, side: &str, settings: &[(&str, &str)]) -> Process {
    let settings = [&[("PC_SIDE", side)], settings].concat();
    world.start(side, "router", &settings)
}

/// Both routers with a back end; the site calls the edge, which does not know where the site is.
pub(crate) fn pair(world: &World, backend: &str) -> (Process, Process) {
    let mut edge = router(world, "edge", &[("PC_BACKEND", backend)]);
    edge.line("ready");
    let endpoint = format!("{EDGE}:51820");
    let mut site = router(
        world,
        "site",
        &[("PC_BACKEND", backend), ("PC_ENDPOINT", &endpoint)],
    );
    site.line("ready");
    // The first packet makes the handshake; a ping a second until one is answered.
    world.run("site", &format!("ping -c 1 -w 10 -I {ORIGIN} {SOURCE}"));
    (edge, site)
}

fn pass_both_ways(world: &World) {
    world.run(
        "edge",
        &format!("ping -c 3 -i 0.2 -w 10 -I {SOURCE} {ORIGIN}"),
    );
    world.run(
        "edge",
        &format!("ping -c 3 -i 0.2 -w 10 -s 4000 -I {SOURCE} {ORIGIN}"),
    );
    world.run(
        "edge",
        &format!("ping -c 3 -i 0.2 -w 10 -I {SOURCE_V6} {ORIGIN_V6}"),
    );
    world.run(
        "site",
        &format!("ping -c 3 -i 0.2 -w 10 -I {ORIGIN} {SOURCE}"),
    );
    let mut origin = world.start("site", "origin", &[]);
    origin.line("ready");
    for (from, to) in [(SOURCE, ORIGIN), (SOURCE_V6, ORIGIN_V6)] {
        let mut client = world.start("edge", "client", &[("PC_FROM", from), ("PC_TO", to)]);
        assert_eq!(client.line("done"), role::BULK.to_string());
    }
}

pub(crate) fn number(counters: &str, name: &str) -> u64 {
    let counters: serde_json::Value = serde_json::from_str(counters).unwrap();
    counters["io"][name].as_u64().unwrap()
}

pub(crate) fn packets(counters: &str, name: &str) -> u64 {
    let counters: serde_json::Value = serde_json::from_str(counters).unwrap();
    counters["packets"][name].as_u64().unwrap()
}

#[test]
fn pings_and_bulk_pass_both_ways_with_offload() {
    let world = World::new(1500);
    let (mut edge, site) = pair(&world, "offload");
    pass_both_ways(&world);
    let counters = edge.ask("counters");
    let sent = number(&counters, "udp_send_datagrams");
    assert!(
        sent > 8 * number(&counters, "udp_sends"),
        "no trains: {counters}"
    );
    // As many as one call takes, so that no super-packet leaves a rest behind.
    let link = world.run("edge", "ip -d link show dev pc0");
    assert!(link.contains("gso_max_segs 44"), "{link}");
    edge.stop();
    site.stop();
}

#[test]
fn wireguard_over_ipv6_carries_both_families() {
    let world = World::new(1500);
    let listen = ("PC_LISTEN", "::");
    let mut edge = router(&world, "edge", &[listen]);
    edge.line("ready");
    let endpoint = ("PC_ENDPOINT", "[2001:db8::1]:51820");
    let mut site = router(&world, "site", &[listen, endpoint]);
    site.line("ready");
    world.run("site", &format!("ping -c 1 -w 10 -I {ORIGIN} {SOURCE}"));
    pass_both_ways(&world);
    let counters = edge.ask("counters");
    let sent = number(&counters, "udp_send_datagrams");
    assert!(
        sent > 8 * number(&counters, "udp_sends"),
        "no trains: {counters}"
    );
    assert!(edge.ask("tunnels").contains("[2001:db8::11]:51820"));
    edge.stop();
    site.stop();
}

/// Key, checksum, sequence number and keepalives, between these two addresses.
fn gre_carries_both_families(ends: &str) {
    let world = World::new(1500);
    // The second worker's: what the first one's socket gets is handed over.
    let settings = [("PC_GRE", ends), ("PC_WORKERS", "2"), ("PC_TUNNEL", "2")];
    let mut edge = router(&world, "edge", &settings);
    edge.line("ready");
    let mut site = router(&world, "site", &[("PC_GRE", ends)]);
    site.line("ready");
    pass_both_ways(&world);
    for end in [&mut edge, &mut site] {
        let tunnels = end.ask("tunnels");
        assert!(tunnels.contains(r#""is_up":true"#), "{tunnels}");
        let counters: serde_json::Value = serde_json::from_str(&end.ask("counters")).unwrap();
        assert_ne!(counters["io"]["raw_recv_packets"], 0, "{counters}");
        for reason in ["gre_name_unknown", "gre_checksum", "replayed"] {
            assert_eq!(counters["drops"][reason], 0, "{counters}");
        }
    }
    site.stop();
    // Two keepalives a second apart without an answer, and the next.
    let mut waited = 0;
    while edge.ask("tunnels").contains(r#""is_up":true"#) {
        // Without an answer a ping takes its second.
        let ping = world.output("edge", &format!("ping -c 1 -w 1 -I {SOURCE} {ORIGIN}"));
        assert!(!ping.status.success());
        waited += 1;
        assert!(waited < 10, "up without a peer");
    }
    edge.stop();
}

#[test]
fn gre_over_ipv4_carries_both_families() {
    gre_carries_both_families(&format!("{EDGE} {SITE}"));
}

#[test]
fn gre_over_ipv6_carries_both_families() {
    gre_carries_both_families("2001:db8::1 2001:db8::11");
}

#[test]
fn the_kernel_brings_packets_to_the_worker_that_owns_their_tunnel() {
    let world = World::new(1500);
    // The second worker's, if there are two; a site has one.
    let settings = [("PC_WORKERS", "2"), ("PC_TUNNEL", "2")];
    let mut edge = router(&world, "edge", &settings);
    edge.line("ready");
    let endpoint = format!("{EDGE}:51820");
    let mut site = router(&world, "site", &[("PC_ENDPOINT", &endpoint)]);
    site.line("ready");
    let source = "100.64.1.2";
    world.run("site", &format!("ping -c 1 -w 10 -I {ORIGIN} {source}"));
    world.run(
        "edge",
        &format!("ping -c 9 -i 0.1 -w 10 -I {source} {ORIGIN}"),
    );
    let mut origin = world.start("site", "origin", &[]);
    origin.line("ready");
    let ends = [("PC_FROM", source), ("PC_TO", ORIGIN)];
    let mut client = world.start("edge", "client", &ends);
    assert_eq!(client.line("done"), role::BULK.to_string());
    let steered = packets(&edge.ask("counters"), "handed_over");
    // The initiation may come to any worker. Nothing else is handed over.
    assert!(steered <= 3, "{steered} were handed over");
    // From the other worker's address everything is, and arrives all the same.
    let ends = [("PC_FROM", SOURCE), ("PC_TO", ORIGIN)];
    let mut client = world.start("edge", "client", &ends);
    assert_eq!(client.line("done"), role::BULK.to_string());
    let counters = edge.ask("counters");
    assert!(
        packets(&counters, "handed_over") > steered + 1000,
        "{counters}"
    );
    assert_eq!(number(&counters, "handover_lost"), 0);
    edge.stop();
    site.stop();
}

#[test]
fn direct_links_carry_packets_whole_between_networks_and_to_the_overlay() {
    let mut world = World::new(1500);
    world.add("one");
    world.add("two");
    let (one, two) = ("10.7.0.1", "10.7.0.2");
    let links = format!("{one} {two}");
    // Two workers: one link each.
    let settings = [("PC_LINKS", links.as_str()), ("PC_WORKERS", "2")];
    let mut edge = router(&world, "edge", &settings);
    edge.line("ready");
    world.move_link("pcl2", ("edge", "one"), one);
    world.move_link("pcl3", ("edge", "two"), two);
    world.run("one", &format!("ping -c 3 -i 0.2 -w 10 {two}"));
    world.run("edge", &format!("ping -c 3 -i 0.2 -w 10 -I {SOURCE} {one}"));
    let mut origin = world.start("two", "origin", &[]);
    origin.line("ready");
    for (side, from) in [("one", one), ("edge", SOURCE)] {
        let ends = [("PC_FROM", from), ("PC_TO", two)];
        let mut client = world.start(side, "client", &ends);
        assert_eq!(client.line("done"), role::BULK.to_string());
    }
    let counters = edge.ask("counters");
    let (reads, bytes) = ("link_reads", "link_read_bytes");
    let per_read = number(&counters, bytes) / number(&counters, reads);
    assert!(per_read > 1420, "no super-packets: {per_read} bytes a read");
    // Not by the other link's name.
    let wrong = world.output("one", &format!("ping -c 2 -i 0.2 -w 3 -I {one} 10.7.0.3"));
    assert!(!wrong.status.success());
    world.run("one", "ip addr add 10.7.0.9/32 dev pcl2");
    let wrong = world.output("one", &format!("ping -c 2 -i 0.2 -w 3 -I 10.7.0.9 {two}"));
    assert!(!wrong.status.success());
    let drops: serde_json::Value = serde_json::from_str(&edge.ask("counters")).unwrap();
    assert_ne!(drops["drops"]["source_not_allowed"], 0);
    edge.stop();
}

#[test]
fn an_ethernet_port_is_the_routers_and_its_neighbour_is_found_lost_and_found_again() {
    let mut world = World::new(1500);
    world.add("one");
    world.cable(("edge", "cni0"), ("one", "eth0"));
    // A neighbour as any router is: addresses on the link, a network behind it, a way back.
    for command in [
        "ip addr add 10.8.0.1/31 dev eth0",
        "ip addr add fd00:8::1/127 dev eth0 nodad",
        "ip link set eth0 up",
        "ip addr add 10.7.0.1/32 dev lo",
        "ip addr add fd00:7::1/128 dev lo",
        "ip route add 100.64.0.0/12 via 10.8.0.0 src 10.7.0.1",
        "ip route add 198.51.100.0/24 via 10.8.0.0",
        "ip -6 route add 2606:4700:cf1:5000::/64 via fd00:8:: src fd00:7::1",
    ] {
        world.run("one", command);
    }
    let mut edge = router(&world, "edge", &[("PC_ETHER", "cni0"), ("PC_WORKERS", "2")]);
    edge.line("ready");
    let far = [(SOURCE, "10.7.0.1"), (SOURCE_V6, "fd00:7::1")];
    for (source, there) in far {
        world.run(
            "edge",
            &format!("ping -c 3 -i 0.2 -w 10 -I {source} {there}"),
        );
        world.run(
            "one",
            &format!("ping -c 3 -i 0.2 -w 10 -I {there} {source}"),
        );
    }
    world.run("one", "ping -c 2 -i 0.2 -w 10 10.8.0.0");
    world.run("one", "ping -c 2 -i 0.2 -w 10 fd00:8::");
    let mut origin = world.start("one", "origin", &[]);
    origin.line("ready");
    for (from, to) in far {
        let mut client = world.start("edge", "client", &[("PC_FROM", from), ("PC_TO", to)]);
        assert_eq!(client.line("done"), role::BULK.to_string());
    }
    let counters = edge.ask("counters");
    let per_read = number(&counters, "link_read_bytes") / number(&counters, "link_reads");
    assert!(per_read > 1420, "no super-packets: {per_read} bytes a read");
    // The neighbour knows us by an address that is not the interface's.
    let known = world.run("one", "ip neigh show 10.8.0.0 dev eth0");
    let own = world.run("edge", "cat /sys/class/net/cni0/address");
    assert!(
        known.contains("lladdr") && !known.contains(own.trim()),
        "{known}"
    );
    only_the_router_has_the_port(&world, own.trim());
    // Gone without a word: the sender is told. Back, with another Ethernet address: it is found.
    world.run("one", "ip link set eth0 down");
    world.run("one", "ip link set eth0 address 02:00:00:00:00:77");
    let unreachable = world.output(
        "edge",
        &format!("ping -n -c 20 -i 1 -w 20 -I {SOURCE} 10.7.0.1"),
    );
    let said = String::from_utf8(unreachable.stdout).unwrap();
    assert!(said.contains("Destination Host Unreachable"), "{said}");
    world.run("one", "ip link set eth0 up");
    world.run(
        "one",
        "ip route add 100.64.0.0/12 via 10.8.0.0 src 10.7.0.1",
    );
    world.run("edge", &format!("ping -c 10 -i 0.5 -I {SOURCE} 10.7.0.1"));
    assert_ne!(number(&edge.ask("counters"), "neighbour_unreachable"), 0);
    edge.stop();
}

/// Whatever a neighbour sends, by whatever Ethernet address, the machine's own services do not hear of it.
fn only_the_router_has_the_port(world: &World, own: &str) {
    let refused = |command: &str| {
        let output = world.output("one", command);
        assert!(!output.status.success(), "{command}");
    };
    refused(&format!("ping -c 2 -i 0.2 -w 2 -I 10.7.0.1 {EDGE}"));
    for mac in [own, "ff:ff:ff:ff:ff:ff"] {
        world.run(
            "one",
            &format!("ip neigh replace 10.8.0.0 lladdr {mac} dev eth0"),
        );
        for there in [EDGE, SOURCE] {
            refused(&format!("ping -c 2 -i 0.2 -w 2 -I 10.7.0.1 {there}"));
        }
    }
    world.run("one", "ip neigh del 10.8.0.0 dev eth0");
    world.run("one", "ping -c 1 -w 10 10.8.0.0");
    // Nobody else is answered for.
    world.run("one", "ip addr add 10.8.0.9/24 dev eth0");
    refused("ping -c 2 -i 0.2 -w 2 -I 10.8.0.9 10.8.0.7");
    let known = world.run("one", "ip neigh show 10.8.0.7 dev eth0");
    assert!(!known.contains("lladdr"), "{known}");
    world.run("one", "ip addr del 10.8.0.9/24 dev eth0");
}

#[test]
fn pings_and_bulk_pass_both_ways_with_a_plain_tun() {
    let world = World::new(1500);
    let (edge, site) = pair(&world, "plain");
    pass_both_ways(&world);
    edge.stop();
    site.stop();
}

#[test]
fn trains_that_the_kernel_refuses_go_singly_and_arrive() {
    // A datagram of 1452 bytes fits no packet of 1400, so the kernel cuts no train into them.
    let world = World::new(1400);
    let (mut edge, site) = pair(&world, "offload");
    pass_both_ways(&world);
    assert_ne!(number(&edge.ask("counters"), "udp_trains_refused"), 0);
    edge.stop();
    site.stop();
}

#[test]
fn a_full_socket_holds_the_tun_back_and_everything_goes_on_afterwards() {
    let world = World::new(1500);
    let (mut edge, site) = pair(&world, "offload");
    // A queue longer than the socket's buffer, so that it is the buffer that fills.
    world.run(
        "edge",
        "tc qdisc add dev wire root tbf rate 100mbit burst 256k limit 64m",
    );
    let mut flood = world.start("edge", "flood", &[("PC_FROM", SOURCE), ("PC_TO", ORIGIN)]);
    flood.line("done");
    world.run("edge", &format!("ping -c 1 -w 10 -I {SOURCE} {ORIGIN}"));
    let counters = edge.ask("counters");
    assert_ne!(number(&counters, "udp_trains_queued"), 0, "{counters}");
    assert_eq!(number(&counters, "udp_queue_full"), 0, "{counters}");
    edge.stop();
    site.stop();
}

/// Rules and routes of a side, but for what the kernel makes and removes by itself.
fn kernel_state(world: &World, side: &str) -> Vec<String> {
    let commands = [
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "sysctl net.ipv6.ip_nonlocal_bind net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
    ];
    let said: String = commands
        .iter()
        .map(|command| world.run(side, command))
        .collect();
    let by_itself = ["fe80::", "multicast", "anycast"];
    let is_ours = |line: &&str| !by_itself.iter().any(|word| line.contains(word));
    let mut lines: Vec<String> = said.lines().filter(is_ours).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_stopped_router_leaves_the_kernel_as_it_was() {
    let world = World::new(1500);
    for side in ["edge", "site"] {
        let before = kernel_state(&world, side);
        let mut process = router(&world, side, &[]);
        process.line("ready");
        assert_ne!(kernel_state(&world, side), before);
        process.stop();
        assert_eq!(kernel_state(&world, side), before, "{side}");
    }
}

#[test]
fn a_start_after_a_crash_finds_the_kernel_like_a_first_start() {
    let world = World::new(1500);
    for side in ["edge", "site"] {
        let mut first = router(&world, side, &[]);
        first.line("ready");
        let running = kernel_state(&world, side);
        first.kill();
        let mut second = router(&world, side, &[]);
        second.line("ready");
        assert_eq!(kernel_state(&world, side), running, "{side}");
        second.stop();
    }
}

#[test]
fn without_a_worker_nothing_leaves_with_a_source_address() {
    let world = World::new(1500);
    world.run("edge", &format!("ip route add default via {SITE}"));
    let mut edge = router(&world, "edge", &[]);
    edge.line("ready");
    edge.kill();
    let route = world.output("edge", &format!("ip route get {ORIGIN} from {SOURCE}"));
    let said = String::from_utf8(route.stderr).unwrap();
    assert!(
        said.contains("No route to host") || said.contains("unreachable"),
        "{said}"
    );
}

#[test]
fn a_machine_with_ipv6_switched_off_routes_ipv4() {
    let world = World::new(1500);
    world.run("edge", "sysctl -w net.ipv6.conf.all.disable_ipv6=1");
    let (edge, site) = pair(&world, "offload");
    edge.stop();
    site.stop();
}

#[test]
fn a_second_router_is_refused_in_words_and_does_not_disturb_the_first() {
    let world = World::new(1500);
    let mut first = router(&world, "edge", &[]);
    first.line("ready");
    let running = kernel_state(&world, "edge");
    let mut same_port = router(&world, "edge", &[]);
    let said = same_port.line("failed");
    assert!(said.starts_with("another process, perhaps a second portcullis, holds UDP port 51820"));
    let mut other_port = router(&world, "edge", &[("PC_PORT", "51821")]);
    let said = other_port.line("failed");
    assert!(
        said.starts_with("another portcullis routes in this network namespace"),
        "{said}"
    );
    assert_eq!(kernel_state(&world, "edge"), running);
    first.stop();
}

#[test]
fn after_a_crash_the_edge_calls_a_site_that_it_was_never_told_the_endpoint_of() {
    let world = World::new(1500);
    let cache = std::env::temp_dir().join(format!("portcullis-router-{}", std::process::id()));
    let settings = [("PC_CACHE", cache.to_str().unwrap())];
    let mut edge = router(&world, "edge", &settings);
    edge.line("ready");
    let endpoint = format!("{EDGE}:51820");
    let mut site = router(&world, "site", &[("PC_ENDPOINT", &endpoint)]);
    site.line("ready");
    world.run("site", &format!("ping -c 1 -w 10 -I {ORIGIN} {SOURCE}"));
    assert!(edge.ask("endpoints").contains(SITE));
    // The file follows at once; a ping's second is more than enough.
    world.run("site", &format!("ping -c 2 -w 10 -I {ORIGIN} {SOURCE}"));
    edge.kill();
    let mut edge = router(&world, "edge", &settings);
    edge.line("ready");
    world.run("edge", &format!("ping -c 1 -w 5 -I {SOURCE} {ORIGIN}"));
    std::fs::remove_file(cache).unwrap();
    edge.stop();
    site.stop();
}
