//! All flows of a worker: their face, and what is done for each of them in turn.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smoltcp::iface::Interface;
use smoltcp::time::Instant as StackTime;

use super::counters::Counters;
use super::face::{
    Config, Connect, ConnectError, Ended, Event, FlowId, Happened, Protocol, RecvError, SendError,
};
use super::link::{self, Frame, Replies};
use super::table::{Table, keyed};
use super::tcp::{Cause, News, Tcp};
use super::udp::Udp;
use super::wheel::Wheel;
use crate::packet::Offload;

/// MTUs that a flow may have: those that a tunnel may be configured for.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 576..=9000;

/// The flows of one worker.
///
/// Give it packets and the time. After each batch take everything from `poll_transmit`, then from
/// `poll_event`, then wait no longer than `poll_timeout`. Flows that have something to send take
/// turns, a packet each; the packets of one flow are in order.
pub struct Flows {
    pub(super) config: Config,
    pub(super) epoch: Instant,
    pub(super) table: Table<Flow>,
    pub(super) frame: Frame,
    pub(super) replies: Replies,
    pub(super) fronts: Vec<Front>,
    pub(super) counters: Counters,
    wheel: Wheel,
    /// Flows that may have a packet to send.
    active: VecDeque<u32>,
    /// Flows that have something to tell.
    telling: VecDeque<u32>,
}

/// What flows of one MTU share. Cardinality: one per MTU in use, at most the range of MTUs.
pub(super) struct Front {
    mtu: u16,
    pub(super) interface: Interface,
}

/// One flow.
pub(super) struct Flow {
    pub(super) kind: Kind,
    /// The place of its front.
    pub(super) front: usize,
    /// When a connect, or a flow without an owner, is given up.
    deadline: Option<Instant>,
    pub(super) ended: Option<Ended>,
    told: News,
    pub(super) is_released: bool,
    is_active: bool,
    is_telling: bool,
}

/// What a flow carries.
pub(super) enum Kind {
    Tcp(Box<Tcp>),
    Udp(Box<Udp>),
}

