//! A virtual network: one overlay address space of an account.

use dataplane::id::VnetId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Fields, HexId, Refusal, Resource, Timestamp};

/// Code of a refused vnet field.
pub const INVALID: u32 = 1001;

/// Longest name and comment (api.md 3.2).
const TEXT_LEN_MAX: usize = 256;

/// A virtual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vnet {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub account_id: HexId,
    /// How nodes call it; unique over all accounts.
    pub number: VnetId,
    /// Its name, unique in the account.
    pub name: String,
    /// For people only.
    pub comment: String,
    /// Whether it is meant when none is named; exactly one per account.
    pub is_default_network: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a request to make or change a vnet says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The name.
    pub name: Option<String>,
    /// The comment.
    pub comment: Option<String>,
    /// Whether to make it the default.
    pub is_default: Option<bool>,
}

impl Draft {
    /// Reads the body of a create or change.
    ///
    /// # Errors
    /// A field that is wrong or not carried.
    pub fn read(mut fields: Fields, is_new: bool) -> Result<Draft, Refusal> {
        let name = fields.string("name", TEXT_LEN_MAX)?;
        if name.as_deref().is_some_and(|name| name.trim().is_empty()) {
            return Err(fields.refuse("name", "'name' must not be empty."));
        }
        if is_new {
            fields.required("name", name.as_ref())?;
        }
        let comment = fields.string("comment", TEXT_LEN_MAX)?;
        let is_default = fields.boolean("is_default_network")?;
        let legacy = fields.boolean("is_default")?;
        fields.ignore(&["id", "created_at", "deleted_at"]);
        fields.finish()?;
        Ok(Draft {
            name,
            comment,
            is_default: is_default.or(legacy),
        })
    }
}

impl Resource for Vnet {
    const KIND: &'static str = "vnet";
    const ON_NODES: bool = true;
    type Id = Uuid;

    fn id(&self) -> Uuid {
        self.id
    }
}
