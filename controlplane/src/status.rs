//! What the control plane asks of the node it is attached to.

use std::net::{IpAddr, SocketAddr};

use dataplane::id::VnetId;
use dataplane::node::TunnelStatus;
use dataplane::program::Key;

use crate::model::Timestamp;

/// A node as the control plane sees it: read-only, never blocks for long.
pub trait NodeStatus: Send + Sync {
    /// The tunnels that end on the node.
    fn tunnels(&self) -> Vec<TunnelStatus>;
    /// Objects that the node refused, each with its reason.
    fn rejected(&self) -> Vec<(Key, String)>;
    /// The source addresses of the node's vnets.
    fn sources(&self) -> Vec<(VnetId, IpAddr)>;
    /// The newest revision that is in the node's tables.
    fn applied_revision(&self) -> u64;
    /// The nodes that are told over the network and that were connected since the start.
    fn nodes(&self) -> Vec<NodeSeen> {
        Vec::new()
    }
}

/// A control plane without a node: nobody to wait for, nothing to show.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNode;

impl NodeStatus for NoNode {
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
        u64::MAX
    }
}

/// How far a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The newest revision that is in its tables.
    pub revision: u64,
    /// The objects of that revision that it refused, each with its reason.
    pub rejected: Vec<(Key, String)>,
}

/// What a control plane knows of a node that it tells over the network.
#[derive(Clone, Debug)]
pub struct NodeSeen {
    /// The node's name.
    pub name: String,
    /// Where it connected from, last.
    pub address: SocketAddr,
    /// Since when it is connected; `None` when it is not.
    pub connected_since: Option<Timestamp>,
    /// When it said something, last.
    pub heard_at: Timestamp,
    /// The newest revision that it has taken; 0 before the first.
    pub acknowledged_revision: u64,
    /// When it said so.
    pub acknowledged_at: Option<Timestamp>,
    /// Objects that it could not take: their keys in the store, and reasons. At most some hundred.
    pub rejected: Vec<(String, String)>,
    /// How many there are in all.
    pub rejected_total: usize,
}
