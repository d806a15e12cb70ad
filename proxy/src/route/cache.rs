//! Answers by host for one revision, in two generations of bounded size.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// A place for one answer; whoever finds it empty fills it, the others wait for him.
pub(crate) type Slot<T> = Arc<OnceCell<T>>;

/// A cache that forgets everything when the revision changes, and what was not asked for lately
/// when it is full: entries of the older generation that are used move to the younger one.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    generation_max: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    revision: u64,
    young: HashMap<Box<str>, Slot<T>>,
    old: HashMap<Box<str>, Slot<T>>,
}

impl<T> Cache<T> {
    /// A cache of at most `entries_max` entries.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            generation_max: (entries_max / 2).max(1),
            state: Mutex::new(State {
                revision: 0,
                young: HashMap::new(),
                old: HashMap::new(),
            }),
        }
    }

    /// The slot of a host at a revision.
    pub(crate) fn slot(&self, host: &str, revision: u64) -> Slot<T> {
        let mut state = self.lock();
        if state.revision != revision {
            state.revision = revision;
            state.young.clear();
            state.old.clear();
        }
        if let Some(slot) = state.young.get(host) {
            return Arc::clone(slot);
        }
        let slot = state
            .old
            .remove(host)
            .unwrap_or_else(|| Arc::new(OnceCell::new()));
        if state.young.len() >= self.generation_max {
            state.old = std::mem::take(&mut state.young);
        }
        state.young.insert(host.into(), Arc::clone(&slot));
        slot
    }

    /// Forgets a host if its slot still is this one.
    pub(crate) fn forget(&self, host: &str, slot: &Slot<T>) {
        let mut state = self.lock();
        if state
            .young
            .get(host)
            .is_some_and(|held| Arc::ptr_eq(held, slot))
        {
            state.young.remove(host);
        } else if state
            .old
            .get(host)
            .is_some_and(|held| Arc::ptr_eq(held, slot))
        {
            state.old.remove(host);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.young.len() + state.old.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic between two map operations leaves maps that are still maps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
