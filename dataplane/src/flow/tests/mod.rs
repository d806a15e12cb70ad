//! Flows against smoltcp as a whole host, against hand-made packets, and against etherparse.

mod attack;
pub(crate) mod host;
mod scaling;
mod tcp;
pub(crate) mod udp;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::*;
use crate::io::clock;
use crate::packet::{Offload, Segmentation, Segments};

const MTU: u16 = 1420;

/// Flows, the time, and the packets they have sent, each as it would leave a tunnel.
struct Bed {
    flows: Flows,
    now: Instant,
    sent: Vec<Vec<u8>>,
}

fn bed() -> Bed {
    with(|_| {})
}

fn with(change: impl FnOnce(&mut Config)) -> Bed {
    let now = clock::now();
    let mut config = Config::new([7, 11]);
    change(&mut config);
    Bed {
        flows: Flows::new(config, now),
        now,
        sent: Vec::new(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Bed {
    fn connect(&mut self, protocol: Protocol, source: &str, origin: &str) -> FlowId {
        let connect = Connect {
            protocol,
            source: ip(source),
            to: to(origin),
            mtu: MTU,
            within: Duration::from_secs(5),
        };
        self.flows.connect(&connect, self.now).unwrap()
    }

    /// Takes all that there is to send, cuts it as the node does, and has etherparse check it.
    fn drain(&mut self) {
        while let Some((packet, offload)) = self.flows.poll_transmit(self.now) {
            let mut segments = Segments::new(packet, offload).unwrap();
            assert!(segments.len_max() <= usize::from(MTU));
            let mut piece = [0; 2048];
            while let Some(len) = segments.next_into(&mut piece) {
                check(&piece[..len]);
                self.sent.push(piece[..len].to_vec());
            }
        }
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        self.drain();
        std::mem::take(&mut self.sent)
    }

    fn give(&mut self, packet: &[u8]) {
        self.flows.handle_packet(packet, Offload::NONE, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.flows.handle_timeout(self.now);
    }

    fn events(&mut self) -> Vec<Happened> {
        let flows = &mut self.flows;
        std::iter::from_fn(|| flows.poll_event())
            .map(|event| event.what)
            .collect()
    }

    /// Everything that a flow has for its owner, to the end if there is one.
    fn read(&mut self, flow: FlowId) -> (Vec<u8>, RecvError) {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.flows.recv(flow, &mut buffer, self.now) {
                Ok(0) => return (all, RecvError::Ended(Ended::Finished)),
                Ok(len) => all.extend_from_slice(&buffer[..len]),
                Err(why) => return (all, why),
            }
        }
    }
}

/// Lengths and checksums, as another implementation sees them.
fn check(packet: &[u8]) {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let net = sliced.net.unwrap();
    if let NetSlice::Ipv4(v4) = &net {
        let header = v4.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    match (sliced.transport.unwrap(), &net) {
        (TransportSlice::Tcp(tcp), NetSlice::Ipv4(v4)) => {
            let header = v4.header();
            let sum = tcp.calc_checksum_ipv4(header.source(), header.destination());
            assert_eq!(tcp.checksum(), sum.unwrap());
        }
        (TransportSlice::Tcp(tcp), NetSlice::Ipv6(v6)) => {
            let header = v6.header();
            let sum = tcp.calc_checksum_ipv6(header.source(), header.destination());
            assert_eq!(tcp.checksum(), sum.unwrap());
        }
        (TransportSlice::Udp(udp), net) => {
            let header = udp.to_header();
            let sum = match net {
                NetSlice::Ipv4(v4) => {
                    header.calc_checksum_ipv4(&v4.header().to_header(), udp.payload())
                }
                NetSlice::Ipv6(v6) => {
                    header.calc_checksum_ipv6(&v6.header().to_header(), udp.payload())
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(udp.checksum(), sum.unwrap());
        }
        (transport, _) => panic!("{transport:?}"),
    }
}

/// A generator of numbers for tests: xorshift64* (Vigna, 2016).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.throw() >> 33 & 0x3ff < chance * 1024 / 100
    }
}

/// Bytes in which a lost, doubled or moved piece shows.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut dice = Dice(9);
    (0..len).map(|_| dice.throw().to_be_bytes()[0]).collect()
}
