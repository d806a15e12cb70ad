//! Hostname routes: whose they are, what they need, and where the names lead that point at them.

use http::Method;
use serde_json::{Value, json};

use super::{World, code, id};

fn path(account: &str) -> String {
    format!("/accounts/{account}/zerotrust/routes/hostname")
}

/// A world with a zone, and a tunnel to 10.0.0.0/24; the tunnel and the zone.
async fn world() -> (World, String, String) {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let tunnel = world.tunnel("office", None).await;
    world.route("10.0.0.0/24", &tunnel, None).await;
    (world, tunnel, zone)
}

fn wanted(hostname: &str, tunnel: &str) -> Value {
    json!({"hostname": hostname, "tunnel_id": tunnel, "resolver_ips": ["10.0.0.53"]})
}

async fn cname(world: &World, zone: &str, name: &str, target: &str) -> (u16, Value) {
    let record = json!({"type": "CNAME", "name": name, "content": target, "proxied": true});
    world
        .post(&format!("/zones/{zone}/dns_records"), record)
        .await
}

async fn host(world: &World, name: &str) -> Value {
    let token = world.plane.origin_token();
    world
        .as_token(&token)
        .get(&format!("/origin/v1/hosts/{name}"))
        .await
        .1
}

#[tokio::test]
async fn a_hostname_route_is_made_read_listed_changed_and_deleted() {
    let (world, tunnel, _) = world().await;
    let all = path(&world.account);
    let body = json!({"hostname": "Wiki.Corp.Internal.", "tunnel_id": tunnel, "comment": "wiki",
        "resolver_ips": ["10.0.0.53", "10.0.0.54"]});
    let made = world.made(&all, body).await;
    assert_eq!(made["hostname"], "wiki.corp.internal");
    assert_eq!(made["resolver_ips"], json!(["10.0.0.53", "10.0.0.54"]));
    assert_eq!(
        (&made["tunnel_name"], &made["tun_type"]),
        (&json!("office"), &json!("wireguard"))
    );
    let each = format!("{all}/{}", id(&made));
    assert_eq!(world.get(&each).await.1["result"], made);
    let other = id(&world.made(&all, wanted("*.db.internal", &tunnel)).await);
    for (query, found) in [
        ("", vec![id(&made), other.clone()]),
        ("?hostname=CORP", vec![id(&made)]),
        ("?comment=wiki", vec![id(&made)]),
        (&format!("?id={other}"), vec![other.clone()]),
        ("?is_deleted=true", vec![]),
    ] {
        let (_, list) = world.get(&format!("{all}{query}")).await;
        let ids: Vec<String> = list["result"].as_array().unwrap().iter().map(id).collect();
        assert_eq!(ids, found, "{query}");
    }
    let change = json!({"resolver_ips": ["10.0.0.55"], "comment": ""});
    let (_, changed) = world.patch(&each, change).await;
    assert_eq!(changed["result"]["resolver_ips"], json!(["10.0.0.55"]));
    assert_eq!(changed["result"]["hostname"], "wiki.corp.internal");
    let (_, gone) = world.delete(&each).await;
    assert!(gone["result"]["deleted_at"].is_string(), "{gone}");
    assert_eq!(code(&world.get(&each).await.1), 1022);
}

