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

/// What has no effect is refused, with the reason.
#[tokio::test]
async fn the_source_range_is_shown_and_named_and_another_is_refused() {
    let world = World::new().await;
    let path = format!("/accounts/{}/zerotrust/subnets", world.account);
    let (_, list) = world.get(&path).await;
    assert_eq!(list["result"][0]["network"], "100.64.0.0/12");
    let source = format!("{path}/cloudflare_source/v4");
    let (_, named) = world.patch(&source, json!({"name": "edge"})).await;
    assert_eq!(named["result"]["id"], list["result"][0]["id"]);
    assert_eq!(world.get(&path).await.1["result"][0]["name"], "edge");
    for network in ["100.80.0.0/12", "100.64.0.0/13", "10.0.0.0/8"] {
        let (status, refused) = world.patch(&source, json!({"network": network})).await;
        assert_eq!((status, code(&refused)), (400, 1002), "{refused}");
    }
    assert_eq!(
        world
            .patch(&format!("{path}/cloudflare_source/v5"), json!({}))
            .await
            .0,
        404
    );
    let second = world.second_account();
    let (_, list) = world
        .get(&format!("/accounts/{second}/zerotrust/subnets"))
        .await;
    assert_eq!(list["result"][0]["name"], "cloudflare_source_v4");
}
