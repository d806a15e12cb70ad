//! Cuts an IPv4 packet into fragments (RFC 791 section 3.2).

use crate::wire::ip::{Inner, Malformed, put_word, word};

use super::split::set_ip_checksum;

/// The longest IPv4 header.
const HEADER_LEN_MAX: usize = 60;
const MORE: u16 = 0x2000;
const DONT: u16 = 0x4000;

/// Whether a router may cut a packet: IPv4, and its sender did not forbid it.
#[must_use]
pub fn may_cut(packet: &[u8]) -> bool {
    packet.len() >= 20 && packet[0] >> 4 == 4 && word(packet, 6) & DONT == 0
}

/// The fragments of one packet, itself perhaps one.
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    payload: &'a [u8],
    /// Of the first fragment; the others have those options only that go along.
    header: [u8; HEADER_LEN_MAX],
    header_len: usize,
    later: [u8; HEADER_LEN_MAX],
    later_len: usize,
    mtu: usize,
    /// Payload bytes already written.
    written: usize,
}

impl<'a> Fragments<'a> {
    /// Prepares to cut `packet` into fragments of at most `mtu` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when the packet does not parse, may not be cut, or `mtu` holds no header and eight bytes.
    pub fn new(packet: &'a [u8], mtu: u16) -> Result<Self, Malformed> {
        let inner = Inner::parse(packet)?;
        let (header_len, mtu) = (inner.l4_offset, usize::from(mtu));
        if !may_cut(packet) || mtu < HEADER_LEN_MAX + 8 {
            return Err(Malformed::HeaderLength);
        }
        let mut header = [0; HEADER_LEN_MAX];
        header[..header_len].copy_from_slice(&packet[..header_len]);
        let (later, later_len) = later(&header[..header_len]);
        Ok(Self {
            payload: &packet[header_len..inner.total_len],
            header,
            header_len,
            later,
            later_len,
            mtu,
            written: 0,
        })
    }

    /// Writes the next fragment to the front of `out`, and returns its length. `None` when all are written, or
    /// when `out` is shorter than the MTU.
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.written == self.payload.len() {
            return None;
        }
        let header = if self.written == 0 {
            &self.header[..self.header_len]
        } else {
            &self.later[..self.later_len]
        };
        let rest = &self.payload[self.written..];
        let room = self.mtu - header.len();
        let len = if rest.len() <= room {
            rest.len()
        } else {
            room & !7
        };
        let out = out.get_mut(..header.len() + len)?;
        let (head, behind) = out.split_at_mut(header.len());
        head.copy_from_slice(header);
        behind.copy_from_slice(&rest[..len]);
        let place = word(&self.header, 6);
        let offset = (place & 0x1fff) + narrow(self.written / 8);
        let is_more = len < rest.len() || place & MORE != 0;
        put_word(out, 2, narrow(header.len() + len));
        put_word(out, 6, offset | if is_more { MORE } else { 0 });
        set_ip_checksum(out, header.len());
        self.written += len;
        Some(out.len())
    }
}

/// The header of the fragments behind the first: options whose copied flag is set go along (RFC 791 section
/// 3.1).
fn later(first: &[u8]) -> ([u8; HEADER_LEN_MAX], usize) {
    const COPIED: u8 = 0x80;
    let mut header = [0; HEADER_LEN_MAX];
    header[..20].copy_from_slice(&first[..20]);
    let (mut at, mut len) = (20, 20);
    while let Some(kind) = first.get(at).copied() {
        let option_len = match (kind, first.get(at + 1)) {
            (0, _) => break,
            (1, _) => 1,
            (_, Some(len)) if *len >= 2 && at + usize::from(*len) <= first.len() => {
                usize::from(*len)
            }
            _ => break,
        };
        if kind & COPIED != 0 {
            header[len..len + option_len].copy_from_slice(&first[at..at + option_len]);
            len += option_len;
        }
        at += option_len;
    }
    // What is left of the last word are ends of the list: zeros.
    let len = len.next_multiple_of(4);
    header[0] = 0x40 | u8::try_from(len / 4).expect("at most 15 words");
    (header, len)
}

fn narrow(len: usize) -> u16 {
    u16::try_from(len).expect("not longer than the packet that it is of")
}