#[tokio::test]
async fn resolvers_must_be_behind_the_very_tunnel() {
    let (world, tunnel, _) = world().await;
    let other = world.tunnel("lab", None).await;
    world.route("10.0.0.64/26", &other, None).await;
    world.route("0.0.0.0/0", &tunnel, None).await;
    let second = world.vnet("second").await;
    let elsewhere = world.tunnel("elsewhere", Some(&second)).await;
    world.route("10.0.0.0/8", &elsewhere, Some(&second)).await;
    let all = path(&world.account);
    for (resolvers, pointer) in [
        (json!(["10.0.0.53", "10.0.0.100"]), "/resolver_ips/1"),
        (json!(["100.64.0.9"]), "/resolver_ips/0"),
        (json!(["127.0.0.1"]), "/resolver_ips/0"),
        (json!(["fd00::53"]), "/resolver_ips/0"),
        (json!(["10.0.0.53", "10.0.0.53"]), "/resolver_ips/1"),
        (json!([]), "/resolver_ips"),
        (
            json!(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]),
            "/resolver_ips",
        ),
        (Value::Null, "/resolver_ips"),
    ] {
        let mut body = wanted("wiki.internal", &tunnel);
        body["resolver_ips"] = resolvers.clone();
        let (status, refused) = world.post(&all, body).await;
        assert_eq!(
            (status, code(&refused)),
            (400, 1020),
            "{resolvers}: {refused}"
        );
        assert_eq!(
            refused["errors"][0]["source"]["pointer"], pointer,
            "{refused}"
        );
    }
    // The same address is behind a tunnel of the second vnet, and of the lab only there.
    world.made(&all, wanted("a.internal", &elsewhere)).await;
    let made = world.made(&all, wanted("b.internal", &tunnel)).await;
    let each = format!("{all}/{}", id(&made));
    let (status, refused) = world.patch(&each, json!({"tunnel_id": other})).await;
    assert_eq!((status, code(&refused)), (400, 1020), "{refused}");
}

#[tokio::test]
async fn no_two_hostname_routes_of_an_account_have_a_name_in_common() {
    let (world, tunnel, _) = world().await;
    let all = path(&world.account);
    let wide = id(&world.made(&all, wanted("*.corp", &tunnel)).await);
    let plain = id(&world.made(&all, wanted("corp", &tunnel)).await);
    for taken in ["*.corp", "corp", "a.corp", "a.b.corp", "*.b.corp"] {
        let (status, refused) = world.post(&all, wanted(taken, &tunnel)).await;
        assert_eq!((status, code(&refused)), (409, 1021), "{taken}: {refused}");
    }
    world.made(&all, wanted("a.lab", &tunnel)).await;
    let (status, _) = world.post(&all, wanted("*.lab", &tunnel)).await;
    assert_eq!(status, 409);
    // It does not stand in its own way.
    let (status, answer) = world
        .patch(&format!("{all}/{wide}"), json!({"hostname": "a.corp"}))
        .await;
    assert_eq!(status, 200, "{answer}");
    let (status, _) = world
        .patch(&format!("{all}/{plain}"), json!({"hostname": "a.corp"}))
        .await;
    assert_eq!(status, 409);
    for bad in ["*", "a..b", "*.*.corp", "a_\u{e9}", ""] {
        let (status, refused) = world.post(&all, wanted(bad, &tunnel)).await;
        assert_eq!((status, code(&refused)), (400, 1020), "{bad}: {refused}");
        assert_eq!(refused["errors"][0]["source"]["pointer"], "/hostname");
    }
}

#[tokio::test]
async fn a_proxied_cname_to_a_hostname_route_leads_to_its_resolvers_and_never_past_them() {
    let (world, tunnel, zone) = world().await;
    let (status, refused) = cname(&world, &zone, "app", "wiki.corp.internal").await;
    assert_eq!((status, code(&refused)), (400, 1004), "{refused}");
    let all = path(&world.account);
    let route = world.made(&all, wanted("*.corp.internal", &tunnel)).await;
    assert_eq!(
        cname(&world, &zone, "app", "wiki.corp.internal").await.0,
        200
    );
    let answer = host(&world, "app.example.com").await;
    let name = &answer["private_name"];
    assert_eq!(name["name"], "wiki.corp.internal");
    assert_eq!(name["resolvers"], json!(["10.0.0.53"]));
    assert_eq!(name["route_id"], route["id"]);
    assert_eq!(name["account_id"], json!(world.account));
    assert_eq!(answer["use_private_routing"], true);
    assert_eq!(answer["vnet"], name["vnet"]);
    assert_eq!(
        (&answer["ipv4_addresses"], &answer["ipv6_addresses"]),
        (&json!([]), &json!([]))
    );
    // By way of another name of the zone; and whatever a zone of the account says of the same name.
    assert_eq!(cname(&world, &zone, "www", "app.example.com").await.0, 200);
    assert_eq!(host(&world, "www.example.com").await["private_name"], *name);
    let inner = world.zone("corp.internal").await;
    let public = json!({"type": "A", "name": "wiki", "content": "192.0.2.1", "proxied": true});
    world
        .made(&format!("/zones/{inner}/dns_records"), public)
        .await;
    assert_eq!(host(&world, "app.example.com").await["private_name"], *name);
    world.delete(&format!("/zones/{inner}")).await;
    // Nobody answers for the name when the route is gone.
    let (_, gone) = world.delete(&format!("{all}/{}", id(&route))).await;
    let note = gone["messages"][0]["message"].as_str().unwrap();
    assert!(note.contains("app.example.com"), "{note}");
    let answer = host(&world, "app.example.com").await;
    assert_eq!(
        (&answer["private_name"], &answer["ipv4_addresses"]),
        (&Value::Null, &json!([]))
    );
}

