//! Who is shown what failed: never a customer what another's peer said, or nobody's.

use std::net::IpAddr;

use crate::id::{TunnelId, VnetId, WorkerId};
use crate::tunnel::Refusal;
use crate::tunnel::ipsec::cipher::Transform;
use crate::tunnel::ipsec::ike::{Identity, Psk};
use crate::tunnel::ipsec::{Config, Failed, IkeKeying, Slot};

use super::device::{Side, VNET, World, address, config, ike, side};
use super::start;

const OTHER_VNET: VnetId = VnetId(2);
/// What a customer may see of a peer whose name is nobody's.
const NOBODY: &str =
    "a peer came from where this tunnel's may be, with an identity that no tunnel's peer has";

/// A tunnel whose peer is called so, and may be there.
fn named(name: &str, remote: Option<IpAddr>) -> Config {
    let keying = IkeKeying {
        remote_identities: vec![Identity::Fqdn(name.to_owned())],
        ..ike(1)
    };
    Config {
        remote,
        ..config(1, false, keying)
    }
}

fn there() -> IpAddr {
    address(0, false)
}

/// `peer-0.example` begins; the far side has these tunnels. What each of them shows.
fn knock(near: IkeKeying, far: &[(VnetId, Config)]) -> (World, Vec<Option<String>>) {
    let (now, mut worker) = (start(), 0);
    let mut there = side(&named("nobody.example", None), &mut worker, now);
    there.device.delete(there.slot, now, &mut there.out);
    let mut slots: Vec<Slot> = Vec::new();
    for ((vnet, config), id) in far.iter().zip(20..) {
        let tunnel = (TunnelId(id), *vnet);
        let put = there.device.put(tunnel, config, now, &mut there.out);
        slots.push(put.unwrap());
    }
    let here = side(&config(0, false, near), &mut worker, now);
    let mut world = World {
        sides: [here, there],
        now,
    };
    world.pump();
    let shown = |slot| world.sides[1].device.status(slot, now).1.failure;
    let shown = slots.into_iter().map(shown).collect();
    (world, shown)
}

fn logged(side: &mut Side) -> Vec<Failed> {
    std::iter::from_fn(|| side.device.poll_failure()).collect()
}

#[test]
fn a_peer_with_a_name_of_nobody_is_shown_to_no_customer_while_several_may_be_meant() {
    for far in [
        [
            (VNET, named("a.example", Some(there()))),
            (OTHER_VNET, named("b.example", Some(there()))),
        ],
        [
            (VNET, named("a.example", Some(there()))),
            (OTHER_VNET, named("b.example", None)),
        ],
        [
            (VNET, named("a.example", None)),
            (OTHER_VNET, named("b.example", None)),
        ],
    ] {
        let (mut world, shown) = knock(ike(0), &far);
        assert_eq!(shown, [None, None]);
        let there = &mut world.sides[1];
        assert_eq!(there.refused, [Refusal::UnknownPeer], "it is counted");
        let logged = logged(there);
        assert_eq!(logged.len(), 1);
        assert_eq!(logged[0].tunnel, None);
        assert_eq!(logged[0].remote.ip(), address(0, false));
        assert!(logged[0].why.ends_with("identity peer-0.example"));
    }
}

#[test]
fn who_alone_can_be_meant_is_shown_that_somebody_came_but_not_what_he_said() {
    let far = [
        (VNET, named("a.example", Some(there()))),
        (VNET, named("b.example", None)),
        // Its peer is elsewhere.
        (OTHER_VNET, named("c.example", Some([192, 0, 2, 9].into()))),
    ];
    let (_, shown) = knock(ike(0), &far);
    let nobody = Some(NOBODY.to_owned());
    assert_eq!(shown, [nobody.clone(), nobody, None]);
}

#[test]
fn tunnels_of_other_workers_may_be_meant_too() {
    let far = [(VNET, named("a.example", Some(there())))];
    let (mut world, shown) = knock(ike(0), &far);
    assert_eq!(shown, [Some(NOBODY.to_owned())]);
    let Side { device, out, .. } = &mut world.sides[1];
    let other = (TunnelId(90), OTHER_VNET);
    let config = named("b.example", Some(there()));
    device.put_elsewhere(other, &config, WorkerId(7)).unwrap();
    let changed = named("c.example", Some(there()));
    let slot = device.put((TunnelId(20), VNET), &changed, world.now, out);
    world.sides[0] = side(&super::device::config(0, false, ike(0)), &mut 2, world.now);
    world.pump();
    let status = world.sides[1].device.status(slot.unwrap(), world.now).1;
    assert_eq!(status.failure, None);
}

#[test]
fn an_offer_without_anything_in_common_is_shown_to_one_vnet_or_to_nobody() {
    let mut near = ike(0);
    near.ike.ciphers = vec![Transform::Aes256CbcSha256];
    let gcm = |name: &str| {
        let mut config = named(name, Some(there()));
        if let crate::tunnel::ipsec::Keying::Ike(ike) = &mut config.keying {
            ike.ike.ciphers = vec![Transform::Aes256Gcm16];
        }
        config
    };
    let (_, shown) = knock(near.clone(), &[(VNET, gcm("a.example"))]);
    let failure = shown[0].as_deref().unwrap();
    assert!(failure.contains("we accept AES_GCM"), "{failure}");
    assert!(failure.contains("the peer offered AES_CBC"), "{failure}");
    assert!(!failure.contains("192.0.2."), "{failure}");
    let two = [(VNET, gcm("a.example")), (OTHER_VNET, gcm("b.example"))];
    let (mut world, shown) = knock(near, &two);
    assert_eq!(shown, [None, None]);
    assert_eq!(logged(&mut world.sides[1]).len(), 1);
}

#[test]
fn a_claimed_name_is_shown_on_its_tunnel_alone() {
    let far = [
        (VNET, named("peer-0.example", Some(there()))),
        (VNET, named("b.example", Some(there()))),
    ];
    let wrong = IkeKeying {
        psk: Psk(b"another".to_vec()),
        ..ike(0)
    };
    let (mut world, shown) = knock(wrong, &far);
    let why = "peer-0.example has another pre-shared key than is configured here";
    assert_eq!(shown, [Some(why.to_owned()), None]);
    let logged = logged(&mut world.sides[1]);
    assert_eq!(logged[0].tunnel, Some(TunnelId(20)));
}

#[test]
fn strangers_write_nothing_on_a_tunnel_that_is_up_and_not_much_into_the_log() {
    let far = [(VNET, named("peer-0.example", None))];
    let (mut world, _) = knock(ike(0), &far);
    let slot = world.sides[1].slot;
    for _ in 0..40 {
        let stranger = IkeKeying {
            local_identity: Identity::Fqdn("stranger.example".to_owned()),
            ..ike(0)
        };
        world.sides[0] = side(&config(0, false, stranger), &mut 4, world.now);
        world.pump();
    }
    let Side {
        device, refused, ..
    } = &mut world.sides[1];
    let status = device.status(slot, world.now).1;
    assert_eq!((status.children.len(), status.failure), (1, None));
    let unknown = refused.iter().filter(|r| **r == Refusal::UnknownPeer);
    assert_eq!(unknown.count(), 40);
    assert_eq!(logged(&mut world.sides[1]).len(), 8);
}
