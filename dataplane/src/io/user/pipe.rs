//! What a task and a worker share of one flow, and where a worker learns that a task wants something.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use futures_util::task::AtomicWaker;
use nix::sys::eventfd::EventFd;

use super::FlowError;
use crate::flow::{Ended, Protocol};

/// Bytes of a chunk: a few of the worker's batches, and a whole datagram of any tunnel.
pub(super) const CHUNK_BYTES: usize = 16 << 10;
/// Chunks of a stream that wait, each way: 64 KiB, like the flow's own buffer.
const STREAM_CHUNKS: usize = 4;
/// Datagrams that a task may be ahead of the worker; down, a chunk holds many.
const DATAGRAM_CHUNKS: usize = 64;
/// Empty chunks that are kept for a worker's flows: 4 MiB.
const SPARE_CHUNKS: usize = 256;
/// Flows that may wait to be opened.
const OPENING_MAX: usize = 1024;
/// Tasks that may leave at the very moment in which their flow is refused.
const LEAVING: usize = 64;
/// The place of a flow that was refused.
const NOWHERE: usize = usize::MAX;

/// The task has nothing more to write.
pub(super) const SHUT: u8 = 1;
/// The task is gone.
pub(super) const GONE: u8 = 2;
/// The task is gone, and the other side shall notice.
pub(super) const ABORT: u8 = 4;

/// It can be used.
pub(super) const CONNECTED: u8 = 1;
/// Everything that will ever arrive is in the ring.
pub(super) const EOF: u8 = 2;
/// Nothing will be sent any more.
pub(super) const BROKEN: u8 = 4;

/// The flow that a task wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) protocol: Protocol,
    pub(super) source: IpAddr,
    pub(super) to: SocketAddr,
    pub(super) within: Duration,
}

/// Bytes on their way between a task and a worker.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Chunk {
    fn new() -> Self {
        Self {
            bytes: vec![0; CHUNK_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.start += len;
    }

    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    pub(super) fn fill(&mut self, len: usize) {
        self.end += len;
    }

    /// Takes as much of `bytes` as there is room for.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.room().len());
        self.room()[..len].copy_from_slice(&bytes[..len]);
        self.fill(len);
        len
    }
}

/// Where tasks leave word for one worker.
#[derive(Debug)]
pub(in crate::io) struct Inbox {
    /// Pipes of which the task wants something; each is in it once (`Pipe::is_touched`), so that it
    /// has room for all that there can be.
    touched: ArrayQueue<Arc<Pipe>>,
    spare: ArrayQueue<Chunk>,
    opening: AtomicUsize,
    wake: Arc<EventFd>,
    /// As in `io/exchange.rs`: swapped by both sides, so that one always sees the other.
    is_woken: AtomicBool,
    is_closed: AtomicBool,
}

impl Inbox {
    pub(in crate::io) fn new(flows_max: usize, wake: Arc<EventFd>) -> Arc<Self> {
        Arc::new(Self {
            touched: ArrayQueue::new(flows_max + OPENING_MAX + LEAVING),
            spare: ArrayQueue::new(SPARE_CHUNKS),
            opening: AtomicUsize::new(0),
            wake,
            is_woken: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        })
    }

    /// To be called by the worker before it looks: what comes later wakes again.
    pub(super) fn wake_seen(&self) {
        self.is_woken.swap(false, Ordering::AcqRel);
    }

