//! Nodes as the API shows them.

use super::*;
use crate::NodeSeen;
use crate::model::lease::Terms;
use crate::push;
use crate::status::NodeStatus;

/// A fleet in which `fra1` was seen.
struct Fleet;

impl NodeStatus for Fleet {
    fn tunnels(&self) -> Vec<dataplane::node::TunnelStatus> {
        Vec::new()
    }

    fn rejected(&self) -> Vec<(dataplane::program::Key, String)> {
        Vec::new()
    }

    fn sources(&self) -> Vec<(dataplane::id::VnetId, IpAddr)> {
        Vec::new()
    }

    fn applied_revision(&self) -> u64 {
        u64::MAX
    }

    fn nodes(&self) -> Vec<NodeSeen> {
        let at = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
        vec![NodeSeen {
            name: "fra1".to_owned(),
            address: "192.0.2.1:5".parse().unwrap(),
            connected_since: Some(at),
            heard_at: at,
            acknowledged_revision: 2,
            acknowledged_at: Some(at),
            rejected: vec![("tunnel/1".to_owned(), "no device".to_owned())],
            rejected_total: 3,
        }]
    }
}

#[tokio::test]
async fn nodes_are_shown_with_what_they_acknowledged_and_refused_and_can_be_deleted() {
    let world = World::with(Arc::new(Fleet)).await;
    for name in ["ams1", "fra1"] {
        let bundle = world.plane.enrol(name, None).unwrap();
        assert!(bundle.contains("PRIVATE KEY"));
    }
    let nodes = format!("/accounts/{}/nodes", world.account);
    let (status, answer) = world.get(&nodes).await;
    assert_eq!(
        (status, &answer["result_info"]["total_count"]),
        (200, &json!(2))
    );
    assert!(
        !answer.to_string().contains("PRIVATE"),
        "the key is nowhere"
    );
    let (ams1, fra1) = (&answer["result"][0], &answer["result"][1]);
    assert_eq!(
        (&ams1["name"], &ams1["connected"]),
        (&json!("ams1"), &json!(false))
    );
    assert_eq!(ams1["address"], Value::Null);
    assert_eq!(
        (&fra1["name"], &fra1["connected"]),
        (&json!("fra1"), &json!(true))
    );
    assert_eq!(fra1["acknowledged_revision"], 2);
    assert_eq!(fra1["up_to_date"], false);
    assert_eq!(
        fra1["rejected"][0],
        json!({"object": "tunnel/1", "reason": "no device"})
    );
    assert_eq!(fra1["rejected_total"], 3);
    let (status, answer) = world.get(&format!("{nodes}/fra1")).await;
    assert_eq!((status, &answer["result"]["name"]), (200, &json!("fra1")));
    let (status, _) = world.delete(&format!("{nodes}/fra1")).await;
    assert_eq!(status, 200);
    let (status, answer) = world.delete(&format!("{nodes}/fra1")).await;
    assert_eq!((status, &answer["errors"][0]["code"]), (404, &json!(1004)));
    assert_eq!(world.get(&nodes).await.1["result_info"]["total_count"], 1);
}

#[tokio::test]
async fn a_node_is_shown_with_its_slice_and_where_it_takes_others_packets() {
    let world = World::new().await;
    world.plane.enrol("fra1", None).unwrap();
    let fra1 = format!("/accounts/{}/nodes/fra1", world.account);
    let shown = async || {
        let node = world.get(&fra1).await.1["result"].take();
        (node["slice"].clone(), node["relay"].clone())
    };
    assert_eq!(shown().await, (Value::Null, Value::Null));
    let snapshot = world.plane.snapshot();
    let node = snapshot.nodes.get(&"fra1".to_owned()).unwrap();
    for relay in [None, Some("[2001:db8::1]:6081")] {
        let holder = push::Holder {
            name: node.name.clone(),
            id: node.certificate_sha256.clone(),
            slice: None,
            relay: push::Relay::Said(relay.map(|relay| relay.parse().unwrap())),
        };
        let at = Timestamp::new(time::OffsetDateTime::now_utc());
        push::grant(world.plane.objects(), &holder, at, Terms::default()).unwrap();
        assert_eq!(shown().await, (json!("100.64.0.0/20"), json!(relay)));
    }
}

#[tokio::test]
async fn nodes_of_another_account_are_not_there() {
    let world = World::new().await;
    let second = world.second_account();
    world
        .plane
        .enrol("fra1", Some(second.parse().unwrap()))
        .unwrap();
    let ours = format!("/accounts/{}/nodes", world.account);
    assert_eq!(world.get(&ours).await.1["result"], json!([]));
    for path in [format!("{ours}/fra1"), format!("{ours}/nobody")] {
        assert_eq!(world.get(&path).await.0, 404);
        assert_eq!(world.delete(&path).await.0, 404);
    }
    let theirs = format!("/accounts/{second}/nodes/fra1");
    assert_eq!(world.get(&theirs).await.0, 200);
    let unknown = world
        .plane
        .enrol("ams1", Some(HexId::random()))
        .unwrap_err();
    assert!(unknown.to_string().contains("no account"), "{unknown}");
}
