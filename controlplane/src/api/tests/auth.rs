//! Tokens: what they may do, when, from where, how often; and that nothing is told to who may not.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{World, code, id, options};
use crate::model::account::Account;
use crate::model::{HexId, Timestamp};
use crate::scratch::Directory;
use crate::{ControlPlane, Options};

/// The id of a permission group, looked up by its name as people's scripts do.
pub(super) async fn group(world: &World, name: &str) -> Value {
    let name = name.replace(' ', "%20");
    let path = format!("/user/tokens/permission_groups?name={name}");
    let found = world.get(&path).await.1["result"][0]["id"].clone();
    assert!(found.is_string(), "no permission group {name}");
    json!({"id": found})
}

pub(super) fn policy(effect: &str, groups: &[Value], resource: &str) -> Value {
    json!({"effect": effect, "permission_groups": groups, "resources": {resource: "*"}})
}

/// A new token with these policies and other fields; the token as it is shown.
pub(super) async fn token(world: &World, policies: Vec<Value>, more: Value) -> Value {
    let mut body = json!({"name": "scoped", "policies": policies});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    world.made("/user/tokens", body).await
}

pub(super) fn secret(token: &Value) -> String {
    token["value"].as_str().unwrap().to_owned()
}

/// A second account, as an operator will have one.
fn other_account(world: &World) -> String {
    let account = Account {
        id: HexId::random(),
        name: "other".to_owned(),
        created_on: Timestamp::new(time::OffsetDateTime::UNIX_EPOCH),
    };
    let id = account.id.to_string();
    let added = world
        .plane
        .objects()
        .write(account.created_on, |transaction| {
            transaction.put(account);
            Ok(())
        });
    added.unwrap();
    id
}

#[tokio::test]
async fn a_token_for_dns_of_one_zone_may_do_that_and_nothing_else() {
    let world = World::new().await;
    let (zone, other) = (
        world.zone("example.com").await,
        world.zone("example.net").await,
    );
    let dns = group(&world, "DNS Write").await;
    let resource = format!("com.cloudflare.api.account.zone.{zone}");
    let made = token(&world, vec![policy("allow", &[dns], &resource)], json!({})).await;
    let scoped = world.as_token(&secret(&made));
    let records = format!("/zones/{zone}/dns_records");
    let body = json!({"type": "A", "name": "a.example.com", "content": "192.0.2.1"});
    scoped.made(&records, body.clone()).await;
    assert_eq!(scoped.get(&records).await.0, 200);
    // The zone it knows, but not this right on it: it is told what is missing.
    let (status, answer) = scoped.get(&format!("/zones/{zone}")).await;
    assert_eq!((status, code(&answer)), (403, 9109), "{answer}");
    assert!(answer.to_string().contains("Zone Read"), "{answer}");
    let (status, answer) = scoped.delete(&format!("/zones/{zone}")).await;
    assert_eq!((status, code(&answer)), (403, 9109));
    let apps = format!("/zones/{zone}/spectrum/apps");
    assert_eq!(scoped.get(&apps).await.0, 403);
    // Another zone looks as if it did not exist.
    let (status, hidden) = scoped.get(&format!("/zones/{other}/dns_records")).await;
    let (_, absent) = scoped
        .get(&format!("/zones/{}/dns_records", "0".repeat(32)))
        .await;
    assert_eq!((status, code(&hidden)), (404, 7003));
    assert_eq!(
        hidden.to_string().replace(&other, &"0".repeat(32)),
        absent.to_string()
    );
    assert_eq!(
        scoped
            .post(&format!("/zones/{other}/dns_records"), body)
            .await
            .0,
        404
    );
    assert_eq!(scoped.get("/zones").await.1["result"], json!([]));
    let path = format!("/accounts/{}/teamnet/routes", world.account);
    assert_eq!(scoped.get(&path).await.0, 403);
    let (status, _) = scoped.post("/zones", json!({"name": "new.example"})).await;
    assert_eq!(status, 403);
    assert_eq!(scoped.get("/user/tokens").await.0, 403);
}

