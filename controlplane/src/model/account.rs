//! An account: owner of zones, vnets, tunnels; nothing of one is seen from another.

use serde::{Deserialize, Serialize};

use super::{HexId, Resource, Timestamp};

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: HexId,
    /// Its name; for people only.
    pub name: String,
    /// When it was made.
    pub created_on: Timestamp,
}

impl Resource for Account {
    const KIND: &'static str = "account";
    const ON_NODES: bool = true;
    type Id = HexId;

    fn id(&self) -> HexId {
        self.id
    }
}
