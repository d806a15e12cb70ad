//! Durable objects with revisions, and a snapshot of them in memory.
//!
//! In: transactions. Out: snapshots, a revision that grows with each durable transaction. State: the
//! store on disk; the newest [`Snapshot`], of which a copy is one count and a change a path of nodes, so
//! that readers keep old ones and ask what changed since ([`Table::changes`]).

#[cfg(test)]
mod crash;
mod audit;
mod embedded;
mod indexes;
mod names;
mod objects;
mod sealed;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::model::Resource;

pub use embedded::Embedded;
pub use indexes::{Indexes, Step};
pub use names::Names;
pub use objects::{Objects, Touched, Transaction, WriteError};
pub use sealed::Sealed;
pub use snapshot::{Snapshot, Tabled};
pub use table::{Change, Table};

/// One change to one object, as the store sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// `KIND/ID`.
    pub key: String,
    /// The object's JSON; `None` removes it.
    pub value: Option<Vec<u8>>,
}

impl Write {
    /// The object exists, so.
    fn of<R: Resource>(object: &R) -> Write {
        Write {
            key: format!("{}/{}", R::KIND, object.id()),
            value: Some(serde_json::to_vec(object).expect("objects have string keys only")),
        }
    }
}

/// Why the store did not do it. Nothing of the transaction is kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else committed first: load again and retry.
    #[error("the store is at revision {found}, not {expected}")]
    Stale {
        /// The revision the transaction was made on.
        expected: u64,
        /// The revision of the store.
        found: u64,
    },
    /// The medium failed.
    #[error("the store failed")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A secret in the store was sealed with another key.
    #[error(
        "{key} in the store is sealed with another key: start with the key of this data directory \
         (its file `key`, `key_file` of the configuration, or PORTCULLIS_KEY)"
    )]
    WrongKey {
        /// The object's key.
        key: String,
    },
    /// What is stored cannot be read by this version.
    #[error("object {key} in the store cannot be read: it was written by another version")]
    Unreadable {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: Option<Arc<serde_json::Error>>,
    },
}

/// Takes in one stored object: its key and its JSON.
pub type Each<'a> = &'a mut dyn FnMut(&str, &[u8]) -> Result<(), StoreError>;

/// Where objects are kept: a map of keys to values with one revision. Calls block; the caller is on
/// a thread that may. A store for many machines sees others' commits as [`StoreError::Stale`].
pub trait Store: Send + Sync {
    /// Shows every object to `each` and returns the revision they are of.
    ///
    /// # Errors
    /// When the medium fails, or `each` does.
    fn load(&self, each: Each<'_>) -> Result<u64, StoreError>;

    /// Applies all writes or none, in order, on top of revision `after`; durable when it returns, and
    /// then the store is at revision `to`.
    ///
    /// # Errors
    /// When the store is at another revision, or the medium fails.
    fn commit(&self, after: u64, to: u64, writes: &[&Write]) -> Result<(), StoreError>;
}
