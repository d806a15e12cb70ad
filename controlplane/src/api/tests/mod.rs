//! The API in memory: requests in, envelopes out.

mod answers;
mod auth;
mod bad_input;
mod dns;
mod edge;
mod guard;
mod hostname_routes;
mod interconnects;
mod magic;
mod magic_input;
mod magic_routes;
mod matrix;
mod networks;
mod nodes;
mod openapi;
mod records;
mod secrets;
mod shared;
mod spectrum;
mod stage;
mod strangers;
mod tunnels;

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tower_service::Service as _;

use crate::model::account::Account;
use crate::model::record::Record;
use crate::model::vnet::Vnet;
use crate::model::zone::Zone;
use crate::model::{HexId, Timestamp};
use crate::scratch::Directory;
use crate::{ControlPlane, NoNode, NodeStatus, Options};
use openapi::{Document, Given};

fn options(directory: &Directory) -> Options {
    let edge = ["203.0.113.1", "2001:db8:1::1"];
    let underlay = ["198.51.100.1", "2001:db8::1"];
    let underlay = underlay.map(|ip| ip.parse::<IpAddr>().unwrap()).to_vec();
    Options {
        data_dir: directory.0.clone(),
        key: None,
        requests_per_sec_max: None,
        slice: "100.64.0.0/20".parse().unwrap(),
        edge_addresses: edge.map(|ip| ip.parse::<IpAddr>().unwrap()).to_vec(),
        name_servers: vec!["ns1.example.net".to_owned(), "ns2.example.net".to_owned()],
        dns_listen: vec!["203.0.113.1:53".parse().unwrap()],
        gre_addresses: underlay.clone(),
        ipsec_addresses: underlay,
        devices: vec!["cni0".to_owned(), "cni1".to_owned()],
        ports: vec!["eth1".to_owned()],
        wireguard_endpoint: Some("198.51.100.1:51820".to_owned()),
    }
}

/// A new control plane, with a client that has its first token.
pub(super) struct World {
    pub(super) plane: ControlPlane,
    router: axum::Router,
    token: String,
    pub(super) account: String,
    /// Every answer is held to it.
    document: OnceCell<Document>,
    directory: Arc<Directory>,
}

impl World {
    pub(super) async fn new() -> World {
        World::with(Arc::new(NoNode)).await
    }

    pub(super) async fn with(status: Arc<dyn NodeStatus>) -> World {
        let directory = Directory::new();
        let plane = ControlPlane::open(options(&directory)).unwrap();
        let mut world = World {
            router: plane.router(status),
            ..World::of(plane, directory)
        };
        let (_, accounts) = world.get("/accounts").await;
        world.account = accounts["result"][0]["id"].as_str().unwrap().to_owned();
        world
    }

    /// What was opened in a directory, with the first token when it is new.
    pub(super) fn of(plane: ControlPlane, directory: Directory) -> World {
        World {
            router: plane.router(Arc::new(NoNode)),
            token: plane.first_token().unwrap_or_default(),
            account: String::new(),
            document: OnceCell::new(),
            plane,
            directory: Arc::new(directory),
        }
    }

    /// The same world, asked with another token.
    pub(super) fn as_token(&self, token: &str) -> World {
        World {
            plane: self.plane.clone(),
            router: self.router.clone(),
            token: token.to_owned(),
            account: self.account.clone(),
            document: OnceCell::new(),
            directory: Arc::clone(&self.directory),
        }
    }

    pub(super) async fn raw_response(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().call(request).await.unwrap()
    }