#[tokio::test]
async fn reading_is_not_writing_and_a_denial_comes_before_all_that_is_given() {
    let world = World::new().await;
    let (zone, other) = (
        world.zone("example.com").await,
        world.zone("example.net").await,
    );
    let (read, write) = (
        group(&world, "Zone Read").await,
        group(&world, "Zone Write").await,
    );
    let all = format!("com.cloudflare.api.account.{}", world.account);
    let given = policy("allow", std::slice::from_ref(&read), &all);
    let reader = world.as_token(&secret(&token(&world, vec![given], json!({})).await));
    assert_eq!(reader.get(&format!("/zones/{zone}")).await.0, 200);
    let pause = json!({"paused": true});
    assert_eq!(
        reader
            .patch(&format!("/zones/{zone}"), pause.clone())
            .await
            .0,
        403
    );
    let one = format!("com.cloudflare.api.account.zone.{other}");
    let policies = vec![
        policy("allow", &[write], "com.cloudflare.api.account.zone.*"),
        policy("deny", &[read], &one),
    ];
    let writer = world.as_token(&secret(&token(&world, policies, json!({})).await));
    assert_eq!(
        writer
            .patch(&format!("/zones/{zone}"), pause.clone())
            .await
            .0,
        200
    );
    assert_eq!(writer.patch(&format!("/zones/{other}"), pause).await.0, 404);
    let (_, listed) = writer.get("/zones").await;
    assert_eq!(listed["result"].as_array().unwrap().len(), 1, "{listed}");
}

#[tokio::test]
async fn another_account_is_not_there_whatever_is_asked_of_it() {
    let world = World::new().await;
    let other = other_account(&world);
    let mut groups = Vec::new();
    for name in [
        "Zone Write",
        "DNS Write",
        "Cloudflare One Networks Write",
        "Audit Logs Read",
    ] {
        groups.push(group(&world, name).await);
    }
    groups.push(group(&world, "Cloudflare Tunnel Write").await);
    groups.push(group(&world, "Account API Tokens Write").await);
    let all = format!("com.cloudflare.api.account.{}", world.account);
    let made = token(&world, vec![policy("allow", &groups, &all)], json!({})).await;
    let scoped = world.as_token(&secret(&made));
    let zone = json!({"name": "stolen.example", "account": {"id": other}});
    let (status, theirs) = scoped.post("/zones", zone).await;
    let zone = json!({"name": "stolen.example", "account": {"id": "0".repeat(32)}});
    let (_, nobody) = scoped.post("/zones", zone).await;
    assert_eq!(status, 400);
    assert_eq!(
        theirs.to_string().replace(&other, &"0".repeat(32)),
        nobody.to_string()
    );
    for path in [
        "",
        "/teamnet/virtual_networks",
        "/teamnet/routes",
        "/wireguard_tunnels",
        "/tunnels",
        "/tokens",
        "/audit_logs",
    ] {
        let own = scoped
            .get(&format!("/accounts/{}{path}", world.account))
            .await;
        assert_eq!(own.0, 200, "{path}: {}", own.1);
        let (status, theirs) = scoped.get(&format!("/accounts/{other}{path}")).await;
        assert_eq!((status, code(&theirs)), (404, 7003), "{path}: {theirs}");
    }
    let (_, accounts) = scoped.get("/accounts").await;
    assert_eq!(accounts["result_info"]["total_count"], json!(1));
    assert_eq!(
        scoped.get("/memberships").await.1["result_info"]["total_count"],
        json!(1)
    );
}