    pub(super) fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            // Only a counter at its maximum refuses, and then the worker is awake.
            let _is_awake = self.wake.write(1);
        }
    }

    /// The next pipe of which a task wants something. From here on its task can say more.
    pub(super) fn next(&self) -> Option<Arc<Pipe>> {
        let pipe = self.touched.pop()?;
        pipe.is_touched.swap(false, Ordering::AcqRel);
        Some(pipe)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// The worker has taken a flow to open.
    pub(super) fn opened(&self) {
        self.opening.fetch_sub(1, Ordering::Relaxed);
    }

    /// The worker is gone: nobody will look any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        while let Some(pipe) = self.next() {
            pipe.fail(FlowError::NoWorker);
        }
    }

    /// An empty chunk.
    pub(super) fn chunk(&self) -> Chunk {
        self.spare.pop().unwrap_or_else(Chunk::new)
    }

    /// Takes an empty chunk back.
    pub(super) fn give_back(&self, mut chunk: Chunk) {
        (chunk.start, chunk.end) = (0, 0);
        // Those that have no room are freed.
        drop(self.spare.push(chunk));
    }
}

/// What a task and a worker share of one flow. Each ring has one side that fills it and one that
/// empties it.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) wanted: Wanted,
    pub(super) inbox: Arc<Inbox>,
    /// Task to worker.
    up: ArrayQueue<Chunk>,
    /// Worker to task.
    down: ArrayQueue<Chunk>,
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// What the task wants. Set with release after the chunks that come before it; the worker reads
    /// it with acquire before it empties the ring, and so has all of them when it acts on it.
    asks: AtomicU8,
    /// What the worker says, likewise.
    says: AtomicU8,
    error: OnceLock<FlowError>,
    local: OnceLock<SocketAddr>,
    payload_max: OnceLock<usize>,
    /// The place of the flow, when the worker has opened or refused it.
    place: OnceLock<usize>,
    is_touched: AtomicBool,
    /// The worker found the ring down full and has more. It sets this and looks again; the task
    /// takes a chunk and then swaps this. Both are sequentially consistent, as the ring is, so
    /// either the worker sees the room or the task sees the flag.
    is_stalled: AtomicBool,
}

impl Pipe {
    /// Asks a worker for a flow.
    pub(super) fn open(inbox: &Arc<Inbox>, wanted: Wanted) -> Result<Arc<Self>, FlowError> {
        let chunks = match wanted.protocol {
            Protocol::Tcp => STREAM_CHUNKS,
            Protocol::Udp => DATAGRAM_CHUNKS,
        };
        let pipe = Arc::new(Self {
            wanted,
            inbox: Arc::clone(inbox),
            up: ArrayQueue::new(chunks),
            down: ArrayQueue::new(STREAM_CHUNKS),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            asks: AtomicU8::new(0),
            says: AtomicU8::new(0),
            error: OnceLock::new(),
            local: OnceLock::new(),
            payload_max: OnceLock::new(),
            place: OnceLock::new(),
            is_touched: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
        });
        if inbox.opening.fetch_add(1, Ordering::Relaxed) >= OPENING_MAX {
            inbox.opening.fetch_sub(1, Ordering::Relaxed);
            return Err(FlowError::NoWorker);
        }
        pipe.touch();
        // After the touch: either the closing worker finds the pipe, or this finds it closed.
        if inbox.is_closed.load(Ordering::SeqCst) {
            return Err(FlowError::NoWorker);
        }
        Ok(pipe)
    }

    /// Waits until the flow can be used.
    pub(super) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<Result<(), FlowError>> {
        self.reader.register(cx.waker());
        if self.has_said(CONNECTED) {
            return Poll::Ready(Ok(()));
        }
        match self.error() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }

