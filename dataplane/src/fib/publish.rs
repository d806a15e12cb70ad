//! Read-copy-update: a value that one thread replaces while others read it, freed after an epoch.
#![expect(
    unsafe_code,
    reason = "lock-free publication: crossbeam-epoch hands out raw shared pointers"
)]

use std::fmt;
use std::sync::atomic::Ordering;

use crossbeam::epoch::{self, Atomic, Owned};

/// Proof that this thread is pinned: what it loads stays in memory while the guard lives.
///
/// Pin once per batch of packets and let go at its end: garbage waits for the slowest guard. The
/// type is ours, because a guard of another collector would prove nothing about our values.
#[derive(Debug)]
pub struct Guard(epoch::Guard);

/// Pins this thread to the current epoch. Cheap and reentrant; it never blocks.
#[inline]
pub fn pin() -> Guard {
    Guard(epoch::pin())
}

impl Guard {
    /// Lets go of everything loaded under this guard and pins anew: for a loop that never ends.
    pub fn repin(&mut self) {
        self.0.repin();
    }

    /// Runs `f` on some thread when every guard that lives now is gone.
    pub(super) fn defer(&self, f: impl FnOnce() + Send + 'static) {
        self.0.defer(f);
    }

    /// Hands this thread's deferred work to whichever thread collects next.
    pub(super) fn flush(&self) {
        self.0.flush();
    }
}

/// A place for one `T` that is replaced as a whole. Readers never wait; writers may be several.
pub struct Published<T: Send + Sync + 'static> {
    pointer: Atomic<T>,
}

impl<T: Send + Sync + 'static> Published<T> {
    /// A place that holds nothing.
    pub fn empty() -> Self {
        Self {
            pointer: Atomic::null(),
        }
    }

    /// A place that holds `value`.
    pub fn new(value: T) -> Self {
        Self {
            pointer: Atomic::new(value),
        }
    }

    /// The value at this moment; it outlives even this place, for as long as the guard lives.
    #[inline]
    pub fn load<'g>(&self, guard: &'g Guard) -> Option<&'g T> {
        // Acquire pairs with the AcqRel swap of `store`: who sees the pointer sees the whole value.
        let shared = self.pointer.load(Ordering::Acquire, &guard.0);
        // SAFETY: the pointer is null or came from `Owned::new`, is never written through, and is
        // destroyed only by `store`'s deferral to the default collector, in which `guard` is
        // pinned: a `Guard` is made by `pin` alone, so it is never another collector's.
        unsafe { shared.as_ref() }
    }

    /// Replaces the value in one step; the old one is dropped when no guard can see it.
    pub fn store(&self, value: Option<T>) {
        let guard = epoch::pin();
        let old = match value {
            Some(value) => self
                .pointer
                .swap(Owned::new(value), Ordering::AcqRel, &guard),
            None => self
                .pointer
                .swap(epoch::Shared::null(), Ordering::AcqRel, &guard),
        };
        if !old.is_null() {
            // SAFETY: the swap gave this pointer to us alone and no later `load` can find it;
            // `T: Send + 'static` may be dropped by any thread at any time.
            unsafe { guard.defer_destroy(old) };
            guard.flush();
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Published<T> {
    fn drop(&mut self) {
        // Not dropped at once: a guard may outlive this place, and `load` promised it the value.
        self.store(None);
    }
}

impl<T: Send + Sync + 'static + fmt::Debug> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published")
            .field(&self.load(&pin()))
            .finish()
    }
}

#[cfg(not(portcullis_loom))]
#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how many of it live.
    struct Alive(Arc<AtomicUsize>);

    impl Alive {
        fn new(count: &Arc<AtomicUsize>) -> Self {
            count.fetch_add(1, Ordering::SeqCst);
            Self(count.clone())
        }
    }

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_loaded_value_lives_as_long_as_its_guard() {
        let count = Arc::new(AtomicUsize::new(0));
        let place = Published::new(Alive::new(&count));
        let guard = pin();
        let seen = place.load(&guard).unwrap();
        place.store(Some(Alive::new(&count)));
        drop(place);
        for _ in 0..1000 {
            pin().flush();
        }
        assert_eq!(seen.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn replaced_values_are_freed_once_no_guard_sees_them() {
        let count = Arc::new(AtomicUsize::new(0));
        let place = Published::empty();
        for _ in 0..1000 {
            place.store(Some(Alive::new(&count)));
        }
        drop(place);
        // Other tests of this process may be pinned for a while: try until they are not.
        for _ in 0..10_000_000 {
            if count.load(Ordering::SeqCst) == 0 {
                return;
            }
            pin().flush();
            std::thread::yield_now();
        }
        panic!("{} values were never freed", count.load(Ordering::SeqCst));
    }
}
