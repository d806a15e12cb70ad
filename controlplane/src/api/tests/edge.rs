//! Certificates that customers bring, settings of zones, and the source range.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{World, code, id};

/// A self-signed certificate of these names, and its key.
fn certificate(names: &[&str], end_year: i32) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = rcgen::CertificateParams::new(names).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(end_year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    (
        parameters.self_signed(&key).unwrap().pem(),
        key.serialize_pem(),
    )
}

fn body((chain, key): &(String, String)) -> Value {
    json!({"certificate": chain, "private_key": key, "bundle_method": "force"})
}

/// What the proxy is told, with a token.
async fn told(world: &World, token: &str, etag: &str) -> (u16, Value) {
    let request = Request::builder()
        .uri(format!("/origin/v1/certificates?etag={etag}"))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty());
    let (status, text) = world.raw(request.unwrap()).await;
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn a_certificate_is_told_to_the_proxy_alone_and_for_the_names_of_its_zone() {
    let world = World::new().await;
    let path = format!(
        "/zones/{}/custom_certificates",
        world.zone("example.com").await
    );
    let pair = certificate(&["example.com", "*.example.com", "example.org"], 2100);
    let made = world.made(&path, body(&pair)).await;
    assert_eq!(
        (&made["status"], &made["priority"]),
        (&json!("active"), &json!(0))
    );
    assert_eq!(made["expires_on"], "2100-01-01T00:00:00Z");
    assert!(!made.to_string().contains("PRIVATE"), "{made}");
    let customer = world.bearer().replace("Bearer ", "");
    assert_eq!(told(&world, &customer, "").await.0, 403);
    let proxy = world.plane.origin_token();
    let (status, all) = told(&world, &proxy, "").await;
    assert_eq!(status, 200);
    // example.org is nobody's zone here: the certificate says nothing about who has it.
    assert_eq!(
        all["certificates"][0]["names"],
        json!(["example.com", "*.example.com"])
    );
    assert_eq!(all["certificates"][0]["chain"], json!(pair.0));
    let etag = all["etag"].as_str().unwrap();
    assert_eq!(
        told(&world, &proxy, etag).await.1["certificates"],
        Value::Null
    );
    let newer = certificate(&["example.com"], 2101);
    let changed = format!("{path}/{}", id(&made));
    assert_eq!(world.patch(&changed, body(&newer)).await.0, 200);
    let (_, all) = told(&world, &proxy, etag).await;
    assert_eq!(all["certificates"][0]["chain"], json!(newer.0));
    assert_eq!(world.delete(&changed).await.0, 200);
    assert_eq!(told(&world, &proxy, "").await.1["certificates"], json!([]));
}

