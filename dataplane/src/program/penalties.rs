//! What the health of tunnels costs their routes.

use std::collections::BTreeMap;

use super::apply::Programmer;
use super::health::State;
use crate::fib::Nexthop;
use crate::id::{TunnelId, VnetId};

impl Programmer {
    /// Notes the health of tunnels. Of routes with several candidates the flows of a tunnel that got
    /// worse move to others, and those only; each group of candidates is rewritten once, whatever
    /// the number of its routes. Returns how many groups were. Tunnels that are not there, or not
    /// probed, have no penalty.
    pub fn set_health(&mut self, states: &[(TunnelId, State)]) -> usize {
        let mut penalties: BTreeMap<VnetId, Vec<(Nexthop, u32)>> = BTreeMap::new();
        for (id, state) in states {
            if let Some(tunnel) = self.spec().tunnels.get(id)
                && tunnel.health.is_some()
            {
                let penalty = (Nexthop::Tunnel(*id), state.penalty());
                penalties.entry(tunnel.vnet).or_default().push(penalty);
            }
        }
        let mut groups = 0;
        for (vnet, penalties) in penalties {
            if let Some(vnet) = self.vnets.get_mut(&vnet) {
                groups += vnet.routes.penalize(&penalties);
            }
        }
        groups
    }
}
