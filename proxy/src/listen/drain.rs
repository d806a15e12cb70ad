//! The end of a proxy in two steps: stop taking work and finish what runs, then close.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// The switch, held by the proxy.
#[derive(Debug)]
pub(crate) struct Drain {
    drain: watch::Sender<bool>,
    close: watch::Sender<bool>,
    alive: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
}

/// One of those whose end is waited for: a task holds it as long as it runs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    drain: watch::Receiver<bool>,
    close: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl Drain {
    pub(crate) fn new() -> Self {
        let (alive, ended) = mpsc::channel(1);
        Self {
            drain: watch::Sender::new(false),
            close: watch::Sender::new(false),
            alive,
            ended,
        }
    }

    pub(crate) fn running(&self) -> Running {
        Running {
            drain: self.drain.subscribe(),
            close: self.close.subscribe(),
            _alive: self.alive.clone(),
        }
    }

    /// Asks all to finish.
    pub(crate) fn begin(&self) {
        self.drain.send_replace(true);
    }

    /// Waits until all have ended, at most until `deadline`; then tells those that are left to
    /// close at once, and calls `close_others` to end those that do not listen, and gives them `grace`.
    /// Returns whether all ended by themselves.
    pub(crate) async fn finish(
        self,
        deadline: Duration,
        grace: Duration,
        close_others: impl FnOnce(),
    ) -> bool {
        let Self {
            drain,
            close,
            alive,
            mut ended,
        } = self;
        drop(alive);
        if tokio::time::timeout(deadline, ended.recv()).await.is_ok() {
            return true;
        }
        close.send_replace(true);
        close_others();
        let closed = tokio::time::timeout(grace, ended.recv()).await.is_ok();
        tracing::info!(closed, "the deadline to drain has passed");
        drop(drain);
        false
    }
}

impl Running {
    /// Waits until no new work is to be taken.
    pub(crate) async fn drained(&mut self) {
        // An error means that the proxy is gone: the same.
        self.drain.wait_for(|asked| *asked).await.ok();
    }

    /// Waits until everything is to be closed.
    pub(crate) async fn closed(&mut self) {
        self.close.wait_for(|asked| *asked).await.ok();
    }

    /// Pingora's view of the drain.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.drain.clone()
    }
}
