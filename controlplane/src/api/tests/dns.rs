//! Zones and DNS records.

use http::Method;
use serde_json::{Value, json};

use super::{World, code, id};

#[tokio::test]
async fn a_zone_is_made_found_paused_and_deleted_with_what_is_in_it() {
    let world = World::new().await;
    let zone = world.zone("Example.COM").await;
    let (_, read) = world.get(&format!("/zones/{zone}")).await;
    assert_eq!(read["result"]["name"], "example.com");
    assert_eq!(read["result"]["account"]["id"], json!(world.account));
    let again = json!({"name": "example.com", "account": {"id": world.account}});
    assert_eq!(code(&world.post("/zones", again).await.1), 1061);
    world.zone("example.org").await;
    for (query, count) in [
        ("name=example.com", 1),
        ("name=contains:example", 2),
        ("name=x.com", 0),
        ("page=9", 0),
    ] {
        let (status, list) = world.get(&format!("/zones?{query}")).await;
        assert_eq!(
            (status, list["result"].as_array().unwrap().len()),
            (200, count),
            "{query}"
        );
    }
    let (_, page) = world.get("/zones?per_page=1&page=2").await;
    assert_eq!(page["result"][0]["name"], "example.org");
    assert_eq!(
        page["result_info"],
        json!({"page": 2, "per_page": 1, "count": 1, "total_count": 2, "total_pages": 2})
    );
    let records = format!("/zones/{zone}/dns_records");
    let record = json!({"name": "a", "type": "A", "content": "192.0.2.1", "proxied": true});
    world.made(&records, record).await;
    assert_eq!(world.get("/origin/v1/hosts/a.example.com").await.0, 200);
    world
        .patch(&format!("/zones/{zone}"), json!({"paused": true}))
        .await;
    assert_eq!(world.get("/origin/v1/hosts/a.example.com").await.0, 404);
    assert_eq!(
        world.delete(&format!("/zones/{zone}")).await.1["result"],
        json!({"id": zone})
    );
    assert_eq!(world.get(&records).await.0, 404);
}

#[tokio::test]
async fn private_routing_follows_the_documented_table() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let tunnel = world.tunnel("site1", None).await;
    world.route("10.0.0.0/24", &tunnel, None).await;
    world.route("192.0.2.0/24", &tunnel, None).await;
    let records = format!("/zones/{zone}/dns_records");
    // (proxied, content, flag) -> flag in the answer, or the refusal.
    let table = [
        (true, "10.0.0.50", json!(null), Some(true)),
        (true, "10.0.0.50", json!(true), Some(true)),
        (true, "10.0.0.50", json!(false), None),
        (true, "192.0.2.1", json!(null), Some(false)),
        (true, "192.0.2.1", json!(false), Some(false)),
        (true, "192.0.2.1", json!(true), Some(true)),
        (false, "10.0.0.50", json!(null), Some(false)),
        (false, "10.0.0.50", json!(true), None),
    ];
    for (number, (proxied, content, flag, expected)) in table.into_iter().enumerate() {
        for field in ["private_routing", "use_private_routing"] {
            let name = format!("{field}-{number}");
            let body = json!({"name": name, "type": "A", "content": content, "ttl": 300,
                "proxied": proxied, (field): flag});
            let (status, answer) = world.post(&records, body.clone()).await;
            match expected {
                None => assert_eq!((status, code(&answer)), (400, 1004), "{body}"),
                Some(flag) => {
                    let result = &answer["result"];
                    assert_eq!(result["private_routing"], json!(flag), "{body} {answer}");
                    assert_eq!(result["use_private_routing"], json!(flag), "{body}");
                    assert_eq!(
                        result["ttl"],
                        json!(if proxied { 1 } else { 300 }),
                        "{body}"
                    );
                }
            }
        }
    }
    let both = json!({"name": "b", "type": "A", "content": "192.0.2.1", "proxied": true,
        "private_routing": true, "use_private_routing": false});
    assert_eq!(code(&world.post(&records, both).await.1), 1004);
}

