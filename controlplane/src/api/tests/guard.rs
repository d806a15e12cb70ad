//! Every path of the API, asked by who may not: found in the sources, so that a new one is among them.

use std::collections::BTreeSet;
use std::path::Path;

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use super::auth::{group, policy, secret, token};
use super::{World, code};
use crate::model::permission::{Access, Group, Permission};

const METHODS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// What stands for an id in a path.
const NOBODY: &str = "00000000000000000000000000000000";

/// Every path below an account or a zone that the sources name.
fn paths() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api"),
        &mut found,
    );
    let magic = found.iter().any(|path| path.contains("magic/gre_tunnels"));
    assert!(found.len() > 20 && magic, "{found:?}");
    found
}

fn collect(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests") {
                collect(&path, found);
            }
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for literal in text.split('"') {
            let literal = literal.replace("{{", "{").replace("}}", "}");
            let is_path =
                literal.starts_with("/accounts/{account}/") || literal.starts_with("/zones/{zone}");
            if !is_path || literal.contains(char::is_whitespace) {
                continue;
            }
            let leaves = ["gre_tunnels", "ipsec_tunnels", "cf_interconnects"];
            let leaves = if literal.contains("{}") {
                &leaves[..]
            } else {
                &[""]
            };
            found.extend(leaves.iter().map(|leaf| literal.replacen("{}", leaf, 1)));
        }
    }
}

fn filled(path: &str, account: &str, zone: &str) -> String {
    let mut filled = String::new();
    for part in path.split('/').skip(1) {
        filled.push('/');
        filled.push_str(match part {
            "{account}" => account,
            "{zone}" => zone,
            part if part.starts_with('{') => NOBODY,
            part => part,
        });
    }
    filled
}

/// Every right of one kind on an account and its zones.
async fn everything(world: &World, access: Access) -> World {
    let mut groups = Vec::new();
    for one in Permission::all() {
        if one.access == access && one.group != Group::UserTokens {
            groups.push(group(world, &one.name()).await);
        }
    }
    let account = format!("com.cloudflare.api.account.{}", world.account);
    let made = token(world, vec![policy("allow", &groups, &account)], json!({})).await;
    world.as_token(&secret(&made))
}

async fn asked(world: &World, method: &Method, path: &str) -> (u16, String) {
    world
        .raw(world.request(method.clone(), path, Body::from("{}")))
        .await
}

#[tokio::test]
async fn no_path_of_another_account_or_zone_tells_whether_it_exists() {
    let world = World::new().await;
    let account = world.stranger("stranger.example", "a.stranger.example", "192.0.2.1");
    let (_, zones) = world.get("/zones?name=stranger.example").await;
    let zone = super::id(&zones["result"][0]);
    let mine = everything(&world, Access::Write).await;
    for path in paths() {
        for method in METHODS {
            let theirs = filled(&path, &account, &zone);
            // The server's own token shows that there is something to find.
            let (status, hidden) = asked(&mine, &method, &theirs).await;
            if status == 405 {
                continue;
            }
            let absent = filled(&path, NOBODY, NOBODY);
            let (_, absent) = asked(&mine, &method, &absent).await;
            assert_eq!(status, 404, "{method} {path}: {hidden}");
            let hidden = hidden.replace(&account, NOBODY).replace(&zone, NOBODY);
            assert_eq!(hidden, absent, "{method} {path}");
        }
    }
    let (_, listed) = mine.get("/zones").await;
    assert_eq!(listed["result"], json!([]));
    let (_, listed) = mine.get("/zones?name=stranger.example").await;
    assert_eq!(listed["result"], json!([]));
}

#[tokio::test]
async fn a_token_that_may_read_everything_changes_nothing_by_any_path() {
    let world = World::new().await;
    let zone = world.zone("example.com").await;
    let reader = everything(&world, Access::Read).await;
    let before = *world.plane.revision().borrow();
    let mut refused = 0;
    for path in paths() {
        let path = filled(&path, &world.account, &zone);
        for method in METHODS {
            let (status, answer) = asked(&reader, &method, &path).await;
            if method == Method::GET || status == 405 {
                assert_ne!(status, 403, "{method} {path}: {answer}");
                continue;
            }
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(
                (status, code(&answer)),
                (403, 9109),
                "{method} {path}: {answer}"
            );
            refused += 1;
        }
    }
    assert!(refused > 30, "{refused}");
    assert_eq!(*world.plane.revision().borrow(), before);
}

#[tokio::test]
async fn without_a_token_there_is_nothing_at_all() {
    let world = World::new().await.as_token("guess");
    let mut all = paths();
    all.extend(
        [
            "/accounts",
            "/zones",
            "/user/tokens",
            "/ips",
            "/memberships",
            "/nothing",
        ]
        .map(str::to_owned),
    );
    for path in all {
        for method in METHODS {
            let (status, _) = asked(&world, &method, &filled(&path, &world.account, NOBODY)).await;
            assert_eq!(status, 403, "{method} {path}");
        }
    }
}
