//! Interconnects: devices, ports and VLANs that the edge hands out.

use serde_json::json;

use super::magic::with;
use super::{World, id};

#[tokio::test]
async fn an_interconnect_takes_a_device_that_the_edge_hands_out_and_keeps_it() {
    let world = World::new().await;
    let links = world.magic("cf_interconnects");
    let body = |name: &str, device: &str, n: u8| {
        json!({"name": name, "device": device,
            "interface_address": format!("10.255.2.{}/30", 4 * n + 1)})
    };
    let made = world.made(&links, body("dc", "cni0", 0)).await;
    assert_eq!(made["customer_interface_address"], "10.255.2.2");
    assert_eq!(
        (&made["mtu"], &made["device"]),
        (&json!(1476), &json!("cni0"))
    );
    let path = format!("{links}/{}", id(&made));
    for (body, status, pointer) in [
        (body("two", "cni0", 1), 409, "/device"),
        (body("two", "eth0", 1), 400, "/device"),
        (
            json!({"name": "two", "interface_address": "10.255.2.5/30"}),
            400,
            "/device",
        ),
        (
            with(
                body("two", "cni1", 1),
                &json!({"gre": {"cloudflare_endpoint": "198.51.100.1"}}),
            ),
            400,
            "/gre",
        ),
    ] {
        let (got, refused) = world.post(&links, body.clone()).await;
        assert_eq!(got, status, "{body} {refused}");
        assert_eq!(refused["errors"][0]["source"]["pointer"], pointer, "{body}");
    }
    assert_eq!(world.put(&path, json!({"device": "cni1"})).await.0, 400);
    let body = json!({"interconnects": [{"id": made["id"], "description": "rack 7"}]});
    let (status, changed) = world.put(&links, body).await;
    let changed = &changed["result"]["modified_interconnects"][0];
    assert_eq!((status, &changed["description"]), (200, &json!("rack 7")));
    let (_, read) = world.get(&path).await;
    assert_eq!(read["result"]["interconnect"]["description"], "rack 7");
    let tunnel = world.plane.spec().tunnels.into_values().next().unwrap();
    assert_eq!(tunnel.interface, ["10.255.2.1/30".parse().unwrap()]);
    assert!(tunnel.health.is_some());
}

#[tokio::test]
async fn an_interconnect_on_a_port_has_it_whole_or_a_vlan_of_it() {
    use dataplane::tunnel::Config;
    use dataplane::tunnel::direct::Medium;

    let world = World::new().await;
    let links = world.magic("cf_interconnects");
    let body = |name: &str, device: &str, vlan: Option<u32>, n: u8| {
        let mut body = json!({"name": name, "device": device,
            "interface_address": format!("10.255.2.{}/31", 2 * n)});
        if let Some(vlan) = vlan {
            body["vlan"] = json!(vlan);
        }
        body
    };
    for (n, vlan) in [(0, None), (1, Some(7)), (2, Some(4094))] {
        let made = world
            .made(&links, body(&format!("l{n}"), "eth1", vlan, n))
            .await;
        assert_eq!(made["vlan"], json!(vlan));
        let path = format!("{links}/{}", id(&made));
        assert_eq!(world.put(&path, json!({"mtu": 1400})).await.0, 200);
        let (status, refused) = world.put(&path, json!({"vlan": 9})).await;
        assert_eq!(status, 400, "{refused}");
        let (_, read) = world.get(&path).await;
        assert_eq!(read["result"]["interconnect"]["vlan"], json!(vlan));
    }
    let tun = world.made(&links, body("tun", "cni0", None, 3)).await;
    assert_eq!(tun["vlan"], json!(null));
    for (body, status, pointer) in [
        (body("x", "eth1", None, 9), 409, "/device"),
        (body("x", "eth1", Some(7), 9), 409, "/vlan"),
        (body("x", "eth1", Some(0), 9), 400, "/vlan"),
        (body("x", "eth1", Some(4095), 9), 400, "/vlan"),
        (body("x", "cni1", Some(7), 9), 400, "/vlan"),
    ] {
        let (got, refused) = world.post(&links, body.clone()).await;
        assert_eq!(got, status, "{body} {refused}");
        assert_eq!(refused["errors"][0]["source"]["pointer"], pointer, "{body}");
    }
    let media = world
        .plane
        .spec()
        .tunnels
        .into_values()
        .map(|tunnel| match tunnel.kind {
            Config::Direct(link) => (link.device, link.medium),
            other @ (Config::WireGuard(_) | Config::IpSec(_) | Config::Gre(_)) => {
                panic!("{other:?}")
            }
        });
    let port = |vlan| ("eth1".to_owned(), Medium::Ethernet { vlan });
    let wanted = [
        port(None),
        port(Some(7)),
        port(Some(4094)),
        ("cni0".to_owned(), Medium::Tun),
    ];
    assert_eq!(media.collect::<Vec<_>>(), wanted);
}
