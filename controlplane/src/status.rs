//! What the control plane asks of the node it is attached to.

use std::net::IpAddr;

use dataplane::id::VnetId;
use dataplane::node::TunnelStatus;
use dataplane::program::Key;

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
