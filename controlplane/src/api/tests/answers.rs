//! What DNS answers for zones that were made through the API.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::{World, code, id};
use crate::dns::{Authority as _, Owner, Question, Rcode, Reply, Rr};

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const DS: u16 = 43;
const ANY: u16 = 255;

fn ask(world: &World, name: &str, kind: u16) -> Reply {
    let name = name.to_owned();
    world.plane.answer(&Question { name, kind })
}

/// A record in words: `owner ttl type value`; the owner that was asked for is `=`.
fn words(rr: &Rr) -> String {
    let owner = match &rr.owner {
        Owner::Asked => "=",
        Owner::Name(name) => name,
    };
    let value = match (rr.kind, rr.rdata.as_slice()) {
        (A, bytes) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap()).to_string(),
        (AAAA, bytes) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_string(),
        (NS | CNAME, bytes) => labels(bytes).0,
        (MX, bytes) => labels(&bytes[2..]).0,
        (SOA, bytes) => labels(bytes).0,
        (_, bytes) => String::from_utf8_lossy(bytes).into_owned(),
    };
    format!("{owner} {} {} {value}", rr.ttl, rr.kind)
}

fn labels(mut bytes: &[u8]) -> (String, &[u8]) {
    let mut labels = Vec::new();
    while bytes[0] != 0 {
        let (label, rest) = bytes[1..].split_at(usize::from(bytes[0]));
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        bytes = rest;
    }
    (labels.join("."), &bytes[1..])
}

fn answers(world: &World, name: &str, kind: u16) -> Vec<String> {
    let reply = ask(world, name, kind);
    assert_eq!(reply.rcode, Rcode::NoError, "{name}");
    assert!(reply.is_authoritative, "{name}");
    reply.answers.iter().map(words).collect()
}

/// No answer, but the SOA, with the TTL for negative answers.
fn is_nothing(world: &World, name: &str, kind: u16) -> Rcode {
    let reply = ask(world, name, kind);
    assert_eq!(reply.answers, [], "{name}");
    let authorities: Vec<String> = reply.authorities.iter().map(words).collect();
    assert_eq!(authorities, ["example.com 300 6 ns1.example.net"], "{name}");
    reply.rcode
}

async fn make(world: &World, records: &str, list: &[(&str, &str, &str)]) {
    for (name, kind, content) in list {
        let body = json!({"name": name, "type": kind, "content": content, "priority": 10});
        world.made(records, body).await;
    }
}

/// A zone with records, and a route for what is private.
async fn filled() -> (World, String) {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let tunnel = world.tunnel("site", None).await;
    world.route("10.0.0.0/8", &tunnel, None).await;
    (world, records)
}

#[tokio::test]
async fn a_proxied_name_answers_with_the_edge_and_never_with_its_content() {
    let (world, records) = filled().await;
    for (name, kind, content) in [
        ("app", "A", "10.0.0.50"),
        ("alias", "CNAME", "app.example.com"),
        ("*.dev", "A", "10.1.1.1"),
        ("@", "CNAME", "app.example.com"),
    ] {
        let body = json!({"name": name, "type": kind, "content": content, "proxied": true});
        world.made(&records, body).await;
    }
    // One proxied record makes its name the edge's.
    make(
        &world,
        &records,
        &[("app", "A", "10.0.0.51"), ("app", "TXT", "t")],
    )
    .await;
    for name in [
        "app.example.com",
        "alias.example.com",
        "x.dev.example.com",
        "example.com",
    ] {
        assert_eq!(answers(&world, name, A), ["= 300 1 203.0.113.1"], "{name}");
        assert_eq!(
            answers(&world, name, AAAA),
            ["= 300 28 2001:db8:1::1"],
            "{name}"
        );
        assert_eq!(is_nothing(&world, name, CNAME), Rcode::NoError, "{name}");
    }
    assert_eq!(answers(&world, "app.example.com", TXT), ["= 300 16 \u{1}t"]);
    let only = json!({"name": "six", "type": "A", "content": "10.0.0.50", "proxied": true,
        "settings": {"ipv6_only": true}});
    world.made(&records, only).await;
    assert_eq!(is_nothing(&world, "six.example.com", A), Rcode::NoError);
    assert_eq!(
        answers(&world, "six.example.com", AAAA),
        ["= 300 28 2001:db8:1::1"]
    );
    // Paused, the zone is only DNS: contents are answered, private ones are not.
    let zone = records.trim_end_matches("/dns_records");
    world.patch(zone, json!({"paused": true})).await;
    assert_eq!(
        answers(&world, "alias.example.com", A),
        ["= 300 5 app.example.com"]
    );
    assert_eq!(is_nothing(&world, "x.dev.example.com", A), Rcode::NoError);
    let public = json!({"name": "public", "type": "A", "content": "192.0.2.9", "proxied": true});
    world.made(&records, public).await;
    assert_eq!(
        answers(&world, "public.example.com", A),
        ["= 300 1 192.0.2.9"]
    );
}

