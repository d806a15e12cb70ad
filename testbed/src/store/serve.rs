//! A control plane over a filled store, with the tables of a node that follows it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use controlplane::{ControlPlane, NodeStatus, Options, program};
use dataplane::id::{NodeId, VnetId, Workers};
use dataplane::io::clock;
use dataplane::node::TunnelStatus;
use dataplane::program::{Key, Programmer, Spec};
use dataplane::source::Slice;

use super::sample;

/// How far the node's tables are.
struct Node(AtomicU64);

impl NodeStatus for Node {
    fn tunnels(&self) -> Vec<TunnelStatus> {
        Vec::new()
    }

    fn rejected(&self) -> Vec<(Key, String)> {
        Vec::new()
    }

    fn sources(&self) -> Vec<(VnetId, IpAddr)> {
        Vec::new()
    }

    fn applied_revision(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

pub(super) fn opened(directory: &Path) -> anyhow::Result<ControlPlane> {
    Ok(ControlPlane::open(options(directory)?)?)
}

/// Options of a control plane that has nothing but a directory.
pub(super) fn options(directory: &Path) -> anyhow::Result<Options> {
    let slice = "100.64.0.0/20".parse().context("the slice")?;
    Ok(Options {
        data_dir: directory.to_owned(),
        key: None,
        // The benchmark is what there is, and not how much of it one client may have.
        requests_per_sec_max: None,
        slice,
        edge_addresses: Vec::new(),
        name_servers: Vec::new(),
        dns_listen: Vec::new(),
        gre_addresses: Vec::new(),
        ipsec_addresses: Vec::new(),
        devices: Vec::new(),
        ports: Vec::new(),
        wireguard_endpoint: None,
    })
}

/// The tables of a node at the newest state.
fn tables(plane: &ControlPlane) -> anyhow::Result<Programmer> {
    let slice = Slice::new("100.64.0.0/20".parse()?)?;
    let workers = Workers::new(2).context("two workers")?;
    let mut programmer = Programmer::new(Some(slice), NodeId(0), workers);
    let wanted = plane.spec();
    let applied = programmer.apply(&Spec::default().diff(&wanted), &mut |_| Ok(()));
    if let Some((key, why)) = applied.rejected.first() {
        anyhow::bail!(
            "{} objects were refused, such as {key:?}: {why}",
            applied.rejected.len()
        );
    }
    Ok(programmer)
}

/// Opens the store, then fills a node's tables; says how long each takes, and how much memory the
/// process has after the first.
///
/// # Errors
/// When the store does not open or a node refuses something.
pub fn open(directory: &Path) -> anyhow::Result<Vec<String>> {
    let begin = clock::now();
    let plane = opened(directory)?;
    let opened_s = begin.elapsed().as_secs_f64();
    let memory = resident_kib()?;
    let tables = tables(&plane)?;
    let whole_s = begin.elapsed().as_secs_f64();
    let routes = tables.spec().routes.len();
    let both = resident_kib()?;
    Ok(vec![
        sample("start from disk, objects", "s", opened_s),
        sample("start from disk, node's tables too", "s", whole_s),
        format!("#routes\t{routes}"),
        format!("#objects_kib\t{memory}"),
        format!("#tables_kib\t{both}"),
    ])
}

/// Resident memory of this process (proc(5), VmRSS).
fn resident_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

/// Serves the API over the store until the process is ended. The node's tables follow in a thread of
/// their own, as those of an edge do.
///
/// # Errors
/// When something does not open.
pub fn serve(directory: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let plane = opened(directory)?;
    let mut programmer = tables(&plane)?;
    let mut known = plane.snapshot();
    let node = Arc::new(Node(AtomicU64::new(known.revision)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (follower, applied) = (plane.clone(), Arc::clone(&node));
    std::thread::Builder::new()
        .name("program".into())
        .spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
                return;
            };
            let mut revision = follower.revision();
            while runtime.block_on(revision.changed()).is_ok() {
                let newest = follower.snapshot();
                let delta = program::delta(&known, &newest, follower.here(), []);
                programmer.apply(&delta, &mut |_| Ok(()));
                applied.0.store(newest.revision, Ordering::Release);
                known = newest;
            }
        })?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        axum::serve(listener, plane.router(node)).await?;
        anyhow::Ok(())
    })
}
