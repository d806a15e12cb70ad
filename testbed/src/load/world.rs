//! Where everything is: the namespaces' names and addresses, and the keys of the peers.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use dataplane::tunnel::wireguard::{PrivateKey, PublicKey};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

/// The most peers of a world: what the addresses below have room for.
pub const PEERS_MAX: usize = 4096;
/// The namespace of the edge.
pub const EDGE_NS: &str = "pc-load-edge";
/// The namespace of all peers.
pub const PEERS_NS: &str = "pc-load-peers";
/// The namespace of an attacker.
pub const EVIL_NS: &str = "pc-load-evil";
/// Where the edge takes WireGuard.
pub const EDGE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 51820);
/// Where the edge's machine throws away what it gets: the kernel's work of a flood, and no more.
pub const SINK: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 9);

/// What `portcullis-load configure` leaves for the other commands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// The edge's public key.
    pub edge_key: PublicKey,
    /// Private keys of the peers; the last one is nobody's in trials, for attacks from inside.
    pub peer_keys: Vec<PrivateKey>,
    /// The admin socket of the edge.
    pub admin_socket: PathBuf,
    /// The edge's process.
    pub edge_pid: u32,
    /// The edge's program, for `show`.
    pub program: PathBuf,
}

impl World {
    /// Reads what [`World::write`] wrote.
    ///
    /// # Errors
    /// When there is no world, or not of this version.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("no world is up: cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no world", path.display()))
    }

    /// Writes the world for its owner alone: there are keys in it.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, serde_json::to_string(self)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }
}

/// The underlay address of a peer: all of 10.79.0.0/16 is local to the peers' namespace.
#[must_use]
pub fn underlay(peer: usize) -> SocketAddr {
    let [high, low] = halves(peer);
    SocketAddr::from(([10, 79, high, low], 51820))
}

/// The inner address of a peer.
#[must_use]
pub fn inner(peer: usize) -> Ipv4Addr {
    let [high, low] = halves(peer);
    Ipv4Addr::new(10, 64 + high, low, 1)
}

/// The prefix behind a peer.
#[must_use]
pub fn prefix(peer: usize) -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::new_assert(inner(peer), 24).trunc()
}

fn halves(peer: usize) -> [u8; 2] {
    assert!(peer < PEERS_MAX, "a world has at most {PEERS_MAX} peers");
    u16::try_from(peer)
        .expect("fewer than PEERS_MAX")
        .to_be_bytes()
}

/// Puts the calling thread into a namespace.
///
/// # Errors
/// When there is no such namespace, or no permission.
pub fn enter(namespace: &str) -> anyhow::Result<()> {
    let file = fs::File::open(Path::new("/run/netns").join(namespace))
        .with_context(|| format!("there is no namespace {namespace}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {namespace}"))
}
