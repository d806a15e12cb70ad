//! A packet from the node: which flow it is for, and what the flow makes of it.

use std::net::SocketAddr;
use std::time::Instant;

use super::face::Protocol;
use super::icmp;
use super::stack::{Flows, Kind};
use super::table::Key;
use super::tcp::Cause;
use crate::packet::{Offload, Segmentation};
use crate::wire::checksum::Sum;
use crate::wire::ip::{Inner, TCP, UDP, word};

/// The shortest TCP header, and the UDP header.
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const RST: u8 = 0x04;
const SYN: u8 = 0x02;
const FIN: u8 = 0x01;
const ACK: u8 = 0x10;

impl Flows {
    /// Takes a packet, or a super-packet, that the node delivers to a source address.
    pub fn handle_packet(&mut self, packet: &[u8], offload: Offload, now: Instant) {
        self.counters.rx_packets += 1;
        let Ok(inner) = Inner::parse(packet) else {
            self.counters.rx_malformed += 1;
            return;
        };
        let packet = &packet[..inner.total_len];
        let Some((remote, local)) = inner.ports.filter(|_| !inner.is_fragment) else {
            self.handle_other(packet, &inner);
            return;
        };
        let l4 = &packet[inner.l4_offset..];
        let (protocol, header) = match inner.protocol {
            TCP => (Protocol::Tcp, TCP_HEADER),
            _ => (Protocol::Udp, UDP_HEADER),
        };
        if l4.len() < header {
            self.counters.rx_malformed += 1;
            return;
        }
        // What the node has joined, it has verified before.
        if offload.checksum.is_none() && !is_intact(l4, &inner) {
            self.counters.rx_checksum += 1;
            return;
        }
        let key = Key {
            protocol,
            local: SocketAddr::new(inner.dst, local),
            remote: SocketAddr::new(inner.src, remote),
        };
        match (self.table.find(&key), protocol) {
            (Some(index), Protocol::Tcp) => self.handle_tcp(index, packet, now),
            (Some(index), Protocol::Udp) => self.handle_udp(index, l4, offload),
            (None, protocol) => {
                self.counters.rx_unknown += 1;
                if protocol == Protocol::Tcp {
                    self.refuse(&key, l4);
                }
            }
        }
    }

    fn handle_tcp(&mut self, index: u32, packet: &[u8], now: Instant) {
        let at = self.stack_time(now);
        let Some((_, flow)) = self.table.at(index) else {
            return;
        };
        let Kind::Tcp(tcp) = &mut flow.kind else {
            return;
        };
        let interface = &mut self.fronts[flow.front].interface;
        self.frame.clear();
        tcp.handle(interface, packet, &mut self.frame, at);
        if !self.frame.is_empty() && !self.replies.push(&mut self.frame) {
            self.counters.tx_replies_lost += 1;
        }
        self.look(index, Cause::Packet);
        self.activate(index);
    }

    fn handle_udp(&mut self, index: u32, l4: &[u8], offload: Offload) {
        let Some((_, flow)) = self.table.at(index) else {
            return;
        };
        let Kind::Udp(udp) = &mut flow.kind else {
            return;
        };
        // The length field of a super-packet, like that of a packet, ends the payload.
        let len = usize::from(word(l4, 4)).clamp(UDP_HEADER, l4.len());
        let payload = &l4[UDP_HEADER..len];
        let mut lost = 0;
        match offload.segmentation {
            Segmentation::Udp => {
                for datagram in payload.chunks(usize::from(offload.segment_size).max(1)) {
                    lost += u64::from(!udp.handle(datagram));
                }
            }
            Segmentation::None | Segmentation::Tcp => lost = u64::from(!udp.handle(payload)),
        }
        self.counters.rx_datagrams_lost += lost;
        self.look(index, Cause::Packet);
    }

    /// Neither TCP nor UDP: an ICMP error perhaps.
    fn handle_other(&mut self, packet: &[u8], inner: &Inner) {
        let Some((key, ended)) = icmp::verdict(packet, inner) else {
            self.counters.rx_malformed += 1;
            return;
        };
        let Some(index) = self.table.find(&key) else {
            self.counters.rx_unknown += 1;
            return;
        };
        self.counters.icmp_errors += 1;
        let Some((_, flow)) = self.table.at(index) else {
            return;
        };
        match &mut flow.kind {
            // To a connection such an error is a hint, and hints can be wrong (RFC 1122, 4.2.3.9).
            Kind::Tcp(tcp) if !tcp.is_connecting() => {}
            Kind::Tcp(tcp) => {
                tcp.abort();
                self.end(index, ended);
                self.activate(index);
            }
            Kind::Udp(_) => self.end(index, ended),
        }
    }

    /// Answers a segment that no flow is for by a reset (RFC 9293 section 3.10.7.1).
    fn refuse(&mut self, key: &Key, l4: &[u8]) {
        let flags = l4[13];
        if flags & RST != 0 {
            return;
        }
        let header = usize::from(l4[12] >> 4) * 4;
        let Some(payload) = l4.get(header.max(TCP_HEADER)..) else {
            return;
        };
        let long = |at: usize| u32::from_be_bytes([l4[at], l4[at + 1], l4[at + 2], l4[at + 3]]);
        let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let len = u32::try_from(payload.len()).unwrap_or(0);
        let (seq, ack, answer) = if flags & ACK != 0 {
            (long(8), 0, RST)
        } else {
            (0, long(4).wrapping_add(len + controls), RST | ACK)
        };
        self.frame.clear();
        self.frame.fill_segment(key, seq, ack, answer);
        if !self.replies.push(&mut self.frame) {
            self.counters.tx_replies_lost += 1;
        }
    }
}

/// Whether the checksum of TCP or UDP holds; UDP over IPv4 may have none (RFC 768).
fn is_intact(l4: &[u8], inner: &Inner) -> bool {
    if inner.protocol == UDP && inner.version == 4 && word(l4, 6) == 0 {
        return true;
    }
    let sum = Sum::pseudo(inner.src, inner.dst, inner.protocol, l4.len());
    sum.bytes(l4).checksum() == 0
}
