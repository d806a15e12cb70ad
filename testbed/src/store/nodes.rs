//! Nodes that follow a control plane: how long until a change is at each of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use controlplane::model::lease::Terms;
use controlplane::push::{Bundle, Follow, Following};
use controlplane::{ControlPlane, Progress};
use dataplane::io::clock;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::ask::{Client, percentile};
use super::sample;
use super::serve::{opened, options};

/// Longest wait for a change at a node.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// When which node had what.
struct Sighting {
    node: usize,
    revision: u64,
    at: Instant,
}

/// A node whose tables take everything at once, in a runtime.
struct Node {
    plane: ControlPlane,
    _following: Following,
}

/// Serves `count` nodes, each over TLS on loopback, from the store in `directory`; changes one record
/// `changes` times through the API; says how long after the request began a node had the change: each of them,
/// and the last of them.
///
/// # Errors
/// When something does not open, or a node does not get a change.
pub fn nodes(directory: &Path, count: usize, changes: u32) -> anyhow::Result<Vec<String>> {
    let plane = opened(directory)?;
    let listening =
        plane.serve_nodes(&[SocketAddr::from(([127, 0, 0, 1], 0))], Terms::default())?;
    let address = *listening.addresses().first().context("no address")?;
    let api = api(&plane, Arc::new(listening.fleet()))?;
    let (sightings, mut seen) = mpsc::channel(count * 64);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut nodes = Vec::new();
    for number in 0..count {
        let name = format!("node{number}");
        let bundle = identity(&plane, &directory.join(format!("{name}.pem")), &name)?;
        let copy = directory.join(&name);
        let sightings = sightings.clone();
        nodes.push(node(&runtime, (number, &copy), bundle, address, sightings)?);
    }
    runtime.block_on(settled(&plane, &nodes, &mut seen))?;
    let token = std::fs::read_to_string(directory.join("token"))?;
    let mut client = Client::to(api, token.trim())?;
    let zones = client.result("/zones")?;
    let zone = zones[0]["id"]
        .as_str()
        .context("there is no zone")?
        .to_owned();
    let records = client.result(&format!("/zones/{zone}/dns_records"))?;
    let record = records[0]["id"].as_str().context("there is no record")?;
    let record = format!("/zones/{zone}/dns_records/{record}");
    let (mut each, mut last) = (Vec::new(), Vec::new());
    for number in 0..changes {
        let before = plane.snapshot().revision;
        let body = json!({"content": format!("203.0.113.{}", number % 250 + 1)}).to_string();
        let begin = clock::now();
        let caller = std::thread::spawn({
            let record = record.clone();
            move || client.call("PATCH", &record, &body).map(|_| client)
        });
        let times = runtime.block_on(all_seen(&mut seen, count, before, begin))?;
        last.extend(times.iter().copied().max_by(f64::total_cmp));
        each.extend(times);
        client = caller
            .join()
            .map_err(|_panic| anyhow::anyhow!("the client panicked"))??;
    }
    each.sort_by(f64::total_cmp);
    last.sort_by(f64::total_cmp);
    let case = format!("one record changed, at {count} nodes");
    let all = format!("one record changed, at the last of {count} nodes");
    Ok(vec![
        sample(&case, "ms, p50", percentile(&each, 50)),
        sample(&case, "ms, p99", percentile(&each, 99)),
        sample(&all, "ms, p50", percentile(&last, 50)),
        sample(&all, "ms, p99", percentile(&last, 99)),
    ])
}

/// The identity that the node had before, or a new one: each new one leases another slice, and there are 256.
fn identity(plane: &ControlPlane, file: &Path, name: &str) -> anyhow::Result<Bundle> {
    if !file.exists() {
        std::fs::write(file, plane.enrol(name, None)?)?;
    }
    Ok(Bundle::read(file)?)
}

/// Waits until every node has its slice, and everything that there is: from here on only what is measured
/// changes.
async fn settled(
    plane: &ControlPlane,
    nodes: &[Node],
    seen: &mut mpsc::Receiver<Sighting>,
) -> anyhow::Result<()> {
    let began = clock::now();
    loop {
        let newest = plane.snapshot();
        let leased = newest.leases.len();
        let has_all = |node: &Node| node.plane.snapshot().revision >= newest.revision;
        if leased >= nodes.len() && nodes.iter().all(has_all) {
            return Ok(());
        }
        let most = nodes.len();
        anyhow::ensure!(
            began.elapsed() < SEEN_WITHIN * 6,
            "the nodes do not get what there is: {leased} of {most} have a slice"
        );
        // What they see meanwhile is nobody's time.
        let _is_one = tokio::time::timeout(Duration::from_millis(5), seen.recv()).await;
    }
}

/// Milliseconds from `begin` until each of the nodes had what came after a revision.
async fn all_seen(
    seen: &mut mpsc::Receiver<Sighting>,
    count: usize,
    before: u64,
    begin: Instant,
) -> anyhow::Result<Vec<f64>> {
    let mut times = BTreeMap::new();
    while times.len() < count {
        let next = tokio::time::timeout(SEEN_WITHIN, seen.recv()).await;
        let sighting = next.context("a node does not get a change")?;
        let Sighting { node, revision, at } = sighting.context("no node is left")?;
        if revision > before {
            let first = times.entry(node);
            first.or_insert_with(|| (at - begin).as_secs_f64() * 1e3);
        }
    }
    Ok(times.into_values().collect())
}

/// Serves the API in a thread; its address.
fn api(
    plane: &ControlPlane,
    status: Arc<dyn controlplane::NodeStatus>,
) -> anyhow::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let router = plane.router(status);
    std::thread::Builder::new()
        .name("api".into())
        .spawn(move || runtime.block_on(axum::serve(listener, router).into_future()))?;
    Ok(address)
}

fn node(
    runtime: &tokio::runtime::Runtime,
    (number, copy): (usize, &Path),
    bundle: Bundle,
    address: SocketAddr,
    sightings: mpsc::Sender<Sighting>,
) -> anyhow::Result<Node> {
    let plane = ControlPlane::open_replica(options(copy)?)?;
    let progress = watch::Sender::new(Progress::default());
    let following = plane.follow(Follow {
        control: vec![address.to_string()],
        bundle,
        progress: progress.subscribe(),
        relay: None,
    })?;
    let mut revisions = plane.revision();
    runtime.spawn(async move {
        while revisions.changed().await.is_ok() {
            let at = clock::now();
            let revision = *revisions.borrow_and_update();
            let rejected = Vec::new();
            progress.send_replace(Progress { revision, rejected });
            let sighting = Sighting {
                node: number,
                revision,
                at,
            };
            if sightings.send(sighting).await.is_err() {
                return;
            }
        }
    });
    Ok(Node {
        plane,
        _following: following,
    })
}
