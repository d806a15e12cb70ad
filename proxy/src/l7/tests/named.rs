//! Names whose addresses a private network's resolver knows: which origin a request reaches, and which never.

use controlplane::origin::PrivateName;
use dataplane::id::{TunnelId, VnetId};

use super::*;
use crate::resolve::fake::{Server, honest, silent};

/// A resolver that has these addresses for every name; without any it is silent. Its port.
async fn resolver(at: &str, port: u16, ips: &'static [&str]) -> u16 {
    let manner = match ips {
        [] => silent(),
        ips => honest(ips, 60),
    };
    Server::with(at, port, manner).await.address.port()
}

/// `host` is a name that the resolver in the vnet is asked for; tunnels are numbered as vnets.
fn named(world: &World, host: &str, vnet: u16, resolver: &str) {
    // What a proxy that knows no names would do with the answer: nothing.
    world.api.host(host, &[], Some(vnet));
    world.api.change(host, |answer| {
        answer.private_name = Some(PrivateName {
            account_id: format!("{vnet:032x}"),
            route_id: uuid::Uuid::from_u128(vnet.into()),
            name: "wiki.corp.internal".to_owned(),
            resolvers: vec![resolver.parse().unwrap()],
            vnet: VnetId(vnet),
            tunnel: TunnelId(vnet.into()),
        });
    });
    world.vnets.lease(vnet, &format!("127.0.0.{}", vnet + 10));
    world.vnets.route(vnet, resolver);
}

#[tokio::test]
async fn the_same_name_of_two_accounts_leads_each_into_its_own_network() {
    let one = Origin::at("127.0.0.31:0", Manner::Echo).await;
    let origins = one.address.port();
    let two = Origin::at(&format!("127.0.0.32:{origins}"), Manner::Echo).await;
    let port = resolver("127.0.0.21", 0, &["127.0.0.31"]).await;
    resolver("127.0.0.22", port, &["127.0.0.32"]).await;
    let world = World::new(origins, |config| config.resolver_port = port).await;
    named(&world, "one.example.com", 1, "127.0.0.21");
    named(&world, "two.example.com", 2, "127.0.0.22");
    world.vnets.route(1, "127.0.0.31");
    world.vnets.route(2, "127.0.0.32");
    for _ in 0..3 {
        assert_eq!(world.status("one.example.com").await, "200");
        assert_eq!(world.status("two.example.com").await, "200");
    }
    assert_eq!(one.peer_ips(), ["127.0.0.11"]);
    assert_eq!(two.peer_ips(), ["127.0.0.12"]);
    // Two questions for each, and no more.
    assert_eq!(world.proxy.counters().resolve_queries_total, 4);
}

#[tokio::test]
async fn a_resolver_cannot_lead_requests_out_of_its_tunnel() {
    let origin = Origin::at("127.0.0.31:0", Manner::Echo).await;
    let port = resolver("127.0.0.21", 0, &["127.0.0.31"]).await;
    let world = World::new(origin.address.port(), |config| config.resolver_port = port).await;
    named(&world, "app.example.com", 1, "127.0.0.21");
    // The address is another vnet's, then that of another tunnel of the vnet.
    world.vnets.lease(2, "127.0.0.12");
    world.vnets.route(2, "127.0.0.31");
    let page = world.get("app.example.com").await;
    assert!(
        page.starts_with("HTTP/1.1 523") && page.contains("not behind the tunnel"),
        "{page}"
    );
    world.vnets.route_by(1, "127.0.0.31", 9);
    assert_eq!(world.status("app.example.com").await, "523");
    assert!(origin.peer_ips().is_empty());
    assert_eq!(world.proxy.counters().resolve_refused_total, 2);
}

#[tokio::test]
async fn a_name_that_is_not_resolved_has_its_page_and_goes_nowhere() {
    let origin = Origin::at("127.0.0.31:0", Manner::Echo).await;
    let port = resolver("127.0.0.21", 0, &[]).await;
    let world = World::new(origin.address.port(), |config| config.resolver_port = port).await;
    named(&world, "silent.example.com", 1, "127.0.0.21");
    named(&world, "down.example.com", 1, "127.0.0.29");
    named(&world, "elsewhere.example.com", 1, "127.0.0.28");
    world.vnets.route_by(1, "127.0.0.28", 9);
    // Public addresses beside the name are not for it, even if somebody answered them.
    world.api.change("elsewhere.example.com", |answer| {
        answer.ipv4_addresses = vec!["127.0.0.31".parse().unwrap()];
        answer.use_private_routing = false;
    });
    for (host, why) in [
        ("silent.example.com", "answered in time"),
        // Nothing listens there, and its machine says so.
        ("down.example.com", "network failed"),
    ] {
        let page = world.get(host).await;
        assert_eq!(page.split(' ').nth(1), Some("530"), "{page}");
        assert!(page.contains("1016") && page.contains(why), "{page}");
    }
    assert_eq!(world.status("elsewhere.example.com").await, "523");
    assert!(origin.peer_ips().is_empty());
}
