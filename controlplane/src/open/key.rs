//! The server's key: given, or in the data directory, or new; and that the store is sealed with it.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use time::OffsetDateTime;

use super::OpenError;
use crate::keys::{Keys, MasterKey};
use crate::model::Timestamp;
use crate::model::key_check::{self, KeyCheck};
use crate::options::Options;
use crate::store::{Objects, Store, StoreError, WriteError};

/// The name of the key's file in the data directory.
pub(super) const FILE: &str = "key";

/// The name of the file of a key that is about to take its place (`rekey.rs`).
pub(super) const NEW_FILE: &str = "key.new";

/// Objects that are sealed in one transaction, where the store takes that many.
const SEALED_MAX: usize = 1_000;

/// How often a transaction is tried that others come before.
const TRIES_MAX: u32 = 20;

/// The key that was given or is in the data directory. A store that nothing is sealed in may get a new
/// one, which is written before it is used.
pub(super) fn keys(options: &Options, store: &dyn Store) -> Result<Arc<Keys>, OpenError> {
    if let Some(key) = &options.key {
        return Ok(Arc::new(Keys::new(key)));
    }
    let path = options.data_dir.join(FILE);
    settle(&options.data_dir, store)?;
    let key = match fs::read_to_string(&path) {
        Ok(text) => match text.parse() {
            Ok(key) => key,
            Err(source) => return Err(OpenError::Key { path, source }),
        },
        Err(why) if why.kind() == ErrorKind::NotFound => {
            store.load_at_rest(&mut |key, _| match key {
                key_check::KEY => Err(StoreError::WrongKey {
                    key: key.to_owned(),
                }),
                _ => Ok(()),
            })?;
            let key = MasterKey::generate().ok().ok_or(OpenError::Random)?;
            write(&path, &key.to_base64()).map_err(|source| OpenError::KeyFile { path, source })?;
            key
        }
        Err(source) => return Err(OpenError::KeyFile { path, source }),
    };
    Ok(Arc::new(Keys::new(&key)))
}

/// After a change of keys that broke off: the new one takes the old one's place when it is what the store
/// is sealed with, and goes when it is not.
fn settle(directory: &Path, store: &dyn Store) -> Result<(), OpenError> {
    let path = directory.join(NEW_FILE);
    let unusable = |source| OpenError::KeyFile {
        path: path.clone(),
        source,
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(unusable(source)),
    };
    let new: Option<Keys> = text.parse::<MasterKey>().ok().map(|key| Keys::new(&key));
    let mut opens = false;
    store.load_at_rest(&mut |key, value| {
        if let (key_check::KEY, Some(new)) = (key, &new) {
            let check: Option<KeyCheck> = serde_json::from_slice(value).ok();
            let place = format!("{key}/text");
            opens = check.is_some_and(|check| new.open(&place, &check.text).is_some());
        }
        Ok(())
    })?;
    match opens {
        true => fs::rename(&path, directory.join(FILE)).map_err(unusable)?,
        false => fs::remove_file(&path).map_err(unusable)?,
    }
    super::rekey::sync(directory).map_err(unusable)
}

/// Writes a line into a new file, for its owner only; durable when it returns.
pub(super) fn write(path: &Path, line: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory)?;
    let mut open = fs::OpenOptions::new();
    let mut file = open.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_all()?;
    fs::File::open(directory)?.sync_all()
}

/// Stores a text to know the key by, and seals what an older version stored in clear. Of several
/// control planes with different keys only the first does it, and the others are told.
pub(super) fn seal_all(objects: &Objects, keys: &Keys, has_plain: bool) -> Result<(), OpenError> {
    retried(objects, |objects| {
        if !objects.snapshot().key_checks.is_empty() {
            return Ok(());
        }
        let check = || KeyCheck {
            text: "the key is right".to_owned(),
            token_key: None,
        };
        let put = objects.write(Timestamp::new(OffsetDateTime::now_utc()), |transaction| {
            transaction.put(check());
            Ok(())
        });
        put.map(|_| ())
    })?;
    if has_plain {
        seal_plain(objects)?;
    }
    let snapshot = objects.snapshot();
    let kept = snapshot
        .key_checks
        .iter()
        .find_map(|check| check.token_key.as_deref());
    if let Some(token_key) = kept {
        let unreadable = |_why| StoreError::Unreadable {
            key: key_check::KEY.to_owned(),
            source: None,
        };
        keys.hash_with(token_key).map_err(unreadable)?;
    }
    Ok(())
}

/// Writes again, in the order of their keys, what is stored in clear.
fn seal_plain(objects: &Objects) -> Result<(), OpenError> {
    let max = objects.writes_max().min(SEALED_MAX);
    let mut last = String::new();
    loop {
        let sealed = retried(objects, |objects| {
            let now = Timestamp::new(OffsetDateTime::now_utc());
            let written =
                objects.write(now, |transaction| Ok(transaction.write_secrets(&last, max)));
            written.map(|(sealed, _)| sealed)
        })?;
        match sealed {
            Some(key) => last = key,
            None => return Ok(()),
        }
    }
}

/// Runs a transaction again on the state of those who came before it.
fn retried<T>(
    objects: &Objects,
    change: impl Fn(&Objects) -> Result<T, WriteError>,
) -> Result<T, OpenError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match change(objects) {
            Ok(done) => return Ok(done),
            Err(WriteError::Store(StoreError::Stale { .. })) if tries < TRIES_MAX => {
                objects.reload()?;
            }
            Err(why) => return Err(OpenError::FirstStart(Box::new(why))),
        }
    }
}
