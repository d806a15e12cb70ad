//! Tests only: writes go on while other threads read, and every answer must be explained.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Runs `write(0)`, `write(1)`, … while two threads call `read(probe)` for all probes, and checks
/// that each answer is the one of `answers[state][probe]` for a state between the last that was
/// complete when the read began and the last that was begun when it ended.
pub(super) fn assert_explained<A: PartialEq + Debug + Sync>(
    answers: &[Vec<A>],
    mut write: impl FnMut(usize),
    read: impl Fn(usize) -> A + Sync,
) {
    let (begun, complete) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (is_over, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reader = || {
        while !is_over.load(Ordering::SeqCst) {
            for (probe, _) in answers[0].iter().enumerate() {
                let from = complete.load(Ordering::SeqCst);
                let answer = read(probe);
                let to = begun.load(Ordering::SeqCst);
                let is_explained = (from..=to).any(|state| answers[state][probe] == answer);
                if !is_explained {
                    is_over.store(true, Ordering::SeqCst);
                }
                assert!(
                    is_explained,
                    "probe {probe}, states {from}..={to}: {answer:?}"
                );
            }
            reads.fetch_add(1, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        scope.spawn(reader);
        scope.spawn(reader);
        for update in 0..answers.len() - 1 {
            // Give the readers a turn now and then, so that they do not only see the end.
            let seen = reads.load(Ordering::SeqCst);
            while update % 16 == 0
                && reads.load(Ordering::SeqCst) == seen
                && !is_over.load(Ordering::SeqCst)
            {
                thread::yield_now();
            }
            begun.store(update + 1, Ordering::SeqCst);
            write(update);
            complete.store(update + 1, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::SeqCst);
    });
}
