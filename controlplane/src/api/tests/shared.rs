//! Two control planes on one etcd: customers do not notice which one they ask.

use std::sync::Arc;

use serde_json::json;

use super::{World, options};
use crate::scratch::Directory;
use crate::store::etcd_tests::Server;
use crate::{ControlPlane, NoNode};

/// A control plane of its own on the same etcd; the first one's token is everybody's.
async fn world(server: &Server, token: Option<String>) -> World {
    let directory = Directory::new();
    let plane = ControlPlane::open_on(Box::new(server.open()), options(&directory)).unwrap();
    let mut world = World {
        router: plane.router(Arc::new(NoNode)),
        token: token.or_else(|| plane.first_token()).unwrap(),
        account: String::new(),
        plane,
        _directory: directory,
    };
    let (_, accounts) = world.get("/accounts").await;
    world.account = accounts["result"][0]["id"].as_str().unwrap().to_owned();
    world
}

#[tokio::test]
async fn requests_to_two_control_planes_at_once_all_succeed_and_both_show_all_of_them() {
    const EACH: usize = 15;
    let server = Server::start();
    let one = world(&server, None).await;
    let other = world(&server, Some(one.token.clone())).await;
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
