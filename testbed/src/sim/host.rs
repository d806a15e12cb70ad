//! A host in memory: one smoltcp interface with one TCP socket, client or origin.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Instant;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackTime;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

/// Bytes of a socket's buffer, each way.
const BUFFER: usize = 64 * 1024;
/// Largest packet.
const MTU: usize = 1420;

/// What the host's one socket is for.
#[derive(Debug)]
enum Part {
    /// Connects, reads, and keeps what it reads.
    Client {
        to: (Ipv4Addr, u16),
        received: Vec<u8>,
    },
    /// Listens, and writes its name for as long as it is read.
    Origin {
        port: u16,
        name: Vec<u8>,
        written: usize,
    },
}

/// A host with one address and one socket.
pub struct Host {
    address: Ipv4Addr,
    part: Part,
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    start: Option<Instant>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("address", &self.address)
            .field("part", &self.part)
            .finish()
    }
}

impl Host {
    /// A client that connects to `origin` and reads what it is told.
    #[must_use]
    pub fn client(address: Ipv4Addr, origin: Ipv4Addr, port: u16, seed: u64) -> Host {
        Host::new(
            address,
            Part::Client {
                to: (origin, port),
                received: Vec::new(),
            },
            seed,
        )
    }

    /// An origin that says its name for as long as somebody reads.
    #[must_use]
    pub fn origin(address: Ipv4Addr, port: u16, name: &str) -> Host {
        Host::new(
            address,
            Part::Origin {
                port,
                name: name.into(),
                written: 0,
            },
            1,
        )
    }

    fn new(address: Ipv4Addr, part: Part, seed: u64) -> Host {
        let mut queues = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, StackTime::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::Ipv4(address), 32))
                .expect("an interface has room for one address");
        });
        interface
            .routes_mut()
            .add_default_ipv4_route(Ipv4Addr::new(10, 0, 0, 1))
            .expect("an interface has room for one route");
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Host {
            address,
            part,
            queues,
            interface,
            sockets,
            socket,
            start: None,
        }
    }

    /// Whether a packet is for this host.
    #[must_use]
    pub fn owns(&self, packet: &[u8]) -> bool {
        packet.len() >= 20 && packet[16..20] == self.address.octets()
    }

    /// A packet arrives.
    pub fn give(&mut self, packet: Vec<u8>) {
        self.queues.received.push_back(packet);
    }

    /// What a client was told so far; an origin was told nothing.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        match &self.part {
            Part::Client { received, .. } => received,
            Part::Origin { .. } => &[],
        }
    }

    /// Acts, and returns the packets to send.
    ///
    /// # Panics
    /// When smoltcp refuses to connect or to listen, which it does only for port 0.
    pub fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let elapsed = now.duration_since(*self.start.get_or_insert(now));
        let time = StackTime::ZERO + smoltcp::time::Duration::from(elapsed);
        self.interface
            .poll(time, &mut self.queues, &mut self.sockets);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        match &mut self.part {
            Part::Client { to, received } => {
                if !socket.is_open() && received.is_empty() {
                    let to = (IpAddress::Ipv4(to.0), to.1);
                    socket
                        .connect(self.interface.context(), to, 40_000)
                        .expect("an open port and a closed socket");
                }
                while socket.can_recv() {
                    let read = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
                    received.extend(read.expect("there is something to read"));
                }
            }
            Part::Origin {
                port,
                name,
                written,
            } => {
                if !socket.is_open() {
                    socket.listen(*port).expect("a port that is not 0");
                }
                while socket.can_send() {
                    let rest = &name[*written % name.len()..];
                    *written += socket.send_slice(rest).expect("there is room to write");
                }
            }
        }
        self.interface
            .poll(time, &mut self.queues, &mut self.sockets);
        std::mem::take(&mut self.queues.sent)
    }
}

/// The host's link: packets in, packets out.
#[derive(Debug, Default)]
struct Queues {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Device for Queues {
    type RxToken<'a> = Packet;
    type TxToken<'a> = Link<'a>;

    fn receive(&mut self, _: StackTime) -> Option<(Packet, Link<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Packet(packet), Link(&mut self.sent)))
    }

    fn transmit(&mut self, _: StackTime) -> Option<Link<'_>> {
        Some(Link(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// A packet on its way into the stack.
#[derive(Debug)]
struct Packet(Vec<u8>);

impl RxToken for Packet {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// A place for a packet on its way out of the stack.
#[derive(Debug)]
struct Link<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Link<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}
