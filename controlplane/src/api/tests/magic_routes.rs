//! Static routes, alone and beside teamnet routes.

use dataplane::fib::Nexthop;
use serde_json::{Value, json};

use super::magic::{gre, with};
use super::{World, code, id};

fn route(prefix: &str, nexthop: &str, priority: u32) -> Value {
    json!({"prefix": prefix, "nexthop": nexthop, "priority": priority})
}

impl World {
    /// A WireGuard tunnel with the link 10.254.0.(2n)/31.
    async fn linked(&self, name: &str, n: u8) -> String {
        let path = format!("/accounts/{}/wireguard_tunnels", self.account);
        let body = json!({"name": name, "generate_peer_key": true,
            "interface_address": format!("10.254.0.{}/31", 2 * n)});
        id(&self.made(&path, body).await)
    }

    /// Tunnel name, priority and weight of each candidate of a prefix in the node's state.
    fn candidates(&self, prefix: &str) -> Vec<(String, u32, u8)> {
        let spec = self.plane.spec();
        let prefix = prefix.parse().unwrap();
        let found = spec.routes.iter().find(|(key, _)| key.prefix == prefix);
        let found = found.map(|(_, route)| route.candidates.iter().collect::<Vec<_>>());
        let shown = found.into_iter().flatten().map(|candidate| {
            let Nexthop::Tunnel(tunnel) = candidate.nexthop else {
                panic!("{candidate:?}");
            };
            let name = spec.tunnels[&tunnel].name.clone();
            (name, candidate.priority, candidate.weight)
        });
        shown.collect()
    }
}