#[tokio::test]
async fn another_accounts_hostname_route_is_nobodys_and_its_tunnel_neither() {
    let (world, tunnel, zone) = world().await;
    let second = world.second_account();
    let (status, refused) = world
        .post(&path(&second), wanted("wiki.internal", &tunnel))
        .await;
    assert_eq!((status, code(&refused)), (400, 1020), "{refused}");
    assert_eq!(refused["errors"][0]["source"]["pointer"], "/tunnel_id");
    let body = json!({"name": "theirs", "generate_peer_key": true});
    let tunnels = format!("/accounts/{second}/wireguard_tunnels");
    let theirs = id(&world.made(&tunnels, body).await);
    let route = json!({"network": "10.0.0.0/24", "tunnel_id": theirs});
    world
        .made(&format!("/accounts/{second}/teamnet/routes"), route)
        .await;
    // The same name in both: each leads into its own network.
    let other = id(&world
        .made(&path(&second), wanted("wiki.internal", &theirs))
        .await);
    let (status, _) = cname(&world, &zone, "app", "wiki.internal").await;
    assert_eq!(status, 400, "only the other account has the name");
    let own = id(&world
        .made(&path(&world.account), wanted("wiki.internal", &tunnel))
        .await);
    assert_eq!(cname(&world, &zone, "app", "wiki.internal").await.0, 200);
    let answer = host(&world, "app.example.com").await;
    assert_eq!(answer["private_name"]["route_id"], json!(own));
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let wrong = format!("{}/{other}", path(&world.account));
        let (status, refused) = world.call(method, &wrong, json!({})).await;
        assert_eq!((status, code(&refused)), (404, 1022), "{refused}");
    }
}

#[tokio::test]
async fn a_tunnel_takes_its_hostname_routes_along_and_says_so_before() {
    let (world, tunnel, zone) = world().await;
    let all = path(&world.account);
    world.made(&all, wanted("wiki.internal", &tunnel)).await;
    assert_eq!(cname(&world, &zone, "app", "wiki.internal").await.0, 200);
    let one = format!("/accounts/{}/wireguard_tunnels/{tunnel}", world.account);
    let (_, asked) = world.delete(&format!("{one}?dry_run=true")).await;
    let listed = asked["result"]["deletes"].as_array().unwrap();
    let is_route = |one: &&Value| one["type"] == "hostname_route" && one["name"] == "wiki.internal";
    assert_eq!(listed.iter().filter(is_route).count(), 1, "{asked}");
    assert_eq!(
        world.get(&all).await.1["result"].as_array().unwrap().len(),
        1
    );
    world.delete(&one).await;
    assert_eq!(world.get(&all).await.1["result"], json!([]));
    assert_eq!(
        host(&world, "app.example.com").await["private_name"],
        Value::Null
    );
}

/// An app whose origin is `db.internal`, but for the change.
fn app(change: Value) -> Value {
    let mut app = json!({"protocol": "tcp/5432-5433", "dns": {"type": "CNAME", "name": "db.example.com"},
        "origin_dns": {"name": "db.internal", "type": "A"}, "origin_port": "6000-6001"});
    for (key, value) in change.as_object().unwrap() {
        app[key] = value.clone();
    }
    app
}

