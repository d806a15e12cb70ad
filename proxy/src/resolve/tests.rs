//! The resolver against servers on loopback, honest ones and others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use controlplane::origin::PrivateName;
use dataplane::id::{TunnelId, VnetId};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::fake::{Manner, Server, both, coded, has, honest, reply, silent};
use super::message::{Answer, Question, Read};
use super::{Family, Resolver, Unresolved};
use crate::config::ProxyConfig;
use crate::congestion::Congestion;
use crate::counters::Counters;
use crate::handoff::Handoff;
use crate::handoff::fake::FakeVnets;

const LONG: Duration = Duration::from_secs(20);

struct World {
    vnets: Arc<FakeVnets>,
    counters: Arc<Counters>,
    resolver: Arc<Resolver>,
}

/// Vnets 1 and 2 at 127.0.0.11 and .12; resolvers of the port behind tunnels of their numbers.
fn world(port: u16) -> World {
    let vnets = Arc::new(FakeVnets::default());
    let counters = Arc::new(Counters::default());
    for vnet in [1, 2] {
        vnets.lease(vnet, &format!("127.0.0.{}", vnet + 10));
        for resolver in ["127.0.0.21", "127.0.0.22", "127.0.0.23"] {
            vnets.route(vnet, resolver);
        }
    }
    let congestion = Congestion::new(None, &counters);
    let handoff = Handoff::new(vnets.clone(), true, congestion, Arc::clone(&counters));
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut config = ProxyConfig::new(nowhere, String::new());
    config.resolver_port = port;
    let resolver = Resolver::new(&config, &Arc::new(handoff), &counters);
    World {
        vnets,
        counters,
        resolver: Arc::new(resolver),
    }
}

fn name(vnet: u16, resolvers: &[&str]) -> PrivateName {
    PrivateName {
        account_id: format!("{vnet:032x}"),
        route_id: uuid(vnet),
        name: "wiki.corp.internal".to_owned(),
        resolvers: resolvers.iter().map(|ip| ip.parse().unwrap()).collect(),
        vnet: VnetId(vnet),
        tunnel: TunnelId(vnet.into()),
    }
}

fn uuid(number: u16) -> uuid::Uuid {
    uuid::Uuid::from_u128(number.into())
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[tokio::test]
async fn many_who_want_a_name_are_one_question_for_each_family_until_the_ttl_is_over() {
    let server = Server::with("127.0.0.21", 0, honest(&["10.0.0.50", "fd00::50"], 400)).await;
    let world = world(server.address.port());
    for ip in ["10.0.0.50", "fd00::50"] {
        world.vnets.route(1, ip);
    }
    let name = name(1, &["127.0.0.21"]);
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (resolver, name) = (Arc::clone(&world.resolver), name.clone());
            tokio::spawn(async move { resolver.addresses(&name).await })
        })
        .collect();
    for one in asking {
        assert_eq!(one.await.unwrap().unwrap(), ips(&["10.0.0.50", "fd00::50"]));
    }
    assert_eq!(server.asked(), 2);
    // From the vnet's source address, and from another port each time.
    let clients = server.clients.lock().unwrap().clone();
    assert!(
        clients
            .iter()
            .all(|client| client.ip().to_string() == "127.0.0.11")
    );
    assert_ne!(clients[0], clients[1]);
    // 400 seconds are 300: nothing is kept longer.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(299)).await;
    world.resolver.addresses(&name).await.unwrap();
    assert_eq!(server.asked(), 2);
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    world.resolver.addresses(&name).await.unwrap();
    assert_eq!(server.asked(), 4);
}

#[tokio::test]
async fn the_same_name_of_two_accounts_is_two_names() {
    let one = Server::with("127.0.0.21", 0, honest(&["10.0.0.50"], 300)).await;
    let port = one.address.port();
    let _two = Server::with("127.0.0.22", port, honest(&["10.0.0.60"], 300)).await;
    let world = world(port);
    for (vnet, ip) in [(1, "10.0.0.50"), (2, "10.0.0.60")] {
        world.vnets.route(vnet, ip);
    }
    for _ in 0..2 {
        for (vnet, resolver, ip) in [
            (1, "127.0.0.21", "10.0.0.50"),
            (2, "127.0.0.22", "10.0.0.60"),
        ] {
            let found = world.resolver.addresses(&name(vnet, &[resolver])).await;
            assert_eq!(found, Ok(ips(&[ip])));
        }
    }
}

