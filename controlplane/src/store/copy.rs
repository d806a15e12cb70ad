//! A copy of a shared store on the machine's own disk: a node starts from it when the store is out of
//! reach.

use std::sync::Arc;
use std::time::Duration;

use super::objects::{Objects, read};
use super::{Snapshot, Store, StoreError, Write};

/// Pause between two flushes of the copy: it may be that much older than what was seen last.
const PAUSE: Duration = Duration::from_secs(1);

/// Brings `copy` to the objects' newest revision, and again whenever that changes.
pub(super) fn keep(objects: &Arc<Objects>, copy: Box<dyn Store>) -> Result<(), StoreError> {
    let mut known = read(&*copy)?;
    let objects = Arc::downgrade(objects);
    let kept = move || {
        while let Some(objects) = objects.upgrade() {
            let newest = objects.snapshot();
            drop(objects);
            if newest.revision != known.revision {
                match bring(&*copy, &known, &newest) {
                    Ok(()) => known = (*newest).clone(),
                    Err(why) => {
                        let why = &why as &dyn std::error::Error;
                        tracing::warn!(error = why, "the copy of the store is not up to date");
                    }
                }
            }
            std::thread::park_timeout(PAUSE);
        }
    };
    let thread = std::thread::Builder::new().name("copy".into());
    match thread.spawn(kept) {
        Ok(_) => Ok(()),
        Err(why) => Err(StoreError::Failed(Arc::new(why))),
    }
}

fn bring(copy: &dyn Store, known: &Snapshot, newest: &Snapshot) -> Result<(), StoreError> {
    let writes = newest.writes_since(known);
    let writes: Vec<&Write> = writes.iter().collect();
    copy.commit(known.revision, newest.revision, &writes)
}
