//! Cuts a super-packet into the packets that travel.

use crate::wire::checksum::Sum;
use crate::wire::ip::{Inner, Malformed, TCP, UDP, put_word, word};

use super::{Offload, PartialChecksum, Segmentation};

/// TCP flags, byte 13 of the header (RFC 9293, RFC 3168).
pub(super) mod flags {
    pub(in crate::packet) const FIN: u8 = 0x01;
    pub(in crate::packet) const SYN: u8 = 0x02;
    pub(in crate::packet) const RST: u8 = 0x04;
    pub(in crate::packet) const PSH: u8 = 0x08;
    pub(in crate::packet) const ACK: u8 = 0x10;
    pub(in crate::packet) const URG: u8 = 0x20;
    pub(in crate::packet) const CWR: u8 = 0x80;
}

/// The packets of one super-packet, or the one packet with its checksum completed.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    inner: Inner,
    cut: Cut,
    /// Headers that every segment repeats.
    header_len: usize,
    /// Payload bytes of each segment but the last.
    segment_size: usize,
    /// Payload bytes already written.
    written: usize,
    /// Segments already written.
    index: u16,
    is_done: bool,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole(Option<PartialChecksum>),
    Tcp,
    Udp,
}

impl<'a> Segments<'a> {
    /// Prepares to cut `packet`. Header lengths come from the packet, never from `offload`, and
    /// transport checksums are computed whole.
    ///
    /// # Errors
    /// [`Malformed`] when the packet does not parse, or `offload` does not fit it.
    pub fn new(packet: &'a [u8], offload: Offload) -> Result<Self, Malformed> {
        let inner = Inner::parse(packet)?;
        let packet = &packet[..inner.total_len];
        let (cut, header_len) = match offload.segmentation {
            Segmentation::None => {
                check_partial(packet, offload.checksum)?;
                (Cut::Whole(offload.checksum), 0)
            }
            Segmentation::Tcp => (Cut::Tcp, tcp_payload(packet, &inner)?),
            Segmentation::Udp => (Cut::Udp, udp_payload(packet, &inner)?),
        };
        let segment_size = match cut {
            Cut::Whole(_) => packet.len(),
            Cut::Tcp | Cut::Udp => usize::from(offload.segment_size),
        };
        if segment_size == 0 {
            return Err(Malformed::Offload);
        }
        Ok(Self {
            packet,
            inner,
            cut,
            header_len,
            segment_size,
            written: 0,
            index: 0,
            is_done: false,
        })
    }

    /// How many packets are still to come.
    #[must_use]
    pub fn remaining(&self) -> usize {
        if self.is_done {
            return 0;
        }
        let payload = self.packet.len() - self.header_len - self.written;
        payload.div_ceil(self.segment_size).max(1)
    }

    /// Length of the longest packet: what each slice given to [`Segments::next_into`] should hold.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.packet.len().min(self.header_len + self.segment_size)
    }

    /// Writes the next packet to the front of `out`, and returns its length. `None` when all are
    /// written, or when `out` is too short, in which case nothing is lost.
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.is_done {
            return None;
        }
        let from = self.header_len + self.written;
        let payload_len = self.segment_size.min(self.packet.len() - from);
        let len = self.header_len + payload_len;
        let out = out.get_mut(..len)?;
        out[..self.header_len].copy_from_slice(&self.packet[..self.header_len]);
        out[self.header_len..].copy_from_slice(&self.packet[from..from + payload_len]);
        let is_last = from + payload_len == self.packet.len();
        match self.cut {
            Cut::Whole(None) => {}
            Cut::Whole(Some(partial)) => complete(out, partial),
            Cut::Tcp => {
                self.finish_ip(out);
                self.finish_tcp(out, is_last);
            }
            Cut::Udp => {
                self.finish_ip(out);
                self.finish_udp(out);
            }
        }
        self.written += payload_len;
        self.index = self.index.wrapping_add(1);
        self.is_done = is_last;
        Some(len)
    }

    fn finish_ip(&self, out: &mut [u8]) {
        let len = out.len();
        if self.inner.version == 6 {
            put_word(out, 4, narrow(len - 40));
            return;
        }
        // Each fragmentable packet needs an identification of its own (RFC 6864); the kernel counts
        // up too.
        let id = word(self.packet, 4).wrapping_add(self.index);
        put_word(out, 2, narrow(len));
        put_word(out, 4, id);
        set_ip_checksum(out, self.inner.l4_offset);
    }

    fn finish_tcp(&self, out: &mut [u8], is_last: bool) {
        let l4 = &mut out[self.inner.l4_offset..];
        let written = u32::try_from(self.written).expect("a packet is shorter than 2^17");
        let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]).wrapping_add(written);
        l4[4..8].copy_from_slice(&seq.to_be_bytes());
        if !is_last {
            l4[13] &= !(flags::FIN | flags::PSH);
        }
        if self.index > 0 {
            l4[13] &= !flags::CWR;
        }
        put_word(l4, 16, 0);
        let sum = self.pseudo(TCP, l4.len()).bytes(l4).checksum();
        put_word(l4, 16, sum);
    }

    fn finish_udp(&self, out: &mut [u8]) {
        let l4 = &mut out[self.inner.l4_offset..];
        let len = narrow(l4.len());
        put_word(l4, 4, len);
        put_word(l4, 6, 0);
        let sum = self.pseudo(UDP, l4.len()).bytes(l4).checksum_nonzero();
        put_word(l4, 6, sum);
    }

    fn pseudo(&self, protocol: u8, len: usize) -> Sum {
        Sum::pseudo(self.inner.src, self.inner.dst, protocol, len)
    }
}

