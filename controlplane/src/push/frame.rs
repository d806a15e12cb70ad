//! Frames: four bytes of length, most significant first, and so many bytes of JSON.

use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

/// Longest frame to a node: an object is at most as long as the request that made it (1 MiB), and a
/// step goes in frames of [`PART_BYTES`] otherwise.
pub(super) const TO_NODE_BYTES_MAX: usize = 4 << 20;

/// Longest frame from a node: some hundred refusals of a few hundred bytes.
pub(super) const FROM_NODE_BYTES_MAX: usize = 256 << 10;

/// A frame of a long step is full from so many bytes of objects on.
pub(super) const PART_BYTES: usize = 128 << 10;

/// From the first byte of a frame to its last. Slower peers are cut off: they would hold their buffer for
/// ever.
const FRAME_WITHIN: Duration = Duration::from_secs(10);

/// Longest wait for the peer to take a frame.
const SENT_WITHIN: Duration = Duration::from_secs(30);

const LENGTH_BYTES: usize = 4;

/// Why no more frames come or go.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The peer closed, between two frames.
    #[error("the other side closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    /// The peer announced more than it may.
    #[error("a frame of {bytes} bytes is longer than the {max} that there may be")]
    TooLong {
        /// What was announced.
        bytes: usize,
        /// What may be.
        max: usize,
    },
    /// The peer is too slow.
    #[error("a frame took longer than {0:?}")]
    TooSlow(Duration),
    /// Nothing was heard for too long.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// The frame is not what was agreed.
    #[error("a frame cannot be understood: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// The receiving end. Its buffer grows with what has arrived, not with what was announced.
#[derive(Debug)]
pub(super) struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
    /// How much of the buffer the last frame was.
    taken: usize,
    bytes_max: usize,
    frame_within: Duration,
    /// When the first byte of the frame under way came.
    since: Option<Instant>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(super) fn new(stream: S, bytes_max: usize) -> Reader<S> {
        Reader {
            stream,
            buffer: Vec::new(),
            taken: 0,
            bytes_max,
            frame_within: FRAME_WITHIN,
            since: None,
        }
    }

    /// The next frame; waits at most `silence` for something to arrive.
    pub(super) async fn next(&mut self, silence: Duration) -> Result<&[u8], FrameError> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.len() < LENGTH_BYTES {
            // What one long frame needed is not kept for all that come.
            self.buffer.shrink_to(PART_BYTES);
        }
        loop {
            if let Some(end) = self.complete()? {
                self.since = None;
                self.taken = end;
                return Ok(&self.buffer[LENGTH_BYTES..end]);
            }
            let now = Instant::now();
            if !self.buffer.is_empty() && self.since.is_none() {
                self.since = Some(now);
            }
            let (deadline, late) = match self.since {
                Some(since) => {
                    let within = self.frame_within;
                    (since + within, FrameError::TooSlow(within))
                }
                None => (now + silence, FrameError::Silent(silence)),
            };
            let read = timeout_at(deadline, self.stream.read_buf(&mut self.buffer)).await;
            match read.map_err(|_elapsed| late)?? {
                0 if self.buffer.is_empty() => return Err(FrameError::Closed),
                0 => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                _ => {}
            }
        }
    }

    /// Where the frame ends that the buffer begins with, when it is there whole.
    fn complete(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let max = self.bytes_max;
        let bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if bytes > max {
            return Err(FrameError::TooLong { bytes, max });
        }
        let end = LENGTH_BYTES + bytes;
        Ok((self.buffer.len() >= end).then_some(end))
    }
}

/// A message as a frame. Longer than `bytes_max` it is none.
pub(super) fn encode(message: &impl Serialize, bytes_max: usize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut frame, message)?;
    let bytes = frame.len() - LENGTH_BYTES;
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= bytes_max);
    let Some(length) = length else {
        return Err(FrameError::TooLong {
            bytes,
            max: bytes_max,
        });
    };
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Sends a frame whole.
pub(super) async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    frame: &[u8],
) -> Result<(), FrameError> {
    let sent = async {
        stream.write_all(frame).await?;
        stream.flush().await
    };
    match tokio::time::timeout(SENT_WITHIN, sent).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(FrameError::TooSlow(SENT_WITHIN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let messages = ["a", "", "ccc"];
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(encode(&message, 100).unwrap());
        }
        for piece in 1..bytes.len() {
            let (mut near, far) = tokio::io::duplex(piece);
            let all = bytes.clone();
            let sender = tokio::spawn(async move { near.write_all(&all).await.unwrap() });
            let mut reader = Reader::new(far, 100);
            for message in messages {
                let frame = reader.next(SILENCE).await.unwrap();
                assert_eq!(serde_json::from_slice::<String>(frame).unwrap(), message);
            }
            sender.await.unwrap();
            assert!(matches!(
                reader.next(SILENCE).await,
                Err(FrameError::Closed)
            ));
        }
    }

    #[tokio::test]
    async fn an_announced_length_is_refused_before_anything_is_allocated_for_it() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let mut reader = Reader::new(far, 1000);
        let refused = reader.next(SILENCE).await.unwrap_err();
        assert!(matches!(refused, FrameError::TooLong { max: 1000, .. }));
        assert!(reader.buffer.capacity() < 1000);
    }

    #[tokio::test]
    async fn one_byte_at_a_time_is_cut_off_at_the_frames_deadline() {
        let (mut near, far) = tokio::io::duplex(64);
        let slow = tokio::spawn(async move {
            let frame = encode(&"x".repeat(90), 100).unwrap();
            for byte in frame {
                if near.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let mut reader = Reader::new(far, 100);
        reader.frame_within = Duration::from_millis(100);
        let cut = reader.next(SILENCE).await.unwrap_err();
        assert!(matches!(cut, FrameError::TooSlow(_)), "{cut}");
        slow.abort();
    }

    #[tokio::test]
    async fn silence_is_noticed() {
        let (_near, far) = tokio::io::duplex(64);
        let mut reader = Reader::new(far, 100);
        let silent = reader.next(Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(silent, FrameError::Silent(_)), "{silent}");
    }
}
