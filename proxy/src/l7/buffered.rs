//! A client's connection with a buffer for what is written, so that a short answer is one packet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufWriter, ReadBuf};

/// Bytes that wait for a flush: the header of an answer and a body of a few packets. Longer pieces
/// are written through. Held by each client connection on which something was written.
const BYTES_MAX: usize = 8 << 10;

/// The connection. Pingora writes the header and each piece of the body by itself, and flushes at
/// the end of an answer, after an informational header, and at once when the length is not known.
#[derive(Debug)]
pub(super) struct Buffered(BufWriter<Stream>);

impl Buffered {
    pub(super) fn new(stream: Stream) -> Self {
        Self(BufWriter::with_capacity(BYTES_MAX, stream))
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut BufWriter<Stream>> {
        Pin::new(&mut self.get_mut().0)
    }
}

impl AsyncRead for Buffered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Buffered {
    async fn shutdown(&mut self) {
        if let Err(why) = self.0.flush().await {
            tracing::debug!(%why, "a client went before the end of an answer");
        }
        Shutdown::shutdown(&mut **self.0.get_mut()).await;
    }
}

#[async_trait]
impl Peek for Buffered {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.0.get_mut().try_peek(buf).await
    }
}

impl UniqueID for Buffered {
    fn id(&self) -> UniqueIDType {
        self.0.get_ref().id()
    }
}

impl Ssl for Buffered {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.0.get_ref().get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.0.get_ref().get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.0.get_ref().selected_alpn_proto()
    }
}

impl GetTimingDigest for Buffered {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.0.get_ref().get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.0.get_ref().get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.0.get_ref().get_write_pending_time()
    }
}

impl GetProxyDigest for Buffered {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.0.get_ref().get_proxy_digest()
    }
}

impl GetSocketDigest for Buffered {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.0.get_ref().get_socket_digest()
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn header_and_short_body_leave_together_at_the_flush() {
        let (near, mut far) = duplex(1 << 16);
        let mut client = Buffered::new(Box::new(near));
        let mut seen = [0; 64];
        client.write_all(b"header, ").await.unwrap();
        client.write_all(b"body").await.unwrap();
        tokio::select! {
            biased;
            early = far.read(&mut seen) => panic!("{early:?} before the flush"),
            () = ready(()) => {}
        }
        client.flush().await.unwrap();
        let count = far.read(&mut seen).await.unwrap();
        assert_eq!(&seen[..count], b"header, body");
    }

    #[tokio::test]
    async fn a_long_piece_follows_what_waits_without_a_flush() {
        let (near, mut far) = duplex(1 << 16);
        let mut client = Buffered::new(Box::new(near));
        let long = vec![7; BYTES_MAX];
        client.write_all(b"header").await.unwrap();
        client.write_all(&long).await.unwrap();
        let mut seen = vec![0; 6 + long.len()];
        far.read_exact(&mut seen).await.unwrap();
        assert_eq!((&seen[..6], &seen[6..]), (&b"header"[..], &long[..]));
    }

    #[tokio::test]
    async fn shutdown_sends_what_waits() {
        let (near, mut far) = duplex(64);
        let mut client = Buffered::new(Box::new(near));
        client.write_all(b"last words").await.unwrap();
        Shutdown::shutdown(&mut client).await;
        drop(client);
        let mut seen = String::new();
        far.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "last words");
    }
}
