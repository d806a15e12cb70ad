//! Userspace flows between two threads: the worker that carries them, and the tasks that use them.
//!
//! In: an [`Opener`] opens a [`Stream`] or [`Datagrams`] from a source address, and the task reads
//! and writes it. Out: packets of the worker's [`crate::flow::Flows`]. State: each flow has one pipe
//! (`pipe.rs`) that both sides hold: bounded rings of chunks each way, wakers, and flags. The worker
//! (`carrier.rs`) owns everything else.
//!
//! Neither side ever waits for a lock of the other. A task that wants something puts its pipe into
//! the worker's inbox, once, and wakes it by an eventfd unless it is awake; the worker wakes a task
//! by its waker. A chunk that has been emptied goes back to the inbox and is used again.

mod carrier;
mod datagrams;
mod pipe;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use datagrams::Datagrams;
pub use stream::{Reader, Stream, Writer};

pub(super) use carrier::Carrier;
pub(super) use pipe::Inbox;

use crate::flow::{ConnectError, Ended, Protocol};
use crate::program::Tables;
use crate::source;

/// Opens flows to private origins, from any thread. Clones are the same.
#[derive(Clone, Debug)]
pub struct Opener {
    tables: Arc<Tables>,
    /// One of each worker, in order.
    inboxes: Arc<[Arc<Inbox>]>,
}

/// Why a flow was not opened, or is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// It was not opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The source address is not one of this node.
    #[error("{0} is not a source address of this node")]
    NotOurs(IpAddr),
    /// The worker is gone, or too many flows are being opened.
    #[error("the packet worker takes no more flows")]
    NoWorker,
}

impl Opener {
    pub(super) fn new(tables: Arc<Tables>, inboxes: Vec<Arc<Inbox>>) -> Self {
        Self {
            tables,
            inboxes: inboxes.into(),
        }
    }

    /// Opens a stream from a source address, which names the vnet.
    ///
    /// # Errors
    /// [`FlowError`] as an [`io::Error`] of the kind that a kernel socket would give.
    pub async fn tcp(
        &self,
        source: IpAddr,
        to: SocketAddr,
        within: Duration,
    ) -> io::Result<Stream> {
        let wanted = pipe::Wanted {
            protocol: Protocol::Tcp,
            source,
            to,
            within,
        };
        Stream::connect(self.inbox(source)?, wanted).await
    }

    /// Opens a flow of datagrams from a source address, which names the vnet.
    ///
    /// # Errors
    /// As for [`Opener::tcp`].
    pub async fn udp(&self, source: IpAddr, to: SocketAddr) -> io::Result<Datagrams> {
        let wanted = pipe::Wanted {
            protocol: Protocol::Udp,
            source,
            to,
            within: Duration::ZERO,
        };
        Datagrams::open(self.inbox(source)?, wanted).await
    }

    /// The inbox of the worker that a source address belongs to.
    fn inbox(&self, address: IpAddr) -> Result<&Arc<Inbox>, FlowError> {
        let v4 = match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => source::to_v4(v6),
        };
        v4.and_then(|v4| self.tables.returns.lookup(v4))
            .and_then(|owner| self.inboxes.get(usize::from(owner.worker.0)))
            .ok_or(FlowError::NotOurs(address))
    }
}

impl From<FlowError> for io::Error {
    fn from(error: FlowError) -> Self {
        let kind = match error {
            FlowError::Connect(_) | FlowError::NotOurs(_) => io::ErrorKind::AddrNotAvailable,
            FlowError::NoWorker | FlowError::Ended(Ended::Released | Ended::Finished) => {
                io::ErrorKind::BrokenPipe
            }
            FlowError::Ended(Ended::Refused) => io::ErrorKind::ConnectionRefused,
            FlowError::Ended(Ended::Reset) => io::ErrorKind::ConnectionReset,
            FlowError::Ended(Ended::TimedOut) => io::ErrorKind::TimedOut,
            FlowError::Ended(Ended::Unreachable) => io::ErrorKind::HostUnreachable,
        };
        Self::new(kind, error)
    }
}
