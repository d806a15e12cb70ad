//! Nodes that follow.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::*;
use crate::program;
use crate::push::lease_of;

#[tokio::test]
async fn a_change_reaches_every_node_and_is_acknowledged_and_secrets_of_the_api_do_not() {
    let control = Control::new();
    let names = ["fra1", "ams1"];
    let edges = names.map(|name| {
        let copy = control.directory.0.join(name);
        Edge::start(&copy, control.address(), control.bundle(name))
    });
    for round in 0..20_u16 {
        let revision = control.put_vnet(1 + round % 5, &format!("round {round}"));
        for (name, edge) in names.iter().zip(&edges) {
            control.is_acknowledged(name, revision).await;
            assert_eq!(edge.vnet(1 + round % 5), Some(format!("round {round}")));
            let has = edge.objects.snapshot();
            assert!(has.revision >= revision, "{}", has.revision);
            assert_eq!(has.vnets.len(), usize::from(round.min(4)) + 1);
            assert_eq!(has.tokens.iter().count(), 0, "tokens are not for nodes");
            assert_eq!(has.authorities.iter().count(), 0, "nor is the authority");
        }
    }
    let newest = control.objects.snapshot().revision;
    let applied = || control.fleet().applied_revision() == newest;
    until("both have everything", applied).await;
}

/// A tunnel as a node has it.
fn status(number: u32, is_up: bool, tx_packets: u64) -> TunnelStatus {
    TunnelStatus {
        id: TunnelId(number),
        vnet: VnetId(1),
        name: "office".to_owned(),
        kind: "wireguard",
        endpoint: None,
        last_handshake_secs: is_up.then_some(3),
        is_up,
        mtu: 1420,
        tx_packets,
        tx_bytes: 100 * tx_packets,
        rx_packets: 0,
        rx_bytes: 0,
        dropped_packets: 0,
        ipsec: None,
        health: None,
    }
}

