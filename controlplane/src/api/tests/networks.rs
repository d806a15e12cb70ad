//! Virtual networks and routes.

use serde_json::{Value, json};

use super::{World, code, id};

#[tokio::test]
async fn an_account_has_exactly_one_default_vnet_and_those_in_use_stay() {
    let world = World::new().await;
    let vnets = format!("/accounts/{}/teamnet/virtual_networks", world.account);
    let (_, list) = world.get(&vnets).await;
    assert_eq!(list["result"][0]["name"], "default");
    let first = id(&list["result"][0]);
    assert_eq!(
        code(&world.delete(&format!("{vnets}/{first}")).await.1),
        1006
    );
    assert_eq!(world.post(&vnets, json!({"name": "default"})).await.0, 409);
    let body = json!({"name": "second", "is_default_network": true, "comment": "c"});
    let second = id(&world.made(&vnets, body).await);
    let (_, list) = world.get(&format!("{vnets}?is_default_network=true")).await;
    assert_eq!(list["result"].as_array().unwrap().len(), 1);
    assert_eq!(list["result"][0]["id"], json!(second));
    let path = format!("{vnets}/{second}");
    assert_eq!(
        world
            .patch(&path, json!({"is_default_network": false}))
            .await
            .0,
        400
    );
    world
        .patch(
            &format!("{vnets}/{first}"),
            json!({"is_default_network": true}),
        )
        .await;
    let tunnel = world.tunnel("site", Some(&second)).await;
    world.route("10.0.0.0/8", &tunnel, Some(&second)).await;
    let (status, used) = world.delete(&path).await;
    let message = used["errors"][0]["message"].as_str().unwrap();
    assert!(
        status == 409 && message.contains("1 route, 1 tunnel"),
        "{message}"
    );
    world
        .delete(&format!(
            "/accounts/{}/wireguard_tunnels/{tunnel}",
            world.account
        ))
        .await;
    let (status, gone) = world.delete(&path).await;
    assert_eq!(
        (status, gone["result"]["deleted_at"].is_string()),
        (200, true)
    );
    assert_eq!(world.get(&path).await.0, 404);
}

#[tokio::test]
async fn routes_are_refused_with_the_documented_words() {
    let world = World::new().await;
    let second = world.vnet("second").await;
    let tunnel = world.tunnel("site1", None).await;
    let other = world.tunnel("site2", Some(&second)).await;
    world.route("10.0.0.0/24", &tunnel, None).await;
    world.route("10.0.0.0/24", &other, Some(&second)).await;
    world.route("10.0.0.0/8", &tunnel, None).await;
    world.route("0.0.0.0/0", &tunnel, None).await;
    let twice = json!({"network": "10.0.0.0/24", "tunnel_id": tunnel});
    let (status, refused) = world.post(&world.routes(), twice).await;
    let message = refused["errors"][0]["message"].as_str().unwrap();
    assert_eq!(status, 409);
    assert!(message.starts_with("You already have a route defined for this exact IP subnet"));
    for (network, words) in [
        ("10.0.0.1/24", "10.0.0.0/24"),
        ("10.0.0.0/33", "Could not parse input / invalid address"),
        ("nonsense", "Could not parse input / invalid address"),
        ("100.64.4.0/22", "reserved"),
        ("100.112.0.0/16", "reserved"),
        ("::ffff:10.0.0.0/112", "IPv4-mapped"),
    ] {
        let body = json!({"network": network, "tunnel_id": tunnel});
        let (status, refused) = world.post(&world.routes(), body).await;
        let error = &refused["errors"][0];
        assert!(
            status == 400 && error["message"].as_str().unwrap().contains(words),
            "{error}"
        );
        assert_eq!(error["source"]["pointer"], "/network");
    }
    let crossed = json!({"network": "10.7.0.0/16", "tunnel_id": other});
    let (status, refused) = world.post(&world.routes(), crossed).await;
    assert_eq!(status, 400);
    assert_eq!(
        refused["errors"][0]["source"]["pointer"],
        "/virtual_network_id"
    );
}

