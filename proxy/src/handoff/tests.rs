//! The choice of a way, and the check of what came of it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use dataplane::id::{TunnelId, VnetId};
use nix::sys::socket::{getsockopt, sockopt};
use pingora::upstreams::peer::Peer;

use super::fake::{FakeFlows, FakeVnets};
use super::{Handoff, Network, Refused, Upstream, Way};
use crate::config::Timeouts;
use crate::congestion::Congestion;
use crate::counters::Counters;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn handoff(allow_local: bool) -> (Arc<FakeVnets>, Handoff) {
    let vnets = Arc::new(FakeVnets::default());
    vnets.lease(1, "100.64.0.2");
    vnets.lease(2, "100.64.0.3");
    vnets.route(1, "10.0.0.50");
    let counters = Arc::new(Counters::default());
    let congestion = Congestion::new(None, &counters);
    let handoff = Handoff::new(vnets.clone(), allow_local, congestion, counters);
    (vnets, handoff)
}

#[test]
fn private_way_is_bound_to_the_vnets_source() {
    let (_, handoff) = handoff(false);
    let way = handoff.way(Network::Private(Some(VnetId(1))), ip("10.0.0.50"));
    let source = ip("100.64.0.2");
    assert_eq!(
        way,
        Ok(Way::Private {
            vnet: VnetId(1),
            source
        })
    );
}

#[test]
fn private_answer_never_becomes_a_public_way() {
    let (_, handoff) = handoff(true);
    for (vnet, address, why) in [
        (None, "10.0.0.50", Refused::VnetGone),
        (Some(VnetId(9)), "10.0.0.50", Refused::VnetGone),
        (Some(VnetId(2)), "10.0.0.50", Refused::NoRoute),
        (Some(VnetId(1)), "192.0.2.1", Refused::NoRoute),
    ] {
        assert_eq!(handoff.way(Network::Private(vnet), ip(address)), Err(why));
    }
    assert_eq!(handoff.counters.handoff_no_route_total.value(), 4);
}

#[test]
fn public_name_may_not_lead_to_a_local_address() {
    let (_, handoff) = handoff(false);
    for address in [
        "127.0.0.1",
        "10.0.0.50",
        "172.31.0.1",
        "192.168.1.1",
        "100.64.0.2",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "64:ff9b::a00:1",
    ] {
        let way = handoff.way(Network::Public, ip(address));
        assert_eq!(way, Err(Refused::Prohibited), "{address}");
    }
    for address in [
        "203.0.113.7",
        "8.8.8.8",
        "100.128.0.1",
        "2001:db8::1",
        "::ffff:8.8.8.8",
    ] {
        assert_eq!(
            handoff.way(Network::Public, ip(address)),
            Ok(Way::Public),
            "{address}"
        );
    }
}

#[test]
fn connection_from_another_vnets_address_is_refused() {
    let (_, handoff) = handoff(false);
    let way = Way::Private {
        vnet: VnetId(1),
        source: ip("100.64.0.2"),
    };
    let from = |text: &str| Some(SocketAddr::new(ip(text), 40_000));
    assert_eq!(handoff.check(way, from("100.64.0.2")), Ok(()));
    assert_eq!(
        handoff.check(way, from("100.64.0.3")),
        Err(Refused::WrongSource)
    );
    assert_eq!(
        handoff.check(way, from("198.51.100.1")),
        Err(Refused::WrongSource)
    );
    assert_eq!(handoff.check(way, None), Err(Refused::WrongSource));
    assert_eq!(handoff.check(Way::Public, from("198.51.100.1")), Ok(()));
    assert_eq!(
        handoff.check(Way::Public, from("100.64.0.3")),
        Err(Refused::WrongSource)
    );
    assert_eq!(handoff.counters.handoff_wrong_source_total.value(), 4);
}

#[test]
fn pool_keys_differ_by_vnet_and_by_source_and_are_never_zero() {
    let (_, handoff) = handoff(false);
    let to = SocketAddr::new(ip("10.0.0.50"), 80);
    let times = Timeouts::default();
    let second = Duration::from_secs(1);
    let peer = |vnet: u16, source: &str| {
        let way = Way::Private {
            vnet: VnetId(vnet),
            source: ip(source),
        };
        handoff.peer(way, to, second, &times)
    };
    let keys = [
        handoff.peer(Way::Public, to, second, &times),
        peer(1, "100.64.0.2"),
        peer(2, "100.64.0.2"),
        peer(1, "100.64.0.3"),
        peer(1, "2606:4700:cf1:5000::6440:4"),
    ];
    for (i, a) in keys.iter().enumerate() {
        assert_eq!(a.group_key == 0, i == 0);
        for b in &keys[i + 1..] {
            assert_ne!(a.reuse_hash(), b.reuse_hash());
        }
    }
    assert_eq!(
        peer(1, "100.64.0.2").reuse_hash(),
        peer(1, "100.64.0.2").reuse_hash()
    );
}

#[test]
fn flow_ends_with_its_route_or_its_lease() {
    let (vnets, handoff) = handoff(false);
    let way = Way::Private {
        vnet: VnetId(1),
        source: ip("100.64.0.2"),
    };
    assert!(handoff.is_open(way, ip("10.0.0.50")));
    vnets.withdraw(1);
    assert!(!handoff.is_open(way, ip("10.0.0.50")));
    vnets.route(1, "10.0.0.50");
    vnets.release(1);
    vnets.lease(3, "100.64.0.2");
    assert!(!handoff.is_open(way, ip("10.0.0.50")));
}

