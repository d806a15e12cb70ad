//! Several accounts say that their IPsec peer is at one address: none of them keeps another's out.

use crate::id::{TunnelId, VnetId, Workers};
use crate::program::{Tunnel, Vnet};
use crate::tunnel;
use crate::tunnel::ipsec::cipher::Transform;
use crate::tunnel::ipsec::ike::Psk;
use crate::tunnel::ipsec::ike::dh::Group;
use crate::tunnel::ipsec::{Encapsulation, IkeKeying, Keying};

use super::ipsec::{SITE, crosses, ends, ipsec, pump, run};
use super::world::End;

/// The tunnel of [`ends`], in vnet 1.
const VICTIM: TunnelId = TunnelId(7);
const RIVAL: TunnelId = TunnelId(3);

fn keying(tunnel: &mut Tunnel) -> &mut IkeKeying {
    match &mut tunnel.kind {
        tunnel::Config::IpSec(config) => match &mut config.keying {
            Keying::Ike(keying) => keying,
            Keying::Static(_) => panic!("it has IKE"),
        },
        tunnel::Config::WireGuard(_) | tunnel::Config::Direct(_) | tunnel::Config::Gre(_) => {
            panic!("it is IPsec")
        }
    }
}

/// A tunnel of another account whose peer is said to be where the victim's is.
fn rival() -> Tunnel {
    let mut tunnel = ipsec(2, true, Some(SITE), "10.0.0.0/24");
    let keying = keying(&mut tunnel);
    keying.remote_identities = vec!["evil.example".parse().unwrap()];
    keying.psk = Psk(b"nobody else's".to_vec());
    tunnel
}

fn add(edge: &mut End, rival: Tunnel) {
    let mut spec = edge.program.spec().clone();
    let name = "other".to_owned();
    spec.vnets.insert(VnetId(2), Vnet::named(name));
    spec.tunnels.insert(RIVAL, rival);
    edge.apply(&spec);
}

fn owner(tunnel: &Tunnel, workers: u8) -> u8 {
    tunnel.kind.owner(RIVAL, Workers::new(workers).unwrap()).0
}

fn victim(end: &End) -> crate::node::TunnelStatus {
    let mut all = end.tunnels().into_iter();
    all.find(|status| status.id == VICTIM).unwrap()
}

/// Numbers of workers with which the rival is another's than the first one's, which has the victim.
fn apart() -> impl Iterator<Item = u8> {
    let mut counts = (2..=8)
        .filter(|workers| owner(&rival(), *workers) != 0)
        .peekable();
    assert!(counts.peek().is_some());
    counts
}

#[test]
fn a_peer_from_anywhere_comes_up_though_another_account_claims_its_address() {
    for workers in apart() {
        let mut ends = ends(None, workers);
        add(&mut ends[0], rival());
        pump(&mut ends);
        for _ in 0..2 * usize::from(workers) {
            crosses(&mut ends);
        }
        // Rekeys of the child every 20 s, questions whether the peer lives: by the worker it began at.
        run(&mut ends, 100, &|_| false);
        crosses(&mut ends);
        let status = victim(&ends[0]);
        let ipsec = status.ipsec.unwrap();
        assert!(status.is_up && ipsec.rekeys >= 4, "{ipsec:?}");
        assert_eq!(ipsec.failure, None);
        assert_eq!(ends[0].count(|counters| counters.dropped_total()), 0);
    }
}

#[test]
fn the_rival_may_come_and_go_while_the_tunnel_is_up() {
    for workers in apart() {
        let mut ends = ends(None, workers);
        pump(&mut ends);
        for _ in 0..3 {
            add(&mut ends[0], rival());
            run(&mut ends, 30, &|_| false);
            crosses(&mut ends);
            let mut spec = ends[0].program.spec().clone();
            spec.tunnels.remove(&RIVAL);
            ends[0].apply(&spec);
            run(&mut ends, 30, &|_| false);
            crosses(&mut ends);
        }
        assert_eq!(victim(&ends[0]).ipsec.unwrap().failure, None);
    }
}

#[test]
fn a_rival_that_wants_other_algorithms_costs_one_attempt_and_not_the_tunnel() {
    for workers in 1..=4 {
        let mut ends = ends(None, workers);
        let mut spec = ends[0].program.spec().clone();
        let ours = spec.tunnels.get_mut(&VICTIM).unwrap();
        keying(ours).ike.groups = vec![Group::P384];
        ends[0].apply(&spec);
        let mut evil = rival();
        keying(&mut evil).ike.groups = vec![Group::X25519];
        keying(&mut evil).ike.ciphers = vec![Transform::Aes256CbcSha256];
        if let tunnel::Config::IpSec(config) = &mut evil.kind {
            config.encapsulation = Encapsulation::Auto;
        }
        add(&mut ends[0], evil);
        pump(&mut ends);
        assert!(
            !victim(&ends[0]).is_up,
            "the rival chose, by its lower number"
        );
        run(&mut ends, 25, &|_| false);
        let status = victim(&ends[0]);
        let ipsec = status.ipsec.unwrap();
        assert!(status.is_up, "{ipsec:?}");
        assert_eq!(ipsec.ike[0].group, Group::P384);
        assert!(ipsec.children[0].is_in_udp, "the rival does not want that");
        crosses(&mut ends);
    }
}

#[test]
fn who_does_not_know_the_key_is_refused_by_the_owner_and_told_so() {
    for workers in apart() {
        let mut ends = ends(None, workers);
        let mut spec = ends[1].program.spec().clone();
        let theirs = spec.tunnels.get_mut(&VICTIM).unwrap();
        keying(theirs).psk = Psk(b"guessed".to_vec());
        add(&mut ends[0], rival());
        ends[1].apply(&spec);
        run(&mut ends, 25, &|_| false);
        let status = victim(&ends[0]);
        assert!(!status.is_up);
        let failure = status.ipsec.unwrap().failure.unwrap();
        assert!(failure.contains("another pre-shared key"), "{failure}");
        let site = victim(&ends[1]).ipsec.unwrap().failure.unwrap();
        assert!(site.contains("pre-shared key"), "{site}");
        // The rival learns nothing of it.
        let mut all = ends[0].tunnels().into_iter();
        let rival = all.find(|status| status.id == RIVAL).unwrap();
        assert_eq!(rival.ipsec.unwrap().failure, None);
    }
}
