//! A subnet of an account that is not routed: the range that the edge's connections come from (api.md 3.2).

use dataplane::source::{RANGE_V6, Range};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Fields, HexId, Refusal, Resource, Timestamp, address};

/// Code of a refused subnet field.
pub const INVALID: u32 = 1002;

/// Longest name and comment.
const TEXT_LEN_MAX: usize = 256;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The source range of one family, as an account has it: how it is called, and in IPv4 where its private networks
/// see it. The IPv6 one is the same for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Whose it is.
    pub account_id: HexId,
    /// Of which family.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// For people only.
    pub comment: String,
    /// Where private networks see the IPv4 source addresses; of no meaning in IPv6.
    #[serde(default)]
    pub range: Range,
    /// Since when there is one: as long as the account.
    pub created_at: Timestamp,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of this name.
    pub fn named(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.name() == name)
    }

    /// Its name in paths.
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "v4",
            Family::V6 => "v6",
        }
    }
}

impl Subnet {
    /// What an account has that never changed it.
    pub fn of(account_id: HexId, family: Family, created_at: Timestamp) -> Subnet {
        Subnet {
            account_id,
            family,
            name: format!("cloudflare_source_{}", family.name()),
            comment: String::new(),
            range: Range::default(),
            created_at,
        }
    }

    /// The id, which follows from account and family, so that there is one of each.
    pub fn key(account_id: HexId, family: Family) -> Uuid {
        let mut bytes = account_id.uuid().into_bytes();
        bytes[15] ^= match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        Uuid::from_bytes(bytes)
    }

    /// What private networks see.
    pub fn network(&self) -> IpNet {
        match self.family {
            Family::V4 => IpNet::V4(self.range.net()),
            Family::V6 => IpNet::V6(RANGE_V6),
        }
    }

    /// The subnet after the body of a change.
    ///
    /// # Errors
    /// A field that is wrong or not carried.
    pub fn changed(mut self, mut fields: Fields) -> Result<Subnet, Refusal> {
        let name = fields.string("name", TEXT_LEN_MAX)?;
        if name.as_deref().is_some_and(|name| name.trim().is_empty()) {
            return Err(fields.refuse("name", "'name' must not be empty."));
        }
        self.name = name.unwrap_or(self.name);
        self.comment = fields
            .string("comment", TEXT_LEN_MAX)?
            .unwrap_or(self.comment);
        if let Some(text) = fields.string("network", 64)? {
            let network =
                address::parse_prefix(&text).map_err(|why| fields.refuse("network", why))?;
            let range = match (self.family, network) {
                (Family::V4, IpNet::V4(network)) => read_range(network),
                (Family::V6, network) if network == self.network() => Ok(self.range),
                (Family::V6, network) => Err(format!(
                    "The IPv6 source range is {RANGE_V6} in every account: {network} is not carried here."
                )),
                (Family::V4, IpNet::V6(network)) => Err(format!(
                    "{network} is IPv6: give an IPv4 /12, such as 10.240.0.0/12."
                )),
            };
            self.range = range.map_err(|why| fields.refuse("network", why))?;
        }
        fields.ignore(&[
            "id",
            "subnet_type",
            "is_default_network",
            "capacity",
            "created_at",
        ]);
        fields.ignore(&["deleted_at"]);
        fields.finish()?;
        Ok(self)
    }
}

/// A source range must not share addresses with what else has a use of its own in every vnet.
fn read_range(network: Ipv4Net) -> Result<Range, String> {
    let range = Range::new(network).map_err(|error| format!("{error}."))?;
    match address::shared(&IpNet::V4(network)) {
        None => Ok(range),
        Some((other, purpose)) => Err(format!(
            "{network} shares addresses with {other}, which is reserved for {purpose}: choose another /12."
        )),
    }
}

impl Resource for Subnet {
    const KIND: &'static str = "subnet";
    const ON_NODES: bool = true;
    type Id = Uuid;

    fn id(&self) -> Uuid {
        Subnet::key(self.account_id, self.family)
    }
}