    /// The next chunk; `None` at the end of what arrives.
    pub(super) fn poll_down(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Option<Chunk>> {
        if let Some(chunk) = self.take_down() {
            return Poll::Ready(Some(chunk));
        }
        self.reader.register(cx.waker());
        // Before the ring: what was there before the end was said is seen.
        let is_over = self.has_said(EOF);
        match self.take_down() {
            Some(chunk) => Poll::Ready(Some(chunk)),
            None if is_over => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// The next chunk, if there is one.
    pub(super) fn take_down(self: &Arc<Self>) -> Option<Chunk> {
        let chunk = self.down.pop()?;
        if self.is_stalled.swap(false, Ordering::SeqCst) {
            self.touch();
        }
        Some(chunk)
    }

    /// Waits until there is room for a chunk, or nothing will be sent any more.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), FlowError>> {
        for is_registered in [false, true] {
            if self.has_said(BROKEN) {
                return Poll::Ready(Err(self.broken()));
            }
            if !self.up.is_full() {
                return Poll::Ready(Ok(()));
            }
            if !is_registered {
                self.writer.register(cx.waker());
            }
        }
        Poll::Pending
    }

    /// Waits until the worker has taken everything.
    pub(super) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.writer.register(cx.waker());
        if self.up.is_empty() || self.has_said(BROKEN) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Gives the worker a chunk; false when there is no room, and it is lost.
    pub(super) fn put_up(&self, chunk: Chunk) -> bool {
        match self.up.push(chunk) {
            Ok(()) => true,
            Err(chunk) => {
                self.inbox.give_back(chunk);
                false
            }
        }
    }

    pub(super) fn ask(self: &Arc<Self>, what: u8) {
        self.asks.fetch_or(what, Ordering::AcqRel);
        if self.place() != Some(NOWHERE) {
            self.touch();
        }
    }

    /// Has the worker look at this flow.
    pub(super) fn touch(self: &Arc<Self>) {
        if !self.is_touched.swap(true, Ordering::AcqRel) {
            let pushed = self.inbox.touched.push(Arc::clone(self));
            debug_assert!(pushed.is_ok(), "each pipe is in it once");
            self.inbox.wake();
        }
    }

    pub(super) fn has_said(&self, what: u8) -> bool {
        self.says.load(Ordering::Acquire) & what != 0
    }

    pub(super) fn error(&self) -> Option<FlowError> {
        self.error.get().copied()
    }

    fn broken(&self) -> FlowError {
        self.error().unwrap_or(FlowError::Ended(Ended::Released))
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.local.get().copied()
    }

    /// The longest datagram that fits.
    pub(super) fn payload_max(&self) -> usize {
        self.payload_max.get().copied().unwrap_or(0)
    }
}

/// The worker's side.
impl Pipe {
    pub(super) fn asks(&self) -> u8 {
        self.asks.load(Ordering::Acquire)
    }

    pub(super) fn place(&self) -> Option<usize> {
        self.place.get().copied()
    }

    pub(super) fn set_place(&self, place: usize) {
        let _is_first = self.place.set(place);
    }

    pub(super) fn take_up(&self) -> Option<Chunk> {
        self.up.pop()
    }

    /// The flow is there.
    pub(super) fn set_local(&self, local: SocketAddr, payload_max: usize) {
        // Said once, by the one worker.
        let _is_first = self.local.set(local);
        let _is_first = self.payload_max.set(payload_max);
    }

    /// Whether there is room for a chunk; if not, the task will touch when there is.
    pub(super) fn has_room_down(&self) -> bool {
        if !self.down.is_full() {
            return true;
        }
        self.is_stalled.store(true, Ordering::SeqCst);
        !self.down.is_full()
    }

    /// Gives the task a chunk. The caller has seen room, and nobody else fills the ring.
    pub(super) fn put_down(&self, chunk: Chunk) {
        let pushed = self.down.push(chunk);
        debug_assert!(pushed.is_ok(), "the ring has one that fills it");
        self.reader.wake();
    }

    pub(super) fn say(&self, what: u8) {
        self.says.fetch_or(what, Ordering::AcqRel);
        self.reader.wake();
        self.writer.wake();
    }

    /// The first error is the one that counts.
    pub(super) fn set_error(&self, error: FlowError) {
        let _is_first = self.error.set(error);
    }

    /// Refuses it, or ends it.
    pub(super) fn fail(&self, error: FlowError) {
        self.set_place(NOWHERE);
        self.set_error(error);
        self.say(EOF | BROKEN);
    }

    pub(super) fn wake_writer(&self) {
        self.writer.wake();
    }
}
