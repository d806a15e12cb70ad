//! Where peers were heard last, kept in a file, so that after a crash they are found at once.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};
use serde::{Deserialize, Serialize};

use crate::id::TunnelId;
use crate::tunnel::wireguard::PublicKey;

use super::clock;

/// At most one write in this time, whatever the peers do.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// A peer of one tunnel and where it was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The tunnel.
    pub tunnel: TunnelId,
    /// The peer's key: an endpoint is of no use to another peer of the same tunnel.
    pub peer: PublicKey,
    /// Where the last authenticated packet came from.
    pub endpoint: SocketAddr,
}

/// A worker's news of a tunnel.
pub(super) type Heard = (TunnelId, SocketAddr);

/// The endpoints of this node. At most one for each tunnel.
#[derive(Debug)]
pub(super) struct Endpoints {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The peers of the tunnels that exist.
    peers: BTreeMap<TunnelId, PublicKey>,
    known: BTreeMap<TunnelId, Endpoint>,
}

impl Endpoints {
    /// Reads the file. One that is absent or broken is as good as empty: peers call in by
    /// themselves, only later.
    pub(super) fn open(path: Option<PathBuf>) -> Self {
        let known = path.as_deref().map(read).unwrap_or_default();
        let state = Mutex::new(State {
            peers: BTreeMap::new(),
            known,
        });
        Self { path, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics with the endpoints in hand")
    }

    /// The tunnel exists with this peer. Gives where that peer was heard last.
    pub(super) fn put(&self, tunnel: TunnelId, peer: PublicKey) -> Option<SocketAddr> {
        let mut state = self.state();
        state.peers.insert(tunnel, peer);
        let known = state.known.get(&tunnel)?;
        if known.peer == peer {
            return Some(known.endpoint);
        }
        state.known.remove(&tunnel);
        None
    }

    /// The tunnel is gone.
    pub(super) fn delete(&self, tunnel: TunnelId) {
        let mut state = self.state();
        state.peers.remove(&tunnel);
        state.known.remove(&tunnel);
    }

    /// Everything known.
    pub(super) fn all(&self) -> Vec<Endpoint> {
        self.state().known.values().copied().collect()
    }

    fn heard(&self, (tunnel, endpoint): Heard) {
        let mut state = self.state();
        if let Some(peer) = state.peers.get(&tunnel).copied() {
            state.known.insert(
                tunnel,
                Endpoint {
                    tunnel,
                    peer,
                    endpoint,
                },
            );
        }
    }

    /// Takes in the worker's news and writes the file, until the worker is gone.
    pub(super) fn keep(&self, news: &Receiver<Heard>) {
        let mut is_written = true;
        let mut next_write = clock::now();
        loop {
            let heard = if is_written {
                news.recv().map_err(RecvTimeoutError::from)
            } else {
                news.recv_deadline(next_write)
            };
            match heard {
                Ok(heard) => {
                    self.heard(heard);
                    is_written = false;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.write();
                    is_written = true;
                    next_write = clock::now() + WRITE_INTERVAL;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if !is_written {
            self.write();
        }
    }

    fn write(&self) {
        let Some(path) = &self.path else { return };
        if let Err(error) = replace(path, &self.all()) {
            tracing::warn!(path = %path.display(), %error, "the endpoints of peers are not kept");
        }
    }
}

fn read(path: &Path) -> BTreeMap<TunnelId, Endpoint> {
    let read = std::fs::read(path).and_then(|bytes| {
        let all: Vec<Endpoint> = serde_json::from_slice(&bytes)?;
        Ok(all)
    });
    match read {
        Ok(all) => all.into_iter().map(|one| (one.tunnel, one)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the endpoints of peers are unknown");
            BTreeMap::new()
        }
    }
}

/// Writes beside the file and renames, so that a reader finds the old one or the new one. Not
/// synced: after a power cut peers call in by themselves.
fn replace(path: &Path, all: &[Endpoint]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, serde_json::to_vec_pretty(all)?)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: TunnelId = TunnelId(7);
    const PEER: PublicKey = PublicKey([1; 32]);

    fn path(name: &str) -> PathBuf {
        let name = format!("portcullis-endpoints-{}-{name}.json", std::process::id());
        std::env::temp_dir().join(name)
    }

    #[test]
    fn what_was_heard_is_known_after_a_restart_to_the_same_peer_only() {
        let path = path("restart");
        let endpoint: SocketAddr = "[2001:db8::1]:51820".parse().unwrap();
        let before = Endpoints::open(Some(path.clone()));
        assert_eq!(before.put(TUNNEL, PEER), None);
        let (send, news) = crossbeam::channel::bounded(4);
        send.send((TUNNEL, endpoint)).unwrap();
        send.send((TunnelId(8), endpoint)).unwrap();
        drop(send);
        before.keep(&news);

        let after = Endpoints::open(Some(path.clone()));
        assert_eq!(
            after.all(),
            [Endpoint {
                tunnel: TUNNEL,
                peer: PEER,
                endpoint
            }]
        );
        assert_eq!(after.put(TUNNEL, PEER), Some(endpoint));
        assert_eq!(after.put(TUNNEL, PublicKey([2; 32])), None);
        assert_eq!(
            after.put(TUNNEL, PEER),
            None,
            "the other peer's coming forgot it"
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_broken_file_is_as_good_as_none() {
        let path = path("broken");
        std::fs::write(&path, b"[{\"tunnel\": 7, \"pe").unwrap();
        assert_eq!(Endpoints::open(Some(path.clone())).all(), []);
        std::fs::remove_file(path).unwrap();
    }
}
