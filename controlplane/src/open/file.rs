//! The embedded store's files: kept private, and sealed when an older version wrote them in clear.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use super::OpenError;
use crate::keys::Keys;
use crate::model::key_check;
use crate::options::Options;
use crate::store::{self, Embedded, Sealed, Store as _, StoreError, Write};

/// What exists.
pub(super) const STORE: &str = "portcullis.redb";

/// A copy of what exists in a shared store.
pub(super) const COPY: &str = "copy.redb";

/// A node's copy of what its control plane has.
pub(super) const REPLICA: &str = "replica.redb";

/// The embedded store in `options.data_dir`, which is made when it does not exist. Secrets in it are sealed.
///
/// # Errors
/// [`OpenError`], each with what to do about it.
pub fn open_store(options: &Options) -> Result<Embedded, OpenError> {
    open(options, STORE)
}

/// Opens a file of the data directory, or makes it.
pub(super) fn open(options: &Options, name: &str) -> Result<Embedded, OpenError> {
    let unusable = |source| OpenError::DataDir {
        path: options.data_dir.clone(),
        source,
    };
    fs::create_dir_all(&options.data_dir).map_err(unusable)?;
    let path = options.data_dir.join(name);
    keep_private(&path).map_err(unusable)?;
    Embedded::open(&path).map_err(|source| match source.is_in_use() {
        true => OpenError::InUse { path },
        false => OpenError::Database { path, source },
    })
}

/// Puts the layer that seals over a file. One that is older than sealing is written anew and replaced:
/// in a file that is changed in place, bytes of old would stay in free pages.
pub(super) fn sealed(
    old: Embedded,
    keys: &Arc<Keys>,
    options: &Options,
    name: &str,
) -> Result<Sealed, OpenError> {
    let layer = |store| Sealed::new(Box::new(store), Arc::clone(keys));
    if old.has(key_check::KEY)? {
        return Ok(layer(old));
    }
    let mut writes = Vec::new();
    let revision = old.load(&mut |key, value| {
        writes.push(Write {
            key: key.to_owned(),
            value: Some(value.to_vec()),
        });
        Ok(())
    })?;
    if writes.is_empty() {
        return Ok(layer(old));
    }
    let new_name = format!("{name}.sealed");
    let (from, to) = (
        options.data_dir.join(&new_name),
        options.data_dir.join(name),
    );
    let failed = |source| OpenError::DataDir {
        path: options.data_dir.clone(),
        source,
    };
    if from.exists() {
        // Of a start that broke off here.
        fs::remove_file(&from).map_err(failed)?;
    }
    let new = open(options, &new_name)?;
    let writes = writes.iter().map(|write| store::seal_plain(keys, write));
    new.replace(
        revision,
        &writes.collect::<Result<Vec<Write>, StoreError>>()?,
    )?;
    drop((old, new));
    fs::rename(&from, &to).map_err(failed)?;
    let directory = fs::File::open(&options.data_dir);
    directory.and_then(|it| it.sync_all()).map_err(failed)?;
    tracing::info!(path = %to.display(), "secrets in the store were sealed");
    Ok(layer(open(options, name)?))
}

/// Others' keys may be in it: only its owner reads it, from its first byte on.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let mut open = fs::OpenOptions::new();
    let file = open
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}
