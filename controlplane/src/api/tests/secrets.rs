//! Secrets at rest, and the server's key.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::OnceCell;

use super::auth::{group, policy, secret, token};
use super::{World, id, options};
use crate::model::HexId;
use crate::scratch::Directory;
use crate::{ControlPlane, MasterKey, NoNode, Options};

fn is_in(text: &str, bytes: &[u8]) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn no_secret_is_in_the_store_the_log_of_changes_or_an_answer() {
    let world = World::new().await;
    let tunnels = format!("/accounts/{}/wireguard_tunnels", world.account);
    let given = "CQ8LDzDhyPLSA09hVmYCFlaVXJdRTtGFvRbgYFnHcm8=";
    let body = json!({"name": "a", "generate_peer_key": true, "preshared_key": given});
    let tunnel = world.made(&tunnels, body).await;
    let body = json!({"name": "b", "generate_peer_key": true, "generate_preshared_key": true});
    let shown_once = world.made(&tunnels, body).await;
    let ipsec = world.magic("ipsec_tunnels");
    let psk = "given-pre-shared-key-of-an-attacker's-dreams";
    let mut body = super::magic::ipsec("i1", 1);
    body["psk"] = json!(psk);
    let with_psk = id(&world.made(&ipsec, body).await);
    let made_psk = id(&world.made(&ipsec, super::magic::ipsec("i2", 2)).await);
    let made_psk = world
        .made(&format!("{ipsec}/{made_psk}/psk_generate"), json!({}))
        .await;
    let made = {
        let groups = [group(&world, "Zone Read").await];
        let policies = vec![policy(
            "allow",
            &groups,
            "com.cloudflare.api.account.zone.*",
        )];
        token(&world, policies, json!({})).await
    };
    let snapshot = world.plane.objects().snapshot();
    let identity = snapshot.identities.iter().next().unwrap();
    let secrets = [
        given.to_owned(),
        identity.private_key.to_base64(),
        shown_once["preshared_key"].as_str().unwrap().to_owned(),
        shown_once["peer_private_key"].as_str().unwrap().to_owned(),
        secret(&made),
        world.token.clone(),
        psk.to_owned(),
        made_psk["psk"].as_str().unwrap().to_owned(),
    ];
    // What a token is recognised by is no use either.
    let hashes: Vec<String> = snapshot.tokens.iter().map(|t| t.hash.clone()).collect();
    let mut answers = Vec::new();
    for path in [
        tunnels.clone(),
        format!("{tunnels}/{}", id(&tunnel)),
        ipsec.clone(),
        format!("{ipsec}/{with_psk}"),
        "/user/tokens".to_owned(),
        "/user/audit_logs".to_owned(),
        format!("/accounts/{}/audit_logs", world.account),
    ] {
        let (status, answer) = world.get(&path).await;
        assert_eq!(status, 200, "{path}");
        answers.extend_from_slice(answer.to_string().as_bytes());
    }
    let text = String::from_utf8_lossy(&answers);
    assert!(text.contains(crate::model::audit::REDACTED));
    let file = std::fs::read(world.directory.0.join("portcullis.redb")).unwrap();
    let mut backup = Vec::new();
    world.plane.backup(&mut backup).unwrap();
    assert!(is_in("sealed:1:", &file) && is_in("sealed:1:", &backup));
    for secret in secrets.iter().chain(&hashes) {
        assert!(!is_in(secret, &file), "{secret} is in the store");
        assert!(!is_in(secret, &backup), "{secret} is in a backup");
        assert!(!is_in(secret, &answers), "{secret} is in an answer");
    }
    let debug = format!("{snapshot:?}");
    assert!(!secrets.iter().any(|secret| debug.contains(secret)));
}

#[tokio::test]
async fn a_store_opens_with_its_key_only_and_the_key_is_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = Directory::new();
    let path = directory.0.join("key");
    drop(ControlPlane::open(options(&directory)).unwrap());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key: MasterKey = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    // Lost: it is not replaced by another behind the operator's back.
    std::fs::remove_file(&path).unwrap();
    let why = ControlPlane::open(options(&directory)).unwrap_err();
    let chain = format!("{}", std::error::Error::source(&why).unwrap());
    assert!(chain.contains("sealed with another key"), "{chain}");
    assert!(!path.exists());
    let given = |key| Options {
        key: Some(key),
        ..options(&directory)
    };
    assert!(ControlPlane::open(given(MasterKey::generate().unwrap())).is_err());
    let plane = ControlPlane::open(given(key)).unwrap();
    assert_eq!(plane.first_token(), None);
}

