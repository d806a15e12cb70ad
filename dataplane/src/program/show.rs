//! The tables as rows for people, read from the write side of what packets see.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use super::Relay;
use super::apply::Programmer;
use crate::fib::return_table::Owner;
use crate::fib::{Candidates, Nexthop};
use crate::id::{NodeId, VnetId, WorkerId};
use crate::source::to_v6;

/// One prefix of a vnet's FIB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FibRow {
    /// The vnet.
    pub vnet: VnetId,
    /// The customer's name for it.
    pub vnet_name: String,
    /// The prefix.
    pub prefix: IpNet,
    /// Where it leads: a next hop, or a list of candidates.
    #[serde(rename = "nexthop")]
    pub candidates: Candidates,
    /// Those of several candidates that take its flows at this moment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chosen: Vec<Nexthop>,
}

/// One prefix of the return table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReturnRow {
    /// The prefix.
    pub prefix: Ipv4Net,
    /// Who owns its addresses.
    #[serde(flatten)]
    pub owner: ReturnOwner,
}

/// Who owns a prefix of the source range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ReturnOwner {
    /// A vnet, on a worker of this node.
    Here(Owner),
    /// Another node, which alone knows the vnets.
    Elsewhere {
        /// The node.
        node: NodeId,
        /// Where packets for it are handed over.
        relay: SocketAddr,
    },
}

impl From<Relay> for ReturnOwner {
    fn from(relay: Relay) -> Self {
        Self::Elsewhere {
            node: relay.node,
            relay: relay.address,
        }
    }
}

/// The source addresses of one vnet on one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceRow {
    /// The vnet.
    pub vnet: VnetId,
    /// The customer's name for it.
    pub vnet_name: String,
    /// The worker that owns the tunnels of its connections.
    pub worker: WorkerId,
    /// The IPv4 source address, as sockets of this machine have it.
    pub ipv4: Ipv4Addr,
    /// The same, as the vnet's private network sees it.
    pub seen_ipv4: Ipv4Addr,
    /// The IPv6 source address.
    pub ipv6: Ipv6Addr,
}

impl Programmer {
    /// The FIBs of all vnets, by vnet and prefix.
    pub fn fib_rows(&self) -> Vec<FibRow> {
        self.vnets
            .iter()
            .flat_map(|(vnet, writer)| {
                writer.routes.iter().map(|(prefix, candidates)| FibRow {
                    vnet: *vnet,
                    vnet_name: self.name(*vnet),
                    prefix,
                    candidates: candidates.clone(),
                    chosen: match candidates.single() {
                        Some(_) => Vec::new(),
                        None => {
                            let chosen = writer.routes.chosen(candidates).into_iter();
                            chosen.map(|member| member.nexthop).collect()
                        }
                    },
                })
            })
            .collect()
    }

    /// The return table, by prefix.
    pub fn return_rows(&self) -> Vec<ReturnRow> {
        let here = self.returns.iter().map(|(prefix, owner)| ReturnRow {
            prefix,
            owner: ReturnOwner::Here(owner),
        });
        let elsewhere = self.spec().relays.iter().map(|relay| ReturnRow {
            prefix: relay.net,
            owner: ReturnOwner::from(*relay),
        });
        let mut rows: Vec<_> = here.chain(elsewhere).collect();
        rows.sort_by_key(|row| row.prefix);
        rows
    }

    /// The source addresses of this node, by vnet and worker. Empty on a site.
    pub fn source_rows(&self) -> Vec<SourceRow> {
        let mut rows = Vec::new();
        if let Some(leases) = &self.leases {
            for vnet in leases.vnets() {
                let range = self.spec().vnets.get(&vnet).map(|vnet| vnet.range);
                let range = range.unwrap_or_default();
                let workers = leases.workers().iter();
                rows.extend(
                    workers
                        .zip(leases.of(vnet))
                        .map(|(worker, lent)| SourceRow {
                            vnet,
                            vnet_name: self.name(vnet),
                            worker,
                            ipv4: lent,
                            seen_ipv4: range.seen(lent),
                            ipv6: to_v6(lent),
                        }),
                );
            }
        }
        rows
    }

    fn name(&self, vnet: VnetId) -> String {
        self.spec()
            .vnets
            .get(&vnet)
            .map_or_else(String::new, |vnet| vnet.name.clone())
    }
}
