//! The store below a node's objects: there is none. What is to be changed is changed at the control plane.

use std::sync::Arc;

use super::objects::{Objects, read};
use super::snapshot::Snapshot;
use super::{Each, Store, StoreError, Write, copy};

/// Holds nothing and takes nothing.
#[derive(Clone, Copy, Debug)]
struct Replica;

impl Store for Replica {
    fn load(&self, _each: Each<'_>) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn commit(&self, _after: u64, _to: u64, _writes: &[&Write]) -> Result<(), StoreError> {
        Err(refused())
    }

    fn replace(&self, _revision: u64, _writes: &[Write]) -> Result<(), StoreError> {
        Err(refused())
    }
}

fn refused() -> StoreError {
    StoreError::Failed(Arc::new(std::io::Error::other(
        "this node follows a control plane: change things there",
    )))
}

impl Objects {
    /// A node's copy of what a control plane has: it begins as `copy` has it, changes by
    /// [`Objects::receive`] alone, and the copy follows (at most a second behind).
    ///
    /// # Errors
    /// When the copy cannot be read.
    pub fn replica(copy: Box<dyn Store>) -> Result<Arc<Objects>, StoreError> {
        let snapshot = read(&*copy)?;
        let objects = Objects::new(Box::new(Replica), snapshot, false);
        copy::keep(&objects, copy)?;
        Ok(objects)
    }

    /// Shows what a control plane sent. Its revision is above the newest one here; one that is not is
    /// forgotten.
    pub fn receive(&self, snapshot: Snapshot) {
        let mut head = self.head();
        head.snapshot = snapshot.clone();
        self.show(snapshot);
    }
}
