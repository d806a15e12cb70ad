//! A direct link: an interface of the edge, without encapsulation (api.md 4.2, CNI).

use dataplane::tunnel::direct;
use serde::{Deserialize, Serialize};

use super::shared::{Defaults, Names};
use crate::model::{Fields, Refusal};

/// Longest name of an interface (linux/if.h, IFNAMSIZ).
const DEVICE_LEN_MAX: usize = 15;

/// What all kinds share, for this kind. The MTU is the product's.
pub const DEFAULTS: Defaults = Defaults {
    names: Names::Free,
    mtu: 1476,
    has_interface: true,
    has_health_check: true,
};

/// What only an interconnect has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interconnect {
    /// The interface of the edge; never changes.
    pub device: String,
    /// The VLAN of it; `None`: frames without a tag. Never changes.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// Whether the interface is an Ethernet port; what the edge's configuration said when it was kept.
    #[serde(default)]
    pub is_ethernet: bool,
}

impl Interconnect {
    /// Reads what only an interconnect has.
    ///
    /// # Errors
    /// A field that is wrong or missing.
    pub fn read(fields: &mut Fields, old: Option<&Interconnect>) -> Result<Interconnect, Refusal> {
        if let Some(gre) = fields.object("gre")? {
            let why = "GRE on a direct link is not carried here: make a GRE tunnel beside it.";
            gre.finish().map_err(|_why| fields.refuse("gre", why))?;
        }
        fields.ignore(&["colo_name", "version", "virtual_port_reservation_id"]);
        let device = fields.string("device", DEVICE_LEN_MAX)?;
        if let (Some(new), Some(old)) = (&device, old)
            && *new != old.device
        {
            let why = "An interconnect keeps its device: delete it and make a new one.";
            return Err(fields.refuse("device", why));
        }
        let device = device.or_else(|| old.map(|old| old.device.clone()));
        let vlan = fields.integer("vlan", direct::VLANS)?;
        if vlan.is_some() && old.is_some_and(|old| old.vlan != vlan) {
            let why = "An interconnect keeps its VLAN: delete it and make a new one.";
            return Err(fields.refuse("vlan", why));
        }
        Ok(Interconnect {
            device: fields.required("device", device)?,
            vlan: vlan.or_else(|| old.and_then(|old| old.vlan)),
            is_ethernet: old.is_some_and(|old| old.is_ethernet),
        })
    }
}
