//! An origin: a whole smoltcp host with one listening socket.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as StackTime;
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::MTU;

/// What an origin does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Sends back what it receives, and ends when the other side does.
    Echo,
    /// Sends a text, ends, and reads what comes.
    Say(&'static [u8]),
    /// Does nothing.
    Sit,
}

pub(crate) struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    pub(crate) socket: SocketHandle,
    queues: Queues,
    start: Instant,
    habit: Habit,
    pub(crate) received: Vec<u8>,
    to_send: VecDeque<u8>,
}

impl Host {
    pub(crate) fn new(at: SocketAddr, habit: Habit, now: Instant) -> Self {
        let mut queues = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 5;
        let mut interface = Interface::new(config, &mut queues, StackTime::ZERO);
        interface.update_ip_addrs(|all| {
            all.push(IpCidr::new(at.ip().into(), 0)).unwrap();
        });
        let buffer = || SocketBuffer::new(vec![0; 65_536]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.listen(at.port()).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Self {
            interface,
            sockets,
            socket,
            queues,
            start: now,
            habit,
            received: Vec::new(),
            to_send: match habit {
                Habit::Say(text) => text.iter().copied().collect(),
                Habit::Echo | Habit::Sit => VecDeque::new(),
            },
        }
    }

    pub(crate) fn give(&mut self, packet: Vec<u8>) {
        self.queues.received.push_back(packet);
    }

    pub(crate) fn tcp(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut::<Socket<'_>>(self.socket)
    }

    /// Acts, and gives the packets to send.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let time = StackTime::ZERO + smoltcp::time::Duration::from(now - self.start);
        self.interface
            .poll(time, &mut self.queues, &mut self.sockets);
        self.act();
        self.interface
            .poll(time, &mut self.queues, &mut self.sockets);
        std::mem::take(&mut self.queues.sent)
    }

    fn act(&mut self) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        if self.habit == Habit::Sit || socket.is_listening() {
            return;
        }
        let is_echo = self.habit == Habit::Echo;
        while (!is_echo || self.to_send.len() < 65_536) && socket.can_recv() {
            let read = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            if is_echo {
                self.to_send.extend(&read);
            }
            self.received.extend(read);
        }
        while socket.can_send() && !self.to_send.is_empty() {
            let (front, _) = self.to_send.as_slices();
            let sent = socket.send_slice(front).unwrap();
            self.to_send.drain(..sent);
        }
        let is_over = !is_echo || (!socket.may_recv() && socket.is_active());
        if is_over && self.to_send.is_empty() && socket.may_send() {
            socket.close();
        }
    }
}

#[derive(Default)]
struct Queues {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Device for Queues {
    type RxToken<'a> = Packet;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: StackTime) -> Option<(Packet, Room<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Packet(packet), Room(&mut self.sent)))
    }

    fn transmit(&mut self, _: StackTime) -> Option<Room<'_>> {
        Some(Room(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut all = DeviceCapabilities::default();
        all.medium = Medium::Ip;
        all.max_transmission_unit = usize::from(MTU);
        all
    }
}

struct Packet(Vec<u8>);

impl RxToken for Packet {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Room<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}
