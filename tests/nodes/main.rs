//! Real processes on loopback: control planes, and edges that follow them through crashes of everybody.

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod place;

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use serde_json::json;

use place::{Edge, Place, Process, etcd, record, text};

#[test]
fn edges_follow_a_control_plane_through_crashes_of_everybody() {
    let place = Place::new("follow");
    let mut control = Some(place.control());
    let edges = ["fra1", "ams1"].map(|name| {
        let file = place.enrol(name);
        let mode = std::fs::metadata(file).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "the identity is its owner's");
        place.edge_config(name, &[place.nodes])
    });
    let mut running: Vec<Option<Process>> =
        edges.iter().map(|edge| Some(edge.start(&place))).collect();
    let record = record(&place);
    let sees = |edge: &Edge, last: u8| edge.answer() == Some(Ipv4Addr::new(192, 0, 2, last));
    for edge in &edges {
        place.until("the record is seen", || sees(edge, 1));
        let is_up_to_date = || {
            place
                .node(&edge.name)
                .is_some_and(|node| node["up_to_date"] == true)
        };
        place.until("it is acknowledged", is_up_to_date);
    }
    let copy = std::fs::metadata(place.file("fra1/replica.redb"))
        .unwrap()
        .mode();
    assert_eq!(copy & 0o777, 0o600, "the copy has keys in it");
    for round in 2..14_u8 {
        let victim = usize::from(round) % 3;
        let change = json!({"content": format!("192.0.2.{round}")});
        // Killed while the change is on its way: at another moment of it each time.
        let changed = std::thread::scope(|scope| {
            let call = scope.spawn(|| place.call("PATCH", &record, &change));
            std::thread::park_timeout(Duration::from_millis(u64::from(round) % 5 * 3));
            match victim {
                0 => control.take().unwrap().kill(),
                index => running[index - 1].take().unwrap().kill(),
            }
            call.join().unwrap()
        });
        match victim {
            0 => control = Some(place.control()),
            index => running[index - 1] = Some(edges[index - 1].start(&place)),
        }
        if changed.is_none() {
            assert_eq!(victim, 0, "only a dead control plane does not answer");
            place.call("PATCH", &record, &change).unwrap();
        }
        for edge in &edges {
            place.until("the change is seen", || sees(edge, round));
        }
    }
    // The copy is at most a second behind what is seen.
    std::thread::park_timeout(Duration::from_millis(1500));
    control.take().unwrap().kill();
    for (edge, process) in edges.iter().zip(&mut running) {
        process.take().unwrap().kill();
        *process = Some(edge.start(&place));
        place.until("an edge serves without a control plane", || sees(edge, 13));
    }
    let control = place.control();
    place
        .call("PATCH", &record, &json!({"content": "192.0.2.99"}))
        .unwrap();
    for edge in &edges {
        place.until("the edge follows again", || sees(edge, 99));
    }
    drop(control);
}