#[tokio::test]
async fn secrets_that_an_older_version_stored_in_clear_are_sealed_at_the_next_start() {
    use crate::store::{Embedded, Store as _, Write};
    let directory = Directory::new();
    let path = directory.0.join("portcullis.redb");
    let account = HexId::random();
    let clear = "cLearcLearcLearcLearcLearcLearcLearcLearcLc=";
    let write = Write {
        key: format!("identity/{account}"),
        value: Some(
            json!({"account_id": account, "private_key": clear})
                .to_string()
                .into_bytes(),
        ),
    };
    let old = Embedded::open(&path).unwrap();
    old.commit(0, 1, &[&write]).unwrap();
    drop(old);
    let plane = ControlPlane::open(options(&directory)).unwrap();
    let key = plane
        .objects()
        .snapshot()
        .identities
        .get(&account)
        .unwrap()
        .private_key;
    assert_eq!(key.to_base64(), clear);
    drop(plane);
    // Not even in pages that are free: whoever gets the disk gets those, too.
    let file = std::fs::read(&path).unwrap();
    assert!(is_in(&format!("identity/{account}"), &file));
    assert!(!is_in(clear, &file) && is_in("sealed:1:", &file));
    assert!(!directory.0.join("portcullis.redb.sealed").exists());
    let again = World::of(ControlPlane::open(options(&directory)).unwrap(), directory);
    let snapshot = again.plane.objects().snapshot();
    assert_eq!(
        snapshot
            .identities
            .get(&account)
            .unwrap()
            .private_key
            .to_base64(),
        clear
    );
}

#[tokio::test]
async fn a_token_of_a_store_without_a_server_key_still_works() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let directory = Directory::new();
    let plane = ControlPlane::open(options(&directory)).unwrap();
    // Hashed as the first version did: HMAC-SHA256 under a salt of its own.
    let salt = [7; 32];
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &salt);
    let hash = BASE64.encode(ring::hmac::sign(&key, b"secret-of-old"));
    let old = json!({"id": HexId::random(), "name": "first", "salt": BASE64.encode(salt),
        "hash": hash, "issued_on": "2026-01-01T00:00:00Z"});
    let old: crate::model::token::Token = serde_json::from_value(old).unwrap();
    let now = old.issued_on;
    let added = plane.objects().write(now, |transaction| {
        transaction.put(old);
        Ok(())
    });
    added.unwrap();
    let world = World {
        router: plane.router(Arc::new(NoNode)),
        ..World::of(plane, directory)
    };
    assert_eq!(world.as_token("secret-of-old").get("/zones").await.0, 200);
    assert_eq!(world.as_token("secret-of-new").get("/zones").await.0, 403);
}

#[tokio::test]
async fn a_backup_stays_sealed_and_opens_with_the_key_it_was_made_with() {
    use crate::store::backup;
    let world = World::new().await;
    let tunnel = world.tunnel("office", None).await;
    let mut file = Vec::new();
    world.plane.backup(&mut file).unwrap();
    let key: MasterKey = std::fs::read_to_string(world.directory.0.join("key"))
        .unwrap()
        .parse()
        .unwrap();
    let identities = |plane: &ControlPlane| -> Vec<String> {
        let snapshot = plane.objects().snapshot();
        let keys = snapshot.identities.iter();
        keys.map(|identity| identity.private_key.to_base64())
            .collect()
    };
    let directory = Directory::new();
    let store = crate::open_store(&options(&directory)).unwrap();
    backup::restore(&store, &mut file.as_slice(), false).unwrap();
    drop(store);
    let why = ControlPlane::open(options(&directory)).unwrap_err();
    let why = format!("{}", std::error::Error::source(&why).unwrap());
    assert!(why.contains("sealed with another key"), "{why}");
    let given = Options {
        key: Some(key),
        ..options(&directory)
    };
    let restored = ControlPlane::open(given).unwrap();
    assert_eq!(identities(&restored), identities(&world.plane));
    // The token works, and what was made with it is there.
    let restored = World {
        token: world.token.clone(),
        account: world.account.clone(),
        ..World::of(restored, directory)
    };
    let path = format!("/accounts/{}/wireguard_tunnels/{tunnel}", world.account);
    assert_eq!(restored.get(&path).await, world.get(&path).await);
}

