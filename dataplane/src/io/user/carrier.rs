//! The worker's side: takes what tasks want to its flows, and what flows have to tasks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::datagrams::PREFIX;
use super::pipe::{ABORT, BROKEN, CONNECTED, Chunk, EOF, GONE, Inbox, Pipe, SHUT};
use crate::flow::{
    Config, Connect, Counters, Ended, FlowId, Flows, Happened, Protocol, RecvError, SendError,
};
use crate::packet::Offload;

/// Tasks that are served in one turn, so that packets have theirs.
const SERVED: usize = 256;
/// Headers of a UDP packet: IPv4 or IPv6, and UDP.
const UDP_V4: u16 = 28;
const UDP_V6: u16 = 48;

/// The flows of one worker with their pipes.
#[derive(Debug)]
pub(in crate::io) struct Carrier {
    flows: Flows,
    linger: Duration,
    inbox: Arc<Inbox>,
    /// By place of the flow.
    carried: Vec<Option<Carried>>,
    /// Datagrams of tasks that found a full buffer.
    lost_datagrams: u64,
}

/// One flow of a task.
#[derive(Debug)]
struct Carried {
    id: FlowId,
    pipe: Arc<Pipe>,
    /// A chunk that was taken and did not fit the flow's buffer as a whole.
    partial: Option<Chunk>,
    is_shut: bool,
    /// The task is gone, and has left something to send.
    is_leaving: bool,
}

impl Carrier {
    pub(in crate::io) fn new(config: Config, inbox: Arc<Inbox>, now: Instant) -> Self {
        Self {
            linger: config.linger,
            flows: Flows::new(config, now),
            inbox,
            carried: Vec::new(),
            lost_datagrams: 0,
        }
    }

    /// Does what tasks have asked for. `mtu` says that of the way from a source to an origin.
    /// True when there is more, and the worker should come again soon.
    pub(in crate::io) fn serve(
        &mut self,
        mtu: &dyn Fn(IpAddr, IpAddr) -> u16,
        now: Instant,
    ) -> bool {
        self.inbox.wake_seen();
        for _ in 0..SERVED {
            let Some(pipe) = self.inbox.next() else {
                return false;
            };
            match pipe.place() {
                Some(index) => self.attend(index, &pipe, now),
                None => self.open(pipe, mtu, now),
            }
        }
        !self.inbox.is_empty()
    }

    /// A packet for one of the flows.
    pub(in crate::io) fn handle_packet(&mut self, packet: &[u8], offload: Offload, now: Instant) {
        self.flows.handle_packet(packet, offload, now);
    }

    /// Tells tasks what has happened, and takes what they have waiting. To be called after packets
    /// and the time. True when something had happened.
    pub(in crate::io) fn tell(&mut self, now: Instant) -> bool {
        let mut is_told = false;
        while let Some(event) = self.flows.poll_event() {
            is_told = true;
            let index = event.flow.index();
            let Some(carried) = self.carried.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            match event.what {
                Happened::Connected => carried.pipe.say(CONNECTED),
                Happened::Readable => self.pump_down(index, now),
                Happened::Writable => self.pump_up(index),
                Happened::Ended(ended) => {
                    carried.pipe.set_error(ended.into());
                    carried.pipe.say(BROKEN);
                    carried.partial = None;
                    self.pump_down(index, now);
                }
            }
            self.leave(index, now);
        }
        is_told
    }

    /// The next packet for the node.
    pub(in crate::io) fn poll_transmit(&mut self, now: Instant) -> Option<(&mut [u8], Offload)> {
        self.flows.poll_transmit(now)
    }

    pub(in crate::io) fn poll_timeout(&self) -> Option<Instant> {
        self.flows.poll_timeout()
    }

    pub(in crate::io) fn handle_timeout(&mut self, now: Instant) {
        self.flows.handle_timeout(now);
    }

    pub(in crate::io) fn counters(&self) -> Counters {
        let mut counters = self.flows.counters();
        counters.tx_datagrams_lost += self.lost_datagrams;
        counters
    }

    fn open(&mut self, pipe: Arc<Pipe>, mtu: &dyn Fn(IpAddr, IpAddr) -> u16, now: Instant) {
        self.inbox.opened();
        if pipe.asks() & (GONE | ABORT) != 0 {
            return pipe.fail(Ended::Released.into());
        }
        let wanted = pipe.wanted;
        let mtu = mtu(wanted.source, wanted.to.ip());
        let connect = Connect {
            protocol: wanted.protocol,
            source: wanted.source,
            to: wanted.to,
            mtu,
            within: wanted.within,
        };
        let id = match self.flows.connect(&connect, now) {
            Ok(id) => id,
            Err(why) => return pipe.fail(why.into()),
        };
        let headers = if wanted.to.is_ipv4() { UDP_V4 } else { UDP_V6 };
        if let Some(local) = self.flows.local(id) {
            pipe.set_local(local, usize::from(mtu - headers));
        }
        let index = id.index();
        pipe.set_place(index);
        if self.carried.len() <= index {
            self.carried.resize_with(index + 1, || None);
        }
        if wanted.protocol == Protocol::Udp {
            pipe.say(CONNECTED);
        }
        self.carried[index] = Some(Carried {
            id,
            pipe: Arc::clone(&pipe),
            partial: None,
            is_shut: false,
            is_leaving: false,
        });
        // The task may have gone meanwhile.
        self.attend(index, &pipe, now);
    }

