//! One question to one resolver: over UDP, and over TCP when the answer does not fit.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::message::{Answer, Question, Read};
use crate::handoff::{Datagrams, Handoff, Way};

/// Room for an answer over UDP: more than is asked for, and an Ethernet frame's worth.
const DATAGRAM_BYTES: usize = 1_500;

/// Datagrams that are not the answer before the question is given up: somebody is guessing.
const WRONG_MAX: usize = 16;

/// Asks, and waits for `udp` for an answer over UDP; for one over TCP the caller sets the bound.
///
/// # Errors
/// The system's, `TimedOut`, or `InvalidData` when what comes is no answer.
pub(super) async fn ask(
    handoff: &Handoff,
    (way, to): (Way, SocketAddr),
    question: &Question,
    udp: Duration,
) -> io::Result<Answer> {
    let bytes = question.bytes().ok_or(io::ErrorKind::InvalidInput)?;
    let over_udp = async {
        let datagrams = handoff.udp(way, to).await?;
        datagrams.writable().await?;
        datagrams.try_send(&bytes)?;
        receive(&datagrams, question).await
    };
    match tokio::time::timeout(udp, over_udp).await?? {
        Some(answer) => Ok(answer),
        None => over_tcp(handoff, (way, to), question, &bytes).await,
    }
}

/// The answer; `None` when it is longer than a datagram.
async fn receive(datagrams: &Datagrams, question: &Question) -> io::Result<Option<Answer>> {
    let mut buffer = [0; DATAGRAM_BYTES];
    let mut wrong = 0;
    while wrong < WRONG_MAX {
        datagrams.readable().await?;
        let length = match datagrams.try_recv(&mut buffer) {
            Ok(length) => length,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => continue,
            Err(why) => return Err(why),
        };
        match question.read(&buffer[..length]) {
            Read::NotOurs => wrong += 1,
            Read::Truncated => return Ok(None),
            Read::Answer(answer) => return Ok(Some(answer)),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// RFC 7766: a length of two bytes before each message.
async fn over_tcp(
    handoff: &Handoff,
    (way, to): (Way, SocketAddr),
    question: &Question,
    bytes: &[u8],
) -> io::Result<Answer> {
    let mut stream = handoff.tcp(way, to, super::RESOLVE_MAX).await?;
    let length = u16::try_from(bytes.len()).map_err(|_too_long| io::ErrorKind::InvalidInput)?;
    stream
        .write_all(&[&length.to_be_bytes(), bytes].concat())
        .await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    match question.read(&message) {
        Read::Answer(answer) => Ok(answer),
        Read::NotOurs | Read::Truncated => Err(io::ErrorKind::InvalidData.into()),
    }
}
