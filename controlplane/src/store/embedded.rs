//! The embedded store: one redb file.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Each, Store, StoreError, Write};

/// Every object by its key.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");

/// The revision and the schema version.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of the layout: raised by a change that an older binary cannot read.
const SCHEMA: u64 = 1;

/// One file, one process. A transaction is on disk before it is acknowledged.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
}

impl Embedded {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When another process has it open, or it cannot be read.
    pub fn open(path: &Path) -> Result<Embedded, redb::Error> {
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        {
            transaction.open_table(OBJECTS)?;
            let mut meta = transaction.open_table(META)?;
            let schema = meta.get("schema")?.map(|value| value.value());
            match schema {
                None => {
                    meta.insert("schema", SCHEMA)?;
                }
                Some(SCHEMA) => {}
                Some(_) => return Err(redb::Error::UpgradeRequired(u8::MAX)),
            }
        }
        transaction.commit()?;
        Ok(Embedded { database })
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
}

fn failed(why: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Failed(Arc::new(why))
}