    /// Does for one task what it wants: room in the ring down, chunks in the ring up, an end.
    fn attend(&mut self, index: usize, pipe: &Arc<Pipe>, now: Instant) {
        let Some(carried) = self.carried.get(index).and_then(Option::as_ref) else {
            return;
        };
        // A task that was here before, and had a last word.
        if !Arc::ptr_eq(&carried.pipe, pipe) {
            return;
        }
        // Before the ring: everything that came before the wish is in it.
        let asks = carried.pipe.asks();
        let id = carried.id;
        if asks & ABORT != 0 {
            self.flows.abort(id);
            self.carried[index] = None;
            return;
        }
        self.pump_up(index);
        if asks & GONE == 0 {
            return self.pump_down(index, now);
        }
        if let Some(carried) = self.carried.get_mut(index).and_then(Option::as_mut)
            && !carried.is_leaving
        {
            carried.is_leaving = true;
            self.flows.expire_at(id, now + self.linger);
        }
        self.leave(index, now);
    }

    /// Releases a flow without a task, when all that the task has left is with the flow.
    fn leave(&mut self, index: usize, now: Instant) {
        let is_over = |carried: &mut Carried| carried.is_leaving && carried.partial.is_none();
        let Some(carried) = self.carried.get_mut(index) else {
            return;
        };
        if let Some(carried) = carried.take_if(is_over) {
            self.flows.release(carried.id, now);
        }
    }

    /// Task to flow.
    fn pump_up(&mut self, index: usize) {
        let Some(carried) = self.carried.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let pipe = &carried.pipe;
        let asks = pipe.asks();
        let mut has_taken = false;
        while let Some(mut chunk) = carried.partial.take().or_else(|| {
            let chunk = pipe.take_up();
            has_taken |= chunk.is_some();
            chunk
        }) {
            match self.flows.send(carried.id, chunk.filled()) {
                Ok(taken) => {
                    chunk.consume(taken);
                    if chunk.filled().is_empty() {
                        self.inbox.give_back(chunk);
                    } else {
                        carried.partial = Some(chunk);
                        break;
                    }
                }
                Err(SendError::Full) if pipe.wanted.protocol == Protocol::Tcp => {
                    carried.partial = Some(chunk);
                    break;
                }
                Err(SendError::Full | SendError::TooLong(_) | SendError::Ended) => {
                    if pipe.wanted.protocol == Protocol::Udp {
                        self.lost_datagrams += 1;
                    }
                    self.inbox.give_back(chunk);
                }
            }
        }
        if has_taken {
            pipe.wake_writer();
        }
        if carried.partial.is_none() && asks & SHUT != 0 && !carried.is_shut {
            carried.is_shut = true;
            self.flows.shutdown(carried.id);
        }
    }

    /// Flow to task.
    fn pump_down(&mut self, index: usize, now: Instant) {
        let Some(carried) = self.carried.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let pipe = &carried.pipe;
        while !pipe.has_said(EOF) && pipe.has_room_down() {
            let mut chunk = self.inbox.chunk();
            let (id, flows) = (carried.id, &mut self.flows);
            let end = match pipe.wanted.protocol {
                Protocol::Tcp => fill_stream(flows, id, &mut chunk, now),
                Protocol::Udp => fill_datagrams(flows, (id, pipe.payload_max()), &mut chunk, now),
            };
            if chunk.filled().is_empty() {
                self.inbox.give_back(chunk);
            } else {
                pipe.put_down(chunk);
            }
            match end {
                None => {}
                Some(RecvError::Empty) => return,
                Some(RecvError::Ended(ended)) => {
                    if ended != Ended::Finished {
                        pipe.set_error(ended.into());
                    }
                    pipe.say(EOF);
                }
            }
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.inbox.close();
        for carried in self.carried.iter().flatten() {
            carried.pipe.fail(Ended::Released.into());
        }
    }
}

/// Fills a chunk with what a stream has; `None` when it is full.
fn fill_stream(
    flows: &mut Flows,
    id: FlowId,
    chunk: &mut Chunk,
    now: Instant,
) -> Option<RecvError> {
    while !chunk.room().is_empty() {
        match flows.recv(id, chunk.room(), now) {
            Ok(0) => return Some(RecvError::Ended(Ended::Finished)),
            Ok(len) => chunk.fill(len),
            Err(end) => return Some(end),
        }
    }
    None
}

/// Fills a chunk with datagrams, each behind its length; `None` when no other would fit.
fn fill_datagrams(
    flows: &mut Flows,
    (id, payload_max): (FlowId, usize),
    chunk: &mut Chunk,
    now: Instant,
) -> Option<RecvError> {
    while chunk.room().len() >= PREFIX + payload_max {
        match flows.recv(id, &mut chunk.room()[PREFIX..], now) {
            Ok(len) => {
                let prefix = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
                chunk.room()[..PREFIX].copy_from_slice(&prefix);
                chunk.fill(PREFIX + len);
            }
            Err(end) => return Some(end),
        }
    }
    None
}
