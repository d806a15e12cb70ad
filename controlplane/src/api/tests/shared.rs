//! Two control planes on one etcd: customers do not notice which one they ask.

use std::sync::Arc;

use serde_json::json;

use super::{World, options};
use crate::scratch::Directory;
use crate::store::Store as _;
use crate::store::etcd_tests::Server;
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
