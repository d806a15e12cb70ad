//! What strangers and mistaken customers send.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{World, code};

#[tokio::test]
async fn a_missing_wrong_or_malformed_token_gets_the_documented_code() {
    let world = World::new().await;
    for (header, expected) in [
        (None, 10_000),
        (Some("Bearer wrong"), 10_000),
        (Some("Bearer "), 9109),
        (Some("Basic eDp5"), 9109),
        (Some("nonsense"), 9109),
    ] {
        for path in [
            "/client/v4/accounts",
            "/client/v4/nowhere",
            "/origin/v1/apps",
        ] {
            let mut request = Request::builder().uri(path);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let (status, text) = world.raw(request.body(Body::empty()).unwrap()).await;
            let answer: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (status, code(&answer)),
                (403, expected),
                "{header:?} {path}"
            );
            assert_eq!(
                (&answer["success"], &answer["result"]),
                (&json!(false), &Value::Null)
            );
        }
    }
    let header = format!("Bearer {}", world.plane.origin_token());
    for (path, expected) in [("/origin/v1/apps", 200), ("/client/v4/accounts", 403)] {
        let request = Request::builder()
            .uri(path)
            .header("authorization", &header);
        let (status, _) = world.raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, expected, "{path}");
    }
}

#[tokio::test]
async fn unknown_paths_methods_and_ids_are_answered_in_the_envelope() {
    let world = World::new().await;
    let stranger = "023e105f4ecef8ad9ca31a8372d0c353";
    for path in [
        "/nowhere".to_owned(),
        format!("/accounts/{stranger}"),
        format!("/accounts/{stranger}/teamnet/routes"),
        format!("/zones/{stranger}/dns_records"),
        "/zones/nonsense".to_owned(),
        "/accounts/%FF/tunnels".to_owned(),
    ] {
        let (status, answer) = world.get(&path).await;
        assert_eq!((status, code(&answer)), (404, 7003), "{path}");
    }
    let (status, answer) = world.call(Method::PUT, "/zones", json!({})).await;
    assert_eq!((status, &answer["success"]), (405, &json!(false)));
    for query in [
        "page=0",
        "per_page=0",
        "per_page=x",
        "page=-1",
        "direction=up",
    ] {
        let (status, answer) = world.get(&format!("/zones?{query}")).await;
        assert_eq!((status, code(&answer)), (400, 1000), "{query}");
    }
}

#[tokio::test]
async fn broken_bodies_are_refused_and_change_nothing() {
    let world = World::new().await;
    let deep = "[".repeat(100_000);
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    for (body, status) in [
        ("{", 400),
        ("[]", 400),
        ("\"x\"", 400),
        ("{\"name\":}", 400),
        (&deep, 400),
        (&large, 413),
    ] {
        let request = world.request(Method::POST, "/zones", Body::from(body.to_owned()));
        let (got, text) = world.raw(request).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((got, &answer["success"]), (status, &json!(false)), "{text}");
        assert!(answer["errors"][0]["message"].as_str().unwrap().len() > 10);
    }
    assert_eq!(world.get("/zones").await.1["result"], json!([]));
}

#[tokio::test]
async fn a_wrong_field_is_named_with_its_pointer() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let a = |change: Value| {
        let mut body = json!({"name": "a", "type": "A", "content": "192.0.2.1"});
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    let table = [
        (a(json!({"name": 5})), "/name"),
        (a(json!({"name": null})), "/name"),
        (a(json!({"name": "a b"})), "/name"),
        (a(json!({"name": "bücher"})), "/name"),
        (a(json!({"name": "a\u{0}"})), "/name"),
        (a(json!({"name": "x".repeat(300)})), "/name"),
        (a(json!({"type": "SPF"})), "/type"),
        (a(json!({"type": []})), "/type"),
        (a(json!({"content": "10.0.0"})), "/content"),
        (a(json!({"content": "010.0.0.1"})), "/content"),
        (a(json!({"type": "AAAA"})), "/content"),
        (
            a(json!({"type": "AAAA", "content": "::ffff:10.0.0.1"})),
            "/content",
        ),
        (
            a(json!({"content": "127.0.0.1", "proxied": true})),
            "/content",
        ),
        (a(json!({"ttl": 5})), "/ttl"),
        (a(json!({"ttl": "1"})), "/ttl"),
        (a(json!({"ttl": 1.5})), "/ttl"),
        (a(json!({"ttl": -1})), "/ttl"),
        (a(json!({"proxied": "yes"})), "/proxied"),
        (a(json!({"type": "TXT", "proxied": true})), "/proxied"),
        (
            a(json!({"type": "TXT", "private_routing": true})),
            "/private_routing",
        ),
        (
            a(json!({"type": "MX", "content": "m.example.com"})),
            "/priority",
        ),
        (a(json!({"tags": [1]})), "/tags/0"),
        (
            a(json!({"settings": {"ipv4_only": true}})),
            "/settings/ipv4_only",
        ),
        (a(json!({"virtual_network_id": "x"})), "/virtual_network_id"),
        (a(json!({"data": {"x": 1}})), "/data"),
        (a(json!({"surprise": 1})), "/surprise"),
    ];
    for (body, pointer) in table {
        let (status, refused) = world.post(&records, body.clone()).await;
        assert_eq!((status, code(&refused)), (400, 1004), "{body} {refused}");
        assert_eq!(
            refused["errors"][0]["source"]["pointer"], pointer,
            "{body} {refused}"
        );
    }
    assert_eq!(world.get(&records).await.1["result"], json!([]));
    world.made(&records, a(json!({}))).await;
    assert_eq!(code(&world.post(&records, a(json!({}))).await.1), 81_058);
    let cname = json!({"name": "a", "type": "CNAME", "content": "b.example.com"});
    assert_eq!(code(&world.post(&records, cname).await.1), 81_053);
}

#[tokio::test]
async fn a_list_refuses_parameters_that_it_does_not_carry_and_names_them() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let records = format!("/zones/{zone}/dns_records");
    let account = format!("/accounts/{}", world.account);
    for (list, unknown) in [
        ("/zones".to_owned(), "colour"),
        (records.clone(), "shadowed_by_name"),
        (format!("{account}/teamnet/routes"), "existed_at"),
        (format!("{account}/teamnet/virtual_networks"), "colour"),
        (format!("{account}/zerotrust/routes/hostname"), "existed_at"),
        ("/accounts".to_owned(), "Name"),
    ] {
        let (status, refused) = world.get(&format!("{list}?{unknown}=x")).await;
        assert_eq!((status, code(&refused)), (400, 1000), "{list}: {refused}");
        let message = refused["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(&format!("'{unknown}'")), "{message}");
        // Pages may be asked for of every list, and empty ones are there.
        assert_eq!(
            world.get(&format!("{list}?page=2&per_page=50")).await.0,
            200,
            "{list}"
        );
    }
    // Elsewhere a parameter filters nothing.
    assert_eq!(world.get(&format!("/zones/{zone}?colour=x")).await.0, 200);
    assert_eq!(
        world
            .get(&format!("{records}?name.contains=a&match=any"))
            .await
            .0,
        200
    );
}
