//! The device that smoltcp sees: one packet in, one packet out, and its immediate answers.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use smoltcp::iface::{Config, Interface};
use smoltcp::phy::{
    Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, SegmentationCapabilities,
    TxToken,
};
use smoltcp::time::Instant as StackTime;
use smoltcp::wire::HardwareAddress;

use super::header;
use super::table::Key;
use crate::packet::{Offload, Segmentation};
use crate::wire::checksum::Sum;
use crate::wire::ip::{Inner, TCP, put_word};

/// The longest packet that smoltcp may make: what the length field of IPv4 can say.
const PACKET_BYTES_MAX: usize = 65_535;

const TCP_HEADER: usize = 20;

/// Immediate answers that wait to be sent. One batch of the worker is 16 super-buffers, each of
/// which is one segment to smoltcp, and each segment has at most one answer.
const REPLIES_MAX: usize = 1024;
/// The longest answer: an IPv6 header, and a TCP header with all options.
const REPLY_BYTES_MAX: usize = 40 + 60;

/// An interface without addresses that takes every packet it is given. It holds no state of any
/// flow: flows of one MTU share it.
pub(super) fn interface(mtu: u16, seed: u64, frame: &mut Frame) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut link = Link {
        mtu,
        rx: None,
        tx: frame,
    };
    let mut interface = Interface::new(config, &mut link, StackTime::ZERO);
    interface.set_any_ip(true);
    interface
}

/// Where smoltcp writes a packet.
pub(super) struct Frame {
    bytes: Box<[u8]>,
    len: usize,
    /// Payload bytes of each segment, when it is a super-packet.
    segment_size: u16,
}

impl Frame {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; PACKET_BYTES_MAX].into_boxed_slice(),
            len: 0,
            segment_size: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.segment_size = 0;
    }

    /// Lets `write` make a packet; it says how many bytes it has.
    pub(super) fn fill(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        self.segment_size = 0;
        self.len = write(&mut self.bytes);
    }

    /// Makes a TCP segment without payload or options that goes from a flow's local side.
    pub(super) fn fill_segment(&mut self, key: &Key, seq: u32, ack: u32, flags: u8) {
        self.fill(|out| {
            let header = header::len(key.remote.ip());
            let len = header + TCP_HEADER;
            header::write(key, TCP, len, out);
            let l4 = &mut out[header..len];
            l4.fill(0);
            put_word(l4, 0, key.local.port());
            put_word(l4, 2, key.remote.port());
            l4[4..8].copy_from_slice(&seq.to_be_bytes());
            l4[8..12].copy_from_slice(&ack.to_be_bytes());
            l4[12] = 5 << 4;
            l4[13] = flags;
            len
        });
    }

    /// Completes the TCP checksum, unless the packet will be cut, and says what is left to do.
    pub(super) fn finish(&mut self) -> Offload {
        if self.segment_size != 0 {
            return Offload {
                segmentation: Segmentation::Tcp,
                segment_size: self.segment_size,
                checksum: None,
            };
        }
        let packet = &mut self.bytes[..self.len];
        if let Ok(inner) = Inner::parse(packet)
            && inner.protocol == TCP
        {
            let l4 = &mut packet[inner.l4_offset..];
            l4[16..18].fill(0);
            let sum = Sum::pseudo(inner.src, inner.dst, TCP, l4.len()).bytes(l4);
            l4[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
        }
        Offload::NONE
    }

    pub(super) fn packet(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

/// Short packets that wait to be sent, oldest first.
pub(super) struct Replies {
    queue: VecDeque<(u8, [u8; REPLY_BYTES_MAX])>,
}

impl Replies {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::with_capacity(REPLIES_MAX),
        }
    }

    /// Takes what is in the frame; false when there is no room for it.
    pub(super) fn push(&mut self, frame: &mut Frame) -> bool {
        let _nothing_left = frame.finish();
        let packet = frame.packet();
        let len = packet.len();
        if len > REPLY_BYTES_MAX || self.queue.len() == REPLIES_MAX {
            return false;
        }
        let mut reply = [0; REPLY_BYTES_MAX];
        reply[..len].copy_from_slice(packet);
        let len = u8::try_from(len).expect("at most 100");
        self.queue.push_back((len, reply));
        true
    }

    /// Puts the oldest into the frame; false when there is none.
    pub(super) fn pop(&mut self, frame: &mut Frame) -> bool {
        let Some((len, reply)) = self.queue.pop_front() else {
            return false;
        };
        let len = usize::from(len);
        frame.fill(|out| {
            out[..len].copy_from_slice(&reply[..len]);
            len
        });
        true
    }
}

/// The device for one poll.
pub(super) struct Link<'a> {
    pub(super) mtu: u16,
    pub(super) rx: Option<&'a [u8]>,
    pub(super) tx: &'a mut Frame,
}

impl Device for Link<'_> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: StackTime) -> Option<(Received<'_>, Room<'_>)> {
        Some((Received(self.rx.take()?), Room(self.tx)))
    }

    fn transmit(&mut self, _: StackTime) -> Option<Room<'_>> {
        self.tx.is_empty().then_some(Room(self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut all = DeviceCapabilities::default();
        all.medium = Medium::Ip;
        all.max_transmission_unit = usize::from(self.mtu);
        // Ours is several times as fast, and the node has checked the IPv4 header already.
        all.checksum.tcp = Checksum::None;
        all.checksum.ipv4 = Checksum::Tx;
        // Not for IPv6: smoltcp 0.14 drops its super-packets as too long (`dispatch_ip`).
        let mut segmentation = SegmentationCapabilities::default();
        segmentation.tcpv4 = NonZeroUsize::new(PACKET_BYTES_MAX);
        all.segmentation = segmentation;
        all
    }
}

/// A packet on its way into smoltcp.
pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a packet on its way out of smoltcp.
pub(super) struct Room<'a>(&'a mut Frame);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.len = len;
        f(&mut self.0.bytes[..len])
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.0.segment_size = meta.segmentation_offload_size.map_or(0, |size| size.get());
    }
}
