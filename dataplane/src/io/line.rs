//! The line to one worker: commands, and answers within a time.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;

use super::worker::Command;

/// How long an answer of the worker may take. A turn of it is milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Commands that may wait for a worker; who comes then waits for room.
pub(super) const COMMANDS_WAITING: usize = 256;

/// What a caller hears when there is no worker to do it.
pub(super) const GONE: &str =
    "the packet worker has stopped: see its last log line, and restart portcullis";

/// The line to one worker.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) commands: Sender<Command>,
    pub(super) wake: Arc<EventFd>,
}

impl Line {
    pub(super) fn new() -> nix::Result<(Self, Receiver<Command>)> {
        use nix::sys::eventfd::EfdFlags;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (commands, receiver) = bounded(COMMANDS_WAITING);
        Ok((Self { commands, wake }, receiver))
    }

    /// False when nobody listens.
    pub(super) fn tell(&self, command: Command) -> bool {
        let is_sent = self.commands.send_timeout(command, ANSWER_WITHIN).is_ok();
        // Only a counter at its maximum refuses, and then the worker is awake.
        is_sent && self.wake.write(1).is_ok()
    }

    /// `None` when nobody answers.
    pub(super) fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = bounded(1);
        if !self.tell(question(answer)) {
            return None;
        }
        answered.recv_timeout(ANSWER_WITHIN).ok()
    }
}
