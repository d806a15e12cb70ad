//! What mistaken customers say of tunnels, field by field.

use serde_json::{Value, json};

use super::magic::{gre, ipsec, with};
use super::{World, code, id};

async fn all_refused(world: &World, leaf: &str, cases: Vec<(Value, &str)>) {
    let path = world.magic(leaf);
    for (body, pointer) in cases {
        let (status, refused) = world.post(&path, body.clone()).await;
        assert_eq!((status, code(&refused)), (400, 1003), "{body} {refused}");
        assert_eq!(
            refused["errors"][0]["source"]["pointer"], pointer,
            "{body} {refused}"
        );
        let why = refused["errors"][0]["message"].as_str().unwrap();
        assert!(why.len() > 10, "{why}");
        // A check alone says the same.
        let alone = format!("{path}?validate_only=true");
        assert_eq!(world.post(&alone, body).await.1, refused);
    }
    assert!(world.plane.spec().tunnels.is_empty());
}

#[tokio::test]
async fn a_wrong_field_of_a_gre_tunnel_is_named() {
    let world = World::new().await;
    let a = |change: Value| with(gre("a", 1), &change);
    let cases = vec![
        (a(json!({"name": null})), "/name"),
        (a(json!({"name": ""})), "/name"),
        (a(json!({"name": "with space"})), "/name"),
        (a(json!({"name": "sixteen-letters-"})), "/name"),
        (a(json!({"name": "dot.dot"})), "/name"),
        (a(json!({"name": "büro"})), "/name"),
        (a(json!({"name": 5})), "/name"),
        (
            a(json!({"cloudflare_gre_endpoint": null})),
            "/cloudflare_gre_endpoint",
        ),
        (
            a(json!({"cloudflare_gre_endpoint": "198.51.100.2"})),
            "/cloudflare_gre_endpoint",
        ),
        (
            a(json!({"cloudflare_gre_endpoint": "edge"})),
            "/cloudflare_gre_endpoint",
        ),
        (
            a(json!({"customer_gre_endpoint": null})),
            "/customer_gre_endpoint",
        ),
        (
            a(json!({"customer_gre_endpoint": "127.0.0.1"})),
            "/customer_gre_endpoint",
        ),
        (
            a(json!({"customer_gre_endpoint": "224.0.0.1"})),
            "/customer_gre_endpoint",
        ),
        (
            a(json!({"customer_gre_endpoint": "2001:db8::2"})),
            "/customer_gre_endpoint",
        ),
        (
            a(json!({"customer_gre_endpoint": "198.51.100.1"})),
            "/customer_gre_endpoint",
        ),
        // Not carried, so not taken.
        (
            a(json!({"automatic_return_routing": true})),
            "/automatic_return_routing",
        ),
        (a(json!({"bgp": {"customer_asn": 65000}})), "/bgp"),
    ];
    all_refused(&world, "gre_tunnels", cases).await;
    let quiet = a(json!({"automatic_return_routing": false, "bgp": null}));
    world.made(&world.magic("gre_tunnels"), quiet).await;
}

#[tokio::test]
async fn a_wrong_number_or_option_of_a_gre_tunnel_is_named() {
    let world = World::new().await;
    let a = |change: Value| with(gre("a", 1), &change);
    let cases = vec![
        (a(json!({"mtu": 575})), "/mtu"),
        (a(json!({"mtu": 9001})), "/mtu"),
        (a(json!({"mtu": "1400"})), "/mtu"),
        (a(json!({"ttl": 0})), "/ttl"),
        (a(json!({"ttl": 256})), "/ttl"),
        (a(json!({"key_tx": -1})), "/key_tx"),
        (a(json!({"key_rx": 4_294_967_296_u64})), "/key_rx"),
        (a(json!({"checksum": 1})), "/checksum"),
        (a(json!({"sequence": "no"})), "/sequence"),
        (
            a(json!({"keepalive": {"interval_secs": 0}})),
            "/keepalive/interval_secs",
        ),
        (
            a(json!({"keepalive": {"retries": 0}})),
            "/keepalive/retries",
        ),
        (a(json!({"keepalive": {"x": 0}})), "/keepalive/x"),
        (a(json!({"keepalive": 5})), "/keepalive"),
        (a(json!({"description": "x".repeat(1025)})), "/description"),
        (a(json!({"virtual_network_id": "x"})), "/virtual_network_id"),
        (
            a(json!({"virtual_network_id": uuid::Uuid::nil()})),
            "/virtual_network_id",
        ),
        (
            a(json!({"allowed_prefixes": ["10.0.0.1/8"]})),
            "/allowed_prefixes/0",
        ),
        (a(json!({"surprise": 1})), "/surprise"),
        (a(json!({"psk": "0123456789"})), "/psk"),
    ];
    all_refused(&world, "gre_tunnels", cases).await;
}

