//! One TCP flow: a smoltcp socket in a set of its own.

use smoltcp::iface::{Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{
    CongestionControl, RecvError as StackRecv, Socket, SocketBuffer, State,
};
use smoltcp::time::{Duration as StackDuration, Instant as StackTime};
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

use super::face::{Config, Ended, RecvError, SendError};
use super::link::{Frame, Link};
use super::table::Key;

/// The part of the buffer that has to be free before a writer is told: telling him for each byte
/// would make him write byte by byte.
const WRITABLE_PART: usize = 4;

/// A TCP flow. Cardinality: one per connection.
pub(super) struct Tcp {
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    /// The state at the last look: it tells how a closed socket came to be so.
    seen: State,
    /// The sender was given less than he wanted.
    wants_room: bool,
    /// The receiver knows that there is something, and has not yet found nothing.
    is_readable_told: bool,
}

/// What a look at a flow found to be new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) is_connected: bool,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    pub(super) ended: Option<Ended>,
}

/// What made us look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Packet,
    Time,
}

impl Tcp {
    /// A flow that begins to connect with its next packet. `interface` gives the sequence number.
    pub(super) fn connect(key: &Key, config: &Config, interface: &mut Interface) -> Option<Self> {
        let buffer = || SocketBuffer::new(vec![0; config.buffer_bytes]);
        let mut tcp = Socket::new(buffer(), buffer());
        // Requests and answers are written whole: waiting for more to send, or to acknowledge,
        // would only delay them.
        tcp.set_nagle_enabled(false);
        tcp.set_ack_delay(None);
        tcp.set_congestion_control(CongestionControl::Cubic);
        tcp.set_keep_alive(Some(stack_duration(config.keepalive)));
        tcp.set_timeout(Some(stack_duration(config.silence_max)));
        let remote = IpEndpoint::new(key.remote.ip().into(), key.remote.port());
        let local = IpListenEndpoint {
            addr: Some(key.local.ip().into()),
            port: key.local.port(),
        };
        tcp.connect(interface.context(), remote, local).ok()?;
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let socket = sockets.add(tcp);
        Some(Self {
            sockets,
            socket,
            seen: State::SynSent,
            wants_room: false,
            is_readable_told: false,
        })
    }

    /// Takes a packet; an immediate answer is in the frame.
    pub(super) fn handle(
        &mut self,
        interface: &mut Interface,
        packet: &[u8],
        frame: &mut Frame,
        at: StackTime,
    ) {
        let mut link = Link {
            mtu: 0,
            rx: Some(packet),
            tx: frame,
        };
        interface.poll_ingress_single(at, &mut link, &mut self.sockets);
    }

    /// Puts the next packet into the frame, if there is one.
    pub(super) fn emit(&mut self, interface: &mut Interface, frame: &mut Frame, at: StackTime) {
        let mut link = Link {
            mtu: 0,
            rx: None,
            tx: frame,
        };
        interface.poll_egress(at, &mut link, &mut self.sockets);
    }

    /// When it wants to emit.
    pub(super) fn poll_at(&self, interface: &mut Interface, at: StackTime) -> Option<StackTime> {
        interface.poll_at(at, &self.sockets)
    }

    /// What is new since the last look.
    pub(super) fn look(&mut self, cause: Cause) -> News {
        let before = self.seen;
        let state = self.socket().state();
        self.seen = state;
        let mut news = News::default();
        if state == State::SynSent {
            return news;
        }
        news.is_connected = before == State::SynSent && state != State::Closed;
        if before != state {
            news.ended = ended(before, state, cause);
        }
        let has_end = !self.socket().may_recv() && state != State::Closed;
        if !self.is_readable_told && (has_end || self.socket().recv_queue() > 0) {
            self.is_readable_told = true;
            news.is_readable = true;
        }
        if self.wants_room && self.has_room() {
            self.wants_room = false;
            news.is_writable = true;
        }
        news
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, SendError> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        if !socket.may_send() && socket.state() != State::SynSent {
            return Err(SendError::Ended);
        }
        // An error is a connection that is not there yet: it comes with room.
        let taken = socket.send_slice(bytes).unwrap_or(0);
        self.wants_room |= taken < bytes.len();
        if taken == 0 && !bytes.is_empty() {
            return Err(SendError::Full);
        }
        Ok(taken)
    }

    /// Zero is the end of the stream.
    pub(super) fn recv(&mut self, into: &mut [u8]) -> Result<usize, RecvError> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        let received = socket.recv_slice(into);
        if socket.recv_queue() == 0 && socket.may_recv() {
            self.is_readable_told = false;
        }
        match received {
            Ok(0) => Err(RecvError::Empty),
            Ok(len) => Ok(len),
            Err(StackRecv::Finished) => Ok(0),
            Err(StackRecv::InvalidState) if self.is_connecting() => Err(RecvError::Empty),
            Err(StackRecv::InvalidState) => Err(RecvError::Ended(Ended::Reset)),
        }
    }

    pub(super) fn shutdown(&mut self) {
        self.sockets.get_mut::<Socket<'_>>(self.socket).close();
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.seen == State::SynSent
    }

    pub(super) fn abort(&mut self) {
        self.sockets.get_mut::<Socket<'_>>(self.socket).abort();
        self.seen = State::Closed;
    }

    /// Whether something has arrived that nobody has taken.
    pub(super) fn has_unread(&self) -> bool {
        self.socket().recv_queue() > 0
    }

    /// Whether nothing is left to say to the other side. A flow does not stay in TIME-WAIT: its
    /// port comes back after all others, and its sequence number cannot be guessed.
    pub(super) fn is_done(&self) -> bool {
        let socket = self.socket();
        match socket.state() {
            State::Closed => socket.remote_endpoint().is_none(),
            State::TimeWait => true,
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => false,
        }
    }

    fn has_room(&self) -> bool {
        let socket = self.socket();
        let room = socket.send_capacity() - socket.send_queue();
        !socket.may_send() || room >= socket.send_capacity() / WRITABLE_PART
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get::<Socket<'_>>(self.socket)
    }
}

/// How a flow came to its end, if `state` is one.
fn ended(before: State, state: State, cause: Cause) -> Option<Ended> {
    match (before, state, cause) {
        (_, State::TimeWait, _)
        | (State::LastAck | State::Closing | State::TimeWait, State::Closed, _) => {
            Some(Ended::Finished)
        }
        (State::SynSent, State::Closed, Cause::Packet) => Some(Ended::Refused),
        (_, State::Closed, Cause::Packet) => Some(Ended::Reset),
        (_, State::Closed, Cause::Time) => Some(Ended::TimedOut),
        (
            _,
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck,
            _,
        ) => None,
    }
}

fn stack_duration(duration: std::time::Duration) -> StackDuration {
    StackDuration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
