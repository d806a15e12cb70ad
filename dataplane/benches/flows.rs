//! Userspace flows: a request and its answer over one of many open connections.
//!
//! One operation is a whole transaction on our side: send 128 bytes, make the packet, take the
//! packet with the answer of 128 bytes, tell the owner, receive, make the acknowledgement. All open
//! connections take turns, so that nothing is warm that would not be. The origin is a prepared
//! packet whose numbers are put right, checksum included (about 20 ns, counted in). The peer is
//! smoltcp as its documentation shows it: one interface, one set with all sockets, `poll`.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use dataplane::flow::{Config, Connect, FlowId, Flows, Protocol};
use dataplane::io::clock;
use dataplane::packet::Offload;
use dataplane::wire::checksum::Sum;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackTime;
use smoltcp::wire::{HardwareAddress, IpCidr};

const MTU: u16 = 1420;
const SOURCE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const ORIGIN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
/// Bytes of a request, and of an answer.
const MESSAGE: usize = 128;
/// Of each connection, each way, for both subjects: small, so that 100,000 fit into 2 GiB.
const BUFFER: usize = 4096;
/// One source address has 64,512 ports to one origin.
const FLOWS_PER_ORIGIN: usize = 50_000;
/// Transactions in one measurement: enough turns that timers are part of it.
const TURNS: usize = 1000;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    let mut group = criterion.benchmark_group("flows/transaction");
    group.throughput(Throughput::Elements(widen(TURNS)));
    for (count, name) in [(1, "1"), (1000, "1k"), (100_000, "100k")] {
        let mut bench = None;
        group.bench_function(BenchmarkId::new("portcullis", name), |b| {
            let ours = bench.get_or_insert_with(|| Ours::new(count));
            b.iter_batched(|| (), |()| ours.turns(), BatchSize::PerIteration);
        });
    }
    // At 100k one transaction of the peer takes milliseconds.
    for (count, name) in [(1, "1"), (1000, "1k")] {
        let mut bench = None;
        group.bench_function(BenchmarkId::new("smoltcp-one-set", name), |b| {
            let shared = bench.get_or_insert_with(|| Shared::new(count));
            b.iter_batched(|| (), |()| shared.turns(), BatchSize::PerIteration);
        });
    }
    group.finish();
    criterion.final_summary();
}

/// The origin's side of a connection: its next packet but for the numbers.
struct Peer {
    packet: [u8; 40 + MESSAGE],
    /// The sum of everything but sequence and acknowledgement numbers.
    sum: Sum,
    seq: u32,
    ack: u32,
}

impl Peer {
    /// Answers the SYN with its SYN and ACK.
    fn answering(syn: &[u8]) -> (Self, Vec<u8>) {
        let mut packet = [0; 40 + MESSAGE];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&narrow(40 + MESSAGE).to_be_bytes());
        (packet[8], packet[9]) = (64, 6);
        packet[12..16].copy_from_slice(&syn[16..20]);
        packet[16..20].copy_from_slice(&syn[12..16]);
        put_ip_sum(&mut packet);
        packet[20..22].copy_from_slice(&syn[22..24]);
        packet[22..24].copy_from_slice(&syn[20..22]);
        (packet[32], packet[33]) = (5 << 4, 0x10);
        packet[34..36].copy_from_slice(&60_000_u16.to_be_bytes());
        let ack = u32::from_be_bytes([syn[24], syn[25], syn[26], syn[27]]).wrapping_add(1);
        let (from, to) = addresses(&packet);
        let mut peer = Self {
            sum: Sum::pseudo(from, to, 6, 20 + MESSAGE).bytes(&packet[20..]),
            packet,
            seq: 1000,
            ack,
        };
        let mut hello = peer.packet[..40].to_vec();
        hello[2..4].copy_from_slice(&40_u16.to_be_bytes());
        put_ip_sum(&mut hello);
        hello[24..28].copy_from_slice(&999_u32.to_be_bytes());
        hello[28..32].copy_from_slice(&peer.ack.to_be_bytes());
        hello[33] = 0x12;
        let sum = Sum::pseudo(from, to, 6, 20).bytes(&hello[20..]).checksum();
        hello[36..38].copy_from_slice(&sum.to_be_bytes());
        peer.seq = 1000;
        (peer, hello)
    }

    fn answer(&mut self) -> &[u8] {
        self.ack = self
            .ack
            .wrapping_add(u32::try_from(MESSAGE).expect("small"));
        self.packet[24..28].copy_from_slice(&self.seq.to_be_bytes());
        self.packet[28..32].copy_from_slice(&self.ack.to_be_bytes());
        let sum = self.sum.bytes(&self.packet[24..32]).checksum();
        self.packet[36..38].copy_from_slice(&sum.to_be_bytes());
        self.seq = self
            .seq
            .wrapping_add(u32::try_from(MESSAGE).expect("small"));
        &self.packet
    }
}

/// Our flows, all connected.
struct Ours {
    flows: Flows,
    now: Instant,
    clients: Vec<(FlowId, Peer)>,
    next: usize,
}

