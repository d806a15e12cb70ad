//! Two control planes on one etcd: customers do not notice which one they ask.

use std::sync::Arc;

use serde_json::json;

use super::{World, options};
use crate::scratch::Directory;
use crate::store::etcd_tests::{Server, wait};
use crate::store::{Store as _, Write};
use crate::{ControlPlane, MasterKey, NoNode, Options};

/// A control plane of its own on the same etcd; the first one's token is everybody's.
async fn world(server: &Server, key: MasterKey, token: Option<String>) -> World {
    let directory = Directory::new();
    let options = Options {
        key: Some(key),
        ..options(&directory)
    };
    let plane = ControlPlane::open_on(Box::new(server.open()), options).unwrap();
    let mut world = World {
        router: plane.router(Arc::new(NoNode)),
        document: tokio::sync::OnceCell::new(),
        token: token.or_else(|| plane.first_token()).unwrap(),
        account: String::new(),
        plane,
        directory: Arc::new(directory),
    };
    let (_, accounts) = world.get("/accounts").await;
    world.account = accounts["result"][0]["id"].as_str().unwrap().to_owned();
    world
}

#[tokio::test]
async fn requests_to_two_control_planes_at_once_all_succeed_and_both_show_all_of_them() {
    const EACH: usize = 15;
    let server = Server::start();
    let key = MasterKey::generate().unwrap();
    let one = world(&server, key, None).await;
    let other = world(&server, key, Some(one.token.clone())).await;
    let zones = async |world: &World, name: &str| {
        for n in 0..EACH {
            world.zone(&format!("{name}{n}.example.com")).await;
        }
    };
    tokio::join!(zones(&one, "one"), zones(&other, "other"));
    let newest = *one.plane.revision().borrow();
    let newest = newest.max(*other.plane.revision().borrow());
    for world in [&one, &other] {
        let mut revision = world.plane.revision();
        let arrived = revision.wait_for(|revision| *revision >= newest);
        tokio::time::timeout(std::time::Duration::from_secs(10), arrived)
            .await
            .unwrap()
            .unwrap();
        let (_, zones) = world.get("/zones?per_page=50").await;
        assert_eq!(zones["result_info"]["total_count"], json!(2 * EACH));
    }
    // What one refuses, it refuses on the newest state of both.
    let body = json!({"name": "one3.example.com"});
    let (status, answer) = other.post("/zones", body).await;
    assert_eq!((status, super::code(&answer)), (400, 1061));
}

#[tokio::test]
async fn in_a_shared_store_secrets_are_sealed_and_only_who_has_the_key_sees_them() {
    let server = Server::start();
    let key = MasterKey::generate().unwrap();
    let one = world(&server, key, None).await;
    let other = world(&server, key, Some(one.token.clone())).await;
    let path = format!("/accounts/{}/wireguard_tunnels", one.account);
    let given = "CQ8LDzDhyPLSA09hVmYCFlaVXJdRTtGFvRbgYFnHcm8=";
    let body = json!({"name": "a", "generate_peer_key": true, "preshared_key": given});
    one.made(&path, body).await;
    let newest = *one.plane.revision().borrow();
    let mut revision = other.plane.revision();
    let arrived = revision.wait_for(|revision| *revision >= newest);
    let within = std::time::Duration::from_secs(10);
    tokio::time::timeout(within, arrived)
        .await
        .unwrap()
        .unwrap();
    // It came by the watch, opened.
    assert_eq!(other.plane.spec(), one.plane.spec());
    let snapshot = other.plane.objects().snapshot();
    let tunnel = serde_json::to_string(&**snapshot.tunnels.first().unwrap()).unwrap();
    assert!(tunnel.contains(given));
    let mut stored = String::new();
    let raw = server.open();
    raw.load(&mut |key, value| {
        stored.push_str(&format!("{key} {}\n", String::from_utf8_lossy(value)));
        Ok(())
    })
    .unwrap();
    assert!(stored.contains("tunnel/") && stored.contains("sealed:1:"));
    assert!(!stored.contains(given), "{stored}");
    // A stranger's key opens nothing, and a directory without one gets none.
    for key in [Some(MasterKey::generate().unwrap()), None] {
        let directory = Directory::new();
        let options = Options {
            key,
            ..options(&directory)
        };
        let why = ControlPlane::open_on(Box::new(server.open()), options).unwrap_err();
        let why = format!("{}", std::error::Error::source(&why).unwrap());
        assert!(why.contains("sealed with another key"), "{why}");
        assert!(!directory.0.join("key").exists());
    }
    // Both are in the log as the one who asked, and one entry is one object of etcd's.
    let (_, log) = other
        .get(&format!("/accounts/{}/audit_logs", one.account))
        .await;
    let tunnel = &log["result"].as_array().unwrap().iter();
    let tunnel: Vec<_> = tunnel
        .clone()
        .filter(|e| e["resource"]["type"] == "tunnel")
        .collect();
    assert_eq!(tunnel.len(), 1, "{log}");
    assert_eq!(tunnel[0]["metadata"]["token_name"], json!("first"));
}