#[tokio::test]
async fn routes_are_found_by_filter_by_cidr_and_by_address() {
    let world = World::new().await;
    let routes = world.routes();
    let second = world.vnet("second").await;
    let tunnel = world.tunnel("site1", None).await;
    let other = world.tunnel("site2", Some(&second)).await;
    let wide = world.route("10.0.0.0/8", &tunnel, None).await;
    let narrow = world.route("10.0.0.0/24", &tunnel, None).await;
    let elsewhere = world.route("10.0.0.0/16", &other, Some(&second)).await;
    for (query, expected) in [
        (format!("tunnel_id={tunnel}"), vec![&wide, &narrow]),
        (format!("virtual_network_id={second}"), vec![&elsewhere]),
        (
            "network_subset=10.0.0.0/16".into(),
            vec![&narrow, &elsewhere],
        ),
        (
            "network_superset=10.0.0.0/16".into(),
            vec![&wide, &elsewhere],
        ),
        ("is_deleted=true".into(), vec![]),
        ("per_page=1&page=3".into(), vec![&elsewhere]),
        ("per_page=1&page=4".into(), vec![]),
    ] {
        let (_, list) = world.get(&format!("{routes}?{query}")).await;
        let ids: Vec<String> = list["result"].as_array().unwrap().iter().map(id).collect();
        assert_eq!(ids.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let by_ip = |ip: &str, query: &str| format!("{routes}/ip/{ip}{query}");
    assert_eq!(
        id(&world.get(&by_ip("10.0.0.9", "")).await.1["result"]),
        narrow
    );
    assert_eq!(
        id(&world.get(&by_ip("10.0.1.9", "")).await.1["result"]),
        wide
    );
    let in_second = by_ip("10.0.0.9", &format!("?virtual_network_id={second}"));
    let (_, found) = world.get(&in_second).await;
    assert_eq!(id(&found["result"]), elsewhere);
    assert_eq!(found["result"]["tunnel_name"], "site2");
    assert_eq!(world.get(&by_ip("192.0.2.1", "")).await.0, 404);
    assert_eq!(world.get(&by_ip("nonsense", "")).await.0, 400);
    // The official client encodes twice.
    for cidr in ["172.16.0.0%2F12", "172.17.0.0%252F16"] {
        let path = format!("{routes}/network/{cidr}");
        let made = world.made(&path, json!({"tunnel_id": tunnel})).await;
        let (_, patched) = world.patch(&path, json!({"comment": "new"})).await;
        assert_eq!(patched["result"]["comment"], "new");
        assert_eq!(world.delete(&path).await.1["result"]["id"], made["id"]);
        assert_eq!(code(&world.delete(&path).await.1), 1015);
    }
}

#[tokio::test]
async fn two_vnets_with_the_same_prefixes_give_disjoint_specs() {
    let world = World::new().await;
    let second = world.vnet("second").await;
    let tunnels = [
        world.tunnel("site1", None).await,
        world.tunnel("site2", Some(&second)).await,
    ];
    world.route("10.0.0.0/24", &tunnels[0], None).await;
    world.route("10.0.0.0/24", &tunnels[1], Some(&second)).await;
    let spec = world.plane.spec();
    assert_eq!(spec, world.plane.spec());
    assert_eq!(
        (spec.vnets.len(), spec.tunnels.len(), spec.routes.len()),
        (2, 2, 2)
    );
    for (key, route) in &spec.routes {
        let Some(dataplane::fib::Nexthop::Tunnel(tunnel)) = route.candidates.single() else {
            panic!("{route:?}");
        };
        assert_eq!(spec.tunnels[&tunnel].vnet, key.vnet);
        assert_eq!(spec.tunnels[&tunnel].allowed, [key.prefix]);
    }
    // Deleting a tunnel takes its routes along, and nothing of the other vnet.
    let path = format!(
        "/accounts/{}/wireguard_tunnels/{}",
        world.account, tunnels[0]
    );
    let (_, routes) = world
        .get(&format!("{}?tunnel_id={}", world.routes(), tunnels[0]))
        .await;
    world.delete(&path).await;
    let route = format!("{}/{}", world.routes(), id(&routes["result"][0]));
    let (status, gone): (u16, Value) = world.delete(&route).await;
    assert_eq!((status, code(&gone)), (404, 1015));
    let left = world.plane.spec();
    assert_eq!(
        (left.vnets.len(), left.tunnels.len(), left.routes.len()),
        (1, 1, 1)
    );
    assert!(
        left.routes
            .keys()
            .all(|key| left.vnets.contains_key(&key.vnet))
    );
}

#[tokio::test]
async fn a_delete_that_is_only_asked_about_lists_what_would_go_along_and_changes_nothing() {
    let world = World::new().await;
    let tunnel = world.tunnel("site", None).await;
    let route = world.route("10.0.0.0/24", &tunnel, None).await;
    let before = *world.plane.revision().borrow();
    let path = format!("/accounts/{}/wireguard_tunnels/{tunnel}", world.account);
    let (status, answer) = world.delete(&format!("{path}?dry_run=true")).await;
    assert_eq!(status, 200, "{answer}");
    let mut gone: Vec<Value> = answer["result"]["deletes"].as_array().unwrap().clone();
    gone.sort_by_key(|one| one["type"].as_str().unwrap().to_owned());
    assert_eq!(
        gone,
        [
            json!({"type": "route", "id": route, "name": "10.0.0.0/24"}),
            json!({"type": "tunnel", "id": tunnel, "name": "site"}),
        ]
    );
    assert_eq!(answer["result"]["changes"], json!([]));
    assert_eq!(*world.plane.revision().borrow(), before);
    assert_eq!(world.get(&path).await.0, 200);
    // What would be refused is refused, and what is not understood deletes nothing.
    let vnets = format!("/accounts/{}/teamnet/virtual_networks", world.account);
    let default = id(&world.get(&vnets).await.1["result"][0]);
    let asked = format!("{vnets}/{default}?dry_run=true");
    let (status, answer) = world.delete(&asked).await;
    assert_eq!((status, code(&answer)), (409, 1006), "{answer}");
    for query in ["dry_run=yes", "dry_run", "x=1&dry_run=TRUE"] {
        let (status, answer) = world.delete(&format!("{path}?{query}")).await;
        assert_eq!((status, code(&answer)), (400, 10_400), "{query}: {answer}");
    }
    let body = json!({"comment": "changed"});
    let (status, _) = world.patch(&asked, body).await;
    assert_eq!(status, 400);
    assert_eq!(*world.plane.revision().borrow(), before);
    assert_eq!(world.delete(&format!("{path}?dry_run=false")).await.0, 200);
    assert_eq!(world.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_host_is_explained_by_record_routes_and_tunnels_and_another_accounts_is_not() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let tunnel = world.tunnel("site", None).await;
    let route = world.route("10.0.0.0/24", &tunnel, None).await;
    let gre = world.magic("gre_tunnels");
    world.made(&gre, super::magic::gre("backup", 1)).await;
    let body = json!({"prefix": "10.0.0.0/24", "nexthop": "10.255.0.3", "priority": 100});
    world.made(&world.magic("routes"), body).await;
    let records = format!("/zones/{zone}/dns_records");
    let body =
        json!({"type": "A", "name": "*.example.com", "content": "10.0.0.50", "proxied": true});
    let record = id(&world.made(&records, body).await);
    let explain = async |host: &str| {
        let path = format!("/accounts/{}/explain/{host}", world.account);
        let (status, answer) = world.get(&path).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"].clone()
    };
    let shown = explain("app.example.com").await;
    assert_eq!(shown["zone"]["id"], json!(zone));
    assert_eq!(shown["records"][0]["id"], json!(record));
    let origin = &shown["origins"][0];
    assert_eq!(
        (&origin["address"], &origin["prefix"]),
        (&json!("10.0.0.50"), &json!("10.0.0.0/24"))
    );
    let candidates: Vec<_> = origin["candidates"].as_array().unwrap().iter().collect();
    assert_eq!(candidates[0]["route"]["id"], json!(route));
    assert_eq!(candidates[0]["tunnel"]["id"], json!(tunnel));
    let used = candidates.iter().map(|one| one["is_used"] == json!(true));
    assert_eq!(used.collect::<Vec<_>>(), [true, false], "{origin}");
    // No node is attached: nothing is known to be up, and nothing is claimed.
    assert_eq!(shown["is_served"], json!(false));
    let steps = shown["steps"].to_string();
    for part in [
        "Record *.example.com A 10.0.0.50 is proxied",
        "Tunnel 'site' (inactive, priority 0",
    ] {
        assert!(steps.contains(part), "{steps}");
    }
    let body = json!({"type": "A", "name": "www", "content": "192.0.2.1", "proxied": true});
    world.made(&records, body).await;
    let shown = explain("www.example.com").await;
    assert_eq!(shown["is_served"], json!(true), "{shown}");
    let shown = explain("app.example.net").await;
    assert_eq!(
        (&shown["zone"], shown["steps"].as_array().unwrap().len()),
        (&json!(null), 1)
    );
    // Another account's zone is none, and the same words say so.
    world.stranger("stranger.example", "a.stranger.example", "192.0.2.1");
    let theirs = explain("a.stranger.example").await.to_string();
    assert_eq!(
        theirs.replace("a.stranger.example", "app.example.net"),
        explain("app.example.net").await.to_string()
    );
}

#[tokio::test]
async fn a_route_by_its_prefix_has_that_prefix_and_no_other() {
    let world = World::new().await;
    let tunnel = world.tunnel("site", None).await;
    let path = format!("{}/network/10.5.0.0%2F16", world.routes());
    let other = json!({"tunnel_id": tunnel, "network": "10.6.0.0/16"});
    let (status, refused) = world.post(&path, other).await;
    assert_eq!((status, code(&refused)), (400, 1002), "{refused}");
    assert_eq!(refused["errors"][0]["source"]["pointer"], "/network");
    let same = json!({"tunnel_id": tunnel, "network": "10.5.0.0/16"});
    assert_eq!(world.made(&path, same).await["network"], "10.5.0.0/16");
}
