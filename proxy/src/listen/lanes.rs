//! Lanes: threads that each serve their own connections, from the first byte to the close.
//!
//! A request goes to and fro between a client's connection, a pooled one and timers. On one thread
//! all of that is a few function calls; between threads each step is a lock and a wake-up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// All lanes of a proxy. They end when this is dropped, with everything that runs on them.
#[derive(Debug)]
pub(crate) struct Lanes(Vec<Lane>);

#[derive(Debug)]
struct Lane {
    handle: Handle,
    /// Connections on it.
    open: Arc<AtomicUsize>,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
}

/// A connection's place on a lane, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    open: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lanes {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The system gives no thread or no epoll.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        (0..count.max(1))
            .map(Lane::start)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The lane with the fewest connections, by number, and a place on it. Connections come from
    /// several tasks: two may take the same lane at once, which evens out with the next ones.
    pub(crate) fn enter(&self) -> (usize, &Handle, Place) {
        let open = |lane: &Lane| lane.open.load(Ordering::Relaxed);
        let lanes = self.0.iter().enumerate();
        let (number, lane) = lanes
            .min_by_key(|(_, lane)| open(lane))
            .expect("there is at least one lane");
        lane.open.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            open: Arc::clone(&lane.open),
        };
        (number, &lane.handle, place)
    }
}

impl Lane {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new()
            .name(format!("proxy-{number}"))
            .spawn(move || {
                // Nothing is ever sent: the error says that the sender was dropped.
                runtime.block_on(stopped).ok();
                runtime.shutdown_background();
            })?;
        Ok(Self {
            handle,
            open: Arc::default(),
            _stop: stop,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_lane_with_the_fewest() {
        let lanes = Lanes::start(3).unwrap();
        let mut places = Vec::new();
        let mut taken = [0; 3];
        for _ in 0..6 {
            let (number, _, place) = lanes.enter();
            taken[number] += 1;
            places.push((number, place));
        }
        assert_eq!(taken, [2; 3]);
        let (left, _) = places.remove(3);
        let (number, _, _place) = lanes.enter();
        assert_eq!(number, left);
    }

    #[test]
    fn what_runs_on_a_lane_is_dropped_with_it() {
        let lanes = Lanes::start(1).unwrap();
        let (kept, gone) = oneshot::channel::<()>();
        let (_, handle, _place) = lanes.enter();
        handle.spawn(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        drop(lanes);
        gone.blocking_recv().unwrap_err();
    }
}
