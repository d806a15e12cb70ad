//! Who changed what: one entry for each request that made, changed or deleted objects.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HexId, Resource, Timestamp};

/// Most changes that are kept; the oldest go. With objects of a kilobyte, some 20 MB of memory.
pub const CHANGES_KEPT_MAX: usize = 10_000;

/// Most changes of one entry: one that deletes a zone with all its records must not push out everything
/// else, and an etcd takes 1.5 MB at once.
pub const CHANGES_MAX: usize = 1_000;

/// Longest value that is kept, in bytes of JSON.
pub const VALUE_BYTES_MAX: usize = 4096;

/// Sum of the values of one entry.
pub const ENTRY_BYTES_MAX: usize = 1 << 18;

/// Stands for a secret.
pub const REDACTED: &str = "[redacted]";

/// Who makes a request, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The token.
    pub token_id: HexId,
    /// Its name then.
    pub token_name: String,
    /// The address the request came from, when it is known.
    pub ip: Option<IpAddr>,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
}

/// What one transaction changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Grows with time.
    pub number: u64,
    /// When.
    pub when: Timestamp,
    /// Who, and from where.
    pub actor: Actor,
    /// What, in the order of their first changes.
    pub changes: Vec<Change>,
    /// Changes of the same request that are not listed.
    #[serde(default)]
    pub unlisted: usize,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The kind of the object.
    pub kind: String,
    /// Its id.
    pub object_id: String,
    /// Whose it is; `None` is the user's.
    pub account_id: Option<HexId>,
    /// The name of its zone, if it is in one.
    pub zone_name: Option<String>,
    /// What it was, without secrets; `None` when it is new.
    pub old: Option<Value>,
    /// What it is, without secrets; `None` when it is gone.
    pub new: Option<Value>,
}

impl Change {
    /// What was done.
    pub fn action(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => "create",
            (Some(_), Some(_)) => "update",
            (Some(_), None) => "delete",
        }
    }
}

impl Resource for Entry {
    const KIND: &'static str = "audit";
    const IS_AUDITED: bool = false;
    type Id = Number;

    fn id(&self) -> Number {
        Number(self.number)
    }
}

/// An entry's number, written with twenty digits so that the store sorts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(pub u64);

impl std::str::FromStr for Number {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Number, std::num::ParseIntError> {
        text.parse().map(Number)
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:020}", self.0)
    }
}
