//! Layer-4 apps.

use http::Method;
use serde_json::{Value, json};

use super::{World, code, id};

/// A world with a zone, a route to 10.0.0.0/24 and the vnet of it; the path of the apps.
async fn world() -> (World, String, String) {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let tunnel = world.tunnel("site", None).await;
    world.route("10.0.0.0/24", &tunnel, None).await;
    let path = format!("/accounts/{}/teamnet/virtual_networks", world.account);
    let vnet = id(&world.get(&path).await.1["result"][0]);
    (world, format!("/zones/{zone}/spectrum/apps"), vnet)
}

/// A valid app, but for the change.
fn app(vnet: &str, change: Value) -> Value {
    let mut app = json!({"protocol": "tcp/6379", "dns": {"type": "CNAME",
        "name": "redis.example.com"}, "origin_direct": ["tcp://10.0.0.50:6379"],
        "virtual_network_id": vnet});
    for (key, value) in change.as_object().unwrap() {
        app[key] = value.clone();
    }
    app
}

#[tokio::test]
async fn apps_are_refused_with_the_documented_codes() {
    let (world, apps, vnet) = world().await;
    for (change, expected) in [
        (json!({"origin_direct": null}), 11_041),
        (
            json!({"origin_direct": ["tcp://10.0.0.50:1", "tcp://10.0.0.51:1"]}),
            11_042,
        ),
        (
            json!({"protocol": "tcp/100-101", "origin_direct": ["tcp://10.0.0.50:1-2"]}),
            11_043,
        ),
        (json!({"origin_direct": ["tcp://10.9.9.9:6379"]}), 11_044),
        (
            json!({"virtual_network_id": "00000000-0000-4000-8000-000000000000"}),
            11_044,
        ),
        (json!({"virtual_network_id": "nonsense"}), 11_045),
        (json!({"virtual_network_id": null}), 11_002),
        (json!({"origin_direct": ["tcp://2001:db8::1:80"]}), 11_002),
        (json!({"origin_direct": ["udp://10.0.0.50:6379"]}), 11_002),
        (
            json!({"virtual_network_id": null, "origin_direct": null}),
            11_000,
        ),
        (json!({"origin_dns": {"name": "a.b"}}), 11_000),
        (
            json!({"edge_ips": {"type": "static", "ips": ["203.0.113.1"]}}),
            11_004,
        ),
        (
            json!({"edge_ips": {"type": "static", "ips": ["192.0.2.9"]},
            "dns": {"type": "ADDRESS", "name": "redis.example.com"}}),
            11_019,
        ),
        (json!({"protocol": "tcp/443"}), 11_033),
        (json!({"protocol": "icmp/1"}), 13_002),
        (
            json!({"dns": {"type": "CNAME", "name": "redis.example.net"}}),
            16_001,
        ),
        (json!({"proxy_protocol": "v1"}), 11_003),
        (json!({"tls": "full"}), 11_003),
    ] {
        let (status, refused) = world.post(&apps, app(&vnet, change.clone())).await;
        assert_eq!(
            (status, code(&refused)),
            (400, expected),
            "{change} {refused}"
        );
    }
}

#[tokio::test]
async fn an_app_is_made_served_replaced_and_deleted() {
    let (world, apps, vnet) = world().await;
    let made = world.made(&apps, app(&vnet, json!({}))).await;
    assert_eq!(made["protocol"], "tcp/6379");
    assert_eq!(
        made["edge_ips"],
        json!({"type": "dynamic", "connectivity": "all"})
    );
    assert_eq!(
        code(&world.post(&apps, app(&vnet, json!({}))).await.1),
        11_033
    );
    let (_, answer) = world.get("/origin/v1/apps").await;
    let served = &answer["apps"][0];
    assert_eq!(served["origins"], json!(["10.0.0.50:6379"]));
    assert_eq!(
        (&served["transport"], &served["vnet"]),
        (&json!("tcp"), &json!(1))
    );
    let path = format!("{apps}/{}", id(&made));
    let (_, put) = world
        .call(
            Method::PUT,
            &path,
            app(&vnet, json!({"protocol": "tcp/6380"})),
        )
        .await;
    assert_eq!(put["result"]["protocol"], "tcp/6380", "{put}");
    assert_eq!(
        world.get(&apps).await.1["result"].as_array().unwrap().len(),
        1
    );
    assert_eq!(
        world.delete(&path).await.1["result"],
        json!({"id": id(&made)})
    );
    assert_eq!(world.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_public_range_maps_port_by_port_and_shares_the_load() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let origins = ["udp://192.0.2.1:3000-3002", "udp://[2001:db8::9]:3000-3002"];
    let body = json!({"protocol": "udp/1000-1002", "dns": {"name": "u.example.com"},
        "origin_direct": origins, "edge_ips": {"type": "dynamic", "connectivity": "ipv4"}});
    let made = world
        .made(&format!("/zones/{zone}/spectrum/apps"), body)
        .await;
    assert_eq!(made["origin_direct"], json!(origins));
    let (_, answer) = world.get("/origin/v1/apps").await;
    let served = &answer["apps"][0];
    assert_eq!(served["edge_addresses"], json!(["203.0.113.1"]));
    assert_eq!(
        (&served["edge_port"], &served["edge_port_end"]),
        (&json!(1000), &json!(1002))
    );
    assert_eq!(served["origin_port_end"], 3002);
    assert_eq!(served["vnet"], json!(null));
}
