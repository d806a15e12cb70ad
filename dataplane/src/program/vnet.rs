//! The write side of one vnet: its routes, and which tunnel may send from which prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::paths::Paths;
use super::tables::VnetTables;
use crate::fib::routes::{self, Full};
use crate::fib::{CANDIDATES_MAX, Candidate, Candidates, Nexthop};
use crate::id::TunnelId;
use crate::source::Range;
use ipnet::IpNet;

/// Writers of the tables of one vnet.
#[derive(Debug, Default)]
pub(super) struct VnetWriter {
    pub(super) routes: routes::Writer,
    allowed: routes::Writer,
    /// Tunnels that allow the same prefix share it; when there are more than [`CANDIDATES_MAX`], the
    /// lowest numbers, whatever came first, so that the tables depend on the spec alone.
    claims: BTreeMap<IpNet, BTreeSet<TunnelId>>,
    paths: Arc<Paths>,
}

impl VnetWriter {
    /// The read side, under this name; on an edge with the vnet's source range.
    pub(super) fn tables(&self, name: &str, range: Option<Range>) -> VnetTables {
        VnetTables {
            name: name.to_owned(),
            range,
            routes: self.routes.table().clone(),
            allowed: self.allowed.table().clone(),
            paths: Arc::clone(&self.paths),
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
        let mut tunnels = self.claims.get(&prefix).cloned().unwrap_or_default();
        tunnels.insert(tunnel);
        self.allowed.insert(prefix, &sharers(&tunnels))?;
        self.claims.insert(prefix, tunnels);
        Ok(())
    }

    fn unclaim(&mut self, prefix: IpNet, tunnel: TunnelId) {
        let Some(tunnels) = self.claims.get_mut(&prefix) else {
            return;
        };
        tunnels.remove(&tunnel);
        if tunnels.is_empty() {
            self.claims.remove(&prefix);
            self.allowed.remove(prefix);
            return;
        }
        // Without room for another set of tunnels the prefix is nobody's, never somebody's who lost
        // it.
        let sharers = sharers(tunnels);
        if self.allowed.insert(prefix, &sharers).is_err() {
            self.allowed.remove(prefix);
        }
    }
}

/// The tunnels that share a prefix, of which there is at least one.
fn sharers(tunnels: &BTreeSet<TunnelId>) -> Candidates {
    let sharers = tunnels.iter().take(CANDIDATES_MAX);
    let sharers = sharers.map(|tunnel| Candidate::from(Nexthop::Tunnel(*tunnel)));
    Candidates::new(sharers.collect()).expect("a few different tunnels make a group")
}