#[tokio::test]
async fn a_wrong_address_inside_a_tunnel_is_named() {
    let world = World::new().await;
    let a = |change: Value| with(gre("a", 1), &change);
    let cases = vec![
        (a(json!({"interface_address": null})), "/interface_address"),
        (
            a(json!({"interface_address": "10.0.0.1"})),
            "/interface_address",
        ),
        (
            a(json!({"interface_address": "10.0.0.1/32"})),
            "/interface_address",
        ),
        (
            a(json!({"interface_address": "10.0.0.1/29"})),
            "/interface_address",
        ),
        (
            a(json!({"interface_address": "10.0.0.4/30"})),
            "/interface_address",
        ),
        (
            a(json!({"interface_address": "10.0.0.7/30"})),
            "/interface_address",
        ),
        (
            a(json!({"interface_address": "192.0.2.0/31"})),
            "/interface_address",
        ),
        (
            a(json!({"interface_address": "100.64.0.0/31"})),
            "/interface_address",
        ),
        (
            a(json!({"interface_address": "169.254.0.0/31"})),
            "/interface_address",
        ),
        (
            a(json!({"interface_address": "fd00::/127"})),
            "/interface_address",
        ),
        (
            a(json!({"interface_address6": "fd00::/126"})),
            "/interface_address6",
        ),
        (
            a(json!({"interface_address6": "fe80::/127"})),
            "/interface_address6",
        ),
        (
            a(json!({"interface_address6": "10.0.0.0/31"})),
            "/interface_address6",
        ),
        (
            a(json!({"interface_address6": "2606:4700:cf1:5000::/127"})),
            "/interface_address6",
        ),
    ];
    all_refused(&world, "gre_tunnels", cases).await;
}

#[tokio::test]
async fn a_wrong_health_check_is_named() {
    let world = World::new().await;
    let a = |change: Value| with(gre("a", 1), &json!({"health_check": change}));
    let cases = vec![
        (a(json!("mid")), "/health_check"),
        (a(json!({"enabled": "yes"})), "/health_check/enabled"),
        (a(json!({"rate": "fast"})), "/health_check/rate"),
        (a(json!({"type": "ping"})), "/health_check/type"),
        (a(json!({"direction": "both"})), "/health_check/direction"),
        (a(json!({"target": "host"})), "/health_check/target"),
        (a(json!({"target": "0.0.0.0"})), "/health_check/target"),
        (
            a(json!({"target": {"saved": "192.0.2.1"}})),
            "/health_check/target",
        ),
        (
            a(json!({"recovery": {"up_after": 0}})),
            "/health_check/recovery/up_after",
        ),
        (
            a(json!({"recovery": {"clean_secs": 1801}})),
            "/health_check/recovery/clean_secs",
        ),
        (
            a(json!({"recovery": {"clean_secs": 20, "clean_secs_max": 10}})),
            "/health_check/recovery/clean_secs_max",
        ),
        (
            a(json!({"direction": "unidirectional", "target": "2001:db8::1"})),
            "/health_check/target",
        ),
        (a(json!({"speed": 1})), "/health_check/speed"),
    ];
    all_refused(&world, "gre_tunnels", cases).await;
    let one_way = json!({"health_check": {"direction": "unidirectional"}, "customer_endpoint": ""});
    let cases = vec![(with(ipsec("a", 1), &one_way), "/health_check/target")];
    all_refused(&world, "ipsec_tunnels", cases).await;
    let path = world.magic("").replace("magic/", "wireguard_tunnels");
    let body = json!({"name": "a", "generate_peer_key": true, "interface_address": "10.255.0.0/31",
        "health_check": {"enabled": true, "direction": "unidirectional"}});
    let (status, refused) = world.post(&path, body).await;
    assert_eq!((status, code(&refused)), (400, 1003), "{refused}");
    let pointer = &refused["errors"][0]["source"]["pointer"];
    assert_eq!(pointer, "/health_check/direction", "{refused}");
    let body = a(json!({"enabled": false}));
    let made = world.made(&world.magic("gre_tunnels"), body).await;
    assert_eq!(made["health_check"]["enabled"], false);
}