#[tokio::test]
async fn a_certificate_that_could_not_be_served_is_refused_and_its_key_not_shown_back() {
    let world = World::new().await;
    let path = format!(
        "/zones/{}/custom_certificates",
        world.zone("example.com").await
    );
    let (fine, other) = (
        certificate(&["example.com"], 2100),
        certificate(&["example.com"], 2100),
    );
    let pair = |chain: &str, key: &str| body(&(chain.to_owned(), key.to_owned()));
    let no_name = {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2100, 1, 1);
        parameters
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap()
            .pem()
    };
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (body, pointer) in [
        (body(&certificate(&["example.com"], 2020)), "/certificate"),
        (body(&certificate(&["example.org"], 2100)), "/certificate"),
        (
            body(&certificate(&["notexample.com"], 2100)),
            "/certificate",
        ),
        (pair(&no_name, &fine.1), "/certificate"),
        (pair(garbage, &fine.1), "/certificate"),
        (pair("nonsense", &fine.1), "/certificate"),
        (
            pair(&format!("{}{garbage}x", fine.0), &other.1),
            "/private_key",
        ),
        (pair(&fine.0, &other.1), "/private_key"),
        (pair(&fine.0, &fine.0), "/private_key"),
        (pair(&fine.0, "nonsense"), "/private_key"),
    ] {
        let (status, refused) = world.post(&path, body).await;
        assert_eq!((status, code(&refused)), (400, 1200), "{refused}");
        assert_eq!(
            refused["errors"][0]["source"]["pointer"], pointer,
            "{refused}"
        );
        assert!(
            !refused.to_string().contains("PRIVATE KEY-----\\n"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn settings_of_a_zone_change_what_the_proxy_and_dns_are_told() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let record = json!({"name": "app", "type": "A", "content": "192.0.2.1", "proxied": true});
    world
        .made(&format!("/zones/{zone}/dns_records"), record)
        .await;
    let set = async |name: &str, value: Value| {
        let path = format!("/zones/{zone}/settings/{name}");
        world.patch(&path, json!({"value": value})).await
    };
    let host = "/origin/v1/hosts/app.example.com";
    let (_, before) = world.get(host).await;
    assert_eq!(
        (&before["always_use_https"], &before["read_timeout_secs"]),
        (&json!(false), &Value::Null)
    );
    let edge = || {
        let question = crate::dns::Question {
            name: "app.example.com".to_owned(),
            kind: 28,
        };
        let reply = crate::dns::Authority::answer(&world.plane, &question);
        reply.answers.len()
    };
    assert_eq!(edge(), 1);
    for (name, value) in [
        ("always_use_https", json!("on")),
        ("proxy_read_timeout", json!("30")),
        ("ipv6", json!("off")),
    ] {
        let (status, answer) = set(name, value).await;
        assert_eq!(
            (status, &answer["result"]["id"]),
            (200, &json!(name)),
            "{answer}"
        );
    }
    let (_, after) = world.get(host).await;
    assert_eq!(
        (&after["always_use_https"], &after["read_timeout_secs"]),
        (&json!(true), &json!(30))
    );
    assert_eq!(edge(), 0);
    for (name, value) in [
        ("ssl", "full"),
        ("http3", "on"),
        ("ipv6", "yes"),
        ("proxy_read_timeout", "0"),
    ] {
        let (status, refused) = set(name, json!(value)).await;
        assert_eq!((status, code(&refused)), (400, 1007), "{name} {refused}");
        assert_eq!(refused["errors"][0]["source"]["pointer"], "/value");
    }
    let (_, unknown) = set("polish", json!("on")).await;
    assert_eq!(code(&unknown), 1006);
    let (_, all) = world
        .call(Method::GET, &format!("/zones/{zone}/settings"), Value::Null)
        .await;
    assert_eq!(all["result"].as_array().unwrap().len(), 12);
}

#[tokio::test]
async fn the_source_range_is_shown_named_and_moved_to_another_private_12() {
    let world = World::new().await;
    let path = format!("/accounts/{}/zerotrust/subnets", world.account);
    let (_, list) = world.get(&path).await;
    assert_eq!(list["result"][0]["network"], "100.64.0.0/12");
    let source = format!("{path}/cloudflare_source/v4");
    let (_, named) = world.patch(&source, json!({"name": "edge"})).await;
    assert_eq!(named["result"]["id"], list["result"][0]["id"]);
    for network in [
        "100.64.0.0/13",
        "10.0.0.0/8",
        "10.240.0.1/12",
        "192.160.0.0/12",
        "100.96.0.0/12",
        "100.112.0.0/12",
        "fd00::/12",
        "12",
    ] {
        let (status, refused) = world.patch(&source, json!({"network": network})).await;
        assert_eq!((status, code(&refused)), (400, 1002), "{refused}");
        assert_eq!(refused["errors"][0]["source"]["pointer"], "/network");
    }
    let (status, moved) = world
        .patch(&source, json!({"network": "10.240.0.0/12"}))
        .await;
    assert_eq!((status, &moved["result"]["name"]), (200, &json!("edge")));
    let (_, list) = world.get(&path).await;
    assert_eq!(list["result"][0]["network"], "10.240.0.0/12");
    let (_, found) = world.get(&format!("{path}?network=10.240.0.0/12")).await;
    assert_eq!(found["result_info"]["count"], 1);
    let six = format!("{path}/cloudflare_source/v6");
    let (status, _) = world.patch(&six, json!({"network": "fd00::/64"})).await;
    assert_eq!(status, 400);
    let (status, _) = world
        .patch(&format!("{path}/cloudflare_source/v5"), json!({}))
        .await;
    assert_eq!(status, 404);
    // Another account's is its own.
    let second = world.second_account();
    let (_, list) = world
        .get(&format!("/accounts/{second}/zerotrust/subnets"))
        .await;
    assert_eq!(list["result"][0]["name"], "cloudflare_source_v4");
    assert_eq!(list["result"][0]["network"], "100.64.0.0/12");
}

/// Whatever has an address of it first keeps it: the range does not move there, and nothing moves into the range.
#[tokio::test]
async fn nothing_of_an_account_lies_inside_its_source_range() {
    let world = World::new().await;
    let account = format!("/accounts/{}", world.account);
    let source = format!("{account}/zerotrust/subnets/cloudflare_source/v4");
    let tunnel = world.tunnel("one", None).await;
    world.route("10.240.0.0/16", &tunnel, None).await;
    // A supernet is fine: the range is the longer prefix. But then nobody has an address of it.
    world.route("10.0.0.0/8", &tunnel, None).await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let record = |name: &str, ip: &str| json!({"type": "A", "name": name, "content": ip, "proxied": true, "ttl": 1});
    world
        .made(&records, record("a.example.com", "10.64.0.9"))
        .await;
    let path = format!("{account}/wireguard_tunnels/{tunnel}");
    let link = json!({"interface_address": "10.32.0.0/31"});
    let (status, linked) = world.patch(&path, link).await;
    assert_eq!(status, 200, "{linked}");
    let probed = world.tunnel("two", None).await;
    let probed = format!("{account}/wireguard_tunnels/{probed}");
    let check = json!({"health_check": {"enabled": true, "target": "10.16.0.9"}});
    let (status, checked) = world.patch(&probed, check).await;
    assert_eq!(status, 200, "{checked}");
    for taken in [
        "10.240.0.0/12",
        "10.64.0.0/12",
        "10.32.0.0/12",
        "10.16.0.0/12",
    ] {
        let (status, refused) = world.patch(&source, json!({"network": taken})).await;
        assert_eq!((status, code(&refused)), (409, 1018), "{refused}");
        assert_eq!(refused["errors"][0]["source"]["pointer"], "/network");
    }
    let (status, moved) = world
        .patch(&source, json!({"network": "10.128.0.0/12"}))
        .await;
    assert_eq!(status, 200, "{moved}");
    for inside in ["10.128.0.0/12", "10.129.0.0/24"] {
        let body = json!({"network": inside, "tunnel_id": tunnel});
        let (status, refused) = world.post(&world.routes(), body).await;
        assert_eq!(status, 400, "{refused}");
        assert_eq!(refused["errors"][0]["source"]["pointer"], "/network");
    }
    let inside = record("b.example.com", "10.130.0.9");
    let (status, refused) = world.post(&records, inside).await;
    assert_eq!(status, 400, "{refused}");
    // What was the range is free now, and the range does not come back while somebody has it.
    world.route("100.64.0.0/16", &tunnel, None).await;
    let free = record("c.example.com", "100.64.0.2");
    world.made(&records, free).await;
    let (status, refused) = world
        .patch(&source, json!({"network": "100.64.0.0/12"}))
        .await;
    assert_eq!((status, code(&refused)), (409, 1018), "{refused}");
    let allowed = json!({"allowed_prefixes": ["192.0.2.0/24", "10.128.7.0/24"]});
    let (status, refused) = world.patch(&path, allowed).await;
    assert_eq!(status, 400, "{refused}");
    let pointer = &refused["errors"][0]["source"]["pointer"];
    assert_eq!(pointer, "/allowed_prefixes");
    let check = json!({"health_check": {"target": "10.128.0.9"}});
    let (status, refused) = world.patch(&probed, check).await;
    assert_eq!(status, 400, "{refused}");
    let pointer = &refused["errors"][0]["source"]["pointer"];
    assert_eq!(pointer, "/health_check/target");
    // A peer is told where packets come from, and so are nodes, of this account's vnets alone.
    let config = world.request(Method::GET, &format!("{path}/config"), Body::empty());
    let (_, text) = world.raw(config).await;
    let told = "AllowedIPs = 10.128.0.0/12, 2606:4700:cf1:5000::/64";
    assert!(text.contains(told), "{text}");
    let spec = world.plane.spec();
    let ranges: Vec<_> = spec.vnets.values().map(|vnet| vnet.range.net()).collect();
    assert_eq!(ranges, ["10.128.0.0/12".parse().unwrap()]);
}
