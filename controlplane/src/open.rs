//! Opening a control plane, and what others see of it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dataplane::program::Spec;
use ipnet::Ipv4Net;
use tokio::sync::watch;

use crate::status::NodeStatus;

/// What a control plane needs to know to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the store lives; made when it does not exist.
    pub data_dir: PathBuf,
    /// The edge's slice of the source range.
    pub slice: Ipv4Net,
    /// The edge's own addresses: where layer-4 apps may listen.
    pub edge_addresses: Vec<IpAddr>,
    /// `host:port` that goes into the peers' WireGuard configurations; `None` leaves a placeholder.
    pub wireguard_endpoint: Option<String>,
}

/// Why a control plane did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory cannot be made or entered.
    #[error(
        "cannot use the data directory {path}: make it writable for this user, or name another"
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// What exists, opened. Clones share one state.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    revision: Arc<watch::Sender<u64>>,
}

impl ControlPlane {
    /// Opens the store in `options.data_dir`, making an account and a token when it is new.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do about it.
    pub fn open(options: Options) -> Result<ControlPlane, OpenError> {
        std::fs::create_dir_all(&options.data_dir).map_err(|source| OpenError::DataDir {
            path: options.data_dir.clone(),
            source,
        })?;
        Ok(ControlPlane {
            revision: Arc::new(watch::Sender::new(0)),
        })
    }

    /// The API token that was made, only at the very first start: it is stored as a hash.
    pub fn first_token(&self) -> Option<String> {
        None
    }

    /// The token for `/origin/v1`, fresh per start; for the proxy.
    pub fn origin_token(&self) -> String {
        String::new()
    }

    /// Everything under `/client/v4` and `/origin/v1`.
    pub fn router(&self, _status: Arc<dyn NodeStatus>) -> axum::Router {
        axum::Router::new()
    }

    /// The newest revision, as it changes.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The desired state of the node at the newest revision.
    pub fn spec(&self) -> Spec {
        Spec::default()
    }
}
