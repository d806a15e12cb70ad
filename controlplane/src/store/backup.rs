//! Backups: everything that is stored at one revision, in lines of JSON that can be checked.
//!
//! The first line names the form and the schema, then each object has a line, and the last one counts
//! them and has the SHA-256 of all bytes before it. Without that line a file is not a backup. Secrets are in
//! it as they are at rest, sealed: what is restored opens with the key that the store had.

use std::io::BufRead;

use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::embedded::SCHEMA;
use super::{Store, StoreError, Write};

/// The version of the form.
const FORM: u64 = 1;

/// What a backup holds, and what was done with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The revision that it is of.
    pub revision: u64,
    /// How many objects.
    pub objects: u64,
    /// SHA-256 of what comes before the last line, in hex.
    pub sha256: String,
}

/// Why there is no backup, or why one was not restored. Nothing changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file or the connection failed.
    #[error("cannot read or write the backup")]
    File(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is something else, damaged, or cut off.
    #[error("this is no whole backup of Portcullis: {0}")]
    Damaged(String),
    /// The file is from a newer version.
    #[error(
        "the backup has schema {found}, and this version knows up to {SCHEMA}: use a newer portcullis"
    )]
    Newer {
        /// The schema of the file.
        found: u64,
    },
    /// The store has something already.
    #[error(
        "the store holds {objects} objects at revision {revision} and restoring would replace them: \
         say --replace if that is meant"
    )]
    NotEmpty {
        /// How many objects.
        objects: u64,
        /// At which revision.
        revision: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct First {
    portcullis_backup: u64,
    schema: u64,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    key: &'a str,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct Last {
    end: Summary,
}

/// Writes everything that is stored. Others go on reading and writing meanwhile; the backup is of
/// one revision all the same.
///
/// # Errors
/// When the store or `out` fails: what was written is no whole backup.
pub fn write(store: &dyn Store, out: &mut dyn std::io::Write) -> Result<Summary, BackupError> {
    let mut out = Summed {
        out,
        sum: digest::Context::new(&digest::SHA256),
    };
    out.line(&First {
        portcullis_backup: FORM,
        schema: SCHEMA,
    })?;
    let mut objects = 0;
    let mut failed = None;
    let loaded = store.load_at_rest(&mut |key, value| {
        let unreadable = |source| StoreError::Unreadable {
            key: key.to_owned(),
            source: Some(std::sync::Arc::new(source)),
        };
        let value: &RawValue = serde_json::from_slice(value).map_err(unreadable)?;
        objects += 1;
        out.line(&Line { key, value }).map_err(|why| {
            let kind = why.kind();
            failed = Some(why);
            StoreError::Failed(std::sync::Arc::new(std::io::Error::from(kind)))
        })
    });
    if let Some(why) = failed {
        return Err(why.into());
    }
    let summary = Summary {
        revision: loaded?,
        objects,
        sha256: hex(out.sum.clone().finish().as_ref()),
    };
    out.line(&Last {
        end: summary.clone(),
    })?;
    out.out.flush()?;
    Ok(summary)
}

/// Puts a backup into a store, at a revision above those of both. What the store holds is replaced,
/// and only when `is_replacing`.
///
/// # Errors
/// When the file is damaged, or the store holds something, or fails.
pub fn restore(
    store: &dyn Store,
    from: &mut dyn BufRead,
    is_replacing: bool,
) -> Result<Summary, BackupError> {
    let (summary, writes) = read(from)?;
    let mut objects = 0;
    let revision = store.load(&mut |_, _| {
        objects += 1;
        Ok(())
    })?;
    if objects > 0 && !is_replacing {
        return Err(BackupError::NotEmpty { objects, revision });
    }
    let revision = revision.max(summary.revision) + 1;
    store.replace(revision, &writes)?;
    Ok(Summary {
        revision,
        ..summary
    })
}

/// Reads a whole backup and says what it holds.
///
/// # Errors
/// When it is damaged.
pub fn check(from: &mut dyn BufRead) -> Result<Summary, BackupError> {
    Ok(read(from)?.0)
}

/// Reads a whole backup, and believes none of it before the last line.
fn read(from: &mut dyn BufRead) -> Result<(Summary, Vec<Write>), BackupError> {
    let damaged = |why: &str| BackupError::Damaged(why.to_owned());
    let mut sum = digest::Context::new(&digest::SHA256);
    let mut line = String::new();
    let mut writes = Vec::new();
    from.read_line(&mut line)?;
    let first: First =
        serde_json::from_str(&line).map_err(|_foreign| damaged("its first line is not ours"))?;
    if first.portcullis_backup != FORM || first.schema > SCHEMA {
        return Err(BackupError::Newer {
            found: first.schema,
        });
    }
    loop {
        sum.update(line.as_bytes());
        line.clear();
        if from.read_line(&mut line)? == 0 {
            return Err(damaged("its end is missing"));
        }
        if let Ok(last) = serde_json::from_str::<Last>(&line) {
            let found = hex(sum.finish().as_ref());
            if found != last.end.sha256 || writes.len() as u64 != last.end.objects {
                return Err(damaged("its content does not fit its checksum"));
            }
            return Ok((last.end, writes));
        }
        let object: Line<'_> =
            serde_json::from_str(&line).map_err(|_foreign| damaged("a line is not an object"))?;
        writes.push(Write {
            key: object.key.to_owned(),
            value: Some(object.value.get().as_bytes().to_vec()),
        });
    }
}

struct Summed<'a> {
    out: &'a mut dyn std::io::Write,
    sum: digest::Context,
}

impl Summed<'_> {
    fn line(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(value).map_err(std::io::Error::other)?;
        line.push(b'\n');
        self.sum.update(&line);
        self.out.write_all(&line)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