/// Every kernel has reno (net/ipv4/tcp_cong.c registers it as its fallback).
#[tokio::test]
async fn connections_to_origins_have_the_configured_congestion_control() {
    let counters = Arc::new(Counters::default());
    let congestion = Congestion::new(Some("reno"), &counters);
    let vnets = Arc::new(FakeVnets::default());
    let handoff = Handoff::new(vnets, true, congestion, counters);
    let of = |socket: &dyn std::os::fd::AsFd| {
        let name = getsockopt(&socket.as_fd(), sockopt::TcpCongestion).unwrap();
        name.to_string_lossy().trim_end_matches('\0').to_owned()
    };
    let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = origin.local_addr().unwrap();
    let second = Duration::from_secs(1);
    let stream = handoff.tcp(Way::Public, to, second).await.unwrap();
    let Upstream::Kernel(stream) = stream else {
        panic!("not the kernel's");
    };
    assert_eq!(of(&stream), "reno");
    let peer = handoff.peer(Way::Public, to, second, &Timeouts::default());
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    peer.options.upstream_tcp_sock_tweak_hook.unwrap()(&socket).unwrap();
    assert_eq!(of(&socket), "reno");
}

#[tokio::test]
async fn pooled_flow_is_for_one_vnet_and_one_origin_only() {
    let (vnets, handoff) = handoff(false);
    let handoff = handoff.with_flows(Some(Arc::new(FakeFlows)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    for (vnet, source) in [(1, "127.0.0.11"), (2, "127.0.0.12")] {
        vnets.lease(vnet, source);
        vnets.route(vnet, "127.0.0.1");
    }
    let way = |vnet, source| Way::Private {
        vnet: VnetId(vnet),
        source: ip(source),
    };
    let (one, two) = (way(1, "127.0.0.11"), way(2, "127.0.0.12"));
    let second = Duration::from_secs(1);
    let peer = handoff.peer(one, to, second, &Timeouts::default());
    let connect = peer.options.custom_l4.as_ref().unwrap();
    let flow = connect.connect(peer.address()).await.unwrap();
    let check = |way, to| handoff.check_pooled((way, to), flow.as_raw_fd(), None);
    assert_eq!(check(one, to), Ok(()));
    // Whatever the pool hands out: another vnet's or another origin's flow is not used.
    assert_eq!(check(two, to), Err(Refused::WrongSource));
    let other = SocketAddr::new(to.ip(), to.port() ^ 1);
    assert_eq!(check(one, other), Err(Refused::WrongSource));
    let plain = tokio::net::UnixStream::pair().unwrap().0;
    let unnamed = handoff.check_pooled((one, to), plain.as_raw_fd(), None);
    assert_eq!(unnamed, Err(Refused::WrongSource));
    // Same origin and port number, other vnet: never the same key.
    let theirs = handoff.peer(two, to, second, &Timeouts::default());
    assert_ne!(peer.reuse_hash(), theirs.reuse_hash());
    let next = handoff.peer(one, other, second, &Timeouts::default());
    assert_ne!(peer.reuse_hash(), next.reuse_hash());
}

#[test]
fn only_what_a_host_can_have_and_the_tunnel_leads_to_is_behind_it() {
    let (vnets, handoff) = handoff(false);
    let is_behind = |tunnel, text| handoff.is_behind(VnetId(1), TunnelId(tunnel), ip(text));
    assert!(is_behind(1, "10.0.0.50"));
    assert!(!is_behind(2, "10.0.0.50"), "another tunnel");
    assert!(!is_behind(1, "10.0.0.51"), "no route");
    assert!(
        !handoff.is_behind(VnetId(2), TunnelId(1), ip("10.0.0.50")),
        "another vnet"
    );
    for reserved in [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "100.96.0.1",
        "::1",
        "fe80::1",
        "2606:4700:cf1:5000::6440:2",
        "::ffff:10.0.0.50",
    ] {
        vnets.route(1, reserved);
        assert!(!is_behind(1, reserved), "{reserved}");
    }
}

#[tokio::test]
async fn a_refused_datagram_is_heard_of_without_another() {
    let (_, handoff) = handoff(true);
    let listener = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let way = handoff.way(Network::Public, to.ip()).unwrap();
    let datagrams = handoff.udp(way, to).await.unwrap();
    let soon = Duration::from_secs(10);
    // Somebody listens: a datagram comes back, and then nothing.
    datagrams.writable().await.unwrap();
    datagrams.try_send(b"first").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = listener.recv_from(&mut buffer).await.unwrap();
    listener.send_to(&buffer[..length], from).await.unwrap();
    let ready = tokio::time::timeout(soon, datagrams.readable()).await;
    ready.unwrap().unwrap();
    assert_eq!(datagrams.try_recv(&mut buffer).unwrap(), 5);
    drop(listener);
    datagrams.try_send(b"second").unwrap();
    for _ in 0..3 {
        let heard = tokio::time::timeout(soon, async {
            datagrams.readable().await?;
            datagrams.try_recv(&mut [0; 16])
        });
        match heard.await.expect("the error wakes the reader") {
            // What was ready before the error is looked at in vain.
            Err(none) if none.kind() == std::io::ErrorKind::WouldBlock => {}
            other => {
                let refused = std::io::ErrorKind::ConnectionRefused;
                assert_eq!(other.unwrap_err().kind(), refused);
                return;
            }
        }
    }
    panic!("no error came");
}
