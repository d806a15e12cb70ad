//! A store whose secrets are sealed: a layer over any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::snapshot::secrets_of;
use super::{Each, Followed, Store, StoreError, Write};
use crate::keys::Keys;

/// Seals the secret fields of objects on the way to the store below, and opens them on the way back.
pub struct Sealed {
    below: Box<dyn Store>,
    keys: Arc<Keys>,
    has_plain: Arc<AtomicBool>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").finish_non_exhaustive()
    }
}

impl Sealed {
    /// Puts the layer over a store.
    pub fn new(below: Box<dyn Store>, keys: Arc<Keys>) -> Sealed {
        Sealed {
            below,
            keys,
            has_plain: Arc::default(),
        }
    }

    /// Becomes true when an object is loaded whose secrets are not sealed, of an older version: it
    /// wants to be written again.
    pub fn has_plain(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_plain)
    }

    /// The object's JSON with its secrets opened; `None` when there are none.
    fn opened(&self, key: &str, value: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        each_secret(key, value, |place, text| {
            if !Keys::is_sealed(text) {
                self.has_plain.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            let opened = self.keys.open(place, text);
            let wrong_key = || StoreError::WrongKey {
                key: key.to_owned(),
            };
            opened.map(Some).ok_or_else(wrong_key)
        })
    }

    fn open_write(&self, write: &mut Write) -> Result<(), StoreError> {
        if let Some(value) = &write.value
            && let Some(opened) = self.opened(&write.key, value)?
        {
            write.value = Some(opened);
        }
        Ok(())
    }
}

/// Seals what is not sealed with these keys already.
///
/// # Errors
/// When the object is not JSON, or the system has no randomness to give.
pub(crate) fn seal_plain(keys: &Keys, write: &Write) -> Result<Write, StoreError> {
    seal_if(keys, write, |place, text| keys.open(place, text).is_none())
}

fn seal(keys: &Keys, write: &Write) -> Result<Write, StoreError> {
    seal_if(keys, write, |_, _| true)
}

fn seal_if(
    keys: &Keys,
    write: &Write,
    is_wanted: impl Fn(&str, &str) -> bool,
) -> Result<Write, StoreError> {
    let Some(value) = &write.value else {
        return Ok(write.clone());
    };
    let sealed = each_secret(&write.key, value, |place, text| {
        if !is_wanted(place, text) {
            return Ok(None);
        }
        let no_random = |_: ring::error::Unspecified| {
            let why = std::io::Error::other("the system gives no random bytes");
            StoreError::Failed(Arc::new(why))
        };
        keys.seal(place, text).map(Some).map_err(no_random)
    })?;
    Ok(Write {
        key: write.key.clone(),
        value: sealed.or_else(|| Some(value.clone())),
    })
}

impl Store for Sealed {
    fn load(&self, each: Each<'_>) -> Result<u64, StoreError> {
        self.below
            .load(&mut |key, value| match self.opened(key, value)? {
                Some(opened) => each(key, &opened),
                None => each(key, value),
            })
    }

    fn load_at_rest(&self, each: Each<'_>) -> Result<u64, StoreError> {
        self.below.load_at_rest(each)
    }

    fn load_to_follow(&self, each: Each<'_>) -> Result<u64, StoreError> {
        self.below
            .load_to_follow(&mut |key, value| match self.opened(key, value)? {
                Some(opened) => each(key, &opened),
                None => each(key, value),
            })
    }

    fn commit(&self, after: u64, to: u64, writes: &[&Write]) -> Result<(), StoreError> {
        let sealed = writes.iter().map(|write| seal(&self.keys, write));
        let sealed: Vec<Write> = sealed.collect::<Result<_, _>>()?;
        let sealed: Vec<&Write> = sealed.iter().collect();
        self.below.commit(after, to, &sealed)
    }

    fn replace(&self, revision: u64, writes: &[Write]) -> Result<(), StoreError> {
        let sealed = writes.iter().map(|write| seal(&self.keys, write));
        let sealed: Vec<Write> = sealed.collect::<Result<_, _>>()?;
        self.below.replace(revision, &sealed)
    }

    fn writes_max(&self) -> usize {
        self.below.writes_max()
    }

    fn is_shared(&self) -> bool {
        self.below.is_shared()
    }

    fn next(&self) -> Result<Option<Followed>, StoreError> {
        let mut next = self.below.next()?;
        if let Some(Followed::Commit { writes, .. }) = &mut next {
            writes
                .iter_mut()
                .try_for_each(|write| self.open_write(write))?;
        }
        Ok(next)
    }
}

/// Replaces the secrets of an object by what `change` makes of them, given the place and the text;
/// `None` when none is replaced.
fn each_secret(
    key: &str,
    value: &[u8],
    mut change: impl FnMut(&str, &str) -> Result<Option<String>, StoreError>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let secrets = secrets_of(key);
    if secrets.is_empty() {
        return Ok(None);
    }
    let unreadable = |why| StoreError::Unreadable {
        key: key.to_owned(),
        source: Some(Arc::new(why)),
    };
    let mut object: Value = serde_json::from_slice(value).map_err(unreadable)?;
    let mut is_changed = false;
    for pointer in secrets {
        let Some(Value::String(text)) = object.pointer_mut(pointer) else {
            continue;
        };
        if let Some(changed) = change(&format!("{key}{pointer}"), text)? {
            *text = changed;
            is_changed = true;
        }
    }
    Ok(is_changed.then(|| object.to_string().into_bytes()))
}