#[tokio::test]
async fn a_dead_resolver_is_passed_over_and_a_refusing_one_too() {
    let refusing = Server::with("127.0.0.21", 0, coded(ResponseCode::Refused)).await;
    let port = refusing.address.port();
    let _good = Server::with("127.0.0.23", port, honest(&["10.0.0.50"], 60)).await;
    let world = world(port);
    world.vnets.route(1, "10.0.0.50");
    // Nobody listens at .22.
    let name = name(1, &["127.0.0.21", "127.0.0.22", "127.0.0.23"]);
    let found = timeout(LONG, world.resolver.addresses(&name))
        .await
        .unwrap();
    assert_eq!(found, Ok(ips(&["10.0.0.50"])));
}

#[tokio::test]
async fn every_failure_has_its_reason() {
    for (code, why) in [
        (ResponseCode::NXDomain, Unresolved::NoSuchName),
        (ResponseCode::NoError, Unresolved::NoAddress),
        (ResponseCode::ServFail, Unresolved::Failed),
    ] {
        let server = Server::with("127.0.0.21", 0, coded(code)).await;
        let world = world(server.address.port());
        let found = world.resolver.addresses(&name(1, &["127.0.0.21"])).await;
        assert_eq!(found, Err(why));
        assert_eq!(world.counters.resolve_failed_total.value(), 1);
    }
    let silent = Server::with("127.0.0.21", 0, silent()).await;
    let world = world(silent.address.port());
    let started = tokio::time::Instant::now();
    let found = world.resolver.addresses(&name(1, &["127.0.0.21"])).await;
    assert_eq!(found, Err(Unresolved::Silent));
    assert!(started.elapsed() < Duration::from_secs(5));
    // Of a tunnel that the resolver is not behind, and of a vnet that is not here.
    let mut other = name(1, &["127.0.0.21"]);
    other.tunnel = TunnelId(9);
    assert_eq!(
        world.resolver.addresses(&other).await,
        Err(Unresolved::NoWay)
    );
    let gone = name(7, &["127.0.0.21"]);
    assert_eq!(
        world.resolver.addresses(&gone).await,
        Err(Unresolved::NoWay)
    );
}

#[tokio::test]
async fn an_address_that_is_not_behind_the_tunnel_is_not_used() {
    const ANSWERED: &[&str] = &[
        "10.0.0.50",
        "10.9.9.9",
        "10.0.0.70",
        "100.96.0.2",
        "192.0.2.1",
    ];
    let server = Server::with("127.0.0.21", 0, honest(ANSWERED, 60)).await;
    let world = world(server.address.port());
    // Of these five one is behind the tunnel, one behind another of the vnet, one is a device's address.
    world.vnets.route(1, "10.0.0.50");
    world.vnets.route_by(1, "10.0.0.70", 8);
    world.vnets.route(1, "100.96.0.2");
    let name = name(1, &["127.0.0.21"]);
    assert_eq!(
        world.resolver.addresses(&name).await,
        Ok(ips(&["10.0.0.50"]))
    );
    assert_eq!(world.counters.resolve_refused_total.value(), 1);
    // What is known of it is judged anew at each use.
    world.vnets.withdraw(1);
    assert_eq!(
        world.resolver.addresses(&name).await,
        Err(Unresolved::Elsewhere)
    );
    world.vnets.route(1, "10.0.0.50");
    assert_eq!(
        world.resolver.addresses(&name).await,
        Ok(ips(&["10.0.0.50"]))
    );
}

#[tokio::test]
async fn what_does_not_repeat_the_question_is_not_believed() {
    // The answer comes after three that somebody made up.
    let manner: Manner = Box::new(|query| {
        let mut wrong_id = has(query, &["10.6.6.6"], 60);
        wrong_id.metadata.id ^= 1;
        let mut question = Message::new(query.metadata.id, MessageType::Query, OpCode::Query);
        question.add_query(query.queries[0].clone());
        let mut other = query.clone();
        let evil = Name::from_ascii("evil.corp.internal.").unwrap();
        other.queries[0] = Query::query(evil, query.queries[0].query_type());
        vec![
            wrong_id,
            question,
            has(&other, &["10.6.6.6"], 60),
            has(query, &["10.0.0.50"], 60),
        ]
    });
    let server = Server::with("127.0.0.21", 0, manner).await;
    let world = world(server.address.port());
    for ip in ["10.0.0.50", "10.6.6.6"] {
        world.vnets.route(1, ip);
    }
    let found = world.resolver.addresses(&name(1, &["127.0.0.21"])).await;
    assert_eq!(found, Ok(ips(&["10.0.0.50"])));
}

