//! Tunnels of the product's kinds: shapes, keys, several at once, accounts.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{World, code, id};

/// A GRE tunnel as the documents show it, with the link 10.255.0.(2n)/31.
pub(super) fn gre(name: &str, n: u8) -> Value {
    json!({
        "name": name,
        "cloudflare_gre_endpoint": "198.51.100.1",
        "customer_gre_endpoint": format!("203.0.113.{n}"),
        "interface_address": format!("10.255.0.{}/31", 2 * n),
    })
}

pub(super) fn ipsec(name: &str, n: u8) -> Value {
    json!({
        "name": name,
        "cloudflare_endpoint": "198.51.100.1",
        "customer_endpoint": format!("203.0.113.{n}"),
        "interface_address": format!("10.255.1.{}/31", 2 * n),
    })
}

pub(super) fn with(mut body: Value, change: &Value) -> Value {
    for (key, value) in change.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

impl World {
    async fn text(&self, path: &str) -> String {
        let request = self.request(Method::GET, path, Body::empty());
        self.raw(request).await.1
    }
}

#[tokio::test]
async fn gre_tunnels_live_their_life_in_the_documented_shapes() {
    let world = World::new().await;
    let tunnels = world.magic("gre_tunnels");
    let made = world.made(&tunnels, gre("GRE_1", 1)).await;
    // The object itself, and the list beside it (api.md 0, conflict 10).
    assert_eq!(made["gre_tunnels"][0]["id"], made["id"]);
    let tunnel_id = id(&made);
    assert!(
        tunnel_id.len() == 32 && !tunnel_id.contains('-'),
        "{tunnel_id}"
    );
    for (key, value) in [
        ("mtu", json!(1476)),
        ("ttl", json!(64)),
        ("description", json!("")),
        ("customer_interface_address", json!("10.255.0.3")),
        ("automatic_return_routing", json!(false)),
        ("tun_type", json!("gre")),
    ] {
        assert_eq!(made[key], value, "{key}");
    }
    let check = &made["health_check"];
    assert_eq!(
        (
            &check["enabled"],
            &check["rate"],
            &check["type"],
            &check["direction"],
            &check["target"]
        ),
        (
            &json!(true),
            &json!("mid"),
            &json!("reply"),
            &json!("bidirectional"),
            &json!("")
        )
    );
    let path = format!("{tunnels}/{tunnel_id}");
    let (_, read) = world.get(&path).await;
    assert_eq!(read["result"]["gre_tunnel"]["name"], "GRE_1");
}

#[tokio::test]
async fn the_mtu_of_a_gre_tunnel_leaves_room_for_its_options_unless_the_customer_chose_it() {
    let world = World::new().await;
    let tunnels = world.magic("gre_tunnels");
    // 1500 less 20 for IPv4, 4 for GRE and 4 for each option (RFC 2784, RFC 2890).
    let cases = [
        (json!({}), 1476),
        (json!({"key_rx": 1}), 1472),
        (json!({"key_tx": 1, "key_rx": 2}), 1472),
        (json!({"key_tx": 1, "sequence": true}), 1468),
        (json!({"checksum": true}), 1472),
        (
            json!({"key_tx": 1, "key_rx": 1, "checksum": true, "sequence": true}),
            1464,
        ),
        (json!({"key_tx": 1, "mtu": 1476}), 1476),
        (json!({"key_tx": 1, "mtu": 9000}), 9000),
    ];
    for (n, (options, mtu)) in (1..).zip(cases) {
        let made = world
            .made(&tunnels, with(gre(&format!("t{n}"), n), &options))
            .await;
        assert_eq!(made["mtu"], mtu, "{options}");
    }
    // What nobody chose follows the options; what somebody chose stays, until it is taken back.
    let path = format!(
        "{tunnels}/{}",
        id(&world.made(&tunnels, gre("x", 20)).await)
    );
    for (change, mtu) in [
        (json!({"key_tx": 1}), 1472),
        (json!({"sequence": true}), 1468),
        (json!({"mtu": 1400}), 1400),
        (json!({"checksum": true}), 1400),
        (json!({"mtu": null}), 1464),
        (
            json!({"key_tx": null, "checksum": false, "sequence": false}),
            1476,
        ),
        (json!({"description": "the same"}), 1476),
    ] {
        let (status, changed) = world.put(&path, with(gre("x", 20), &change)).await;
        assert_eq!(status, 200, "{changed}");
        assert_eq!(
            changed["result"]["modified_gre_tunnel"]["mtu"], mtu,
            "{change}"
        );
    }
}

#[tokio::test]
async fn a_change_changes_what_it_names() {
    let world = World::new().await;
    let tunnels = world.magic("gre_tunnels");
    let path = format!("{tunnels}/{}", id(&world.made(&tunnels, gre("a", 1)).await));
    let body = with(
        gre("GRE_2", 1),
        &json!({"mtu": 1400, "description": "to the lab",
        "key_tx": 7, "key_rx": 8, "checksum": true, "sequence": true,
        "keepalive": {"interval_secs": 5}, "health_check": {"rate": "high",
        "recovery": {"clean_secs": 10}}}),
    );
    let (status, changed) = world.put(&path, body).await;
    assert_eq!(
        (status, &changed["result"]["modified"]),
        (200, &json!(true)),
        "{changed}"
    );
    let changed = &changed["result"]["modified_gre_tunnel"];
    assert_eq!(
        (&changed["name"], &changed["mtu"]),
        (&json!("GRE_2"), &json!(1400))
    );
    assert_eq!(
        changed["keepalive"],
        json!({"interval_secs": 5, "retries": 3})
    );
    // What is not named stays.
    assert_eq!(changed["health_check"]["type"], "reply");
    assert_eq!(changed["health_check"]["recovery"]["clean_secs"], 10);
    let (_, changed) = world
        .put(&path, json!({"key_tx": null, "keepalive": null}))
        .await;
    let changed = &changed["result"]["modified_gre_tunnel"];
    assert_eq!(
        (
            &changed["key_tx"],
            &changed["key_rx"],
            &changed["keepalive"]
        ),
        (&Value::Null, &json!(8), &Value::Null)
    );
}

#[tokio::test]
async fn a_gre_tunnel_is_sent_back_as_it_came_and_deleted() {
    let world = World::new().await;
    let tunnels = world.magic("gre_tunnels");
    let tunnel_id = id(&world.made(&tunnels, gre("a", 1)).await);
    let path = format!("{tunnels}/{tunnel_id}");
    // What a client got it may send back.
    let (_, read) = world.get(&path).await;
    let (status, again) = world.put(&path, read["result"]["gre_tunnel"].clone()).await;
    assert_eq!(status, 200, "{again}");
    let (_, list) = world.get(&tunnels).await;
    assert_eq!(list["result"]["gre_tunnels"].as_array().unwrap().len(), 1);
    let (_, deleted) = world.delete(&path).await;
    assert_eq!(deleted["result"]["deleted"], true);
    assert_eq!(
        deleted["result"]["deleted_gre_tunnel"]["id"],
        json!(tunnel_id)
    );
    assert_eq!(code(&world.get(&path).await.1), 1016);
}

#[tokio::test]
async fn a_key_is_shown_where_it_was_made_and_nowhere_else() {
    let world = World::new().await;
    let tunnels = world.magic("ipsec_tunnels");
    let given = "correct-horse-battery";
    let made = world
        .made(&tunnels, with(ipsec("a", 1), &json!({"psk": given})))
        .await;
    assert!(
        made["psk_metadata"]["last_generated_on"].is_string(),
        "{made}"
    );
    assert!(!made.to_string().contains(given));
    let bare = world.made(&tunnels, ipsec("b", 2)).await;
    assert_eq!(bare["psk_metadata"]["last_generated_on"], Value::Null);
    let path = format!("{tunnels}/{}", id(&bare));
    let made = world.made(&format!("{path}/psk_generate"), json!({})).await;
    let secret = made["psk"].as_str().unwrap().to_owned();
    assert!(secret.len() >= 32, "{secret}");
    assert_eq!(made["ipsec_tunnel_id"], bare["id"]);
    let (_, read) = world.get(&path).await;
    let shown = &read["result"]["ipsec_tunnel"];
    assert_eq!(
        shown["psk_metadata"]["last_generated_on"],
        made["psk_metadata"]["last_generated_on"]
    );
    // A change of something else leaves the key.
    world.put(&path, json!({"description": "x"})).await;
    for path in [
        &path,
        &tunnels,
        &format!("/accounts/{}/tunnels", world.account),
    ] {
        let text = world.text(path).await;
        assert!(!text.contains(&secret) && !text.contains(given), "{path}");
    }
    let spec = world.plane.spec();
    let shown = format!("{spec:?}");
    assert!(!shown.contains(&secret) && !shown.contains(given));
    let told = spec.tunnels.values().map(|tunnel| tunnel.kind.kind());
    assert_eq!(told.collect::<Vec<_>>(), ["ipsec", "ipsec"]);
}

#[tokio::test]
async fn keys_of_several_tunnels_are_set_one_by_one() {
    let world = World::new().await;
    let tunnels = world.magic("ipsec_tunnels");
    let a = id(&world.made(&tunnels, ipsec("a", 1)).await);
    let b = id(&world.made(&tunnels, ipsec("b", 2)).await);
    let stranger = "0".repeat(32);
    let body = json!({"psks": [
        {"id": a, "psk": "0123456789abcdef"},
        {"id": b, "psk": "short"},
        {"id": stranger, "psk": "0123456789abcdef"},
    ]});
    let checked = with(body.clone(), &json!({"validate_only": true}));
    for (body, is_kept) in [(checked, false), (body, true)] {
        let set = world.made(&format!("{tunnels}/psk"), body).await;
        let applied = set["successfully_applied_psks"].as_object().unwrap();
        assert_eq!(applied.keys().collect::<Vec<_>>(), [&a]);
        assert_eq!(applied[&a]["ipsec_tunnel_id"], json!(a));
        let unapplied = set["unapplied_psks"].as_object().unwrap();
        assert!(
            unapplied[&b].as_str().unwrap().contains("8 to 256"),
            "{set}"
        );
        assert!(
            unapplied[&stranger]
                .as_str()
                .unwrap()
                .contains("no such tunnel"),
            "{set}"
        );
        let (_, read) = world.get(&format!("{tunnels}/{a}")).await;
        let set_at = &read["result"]["ipsec_tunnel"]["psk_metadata"]["last_generated_on"];
        assert_eq!(set_at.is_string(), is_kept);
    }
    for body in [
        json!({}),
        json!({"psks": {}}),
        json!({"psks": [{"psk": "x"}]}),
    ] {
        let (status, refused) = world.post(&format!("{tunnels}/psk"), body).await;
        assert_eq!((status, code(&refused)), (400, 1003), "{refused}");
    }
}

#[tokio::test]
async fn identities_follow_from_ids_and_an_address_belongs_to_who_came_first() {
    let world = World::new().await;
    let tunnels = world.magic("ipsec_tunnels");
    let first = world.made(&tunnels, ipsec("a", 1)).await;
    let (account, tunnel) = (&world.account, id(&first));
    let identities = &first["ike_identities"];
    // api.md 4.3
    assert_eq!(
        identities["fqdn"],
        format!("{tunnel}.{account}.ipsec.cloudflare.com")
    );
    assert_eq!(
        identities["rfc822"],
        format!("ipsec@{tunnel}.{account}.ipsec.cloudflare.com")
    );
    assert_eq!(identities["key_id"], format!("{account}_{tunnel}"));
    assert_eq!(identities["address"], "203.0.113.1");
    let twin = with(ipsec("b", 2), &json!({"customer_endpoint": "203.0.113.1"}));
    let twin = world.made(&tunnels, twin).await;
    assert_eq!(twin["ike_identities"]["address"], Value::Null);
    let anywhere = with(ipsec("c", 3), &json!({"customer_endpoint": ""}));
    let anywhere = world.made(&tunnels, anywhere).await;
    assert_eq!(anywhere["ike_identities"]["address"], Value::Null);
    assert_eq!(anywhere["customer_endpoint"], "");
    let fqdn = format!("office.{account}.custom.ipsec.cloudflare.com");
    let custom = json!({"custom_remote_identities": {"fqdn_id": fqdn}});
    let path = |made: &Value| format!("{tunnels}/{}", id(made));
    let (status, changed) = world.put(&path(&first), custom.clone()).await;
    let changed = &changed["result"]["modified_ipsec_tunnel"];
    assert_eq!(
        (status, &changed["custom_remote_identities"]["fqdn_id"]),
        (200, &json!(fqdn))
    );
    let (status, refused) = world.put(&path(&twin), custom).await;
    assert_eq!((status, code(&refused)), (409, 1013), "{refused}");
    assert_eq!(
        refused["errors"][0]["source"]["pointer"],
        "/custom_remote_identities/fqdn_id"
    );
}

#[tokio::test]
async fn several_are_changed_at_once_or_none() {
    let world = World::new().await;
    let tunnels = world.magic("gre_tunnels");
    let a = id(&world.made(&tunnels, gre("a", 1)).await);
    let b = id(&world.made(&tunnels, gre("b", 2)).await);
    // Each takes what the other has: no order of single changes could do that.
    let swap = json!({"gre_tunnels": [
        {"id": a, "name": "b", "interface_address": "10.255.0.4/31"},
        {"id": b, "name": "a", "interface_address": "10.255.0.2/31"},
    ]});
    let (status, changed) = world.put(&tunnels, swap).await;
    assert_eq!(status, 200, "{changed}");
    let changed = &changed["result"]["modified_gre_tunnels"];
    assert_eq!(
        (&changed[0]["name"], &changed[1]["name"]),
        (&json!("b"), &json!("a"))
    );
    let before = world.text(&tunnels).await;
    for (entries, pointer) in [
        (
            json!([{"id": a, "mtu": 1400}, {"id": b, "mtu": 1}]),
            "/gre_tunnels/1/mtu",
        ),
        (
            json!([{"id": a, "name": "x"}, {"id": b, "name": "x"}]),
            "/gre_tunnels/0/name",
        ),
        (
            json!([{"id": a, "mtu": 1400}, {"id": "0", "mtu": 1400}]),
            "/gre_tunnels/1",
        ),
        (json!([{"id": a}, {"id": a}]), "/gre_tunnels/1/id"),
        (json!([{"mtu": 1400}]), "/gre_tunnels/0/id"),
        (json!({"id": a}), "/gre_tunnels"),
        (json!(vec![json!({"id": a}); 1001]), "/gre_tunnels"),
    ] {
        let (status, refused) = world.put(&tunnels, json!({"gre_tunnels": entries})).await;
        assert!((400..500).contains(&status), "{entries} {refused}");
        assert_eq!(
            refused["errors"][0]["source"]["pointer"], pointer,
            "{refused}"
        );
    }
    assert_eq!(world.text(&tunnels).await, before);
}

#[tokio::test]
async fn validate_only_checks_every_write_and_makes_none() {
    let world = World::new().await;
    let tunnels = world.magic("gre_tunnels");
    let revision = || *world.plane.revision().borrow();
    let begin = revision();
    let (status, would) = world
        .post(&format!("{tunnels}?validate_only=true"), gre("a", 1))
        .await;
    assert_eq!(
        (status, &would["result"]["name"]),
        (200, &json!("a")),
        "{would}"
    );
    assert_eq!(would["result"]["id"], Value::Null);
    assert_eq!(revision(), begin);
    let bad = with(gre("a", 1), &json!({"mtu": 1}));
    let bad = world
        .post(&format!("{tunnels}?validate_only=true"), bad)
        .await;
    assert_eq!((bad.0, code(&bad.1)), (400, 1003));
    let made = id(&world.made(&tunnels, gre("a", 1)).await);
    let held = revision();
    let path = format!("{tunnels}/{made}?validate_only=true");
    let (_, would) = world.put(&path, json!({"mtu": 1400})).await;
    assert_eq!(would["result"]["modified"], false);
    assert_eq!(would["result"]["modified_gre_tunnel"]["mtu"], 1400);
    let bulk = json!({"gre_tunnels": [{"id": made, "mtu": 1400}]});
    assert_eq!(
        world
            .put(&format!("{tunnels}?validate_only=true"), bulk)
            .await
            .0,
        200
    );
    assert_eq!(world.delete(&path).await.1["result"]["deleted"], false);
    let (_, read) = world.get(&format!("{tunnels}/{made}")).await;
    assert_eq!(read["result"]["gre_tunnel"]["mtu"], 1476);
    let wrong = world
        .post(&format!("{tunnels}?validate_only=maybe"), gre("b", 2))
        .await;
    assert_eq!((wrong.0, code(&wrong.1)), (400, 1000));
    assert_eq!(revision(), held);
}

#[tokio::test]
async fn targets_have_the_form_that_the_header_names() {
    let world = World::new().await;
    let tunnels = world.magic("gre_tunnels");
    let path = format!("{tunnels}/{}", id(&world.made(&tunnels, gre("a", 1)).await));
    let call = async |method: Method, header: &str, body: Value| {
        let request = world.request(method, &path, Body::from(body.to_string()));
        let (mut parts, body) = request.into_parts();
        parts
            .headers
            .insert("x-magic-new-hc-target", header.parse().unwrap());
        let (status, text) = world.raw(Request::from_parts(parts, body)).await;
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    let (_, read) = call(Method::GET, "true", json!({})).await;
    let target = &read["result"]["gre_tunnel"]["health_check"]["target"];
    assert_eq!(*target, json!({"saved": "", "effective": "10.255.0.3"}));
    let object = json!({"health_check": {"target": {"saved": "192.0.2.9"}}});
    let text = json!({"health_check": {"target": "192.0.2.10"}});
    let (status, changed) = call(Method::PUT, "true", object.clone()).await;
    let target = &changed["result"]["modified_gre_tunnel"]["health_check"]["target"];
    assert_eq!(status, 200, "{changed}");
    assert_eq!(
        *target,
        json!({"saved": "192.0.2.9", "effective": "192.0.2.9"})
    );
    for (header, body) in [("true", text.clone()), ("false", object), ("1", json!({}))] {
        let (status, refused) = call(Method::PUT, header, body).await;
        assert_eq!((status, code(&refused)), (400, 1003), "{refused}");
    }
    let (_, changed) = call(Method::PUT, "false", text).await;
    let target = &changed["result"]["modified_gre_tunnel"]["health_check"]["target"];
    assert_eq!(*target, "192.0.2.10");
    // Outside the tunnel the other end is the customer's outer address (api.md 4.3).
    let body = json!({"health_check": {"direction": "unidirectional", "type": "request",
        "target": {"saved": ""}}});
    let (_, changed) = call(Method::PUT, "true", body).await;
    let target = &changed["result"]["modified_gre_tunnel"]["health_check"]["target"];
    assert_eq!(target["effective"], "203.0.113.1");
}

#[tokio::test]
async fn nothing_of_one_account_is_seen_or_reached_from_another() {
    let world = World::new().await;
    let other = world.second_account();
    let theirs = |leaf: &str| format!("/accounts/{other}/magic/{leaf}");
    let tunnel = id(&world.made(&world.magic("gre_tunnels"), gre("a", 1)).await);
    let keyed = id(&world
        .made(&world.magic("ipsec_tunnels"), ipsec("k", 1))
        .await);
    let route = json!({"prefix": "10.0.0.0/24", "nexthop": "10.255.0.3", "priority": 100});
    let made = id(&world.made(&world.magic("routes"), route.clone()).await);
    // The same inner addresses and names are free in the other account; outer ones are not.
    let (status, refused) = world.post(&theirs("gre_tunnels"), gre("a", 1)).await;
    let why = refused["errors"][0]["message"].as_str().unwrap();
    assert!(status == 409 && why.contains("key_rx"), "{refused}");
    assert!(
        !refused.to_string().contains(&tunnel) && !why.contains("'a'"),
        "{refused}"
    );
    let free = with(gre("a", 1), &json!({"key_rx": 5}));
    world.made(&theirs("gre_tunnels"), free).await;
    world.made(&theirs("routes"), route).await;
    for (method, leaf, body) in [
        (Method::GET, format!("gre_tunnels/{tunnel}"), json!({})),
        (
            Method::PUT,
            format!("gre_tunnels/{tunnel}"),
            json!({"mtu": 600}),
        ),
        (
            Method::PUT,
            "gre_tunnels".to_owned(),
            json!({"gre_tunnels": [{"id": tunnel}]}),
        ),
        (Method::DELETE, format!("gre_tunnels/{tunnel}"), json!({})),
        (
            Method::POST,
            format!("ipsec_tunnels/{keyed}/psk_generate"),
            json!({}),
        ),
        (Method::GET, format!("routes/{made}"), json!({})),
        (
            Method::PUT,
            format!("routes/{made}"),
            json!({"priority": 1}),
        ),
        (
            Method::PUT,
            "routes".to_owned(),
            json!({"routes": [{"id": made, "priority": 1}]}),
        ),
        (Method::DELETE, format!("routes/{made}"), json!({})),
        (
            Method::DELETE,
            "routes".to_owned(),
            json!({"routes": [{"id": made}]}),
        ),
    ] {
        let (status, refused) = world.call(method, &theirs(&leaf), body).await;
        assert_eq!(status, 404, "{leaf} {refused}");
    }
}

#[tokio::test]
async fn what_an_account_names_or_empties_is_its_own() {
    let world = World::new().await;
    let other = world.second_account();
    let theirs = |leaf: &str| format!("/accounts/{other}/magic/{leaf}");
    let tunnel = id(&world.made(&world.magic("gre_tunnels"), gre("a", 1)).await);
    let keyed = id(&world
        .made(&world.magic("ipsec_tunnels"), ipsec("k", 1))
        .await);
    let route = json!({"prefix": "10.0.0.0/24", "nexthop": "10.255.0.3", "priority": 100});
    let made = id(&world.made(&world.magic("routes"), route.clone()).await);
    let free = with(gre("a", 1), &json!({"key_rx": 5}));
    let same = id(&world.made(&theirs("gre_tunnels"), free).await);
    world.made(&theirs("routes"), route).await;
    let psks = json!({"psks": [{"id": keyed, "psk": "0123456789abcdef"}]});
    let set = world.made(&theirs("ipsec_tunnels/psk"), psks).await;
    assert_eq!(set["successfully_applied_psks"], json!({}));
    // A teamnet route of one cannot lead into a tunnel of the other.
    let across = json!({"network": "10.9.0.0/16", "tunnel_id": tunnel});
    let routes = format!("/accounts/{other}/teamnet/routes");
    assert_eq!(world.post(&routes, across).await.0, 400);
    let vnet = world.vnet("second").await;
    let across = with(gre("b", 2), &json!({"virtual_network_id": vnet}));
    assert_eq!(world.post(&theirs("gre_tunnels"), across).await.0, 400);
    let emptied = world.delete(&theirs("routes")).await.1;
    assert_eq!(
        emptied["result"]["deleted_routes"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let (_, list) = world.get(&world.magic("routes")).await;
    assert_eq!(list["result"]["routes"][0]["id"], json!(made));
    let (_, list) = world.get(&theirs("gre_tunnels")).await;
    let ids: Vec<&Value> = list["result"]["gre_tunnels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tunnel| &tunnel["id"])
        .collect();
    assert_eq!(ids, [&json!(same)]);
}
