//! Two edges, and a site that sends every answer to the first: what is the second's goes over by Geneve.

use std::process::{Command, Stdio};

use crate::allocations::OPERATIONS_MAX;
use crate::namespaces::{number, packets, router};
use crate::role;
use crate::world::{EDGE, ORIGIN, ORIGIN_V6, Process, SITE, World};

/// The source addresses of vnet 1 on the second edge.
const SOURCE: &str = "100.64.16.2";
const SOURCE_V6: &str = "2606:4700:cf1:5000::6440:1002";
/// Where the site and the second edge reach each other.
const SECOND: &str = "198.51.101.1";
const SITE_AT_SECOND: &str = "198.51.101.11";
/// The relays of the two edges.
const RELAYS: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

/// A second edge, with a cable to the site and one to the first edge, whose MTU is given.
fn world(mtu: u16) -> World {
    let mut world = World::new(1500);
    world.add("other");
    world.cable(("site", "wire2"), ("other", "wire"));
    world.cable(("edge", "relay"), ("other", "relay"));
    for (side, device, address) in [
        ("site", "wire2", SITE_AT_SECOND),
        ("other", "wire", SECOND),
        ("edge", "relay", RELAYS[0]),
        ("other", "relay", RELAYS[1]),
    ] {
        world.run(side, &format!("ip addr add {address}/24 dev {device}"));
        let mtu = if device == "relay" { mtu } else { 1500 };
        world.run(side, &format!("ip link set {device} up mtu {mtu}"));
    }
    world
}

/// First edge, second edge, site. The site knows both, and prefers the first.
fn start(world: &World, workers: &str) -> [Process; 3] {
    let (one, two) = (format!("{}:6081", RELAYS[0]), format!("{}:6081", RELAYS[1]));
    let first = format!("100.64.0.0/20 0 {one}");
    let second = format!("100.64.16.0/20 1 {two}");
    let (near, far) = (format!("{SITE}:51820"), format!("{SITE_AT_SECOND}:51820"));
    let settings = [
        ("PC_RELAY", one.as_str()),
        ("PC_OTHER", second.as_str()),
        ("PC_ENDPOINT", near.as_str()),
        ("PC_WORKERS", workers),
    ];
    let mut edge = router(world, "edge", &settings);
    edge.line("ready");
    let settings = [
        ("PC_SIDE", "edge"),
        ("PC_SLICE", "100.64.16.0/20"),
        ("PC_NODE", "1"),
        ("PC_KEY", "3"),
        ("PC_RELAY", two.as_str()),
        ("PC_OTHER", first.as_str()),
        ("PC_ENDPOINT", far.as_str()),
        ("PC_WORKERS", workers),
    ];
    let mut other = world.start("other", "router", &settings);
    other.line("ready");
    let (first, second) = (format!("{EDGE}:51820"), format!("{SECOND}:51820"));
    let settings = [
        ("PC_ENDPOINT", first.as_str()),
        ("PC_SECOND", second.as_str()),
    ];
    let mut site = router(world, "site", &settings);
    site.line("ready");
    // Handshakes in both tunnels; what waits for them goes over too.
    world.run("other", &format!("ping -c 1 -w 10 -I {SOURCE} {ORIGIN}"));
    [edge, other, site]
}

fn pings(world: &World) {
    for (source, origin, size) in [
        (SOURCE, ORIGIN, 56),
        (SOURCE_V6, ORIGIN_V6, 56),
        (SOURCE, ORIGIN, 4000),
        (SOURCE_V6, ORIGIN_V6, 4000),
    ] {
        world.run(
            "other",
            &format!("ping -c 3 -i 0.2 -w 10 -s {size} -I {source} {origin}"),
        );
    }
}

