//! Another server key: the store is written anew, sealed with it, and takes the old one's place at once.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{OpenError, file, key};
use crate::keys::{Keys, MasterKey};
use crate::model::key_check::{self, KeyCheck};
use crate::options::Options;
use crate::store::{Embedded, Sealed, Store, StoreError, Write};

/// The file that takes the store's place.
const NEW_STORE: &str = "portcullis.redb.rekeyed";

/// Seals everything in the embedded store of `options.data_dir` with another key, which nobody may have
/// open meanwhile. `new` is the key; `None` makes one. Where the key is the one in the data directory, the
/// new one takes its place. Tokens stay good: what they are recognised by is kept, sealed.
///
/// A crash leaves the store with one of the two keys, and the next start finds out which.
///
/// # Errors
/// [`OpenError`]: the store is in use, or not sealed with the key that was given, or a file cannot be
/// written. Then the old key is the right one.
pub fn rekey(options: &Options, new: Option<MasterKey>) -> Result<(), OpenError> {
    let store = file::open(options, file::STORE)?;
    let old_keys = key::keys(options, &store)?;
    let new = match new {
        Some(key) => key,
        None => MasterKey::generate().ok().ok_or(OpenError::Random)?,
    };
    let new_keys = Arc::new(Keys::new(&new));
    let (revision, writes) = opened(store, &old_keys)?;
    let failed = |source| OpenError::DataDir {
        path: options.data_dir.clone(),
        source,
    };
    let place = |name: &str| options.data_dir.join(name);
    if options.key.is_none() {
        remove(&place(key::NEW_FILE)).map_err(failed)?;
        key::write(&place(key::NEW_FILE), &new.to_base64()).map_err(failed)?;
    }
    // Of a change of keys that broke off.
    remove(&place(NEW_STORE)).map_err(failed)?;
    let made = file::open(options, NEW_STORE)?;
    Sealed::new(Box::new(made), new_keys).replace(revision, &writes)?;
    fs::rename(place(NEW_STORE), place(file::STORE)).map_err(failed)?;
    sync(&options.data_dir).map_err(failed)?;
    if options.key.is_none() {
        fs::rename(place(key::NEW_FILE), place(key::FILE)).map_err(failed)?;
        sync(&options.data_dir).map_err(failed)?;
    }
    Ok(())
}

/// Everything in the store with its secrets in clear, and with the key that tokens are hashed with.
fn opened(store: Embedded, keys: &Arc<Keys>) -> Result<(u64, Vec<Write>), OpenError> {
    let store = Sealed::new(Box::new(store), Arc::clone(keys));
    let mut writes = Vec::new();
    let mut check = None;
    let revision = store.load(&mut |key, value| {
        match key {
            key_check::KEY => check = serde_json::from_slice::<KeyCheck>(value).ok(),
            _ => writes.push(Write {
                key: key.to_owned(),
                value: Some(value.to_vec()),
            }),
        }
        Ok(())
    })?;
    // A store of before there were keys is sealed by a start, first.
    let mut check = check.ok_or_else(|| {
        OpenError::Store(StoreError::Unreadable {
            key: key_check::KEY.to_owned(),
            source: None,
        })
    })?;
    check.token_key.get_or_insert_with(|| keys.token_key());
    writes.push(Write::of(&check));
    Ok((revision, writes))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(why),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn sync(directory: &Path) -> std::io::Result<()> {
    fs::File::open(directory)?.sync_all()
}
