//! The same requests over userspace flows: pooled, kept apart by vnet, with the same pages.

use super::*;
use crate::handoff::fake::FakeFlows;

async fn world(port: u16) -> World {
    World::with_flows(port, Some(Arc::new(FakeFlows)), |_| {}).await
}

#[tokio::test]
async fn requests_share_one_flow_for_each_vnet_and_origin() {
    let origin = Origin::start(Manner::Echo).await;
    let world = world(origin.address.port()).await;
    for (vnet, host) in [(1, "one.example.com"), (2, "two.example.com")] {
        world.vnets.lease(vnet, &format!("127.0.0.{}", vnet + 10));
        world.vnets.route(vnet, "127.0.0.1");
        world.api.host(host, &["127.0.0.1"], Some(vnet));
    }
    world.api.host("public.example.com", &["127.0.0.1"], None);
    for _ in 0..10 {
        for host in ["one.example.com", "two.example.com", "public.example.com"] {
            assert!(world.get(host).await.starts_with("HTTP/1.1 200"));
        }
    }
    let mut peers = origin.peer_ips();
    peers.sort();
    assert_eq!(peers, ["127.0.0.1", "127.0.0.11", "127.0.0.12"]);
    assert_eq!(world.proxy.counters().upstream_reused_total, 27);
}

#[tokio::test]
async fn origins_of_one_vnet_do_not_share_flows() {
    let one = Origin::at("127.0.0.21:0", Manner::Echo).await;
    let address = format!("127.0.0.22:{}", one.address.port());
    let two = Origin::at(&address, Manner::Echo).await;
    let world = world(one.address.port()).await;
    world.vnets.lease(1, "127.0.0.11");
    for (host, to) in [
        ("one.example.com", "127.0.0.21"),
        ("two.example.com", "127.0.0.22"),
    ] {
        world.vnets.route(1, to);
        world.api.host(host, &[to], Some(1));
    }
    for _ in 0..5 {
        assert_eq!(world.status("one.example.com").await, "200");
        assert_eq!(world.status("two.example.com").await, "200");
    }
    assert_eq!((one.peer_ips().len(), two.peer_ips().len()), (1, 1));
}

#[tokio::test]
async fn flow_whose_address_changed_hands_is_refused() {
    let origin = Origin::start(Manner::Echo).await;
    let world = world(origin.address.port()).await;
    world.vnets.lease(1, "127.0.0.11");
    world.vnets.route(1, "127.0.0.1");
    world.api.host("one.example.com", &["127.0.0.1"], Some(1));
    assert_eq!(world.status("one.example.com").await, "200");
    // IPv4 and IPv6 sources share the key's low half: the pool hands out the old flow.
    world.vnets.release(1);
    world.vnets.lease(1, "::127.0.0.11");
    assert_eq!(world.status("one.example.com").await, "502");
    assert_eq!(world.proxy.counters().handoff_wrong_source_total, 1);
}

#[tokio::test]
async fn failures_have_the_pages_of_kernel_connections() {
    let silent = Origin::start(Manner::Silent).await;
    let world = World::with_flows(silent.address.port(), Some(Arc::new(FakeFlows)), |config| {
        config.timeouts.read = Duration::from_millis(300);
    })
    .await;
    world.vnets.lease(1, "127.0.0.11");
    for (host, to) in [
        ("silent.example.com", "127.0.0.1"),
        ("down.example.com", "127.0.0.99"),
    ] {
        world.vnets.route(1, to);
        world.api.host(host, &[to], Some(1));
    }
    assert_eq!(world.status("silent.example.com").await, "524");
    assert_eq!(world.status("down.example.com").await, "521");
    world.vnets.withdraw(1);
    assert_eq!(world.status("silent.example.com").await, "523");
}

#[tokio::test]
async fn an_origin_that_closes_idle_flows_gets_new_ones() {
    let origin = Origin::start(Manner::Close).await;
    let world = world(origin.address.port()).await;
    world.vnets.lease(1, "127.0.0.11");
    world.vnets.route(1, "127.0.0.1");
    world.api.host("one.example.com", &["127.0.0.1"], Some(1));
    assert_eq!(world.status("one.example.com").await, "520");
    assert_eq!(world.status("one.example.com").await, "520");
    assert_eq!(origin.peer_ips().len(), 2);
}