    /// A request as it is; the status, and the body as text.
    pub(super) async fn raw(&self, request: Request<Body>) -> (u16, String) {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = self.raw_response(request).await;
        let status = response.status().as_u16();
        let media_type = response.headers()[CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        self.document().await.hold(&Given {
            method: &method,
            path: uri.path(),
            status,
            media_type: &media_type,
            text: &text,
        });
        (status, text)
    }

    /// What the API says of itself.
    async fn document(&self) -> &Document {
        let document = self.document.get_or_init(async || {
            let request = Request::builder().uri("/openapi.json").body(Body::empty());
            let response = self.raw_response(request.unwrap()).await;
            let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
            Document(serde_json::from_slice(&body).unwrap())
        });
        document.await
    }

    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub(super) fn request(&self, method: Method, path: &str, body: Body) -> Request<Body> {
        let path = match path.starts_with("/origin/") {
            true => path.to_owned(),
            false => format!("/client/v4{path}"),
        };
        Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", self.bearer())
            .body(body)
            .unwrap()
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let (status, text) = self.raw(self.request(method, path, body)).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, Value::Null).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, body).await
    }

    pub(super) async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PUT, path, body).await
    }

    /// `/accounts/{account}/magic/{leaf}` of the first account.
    pub(super) fn magic(&self, leaf: &str) -> String {
        format!("/accounts/{}/magic/{leaf}", self.account)
    }

    /// A second account, with a default vnet.
    pub(super) fn second_account(&self) -> String {
        let id = HexId::random();
        let now = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
        let account = Account {
            id,
            name: "second".to_owned(),
            created_on: now,
        };
        let vnet = Vnet {
            id: uuid::Uuid::new_v4(),
            account_id: id,
            number: dataplane::id::VnetId(1000),
            name: "default".to_owned(),
            comment: String::new(),
            is_default_network: true,
            created_at: now,
        };
        let written = self.plane.objects().write(now, |transaction| {
            transaction.put(account);
            transaction.put(vnet);
            Ok(())
        });
        written.unwrap();
        id.to_string()
    }

    pub(super) async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PATCH, path, body).await
    }

    pub(super) async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, Value::Null).await
    }

    /// Posts what must succeed; its result.
    pub(super) async fn made(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(
            (status, &answer["success"]),
            (200, &json!(true)),
            "{path}: {answer}"
        );
        answer["result"].clone()
    }

    pub(super) async fn zone(&self, name: &str) -> String {
        let body = json!({"name": name, "account": {"id": self.account}, "type": "full"});
        id(&self.made("/zones", body).await)
    }

    /// Another account with a zone and an A record; its id.
    pub(super) fn stranger(&self, zone: &str, name: &str, ip: &str) -> String {
        let account_id = HexId::random();
        let zone_id = HexId::random();
        let now = super::context::now();
        let record = json!({"id": HexId::random(), "zone_id": zone_id, "name": name, "type": "A",
            "content": ip, "ttl": 1, "proxied": false, "asked_private": false,
            "virtual_network_id": null, "priority": null, "comment": null, "tags": [],
            "created_on": now, "modified_on": now});
        let zone = json!({"id": zone_id, "account_id": account_id, "name": zone, "paused": false,
            "created_on": now, "modified_on": now});
        let account = json!({"id": account_id, "name": "stranger", "created_on": now});
        let written = self.plane.objects().write(now, |transaction| {
            transaction.put(serde_json::from_value::<Account>(account).unwrap());
            transaction.put(serde_json::from_value::<Zone>(zone).unwrap());
            transaction.put(serde_json::from_value::<Record>(record).unwrap());
            Ok(())
        });
        written.unwrap();
        account_id.to_string()
    }

    pub(super) async fn vnet(&self, name: &str) -> String {
        let path = format!("/accounts/{}/teamnet/virtual_networks", self.account);
        id(&self.made(&path, json!({"name": name})).await)
    }

    /// A tunnel with a generated peer, in the vnet or the default one.
    pub(super) async fn tunnel(&self, name: &str, vnet: Option<&str>) -> String {
        let path = format!("/accounts/{}/wireguard_tunnels", self.account);
        let body = json!({"name": name, "generate_peer_key": true, "virtual_network_id": vnet});
        id(&self.made(&path, body).await)
    }

    pub(super) fn routes(&self) -> String {
        format!("/accounts/{}/teamnet/routes", self.account)
    }

    pub(super) async fn route(&self, network: &str, tunnel: &str, vnet: Option<&str>) -> String {
        let body = json!({"network": network, "tunnel_id": tunnel, "virtual_network_id": vnet});
        id(&self.made(&self.routes(), body).await)
    }
}

pub(super) fn id(result: &Value) -> String {
    result["id"].as_str().unwrap().to_owned()
}

/// The code of the first error.
pub(super) fn code(answer: &Value) -> u64 {
    answer["errors"][0]["code"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_the_token_still_works() {
    let directory = Directory::new();
    let plane = ControlPlane::open(options(&directory)).unwrap();
    let token = plane.first_token().unwrap();
    let busy = ControlPlane::open(options(&directory)).unwrap_err();
    assert!(
        busy.to_string().contains("open in another process"),
        "{busy}"
    );
    drop(plane);
    let plane = ControlPlane::open(options(&directory)).unwrap();
    assert_eq!(plane.first_token(), None);
    let world = World {
        token,
        ..World::of(plane, directory)
    };
    let (status, answer) = world.get("/user/tokens/verify").await;
    assert_eq!(
        (status, &answer["result"]["status"]),
        (200, &json!("active"))
    );
}

#[tokio::test]
async fn an_acknowledged_change_is_applied_when_the_node_is_quick_and_answered_when_it_is_not() {
    struct Late;
    impl NodeStatus for Late {
        fn tunnels(&self) -> Vec<dataplane::node::TunnelStatus> {
            Vec::new()
        }
        fn rejected(&self) -> Vec<(dataplane::program::Key, String)> {
            Vec::new()
        }
        fn sources(&self) -> Vec<(dataplane::id::VnetId, IpAddr)> {
            Vec::new()
        }
        fn applied_revision(&self) -> u64 {
            0
        }
    }
    let world = World::with(Arc::new(Late)).await;
    let before = *world.plane.revision().borrow();
    world.zone("example.com").await;
    assert_eq!(*world.plane.revision().borrow(), before + 1);
    assert_eq!(world.plane.spec().revision, before + 1);
}
