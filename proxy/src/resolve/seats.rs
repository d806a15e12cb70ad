//! How many names are being resolved, of all accounts and of each: a dead resolver costs seconds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Who resolves names.
#[derive(Debug)]
pub(super) struct Seats {
    all_max: usize,
    each_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: HashMap<Box<str>, usize>,
}

/// One name that is being resolved.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    seats: &'a Seats,
    account: Box<str>,
}

impl Seats {
    pub(super) fn new(all_max: usize, each_max: usize) -> Self {
        Self {
            all_max,
            each_max,
            taken: Mutex::default(),
        }
    }

    /// A seat for the account; `None` when it has, or all have, as many as there may be.
    pub(super) fn take(&self, account: &str) -> Option<Seat<'_>> {
        let mut taken = self.lock();
        let own = taken.each.get(account).copied().unwrap_or(0);
        if taken.all >= self.all_max || own >= self.each_max {
            return None;
        }
        taken.all += 1;
        taken.each.insert(account.into(), own + 1);
        Some(Seat {
            seats: self,
            account: account.into(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // A panic between two steps leaves numbers that are off by one, and a map that is a map.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all -= 1;
        let left = taken.each.get(&self.account).map_or(0, |own| own - 1);
        match left {
            0 => taken.each.remove(&self.account),
            left => taken.each.insert(self.account.clone(), left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_cannot_take_the_seats_of_the_others() {
        let seats = Seats::new(3, 2);
        let (one, two) = (seats.take("a"), seats.take("a"));
        assert!(one.is_some() && two.is_some() && seats.take("a").is_none());
        let three = seats.take("b");
        assert!(three.is_some() && seats.take("c").is_none());
        drop(one);
        assert!(seats.take("a").is_some());
        drop((two, three));
        assert_eq!(seats.lock().all, 0);
        assert!(seats.lock().each.is_empty());
    }
}