#[tokio::test]
async fn tunnels_are_as_good_as_on_the_best_node_and_only_those_that_exist_are_shown() {
    let control = Control::new();
    control.put_tunnel(7);
    let edges = [("fra1", false, 5), ("ams1", true, 8)].map(|(name, is_up, sent)| {
        let copy = control.directory.0.join(name);
        let edge = Edge::start(&copy, control.address(), control.bundle(name));
        let all = move || vec![status(7, is_up, sent), status(8, true, 1)];
        edge.following.as_ref().unwrap().report(Arc::new(all));
        edge
    });
    let both = || {
        let tunnels = control.fleet().tunnels();
        tunnels
            .first()
            .is_some_and(|tunnel| tunnel.tx_packets == 13)
    };
    until("both have reported", both).await;
    let tunnels = control.fleet().tunnels();
    assert_eq!(tunnels.len(), 1, "tunnel 8 does not exist: {tunnels:?}");
    assert!(tunnels[0].is_up);
    assert_eq!(tunnels[0].last_handshake_secs, Some(3));
    drop(edges);
    until("nobody is there any more", || {
        control.fleet().tunnels().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_node_begins_with_its_copy_and_catches_up_with_what_changed_meanwhile() {
    let control = Control::new();
    let bundle = control.bundle("fra1");
    let copy = control.directory.0.join("copy.redb");
    let revision = control.put_vnet(1, "before");
    let edge = Edge::start(&copy, control.address(), bundle.clone());
    control.is_acknowledged("fra1", revision).await;
    // The copy is at most a second behind, and its file closes with the last user of the objects.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut edge = edge;
    edge.following = None;
    let objects = Arc::downgrade(&edge.objects);
    drop(edge);
    until("the copy is closed", || objects.strong_count() == 0).await;
    let reopened = || Embedded::open(&copy).is_ok();
    until("the copy can be opened", reopened).await;
    control.put_vnet(1, "after");
    let silent: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let alone = Objects::replica(store(&copy)).unwrap();
    let has = alone.snapshot();
    assert_eq!(has.vnets.get(&id_of(1)).unwrap().name, "before");
    drop(alone);
    until("the copy can be opened again", reopened).await;
    let edge = Edge::start(&copy, silent, bundle.clone());
    assert_eq!(
        edge.vnet(1).as_deref(),
        Some("before"),
        "without a control plane"
    );
    drop(edge);
    until("the copy can be opened once more", reopened).await;
    let edge = Edge::start(&copy, control.address(), bundle);
    until("the change is seen", || {
        edge.vnet(1).as_deref() == Some("after")
    })
    .await;
}

#[tokio::test]
async fn what_a_node_lost_comes_back_with_the_next_full_step_and_the_rest_stays_as_it_is() {
    let control = Control::with(Duration::from_millis(200));
    control.put_vnet(1, "kept");
    let revision = control.put_vnet(2, "lost");
    let bundle = control.bundle("fra1");
    let edge = Edge::start(&control.directory.0.join("copy"), control.address(), bundle);
    until("both are there", || edge.vnet(2).is_some()).await;
    let before = edge.objects.snapshot();
    assert!(before.revision >= revision);
    let mut damaged = (*before).clone();
    damaged.delete::<Vnet>(&id_of(2));
    damaged.revision += 1000;
    edge.objects.receive(damaged);
    assert_eq!(edge.vnet(2), None);
    until("what was lost is back", || edge.vnet(2).is_some()).await;
    let after = edge.objects.snapshot();
    let kept = |snapshot: &Snapshot| Arc::clone(snapshot.vnets.get(&id_of(1)).unwrap());
    assert!(
        Arc::ptr_eq(&kept(&before), &kept(&after)),
        "not taken in again"
    );
    // The node's own revision is far above the control plane's: it follows all the same.
    control.put_vnet(1, "renamed");
    until("a change is seen", || {
        edge.vnet(1).as_deref() == Some("renamed")
    })
    .await;
    control
        .is_acknowledged("fra1", control.objects.snapshot().revision)
        .await;
}

#[tokio::test]
async fn an_object_that_the_tables_refuse_is_shown_with_the_nodes_name_and_reason() {
    let control = Control::new();
    let bundle = control.bundle("fra1");
    let revision = control.put_vnet(7, "seven");
    let edge = Edge::start(&control.directory.0.join("copy"), control.address(), bundle);
    control.is_acknowledged("fra1", revision).await;
    edge.progress.send_modify(|progress| {
        progress.rejected = vec![(Key::Vnet(VnetId(7)), "no address is left".to_owned())];
    });
    let key = format!("vnet/{}", id_of(7));
    let wanted = vec![(key, "no address is left".to_owned())];
    let is_shown = || {
        control
            .seen("fra1")
            .is_some_and(|node| node.rejected == wanted)
    };
    until("the refusal is shown", is_shown).await;
    let rejected = control.fleet().rejected();
    assert_eq!(
        rejected,
        [(Key::Vnet(VnetId(7)), "fra1: no address is left".to_owned())]
    );
    edge.progress
        .send_modify(|progress| progress.rejected.clear());
    let is_gone = || {
        control
            .seen("fra1")
            .is_some_and(|node| node.rejected.is_empty())
    };
    until("it is not refused any more", is_gone).await;
}

/// What a node at this slice is told of the others' relays.
fn relays(edge: &Edge, slice: Ipv4Net) -> Vec<(Ipv4Net, SocketAddr)> {
    let here = program::Here { slice, now: now() };
    let spec = program::spec(&edge.objects.snapshot(), here);
    let relays = spec.relays.into_iter();
    relays.map(|relay| (relay.net, relay.address)).collect()
}

#[tokio::test]
async fn a_node_is_told_of_the_others_relays_as_they_come_move_and_end() {
    let control = Control::new();
    let names = ["fra1", "ams1", "par1"];
    let bundles = names.map(|name| control.bundle(name));
    let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let said = [
        Some(at("192.0.2.1:6081")),
        Some(at("[2001:db8::2]:7000")),
        None,
    ];
    let copy = |name: &str, round: u8| control.directory.0.join(format!("{name}{round}"));
    let start = |n: usize, relay, round| {
        let copy = copy(names[n], round);
        Edge::with(&copy, control.address(), bundles[n].clone(), relay)
    };
    let mut edges = [0, 1, 2].map(|n| start(n, said[n], 0));
    let slice = |n: usize| {
        let snapshot = control.objects.snapshot();
        let lease = lease_of(&snapshot, bundles[n].certificate_sha256());
        lease.map(|lease| lease.slice)
    };
    until("all have slices", || (0..3).all(|n| slice(n).is_some())).await;
    let [fra1, ams1, par1] = [0, 1, 2].map(|n| slice(n).unwrap());
    assert_eq!(BTreeSet::from([fra1, ams1, par1]).len(), 3);
    let (first, second) = (said[0].unwrap(), said[1].unwrap());
    // Each is told of the others that take packets, and never of itself.
    for (n, own, others) in [
        (0, fra1, vec![(ams1, second)]),
        (1, ams1, vec![(fra1, first)]),
        (2, par1, vec![(fra1, first), (ams1, second)]),
    ] {
        let others = sorted(others);
        until("the others are known", || relays(&edges[n], own) == others).await;
    }
    // It comes again from elsewhere, then without a relay.
    for (round, moved) in [(1, Some(at("192.0.2.9:6081"))), (2, None)] {
        edges[0].following = None;
        edges[0] = start(0, moved, round);
        let others = sorted(
            moved
                .map(|at| (fra1, at))
                .into_iter()
                .chain([(ams1, second)]),
        );
        until("the move is known", || relays(&edges[2], par1) == others).await;
        assert_eq!(slice(0), Some(fra1), "the slice is as it was");
    }
    // One that is deleted goes on with its slice until its lease ends, and so do the others with it.
    control.delete_node("ams1");
    until("it is gone", || control.seen("ams1").is_none()).await;
    assert_eq!(relays(&edges[2], par1), [(ams1, second)]);
    let end = control.objects.snapshot().leases.get(&ams1).unwrap().until;
    let after = program::Here {
        slice: par1,
        now: end,
    };
    let spec = program::spec(&edges[2].objects.snapshot(), after);
    assert_eq!(spec.relays, []);
}

fn sorted(relays: impl IntoIterator<Item = (Ipv4Net, SocketAddr)>) -> Vec<(Ipv4Net, SocketAddr)> {
    let sorted: BTreeSet<_> = relays.into_iter().collect();
    sorted.into_iter().collect()
}