#[tokio::test]
async fn a_change_of_many_objects_costs_a_shared_store_one_more_for_the_log() {
    let server = Server::start();
    let one = world(&server, MasterKey::generate().unwrap(), None).await;
    let zone = one.zone("example.com").await;
    let posts = |from: usize, count: usize| -> serde_json::Value {
        let record = |n: usize| json!({"type": "A", "name": format!("n{n}.example.com"), "content": "192.0.2.1"});
        (from..from + count).map(record).collect()
    };
    let path = format!("/zones/{zone}/dns_records/batch");
    one.made(&path, json!({"posts": posts(0, 124)})).await;
    let (status, answer) = one.post(&path, json!({"posts": posts(124, 125)})).await;
    assert_eq!((status, super::code(&answer)), (413, 10_414), "{answer}");
    let (_, log) = one
        .get(&format!("/accounts/{}/audit_logs?per_page=1", one.account))
        .await;
    assert_eq!(log["result_info"]["total_count"], json!(126), "{log}");
}

#[tokio::test]
async fn a_node_starts_from_its_sealed_copy_with_the_key_only() {
    let mut server = Server::start();
    let directory = Directory::new();
    let with = |key| Options {
        key: Some(key),
        ..options(&directory)
    };
    let key = MasterKey::generate().unwrap();
    let plane = ControlPlane::open_shared(Box::new(server.lazy()), with(key)).unwrap();
    let mut world = World::of(plane.clone(), Directory::new());
    world.account = super::id(&world.get("/accounts").await.1["result"][0]);
    let path = format!("/accounts/{}/wireguard_tunnels", world.account);
    let given = "CQ8LDzDhyPLSA09hVmYCFlaVXJdRTtGFvRbgYFnHcm8=";
    let body = json!({"name": "a", "generate_peer_key": true, "preshared_key": given});
    world.made(&path, body).await;
    let spec = plane.spec();
    let copy = directory.0.join("copy.redb");
    let has = |text: &str| {
        let file = std::fs::read(&copy).unwrap();
        file.windows(text.len()).any(|w| w == text.as_bytes())
    };
    wait("the copy of the tunnel", || has("tunnel/"));
    assert!(has("sealed:1:") && !has(given));
    drop((world, plane));
    server.stop();
    let mut opened = None;
    let mut open = |key| {
        wait("the copy to be closed", || {
            let again = ControlPlane::open_shared(Box::new(server.lazy()), with(key));
            let is_closed = !matches!(again, Err(crate::OpenError::InUse { .. }));
            opened = is_closed.then_some(again);
            is_closed
        });
        opened.take().unwrap()
    };
    assert_eq!(open(key).unwrap().spec().tunnels, spec.tunnels);
    let why = open(MasterKey::generate().unwrap()).unwrap_err();
    let why = format!("{}", std::error::Error::source(&why).unwrap());
    assert!(why.contains("sealed with another key"), "{why}");
}

#[tokio::test]
async fn what_an_older_version_left_in_etcd_in_clear_is_sealed_in_as_many_steps_as_it_takes() {
    const IDENTITIES: usize = 300;
    let server = Server::start();
    let clear = "cLearcLearcLearcLearcLearcLearcLearcLearcLc=";
    let identity = |_| {
        let account = crate::model::HexId::random();
        let value = json!({"account_id": account, "private_key": clear});
        Write {
            key: format!("identity/{account}"),
            value: Some(value.to_string().into_bytes()),
        }
    };
    let old: Vec<Write> = (0..IDENTITIES).map(identity).collect();
    server.open().replace(7, &old).unwrap();
    let one = world(&server, MasterKey::generate().unwrap(), None).await;
    let (mut sealed, mut plain) = (0, 0);
    let shown = server.open().load(&mut |key, value| {
        let text = String::from_utf8_lossy(value);
        sealed += usize::from(key.starts_with("identity/") && text.contains("sealed:1:"));
        plain += usize::from(text.contains(clear));
        Ok(())
    });
    shown.unwrap();
    assert_eq!((sealed, plain), (IDENTITIES, 0));
    let snapshot = one.plane.objects().snapshot();
    let mut keys = snapshot.identities.iter();
    assert!(keys.all(|identity| identity.private_key.to_base64() == clear));
}