#[tokio::test]
async fn one_private_record_makes_its_name_private_and_moves_it_as_a_whole() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let second = world.vnet("second").await;
    let default = world.tunnel("site1", None).await;
    let other = world.tunnel("site2", Some(&second)).await;
    for prefix in ["10.0.0.0/24", "192.0.2.0/24", "2001:db8::/64"] {
        world.route(prefix, &default, None).await;
    }
    world.route("10.0.0.0/24", &other, Some(&second)).await;
    let record = |kind: &str, content: &str| json!({"name": "app", "type": kind, "content": content, "proxied": true});
    world.made(&records, record("A", "192.0.2.1")).await;
    let private = world.made(&records, record("A", "10.0.0.50")).await;
    world.made(&records, record("AAAA", "2001:db8::1")).await;
    let (_, answer) = world.get("/origin/v1/hosts/APP.example.com.").await;
    assert_eq!(answer["use_private_routing"], json!(true));
    assert_eq!(answer["ipv6_addresses"], json!(["2001:db8::1"]));
    assert_eq!(answer["ipv4_addresses"].as_array().unwrap().len(), 2);
    assert_eq!(answer["vnet"], json!(1));
    // The second vnet has no route for two of the three addresses: nothing moves.
    let path = format!("{records}/{}", id(&private));
    let (status, refused) = world
        .patch(&path, json!({"virtual_network_id": second}))
        .await;
    assert_eq!((status, code(&refused)), (400, 1004));
    let why = refused["errors"][0]["error_chain"][0]["message"]
        .as_str()
        .unwrap();
    assert!(
        why.contains("'second'") && why.contains("add a route"),
        "{why}"
    );
    world.route("0.0.0.0/0", &other, Some(&second)).await;
    world.route("::/0", &other, Some(&second)).await;
    let (status, moved) = world
        .patch(&path, json!({"virtual_network_id": second}))
        .await;
    assert_eq!(
        (status, &moved["result"]["virtual_network_id"]),
        (200, &json!(second))
    );
    let (_, answer) = world.get("/origin/v1/hosts/app.example.com").await;
    assert_eq!(
        (&answer["vnet"], &answer["virtual_network_id"]),
        (&json!(2), &json!(second))
    );
}

#[tokio::test]
async fn a_private_address_without_a_route_is_refused_by_name() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let record = json!({"name": "app", "type": "A", "content": "10.9.9.9", "proxied": true});
    let (status, refused) = world.post(&records, record).await;
    assert_eq!((status, code(&refused)), (400, 1004));
    let error = &refused["errors"][0];
    assert_eq!(error["source"]["pointer"], "/content");
    let why = error["error_chain"][0]["message"].as_str().unwrap();
    assert!(
        why.contains("10.9.9.9") && why.contains("'default'"),
        "{why}"
    );
    assert_eq!(world.get(&records).await.1["result"], json!([]));
    // Covered by 0.0.0.0/0 or not, the source range is nobody's.
    let tunnel = world.tunnel("site", None).await;
    world.route("0.0.0.0/0", &tunnel, None).await;
    let record = json!({"name": "app", "type": "A", "content": "100.64.0.9", "proxied": true});
    assert_eq!(world.post(&records, record).await.0, 400);
}

#[tokio::test]
async fn records_are_overwritten_merged_filtered_and_deleted() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let body = json!({"name": "www", "type": "A", "content": "192.0.2.1", "ttl": 3600,
        "comment": "Front"});
    let www = id(&world.made(&records, body).await);
    let body = json!({"name": "@", "type": "MX", "content": "mail.example.com", "priority": 5});
    world.made(&records, body).await;
    world
        .made(
            &records,
            json!({"name": "t", "type": "TXT", "content": "V=spf1"}),
        )
        .await;
    let path = format!("{records}/{www}");
    let (_, patched) = world.patch(&path, json!({"content": "192.0.2.2"})).await;
    assert_eq!(patched["result"]["comment"], "Front");
    assert_eq!(patched["result"]["ttl"], 3600);
    let put = json!({"name": "www.example.com", "type": "A", "content": "192.0.2.3", "ttl": 1});
    let (_, replaced) = world.call(Method::PUT, &path, put).await;
    assert_eq!(replaced["result"]["comment"], json!(null));
    for (query, count) in [
        ("", 3),
        ("type=A", 1),
        ("name=www.example.com", 1),
        ("name.exact=www.example.com", 1),
        ("name.startswith=w", 1),
        ("content.contains=SPF", 1),
        ("content.endswith=.3", 1),
        ("proxied=true", 0),
        ("type=A&search=spf", 0),
        ("type=A&search=spf&match=any", 2),
        ("page=2", 0),
    ] {
        let (status, list) = world.get(&format!("{records}?{query}")).await;
        assert_eq!(
            (status, list["result"].as_array().unwrap().len()),
            (200, count),
            "{query}"
        );
    }
    assert_eq!(world.delete(&path).await.1["result"], json!({"id": www}));
    let (status, gone) = world.delete(&path).await;
    assert_eq!((status, code(&gone)), (404, 81_044));
}

