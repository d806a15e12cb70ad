//! WireGuard tunnels.

use axum::body::Body;
use dataplane::tunnel::wireguard::{PrivateKey, PublicKey};
use http::Method;
use serde_json::json;

use super::{World, code, id};

/// RFC 7748, section 6.1: Alice's keys.
const PRIVATE: [u8; 32] = [
    0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
    0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
];

#[tokio::test]
async fn a_generated_key_is_shown_once_and_fits_its_public_half() {
    let world = World::new().await;
    let tunnels = format!("/accounts/{}/wireguard_tunnels", world.account);
    let body = json!({"name": "site", "generate_peer_key": true, "generate_preshared_key": true,
        "endpoint": "198.51.100.11:51820", "persistent_keepalive": 25});
    let made = world.made(&tunnels, body).await;
    let secret = made["peer_private_key"].as_str().unwrap();
    let shared = made["preshared_key"].as_str().unwrap();
    let private: PrivateKey = secret.parse().unwrap();
    assert_eq!(made["peer_public_key"], json!(private.public()));
    let config = made["config"].as_str().unwrap();
    for line in [
        &format!("PrivateKey = {secret}"),
        &format!("PresharedKey = {shared}"),
        &format!("PublicKey = {}", made["public_key"].as_str().unwrap()),
        "AllowedIPs = 100.64.0.0/12, 2606:4700:cf1:5000::/64",
        "Endpoint = 198.51.100.1:51820",
        "PersistentKeepalive = 25",
        "ListenPort = 51820",
    ] {
        assert!(config.lines().any(|l| l == line), "{line} in {config}");
    }
    let path = format!("{tunnels}/{}", id(&made));
    for path in [
        &path,
        &tunnels,
        &format!("{path}/config"),
        &format!("/accounts/{}/tunnels", world.account),
    ] {
        let (status, text) = world
            .raw(world.request(Method::GET, path, Body::empty()))
            .await;
        assert_eq!(status, 200);
        assert!(!text.contains(secret) && !text.contains(shared), "{path}");
    }
    let (_, read) = world.get(&path).await;
    assert_eq!(read["result"]["status"], "inactive");
    assert_eq!(read["result"]["last_handshake"], json!(null));
    assert!(!format!("{:?}", world.plane.spec()).contains(secret));
}

#[tokio::test]
async fn a_tunnel_is_changed_but_stays_in_its_vnet() {
    let world = World::new().await;
    let second = world.vnet("second").await;
    let tunnels = format!("/accounts/{}/wireguard_tunnels", world.account);
    let path = format!("{tunnels}/{}", world.tunnel("site", None).await);
    let key = PrivateKey(PRIVATE).public();
    let body = json!({"peer_public_key": key, "endpoint": "[2001:db8::1]:51820", "mtu": 1380,
        "allowed_prefixes": ["10.0.0.0/8"], "name": "renamed"});
    let (_, changed) = world.patch(&path, body).await;
    assert_eq!(
        changed["result"]["peer_public_key"],
        json!(key),
        "{changed}"
    );
    assert_eq!(changed["result"]["endpoint"], "[2001:db8::1]:51820");
    let spec = world.plane.spec();
    let tunnel = spec.tunnels.values().next().unwrap();
    assert_eq!(
        (tunnel.mtu, tunnel.name.as_str(), tunnel.allowed.len()),
        (1380, "renamed", 1)
    );
    let (_, cleared) = world.patch(&path, json!({"endpoint": null})).await;
    assert_eq!(cleared["result"]["endpoint"], json!(null));
    let (status, moved) = world
        .patch(&path, json!({"virtual_network_id": second}))
        .await;
    assert_eq!((status, code(&moved)), (400, 1003));
    let twin = json!({"name": "twin", "peer_public_key": key});
    assert_eq!(world.post(&tunnels, twin).await.0, 409);
    let other =
        json!({"name": "other", "generate_peer_key": true, "allowed_prefixes": ["10.0.0.0/8"]});
    let (status, taken) = world.post(&tunnels, other).await;
    assert_eq!((status, code(&taken)), (409, 1013), "{taken}");
}

#[tokio::test]
async fn wrong_tunnels_are_refused_by_field_and_keys_are_not_shown_back() {
    let world = World::new().await;
    let tunnels = format!("/accounts/{}/wireguard_tunnels", world.account);
    let zeros = PublicKey([0; 32]).to_base64();
    for (body, pointer) in [
        (json!({"generate_peer_key": true}), "/name"),
        (json!({"name": "x"}), "/peer_public_key"),
        (
            json!({"name": "x", "peer_public_key": "secretsecret"}),
            "/peer_public_key",
        ),
        (
            json!({"name": "x", "peer_public_key": zeros}),
            "/peer_public_key",
        ),
        (
            json!({"name": "x", "generate_peer_key": true, "mtu": 100}),
            "/mtu",
        ),
        (
            json!({"name": "x", "generate_peer_key": true, "endpoint": "host:1"}),
            "/endpoint",
        ),
        (
            json!({"name": "x", "generate_peer_key": true, "endpoint": "192.0.2.1:0"}),
            "/endpoint",
        ),
        (
            json!({"name": "x", "generate_peer_key": true, "allowed_prefixes": ["10.0.0.1/8"]}),
            "/allowed_prefixes/0",
        ),
        (
            json!({"name": "x", "generate_peer_key": true, "health_check": {"rate": "low"}}),
            "/health_check",
        ),
        (
            json!({"name": "x", "generate_peer_key": "yes"}),
            "/generate_peer_key",
        ),
    ] {
        let (status, refused) = world.post(&tunnels, body.clone()).await;
        assert_eq!((status, code(&refused)), (400, 1003), "{body} {refused}");
        assert_eq!(refused["errors"][0]["source"]["pointer"], pointer, "{body}");
        assert!(!refused.to_string().contains("secretsecret"));
    }
    assert!(world.plane.spec().tunnels.is_empty());
}
