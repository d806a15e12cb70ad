//! One of everything in an account, made from the examples of the document, to try things out on.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::openapi::Document;
use super::{World, code};
use crate::api::operation::{ACCOUNT_ID, TUNNEL_ID, VNET_ID};

/// An id that nothing has, in both forms.
pub(super) const NOBODY: &str = "00000000-0000-4000-8000-000000000000";
pub(super) const NOBODY_HEX: &str = "00000000000040008000000000000000";

/// One of everything in one account, and where it is.
pub(super) struct Stage {
    pub(super) world: World,
    /// What stands in paths: the parameter of a path, by the path up to it.
    pub(super) ids: BTreeMap<String, String>,
    pub(super) domain: &'static str,
    pub(super) zone: String,
    pub(super) vnet: String,
    pub(super) tunnel: String,
}

impl Stage {
    /// What the examples need in the world's account: a zone, a tunnel whose prefix covers the private origins,
    /// and a GRE tunnel, to this address, that the static route of the example leads into.
    pub(super) async fn new(world: World, domain: &'static str, customer: &str) -> Stage {
        let path = format!("/accounts/{}/teamnet/virtual_networks", world.account);
        let (_, vnets) = world.get(&path).await;
        let vnet = vnets["result"][0]["id"].as_str().unwrap().to_owned();
        let zone = world.zone(domain).await;
        let tunnel = world.tunnel("wg", None).await;
        world.route("10.0.0.0/24", &tunnel, None).await;
        let gre = json!({
            "name": "base", "cloudflare_gre_endpoint": "198.51.100.1",
            "customer_gre_endpoint": customer, "interface_address": "10.255.0.0/31",
        });
        world.made(&world.magic("gre_tunnels"), gre).await;
        let ids = BTreeMap::new();
        Stage {
            world,
            ids,
            domain,
            zone,
            vnet,
            tunnel,
        }
    }

    pub(super) async fn only() -> Stage {
        Stage::new(World::new().await, "example.com", "198.51.100.9").await
    }

    pub(super) fn real(&self, value: &Value) -> Value {
        let text = value.to_string().replace(ACCOUNT_ID, &self.world.account);
        let text = text
            .replace(VNET_ID, &self.vnet)
            .replace("example.com", self.domain);
        serde_json::from_str(&text.replace(TUNNEL_ID, &self.tunnel)).unwrap()
    }

    /// The path with what exists in place of its parameters; makes what is missing.
    pub(super) async fn path(&mut self, method: &Method, template: &str) -> String {
        let mut path = String::new();
        let mut so_far = String::new();
        for part in template.trim_start_matches("/client/v4").split('/').skip(1) {
            let filled = match part {
                "{account}" => self.world.account.clone(),
                "{zone}" => self.zone.clone(),
                "{setting}" => "always_use_https".to_owned(),
                "{family}" => "v4".to_owned(),
                "{ip}" => "10.0.0.50".to_owned(),
                "{node}" => self.node(),
                // One to be made, and one that is there.
                "{cidr}" if *method == Method::POST => "10.40.0.0%2F24".to_owned(),
                "{cidr}" => "10.0.0.0%2F24".to_owned(),
                part if part.starts_with('{') => self.id_in(&so_far, &path).await,
                part => part.to_owned(),
            };
            path = format!("{path}/{filled}");
            so_far = format!("{so_far}/{part}");
        }
        path
    }

    /// A node of the account. The API makes none.
    fn node(&self) -> String {
        let name = self.domain.replace('.', "-");
        let account = self.world.account.parse().ok();
        self.world.plane.enrol(&name, account).unwrap();
        name
    }

    /// The id of an object of the collection, made from the collection's first example.
    pub(super) async fn id_in(&mut self, template: &str, path: &str) -> String {
        if let Some(id) = self.ids.get(template) {
            return id.clone();
        }
        let new = Operation::of(
            self.world.document().await,
            &format!("/client/v4{template}"),
            "post",
        );
        let made = self.world.made(path, self.real(&new.examples[0])).await;
        let id = super::id(&made);
        self.ids.insert(template.to_owned(), id.clone());
        id
    }

    pub(super) fn revision(&self) -> u64 {
        *self.world.plane.revision().borrow()
    }

    /// Sends what must be refused; what changed nothing, has a code and a sentence.
    pub(super) async fn refused(&self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let before = self.revision();
        let (status, answer) = self.world.call(method.clone(), path, body.clone()).await;
        let what = format!("{method} {path} {}", short(body));
        assert!((400..500).contains(&status), "{what}: {status} {answer}");
        assert_eq!(self.revision(), before, "{what} changed something");
        assert!(code(&answer) >= 1000, "{what}: {answer}");
        let message = answer["errors"][0]["message"].as_str().unwrap();
        assert!(message.len() > 10, "{what}: {answer}");
        (status, answer)
    }
}

pub(super) fn short(body: &Value) -> String {
    body.to_string().chars().take(300).collect()
}

/// An operation with a body of JSON.
pub(super) struct Operation {
    pub(super) template: String,
    pub(super) method: Method,
    pub(super) schema: Value,
    pub(super) examples: Vec<Value>,
}

impl Operation {
    pub(super) fn of(document: &Document, template: &str, method: &str) -> Operation {
        let body = &document.0["paths"][template][method]["requestBody"];
        let media = &body["content"]["application/json"];
        let examples = media["examples"].as_object();
        let examples = examples.into_iter().flat_map(|all| all.values());
        Operation {
            template: template.to_owned(),
            method: method.to_uppercase().parse().unwrap(),
            schema: media["schema"].clone(),
            examples: examples.map(|one| one["value"].clone()).collect(),
        }
    }

    /// All of them: those that make something first, so that what they make is there for the others.
    pub(super) fn all(document: &Document) -> Vec<Operation> {
        let has_json =
            |about: &Value| about["requestBody"]["content"]["application/json"].is_object();
        let all = document
            .operations()
            .into_iter()
            .filter(|(_, _, about)| has_json(about));
        let mut all: Vec<_> = all
            .map(|(path, method, _)| Operation::of(document, path, method))
            .collect();
        all.sort_by_key(|one| (one.method != Method::POST, one.template.clone()));
        all
    }
}

impl Stage {
    /// The examples as they are, so that nothing else was wrong with them.
    pub(super) async fn taken_as_shown(&mut self, operation: &Operation, path: &str) {
        // Changed into its second example, the first would be what is there already.
        let is_new = operation.method == Method::POST;
        let count = if is_new { usize::MAX } else { 1 };
        for (index, example) in operation.examples.iter().enumerate().take(count) {
            let body = self.real(example);
            let (status, answer) = self.world.call(operation.method.clone(), path, body).await;
            assert_eq!(status, 200, "{} {path} {index}: {answer}", operation.method);
            let is_new = is_new && answer["result"]["id"].is_string();
            let at = operation.template.trim_start_matches("/client/v4");
            if is_new && index == 0 && !at.contains("{cidr}") {
                self.ids.insert(at.to_owned(), super::id(&answer["result"]));
            }
        }
    }
}

pub(super) fn with(example: &Value, pointer: &str, bad: Value) -> Value {
    let mut body = example.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[name] = bad;
    body
}
