//! A UDP flow as a task has it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use super::pipe::{Chunk, Inbox, Pipe, Wanted};
use super::stream::Owner;

/// Bytes before each datagram in a chunk: its length.
pub(super) const PREFIX: usize = 2;

/// Datagrams to and from one origin. Dropped, the flow is gone.
#[derive(Debug)]
pub struct Datagrams {
    owner: Owner,
    /// What is being read. One task reads, so the lock is never waited for.
    rest: Mutex<Option<Chunk>>,
}

impl Datagrams {
    pub(super) async fn open(inbox: &Arc<Inbox>, wanted: Wanted) -> io::Result<Self> {
        let pipe = Pipe::open(inbox, wanted)?;
        let owner = Owner(Arc::clone(&pipe));
        poll_fn(|cx| pipe.poll_connected(cx)).await?;
        Ok(Self {
            owner,
            rest: Mutex::new(None),
        })
    }

    /// The address and port that it has here: the source address it was opened from.
    ///
    /// # Panics
    /// Never: an open flow has one.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        let local = self.owner.0.local();
        local.expect("the worker says it before it says that the flow is there")
    }

    /// Sends one datagram, if there is room for it.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; `InvalidInput` when it does not fit one packet of the
    /// tunnel; what ended the flow.
    pub fn try_send(&self, datagram: &[u8]) -> io::Result<()> {
        let pipe = &self.owner.0;
        if let Some(error) = pipe.error() {
            return Err(error.into());
        }
        if datagram.len() > pipe.payload_max() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut chunk = pipe.inbox.chunk();
        chunk.put(datagram);
        if !pipe.put_up(chunk) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.touch();
        Ok(())
    }

    /// Waits until something can be received.
    ///
    /// # Errors
    /// What ended the flow.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Receives one datagram, of which what does not fit is lost.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; what ended the flow.
    pub fn try_recv(&self, into: &mut [u8]) -> io::Result<usize> {
        let pipe = &self.owner.0;
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut chunk) = rest.take().or_else(|| pipe.take_down()) else {
            return Err(match pipe.error() {
                Some(error) => error.into(),
                None => io::ErrorKind::WouldBlock.into(),
            });
        };
        let [high, low] = *chunk
            .filled()
            .first_chunk::<PREFIX>()
            .expect("the worker writes a length before each datagram");
        chunk.consume(PREFIX);
        let len = usize::from(u16::from_be_bytes([high, low]));
        let taken = len.min(into.len());
        into[..taken].copy_from_slice(&chunk.filled()[..taken]);
        chunk.consume(len);
        if chunk.filled().is_empty() {
            pipe.inbox.give_back(chunk);
        } else {
            *rest = Some(chunk);
        }
        Ok(taken)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pipe = &self.owner.0;
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if rest.is_some() {
            return Poll::Ready(Ok(()));
        }
        pipe.poll_down(cx).map(|chunk| match (chunk, pipe.error()) {
            (Some(chunk), _) => {
                *rest = Some(chunk);
                Ok(())
            }
            (None, Some(error)) => Err(error.into()),
            (None, None) => Err(io::ErrorKind::BrokenPipe.into()),
        })
    }
}
