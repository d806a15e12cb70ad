//! What the owners of flows say and hear.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

/// What a worker's flows may use.
///
/// Memory: a flow takes at most `buffer_bytes` for each direction, touched as it is used, and about
/// one KiB besides. 8192 flows of 64 KiB each way: at most one GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Flows at one time.
    pub flows_max: usize,
    /// Bytes that wait in a flow, each way; also the window that TCP offers.
    pub buffer_bytes: usize,
    /// Silence after which a TCP flow asks whether the other side is there.
    pub keepalive: Duration,
    /// Silence after which a TCP flow ends.
    pub silence_max: Duration,
    /// How long a TCP flow whose owner is gone may take to end by itself (`tcp_fin_timeout`).
    pub linger: Duration,
    /// What makes sequence numbers and ports unguessable (RFC 6528, RFC 6056).
    pub secret: [u64; 2],
}

impl Config {
    /// The defaults. The silences are those of the proxy's kernel connections.
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        Self {
            flows_max: 8192,
            buffer_bytes: 64 << 10,
            keepalive: Duration::from_secs(30),
            silence_max: Duration::from_secs(90),
            linger: Duration::from_secs(60),
            secret,
        }
    }
}

/// A flow. The name is not used again when the flow is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl FlowId {
    /// Its place among the flows of its worker: below [`Config::flows_max`], and another flow's when
    /// this one is gone.
    ///
    /// # Panics
    /// Never: usize has at least 32 bits here.
    #[must_use]
    pub fn index(self) -> usize {
        usize::try_from(self.index).expect("usize has at least 32 bits")
    }
}

/// What a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A stream.
    Tcp,
    /// Datagrams, to and from one address.
    Udp,
}

/// The flow that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// What it carries.
    pub protocol: Protocol,
    /// The source address: it names the vnet.
    pub source: IpAddr,
    /// The origin.
    pub to: SocketAddr,
    /// The tunnel's MTU.
    pub mtu: u16,
    /// How long TCP may take to connect.
    pub within: Duration,
}

/// Why there is no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// All flows are in use.
    #[error("all {0} flows of this worker are in use: raise the limit, or close some")]
    Full(usize),
    /// All ports are in use.
    #[error(
        "all {ports} ports from {source_address} to {to} are in use: one source address carries \
         no more connections to one origin"
    )]
    PortsExhausted {
        /// How many there are.
        ports: usize,
        /// From where.
        source_address: IpAddr,
        /// To where.
        to: SocketAddr,
    },
    /// Nobody can be at that address.
    #[error("no flow leads from {0} to {1}: port 0, or addresses of two families")]
    Unaddressable(IpAddr, SocketAddr),
    /// The tunnel's MTU.
    #[error("an MTU of {0} leaves no room for packets: it lies between 576 and 9000")]
    Mtu(u16),
}

/// Why nothing was taken from the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The flow, or its sending half, has ended.
    #[error("the flow has ended")]
    Ended,
    /// A datagram that does not fit into one packet of the tunnel.
    #[error("a datagram of this length does not fit: at most {0} bytes do")]
    TooLong(usize),
    /// No room: for a stream [`Happened::Writable`] follows, a datagram is lost.
    #[error("the flow's buffer is full")]
    Full,
}

/// Why nothing was given to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// Nothing is there: [`Happened::Readable`] follows.
    #[error("nothing has arrived")]
    Empty,
    /// Nothing is there, and nothing will come.
    #[error("the flow has ended: {0}")]
    Ended(Ended),
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Both sides said that they were done.
    #[error("both sides are done")]
    Finished,
    /// The other side refused the connection, or the datagram's port.
    #[error("the origin refused it")]
    Refused,
    /// The other side broke it off.
    #[error("the origin reset it")]
    Reset,
    /// No answer to the connect, or silence.
    #[error("the origin does not answer")]
    TimedOut,
    /// A router said that there is no way.
    #[error("there is no route to the origin")]
    Unreachable,
    /// The owner broke it off, or does not know it.
    #[error("it was released")]
    Released,
}

/// Something happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// To which.
    pub flow: FlowId,
    /// What.
    pub what: Happened,
}

/// What can happen to a flow. Each is said once, until the owner has acted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It is connected.
    Connected,
    /// Bytes, a datagram or the end can be received: receive until [`RecvError::Empty`].
    Readable,
    /// There is room again after a send that took less than it was given.
    Writable,
    /// It is over; what arrived before can still be received.
    Ended(Ended),
}