/// How a TCP packet or super-packet is cut so that no piece of it is longer than `mtu`: the bytes of a stream may
/// come in any pieces. `None` for what is not TCP, or a piece of a packet, or says something of its own place in the
/// stream (SYN, RST, URG).
#[must_use]
pub fn cut_stream(packet: &[u8], offload: Offload, mtu: u16) -> Option<Offload> {
    let inner = Inner::parse(packet).ok()?;
    let header_len = tcp_payload(packet, &inner).ok()?;
    let flags = *packet.get(inner.l4_offset + 13)?;
    if flags & (flags::SYN | flags::RST | flags::URG) != 0 {
        return None;
    }
    let room = usize::from(mtu).checked_sub(header_len)?;
    (room > 0).then_some(Offload {
        segmentation: Segmentation::Tcp,
        segment_size: u16::try_from(room).ok()?,
        ..offload
    })
}

/// Where the TCP payload begins in a packet that may be cut.
pub(super) fn tcp_payload(packet: &[u8], inner: &Inner) -> Result<usize, Malformed> {
    let l4 = &packet[inner.l4_offset..inner.total_len];
    if inner.protocol != TCP || inner.is_fragment || l4.len() < 20 {
        return Err(Malformed::Offload);
    }
    let header_len = usize::from(l4[12] >> 4) * 4;
    if header_len < 20 || header_len > l4.len() {
        return Err(Malformed::Offload);
    }
    Ok(inner.l4_offset + header_len)
}

/// Where the UDP payload begins in a packet that may be cut.
pub(super) fn udp_payload(packet: &[u8], inner: &Inner) -> Result<usize, Malformed> {
    let l4 = &packet[inner.l4_offset..inner.total_len];
    if inner.protocol != UDP || inner.is_fragment || l4.len() < 8 {
        return Err(Malformed::Offload);
    }
    Ok(inner.l4_offset + 8)
}

/// Writes the checksum of an IPv4 header of `header_len` bytes.
pub(super) fn set_ip_checksum(packet: &mut [u8], header_len: usize) {
    put_word(packet, 10, 0);
    let sum = Sum::new().bytes(&packet[..header_len]).checksum();
    put_word(packet, 10, sum);
}

fn check_partial(packet: &[u8], partial: Option<PartialChecksum>) -> Result<(), Malformed> {
    let Some(partial) = partial else {
        return Ok(());
    };
    let end = usize::from(partial.start) + usize::from(partial.offset) + 2;
    if end > packet.len() {
        Err(Malformed::Offload)
    } else {
        Ok(())
    }
}

/// Completes a checksum whose field holds the pseudo-header sum, as `skb_checksum_help` does.
fn complete(packet: &mut [u8], partial: PartialChecksum) {
    let start = usize::from(partial.start);
    let sum = Sum::new().bytes(&packet[start..]).checksum_nonzero();
    put_word(packet, start + usize::from(partial.offset), sum);
}

fn narrow(len: usize) -> u16 {
    u16::try_from(len).expect("a segment is not longer than the packet it was cut from")
}
