//! A static route of `magic/routes`: a prefix, and the customer's side of a tunnel (api.md 4.2).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Fields, HexId, Refusal, Resource, Timestamp, address};

/// Longest description.
const DESCRIPTION_LEN_MAX: usize = 1024;

/// Largest priority: what fits a signed 32-bit integer of any client, with all penalties on top.
const PRIORITY_MAX: u32 = 1_000_000_000;

/// Largest weight (api.md 4.2).
const WEIGHT_MAX: u16 = 256;

/// A static route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    /// Its id.
    pub id: HexId,
    /// Whose it is.
    pub account_id: HexId,
    /// The vnet.
    pub virtual_network_id: Uuid,
    /// The prefix, host bits zero.
    pub prefix: IpNet,
    /// The customer's side of the tunnel.
    pub nexthop: IpAddr,
    /// The tunnel that `nexthop` is in; always of the same vnet.
    pub tunnel_id: Uuid,
    /// The lowest of a prefix is taken.
    pub priority: u32,
    /// Its share among those of the same priority; 0 when none is given.
    pub weight: u16,
    /// For people only.
    pub description: String,
    /// When it was made.
    pub created_on: Timestamp,
    /// When it was changed last.
    pub modified_on: Timestamp,
}

impl StaticRoute {
    /// The weight as nodes have it: a route that names none counts as 1; the largest two are one.
    pub fn share(&self) -> u8 {
        u8::try_from(self.weight).unwrap_or(u8::MAX).max(1)
    }
}

impl Resource for StaticRoute {
    const KIND: &'static str = "static_route";
    const ON_NODES: bool = true;
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}

/// What a request says, or what was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The prefix.
    pub prefix: IpNet,
    /// The customer's side of a tunnel.
    pub nexthop: IpAddr,
    /// The priority.
    pub priority: u32,
    /// The weight.
    pub weight: u16,
    /// The description.
    pub description: String,
    /// The vnet that the request names.
    pub virtual_network_id: Option<Uuid>,
}

impl Draft {
    /// Reads the body of a create, or of a change to `old`.
    ///
    /// # Errors
    /// A field that is wrong, missing or not carried.
    pub fn read(mut fields: Fields, old: Option<&StaticRoute>) -> Result<Draft, Refusal> {
        let prefix = match fields.string("prefix", 64)? {
            Some(text) => Some(parse(&fields, &text)?),
            None => old.map(|old| old.prefix),
        };
        let prefix = fields.required("prefix", prefix)?;
        let wanted = "an IP address: the customer's side of a tunnel";
        let nexthop = fields.parsed("nexthop", wanted)?;
        let nexthop = fields.required("nexthop", nexthop.or_else(|| old.map(|old| old.nexthop)))?;
        let priority = fields.integer("priority", 0..=PRIORITY_MAX)?;
        let priority =
            fields.required("priority", priority.or_else(|| old.map(|old| old.priority)))?;
        let is_even = fields.is_null("weight");
        let weight = fields.integer("weight", 0..=WEIGHT_MAX)?;
        let weight = weight.or_else(|| old.filter(|_| !is_even).map(|old| old.weight));
        let is_bare = fields.is_null("description");
        let description = fields.string("description", DESCRIPTION_LEN_MAX)?;
        let before = old.filter(|_| !is_bare).map(|old| old.description.clone());
        read_scope(&mut fields)?;
        let draft = Draft {
            prefix,
            nexthop,
            priority,
            weight: weight.unwrap_or(0),
            description: description.or(before).unwrap_or_default(),
            virtual_network_id: fields.uuid("virtual_network_id")?,
        };
        fields.ignore(&[
            "id",
            "created_on",
            "modified_on",
            "tunnel_id",
            "tunnel_name",
        ]);
        fields.ignore(&["tun_type", "virtual_network_name"]);
        fields.finish()?;
        Ok(draft)
    }
}

fn parse(fields: &Fields, text: &str) -> Result<IpNet, Refusal> {
    let prefix = address::parse_prefix(text).map_err(|why| fields.refuse("prefix", why))?;
    match address::reserved(&prefix) {
        None => Ok(prefix),
        Some((range, purpose)) => {
            let why = format!(
                "{prefix} lies inside {range}, which is reserved for {purpose}: route a different \
                 prefix."
            );
            Err(fields.refuse("prefix", why))
        }
    }
}

/// There is one region here: a scope that names some would have no effect.
fn read_scope(fields: &mut Fields) -> Result<(), Refusal> {
    let Some(mut scope) = fields.object("scope")? else {
        return Ok(());
    };
    for name in ["colo_names", "colo_regions"] {
        if scope
            .strings(name, 64)?
            .is_some_and(|list| !list.is_empty())
        {
            let why =
                "Scopes are not carried here: a route holds at every edge. Leave 'scope' out.";
            return Err(scope.refuse(name, why));
        }
    }
    scope.finish()
}
