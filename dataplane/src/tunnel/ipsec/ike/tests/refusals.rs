//! What does not fit is refused, and said plainly.

use std::time::Duration;

use crate::tunnel::ipsec::cipher::Transform;
use crate::tunnel::ipsec::ike::config::Config;
use crate::tunnel::ipsec::ike::dh::Group;
use crate::tunnel::ipsec::ike::{Failure, Identity, Psk};
use crate::wire::ikev2::payload::Selector;

use super::world::{World, config};

/// What both sides say after an attempt in which each config was changed.
fn failures(change: impl Fn(&mut Config, &mut Config)) -> [Vec<Failure>; 2] {
    let (mut ours, mut theirs) = (config(0), config(1));
    change(&mut ours, &mut theirs);
    let mut world = World::new(1, [Some(ours), Some(theirs)]);
    world.run(Duration::from_secs(5));
    assert!(!world.is_carrying());
    assert!(
        world
            .sides
            .iter_mut()
            .all(|side| side.endpoint.sad_mut().is_empty())
    );
    world.sides.map(|side| side.failures)
}

#[test]
fn another_key_is_told_to_both() {
    let [initiator, responder] = failures(|_, theirs| theirs.psk = Psk(b"another".to_vec()));
    assert_eq!(initiator, [Failure::PskRefused]);
    let peer = "peer-0.example".to_owned();
    assert_eq!(responder, [Failure::WrongPsk { peer }]);
    assert!(initiator[0].to_string().contains("pre-shared key"));
}

#[test]
fn an_unknown_identity_is_told_to_both() {
    let stranger = Identity::Fqdn("stranger.example".to_owned());
    let [initiator, responder] = failures(|ours, _| ours.local_id = stranger.clone());
    assert_eq!(initiator, [Failure::PskRefused]);
    let peer = "stranger.example".to_owned();
    assert_eq!(responder, [Failure::UnknownPeer { peer }]);
}

#[test]
fn a_responder_with_another_name_is_refused() {
    let other = Identity::Mail("other@example".to_owned());
    let (mut ours, theirs) = (config(0), config(1));
    ours.remote_id = other;
    let mut world = World::new(1, [Some(ours), Some(theirs)]);
    world.run(Duration::from_secs(5));
    let peer = "peer-1.example".to_owned();
    assert_eq!(world.sides[0].failures, [Failure::WrongIdentity { peer }]);
}

#[test]
fn proposals_for_ike_with_nothing_in_common_are_named() {
    let [initiator, responder] = failures(|ours, theirs| {
        ours.ike.ciphers = vec![Transform::Aes128Gcm16];
        ours.ike.groups = vec![Group::P256];
        theirs.ike.ciphers = vec![Transform::Aes256CbcSha256];
    });
    let offered = "AES_GCM_16_128 PRF_SHA2_256 PRF_SHA2_384 DH_19";
    let accepted =
        "AES_CBC_256 AUTH_SHA2_256_128 PRF_SHA2_256 PRF_SHA2_384 DH_31 DH_20 DH_19 DH_14";
    let failure = |ours: &str, theirs: Option<&str>| Failure::NoProposal {
        what: "IKE",
        ours: ours.to_owned(),
        theirs: theirs.map(str::to_owned),
    };
    assert_eq!(initiator, [failure(offered, None)]);
    assert_eq!(responder, [failure(accepted, Some(offered))]);
}

#[test]
fn proposals_for_esp_with_nothing_in_common_are_named() {
    let [initiator, responder] = failures(|ours, theirs| {
        ours.esp.ciphers = vec![Transform::Chacha20Poly1305];
        theirs.esp.esn = vec![true];
    });
    let text = responder[0].to_string();
    assert!(text.contains("ESN; AES_CBC_256"), "{text}");
    assert!(
        text.ends_with("the peer offered CHACHA20_POLY1305 NO_ESN"),
        "{text}"
    );
    assert!(matches!(
        initiator[0],
        Failure::NoProposal { what: "ESP", .. }
    ));
}

#[test]
fn traffic_with_nothing_in_common_is_told_to_both() {
    let net = |third: u8| Selector {
        protocol: 0,
        ports: (0, 65535),
        addresses: ([10, 0, third, 0].into(), [10, 0, third, 255].into()),
    };
    let [initiator, responder] = failures(|ours, theirs| {
        ours.local_ts = vec![net(1)];
        theirs.remote_ts = vec![net(2)];
    });
    assert_eq!(initiator[0], Failure::NoTraffic);
    assert_eq!(responder[0], Failure::NoTraffic);
}

#[test]
fn two_tunnels_with_one_peer_are_refused() {
    let mut world = World::pair(1);
    let now = world.now;
    let again = world.sides[0]
        .endpoint
        .put(crate::id::TunnelId(77), config(0), now);
    assert_eq!(again, Err(super::world::TUNNEL));
}
