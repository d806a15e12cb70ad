//! What a tunnel sent lately: GRE has nothing in its header that a stranger could not guess.

/// Packets that are remembered: a tenth of a second at 10,000 packets a second, 8 KiB a tunnel.
const PACKETS: usize = 1024;
/// The shortest that any router may report as too long (RFC 791 section 3.1).
const LEN_MIN: usize = 576 - 20 - 16;

/// Fingerprints of the last long packets, in a ring.
#[derive(Debug)]
pub(super) struct Recent {
    ring: Box<[u64; PACKETS]>,
    at: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            ring: Box::new([0; PACKETS]),
            at: 0,
        }
    }
}

impl Recent {
    /// Remembers a packet.
    pub(super) fn note(&mut self, packet: &[u8]) {
        if packet.len() < LEN_MIN {
            return;
        }
        if let Some(print) = fingerprint(packet) {
            self.ring[self.at] = print;
            self.at = (self.at + 1) % PACKETS;
        }
    }

    /// Whether a packet that begins like this was sent lately.
    pub(super) fn has(&self, beginning: &[u8]) -> bool {
        fingerprint(beginning).is_some_and(|print| self.ring.contains(&print))
    }
}

/// Of the IP header and the first eight bytes behind it, which every router quotes (RFC 792).
fn fingerprint(packet: &[u8]) -> Option<u64> {
    let len = match packet.first()? >> 4 {
        4 => 28,
        6 => 48,
        _ => return None,
    };
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in packet.get(..len)?.as_chunks::<4>().0 {
        let word = u64::from(u32::from_ne_bytes(*word));
        state = (state ^ word)
            .wrapping_mul(0xff51_afd7_ed55_8ccd)
            .rotate_left(29);
    }
    // 0 stands for nothing in the ring.
    Some(state.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, id: u8) -> Vec<u8> {
        let mut packet = vec![first; 1000];
        packet[5] = id;
        packet
    }

    #[test]
    fn long_packets_are_known_by_their_beginning_until_others_came() {
        let mut recent = Recent::default();
        for first in [0x45, 0x60] {
            recent.note(&packet(first, 1));
            assert!(recent.has(&packet(first, 1)[..48]));
            assert!(!recent.has(&packet(first, 2)[..48]));
            assert!(!recent.has(&packet(first, 1)[..27]));
        }
        recent.note(&packet(0x45, 9)[..100]);
        assert!(!recent.has(&packet(0x45, 9)));
        assert!(!recent.has(&[]) && !recent.has(&[0; 48]));
        for n in 0..=u8::MAX {
            for _ in 0..4 {
                recent.note(&packet(0x45, n));
            }
        }
        assert!(!recent.has(&packet(0x60, 1)));
    }
}