#[tokio::test]
async fn a_token_gives_nothing_that_it_does_not_have() {
    let world = World::new().await;
    let (tokens, dns) = (
        group(&world, "API Tokens Write").await,
        group(&world, "DNS Write").await,
    );
    let zones = "com.cloudflare.api.account.zone.*";
    let policies = vec![
        policy(
            "allow",
            std::slice::from_ref(&tokens),
            "com.cloudflare.api.user.me",
        ),
        policy("allow", &[group(&world, "DNS Read").await], zones),
    ];
    let maker = world.as_token(&secret(&token(&world, policies, json!({})).await));
    let body =
        |groups: &[Value]| json!({"name": "n", "policies": [policy("allow", groups, zones)]});
    let (status, answer) = maker
        .post("/user/tokens", body(std::slice::from_ref(&dns)))
        .await;
    assert_eq!((status, code(&answer)), (403, 9109), "{answer}");
    assert_eq!(answer["errors"][0]["source"]["pointer"], json!("/policies"));
    maker
        .made("/user/tokens", body(&[group(&world, "DNS Read").await]))
        .await;
    // A stronger token cannot be taken over by a new secret, nor changed, nor deleted.
    let strong = id(&token(&world, vec![policy("allow", &[dns], zones)], json!({})).await);
    let first = id(&world.get("/user/tokens").await.1["result"][0]);
    for target in [strong, first] {
        let path = format!("/user/tokens/{target}");
        let rolled = maker
            .call(Method::PUT, &format!("{path}/value"), json!({}))
            .await;
        assert_eq!(rolled.0, 403, "{}", rolled.1);
        assert_eq!(maker.delete(&path).await.0, 403);
    }
    // Who may do everything still cannot lock everybody out.
    let first = id(&world.get("/user/tokens").await.1["result"][0]);
    let first = format!("/user/tokens/{first}");
    assert_eq!(world.delete(&first).await.0, 409);
    let restricted = body(&[group(&world, "DNS Read").await]);
    assert_eq!(world.put(&first, restricted).await.0, 409);
}