#[tokio::test]
async fn an_answer_from_another_address_does_not_arrive() {
    let (socket, _listener) = both("127.0.0.21", 0).await;
    let address = socket.local_addr().unwrap();
    // Somebody at another address of the same port, who knows everything that the resolver knows.
    let attacker = UdpSocket::bind(("127.0.0.66", address.port()))
        .await
        .unwrap();
    let world = world(address.port());
    for ip in ["10.0.0.50", "10.6.6.6"] {
        world.vnets.route(1, ip);
    }
    let serve = async {
        let mut buffer = [0; 2_000];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let forged = has(&query, &["10.6.6.6"], 60).to_vec().unwrap();
            attacker.send_to(&forged, client).await.unwrap();
            let answer = has(&query, &["10.0.0.50"], 60).to_vec().unwrap();
            socket.send_to(&answer, client).await.unwrap();
        }
    };
    let name = name(1, &["127.0.0.21"]);
    tokio::select! {
        () = serve => unreachable!("it serves as long as it is asked"),
        found = world.resolver.addresses(&name) => assert_eq!(found, Ok(ips(&["10.0.0.50"]))),
    }
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_is_asked_for_over_tcp() {
    let short: Manner = Box::new(|query| {
        let mut message = reply(query);
        message.metadata.truncation = true;
        vec![message]
    });
    let server = Server::start("127.0.0.21", 0, short, honest(&["10.0.0.50"], 60)).await;
    let world = world(server.address.port());
    world.vnets.route(1, "10.0.0.50");
    let found = world.resolver.addresses(&name(1, &["127.0.0.21"])).await;
    assert_eq!(found, Ok(ips(&["10.0.0.50"])));
}

fn read(answers: Vec<Record>) -> Read {
    let question = Question::new(7, "wiki.corp.internal", Family::V4).unwrap();
    let asked = Message::from_vec(&question.bytes().unwrap()).unwrap();
    let mut message = reply(&asked);
    message.insert_answers(answers);
    question.read(&message.to_vec().unwrap())
}

fn a(owner: &str, ip: [u8; 4], ttl: u32) -> Record {
    let data = RData::A(A(ip.into()));
    Record::from_rdata(Name::from_ascii(owner).unwrap(), ttl, data)
}

fn cname(owner: &str, target: &str, ttl: u32) -> Record {
    let data = RData::CNAME(CNAME(Name::from_ascii(target).unwrap()));
    Record::from_rdata(Name::from_ascii(owner).unwrap(), ttl, data)
}

#[test]
fn aliases_are_followed_and_what_belongs_to_other_names_is_left_out() {
    let read = read(vec![
        a("other.internal.", [10, 0, 0, 66], 5),
        cname("wiki.corp.internal.", "Web.internal.", 120),
        cname("web.internal.", "host.internal.", 90),
        a("host.internal.", [10, 0, 0, 50], 600),
        a("host.internal.", [10, 0, 0, 51], 600),
    ]);
    let addresses = ips(&["10.0.0.50", "10.0.0.51"]);
    assert_eq!(read, Read::Answer(Answer::Addresses(addresses, 90)));
}

#[test]
fn aliases_that_go_round_have_no_address() {
    let read = read(vec![
        cname("wiki.corp.internal.", "web.internal.", 60),
        cname("web.internal.", "wiki.corp.internal.", 60),
    ]);
    assert_eq!(read, Read::Answer(Answer::None));
}

#[test]
fn an_answer_of_a_thousand_addresses_is_sixteen() {
    let all = (0..1_000_u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        a("wiki.corp.internal.", [10, 1, high, low], 60)
    });
    let Read::Answer(Answer::Addresses(addresses, 60)) = read(all.collect()) else {
        panic!("no addresses");
    };
    assert_eq!(addresses.len(), 16);
}

#[test]
fn the_question_is_one_that_other_programs_read() {
    let question = Question::new(0x1234, "wiki.corp", Family::V6).unwrap();
    // RFC 1035, section 4.1: id, RD, one question, one additional; the name; AAAA, IN; then RFC 6891's OPT.
    let wanted =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x04wiki\x04corp\x00\x00\x1c\x00\x01\
                   \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
    assert_eq!(question.bytes().unwrap(), wanted);
    assert_eq!(RecordType::AAAA, RecordType::from(0x1c));
}

proptest! {
    #[test]
    fn bytes_of_anybody_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let question = Question::new(7, "wiki.corp.internal", Family::V4).unwrap();
        let _ = question.read(&bytes);
        // The same behind a head and a question that are right.
        let mut ours = question.bytes().unwrap();
        ours[2] |= 0x80;
        ours.truncate(12 + 20 + 4);
        ours[6..12].copy_from_slice(&[0, 9, 0, 9, 0, 9]);
        ours.extend(bytes);
        let _ = question.read(&ours);
    }
}
