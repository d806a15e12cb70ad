//! Ray ids: a name for one request, in logs, at the origin and on an error page.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};

/// Numbers drawn at once: 64, half a kilobyte a thread, so that the system call is not felt.
const DRAWN: usize = 64;

thread_local! {
    /// Random bytes of this thread that are left; the next eight are at the end.
    static LEFT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// 16 hex digits and the location's name.
#[derive(Clone, Debug)]
pub(super) struct Ray {
    number: u64,
    colo: Arc<str>,
}

/// Makes ray ids that a client cannot guess.
#[derive(Debug)]
pub(super) struct Rays {
    random: SystemRandom,
    colo: Arc<str>,
}

impl Rays {
    pub(super) fn new(colo: &str) -> Self {
        Self {
            random: SystemRandom::new(),
            colo: colo.into(),
        }
    }

    pub(super) fn next(&self) -> Ray {
        Ray {
            number: LEFT.with_borrow_mut(|left| self.draw(left)),
            colo: Arc::clone(&self.colo),
        }
    }

    fn draw(&self, left: &mut Vec<u8>) -> u64 {
        if left.is_empty() {
            left.resize(DRAWN * size_of::<u64>(), 0);
            self.random
                .fill(left)
                .expect("the system has random numbers");
        }
        let (_, last) = left
            .split_last_chunk()
            .expect("a multiple of eight is left");
        let number = u64::from_be_bytes(*last);
        left.truncate(left.len() - size_of::<u64>());
        number
    }
}

impl fmt::Display for Ray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.number, self.colo)
    }
}
