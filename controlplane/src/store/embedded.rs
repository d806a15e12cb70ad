//! The embedded store: one redb file.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Each, Store, StoreError, Write};

/// Every object by its key.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");

/// The revision and the schema version.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of what is stored: raised by a change that an older binary cannot read.
///
/// - 1: accounts, apps, counters, identities, records, routes, tokens, tunnels, vnets, zones.
/// - 2: any kind; an older version then says that it is older, not that an object is unreadable.
/// - 3: secrets are sealed.
pub(super) const SCHEMA: u64 = 3;

/// How a store of schema *n* + 1 becomes one of *n* + 2; each in the transaction that raises the number.
/// What schema 2 has in clear is sealed when a key is there (`open/file.rs`).
const MIGRATIONS: [Migration; 2] = [|_| Ok(()), |_| Ok(())];

type Migration = fn(&redb::WriteTransaction) -> Result<(), redb::Error>;

/// One file, one process. A transaction is on disk before it is acknowledged.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
}

impl Embedded {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When another process has it open, a newer version wrote it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Embedded, OpenError> {
        let database = Database::create(path).map_err(redb::Error::from)?;
        let transaction = database.begin_write().map_err(redb::Error::from)?;
        let found = migrate(&transaction)?;
        if found != SCHEMA {
            tracing::info!(
                from = found,
                to = SCHEMA,
                "the store was brought to this version"
            );
        }
        transaction.commit().map_err(redb::Error::from)?;
        Ok(Embedded { database })
    }

    /// Whether there is an object of this key.
    ///
    /// # Errors
    /// When the file fails.
    pub fn has(&self, key: &str) -> Result<bool, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let objects = transaction.open_table(OBJECTS).map_err(failed)?;
        Ok(objects.get(key).map_err(failed)?.is_some())
    }

    fn replace_all(&self, revision: u64, writes: &[Write]) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        transaction.delete_table(OBJECTS)?;
        {
            transaction.open_table(META)?.insert("revision", revision)?;
            let mut objects = transaction.open_table(OBJECTS)?;
            for write in writes {
                if let Some(value) = &write.value {
                    objects.insert(write.key.as_str(), value.as_slice())?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// The revision that was found, when it is not `after`.
    fn write(
        &self,
        after: u64,
        to: u64,
        writes: &[&Write],
    ) -> Result<Result<(), u64>, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        // The allocator state goes with each commit: opening after a crash does not scan the file.
        transaction.set_quick_repair(true);
        {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("revision")?.map_or(0, |value| value.value());
            if found != after {
                return Ok(Err(found));
            }
            meta.insert("revision", to)?;
            let mut objects = transaction.open_table(OBJECTS)?;
            for write in writes {
                match &write.value {
                    Some(value) => objects.insert(write.key.as_str(), value.as_slice())?,
                    None => objects.remove(write.key.as_str())?,
                };
            }
        }
        transaction.commit()?;
        Ok(Ok(()))
    }
}

/// Brings what is stored to [`SCHEMA`]; the schema that was found.
fn migrate(transaction: &redb::WriteTransaction) -> Result<u64, OpenError> {
    let schema = {
        transaction.open_table(OBJECTS).map_err(redb::Error::from)?;
        let meta = transaction.open_table(META).map_err(redb::Error::from)?;
        let schema = meta.get("schema").map_err(redb::Error::from)?;
        schema.map_or(SCHEMA, |schema| schema.value())
    };
    let known = usize::try_from(schema)
        .ok()
        .and_then(|schema| schema.checked_sub(1));
    let Some(steps) = known.and_then(|done| MIGRATIONS.get(done..)) else {
        return Err(OpenError::Newer { found: schema });
    };
    steps.iter().try_for_each(|step| step(transaction))?;
    let mut meta = transaction.open_table(META).map_err(redb::Error::from)?;
    meta.insert("schema", SCHEMA).map_err(redb::Error::from)?;
    Ok(schema)
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer version wrote it.
    #[error(
        "the store has schema {found}, and this version knows up to {SCHEMA}: use a newer portcullis"
    )]
    Newer {
        /// The schema of the store.
        found: u64,
    },
    /// The file cannot be used.
    #[error(transparent)]
    Database(#[from] redb::Error),
}

impl OpenError {
    /// Whether another process has the file open.
    pub fn is_in_use(&self) -> bool {
        matches!(self, OpenError::Database(redb::Error::DatabaseAlreadyOpen))
    }
}

impl Store for Embedded {
    fn load(&self, each: Each<'_>) -> Result<u64, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let objects = transaction.open_table(OBJECTS).map_err(failed)?;
        for entry in objects.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            each(key.value(), value.value())?;
        }
        let meta = transaction.open_table(META).map_err(failed)?;
        let revision = meta.get("revision").map_err(failed)?;
        Ok(revision.map_or(0, |value| value.value()))
    }

    fn commit(&self, after: u64, to: u64, writes: &[&Write]) -> Result<(), StoreError> {
        let done = self.write(after, to, writes).map_err(failed)?;
        done.map_err(|found| StoreError::Stale {
            expected: after,
            found,
        })
    }

    fn replace(&self, revision: u64, writes: &[Write]) -> Result<(), StoreError> {
        self.replace_all(revision, writes).map_err(failed)
    }
}

fn failed(why: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Failed(Arc::new(why))
}