#[test]
fn an_edge_that_is_deleted_or_of_another_control_plane_is_told_nothing() {
    let place = Place::new("refused");
    let other = Place::new("other");
    let _control = place.control();
    let _other = other.control();
    place.enrol("fra1");
    let fra1 = place.edge_config("fra1", &[place.nodes]);
    let running = fra1.start(&place);
    let record = record(&place);
    let sees = |edge: &Edge, last: u8| edge.answer() == Some(Ipv4Addr::new(192, 0, 2, last));
    place.until("the record is seen", || sees(&fra1, 1));
    // An identity of the other control plane, of the same name.
    other.enrol("fra1");
    let foreign = other.edge_config("fra1", &[place.nodes]);
    let foreign_running = foreign.start(&other);
    other.until("the foreign edge is refused", || {
        other.logs().contains("certificate") && other.logs().contains("no control plane")
    });
    let shown = place.run(&["ctl", "nodes"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("fra1") && shown.contains("true"), "{shown}");
    let deleted = place.run(&["ctl", "node", "delete", "fra1"]);
    assert!(deleted.status.success(), "{deleted:?}");
    place.until("it is gone", || place.node("fra1").is_none());
    place
        .call("PATCH", &record, &json!({"content": "192.0.2.50"}))
        .unwrap();
    let why = "this certificate is no node's";
    place.until("the edge learns why", || place.logs().contains(why));
    assert!(sees(&fra1, 1), "it goes on with what it had");
    assert_eq!(foreign.answer(), None);
    drop((running, foreign_running));
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let place = Place::new("words");
    let config = place.file("control.toml");
    let file = place.file("x.pem");
    for (words, wanted) in [
        (
            vec![
                "control",
                "enrol",
                "Bad_Name",
                text(&file),
                "--config",
                text(&config),
            ],
            "lower-case letters, digits and hyphens",
        ),
        (
            vec![
                "edge",
                "--config",
                text(&config),
                "--control",
                "127.0.0.1:1",
            ],
            "say who this edge is: --identity FILE",
        ),
        (
            vec!["edge", "--config", text(&config)],
            "[nodes] listen is of `portcullis control`",
        ),
        (
            vec![
                "edge",
                "--config",
                text(&config),
                "--control",
                "127.0.0.1:1",
                "--identity",
                text(&config),
            ],
            "is not what `portcullis control enrol` writes",
        ),
    ] {
        let done = place.run(&words);
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(
            !done.status.success() && said.contains(wanted),
            "{words:?}: {said}"
        );
    }
    assert!(!file.exists());
}

#[test]
fn an_edge_whose_lease_has_ended_stops_and_each_has_a_slice_of_its_own() {
    let place = Place::with("lease", "", "lease_secs = 3\nquarantine_secs = 1");
    let control = place.control();
    let mut running = Vec::new();
    for name in ["fra1", "ams1"] {
        place.enrol(name);
        running.push(place.edge_config(name, &[place.nodes]).start(&place));
    }
    let slice = |name: &str| Some(place.node(name)?["slice"].as_str()?.to_owned());
    place.until("both have a slice", || {
        slice("fra1").is_some() && slice("ams1").is_some()
    });
    let (fra1, ams1) = (slice("fra1"), slice("ams1"));
    assert_ne!(fra1, ams1);
    let ready = || place.logs().matches(" ready").count() >= 3;
    place.until("both serve, and the control plane", ready);
    // Longer than a lease: it is prolonged.
    std::thread::park_timeout(Duration::from_secs(4));
    assert_eq!((slice("fra1"), slice("ams1")), (fra1.clone(), ams1));
    assert!(
        running
            .iter_mut()
            .all(|edge| edge.0.try_wait().unwrap().is_none())
    );
    control.kill();
    place.until("both stop by themselves", || {
        running
            .iter_mut()
            .all(|edge| edge.0.try_wait().unwrap().is_some())
    });
    assert!(
        place
            .logs()
            .contains("has ended, and no control plane has prolonged it")
    );
    let control = place.control();
    let again = place.edge_config("fra1", &[place.nodes]).start(&place);
    let is_back = || {
        place
            .node("fra1")
            .is_some_and(|node| node["connected"] == true)
    };
    place.until("it is back", is_back);
    assert_eq!(slice("fra1"), fra1, "nobody else wanted it");
    drop((again, control));
}

#[test]
fn an_edge_goes_on_with_another_control_plane_over_the_same_etcd() {
    let directory = std::env::temp_dir().join(format!("portcullis-etcd-{}", std::process::id()));
    let (server, store) = etcd(&directory);
    let first = Place::with("first", &store, "");
    let second = Place::with("second", &store, "");
    let mut one = Some(first.control());
    std::fs::create_dir_all(second.file("control")).unwrap();
    // What the two share beside the store: the key that it is sealed with, and the token that the first made.
    for name in ["control/key", "control/token"] {
        std::fs::copy(first.file(name), second.file(name)).unwrap();
    }
    let two = second.control();
    first.enrol("fra1");
    let fra1 = first.edge_config("fra1", &[first.nodes, second.nodes]);
    let running = fra1.start(&first);
    let record = record(&first);
    let sees = |last: u8| fra1.answer() == Some(Ipv4Addr::new(192, 0, 2, last));
    first.until("the record is seen", || sees(1));
    let change = |place: &Place, last: u8| {
        let change = json!({"content": format!("192.0.2.{last}")});
        place.call("PATCH", &record, &change).unwrap();
    };
    change(&second, 2);
    first.until("a change by the other is seen", || sees(2));
    one.take().unwrap().kill();
    change(&second, 3);
    first.until("the edge is at the other", || sees(3));
    let is_shown = || {
        second
            .node("fra1")
            .is_some_and(|node| node["up_to_date"] == true)
    };
    first.until("the other shows it", is_shown);
    one = Some(first.control());
    two.kill();
    change(&first, 4);
    first.until("and back", || sees(4));
    drop((one, running, server));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn edges_that_are_control_planes_over_one_etcd_have_slices_that_nobody_else_gets() {
    let directory =
        std::env::temp_dir().join(format!("portcullis-own-etcd-{}", std::process::id()));
    let (server, store) = etcd(&directory);
    let place = Place::with("own", &store, "");
    let control = place.control();
    let record = record(&place);
    let first = place.own_edge("own1", &store, None);
    let running = first.start(&place);
    let sees = |edge: &Edge, last: u8| edge.answer() == Some(Ipv4Addr::new(192, 0, 2, last));
    place.until("the first serves", || sees(&first, 1));
    // With the same configuration, a data directory of its own.
    let mut refused = place.own_edge("own2", &store, None).start(&place);
    place.until("the second ends", || {
        refused
            .0
            .try_wait()
            .unwrap()
            .is_some_and(|ended| !ended.success())
    });
    let why = "slice 100.64.0.0/20: 100.64.0.0/20 is leased to";
    assert!(place.logs().contains(why), "{}", place.logs());
    assert!(place.logs().contains("100.64.16.0/20 is free"));
    let second = place.own_edge("own2", &store, Some("100.64.16.0/20"));
    let other = second.start(&place);
    place.until("the second serves", || sees(&second, 1));
    // A node of the control plane gets what is left.
    place.enrol("fra1");
    let fra1 = place.edge_config("fra1", &[place.nodes]);
    let following = fra1.start(&place);
    let slice = || Some(place.node("fra1")?["slice"].as_str()?.to_owned());
    place.until("the node has a slice", || slice().is_some());
    assert_eq!(slice().as_deref(), Some("100.64.32.0/20"));
    // It is the same edge when it comes again, also without the store.
    running.kill();
    let running = first.start(&place);
    place.until("the first serves again", || sees(&first, 1));
    place
        .call("PATCH", &record, &json!({"content": "192.0.2.2"}))
        .unwrap();
    place.until("all see a change", || {
        [&first, &second, &fra1].iter().all(|edge| sees(edge, 2))
    });
    // Its copy is at most a second behind.
    std::thread::park_timeout(Duration::from_millis(1500));
    server.kill();
    running.kill();
    let running = first.start(&place);
    place.until("the first serves without the store", || sees(&first, 2));
    drop((running, other, following, control));
    std::fs::remove_dir_all(directory).unwrap();
}
