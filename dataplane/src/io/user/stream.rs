//! A TCP flow as a task has it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pipe::{ABORT, Chunk, GONE, Inbox, Pipe, SHUT, Wanted};
use super::{Ended, FlowError};

/// A connected stream. Dropped, it ends; what the worker has taken by then is still sent.
#[derive(Debug)]
pub struct Stream {
    reader: Reader,
    writer: Writer,
    owner: Owner,
}

/// The half of a [`Stream`] that reads.
#[derive(Debug)]
pub struct Reader {
    pipe: Arc<Pipe>,
    /// What the last read left.
    rest: Option<Chunk>,
}

/// The half of a [`Stream`] that writes.
#[derive(Debug)]
pub struct Writer {
    pipe: Arc<Pipe>,
}

/// Tells the worker when a flow has no owner any more.
#[derive(Debug)]
pub(super) struct Owner(pub(super) Arc<Pipe>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.ask(GONE);
    }
}

impl Stream {
    pub(super) async fn connect(inbox: &Arc<Inbox>, wanted: Wanted) -> io::Result<Self> {
        let pipe = Pipe::open(inbox, wanted)?;
        let owner = Owner(Arc::clone(&pipe));
        poll_fn(|cx| pipe.poll_connected(cx)).await?;
        Ok(Self {
            reader: Reader {
                pipe: Arc::clone(&pipe),
                rest: None,
            },
            writer: Writer { pipe },
            owner,
        })
    }

    /// The address and port that it has here: the source address it was opened from.
    ///
    /// # Panics
    /// Never: a connected flow has one.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        let local = self.owner.0.local();
        local.expect("the worker says it before it says that the flow is connected")
    }

    /// The origin.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.owner.0.wanted.to
    }

    /// Both halves, to be used at the same time.
    pub fn split(&mut self) -> (&mut Reader, &mut Writer) {
        (&mut self.reader, &mut self.writer)
    }

    /// Breaks it off: the origin sees a reset.
    pub fn abort(self) {
        self.owner.0.ask(ABORT);
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut chunk = match self.rest.take() {
            Some(chunk) => chunk,
            None => match ready!(self.pipe.poll_down(cx)) {
                Some(chunk) => chunk,
                None => return Poll::Ready(self.end()),
            },
        };
        let len = chunk.filled().len().min(into.remaining());
        into.put_slice(&chunk.filled()[..len]);
        chunk.consume(len);
        if chunk.filled().is_empty() {
            self.pipe.inbox.give_back(chunk);
        } else {
            self.rest = Some(chunk);
        }
        Poll::Ready(Ok(()))
    }
}

impl Reader {
    /// Nothing more arrives: because the origin said so, or because the flow is broken.
    fn end(&self) -> io::Result<()> {
        match self.pipe.error() {
            None | Some(FlowError::Ended(Ended::Finished)) => Ok(()),
            Some(error) => Err(error.into()),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.pipe.poll_room(cx))?;
        let mut chunk = self.pipe.inbox.chunk();
        let len = chunk.put(bytes);
        let is_put = self.pipe.put_up(chunk);
        debug_assert!(is_put, "the ring has one that fills it");
        self.pipe.touch();
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the sending half, when the worker has taken everything.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pipe.poll_taken(cx));
        self.pipe.ask(SHUT);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