/// The world of before, over what its directory has now.
fn opened_again(directory: &Arc<Directory>, token: &str, account: &str, options: Options) -> World {
    let plane = ControlPlane::open(options).unwrap();
    World {
        router: plane.router(Arc::new(NoNode)),
        plane,
        token: token.to_owned(),
        account: account.to_owned(),
        document: OnceCell::new(),
        directory: Arc::clone(directory),
    }
}

#[tokio::test]
async fn a_store_that_is_sealed_with_another_key_opens_with_that_alone_and_its_tokens_stay_good() {
    let world = World::new().await;
    let directory = Arc::clone(&world.directory);
    let (token, account) = (world.token.clone(), world.account.clone());
    world.tunnel("office", None).await;
    let secret = |world: &World| {
        let snapshot = world.plane.snapshot();
        snapshot
            .identities
            .iter()
            .next()
            .unwrap()
            .private_key
            .to_base64()
    };
    let before = secret(&world);
    let sealed =
        |directory: &Directory| std::fs::read(directory.0.join("portcullis.redb")).unwrap();
    let key = directory.0.join("key");
    let old = std::fs::read_to_string(&key).unwrap();
    let busy = crate::rekey(&options(&directory), None)
        .unwrap_err()
        .to_string();
    assert!(busy.contains("open in another process"), "{busy}");
    drop(world);
    let old_store = sealed(&directory);
    crate::rekey(&options(&directory), None).unwrap();
    let new = std::fs::read_to_string(&key).unwrap();
    assert_ne!(old, new);
    let given = |text: &str| Options {
        key: Some(text.parse().unwrap()),
        ..options(&directory)
    };
    assert!(ControlPlane::open(given(&old)).is_err());
    // What the old key opened is nowhere in the file.
    let texts = String::from_utf8_lossy(&old_store);
    let one = texts.split("sealed:1:").nth(1).unwrap().get(..40).unwrap();
    assert!(!is_in(one, &sealed(&directory)));
    for _ in 0..2 {
        let again = opened_again(&directory, &token, &account, options(&directory));
        assert_eq!(again.get("/zones").await.0, 200);
        assert_eq!(secret(&again), before);
        let reader = {
            let groups = [group(&again, "Zone Read").await];
            let everywhere = "com.cloudflare.api.account.*";
            self::token(
                &again,
                vec![policy("allow", &groups, everywhere)],
                json!({}),
            )
            .await
        };
        let reader = super::auth::secret(&reader);
        drop(again);
        // Changed once more, the tokens of before and since are good.
        crate::rekey(&options(&directory), None).unwrap();
        let again = opened_again(&directory, &reader, &account, options(&directory));
        assert_eq!(again.get("/zones").await.0, 200);
    }
    // With keys of one's own.
    let (mine, next) = (
        std::fs::read_to_string(&key).unwrap(),
        MasterKey::generate().unwrap(),
    );
    crate::rekey(&given(&mine), Some(next)).unwrap();
    let again = opened_again(&directory, &token, &account, given(&next.to_base64()));
    assert_eq!(again.get("/zones").await.0, 200);
    drop(again);
}

#[tokio::test]
async fn a_change_of_keys_that_breaks_off_leaves_a_store_that_opens() {
    let world = World::new().await;
    let directory = Arc::clone(&world.directory);
    let (token, account) = (world.token.clone(), world.account.clone());
    drop(world);
    let place = |name: &str| directory.0.join(name);
    let old = std::fs::read_to_string(place("key")).unwrap();
    // Before the store took its place: the new key is for nothing. Half of it was written, or all.
    for half in ["AAAA", &MasterKey::generate().unwrap().to_base64()] {
        std::fs::write(place("key.new"), half).unwrap();
        std::fs::write(place("portcullis.redb.rekeyed"), "half of a store").unwrap();
        let again = opened_again(&directory, &token, &account, options(&directory));
        assert_eq!(again.get("/zones").await.0, 200);
        assert!(!place("key.new").exists());
    }
    // After it, and before the key did.
    crate::rekey(&options(&directory), None).unwrap();
    std::fs::rename(place("key"), place("key.new")).unwrap();
    std::fs::write(place("key"), &old).unwrap();
    let again = opened_again(&directory, &token, &account, options(&directory));
    assert_eq!(again.get("/zones").await.0, 200);
    assert_ne!(std::fs::read_to_string(place("key")).unwrap(), old);
}
