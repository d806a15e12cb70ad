//! How much one source may give in one turn of a worker.

/// Reads from one source in one turn: a train for every packet finds room in the outbox, twice.
const BATCH: usize = 64;

/// Turns in a row that a source used its whole batch before it gets a larger one: less often, and
/// a source that gives one packet a turn pays a read in vain on every second.
const FULL_TURNS: u8 = 3;

/// How much one source may give in its next turn. A read in vain only to hear that there is no more
/// costs as much as a small packet, so a source that gave little is asked for little, and epoll
/// says whether there is more; one that always has more is soon asked for a whole batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appetite {
    batch: usize,
    full_turns: u8,
}

impl Appetite {
    pub(super) const FIRST: Self = Self {
        batch: 1,
        full_turns: 0,
    };

    /// Reads of the next turn, at most.
    pub(super) fn batch(self) -> usize {
        self.batch
    }

    /// After a turn that found the source empty after this many reads, or used the whole batch.
    pub(super) fn adapt(&mut self, reads: usize) {
        if reads < self.batch {
            *self = Self {
                batch: reads.max(1),
                full_turns: 0,
            };
        } else {
            self.full_turns += 1;
            if self.full_turns == FULL_TURNS {
                let batch = (self.batch * 2).min(BATCH);
                *self = Self {
                    batch,
                    full_turns: 0,
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_always_has_more_gets_whole_batches_and_one_that_has_little_is_asked_for_little()
     {
        let mut appetite = Appetite::FIRST;
        // One packet a turn: one read in four is in vain.
        let mut in_vain = 0;
        for _ in 0..40 {
            in_vain += usize::from(appetite.batch > 1);
            appetite.adapt(1);
        }
        assert_eq!(in_vain, 10);
        for _ in 0..30 {
            appetite.adapt(appetite.batch);
        }
        assert_eq!(appetite.batch, BATCH);
        appetite.adapt(5);
        assert_eq!(appetite.batch, 5);
        appetite.adapt(0);
        assert_eq!(appetite.batch, 1);
    }
}
