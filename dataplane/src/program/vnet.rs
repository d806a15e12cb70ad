//! The write side of one vnet: its routes, and which tunnel may send from which prefix.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use tracing::warn;

use super::tables::VnetTables;
use crate::fib::lpm::Full;
use crate::fib::{Nexthop, lpm};
use crate::id::TunnelId;

/// Writers of the tables of one vnet.
#[derive(Debug, Default)]
pub(super) struct VnetWriter {
    pub(super) routes: lpm::Writer<Nexthop>,
    allowed: lpm::Writer<TunnelId>,
    /// Tunnels that allow the same prefix. The lowest number has it, whatever came first, so that
    /// the tables depend on the spec alone.
    claims: BTreeMap<IpNet, BTreeSet<TunnelId>>,
}

impl VnetWriter {
    /// The read side, under this name.
    pub(super) fn tables(&self, name: &str, is_range_reserved: bool) -> VnetTables {
        VnetTables {
            name: name.to_owned(),
            is_range_reserved,
            routes: self.routes.table().clone(),
            allowed: self.allowed.table().clone(),
        }
    }

    /// Makes `tunnel` allowed for exactly these prefixes: new ones first, so that none that stays
    /// is missing for a moment.
    ///
    /// # Errors
    /// [`Full`] when the table has no room; the tunnel is then allowed for what it was.
    pub(super) fn allow(&mut self, tunnel: TunnelId, prefixes: &[IpNet]) -> Result<(), Full> {
        let wanted: BTreeSet<_> = prefixes.iter().map(IpNet::trunc).collect();
        let held: BTreeSet<_> = self
            .claims
            .iter()
            .filter(|(_, tunnels)| tunnels.contains(&tunnel))
            .map(|(prefix, _)| *prefix)
            .collect();
        let mut added = Vec::new();
        for prefix in wanted.difference(&held) {
            if let Err(full) = self.claim(*prefix, tunnel) {
                added
                    .into_iter()
                    .for_each(|prefix| self.unclaim(prefix, tunnel));
                return Err(full);
            }
            added.push(*prefix);
        }
        for prefix in held.difference(&wanted) {
            self.unclaim(*prefix, tunnel);
        }
        Ok(())
    }

    fn claim(&mut self, prefix: IpNet, tunnel: TunnelId) -> Result<(), Full> {
        let others = self.claims.get(&prefix);
        let owner = others
            .and_then(BTreeSet::first)
            .map_or(tunnel, |first| *first.min(&tunnel));
        if others.is_some() {
            warn!(%prefix, %tunnel, %owner, "a prefix is allowed for several tunnels: one has it");
        }
        self.allowed.insert(prefix, owner)?;
        self.claims.entry(prefix).or_default().insert(tunnel);
        Ok(())
    }

    fn unclaim(&mut self, prefix: IpNet, tunnel: TunnelId) {
        let Some(tunnels) = self.claims.get_mut(&prefix) else {
            return;
        };
        tunnels.remove(&tunnel);
        if let Some(first) = tunnels.first() {
            self.allowed
                .insert(prefix, *first)
                .expect("a prefix that is there only changes its value");
        } else {
            self.claims.remove(&prefix);
            self.allowed.remove(prefix);
        }
    }
}