#[tokio::test]
async fn routes_live_their_life_in_the_documented_shapes() {
    let world = World::new().await;
    let routes = world.magic("routes");
    world.made(&world.magic("gre_tunnels"), gre("a", 1)).await;
    let body = with(
        route("10.1.0.0/16", "10.255.0.3", 100),
        &json!({"weight": 20,
        "description": "lab", "scope": {"colo_names": [], "colo_regions": []}}),
    );
    let made = world.made(&routes, body).await;
    assert_eq!(made["routes"][0]["id"], made["id"]);
    assert_eq!(
        (&made["tunnel_name"], &made["weight"], &made["tun_type"]),
        (&json!("a"), &json!(20), &json!("gre"))
    );
    let path = format!("{routes}/{}", id(&made));
    assert_eq!(
        world.get(&path).await.1["result"]["route"]["prefix"],
        "10.1.0.0/16"
    );
    let (_, changed) = world
        .put(&path, route("10.2.0.0/16", "10.255.0.3", 50))
        .await;
    let changed = &changed["result"];
    assert_eq!(changed["modified"], true);
    assert_eq!(
        (
            &changed["modified_route"]["prefix"],
            &changed["modified_route"]["weight"]
        ),
        (&json!("10.2.0.0/16"), &json!(20))
    );
    let bulk = json!({"routes": [with(route("10.3.0.0/16", "10.255.0.3", 7),
        &json!({"id": made["id"], "weight": null}))]});
    let (_, would) = world
        .put(&format!("{routes}?validate_only=true"), bulk.clone())
        .await;
    assert_eq!(would["result"]["modified"], false);
    let (_, changed) = world.put(&routes, bulk).await;
    let changed = &changed["result"]["modified_routes"][0];
    assert_eq!(
        (&changed["priority"], &changed["weight"]),
        (&json!(7), &json!(0))
    );
    let (_, list) = world.get(&routes).await;
    assert_eq!(list["result"]["routes"].as_array().unwrap().len(), 1);
    let (_, deleted) = world.delete(&path).await;
    assert_eq!(deleted["result"]["deleted_route"]["id"], made["id"]);
    assert_eq!(code(&world.get(&path).await.1), 1015);
    for n in [4, 5, 6] {
        let body = route(&format!("10.{n}.0.0/16"), "10.255.0.3", 1);
        world.made(&routes, body).await;
    }
    let (_, list) = world.get(&routes).await;
    let one = json!({"routes": [{"id": list["result"]["routes"][1]["id"]}]});
    let (_, emptied) = world.call(http::Method::DELETE, &routes, one).await;
    assert_eq!(
        emptied["result"]["deleted_routes"][0]["prefix"],
        "10.5.0.0/16"
    );
    let (_, emptied) = world.delete(&routes).await;
    assert_eq!(
        emptied["result"]["deleted_routes"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn routes_of_one_prefix_share_it_and_teamnet_routes_are_preferred() {
    let world = World::new().await;
    let routes = world.magic("routes");
    let site = world.linked("a", 1).await;
    world.linked("b", 2).await;
    let first = world
        .made(
            &routes,
            with(
                route("10.1.0.0/16", "10.254.0.3", 100),
                &json!({"weight": 256}),
            ),
        )
        .await;
    world
        .made(&routes, route("10.1.0.0/16", "10.254.0.5", 100))
        .await;
    let named = |name: &str, priority, weight| (name.to_owned(), priority, weight);
    assert_eq!(
        world.candidates("10.1.0.0/16"),
        [named("a", 100, 255), named("b", 100, 1)]
    );
    // Both may send from it.
    let allowed: Vec<usize> = world
        .plane
        .spec()
        .tunnels
        .values()
        .map(|t| t.allowed.len())
        .collect();
    assert_eq!(allowed, [1, 1]);
    let wire = world.tunnel("c", None).await;
    world.route("10.1.0.0/16", &wire, None).await;
    assert_eq!(
        world.candidates("10.1.0.0/16"),
        [named("a", 100, 255), named("b", 100, 1), named("c", 0, 1)]
    );
    // Into the same tunnel both ways: the more preferred counts.
    world.route("10.2.0.0/16", &site, None).await;
    world
        .made(&routes, route("10.2.0.0/16", "10.254.0.3", 100))
        .await;
    world
        .made(&routes, route("10.2.0.0/16", "10.254.0.5", 100))
        .await;
    assert_eq!(
        world.candidates("10.2.0.0/16"),
        [named("a", 0, 1), named("b", 100, 1)]
    );
    world.delete(&format!("{routes}/{}", id(&first))).await;
    assert_eq!(
        world.candidates("10.1.0.0/16"),
        [named("b", 100, 1), named("c", 0, 1)]
    );
}

#[tokio::test]
async fn a_static_route_is_a_route_for_every_product() {
    let world = World::new().await;
    world.made(&world.magic("gre_tunnels"), gre("a", 1)).await;
    let zone = world.zone("example.com").await;
    let record = json!({"name": "app", "type": "A", "content": "10.1.0.50", "proxied": true});
    let records = format!("/zones/{zone}/dns_records");
    assert_eq!(world.post(&records, record.clone()).await.0, 400);
    let made = world
        .made(
            &world.magic("routes"),
            route("10.1.0.0/16", "10.255.0.3", 100),
        )
        .await;
    world.made(&records, record).await;
    let (_, found) = world.get(&format!("{}/ip/10.1.0.50", world.routes())).await;
    let found = &found["result"];
    assert_eq!(
        (&found["network"], &found["tun_type"]),
        (&json!("10.1.0.0/16"), &json!("gre"))
    );
    let bare = found["id"].as_str().unwrap().replace('-', "");
    assert_eq!(json!(bare), made["id"]);
}

#[tokio::test]
async fn teamnet_routes_lead_into_tunnels_of_any_kind_and_go_with_them() {
    let world = World::new().await;
    let tunnels = world.magic("gre_tunnels");
    let tunnel = id(&world.made(&tunnels, gre("a", 1)).await);
    let wire = world.tunnel("wg", None).await;
    world.route("10.1.0.0/16", &tunnel, None).await;
    world.route("10.2.0.0/16", &wire, None).await;
    let (_, list) = world
        .get(&format!(
            "{}?tun_types=ip_sec&tun_types=gre",
            world.routes()
        ))
        .await;
    let list = &list["result"];
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(
        (&list[0]["tun_type"], &list[0]["tunnel_name"]),
        (&json!("gre"), &json!("a"))
    );
    let all = format!("/accounts/{}/tunnels", world.account);
    let (_, listed) = world.get(&all).await;
    assert_eq!(listed["result"].as_array().unwrap().len(), 2);
    let (_, listed) = world.get(&format!("{all}?tun_types=gre")).await;
    assert_eq!(listed["result"][0]["name"], "a");
    let wired = format!("/accounts/{}/wireguard_tunnels", world.account);
    assert_eq!(
        world.get(&wired).await.1["result"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(world.get(&format!("{wired}/{tunnel}")).await.0, 404);
    assert_eq!(world.get(&format!("{tunnels}/{wire}")).await.0, 404);
    // A next hop that is named keeps its tunnel; the other routes go, and the answer says which.
    let stays = world
        .made(
            &world.magic("routes"),
            route("10.3.0.0/16", "10.255.0.3", 1),
        )
        .await;
    let path = format!("{tunnels}/{tunnel}");
    let (status, kept) = world.delete(&path).await;
    let why = kept["errors"][0]["message"].as_str().unwrap();
    assert!(
        status == 409 && why.contains("1 route (10.3.0.0/16)"),
        "{kept}"
    );
    let (status, moved) = world
        .put(&path, json!({"interface_address": "10.255.7.0/31"}))
        .await;
    assert_eq!(
        (status, &moved["errors"][0]["source"]["pointer"]),
        (409, &json!("/interface_address"))
    );
    world
        .delete(&format!("{}/{}", world.magic("routes"), id(&stays)))
        .await;
    let (status, gone) = world.delete(&path).await;
    let note = gone["messages"][0]["message"].as_str().unwrap();
    assert!(status == 200 && note.contains("10.1.0.0/16"), "{gone}");
    let (_, list) = world.get(&world.routes()).await;
    assert_eq!(list["result"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn wrong_routes_are_named_by_field() {
    let world = World::new().await;
    let second = world.vnet("second").await;
    let tunnels = world.magic("gre_tunnels");
    world.made(&tunnels, gre("a", 1)).await;
    let apart = json!({"virtual_network_id": second, "interface_address": "10.255.8.0/31"});
    world.made(&tunnels, with(gre("b", 2), &apart)).await;
    let routes = world.magic("routes");
    let good = || route("10.0.0.0/24", "10.255.0.3", 100);
    let cases = [
        (json!({"prefix": null}), "/prefix"),
        (json!({"prefix": "10.0.0.1/24"}), "/prefix"),
        (json!({"prefix": "10.0.0.0"}), "/prefix"),
        (json!({"prefix": "100.64.1.0/24"}), "/prefix"),
        (json!({"nexthop": null}), "/nexthop"),
        (json!({"nexthop": "x"}), "/nexthop"),
        (json!({"nexthop": "10.9.9.9"}), "/nexthop"),
        // Our own side, and a tunnel of another vnet.
        (json!({"nexthop": "10.255.0.2"}), "/nexthop"),
        (json!({"nexthop": "10.255.8.1"}), "/nexthop"),
        (json!({"priority": null}), "/priority"),
        (json!({"priority": -1}), "/priority"),
        (json!({"priority": "100"}), "/priority"),
        (json!({"weight": 257}), "/weight"),
        (json!({"weight": 0.5}), "/weight"),
        (json!({"description": 1}), "/description"),
        (
            json!({"scope": {"colo_names": ["den01"]}}),
            "/scope/colo_names",
        ),
        (
            json!({"scope": {"colo_regions": ["APAC"]}}),
            "/scope/colo_regions",
        ),
        (json!({"virtual_network_id": "x"}), "/virtual_network_id"),
        (json!({"surprise": 1}), "/surprise"),
    ];
    for (change, pointer) in cases {
        let (status, refused) = world.post(&routes, with(good(), &change)).await;
        assert_eq!((status, code(&refused)), (400, 1002), "{change} {refused}");
        assert_eq!(
            refused["errors"][0]["source"]["pointer"], pointer,
            "{change} {refused}"
        );
    }
    let hint = |answer: &Value| answer["errors"][0]["message"].as_str().unwrap().to_owned();
    let (_, ours) = world
        .post(&routes, route("10.0.0.0/24", "10.255.0.2", 1))
        .await;
    assert!(hint(&ours).contains("10.255.0.3"), "{ours}");
    let (_, away) = world
        .post(&routes, route("10.0.0.0/24", "10.255.8.1", 1))
        .await;
    assert!(hint(&away).contains(&second), "{away}");
    let apart = with(
        route("10.0.0.0/24", "10.255.8.1", 1),
        &json!({"virtual_network_id": second}),
    );
    world.made(&routes, apart).await;
    world.made(&routes, good()).await;
    let (status, twice) = world.post(&routes, good()).await;
    assert_eq!((status, code(&twice)), (409, 1014), "{twice}");
    assert_eq!(twice["errors"][0]["source"]["pointer"], "/nexthop");
}

#[tokio::test]
async fn a_prefix_has_as_many_routes_as_a_node_takes() {
    let world = World::new().await;
    let routes = world.magic("routes");
    for n in 0..17_u8 {
        world.linked(&format!("t{n}"), n).await;
        let body = route("10.1.0.0/16", &format!("10.254.0.{}", 2 * n + 1), 100);
        let (status, answer) = world.post(&routes, body).await;
        let is_room = n < 16;
        assert_eq!(status, if is_room { 200 } else { 409 }, "{n} {answer}");
    }
    assert_eq!(world.candidates("10.1.0.0/16").len(), 16);
    let wire = world.tunnel("wg", None).await;
    let body = json!({"network": "10.1.0.0/16", "tunnel_id": wire});
    let (status, full) = world.post(&world.routes(), body).await;
    assert_eq!((status, code(&full)), (409, 1014), "{full}");
}
