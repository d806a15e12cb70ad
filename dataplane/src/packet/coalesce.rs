//! Joins packets of one flow into super-packets, by the kernel's GRO rules.
//!
//! What `tcp_gro_receive` and `udp_gro_receive_segment` (net/ipv4/tcp_offload.c, udp_offload.c)
//! join is joined, nothing else: cutting a super-packet gives back the packets that went in. A
//! packet that cannot join ends the super-packet of its flow first, so a flow stays in order.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::wire::checksum::Sum;
use crate::wire::ip::{Inner, TCP, UDP, put_word, word};

use super::split::{flags, set_ip_checksum, tcp_payload, udp_payload};
use super::{Exit, Offload, Segmentation};

/// Flows that may grow at one time. Packets of more flows go alone.
pub(super) const FLOWS_MAX: usize = 64;
/// Segments of one super-packet (`UDP_GRO_CNT_MAX` of net/ipv4/udp_offload.c).
pub(super) const SEGMENTS_MAX: usize = 64;
/// The longest super-packet: what the length field of IPv4 can say.
const SUPER_LEN_MAX: usize = 65_535;
/// Bytes for packets that go alone: two batches of 16 super-buffers where nothing joins.
const SINGLES_BYTES_MAX: usize = 2 << 20;
/// Packets in the queue: 16 receive buffers of 64 segments where nothing joins, twice.
const QUEUE_MAX: usize = 2048;

/// The part of an outbox that leaves by TUN devices. Cardinality: one per worker.
pub(super) struct Coalescer {
    slab: Vec<u8>,
    supers: Vec<Super>,
    free: Vec<usize>,
    /// Supers that may grow, with the hash of their flow.
    open: Vec<(u32, usize)>,
    singles: Vec<u8>,
    singles_len: usize,
    singles_queued: usize,
    /// What there is to send, oldest first.
    queue: VecDeque<Entry>,
}