/// What tshark reads of a long packet on the network between edges, while answers from `origin` to `source`
/// go over it.
fn read_by_tshark(world: &World, source: &str, origin: &str) -> String {
    let netns = world.netns("edge");
    let mut words = vec!["60", "ip", "netns", "exec", &netns, "tshark", "-n", "-l"];
    words.extend(["-i", "relay", "-c", "1", "-T", "fields"]);
    words.extend(["-E", "separator= ", "-E", "occurrence=l"]);
    for field in [
        "udp.srcport",
        "udp.dstport",
        "geneve.version",
        "geneve.flags",
        "geneve.proto_type",
        "geneve.vni",
        "ip.dst",
        "ipv6.dst",
    ] {
        words.extend(["-e", field]);
    }
    let mut tshark = Command::new("timeout")
        .args(words)
        .arg("udp port 6081 and udp[4:2] > 240")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Nobody says when it begins to listen.
    while tshark.try_wait().unwrap().is_none() {
        world.run(
            "other",
            &format!("ping -c 2 -i 0.2 -w 10 -s 200 -I {source} {origin}"),
        );
    }
    let output = tshark.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn answers_at_the_wrong_edge_reach_the_owner_as_fast_as_others_and_ask_nothing_of_the_heap() {
    let world = world(1500);
    let [mut edge, mut other, mut site] = start(&world, "2");
    pings(&world);
    let mut origin = world.start("site", "origin", &[]);
    origin.line("ready");
    let transfer = |from, to| {
        let ends = [("PC_FROM", from), ("PC_TO", to)];
        let mut client = world.start("other", "client", &ends);
        assert_eq!(client.line("done"), role::BULK.to_string());
    };
    transfer(SOURCE_V6, ORIGIN_V6);
    let mut all = |word: &str| [&mut edge, &mut other, &mut site].map(|end| end.ask(word));
    let heap = |said: [String; 3]| said.map(|operations| operations.parse::<u64>().unwrap());
    let relayed = |counters: &[String; 3]| packets(&counters[0], "relay_tx_packets");
    let (sent_before, before) = (relayed(&all("counters")), heap(all("heap")));
    transfer(SOURCE, ORIGIN);
    let after = heap(all("heap"));
    // What was on its way before this has arrived.
    world.run("other", &format!("ping -c 1 -w 10 -I {SOURCE} {ORIGIN}"));
    let counters = all("counters");
    let sent = relayed(&counters) - sent_before;
    assert!(sent > 5_000, "{sent} packets say little");
    for (before, after) in before.into_iter().zip(after) {
        let operations = after - before;
        assert!(
            operations < OPERATIONS_MAX,
            "{operations} heap operations for {sent} packets"
        );
    }
    // Nothing was lost between the two, and nothing came back.
    let arrived = packets(&counters[1], "relay_rx_packets");
    assert!(arrived >= relayed(&counters), "{counters:?}");
    assert_eq!(packets(&counters[1], "relay_tx_packets"), 0);
    assert_eq!(packets(&counters[0], "delivered_packets"), 0);
    let datagrams = number(&counters[0], "udp_send_datagrams");
    let calls = number(&counters[0], "udp_sends");
    assert!(datagrams > 8 * calls, "no trains: {}", counters[0]);
    for end in [edge, other, site] {
        end.stop();
    }
}

#[test]
fn a_narrow_network_between_edges_cuts_what_does_not_fit() {
    let world = world(1280);
    let [mut edge, other, site] = start(&world, "1");
    pings(&world);
    let mut origin = world.start("site", "origin", &[]);
    origin.line("ready");
    let ends = [("PC_FROM", SOURCE), ("PC_TO", ORIGIN)];
    let mut client = world.start("other", "client", &ends);
    assert_eq!(client.line("done"), role::BULK.to_string());
    assert_ne!(number(&edge.ask("counters"), "udp_trains_refused"), 0);
    for end in [edge, other, site] {
        end.stop();
    }
}

#[test]
fn another_program_reads_what_edges_say_to_each_other() {
    let world = world(1500);
    let [edge, other, site] = start(&world, "1");
    // Both ports are Geneve's; version, flags, EtherType, network; the last destinations are those inside.
    assert_eq!(
        read_by_tshark(&world, SOURCE, ORIGIN),
        format!("6081 6081 0 0x00 0x0800 0x000001 {SOURCE} \n")
    );
    assert_eq!(
        read_by_tshark(&world, SOURCE_V6, ORIGIN_V6),
        format!(
            "6081 6081 0 0x00 0x86dd 0x000001 {} {SOURCE_V6}\n",
            RELAYS[1]
        )
    );
    for end in [edge, other, site] {
        end.stop();
    }
}
