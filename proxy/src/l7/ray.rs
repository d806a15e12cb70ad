//! Ray ids: a name for one request, in logs, at the origin and on an error page.

use std::fmt;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};

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
        let mut bytes = [0; 8];
        self.random
            .fill(&mut bytes)
            .expect("the system has random numbers");
        Ray {
            number: u64::from_be_bytes(bytes),
            colo: Arc::clone(&self.colo),
        }
    }
}

impl fmt::Display for Ray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.number, self.colo)
    }
}
