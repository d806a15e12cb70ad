//! A store whose secrets are sealed: a layer over any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::snapshot::secrets_of;
use super::{Each, Store, StoreError, Write};
use crate::keys::Keys;

/// Seals the secret fields of objects on the way to the store below, and opens them on the way back.
#[derive(Debug)]
pub struct Sealed<S> {
    below: S,
    keys: Arc<Keys>,
    has_plain: Arc<AtomicBool>,
}

impl<S: Store> Sealed<S> {
    /// Puts the layer over a store.
    pub fn new(below: S, keys: Arc<Keys>) -> Sealed<S> {
        let has_plain = Arc::default();
        Sealed {
            below,
            keys,
            has_plain,
        }
    }

    /// Becomes true when an object is loaded whose secrets are not sealed, of an older version: it
    /// wants to be written again.
    pub fn has_plain(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_plain)
    }

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

    fn sealed(&self, write: &Write) -> Result<Write, StoreError> {
        let Some(value) = &write.value else {
            return Ok(write.clone());
        };
        let seal = |place: &str, text: &str| match self.keys.seal(place, text) {
            Ok(sealed) => Ok(Some(sealed)),
            Err(_) => Err(StoreError::Failed(Arc::new(std::io::Error::other(
                "the system gives no random bytes",
            )))),
        };
        let sealed = each_secret(&write.key, value, seal)?;
        Ok(Write {
            key: write.key.clone(),
            value: sealed.or_else(|| Some(value.clone())),
        })
    }
}

impl<S: Store> Store for Sealed<S> {
    fn load(&self, each: Each<'_>) -> Result<u64, StoreError> {
        self.below
            .load(&mut |key, value| match self.opened(key, value)? {
                Some(opened) => each(key, &opened),
                None => each(key, value),
            })
    }

    fn commit(&self, after: u64, to: u64, writes: &[&Write]) -> Result<(), StoreError> {
        let sealed: Vec<Write> = writes
            .iter()
            .map(|write| self.sealed(write))
            .collect::<Result<_, _>>()?;
        self.below
            .commit(after, to, &sealed.iter().collect::<Vec<_>>())
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