#[tokio::test]
async fn a_proxied_cname_and_a_wildcard_lead_to_the_addresses_behind_them() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let tunnel = world.tunnel("site", None).await;
    world.route("10.0.0.0/8", &tunnel, None).await;
    for (name, kind, content) in [
        ("app", "A", "10.0.0.50"),
        ("alias", "CNAME", "app.example.com"),
        ("*.dev", "A", "10.1.1.1"),
    ] {
        let body = json!({"name": name, "type": kind, "content": content, "proxied": true});
        world.made(&records, body).await;
    }
    for (host, address) in [
        ("alias.example.com", "10.0.0.50"),
        ("a.dev.example.com", "10.1.1.1"),
    ] {
        let (_, answer) = world.get(&format!("/origin/v1/hosts/{host}")).await;
        assert_eq!(answer["ipv4_addresses"], json!([address]), "{host}");
        assert_eq!(answer["use_private_routing"], json!(true), "{host}");
    }
    for host in [
        "dev.example.com",
        "x.app.example.com",
        "example.net",
        "a..b",
    ] {
        assert_eq!(
            world.get(&format!("/origin/v1/hosts/{host}")).await.0,
            404,
            "{host}"
        );
    }
    let outside = json!({"name": "o", "type": "CNAME", "content": "example.net", "proxied": true});
    assert_eq!(code(&world.post(&records, outside).await.1), 1004);
}

#[tokio::test]
async fn nothing_is_served_at_or_below_a_name_that_ns_records_hand_to_others() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let proxied =
        |name: &str| json!({"name": name, "type": "A", "content": "192.0.2.1", "proxied": true});
    let alias = json!({"name": "alias", "type": "CNAME", "content": "www.sub.example.com", "proxied": true});
    world.made(&records, proxied("www.sub")).await;
    world.made(&records, alias).await;
    let hosts =
        ["www.sub.example.com", "alias.example.com"].map(|host| format!("/origin/v1/hosts/{host}"));
    for host in &hosts {
        let (status, answer) = world.get(host).await;
        assert_eq!(
            (status, &answer["ipv4_addresses"]),
            (200, &json!(["192.0.2.1"])),
            "{host}"
        );
    }
    let ns = json!({"name": "sub", "type": "NS", "content": "ns.example.org"});
    let ns = id(&world.made(&records, ns).await);
    assert_eq!(world.get(&hosts[0]).await.0, 404);
    assert_eq!(world.get(&hosts[1]).await.1["ipv4_addresses"], json!([]));
    let (status, refused) = world.post(&records, proxied("other.sub")).await;
    assert_eq!((status, code(&refused)), (400, 1004), "{refused}");
    assert_eq!(refused["errors"][0]["source"]["pointer"], "/proxied");
    world.delete(&format!("{records}/{ns}")).await;
    assert_eq!(world.get(&hosts[0]).await.0, 200);
}

#[tokio::test]
async fn ns_records_say_which_proxied_names_they_take_out_of_the_edges_hands() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    for name in ["a.lab", "b.a.lab", "d.e", "label"] {
        let record = json!({"type": "A", "name": name, "content": "192.0.2.1", "proxied": true});
        world.made(&records, record).await;
    }
    let note = |answer: &Value| {
        answer["messages"][0]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let ns = |name: &str| json!({"type": "NS", "name": name, "content": "ns.example.net"});
    let (status, answer) = world.post(&records, ns("lab")).await;
    assert_eq!(status, 200, "{answer}");
    let said = note(&answer);
    assert!(
        said.contains("a.lab.example.com, b.a.lab.example.com."),
        "{said}"
    );
    assert!(!said.contains("d.e") && !said.contains("label"), "{said}");
    let batch = json!({"posts": [ns("e")]});
    let (status, answer) = world.post(&format!("{records}/batch"), batch).await;
    assert_eq!(status, 200, "{answer}");
    assert!(note(&answer).contains("d.e.example.com"), "{answer}");
    // Nothing to say of one that silences nobody.
    let (_, answer) = world.post(&records, ns("elsewhere")).await;
    assert_eq!(answer["messages"], json!([]));
}