impl Ours {
    fn new(count: usize) -> Self {
        let now = clock::now();
        let mut config = Config::new([1, 2]);
        (config.flows_max, config.buffer_bytes) = (count, BUFFER);
        let mut flows = Flows::new(config, now);
        let mut clients = Vec::new();
        for i in 0..count {
            let [.., last] = narrow(i / FLOWS_PER_ORIGIN).to_be_bytes();
            let origin = Ipv4Addr::new(10, 0, last, 50);
            let connect = Connect {
                protocol: Protocol::Tcp,
                source: SOURCE.into(),
                to: SocketAddr::new(origin.into(), 80),
                mtu: MTU,
                within: Duration::from_secs(5),
            };
            let flow = flows.connect(&connect, now).expect("there is room");
            let (syn, _) = flows.poll_transmit(now).expect("a SYN");
            let (peer, hello) = Peer::answering(syn);
            flows.handle_packet(&hello, Offload::NONE, now);
            while flows.poll_transmit(now).is_some() {}
            while flows.poll_event().is_some() {}
            clients.push((flow, peer));
        }
        Self {
            flows,
            now,
            clients,
            next: 0,
        }
    }

    fn turns(&mut self) {
        for _ in 0..TURNS {
            let Self {
                flows,
                now,
                clients,
                next,
            } = self;
            *now += Duration::from_micros(2);
            let count = clients.len();
            let (flow, peer) = &mut clients[*next];
            *next = (*next + 1) % count;
            flows.send(*flow, &[1; MESSAGE]).expect("room");
            while let Some((packet, _)) = flows.poll_transmit(*now) {
                black_box(packet);
            }
            flows.handle_packet(peer.answer(), Offload::NONE, *now);
            let mut buffer = [0; MESSAGE * 2];
            while let Some(event) = flows.poll_event() {
                let received = flows.recv(event.flow, &mut buffer, *now);
                assert_eq!(received, Ok(MESSAGE));
            }
            while let Some((packet, _)) = flows.poll_transmit(*now) {
                black_box(packet);
            }
            if flows.poll_timeout().is_some_and(|due| due <= *now) {
                flows.handle_timeout(*now);
            }
        }
    }
}

/// The peer: all sockets in one set.
struct Shared {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    clients: Vec<(SocketHandle, Peer)>,
    next: usize,
    time: StackTime,
}

impl Shared {
    fn new(count: usize) -> Self {
        let mut wire = Wire::default();
        let config = smoltcp::iface::Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut wire, StackTime::ZERO);
        interface.update_ip_addrs(|all| {
            let source = IpCidr::new(IpAddr::V4(SOURCE).into(), 0);
            all.push(source).expect("room for one address");
        });
        let mut sockets = SocketSet::new(Vec::new());
        let mut clients = Vec::new();
        for i in 0..count {
            let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_nagle_enabled(false);
            socket.set_ack_delay(None);
            let to = (IpAddr::V4(ORIGIN), 80);
            let connected = socket.connect(interface.context(), to, narrow(i) + 1024);
            connected.expect("a fresh socket");
            let handle = sockets.add(socket);
            interface.poll(StackTime::ZERO, &mut wire, &mut sockets);
            let (peer, hello) = Peer::answering(&wire.tx);
            wire.rx.push_back(hello);
            interface.poll(StackTime::ZERO, &mut wire, &mut sockets);
            clients.push((handle, peer));
        }
        Self {
            interface,
            sockets,
            wire,
            clients,
            next: 0,
            time: StackTime::ZERO,
        }
    }

    fn turns(&mut self) {
        for _ in 0..TURNS {
            self.time += smoltcp::time::Duration::from_micros(2);
            let count = self.clients.len();
            let (handle, peer) = &mut self.clients[self.next];
            let handle = *handle;
            self.next = (self.next + 1) % count;
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
            socket.send_slice(&[1; MESSAGE]).expect("room");
            let mut packet = self.wire.spare.pop().unwrap_or_default();
            packet.clear();
            packet.extend_from_slice(peer.answer());
            self.interface
                .poll(self.time, &mut self.wire, &mut self.sockets);
            self.wire.rx.push_back(packet);
            self.interface
                .poll(self.time, &mut self.wire, &mut self.sockets);
            let mut buffer = [0; MESSAGE * 2];
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
            assert_eq!(socket.recv_slice(&mut buffer), Ok(MESSAGE));
        }
    }
}

/// The peer's device: packets in a queue, the last packet sent.
#[derive(Default)]
struct Wire {
    rx: VecDeque<Vec<u8>>,
    tx: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl Device for Wire {
    type RxToken<'a> = Packet<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: StackTime) -> Option<(Packet<'_>, Room<'_>)> {
        let packet = self.rx.pop_front()?;
        Some((Packet(packet, &mut self.spare), Room(&mut self.tx)))
    }

    fn transmit(&mut self, _: StackTime) -> Option<Room<'_>> {
        Some(Room(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut all = DeviceCapabilities::default();
        all.medium = Medium::Ip;
        all.max_transmission_unit = usize::from(MTU);
        all
    }
}

struct Packet<'a>(Vec<u8>, &'a mut Vec<Vec<u8>>);

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.0);
        self.1.push(self.0);
        result
    }
}

struct Room<'a>(&'a mut Vec<u8>);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.clear();
        self.0.resize(len, 0);
        black_box(f(self.0))
    }
}

fn addresses(packet: &[u8]) -> (IpAddr, IpAddr) {
    let at = |i: usize| {
        let octets: [u8; 4] = packet[i..i + 4].try_into().expect("four bytes");
        IpAddr::from(octets)
    };
    (at(12), at(16))
}

fn put_ip_sum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = Sum::new().bytes(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn narrow(len: usize) -> u16 {
    u16::try_from(len).expect("a small number")
}

fn widen(len: usize) -> u64 {
    u64::try_from(len).expect("usize is at most 64 bits")
}
