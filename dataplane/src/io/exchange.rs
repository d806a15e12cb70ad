//! Where workers leave batches for each other: one bounded inbox each, and the way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::EventFd;

use crate::id::{WorkerId, Workers};
use crate::packet::{BATCHES_MAX, Batch};

/// Batches that may wait for a worker, from all others together: 8 MiB, about 3 ms of work. One
/// more is refused, and its packets are dropped and counted.
const INBOX: usize = 2 * BATCHES_MAX;

/// The inboxes of all workers of a node.
#[derive(Debug)]
pub(super) struct Exchange {
    desks: Vec<Desk>,
}

/// What others see of one worker.
#[derive(Debug)]
struct Desk {
    inbox: ArrayQueue<Batch>,
    /// Its own batches, emptied by others.
    returned: ArrayQueue<Batch>,
    wake: Arc<EventFd>,
    /// Whether the worker has been woken and has not looked yet. Every change is a swap with
    /// acquire and release, so of two sides one always sees the other: who finds it set pushed
    /// before the worker's own swap, and the worker looks into the inbox after that.
    is_woken: AtomicBool,
}

impl Exchange {
    /// Empty inboxes. `wakes` wakes each worker, in order.
    pub(super) fn new(wakes: impl IntoIterator<Item = Arc<EventFd>>) -> Self {
        let desk = |wake| Desk {
            inbox: ArrayQueue::new(INBOX),
            returned: ArrayQueue::new(BATCHES_MAX),
            wake,
            is_woken: AtomicBool::new(false),
        };
        Self {
            desks: wakes.into_iter().map(desk).collect(),
        }
    }

    /// Leaves a batch for a worker, and wakes it. Never waits.
    ///
    /// # Errors
    /// The batch, when the inbox is full.
    pub(super) fn send(&self, to: WorkerId, batch: Batch) -> Result<(), Batch> {
        let Some(desk) = self.desks.get(usize::from(to.0)) else {
            return Err(batch);
        };
        desk.inbox.push(batch)?;
        if !desk.is_woken.swap(true, Ordering::AcqRel) {
            // Only a counter at its maximum refuses, and then the worker is awake.
            let _is_awake = desk.wake.write(1);
        }
        Ok(())
    }

    /// To be called by a worker that was woken, before it looks into its inbox.
    pub(super) fn wake_seen(&self, worker: WorkerId) {
        self.desk(worker).is_woken.swap(false, Ordering::AcqRel);
    }

    /// The next batch for a worker.
    pub(super) fn receive(&self, worker: WorkerId) -> Option<Batch> {
        self.desk(worker).inbox.pop()
    }

    /// Whether something waits for a worker.
    pub(super) fn is_waiting(&self, worker: WorkerId) -> bool {
        !self.desk(worker).inbox.is_empty()
    }

    /// Sends a batch home, emptied.
    pub(super) fn give_back(&self, batch: Batch) {
        let home = batch.home();
        // There are never more batches than there is room for.
        drop(self.desk(home).returned.push(batch));
    }

    /// The next of a worker's own batches that came back.
    pub(super) fn returned(&self, worker: WorkerId) -> Option<Batch> {
        self.desk(worker).returned.pop()
    }

    /// Every worker has one.
    fn desk(&self, worker: WorkerId) -> &Desk {
        &self.desks[usize::from(worker.0)]
    }
}

/// As many workers as this machine runs threads at once, but not more than can be numbered.
pub(super) fn workers_here() -> Workers {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let count = u8::try_from(threads).map_or(Workers::MAX, |count| count.min(Workers::MAX));
    Workers::new(count).unwrap_or(Workers::ONE)
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EfdFlags;

    use super::*;
    use crate::id::{TunnelId, VnetId};
    use crate::packet::{Offload, Outbox, Parcel};

    fn wake() -> Arc<EventFd> {
        Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap())
    }

    #[test]
    fn batches_arrive_in_order_wake_once_and_go_home() {
        let (mine, theirs) = (wake(), wake());
        let exchange = Exchange::new([mine, Arc::clone(&theirs)]);
        let (zero, one) = (WorkerId(0), WorkerId(1));
        let mut out = Outbox::of(zero, Workers::new(2).unwrap());
        for n in 0..3_u8 {
            let parcel = Parcel::Encap(TunnelId(1), VnetId(1), Offload::NONE);
            assert!(out.hand_over(one, parcel, &[n]));
            let (to, batch) = out.poll_handover().unwrap();
            exchange.send(to, batch).unwrap();
        }
        assert_eq!(theirs.read().unwrap(), 1, "woken once");
        exchange.wake_seen(one);
        for n in 0..3_u8 {
            let mut batch = exchange.receive(one).unwrap();
            assert_eq!(batch.iter_mut().next().unwrap().1, [n]);
            exchange.give_back(batch);
        }
        assert!(!exchange.is_waiting(one));
        let home = std::iter::from_fn(|| exchange.returned(zero)).count();
        assert_eq!(home, 3);
    }

    #[test]
    fn a_full_inbox_gives_the_batch_back_to_the_sender() {
        let exchange = Exchange::new([wake(), wake()]);
        let workers = Workers::new(2).unwrap();
        let mut senders: Vec<_> = (0..3).map(|_| Outbox::of(WorkerId(0), workers)).collect();
        let mut refused = 0;
        for out in &mut senders {
            for _ in 0..BATCHES_MAX {
                let parcel = Parcel::Encap(TunnelId(1), VnetId(1), Offload::NONE);
                assert!(out.hand_over(WorkerId(1), parcel, &[1]));
                let (to, batch) = out.poll_handover().unwrap();
                refused += usize::from(exchange.send(to, batch).is_err());
            }
        }
        assert_eq!(refused, 3 * BATCHES_MAX - INBOX);
    }
}