#[tokio::test]
async fn a_token_is_good_in_its_time_from_its_addresses_and_until_it_is_rolled_or_deleted() {
    let world = World::new().await;
    let policies = || async {
        let groups = [group(&world, "Zone Read").await];
        vec![policy(
            "allow",
            &groups,
            "com.cloudflare.api.account.zone.*",
        )]
    };
    let works = async |secret: &str, from: &str| {
        let mut request = world.request(Method::GET, "/zones", Body::empty());
        let value = format!("Bearer {secret}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        let from: SocketAddr = format!("{from}:999").parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(from));
        world.raw(request).await.0 == 200
    };
    for (bounds, is_good) in [
        (json!({"expires_on": "2020-01-01T00:00:00Z"}), false),
        (json!({"not_before": "2120-01-01T00:00:00Z"}), false),
        (
            json!({"not_before": "2020-01-01T00:00:00Z", "expires_on": "2120-01-01T00:00:00+02:00"}),
            true,
        ),
        (
            json!({"condition": {"request_ip": {"in": ["192.0.2.0/24"]}}}),
            true,
        ),
        (
            json!({"condition": {"request_ip": {"in": ["198.51.100.0/24"]}}}),
            false,
        ),
        (
            json!({"condition": {"request_ip": {"not_in": ["192.0.2.7"]}}}),
            false,
        ),
        (
            json!({"condition": {"request_ip": {"in": ["192.0.2.0/24"], "not_in": ["192.0.2.8/32"]}}}),
            true,
        ),
        (json!({"status": "disabled"}), false),
    ] {
        let made = token(&world, policies().await, bounds.clone()).await;
        assert_eq!(
            works(&secret(&made), "192.0.2.7").await,
            is_good,
            "{bounds}"
        );
    }
    let made = token(&world, policies().await, json!({})).await;
    let path = format!("/user/tokens/{}", id(&made));
    let old = secret(&made);
    let (_, rolled) = world
        .call(Method::PUT, &format!("{path}/value"), json!({}))
        .await;
    let new = rolled["result"].as_str().unwrap().to_owned();
    assert!(!works(&old, "192.0.2.7").await && works(&new, "192.0.2.7").await);
    let read = world.get(&path).await.1;
    assert!(read["result"]["value"].is_null() && !read.to_string().contains("hash"));
    assert_eq!(world.delete(&path).await.0, 200);
    assert!(!works(&new, "192.0.2.7").await);
}

#[tokio::test]
async fn a_bad_policy_is_refused_where_it_is_wrong() {
    let world = World::new().await;
    let dns = group(&world, "DNS Read").await;
    let zones = "com.cloudflare.api.account.zone.*";
    for (body, pointer) in [
        (json!({"name": "n"}), "/policies"),
        (json!({"name": "n", "policies": []}), "/policies"),
        (
            json!({"name": "n", "policies": [policy("maybe", std::slice::from_ref(&dns), zones)]}),
            "/policies/0/effect",
        ),
        (
            json!({"name": "n", "policies": [policy("allow", &[json!({"id": "0".repeat(32)})], zones)]}),
            "/policies/0/permission_groups/0/id",
        ),
        (
            json!({"name": "n", "policies": [policy("allow", std::slice::from_ref(&dns), "com.example")]}),
            "/policies/0/resources",
        ),
        (
            json!({"name": "n", "policies": [policy("allow", std::slice::from_ref(&dns), zones)], "expires_on": "soon"}),
            "/expires_on",
        ),
    ] {
        let (status, answer) = world.post("/user/tokens", body).await;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(
            answer["errors"][0]["source"]["pointer"],
            json!(pointer),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn the_old_way_to_authenticate_is_answered_with_what_to_do() {
    let world = World::new().await;
    let request = Request::builder()
        .uri("/client/v4/zones")
        .header("x-auth-email", "a@example.com")
        .header("x-auth-key", "0123456789")
        .body(Body::empty())
        .unwrap();
    let (status, body) = world.raw(request).await;
    assert_eq!(status, 403);
    assert!(
        body.contains("9106") && body.contains("API token"),
        "{body}"
    );
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_others_are_not_bothered() {
    let directory = Directory::new();
    let limited = Options {
        requests_per_sec_max: Some(1),
        ..options(&directory)
    };
    let plane = ControlPlane::open(limited).unwrap();
    let world = World::of(plane, directory);
    let ask = async |from: &str, token: Option<&str>| {
        let mut request = world.request(Method::GET, "/ips", Body::empty());
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        let from: SocketAddr = format!("{from}:999").parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(from));
        world.raw_response(request).await
    };
    let mut refused = None;
    for _ in 0..20 {
        let response = ask("192.0.2.1", None).await;
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("twenty at once are more than a burst of five");
    let wait: u64 = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=5).contains(&wait));
    // One wrong token empties the address's bucket: guessing is slow.
    assert_eq!(ask("192.0.2.2", Some("guess")).await.status(), 403);
    assert_eq!(ask("192.0.2.2", Some("guess")).await.status(), 429);
    assert_eq!(ask("192.0.2.3", Some("guess")).await.status(), 403);
    // The token is counted, too, wherever it is used from.
    let mut refused = 0;
    for n in 0..20 {
        let response = ask(&format!("198.51.100.{n}"), None).await;
        refused += usize::from(response.status() == 429);
    }
    assert!(refused >= 10, "{refused}");
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_with_who_what_before_and_after() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let path = format!("/zones/{zone}");
    assert_eq!(world.patch(&path, json!({"paused": true})).await.0, 200);
    world.post("/zones", json!({"name": "example.com"})).await;
    assert_eq!(world.delete(&path).await.0, 200);
    let logs = format!("/accounts/{}/audit_logs", world.account);
    let (_, answer) = world.get(&logs).await;
    let entries = answer["result"].as_array().unwrap();
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| {
            let paused = |value: &str| entry[value]["paused"].clone();
            assert_eq!(entry["resource"], json!({"type": "zone", "id": zone}));
            assert!(entry["actor"]["id"].is_string() && entry["when"].is_string());
            (
                entry["action"]["type"].clone(),
                paused("oldValueJson"),
                paused("newValueJson"),
            )
        })
        .collect();
    let (gone, no, yes) = (Value::Null, json!(false), json!(true));
    assert_eq!(
        seen,
        [
            (json!("delete"), yes.clone(), gone.clone()),
            (json!("update"), no.clone(), yes),
            (json!("create"), gone, no),
        ]
    );
    let count = async |query: &str| {
        let (_, answer) = world.get(&format!("{logs}?{query}")).await;
        answer["result_info"]["total_count"].clone()
    };
    assert_eq!(count("action.type=update").await, json!(1));
    assert_eq!(count("zone.name=example.com").await, json!(3));
    assert_eq!(count("since=2120-01-01").await, json!(0));
    assert_eq!(count("before=2120-01-01T00:00:00Z").await, json!(3));
    assert_eq!(world.get(&format!("{logs}?since=yesterday")).await.0, 400);
    // A deleted zone takes its name along, and a bound on entries keeps the rest.
    assert_eq!(entries[0]["metadata"]["zone_name"], json!("example.com"));
}

#[tokio::test]
async fn when_a_token_was_last_used_is_shown_and_outlives_the_process() {
    let world = World::new().await;
    let own = format!("com.cloudflare.api.account.{}", world.account);
    let reads = policy("allow", &[group(&world, "Zone Read").await], &own);
    let made = token(&world, vec![reads], json!({})).await;
    let path = format!("/user/tokens/{}", id(&made));
    let last = async || world.get(&path).await.1["result"]["last_used_on"].clone();
    assert_eq!(
        (&made["last_used_on"], last().await),
        (&Value::Null, Value::Null)
    );
    let reader = world.as_token(made["value"].as_str().unwrap());
    assert_eq!(reader.get("/zones").await.0, 200);
    let used = last().await;
    assert!(used.is_string(), "{used}");
    // A use is nobody's change: neither a revision nor an entry in the log, until it is written down.
    let before = *world.plane.revision().borrow();
    assert_eq!(reader.get("/zones").await.0, 200);
    assert_eq!(*world.plane.revision().borrow(), before);
    let used = last().await;
    world.plane.keep_uses().unwrap();
    assert_eq!(*world.plane.revision().borrow(), before + 1);
    let kept = world.plane.snapshot();
    let kept = kept
        .token_uses
        .get(&id(&made).parse().unwrap())
        .unwrap()
        .clone();
    assert_eq!(serde_json::to_value(kept.last_used_on).unwrap(), used);
    let (_, log) = world.get("/user/audit_logs").await;
    assert!(!log.to_string().contains("token_use"), "{log}");
    // It goes with the token.
    world.delete(&path).await;
    world.plane.keep_uses().unwrap();
    let left = world.plane.snapshot();
    assert!(left.token_uses.get(&id(&made).parse().unwrap()).is_none());
}

#[tokio::test]
async fn another_unrestricted_token_is_made_without_one_and_is_in_the_log() {
    let world = World::new().await;
    let secret = world.plane.new_token("recovered").unwrap();
    let recovered = world.as_token(&secret);
    let (_, list) = recovered.get("/user/tokens").await;
    let names: Vec<&str> = list["result"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(names, ["first", "recovered"]);
    // The lost one can go.
    let first = id(&list["result"][0]);
    assert_eq!(
        recovered.delete(&format!("/user/tokens/{first}")).await.0,
        200
    );
    assert_eq!(world.get("/zones").await.0, 403);
    let (_, log) = recovered.get("/user/audit_logs").await;
    assert!(
        log.to_string().contains("portcullis control token"),
        "{log}"
    );
    assert!(!log.to_string().contains(&secret));
}