#[tokio::test]
async fn an_apps_origin_may_be_a_name_of_a_hostname_route_and_no_other() {
    let (world, tunnel, zone) = world().await;
    let apps = format!("/zones/{zone}/spectrum/apps");
    let (status, refused) = world.post(&apps, app(json!({}))).await;
    assert_eq!((status, code(&refused)), (400, 11_001), "{refused}");
    assert_eq!(
        refused["errors"][0]["source"]["pointer"],
        "/origin_dns/name"
    );
    let all = path(&world.account);
    world.made(&all, wanted("db.internal", &tunnel)).await;
    for (change, expected) in [
        (json!({"origin_port": 6000}), 11_001),
        (json!({"origin_port": 0}), 11_001),
        (json!({"origin_port": [1]}), 11_001),
        (json!({"origin_port": null}), 11_001),
        (
            json!({"origin_dns": {"name": "db.internal", "type": "SRV"}}),
            11_001,
        ),
        (
            json!({"origin_dns": {"name": "db.internal", "ttl": 600}}),
            11_001,
        ),
        (json!({"origin_dns": {}}), 11_001),
        (json!({"origin_dns": {"name": "other.internal"}}), 11_001),
        (json!({"origin_direct": ["tcp://192.0.2.1:1"]}), 11_000),
    ] {
        let (status, refused) = world.post(&apps, app(change.clone())).await;
        assert_eq!(
            (status, code(&refused)),
            (400, expected),
            "{change}: {refused}"
        );
    }
}

#[tokio::test]
async fn an_app_with_a_name_is_served_as_long_as_the_name_has_its_hostname_route() {
    let (world, tunnel, zone) = world().await;
    let apps = format!("/zones/{zone}/spectrum/apps");
    let all = path(&world.account);
    let route = id(&world.made(&all, wanted("db.internal", &tunnel)).await);
    let made = world.made(&apps, app(json!({}))).await;
    assert_eq!(
        made["origin_dns"],
        json!({"name": "db.internal", "type": "A"})
    );
    assert_eq!(
        (&made["origin_port"], &made["origin_direct"]),
        (&json!("6000-6001"), &Value::Null)
    );
    let token = world.plane.origin_token();
    let proxy = world.as_token(&token);
    let (_, served) = proxy.get("/origin/v1/apps").await;
    let served = &served["apps"][0];
    assert_eq!(served["origin_name"]["name"]["name"], "db.internal");
    assert_eq!(served["origin_name"]["port"], 6000);
    assert_eq!(
        (
            &served["origin_name"]["ipv4"],
            &served["origin_name"]["ipv6"]
        ),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&served["origins"], &served["vnet"]),
        (&json!([]), &served["origin_name"]["name"]["vnet"])
    );
    world.delete(&format!("{all}/{route}")).await;
    let (_, served) = proxy.get("/origin/v1/apps").await;
    assert_eq!(served["apps"][0]["origin_name"], Value::Null);
    assert_eq!(served["apps"][0]["origins"], json!([]));
}

#[tokio::test]
async fn explain_tells_of_the_resolvers_and_the_way_to_them() {
    let (world, tunnel, zone) = world().await;
    world
        .made(&path(&world.account), wanted("wiki.internal", &tunnel))
        .await;
    cname(&world, &zone, "app", "wiki.internal").await;
    let explain = format!("/accounts/{}/explain/app.example.com", world.account);
    let (_, told) = world.get(&explain).await;
    let told = &told["result"];
    assert_eq!(told["hostname_route"]["asked_for"], "wiki.internal");
    let resolver = &told["hostname_route"]["resolvers"][0];
    assert_eq!(resolver["address"], "10.0.0.53");
    assert_eq!(resolver["candidates"][0]["tunnel"]["name"], "office");
    let steps = told["steps"].to_string();
    for words in [
        "has hostname route wiki.internal",
        "10.0.0.0/24 covers it",
        "behind the same tunnel only",
    ] {
        assert!(steps.contains(words), "{words}: {steps}");
    }
}