#[tokio::test]
async fn a_wrong_field_of_an_ipsec_tunnel_is_named_and_keys_are_not_shown_back() {
    let world = World::new().await;
    let a = |change: Value| with(ipsec("a", 1), &change);
    let fqdn = |fqdn: &str| a(json!({"custom_remote_identities": {"fqdn_id": fqdn}}));
    let end = format!("{}.custom.ipsec.cloudflare.com", world.account);
    let foreign = format!("x.{}.custom.ipsec.cloudflare.com", "0".repeat(32));
    let at = "/custom_remote_identities/fqdn_id";
    let cases = vec![
        (a(json!({"name": " "})), "/name"),
        (
            a(json!({"cloudflare_endpoint": null})),
            "/cloudflare_endpoint",
        ),
        (
            a(json!({"cloudflare_endpoint": "192.0.2.1"})),
            "/cloudflare_endpoint",
        ),
        (
            a(json!({"customer_endpoint": "here"})),
            "/customer_endpoint",
        ),
        (
            a(json!({"customer_endpoint": "2001:db8::9"})),
            "/customer_endpoint",
        ),
        (a(json!({"interface_address": null})), "/interface_address"),
        (a(json!({"psk": "hunter2"})), "/psk"),
        (a(json!({"psk": "hunter2hunter2\n"})), "/psk"),
        (a(json!({"psk": ["hunter2hunter2"]})), "/psk"),
        (a(json!({"replay_protection": 1})), "/replay_protection"),
        (a(json!({"allow_null_cipher": true})), "/allow_null_cipher"),
        (fqdn("office.example.com"), at),
        (fqdn(&format!("a.b.{end}")), at),
        (fqdn(&format!(".{end}")), at),
        (fqdn(&format!("-x.{end}")), at),
        (fqdn(&foreign), at),
        (
            a(json!({"custom_remote_identities": {"key_id": "x"}})),
            "/custom_remote_identities/key_id",
        ),
        (a(json!({"role": "boss"})), "/role"),
        (
            a(json!({"role": "initiator", "customer_endpoint": null})),
            "/role",
        ),
        (a(json!({"encapsulation": "tcp"})), "/encapsulation"),
        (a(json!({"ike": {"ciphers": []}})), "/ike/ciphers"),
        (a(json!({"ike": {"ciphers": ["des"]}})), "/ike/ciphers/0"),
        (a(json!({"ike": {"groups": ["modp1024"]}})), "/ike/groups/0"),
        (a(json!({"ike": {"prfs": ["prfmd5"]}})), "/ike/prfs/0"),
        (a(json!({"ike": {"dpd_secs": 1}})), "/ike/dpd_secs"),
        (a(json!({"esp": {"ciphers": ["null"]}})), "/esp/ciphers/0"),
        (
            a(json!({"esp": {"lifetime_secs": 10}})),
            "/esp/lifetime_secs",
        ),
        (a(json!({"esp": {"esn": "yes"}})), "/esp/esn"),
        (a(json!({"ttl": 64})), "/ttl"),
    ];
    for (body, _) in &cases {
        let (_, refused) = world
            .post(&world.magic("ipsec_tunnels"), body.clone())
            .await;
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
    all_refused(&world, "ipsec_tunnels", cases).await;
}

#[tokio::test]
async fn what_another_tunnel_has_is_refused_whatever_its_kind() {
    let world = World::new().await;
    let second = world.vnet("second").await;
    let (tunnels, keyed) = (world.magic("gre_tunnels"), world.magic("ipsec_tunnels"));
    world.made(&tunnels, gre("a", 1)).await;
    world.tunnel("wg", None).await;
    for (path, body, pointer) in [
        (&tunnels, gre("a", 2), "/name"),
        (&keyed, ipsec("a", 2), "/name"),
        (&keyed, ipsec("wg", 2), "/name"),
        (
            &tunnels,
            with(gre("b", 2), &gre("b", 1)),
            "/interface_address",
        ),
        (
            &keyed,
            with(
                ipsec("b", 2),
                &json!({"interface_address": "10.255.0.3/31"}),
            ),
            "/interface_address",
        ),
        (
            &keyed,
            with(
                ipsec("b", 2),
                &json!({"interface_address": "10.255.0.1/30"}),
            ),
            "/interface_address",
        ),
        (
            &tunnels,
            with(gre("b", 1), &json!({"interface_address": "10.255.9.0/31"})),
            "/customer_gre_endpoint",
        ),
    ] {
        let (status, refused) = world.post(path, body.clone()).await;
        assert_eq!((status, code(&refused)), (409, 1013), "{body} {refused}");
        assert_eq!(
            refused["errors"][0]["source"]["pointer"], pointer,
            "{body} {refused}"
        );
    }
    // The same link is free in another vnet.
    let apart = json!({"virtual_network_id": second, "key_rx": 9});
    let apart = world.made(&tunnels, with(gre("b", 1), &apart)).await;
    let path = format!("{tunnels}/{}", id(&apart));
    let (_, default) = world
        .get(&format!(
            "/accounts/{}/teamnet/virtual_networks?is_default=true",
            world.account
        ))
        .await;
    let (status, moved) = world
        .put(
            &path,
            json!({"virtual_network_id": default["result"][0]["id"]}),
        )
        .await;
    assert_eq!((status, code(&moved)), (400, 1003), "{moved}");
}
