//! Every path of the API, asked by who may not: found in the document, so that a new one is among them.

use std::collections::BTreeSet;

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

/// Every path below an account or a zone: all are in the document, since none is served otherwise.
async fn paths(world: &World) -> BTreeSet<String> {
    let document = world.document().await;
    let all = document.operations().into_iter();
    let all = all.filter_map(|(path, ..)| path.strip_prefix("/client/v4"));
    let is_below =
        |path: &&str| path.starts_with("/accounts/{account}/") || path.starts_with("/zones/{zone}");
    let found: BTreeSet<String> = all.filter(is_below).map(str::to_owned).collect();
    let magic = found.iter().any(|path| path.contains("magic/gre_tunnels"));
    assert!(found.len() > 20 && magic, "{found:?}");
    found
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
    for path in paths(&world).await {
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
    for path in paths(&world).await {
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
    let mut all = paths(&world).await;
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