impl Flows {
    /// No flows yet.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            table: Table::new(config.flows_max, config.secret),
            epoch: now,
            frame: Frame::new(),
            replies: Replies::new(),
            fronts: Vec::new(),
            counters: Counters::default(),
            wheel: Wheel::new(now),
            active: VecDeque::new(),
            telling: VecDeque::new(),
            config,
        }
    }

    /// Opens a flow. TCP begins to connect, and [`Happened::Connected`] or [`Happened::Ended`]
    /// follows; UDP can be used at once.
    ///
    /// # Errors
    /// [`ConnectError`], counted: nothing has been opened.
    pub fn connect(&mut self, connect: &Connect, now: Instant) -> Result<FlowId, ConnectError> {
        if !MTU_RANGE.contains(&connect.mtu) {
            return Err(ConnectError::Mtu(connect.mtu));
        }
        let front = self.front(connect.mtu);
        let seed = (self.config.secret, self.counters.opened);
        let (config, frame) = (&self.config, &mut self.frame);
        let opened = self.table.open(connect, |key| {
            let kind = match connect.protocol {
                // An interface of its own for the one number that has to be random.
                Protocol::Tcp => {
                    let seed = keyed(seed.0, &(key, seed.1));
                    let mut interface = link::interface(connect.mtu, seed, frame);
                    let tcp = Tcp::connect(&key, config, &mut interface);
                    Kind::Tcp(Box::new(tcp.expect("the table checked the addresses")))
                }
                Protocol::Udp => {
                    Kind::Udp(Box::new(Udp::new(&key, connect.mtu, config.buffer_bytes)))
                }
            };
            Flow::new(kind, front)
        });
        let id = match opened {
            Ok(id) => id,
            Err(why) => {
                match why {
                    ConnectError::Full(_) => self.counters.refused_full += 1,
                    ConnectError::PortsExhausted { .. } => self.counters.refused_ports += 1,
                    ConnectError::Unaddressable(..) | ConnectError::Mtu(_) => {}
                }
                return Err(why);
            }
        };
        self.counters.opened += 1;
        // Here, so that no packet has to: each flow is in each queue once.
        self.wheel.admit(id.index);
        let open = self.table.len();
        self.active.reserve(open.saturating_sub(self.active.len()));
        self.telling
            .reserve(open.saturating_sub(self.telling.len()));
        if connect.protocol == Protocol::Tcp {
            let deadline = now + connect.within;
            if let Some((_, flow)) = self.table.named(id) {
                flow.deadline = Some(deadline);
            }
            self.wheel.set_by(id.index, deadline);
            self.activate(id.index);
        }
        Ok(id)
    }

    /// The address and port that a flow has here.
    pub fn local(&mut self, id: FlowId) -> Option<SocketAddr> {
        self.table.named(id).map(|(key, _)| key.local)
    }

    /// Gives bytes of the stream, of which as many are taken as there is room for, or one datagram.
    ///
    /// # Errors
    /// [`SendError`]; nothing has been taken.
    pub fn send(&mut self, id: FlowId, bytes: &[u8]) -> Result<usize, SendError> {
        let (_, flow) = self.table.named(id).ok_or(SendError::Ended)?;
        if flow.ended.is_some() {
            return Err(SendError::Ended);
        }
        let taken = match &mut flow.kind {
            Kind::Tcp(tcp) => tcp.send(bytes),
            Kind::Udp(udp) => udp.send(bytes),
        }?;
        self.activate(id.index);
        Ok(taken)
    }

    /// Takes bytes of the stream, where zero is its end, or one datagram.
    ///
    /// # Errors
    /// [`RecvError`]: there is nothing to take.
    pub fn recv(&mut self, id: FlowId, into: &mut [u8], now: Instant) -> Result<usize, RecvError> {
        let at = self.stack_time(now);
        let (_, flow) = self
            .table
            .named(id)
            .ok_or(RecvError::Ended(Ended::Released))?;
        let (received, is_due) = match &mut flow.kind {
            Kind::Tcp(tcp) => {
                let received = tcp.recv(into);
                let interface = &mut self.fronts[flow.front].interface;
                // Room in the buffer may be news to the other side.
                let is_due =
                    received.is_ok() && tcp.poll_at(interface, at).is_some_and(|due| due <= at);
                (received, is_due)
            }
            Kind::Udp(udp) => (udp.recv(into), false),
        };
        let received = received.map_err(|why| match (why, flow.ended) {
            (RecvError::Empty, None) => RecvError::Empty,
            (_, Some(ended)) => RecvError::Ended(ended),
            (RecvError::Ended(ended), None) => RecvError::Ended(ended),
        });
        if is_due {
            self.activate(id.index);
        }
        received
    }

    /// Says that nothing more will be sent. TCP tells the other side; what it sends still arrives.
    pub fn shutdown(&mut self, id: FlowId) {
        if let Some((_, flow)) = self.table.named(id)
            && let Kind::Tcp(tcp) = &mut flow.kind
        {
            tcp.shutdown();
            self.activate(id.index);
        }
    }

    /// Gives a flow up. A stream sends what it has and says that it ends, for which it may take
    /// the configured time; one that does not connect, or has something unread, is reset.
    pub fn release(&mut self, id: FlowId, now: Instant) {
        self.leave(id, Some(now + self.config.linger));
    }

    /// Gives a flow up at once. A stream is reset.
    pub fn abort(&mut self, id: FlowId) {
        self.leave(id, None);
    }

    /// Ends a flow at `at`, unless it is gone by then.
    pub fn expire_at(&mut self, id: FlowId, at: Instant) {
        if let Some((_, flow)) = self.table.named(id) {
            flow.deadline = Some(at);
            self.wheel.set_by(id.index, at);
        }
    }

    fn leave(&mut self, id: FlowId, deadline: Option<Instant>) {
        let Some((_, flow)) = self.table.named(id) else {
            return;
        };
        flow.is_released = true;
        if let Kind::Tcp(tcp) = &mut flow.kind {
            match deadline {
                Some(deadline) if !tcp.is_connecting() && !tcp.has_unread() => {
                    tcp.shutdown();
                    flow.deadline = Some(deadline);
                    self.wheel.set_by(id.index, deadline);
                }
                _ => tcp.abort(),
            }
        }
        self.activate(id.index);
    }

    /// The next packet for the node, and what is left to do on it.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(&mut [u8], Offload)> {
        self.frame.clear();
        if !self.replies.pop(&mut self.frame) {
            while self.frame.is_empty() {
                let index = self.active.pop_front()?;
                self.emit(index, now);
            }
        }
        self.counters.tx_packets += 1;
        let offload = self.frame.finish();
        Some((self.frame.packet(), offload))
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            let index = *self.telling.front()?;
            let next = self.table.at(index).and_then(|(_, flow)| flow.next_event());
            if let Some(what) = next {
                let flow = self.table.id(index);
                return Some(Event { flow, what });
            }
            self.telling.pop_front();
        }
    }

    /// When [`Flows::handle_timeout`] wants to be called; `None` when nothing is ever due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wheel.due()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(index) = self.wheel.expire(now) {
            let Some((_, flow)) = self.table.at(index) else {
                continue;
            };
            if flow.deadline.is_some_and(|deadline| deadline <= now) {
                flow.deadline = None;
                if let Kind::Tcp(tcp) = &mut flow.kind {
                    tcp.abort();
                }
                self.end(index, Ended::TimedOut);
            }
            self.activate(index);
        }
    }

    /// What has been counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let open = u64::try_from(self.table.len()).unwrap_or(u64::MAX);
        Counters {
            open,
            ..self.counters
        }
    }

    /// Lets one flow put a packet into the frame, and sees to when it is its turn again.
    fn emit(&mut self, index: u32, now: Instant) {
        let at = self.stack_time(now);
        let Some((key, flow)) = self.table.at(index) else {
            return;
        };
        if !std::mem::take(&mut flow.is_active) {
            return;
        }
        let deadline = flow.deadline;
        let mut due = None;
        let is_done = match &mut flow.kind {
            Kind::Tcp(tcp) => {
                let interface = &mut self.fronts[flow.front].interface;
                tcp.emit(interface, &mut self.frame, at);
                due = tcp.poll_at(interface, at);
                tcp.is_done()
            }
            Kind::Udp(udp) => {
                if udp.emit(key, &mut self.frame) {
                    due = Some(at);
                }
                udp.is_done()
            }
        };
        if flow.is_released && is_done {
            self.wheel.remove(index);
            self.table.close(index);
            return;
        }
        self.look(index, Cause::Time);
        if due.is_some_and(|due| due <= at) && !self.frame.is_empty() {
            self.activate(index);
            return;
        }
        // Never twice at once: a flow that is due and has nothing to send would go on for ever.
        let due = due.map(|due| {
            let micros = u64::try_from(due.total_micros()).unwrap_or(0);
            self.epoch + Duration::from_micros(micros)
        });
        for at in [due, deadline].into_iter().flatten() {
            self.wheel.set_by(index, at);
        }
    }

    /// Finds out what is new with a flow, and tells its owner.
    pub(super) fn look(&mut self, index: u32, cause: Cause) {
        let Some((_, flow)) = self.table.at(index) else {
            return;
        };
        let news = match &mut flow.kind {
            Kind::Tcp(tcp) => tcp.look(cause),
            Kind::Udp(udp) => News {
                is_readable: udp.look(),
                ..News::default()
            },
        };
        if news == News::default() {
            return;
        }
        if news.is_connected {
            flow.deadline = None;
        }
        if flow.is_released {
            // Nobody will read it: the other side shall know (RFC 2525 section 2.17).
            if let Kind::Tcp(tcp) = &mut flow.kind
                && tcp.has_unread()
            {
                tcp.abort();
                self.activate(index);
            }
            return;
        }
        flow.told.is_connected |= news.is_connected;
        flow.told.is_readable |= news.is_readable;
        flow.told.is_writable |= news.is_writable;
        self.tell(index);
        if let Some(ended) = news.ended {
            self.end(index, ended);
        }
    }

    /// Marks a flow as ended, once, and tells its owner.
    pub(super) fn end(&mut self, index: u32, ended: Ended) {
        let Some((_, flow)) = self.table.at(index) else {
            return;
        };
        if flow.ended.is_none() && !flow.is_released {
            flow.ended = Some(ended);
            flow.told.ended = Some(ended);
            self.tell(index);
        }
    }

    /// Gives a flow a turn.
    pub(super) fn activate(&mut self, index: u32) {
        if let Some((_, flow)) = self.table.at(index)
            && !flow.is_active
        {
            flow.is_active = true;
            self.active.push_back(index);
        }
    }

    pub(super) fn stack_time(&self, now: Instant) -> StackTime {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        StackTime::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn tell(&mut self, index: u32) {
        if let Some((_, flow)) = self.table.at(index)
            && !flow.is_telling
        {
            flow.is_telling = true;
            self.telling.push_back(index);
        }
    }

    fn front(&mut self, mtu: u16) -> usize {
        let known = self.fronts.iter().position(|front| front.mtu == mtu);
        known.unwrap_or_else(|| {
            let interface = link::interface(mtu, 0, &mut self.frame);
            self.fronts.push(Front { mtu, interface });
            self.fronts.len() - 1
        })
    }
}

impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flows")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Flow {
    fn new(kind: Kind, front: usize) -> Self {
        Self {
            kind,
            front,
            deadline: None,
            ended: None,
            told: News::default(),
            is_released: false,
            is_active: false,
            is_telling: false,
        }
    }

    /// What is to be told next: the end last.
    fn next_event(&mut self) -> Option<Happened> {
        let told = &mut self.told;
        if std::mem::take(&mut told.is_connected) {
            return Some(Happened::Connected);
        }
        if std::mem::take(&mut told.is_readable) {
            return Some(Happened::Readable);
        }
        if std::mem::take(&mut told.is_writable) {
            return Some(Happened::Writable);
        }
        self.is_telling = false;
        told.ended.take().map(Happened::Ended)
    }
}