#[tokio::test]
async fn other_names_answer_with_their_content_and_the_next_question_sees_a_change() {
    let (world, records) = filled().await;
    make(
        &world,
        &records,
        &[
            ("www", "A", "192.0.2.1"),
            ("@", "MX", "mail.example.com"),
            ("lan", "A", "10.9.9.9"),
        ],
    )
    .await;
    let second = json!({"name": "www", "type": "A", "content": "192.0.2.2", "ttl": 60});
    let second = id(&world.made(&records, second).await);
    // All records of a name and type have the shortest TTL.
    assert_eq!(
        sorted(answers(&world, "www.example.com", A)),
        ["= 60 1 192.0.2.1", "= 60 1 192.0.2.2"]
    );
    assert_eq!(
        answers(&world, "example.com", MX),
        ["= 300 15 mail.example.com"]
    );
    assert_eq!(answers(&world, "lan.example.com", A), ["= 300 1 10.9.9.9"]);
    let serial = |world: &World| ask(world, "example.com", SOA).answers[0].rdata.clone();
    let before = serial(&world);
    world
        .patch(
            &format!("{records}/{second}"),
            json!({"content": "192.0.2.3"}),
        )
        .await;
    assert!(answers(&world, "www.example.com", A).contains(&"= 60 1 192.0.2.3".to_owned()));
    assert_ne!(serial(&world), before);
    world.delete(&format!("{records}/{second}")).await;
    assert_eq!(answers(&world, "www.example.com", A), ["= 300 1 192.0.2.1"]);
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

#[tokio::test]
async fn a_zone_has_soa_and_name_servers_and_what_is_not_there_is_denied_with_them() {
    let (world, records) = filled().await;
    make(
        &world,
        &records,
        &[("a.b", "A", "192.0.2.1"), ("@", "NS", "ns3.example.org")],
    )
    .await;
    assert_eq!(
        answers(&world, "example.com", SOA),
        ["= 3600 6 ns1.example.net"]
    );
    assert_eq!(
        answers(&world, "example.com", NS),
        [
            "= 3600 2 ns1.example.net",
            "= 3600 2 ns2.example.net",
            "= 3600 2 ns3.example.org"
        ]
    );
    assert_eq!(is_nothing(&world, "example.com", A), Rcode::NoError);
    assert_eq!(is_nothing(&world, "a.b.example.com", TXT), Rcode::NoError);
    // It exists, though nothing has its name (RFC 8020).
    assert_eq!(is_nothing(&world, "b.example.com", A), Rcode::NoError);
    assert_eq!(is_nothing(&world, "c.example.com", A), Rcode::NxDomain);
    assert_eq!(is_nothing(&world, "x.a.b.example.com", A), Rcode::NxDomain);
    assert_eq!(is_nothing(&world, "c.example.com", ANY), Rcode::NxDomain);
    let any = ask(&world, "a.b.example.com", ANY);
    assert_eq!(any.answers.len(), 1);
    assert_eq!(any.answers[0].rdata, b"\x07RFC8482\x00");
    for other in ["example.org", "com", "", "xexample.com"] {
        let reply = ask(&world, other, A);
        let refused = Reply {
            rcode: Rcode::Refused,
            ..Reply::default()
        };
        assert_eq!(reply, refused, "{other}");
    }
}

#[tokio::test]
async fn wildcards_follow_the_examples_of_rfc_4592() {
    let (world, records) = filled().await;
    // Section 2.2.1, less the SOA and NS that the zone has by itself.
    make(
        &world,
        &records,
        &[
            ("*", "TXT", "this is a wildcard"),
            ("*", "MX", "host1.example"),
        ],
    )
    .await;
    make(
        &world,
        &records,
        &[
            ("host1", "A", "192.0.2.1"),
            ("_ssh._tcp.host1", "SRV", "1 22 host1.example.com"),
            ("_ssh._tcp.host2", "SRV", "1 22 host2.example.com"),
            ("subdel", "NS", "ns.example.com"),
        ],
    )
    .await;
    assert_eq!(
        answers(&world, "host3.example.com", MX),
        ["= 300 15 host1.example"]
    );
    assert_eq!(is_nothing(&world, "host3.example.com", A), Rcode::NoError);
    assert_eq!(
        answers(&world, "foo.bar.example.com", TXT),
        ["= 300 16 \u{12}this is a wildcard"]
    );
    assert_eq!(is_nothing(&world, "host1.example.com", MX), Rcode::NoError);
    assert_eq!(
        is_nothing(&world, "_telnet._tcp.host1.example.com", 33),
        Rcode::NxDomain
    );
    // An empty non-terminal stops the wildcard too.
    assert_eq!(is_nothing(&world, "host2.example.com", MX), Rcode::NoError);
    let referral = ask(&world, "host.subdel.example.com", A);
    assert!(!referral.is_authoritative && referral.answers.is_empty());
    // The wildcard itself can be asked for.
    assert_eq!(
        answers(&world, "*.example.com", MX),
        ["= 300 15 host1.example"]
    );
}

#[tokio::test]
async fn a_delegated_name_is_referred_to_its_servers_with_glue() {
    let (world, records) = filled().await;
    make(
        &world,
        &records,
        &[
            ("sub", "NS", "ns1.sub.example.com"),
            ("sub", "NS", "ns.example.org"),
            (
                "sub",
                "DS",
                "1 13 2 0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b0a0b",
            ),
            ("ns1.sub", "A", "192.0.2.53"),
            ("to-sub", "CNAME", "www.sub.example.com"),
        ],
    )
    .await;
    for name in [
        "sub.example.com",
        "a.b.sub.example.com",
        "ns1.sub.example.com",
    ] {
        let reply = ask(&world, name, A);
        assert!(
            !reply.is_authoritative && reply.rcode == Rcode::NoError,
            "{name}"
        );
        assert_eq!(reply.answers, [], "{name}");
        let servers = sorted(reply.authorities.iter().map(words).collect());
        let wanted = [
            "sub.example.com 300 2 ns.example.org",
            "sub.example.com 300 2 ns1.sub.example.com",
        ];
        assert_eq!(servers, wanted, "{name}");
        let glue: Vec<String> = reply.additionals.iter().map(words).collect();
        assert_eq!(glue, ["ns1.sub.example.com 300 1 192.0.2.53"], "{name}");
    }
    // The DS is this side's.
    assert_eq!(answers(&world, "sub.example.com", DS).len(), 1);
    let reply = ask(&world, "to-sub.example.com", A);
    assert!(reply.is_authoritative);
    assert_eq!(
        reply.answers.iter().map(words).collect::<Vec<_>>(),
        ["= 300 5 www.sub.example.com"]
    );
    assert_eq!(reply.authorities.len(), 2);
}

#[tokio::test]
async fn a_chain_of_cnames_is_followed_in_the_accounts_zones_and_no_further() {
    let (world, records) = filled().await;
    let org = world.zone("example.org").await;
    make(
        &world,
        &records,
        &[
            ("a", "CNAME", "b.example.org"),
            ("out", "CNAME", "www.example.net"),
            ("none", "CNAME", "missing.example.com"),
            ("loop1", "CNAME", "loop2.example.com"),
            ("loop2", "CNAME", "loop1.example.com"),
        ],
    )
    .await;
    let flat = json!({"name": "flat", "type": "CNAME", "content": "b.example.org", "ttl": 60,
        "settings": {"flatten_cname": true}});
    world.made(&records, flat).await;
    make(
        &world,
        &format!("/zones/{org}/dns_records"),
        &[("b", "CNAME", "c.example.org"), ("c", "A", "192.0.2.1")],
    )
    .await;
    let chain = [
        "= 300 5 b.example.org",
        "b.example.org 300 5 c.example.org",
        "c.example.org 300 1 192.0.2.1",
    ];
    assert_eq!(answers(&world, "a.example.com", A), chain);
    assert_eq!(answers(&world, "a.example.com", CNAME), [chain[0]]);
    assert_eq!(answers(&world, "flat.example.com", A), ["= 60 1 192.0.2.1"]);
    assert_eq!(
        is_nothing(&world, "flat.example.com", CNAME),
        Rcode::NoError
    );
    assert_eq!(
        answers(&world, "out.example.com", A),
        ["= 300 5 www.example.net"]
    );
    let reply = ask(&world, "none.example.com", A);
    assert_eq!(
        (reply.rcode, reply.answers.len(), reply.authorities.len()),
        (Rcode::NxDomain, 1, 1)
    );
    let reply = ask(&world, "loop1.example.com", A);
    assert!(
        (2..=8).contains(&reply.answers.len()),
        "{}",
        reply.answers.len()
    );
}

#[tokio::test]
async fn an_app_answers_with_the_addresses_that_it_listens_on() {
    let (world, records) = filled().await;
    let zone = records.trim_end_matches("/dns_records");
    let app = |name: &str, kind: &str, edge: Value| {
        json!({"protocol": format!("tcp/{}", 7000 + name.len()), "dns": {"type": kind, "name": format!("{name}.example.com")},
            "origin_direct": ["tcp://10.0.0.50:6379"], "edge_ips": edge, "virtual_network_id": null})
    };
    let apps = format!("{zone}/spectrum/apps");
    let mut four = app(
        "four",
        "CNAME",
        json!({"type": "dynamic", "connectivity": "ipv4"}),
    );
    four["origin_direct"] = json!(["tcp://192.0.2.1:6379"]);
    let made = world.made(&apps, four).await;
    assert_eq!(
        answers(&world, "four.example.com", A),
        ["= 300 1 203.0.113.1"]
    );
    assert_eq!(is_nothing(&world, "four.example.com", AAAA), Rcode::NoError);
    world.delete(&format!("{apps}/{}", id(&made))).await;
    assert_eq!(is_nothing(&world, "four.example.com", A), Rcode::NxDomain);
    // The DNS server has its port.
    let mut taken = app(
        "taken",
        "CNAME",
        json!({"type": "dynamic", "connectivity": "all"}),
    );
    taken["origin_direct"] = json!(["udp://192.0.2.1:53"]);
    taken["protocol"] = json!("udp/53");
    assert_eq!(code(&world.post(&apps, taken).await.1), 11_033);
}

#[tokio::test]
async fn a_zone_names_its_servers_and_nobody_takes_a_name_of_another_accounts_zone() {
    let (world, records) = filled().await;
    make(&world, &records, &[("a", "CNAME", "secret.stranger.test")]).await;
    let (_, zones) = world.get("/zones").await;
    assert_eq!(
        zones["result"][0]["name_servers"],
        json!(["ns1.example.net", "ns2.example.net"])
    );
    let stranger = world.stranger("stranger.test", "secret.stranger.test", "192.0.2.66");
    // Everybody may ask for it, but it is not added to an answer of ours.
    assert_eq!(
        answers(&world, "a.example.com", A),
        ["= 300 5 secret.stranger.test"]
    );
    assert_eq!(
        answers(&world, "secret.stranger.test", A),
        ["= 300 1 192.0.2.66"]
    );
    for (name, account, expected) in [
        ("example.com", &stranger, 1061),
        ("sub.example.com", &stranger, 1116),
        ("a.b.example.com", &stranger, 1116),
        ("sub.example.com", &world.account, 0),
    ] {
        let body = json!({"name": name, "account": {"id": account}});
        assert_eq!(
            code(&world.post("/zones", body).await.1),
            expected,
            "{name}"
        );
    }
}
