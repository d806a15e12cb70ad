//! A subnet of an account that is not routed: the range that the edge's connections come from (api.md 3.2).

use dataplane::source::{RANGE_V4, RANGE_V6};
use ipnet::IpNet;
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

/// How an account calls the source range of one family. The range itself is the edge's, one for all accounts.
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

    /// The edge's source range.
    pub fn range(self) -> IpNet {
        match self {
            Family::V4 => IpNet::V4(RANGE_V4),
            Family::V6 => IpNet::V6(RANGE_V6),
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
            created_at,
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
            let range = self.family.range();
            if network != range {
                let why = format!(
                    "The edge's connections come from {range} in every account: {network} is not carried here."
                );
                return Err(fields.refuse("network", why));
            }
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

impl Resource for Subnet {
    const KIND: &'static str = "subnet";
    const ON_NODES: bool = true;
    type Id = Uuid;

    /// Follows from account and family, so that there is one of each.
    fn id(&self) -> Uuid {
        let mut bytes = self.account_id.uuid().into_bytes();
        bytes[15] ^= match self.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        Uuid::from_bytes(bytes)
    }
}
