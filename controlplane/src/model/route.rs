//! A route: a prefix of a vnet's address space, and the tunnel behind which it lies.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Fields, HexId, Refusal, Resource, Timestamp, address};

/// Code of a refused route field.
pub const INVALID: u32 = 1002;

/// Longest comment.
const COMMENT_LEN_MAX: usize = 256;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub account_id: HexId,
    /// The prefix, host bits zero.
    pub network: IpNet,
    /// The tunnel; always of the same vnet.
    pub tunnel_id: Uuid,
    /// The vnet.
    pub virtual_network_id: Uuid,
    /// For people only.
    pub comment: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a request to make or change a route says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The prefix.
    pub network: Option<IpNet>,
    /// The tunnel.
    pub tunnel_id: Option<Uuid>,
    /// The vnet.
    pub virtual_network_id: Option<Uuid>,
    /// The comment.
    pub comment: Option<String>,
}

impl Draft {
    /// Reads the body of a create or change.
    ///
    /// # Errors
    /// A field that is wrong or not carried.
    pub fn read(mut fields: Fields) -> Result<Draft, Refusal> {
        let network = match fields.string("network", 64)? {
            Some(text) => Some(parse_network(&text)?),
            None => None,
        };
        let draft = Draft {
            network,
            tunnel_id: fields.uuid("tunnel_id")?,
            virtual_network_id: fields.uuid("virtual_network_id")?,
            comment: fields.string("comment", COMMENT_LEN_MAX)?,
        };
        fields.ignore(&["id", "created_at", "deleted_at", "tun_type", "tunnel_name"]);
        fields.ignore(&["virtual_network_name"]);
        fields.finish()?;
        Ok(draft)
    }

    /// What a new route needs: its prefix and its tunnel.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn whole(&self) -> Result<(IpNet, Uuid), Refusal> {
        let network = self.network.ok_or_else(|| missing("network"))?;
        Ok((network, self.tunnel()?))
    }

    /// What a new route of a prefix in the path needs.
    ///
    /// # Errors
    /// When it is missing.
    pub fn tunnel(&self) -> Result<Uuid, Refusal> {
        self.tunnel_id.ok_or_else(|| missing("tunnel_id"))
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::invalid(INVALID, format!("'{name}' is required.")).at(name)
}

/// Parses a route's prefix: strict, and not inside a reserved range.
///
/// # Errors
/// A refusal that points at `network`.
pub fn parse_network(text: &str) -> Result<IpNet, Refusal> {
    let refuse = |why: String| Refusal::invalid(INVALID, why).at("network");
    let network = address::parse_prefix(text).map_err(refuse)?;
    match address::reserved(&network) {
        None => Ok(network),
        Some((range, purpose)) => Err(refuse(format!(
            "{network} lies inside {range}, which is reserved for {purpose}: route a different prefix."
        ))),
    }
}

impl Resource for Route {
    const KIND: &'static str = "route";
    const ON_NODES: bool = true;
    type Id = Uuid;

    fn id(&self) -> Uuid {
        self.id
    }
}
