//! Durable objects with revisions, and a snapshot of them in memory.
//!
//! In: transactions. Out: snapshots, a revision that grows with each durable transaction. State: the
//! store on disk; the newest [`Snapshot`], of which a copy is one count and a change a path of nodes, so
//! that readers keep old ones and ask what changed since ([`Table::changes`]).

mod audit;
pub mod backup;
mod copy;
#[cfg(test)]
mod crash;
mod embedded;
pub mod etcd;
#[cfg(test)]
pub(crate) mod etcd_tests;
mod indexes;
mod names;
mod objects;
mod replica;
mod sealed;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::model::Resource;

pub use embedded::{Embedded, OpenError};
pub use indexes::{Indexes, Step};
pub use names::Names;
pub use objects::{Objects, Transaction, WriteError};
pub use sealed::Sealed;
pub(crate) use sealed::seal_plain;
pub use snapshot::{Snapshot, Tabled, Writes};
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
    pub(crate) fn of<R: Resource>(object: &R) -> Write {
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
    /// The transaction has more writes than the store takes at once.
    #[error("a change of {writes} objects at once is more than the {max} that the store takes")]
    TooLarge {
        /// Its writes.
        writes: usize,
        /// How many go.
        max: usize,
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

/// What happened to a store that several processes write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// A commit of another process.
    Commit {
        /// The revision that it was made on.
        base: u64,
        /// The revision that it led to.
        revision: u64,
        /// What it changed.
        writes: Vec<Write>,
    },
    /// Something was missed or everything was replaced: load again.
    Lost,
}

/// Where objects are kept: a map of keys to values with one revision. Calls block; the caller is on
/// a thread that may. A store of many processes sees others' commits as [`StoreError::Stale`].
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

    /// Makes these objects all there is, at `revision`, which is above the store's.
    ///
    /// # Errors
    /// When the medium fails. A store of one process then is as it was.
    fn replace(&self, revision: u64, writes: &[Write]) -> Result<(), StoreError>;

    /// How many writes go into one commit.
    fn writes_max(&self) -> usize {
        usize::MAX
    }

    /// The same as [`Store::load`], as it is at rest: what is sealed stays so. For backups.
    ///
    /// # Errors
    /// When the medium fails, or `each` does.
    fn load_at_rest(&self, each: Each<'_>) -> Result<u64, StoreError> {
        self.load(each)
    }

    /// The same as [`Store::load`], and [`Store::next`] tells what comes after it.
    ///
    /// # Errors
    /// When the medium fails, or `each` does.
    fn load_to_follow(&self, each: Each<'_>) -> Result<u64, StoreError> {
        self.load(each)
    }

    /// Whether other processes write too, so that [`Store::next`] has something to tell.
    fn is_shared(&self) -> bool {
        false
    }

    /// The next commit of others after what was loaded; waits a moment, and `None` when there is none.
    ///
    /// # Errors
    /// When the medium fails; the next call tries again.
    fn next(&self) -> Result<Option<Followed>, StoreError> {
        Ok(None)
    }
}