#[derive(Clone, Copy)]
enum Entry {
    Super(usize),
    Single {
        exit: Exit,
        start: usize,
        len: usize,
        offload: Offload,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    /// Packets for different devices are of different networks, whatever their addresses say.
    exit: Exit,
    src: IpAddr,
    dst: IpAddr,
    ports: (u16, u16),
    protocol: u8,
}

#[derive(Clone, Copy)]
struct Super {
    shape: Shape,
    len: usize,
    segments: usize,
}

/// What the coalescer has to know of a packet that may join others.
#[derive(Clone, Copy)]
struct Shape {
    flow: Flow,
    l4_offset: usize,
    header_len: usize,
    payload_len: usize,
}

impl Coalescer {
    pub(super) fn new() -> Self {
        let nowhere = IpAddr::from([0, 0, 0, 0]);
        let flow = Flow {
            exit: Exit::Overlay,
            src: nowhere,
            dst: nowhere,
            ports: (0, 0),
            protocol: 0,
        };
        let shape = Shape {
            flow,
            l4_offset: 0,
            header_len: 0,
            payload_len: 0,
        };
        Self {
            slab: vec![0; FLOWS_MAX * SUPER_LEN_MAX],
            supers: vec![
                Super {
                    shape,
                    len: 0,
                    segments: 0
                };
                FLOWS_MAX
            ],
            free: (0..FLOWS_MAX).rev().collect(),
            open: Vec::with_capacity(FLOWS_MAX),
            singles: vec![0; SINGLES_BYTES_MAX],
            singles_len: 0,
            singles_queued: 0,
            queue: VecDeque::with_capacity(QUEUE_MAX),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn push(&mut self, exit: Exit, packet: &[u8]) -> bool {
        Inner::parse(packet).is_ok_and(|inner| self.push_parsed(exit, packet, &inner))
    }

    pub(super) fn push_parsed(&mut self, exit: Exit, packet: &[u8], inner: &Inner) -> bool {
        let packet = &packet[..inner.total_len];
        let Some(shape) = Shape::of(exit, packet, inner) else {
            self.close_of(exit, inner);
            return self.push_single(exit, packet, Offload::NONE);
        };
        let hash = shape.flow.hash();
        let position = self.position(hash, &shape.flow);
        if let Some(position) = position {
            let index = self.open[position].1;
            if self.try_join(index, packet, &shape) {
                if !self.may_grow(index, packet, &shape) {
                    self.open.swap_remove(position);
                }
                return true;
            }
            self.open.swap_remove(position);
        }
        if ends_train(packet, &shape) || !self.open_super(hash, packet, shape) {
            return self.push_single(exit, packet, Offload::NONE);
        }
        true
    }

    pub(super) fn push_super(&mut self, exit: Exit, packet: &[u8], offload: Offload) -> bool {
        if offload.segmentation == Segmentation::None && offload.checksum.is_none() {
            return self.push(exit, packet);
        }
        let Ok(inner) = Inner::parse(packet) else {
            return false;
        };
        self.close_of(exit, &inner);
        self.push_single(exit, &packet[..inner.total_len], offload)
    }

    /// The oldest packet. Its buffer is free again as soon as the caller lets go of it.
    pub(super) fn pop(&mut self) -> Option<(Exit, Offload, &[u8])> {
        match self.queue.pop_front()? {
            Entry::Single {
                exit,
                start,
                len,
                offload,
            } => {
                self.singles_queued -= 1;
                Some((exit, offload, &self.singles[start..start + len]))
            }
            Entry::Super(index) => {
                self.open.retain(|&(_, open)| open != index);
                self.free.push(index);
                let offload = self.finish(index);
                let start = index * SUPER_LEN_MAX;
                let Super { shape, len, .. } = &self.supers[index];
                Some((shape.flow.exit, offload, &self.slab[start..start + len]))
            }
        }
    }

    fn position(&self, hash: u32, flow: &Flow) -> Option<usize> {
        self.open
            .iter()
            .rposition(|&(other, index)| other == hash && self.supers[index].shape.flow == *flow)
    }

    /// Ends every super-packet that a packet which goes alone might belong behind.
    fn close_of(&mut self, exit: Exit, inner: &Inner) {
        let Self { open, supers, .. } = self;
        open.retain(|&(_, index)| {
            let flow = &supers[index].shape.flow;
            let is_same_pair = flow.exit == exit
                && flow.src == inner.src
                && flow.dst == inner.dst
                && flow.protocol == inner.protocol;
            // A later piece of a datagram does not say its ports.
            !(is_same_pair && inner.ports.is_none_or(|ports| ports == flow.ports))
        });
    }

    fn push_single(&mut self, exit: Exit, packet: &[u8], offload: Offload) -> bool {
        if self.singles_queued == 0 {
            self.singles_len = 0;
        }
        let start = self.singles_len;
        if self.queue.len() == QUEUE_MAX || self.singles.len() - start < packet.len() {
            return false;
        }
        self.singles[start..start + packet.len()].copy_from_slice(packet);
        self.singles_len += packet.len();
        self.singles_queued += 1;
        self.queue.push_back(Entry::Single {
            exit,
            start,
            len: packet.len(),
            offload,
        });
        true
    }

    fn open_super(&mut self, hash: u32, packet: &[u8], shape: Shape) -> bool {
        if self.queue.len() == QUEUE_MAX {
            return false;
        }
        let Some(index) = self.free.pop() else {
            return false;
        };
        let start = index * SUPER_LEN_MAX;
        self.slab[start..start + packet.len()].copy_from_slice(packet);
        self.supers[index] = Super {
            shape,
            len: packet.len(),
            segments: 1,
        };
        self.open.push((hash, index));
        self.queue.push_back(Entry::Super(index));
        true
    }

    fn try_join(&mut self, index: usize, packet: &[u8], shape: &Shape) -> bool {
        let joined = &mut self.supers[index];
        let start = index * SUPER_LEN_MAX;
        let head = &mut self.slab[start..start + SUPER_LEN_MAX];
        let len = joined.len + shape.payload_len;
        if len > SUPER_LEN_MAX
            || shape.payload_len > joined.shape.payload_len
            || shape.header_len != joined.shape.header_len
            || !is_same_ip(head, packet, joined.segments)
            || !is_same_l4(head, packet, joined)
        {
            return false;
        }
        head[joined.len..len].copy_from_slice(&packet[shape.header_len..]);
        if shape.flow.protocol == TCP {
            let at = shape.l4_offset + 13;
            head[at] |= packet[at] & (flags::FIN | flags::PSH);
        }
        joined.len = len;
        joined.segments += 1;
        true
    }

    /// Whether a super-packet may still grow behind the packet that has just joined it.
    fn may_grow(&self, index: usize, packet: &[u8], shape: &Shape) -> bool {
        let joined = &self.supers[index];
        shape.payload_len == joined.shape.payload_len
            && joined.segments < SEGMENTS_MAX
            && !ends_train(packet, shape)
    }

    /// Makes the headers of a super-packet tell its whole length, and leaves its checksum partial.
    /// One packet stays as it came.
    fn finish(&mut self, index: usize) -> Offload {
        let Super {
            shape,
            len,
            segments,
        } = self.supers[index];
        if segments == 1 {
            return Offload::NONE;
        }
        let start = index * SUPER_LEN_MAX;
        let packet = &mut self.slab[start..start + len];
        if shape.l4_offset == 40 {
            put_word(packet, 4, narrow(len - 40));
        } else {
            put_word(packet, 2, narrow(len));
            set_ip_checksum(packet, shape.l4_offset);
        }
        let l4_len = len - shape.l4_offset;
        let flow = &shape.flow;
        let pseudo = Sum::pseudo(flow.src, flow.dst, flow.protocol, l4_len).folded();
        let l4 = &mut packet[shape.l4_offset..];
        if flow.protocol == UDP {
            put_word(l4, 4, narrow(l4_len));
            put_word(l4, 6, pseudo);
        } else {
            put_word(l4, 16, pseudo);
        }
        Offload::of_super(
            flow.protocol,
            narrow(shape.l4_offset),
            narrow(shape.payload_len),
        )
    }
}

impl Shape {
    /// `None` for a packet that never joins others: not TCP or UDP, IP options or extension
    /// headers, a fragment, no payload, flags that stand alone, or a checksum that is absent or
    /// wrong.
    fn of(exit: Exit, packet: &[u8], inner: &Inner) -> Option<Self> {
        let base = if inner.version == 6 { 40 } else { 20 };
        if inner.l4_offset != base {
            return None;
        }
        let l4 = &packet[base..];
        let header_len = match inner.protocol {
            TCP => {
                let header_len = tcp_payload(packet, inner).ok()?;
                let alone = flags::SYN | flags::RST | flags::URG | flags::CWR;
                if l4[13] & alone != 0 || l4[13] & flags::ACK == 0 {
                    return None;
                }
                header_len
            }
            UDP => {
                let header_len = udp_payload(packet, inner).ok()?;
                if usize::from(word(l4, 4)) != l4.len() || word(l4, 6) == 0 {
                    return None;
                }
                header_len
            }
            _ => return None,
        };
        let payload_len = packet.len() - header_len;
        let sum = Sum::pseudo(inner.src, inner.dst, inner.protocol, l4.len()).bytes(l4);
        if payload_len == 0 || sum.checksum() != 0 {
            return None;
        }
        let flow = Flow {
            exit,
            src: inner.src,
            dst: inner.dst,
            ports: inner.ports?,
            protocol: inner.protocol,
        };
        Some(Self {
            flow,
            l4_offset: base,
            header_len,
            payload_len,
        })
    }
}

impl Flow {
    /// Finds a flow among [`FLOWS_MAX`]; who makes collisions gains a walk over that many.
    fn hash(&self) -> u32 {
        let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let address = |sum: u64, address: IpAddr| match address {
            IpAddr::V4(a) => mix(sum, u64::from(u32::from(a))),
            IpAddr::V6(a) => {
                let (high, low) = (u128::from(a) >> 64, u128::from(a) & u128::from(u64::MAX));
                let low = mix(sum, u64::try_from(low).expect("masked to 64 bits"));
                mix(low, u64::try_from(high).expect("shifted to 64 bits"))
            }
        };
        let ports = u64::from(self.ports.0) << 16 | u64::from(self.ports.1);
        let sum = mix(u64::from(self.protocol), ports);
        let sum = address(address(sum, self.src), self.dst);
        u32::try_from(sum >> 32).expect("shifted to 32 bits")
    }
}

/// PSH and FIN end a train.
fn ends_train(packet: &[u8], shape: &Shape) -> bool {
    shape.flow.protocol == TCP && packet[shape.l4_offset + 13] & (flags::FIN | flags::PSH) != 0
}

/// TOS or traffic class and flow label, TTL, DF, and the identification (`inet_gro_receive`): it
/// counts up, or stays the same under DF, where it says nothing (RFC 6864).
fn is_same_ip(head: &[u8], packet: &[u8], segments: usize) -> bool {
    if packet[0] >> 4 == 6 {
        return head[..4] == packet[..4] && head[7] == packet[7];
    }
    let step = word(packet, 4).wrapping_sub(word(head, 4));
    let has_df = packet[6] & 0x40 != 0;
    head[..2] == packet[..2]
        && head[6..9] == packet[6..9]
        && (usize::from(step) == segments || (has_df && step == 0))
}

/// TCP: next sequence number, same ACK, flags, window and options. UDP: nothing beyond the ports.
fn is_same_l4(head: &[u8], packet: &[u8], joined: &Super) -> bool {
    let Shape {
        flow,
        l4_offset,
        header_len,
        ..
    } = joined.shape;
    if flow.protocol == UDP {
        return true;
    }
    let (a, b) = (&head[l4_offset..header_len], &packet[l4_offset..header_len]);
    let seq = |l4: &[u8]| u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
    let payload_len = u32::try_from(joined.len - header_len).expect("at most SUPER_LEN_MAX");
    seq(b) == seq(a).wrapping_add(payload_len)
        && a[8..13] == b[8..13]
        && (a[13] ^ b[13]) & !(flags::FIN | flags::PSH) == 0
        && a[14..16] == b[14..16]
        && a[18..] == b[18..]
}

fn narrow(len: usize) -> u16 {
    u16::try_from(len).expect("a super-packet is at most SUPER_LEN_MAX long")
}
